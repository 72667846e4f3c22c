"""THE SPECIFICATION of mining: float64, obvious loops, no speed. Every backend equals it, pick for pick.

Rows come grouped: identity ``i`` owns the rows ``offsets[i] .. offsets[i + 1]``, and those from
``members[i]`` on are a memory bank's: never anchors, positives only if asked. All randomness is a pure
function of (seed, anchor, positive), so it does not matter who computes a pair, or when.

An anchor's *negatives* are the rows of the other identities, in order, less the nearest where the rule skips
some; a pair's *candidates* are the negatives in the band. Equal distances are in the order of their rows.
Ranks are by squared distances, and so are ``reach`` and the weights; a rule of roots compares the float64
roots of squared distances, and the differences of those, with its other numbers.

A uniform pick of a pair (anchor, positive)
    Draw some negatives uniformly, with replacement: those that are candidates and have not been drawn before
    are the picks, as many as are wanted. What is missing then is drawn uniformly among all other candidates.
    Either way every candidate is equally likely.

How many draws a pair gets is a matter of speed alone, yet it shows in the picks, so it is defined here.

- The pilot is `N_PILOT` random (pair, negative) trials over the whole batch. Where at least `PILOT_SHARE` of
  them are candidates, all pairs draw `N_DRAWS` times for each pick. If that leaves ``n_left`` pairs of an
  anchor short of a pick, those draw ``n_rows // (MORE_DRAWS * n_left)`` times more: together, for less than a
  look at all rows.
- Otherwise, in a batch of at least `SAMPLE_FROM_ROWS` rows, those pairs draw of which at least
  `N_SAMPLE_HITS` of ``n_sampled`` random negatives of the anchor are candidates, and for each pick they draw
  `DRAWS_PER_SAMPLED` times as often. One negative is sampled for every `ROWS_PER_SAMPLED` rows, and
  `LEAST_SAMPLED` at least.
- Rules that skip the hardest, or need the nearest negative to choose a positive, look at all negatives first:
  their pairs do not draw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from .rule import Rule

__all__ = [
    "DRAWS_PER_SAMPLED",
    "LEAST_SAMPLED",
    "MORE_DRAWS",
    "N_DRAWS",
    "N_PILOT",
    "N_SAMPLE_HITS",
    "PILOT_SHARE",
    "ROWS_PER_SAMPLED",
    "SAMPLE_FROM_ROWS",
    "Mined",
    "Rows",
    "mine",
    "neighbors",
    "squared_distances",
]

N_DRAWS = 32
MORE_DRAWS = 4
N_PILOT = 128
PILOT_SHARE = 0.25
LEAST_SAMPLED = 8
ROWS_PER_SAMPLED = 256
N_SAMPLE_HITS = 2
DRAWS_PER_SAMPLED = 4
SAMPLE_FROM_ROWS = 512

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_RANK_DRAW = 1 << 32  # of a pair's stream, and beyond all others
# Stand where an anchor or a positive would: no row has this number.
_PILOT_STREAM = _POSITIVES_STREAM = _MASK

# Weights are taken relative to a multiple of this, so that float64 holds them.
_LEVEL_HEIGHT = 512.0


def mix(x: int) -> int:
    """Scramble 64 bits: the output function of SplitMix64 (Steele, Lea, Flood 2014)."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def stream(seed: int, anchor: int, positive: int) -> int:
    """Return the state in which the pair's SplitMix64 generator starts."""
    return mix((mix((mix((seed + _GOLDEN) & _MASK) + anchor) & _MASK) + positive) & _MASK)


def draw(state: int, i: int, n: int) -> int:
    """Return the stream's ``i``-th draw as a whole number in ``[0, n)``, uniform to ``n / 2**64``."""
    return (mix((state + (i + 1) * _GOLDEN) & _MASK) * n) >> 64


def draw_unit(state: int, i: int) -> float:
    """Return the stream's ``i``-th draw as a number in ``[0, 1)``."""
    return draw(state, i, 1 << 53) / (1 << 53)


def squared_distances(x: npt.NDArray[Any], rows: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return ``sum((x - row) ** 2)`` for each row in float64, in all backends' one order of summation.

    Eight running sums take the coordinates in turn and are folded in halves: float64 sums depend on their
    order in the last bit, and mathematically equal distances must come out equal.
    """
    sums = np.zeros((len(rows), 8))
    for start in range(0, len(x), 8):
        difference = x[start : start + 8].astype(np.float64) - rows[:, start : start + 8].astype(np.float64)
        sums[:, : difference.shape[1]] += difference * difference
    for half in (4, 2, 1):
        sums[:, :half] += sums[:, half : 2 * half]
    return sums[:, 0]


@dataclass(frozen=True, eq=False)
class Rows:
    """A batch in grouped order, and who may be what.

    Attributes
    ----------
    embeddings : float array, shape (n_rows, size)
    offsets : int64 array, shape (n_identities + 1,)
    members : int64 array, shape (n_identities,)
        Where each identity's rows of the bank begin.
    bank_positives : bool
        Whether rows of the bank may be positives.
    is_anchor : uint8 array, shape (n_rows,) or (0,)
        Pairs are mined of rows that it marks; of all where it is empty.
    """

    embeddings: npt.NDArray[Any]
    offsets: npt.NDArray[np.int64]
    members: npt.NDArray[np.int64]
    bank_positives: bool
    is_anchor: npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Mined:
    """What a backend finds; rows are grouped rows, in the order of anchor, positive and pick.

    Attributes
    ----------
    triplets : int32 array, shape (n_triplets, 3)
    pairs : int32 array, shape (n_pairs, 2)
        All pairs that the rule looks at.
    n_candidates : int32 array, shape (n_pairs,)
    sums : (float, float)
        Sums over the triplets of ``d_ap`` and ``d_an``, in the unit of the rule.
    """

    triplets: npt.NDArray[np.int32]
    pairs: npt.NDArray[np.int32]
    n_candidates: npt.NDArray[np.int32]
    sums: tuple[float, float]


def mine(rows: Rows, rule: Rule, seed: int) -> Mined:
    """Mine grouped rows."""
    n_rows = len(rows.embeddings)
    squared = [squared_distances(row, rows.embeddings) for row in rows.embeddings]
    spans = [(int(b), int(e)) for b, e in pairwise(rows.offsets) for _ in range(b, e)]
    member_ends = [
        int(m) for m, (b, e) in zip(rows.members, pairwise(rows.offsets), strict=True) for _ in range(b, e)
    ]
    negatives = [[*range(begin), *range(end, n_rows)] for begin, end in spans]
    for anchor, its_negatives in enumerate(negatives):
        n_skipped = int(rule.skip_hardest * len(its_negatives))
        skipped = sorted(its_negatives, key=lambda n: (squared[anchor][n], n))[:n_skipped]
        negatives[anchor] = sorted({*its_negatives} - {*skipped})

    pairs = _pairs(rows, rule, seed, squared, spans, member_ends, negatives)

    def is_candidate(anchor: int, positive: int, other: Any) -> Any:
        d_ap, d_an = squared[anchor][positive], squared[anchor][other]
        return rule.band.holds(_in_unit(rule, d_ap), _in_unit(rule, d_an)) & (d_an < rule.reach)

    def drawn(state: int, anchor: int, i: int) -> int:
        return int(negatives[anchor][draw(state, i, len(negatives[anchor]))])

    k = rule.n_negatives
    trials = [pair for pair in pairs if negatives[pair[0]]] if rule.draws else []
    hits = 0
    for trial in range(N_PILOT if trials else 0):
        state = stream(seed, _PILOT_STREAM, trial)
        a, p = trials[draw(state, 0, len(trials))]
        hits += bool(is_candidate(a, p, drawn(state, a, 1)))
    pilot = rule.draws and hits >= PILOT_SHARE * N_PILOT
    n_sampled = max(LEAST_SAMPLED, n_rows // ROWS_PER_SAMPLED)

    def is_sampled(anchor: int, positive: int) -> bool:
        state = stream(seed, anchor, anchor)  # no pair's: an anchor is not its own positive
        hits = sum(bool(is_candidate(anchor, positive, drawn(state, anchor, i))) for i in range(n_sampled))
        return n_rows >= SAMPLE_FROM_ROWS and hits >= N_SAMPLE_HITS

    def take_drawn(anchor: int, positive: int, numbers: range, picks: list[int]) -> None:
        state = stream(seed, anchor, positive)
        for i in numbers:
            if len(picks) == k:
                return
            negative = drawn(state, anchor, i)
            if negative not in picks and is_candidate(anchor, positive, negative):
                picks.append(negative)

    def draw_some(anchor: int, picks: dict[int, list[int]]) -> None:
        n_draws = k * (N_DRAWS if pilot else DRAWS_PER_SAMPLED * n_sampled)
        for positive, its_picks in picks.items():
            if pilot or is_sampled(anchor, positive):
                take_drawn(anchor, positive, range(n_draws), its_picks)
        left = [positive for positive, its_picks in picks.items() if len(its_picks) < k]
        if pilot and left:
            n_more = n_rows // (MORE_DRAWS * len(left))
            for positive in left:
                take_drawn(anchor, positive, range(n_draws, n_draws + n_more), picks[positive])

    triplets, mined_pairs, n_candidates = [], [], []
    for anchor, its_pairs in groupby(pairs, key=lambda pair: pair[0]):
        if len(rows.is_anchor) and not rows.is_anchor[anchor]:
            continue
        picks: dict[int, list[int]] = {positive: [] for _, positive in its_pairs}
        others = np.array(negatives[anchor], dtype=np.intp)
        if rule.draws and len(others):
            draw_some(anchor, picks)
        by_distance = sorted(others.tolist(), key=lambda n: (squared[anchor][n], n))
        for positive, its_picks in picks.items():
            candidates = others[is_candidate(anchor, positive, others)].tolist()
            mined_pairs.append((anchor, positive))
            n_candidates.append(len(candidates))
            if rule.pick == "every":
                its_picks += candidates
            elif rule.pick == "nearest":
                its_picks += sorted(candidates, key=lambda n: (squared[anchor][n], n))[:k]
            elif rule.pick == "farthest":
                its_picks += sorted(candidates, key=lambda n: (-squared[anchor][n], n))[:k]
            elif rule.pick == "uniform":
                _rank_rest(stream(seed, anchor, positive), candidates, k, its_picks)
            else:
                _weighted(rule, stream(seed, anchor, positive), squared[anchor], candidates, its_picks)
            if not its_picks and len(others) and rule.if_empty != "drop":
                farthest = max(squared[anchor][others])
                its_picks.append(
                    by_distance[0]
                    if rule.if_empty == "nearest"
                    else next(n for n in others.tolist() if squared[anchor][n] == farthest)
                )
            triplets += [(anchor, positive, pick) for pick in its_picks]
    return Mined(
        triplets=np.array(triplets, dtype=np.int32).reshape(-1, 3),
        pairs=np.array(mined_pairs, dtype=np.int32).reshape(-1, 2),
        n_candidates=np.array(n_candidates, dtype=np.int32),
        sums=(
            float(sum(_in_unit(rule, squared[a][p]) for a, p, _ in triplets)),
            float(sum(_in_unit(rule, squared[a][n]) for a, _, n in triplets)),
        ),
    )


def _in_unit(rule: Rule, squared: Any) -> Any:
    """Return squared distances as the rule's numbers measure them."""
    return np.sqrt(squared) if rule.root else squared


def _pairs(
    rows: Rows,
    rule: Rule,
    seed: int,
    squared: list[npt.NDArray[np.float64]],
    spans: list[tuple[int, int]],
    member_ends: list[int],
    negatives: list[list[int]],
) -> list[tuple[int, int]]:
    """List the pairs that the rule looks at, whoever is an anchor."""
    n_rows = len(spans)
    ends = [
        end if rows.bank_positives else member for (_, end), member in zip(spans, member_ends, strict=True)
    ]
    anchors = [row for row in range(n_rows) if row < member_ends[row]]
    each_once = [(a, p) for a in anchors for p in range(a + 1, ends[a])]
    limit = math.inf
    if rule.quantile < 1 and each_once:
        limit = sorted(squared[a][p] for a, p in each_once)[math.ceil(rule.quantile * len(each_once)) - 1]

    def is_sound(anchor: int, positive: int) -> bool:
        d_ap = squared[anchor][positive]
        return bool(_in_unit(rule, d_ap) < rule.max_d_ap and d_ap <= limit)

    if rule.pairs == "each_once":
        return [pair for pair in each_once if is_sound(*pair)]

    pairs = []
    for a in anchors:
        sound = [p for p in range(spans[a][0], ends[a]) if p != a and is_sound(a, p)]
        d_ap = squared[a]
        n = min(rule.n_positives, len(sound))
        if rule.pairs == "hardest_positive":
            sound = sorted(sound, key=lambda p: (-d_ap[p], p))[:n]
        elif rule.pairs == "easiest_positive":
            sound = sorted(sound, key=lambda p: (d_ap[p], p))[:n]
        elif rule.pairs == "moderate_positive":
            nearest = min((d_ap[negative] for negative in negatives[a]), default=-math.inf)
            sound = sorted((p for p in sound if d_ap[p] < nearest), key=lambda p: (-d_ap[p], p))[:1]
        elif rule.pairs == "random_positives":
            state = stream(seed, a, _POSITIVES_STREAM)
            for i in range(n):
                j = i + draw(state, i, len(sound) - i)
                sound[i], sound[j] = sound[j], sound[i]
            sound = sound[:n]
        pairs += [(a, p) for p in sorted(sound)]
    return pairs


def _rank_rest(state: int, candidates: list[int], k: int, picks: list[int]) -> None:
    """Draw what is missing of k picks uniformly among the candidates that are none yet."""
    rest = [n for n in candidates if n not in picks]
    while len(picks) < k and rest:
        picks.append(rest.pop(draw(state, _RANK_DRAW + len(picks), len(rest))))


def _weighted(
    rule: Rule, state: int, squared: npt.NDArray[np.float64], candidates: list[int], picks: list[int]
) -> None:
    """Draw picks with probabilities proportional to their weights, without replacement.

    A bin is drawn by the number of its candidates times its bound, one of them uniformly, and that is taken
    with the probability of its weight over the bound; else all is drawn again.
    """
    weights = rule.weights
    assert weights is not None
    rest = list(candidates)
    i = _RANK_DRAW
    while len(picks) < rule.n_negatives and rest:
        bins: dict[int, list[int]] = {}
        for n in rest:
            bins.setdefault(weights.bin(float(squared[n])), []).append(n)
        numbers = sorted(bins)
        top = max(weights.log_bounds[b] for b in numbers)
        level = _LEVEL_HEIGHT * math.floor(top / _LEVEL_HEIGHT)
        sums = list(accumulate(len(bins[b]) * math.exp(weights.log_bounds[b] - level) for b in numbers))
        while True:
            mark = draw_unit(state, i) * sums[-1]
            b = next((b for b, cumulated in zip(numbers, sums, strict=True) if mark < cumulated), numbers[-1])
            n = bins[b][draw(state, i + 1, len(bins[b]))]
            chance = math.exp(weights.log_weight(float(squared[n])) - weights.log_bounds[b])
            i += 3
            if draw_unit(state, i - 1) < chance:
                break
        picks.append(n)
        rest.remove(n)


def neighbors(
    queries: npt.NDArray[Any],
    database: npt.NDArray[Any],
    k: int,
    excluded: npt.NDArray[np.bool_] | None,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """Return the k nearest rows of the database and their squared distances for each query.

    What is missing where fewer are allowed is -1, infinitely far. ``excluded``: (n_queries, n_database).
    """
    indices = np.full((len(queries), k), -1, dtype=np.int32)
    distances = np.full((len(queries), k), np.inf)
    for q, query in enumerate(queries):
        squared = squared_distances(query, database)
        allowed = np.flatnonzero(~excluded[q]) if excluded is not None else np.arange(len(database))
        order = allowed[np.lexsort((allowed, squared[allowed]))][:k]
        indices[q, : len(order)] = order
        distances[q, : len(order)] = squared[order]
    return indices, distances
