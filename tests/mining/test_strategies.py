"""The vocabulary: each word is tested and explained, and what is none of it becomes one clear sentence."""

from __future__ import annotations

import dataclasses
import math
import pickle
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facenet_fast import Interval, Strategy, mine_triplets
from facenet_fast.mining import PRESETS, strategies
from facenet_fast.mining.strategies import BANDS, IF_EMPTY, PAIRS, PICKS, resolve_strategy

from .batches import clustered
from .contract import attempt
from .strategies_table import STRATEGIES, composed


def test_the_table_has_every_word() -> None:
    table = STRATEGIES.values()
    assert {s.pairs for s in table} == set(PAIRS)
    assert {s.band for s in table if isinstance(s.band, str)} == set(BANDS)
    assert {s.pick for s in table} == set(PICKS) - {"every"}
    assert {s.if_empty for s in table} == set(IF_EMPTY)
    assert {"every"} == {s.pick for name, s in PRESETS.items() if name not in STRATEGIES}
    intervals = [s.band for s in table if isinstance(s.band, Interval)]
    assert {(i.relative, i.low_is_open) for i in intervals} == {(r, o) for r in (0, 1) for o in (0, 1)}


def test_the_table_has_every_pick_of_several_and_every_option() -> None:
    table = STRATEGIES.values()
    assert {s.pick for s in table if s.n_negatives == 3} == set(PICKS) - {"every"}
    assert {s.pairs for s in table if s.n_positives > 1} == {
        "hardest_positive",
        "easiest_positive",
        "random_positives",
    }
    for field in dataclasses.fields(Strategy):
        if field.name not in ("band", "source"):
            assert any(getattr(s, field.name) != field.default for s in table), field.name


def test_presets_name_their_source() -> None:
    assert all(strategy.source for strategy in PRESETS.values())
    assert {"vgg_face", "facenet", "batch_hard", "batch_all", "easy_positive"} <= set(PRESETS)
    for name, strategy in PRESETS.items():
        assert resolve_strategy(name) is resolve_strategy(strategy) is strategy


def test_every_word_is_explained_once() -> None:
    for table in (PAIRS, PICKS, IF_EMPTY):
        assert len(set(table.values())) == len(table)
        assert all(sentence and "\n" not in sentence for sentence in table.values())
    assert set(strategies.__all__) >= {"BANDS", "IF_EMPTY", "PAIRS", "PICKS"}


def test_a_margin_makes_a_band() -> None:
    d_ap, d_an = np.meshgrid(np.arange(5.0), np.arange(5.0))
    expected = {
        "violating": d_an - d_ap < 2,
        "semi_hard": (d_ap < d_an) & (d_an - d_ap < 2),
        "hard": d_an < d_ap,
        "farther": d_ap < d_an,
        "all": np.full((5, 5), True),
    }
    assert set(expected) == set(BANDS)
    for word, inside in expected.items():
        interval = Strategy(word).interval(2.0)
        np.testing.assert_array_equal(interval.holds(d_ap, d_an), inside)
        assert interval.holds(1.0, 2.0) == inside[2, 1]
    own = Interval(1, 2)
    assert Strategy(own).interval(0.2) is own


@pytest.mark.parametrize(
    ("interval", "inside"),
    [
        (Interval(1.0, 3.0), {1.0, 2.0}),
        (Interval(1.0, 3.0, low_is_open=True), {2.0}),
        (Interval(high=1.0), {-1.0, 0.0}),
        (Interval(low=2.0), {2.0, 3.0, 4.0}),
        (Interval(), {-1.0, 0.0, 1.0, 2.0, 3.0, 4.0}),
        (Interval(np.float32(1), Fraction(3)), {1.0, 2.0}),
    ],
)
def test_an_interval_holds_its_low_and_not_its_high(interval: Interval, inside: set[float]) -> None:
    assert {x for x in np.arange(-1.0, 5.0).tolist() if interval.holds(7.0, 7.0 + x)} == inside
    absolute = dataclasses.replace(interval, relative=False)
    assert {x for x in np.arange(-1.0, 5.0).tolist() if absolute.holds(7.0, x)} == inside
    assert type(interval.low) is type(interval.high) is float


def test_numbers_become_plain_ones() -> None:
    strategy = Strategy(
        "all",
        "random_positives",
        n_positives=np.int64(2),  # type: ignore[arg-type]
        n_negatives=True,
        max_positive_distance=np.float32(0.5),  # type: ignore[arg-type]
        positive_quantile=1,
        skip_hardest=Decimal("0.25"),  # type: ignore[arg-type]
    )
    assert strategy == Strategy(
        "all",
        "random_positives",
        n_positives=2,
        max_positive_distance=0.5,
        positive_quantile=1.0,
        skip_hardest=0.25,
    )
    assert {type(strategy.n_positives), type(strategy.n_negatives)} == {int}
    assert {type(strategy.skip_hardest), type(strategy.positive_quantile)} == {float}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(composed())
def test_a_strategy_is_a_value(strategy: Strategy) -> None:
    assert pickle.loads(pickle.dumps(strategy)) == strategy
    assert hash(strategy) == hash(dataclasses.replace(strategy))
    assert eval(repr(strategy), {"Strategy": Strategy, "Interval": Interval, "inf": math.inf}) == strategy
    with pytest.raises(dataclasses.FrozenInstanceError):
        strategy.pick = "nearest"  # type: ignore[misc]


def words(table: Any) -> str:
    return ", ".join(table)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"band": "easy"}, ValueError, f"band must be one of {words(BANDS)} or an Interval; got 'easy'"),
        ({"band": None}, ValueError, f"band must be one of {words(BANDS)} or an Interval; got None"),
        ({"band": (0.0, 1.0)}, ValueError, r"band must be one of .* or an Interval; got \(0.0, 1.0\)"),
        ({"band": ["hard"]}, ValueError, "band must be one of"),
        ({"pairs": "all"}, ValueError, f"pairs must be one of {words(PAIRS)}; got 'all'"),
        ({"pairs": 3}, ValueError, f"pairs must be one of {words(PAIRS)}; got 3"),
        ({"pick": "hardest"}, ValueError, f"pick must be one of {words(PICKS)}; got 'hardest'"),
        ({"pick": {}}, ValueError, f"pick must be one of {words(PICKS)}; got {{}}"),
        ({"if_empty": "raise"}, ValueError, f"if_empty must be one of {words(IF_EMPTY)}; got 'raise'"),
        ({"if_empty": False}, ValueError, f"if_empty must be one of {words(IF_EMPTY)}; got False"),
        *(
            ({"pairs": pairs, "n_positives": 2}, ValueError, f"n_positives is for .*got it with '{pairs}'")
            for pairs in ("each_once", "both_ways", "moderate_positive")
        ),
        *(
            ({name: value}, error, f"{name} must be {message}")
            for name in ("n_positives", "n_negatives")
            for value, error, message in [
                (0, ValueError, r"in \[1, 2147483647\]; got 0"),
                (-1, ValueError, r"in \[1, 2147483647\]; got -1"),
                (2**31, ValueError, r"in \[1, 2147483647\]; got 2147483648"),
                (1.0, TypeError, "a whole number; got 1.0"),
                ("2", TypeError, "a whole number; got '2'"),
                (None, TypeError, "a whole number; got None"),
            ]
        ),
        ({"max_positive_distance": 0}, ValueError, "max_positive_distance must be positive; got 0"),
        ({"max_positive_distance": -1.0}, ValueError, "max_positive_distance must be positive; got -1.0"),
        ({"positive_quantile": 0}, ValueError, r"positive_quantile must be in \(0, 1\]; got 0"),
        ({"positive_quantile": 1.01}, ValueError, r"positive_quantile must be in \(0, 1\]; got 1.01"),
        ({"positive_quantile": -0.5}, ValueError, r"positive_quantile must be in \(0, 1\]; got -0.5"),
        ({"skip_hardest": 1}, ValueError, r"skip_hardest must be in \[0, 1\); got 1"),
        ({"skip_hardest": -1e-9}, ValueError, r"skip_hardest must be in \[0, 1\); got -1e-09"),
        ({"skip_hardest": None}, TypeError, "skip_hardest must be a number; got None"),
        ({"near": 0}, ValueError, r"near must be in \[0.001, 2\); got 0"),
        ({"near": 2}, ValueError, r"near must be in \[0.001, 2\); got 2"),
        ({"far": 0.5}, ValueError, "far must be above near; got 0.5"),
        ({"near": 1.5}, ValueError, "far must be above near; got 1.4"),
        *(
            ({name: value}, error, f"{name} must be a number")
            for name in ("max_positive_distance", "positive_quantile", "skip_hardest", "near", "far")
            for value, error in [
                (math.nan, ValueError),
                (np.float32("nan"), ValueError),
                (10**400, ValueError),
                ("wide", TypeError),
                (1j, TypeError),
                ([0.5, 0.6], TypeError),
            ]
        ),
        ({"pick": "every", "n_negatives": 2}, ValueError, "pick 'every' takes all candidates"),
        ({"pick": "every", "if_empty": "nearest"}, ValueError, "pick 'every' takes all candidates"),
    ],
)  # fmt: skip
def test_what_is_no_strategy_is_one_clear_sentence(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{message}") as caught:
        Strategy(**{"band": "all", **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"low": 1.0, "high": 1.0}, ValueError, "low must be below its high; got low=1.0 and high=1.0"),
        ({"low": 2, "high": 1}, ValueError, "low must be below its high; got low=2.0 and high=1.0"),
        ({"low": math.inf}, ValueError, "low must be below its high; got low=inf and high=inf"),
        ({"high": -math.inf}, ValueError, "low must be below its high; got low=-inf and high=-inf"),
        ({"low": math.nan}, ValueError, "low of an interval must be a number; got nan"),
        ({"high": math.nan}, ValueError, "high of an interval must be a number; got nan"),
        ({"low": "wide"}, TypeError, "low of an interval must be a number; got 'wide'"),
        ({"high": None}, TypeError, "high of an interval must be a number; got None"),
        ({"high": 10**400}, ValueError, "high of an interval must be a number in float's range"),
    ],
)
def test_what_is_no_interval_is_one_clear_sentence(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        Interval(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("flag", ["yes", None, 2, 0.0, np.ones(2), []])
@pytest.mark.parametrize("name", ["relative", "low_is_open"])
def test_a_flag_is_true_or_false_or_refused(name: str, flag: Any) -> None:
    embeddings, labels = clustered(4, 3, 5)

    def mine(backend: Any) -> Any:
        strategy = Strategy(Interval(0.0, 1.0, **{name: flag}), pick="nearest")
        return mine_triplets(embeddings, labels, strategy=strategy, backend=backend).negative.tolist()

    assert attempt(lambda: mine("native")) == attempt(lambda: mine("reference"))


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.sampled_from([*PAIRS, *PICKS, *BANDS, *IF_EMPTY, 1j, b"", [], {}, (), object(), Interval(0, 1)]),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    options=st.dictionaries(
        st.sampled_from([f.name for f in dataclasses.fields(Strategy) if f.name != "source"]),
        anything,
        max_size=4,
    )
)
def test_any_strategy_is_one_or_one_clear_sentence(options: dict[str, Any]) -> None:
    strategy = attempt(lambda: Strategy(**{"band": "all", **options}))
    if isinstance(strategy, Strategy):
        assert strategy.pairs in PAIRS
        assert strategy.pick in PICKS
        assert isinstance(strategy.interval(0.2), Interval)
        assert dataclasses.replace(strategy) == strategy


@pytest.mark.parametrize("name", ["", "Facenet", "semi_hard", "facenet ", "every"])
def test_a_name_that_is_no_presets_lists_them(name: str) -> None:
    with pytest.raises(ValueError, match=f"^strategy must be one of {words(sorted(PRESETS))}; got '{name}'$"):
        resolve_strategy(name)
    for value in (None, 3, ["facenet"], Strategy):
        with pytest.raises(TypeError, match=r"^strategy must be a preset's name or a Strategy; got "):
            resolve_strategy(value)  # type: ignore[arg-type]
