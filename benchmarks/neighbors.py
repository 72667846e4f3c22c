"""The ways to find each row's nearest others that people use today, each judged; `RIVALS` lists them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from facenet_fast import nearest_neighbors

from .rules import TOLERANCE, Rows

__all__ = ["RIVALS", "NeighborRival"]

# Rows whose neighbors are judged.
N_JUDGED = 50

Find = Callable[[], npt.NDArray[Any]]


@dataclass(frozen=True)
class NeighborRival:
    """One way to find neighbors.

    Attributes
    ----------
    name : str
        As the table calls it.
    prepare : callable
        (rows, k, n_threads) to a function without arguments that returns the rows' k nearest others.
    package : str
        What it imports; empty for none but this one.
    """

    name: str
    prepare: Callable[[Rows, int, int], Find]
    package: str = ""

    def why_not(self) -> str:
        """Return why it cannot run here; empty if it can."""
        missing = self.package and find_spec(self.package) is None
        return f"{self.package} not installed (extra `bench`)" if missing else ""

    def judge(self, answer: npt.NDArray[Any], rows: Rows, k: int) -> None:
        """Demand k others of each row, none farther than the k-th nearest in float64."""
        assert answer.shape == (len(rows), k)
        for i in np.unique(np.linspace(0, len(rows) - 1, N_JUDGED).astype(int)):
            assert len({*answer[i].tolist(), int(i)}) == k + 1
            squared = np.square(rows.astype(np.float64) - rows[i].astype(np.float64)).sum(axis=1)
            kth = np.partition(np.delete(squared, i), k - 1)[k - 1]
            assert (squared[answer[i]] <= kth + TOLERANCE).all()


def _native(rows: Rows, k: int, n_threads: int) -> Find:
    return lambda: nearest_neighbors(rows, k=k, threads=n_threads).indices


def _faiss(rows: Rows, k: int, n_threads: int) -> Find:
    """Ask for one more: the nearest is the row itself, or one that coincides with it."""
    import faiss

    faiss.omp_set_num_threads(n_threads)

    def find() -> npt.NDArray[Any]:
        index = faiss.IndexFlatL2(rows.shape[1])
        index.add(rows)
        _, found = index.search(rows, k + 1)
        is_self = found == np.arange(len(rows))[:, None]
        is_self[~is_self.any(axis=1), -1] = True
        return np.asarray(found[~is_self].reshape(len(rows), k))

    return find


def _scikit_learn(rows: Rows, k: int, n_threads: int) -> Find:
    from sklearn.neighbors import NearestNeighbors
    from threadpoolctl import threadpool_limits

    def find() -> npt.NDArray[Any]:
        with threadpool_limits(n_threads):
            return np.asarray(
                NearestNeighbors(n_neighbors=k, algorithm="brute").fit(rows).kneighbors(return_distance=False)
            )

    return find


RIVALS = (
    NeighborRival("facenet-fast, `nearest_neighbors`", _native),
    NeighborRival("faiss, flat index", _faiss, "faiss"),
    NeighborRival("scikit-learn, brute force", _scikit_learn),
)
