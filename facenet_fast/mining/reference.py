"""THE SPECIFICATION of mining: float64, obvious loops, no speed. Every backend equals it, pick for pick.

Rows come grouped: identity ``i`` owns the rows ``offsets[i] .. offsets[i + 1]``. All randomness is a pure
function of (seed, anchor, positive), so it does not matter who computes a pair, or when.

The pick of a pair (anchor, positive)
    The *negatives* are the rows of the other identities, in order; its *candidates* are the negatives in the
    strategy's band. Draw some negatives uniformly, with replacement; the first that is a candidate is the
    pick. If none was, the pick is a uniformly drawn one of all candidates, and a pair without candidates
    gives no triplet. Either way every candidate is equally likely.

How many draws a pair gets is a matter of speed alone, yet it shows in the picks, so it is defined here.

- The pilot is `N_PILOT` random (pair, negative) trials over the whole batch. Where at least `PILOT_SHARE` of
  them are candidates, all pairs draw `N_DRAWS` times. If that leaves ``n_left`` pairs of an anchor without a
  pick, those draw ``n_rows // (MORE_DRAWS * n_left)`` times more: together, for less than a look at all rows.
- Otherwise, in a batch of at least `SAMPLE_FROM_ROWS` rows, those pairs draw of which at least
  `N_SAMPLE_HITS` of ``n_sampled`` random negatives of the anchor are candidates, and they draw
  `DRAWS_PER_SAMPLED` times as often. One negative is sampled for every `ROWS_PER_SAMPLED` rows, and
  `LEAST_SAMPLED` at least.
"""

from __future__ import annotations

from itertools import groupby, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from .strategies import Strategy

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
    "in_band",
    "mine",
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
_PILOT_STREAM = _MASK  # stands where an anchor would: no row has this number


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


def in_band(strategy: Strategy, d_ap: Any, d_an: Any, margin: float) -> Any:
    """Say whether a negative at squared distance ``d_an`` is a candidate; arrays give arrays."""
    violating = d_an - d_ap < margin
    return violating if strategy.band == "violating" else violating & (d_ap < d_an)


def mine(
    embeddings: npt.NDArray[Any],
    offsets: npt.NDArray[np.int64],
    is_anchor: npt.NDArray[np.uint8],
    strategy: Strategy,
    margin: float,
    seed: int,
) -> npt.NDArray[np.int32]:
    """Mine grouped rows; return (n_triplets, 3): anchor, positive, negative, by anchor and positive.

    Pairs are mined of rows that `is_anchor` marks, of all where it is empty.
    """
    n_rows = len(embeddings)
    squared = [squared_distances(row, embeddings) for row in embeddings]
    spans = [(int(b), int(e)) for b, e in pairwise(offsets) for _ in range(b, e)]
    negatives = [[*range(begin), *range(end, n_rows)] for begin, end in spans]
    pairs = [(a, p) for a in range(n_rows) for p in range(a + 1, spans[a][1]) if negatives[a]]

    def is_candidate(anchor: int, positive: int, other: Any) -> Any:
        return in_band(strategy, squared[anchor][positive], squared[anchor][other], margin)

    def drawn(state: int, anchor: int, i: int) -> int:
        return int(negatives[anchor][draw(state, i, len(negatives[anchor]))])

    hits = 0
    for trial in range(N_PILOT if pairs else 0):
        state = stream(seed, _PILOT_STREAM, trial)
        a, p = pairs[draw(state, 0, len(pairs))]
        hits += bool(is_candidate(a, p, drawn(state, a, 1)))
    pilot = hits >= PILOT_SHARE * N_PILOT
    n_sampled = max(LEAST_SAMPLED, n_rows // ROWS_PER_SAMPLED)
    n_draws = N_DRAWS if pilot else DRAWS_PER_SAMPLED * n_sampled

    def first_drawn(anchor: int, positive: int, numbers: range) -> int | None:
        state = stream(seed, anchor, positive)
        tries = (drawn(state, anchor, i) for i in numbers)
        return next((n for n in tries if is_candidate(anchor, positive, n)), None)

    def is_sampled(anchor: int, positive: int) -> bool:
        state = stream(seed, anchor, anchor)  # no pair's: an anchor is not its own positive
        hits = sum(bool(is_candidate(anchor, positive, drawn(state, anchor, i))) for i in range(n_sampled))
        return n_rows >= SAMPLE_FROM_ROWS and hits >= N_SAMPLE_HITS

    triplets = []
    for anchor, its_pairs in groupby(pairs, key=lambda pair: pair[0]):
        if len(is_anchor) and not is_anchor[anchor]:
            continue
        positives = [positive for _, positive in its_pairs]
        picks = {
            p: first_drawn(anchor, p, range(n_draws)) if pilot or is_sampled(anchor, p) else None
            for p in positives
        }
        left = [p for p in positives if picks[p] is None]
        if pilot and left:
            n_more = n_rows // (MORE_DRAWS * len(left))
            picks |= {p: first_drawn(anchor, p, range(N_DRAWS, N_DRAWS + n_more)) for p in left}
        for p, pick in picks.items():
            if pick is None:
                candidates = np.array(negatives[anchor])[is_candidate(anchor, p, negatives[anchor])]
                if len(candidates) == 0:
                    continue
                pick = int(candidates[draw(stream(seed, anchor, p), _RANK_DRAW, len(candidates))])
            triplets.append((anchor, p, pick))
    return np.array(triplets, dtype=np.int32).reshape(-1, 3)
