import dataclasses

import pytest

from facenet_fast import Strategy
from facenet_fast.losses.recipe import DISTANCES, Recipe
from facenet_fast.mining import PRESETS


def test_a_name_becomes_its_strategy():
    assert Recipe("batch_hard").strategy is PRESETS["batch_hard"]
    own = Strategy("hard", "both_ways")
    assert Recipe(own, 1, "cosine", True).strategy is own


def test_equal_recipes_are_one_key():
    assert len({Recipe("facenet", 1), Recipe(PRESETS["facenet"], 1.0), Recipe("facenet", 2)}) == 2
    assert dataclasses.replace(Recipe("facenet", 1), soft=True) == Recipe("facenet", 1, soft=True)


@pytest.mark.parametrize("name", ["strategy", "margin", "distance", "soft"])
def test_nothing_can_be_changed(name):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(Recipe("facenet"), name, None)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"margin": -0.1}, ValueError, r"margin must be positive and finite; got -0\.1"),
        ({"margin": float("inf")}, ValueError, "margin must be positive and finite; got inf"),
        ({"margin": "wide"}, TypeError, "margin must be a number; got 'wide'"),
        ({"distance": "manhattan"}, ValueError, f"distance must be one of {', '.join(DISTANCES)}; got 'manh"),
        ({"soft": 1}, TypeError, "soft must be True or False; got 1"),
        ({"strategy": "triple"}, ValueError, "strategy must be one of batch_all, .*; got 'triple'"),
        ({"strategy": None}, TypeError, "strategy must be a preset's name or a Strategy; got None"),
    ],
)
def test_bad_values_are_named(values, error, message):
    with pytest.raises(error, match=message):
        Recipe(**{"strategy": "facenet", **values})
