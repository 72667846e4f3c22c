from typing import Any

import numpy as np
import numpy.typing as npt

_Rows = npt.NDArray[np.int32]

class Workspace:
    def __init__(self) -> None: ...

class Rule:
    def __init__(
        self,
        *,
        pairs: str,
        n_positives: int,
        max_d_ap: float,
        quantile: float,
        relative: bool,
        low: float,
        low_is_open: bool,
        high: float,
        reach: float,
        root: bool,
        skip_hardest: float,
        pick: str,
        n_negatives: int,
        if_empty: str,
        weights: tuple[Any, ...],
    ) -> None: ...

def mine(
    workspace: Workspace,
    embeddings: npt.NDArray[Any],
    order: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    members: npt.NDArray[np.int64],
    bank_positives: bool,
    is_anchor: npt.NDArray[np.uint8],
    rule: Rule,
    seed: int,
    threads: int,
) -> tuple[tuple[_Rows, _Rows, _Rows], int, tuple[int, int], tuple[float, float]]: ...
def count(
    workspace: Workspace,
    embeddings: npt.NDArray[Any],
    order: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    members: npt.NDArray[np.int64],
    bank_positives: bool,
    is_anchor: npt.NDArray[np.uint8],
    rule: Rule,
    seed: int,
    threads: int,
) -> tuple[tuple[_Rows, _Rows, _Rows], int]: ...
def take(
    workspace: Workspace,
    embeddings: npt.NDArray[Any],
    order: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    members: npt.NDArray[np.int64],
    bank_positives: bool,
    is_anchor: npt.NDArray[np.uint8],
    rule: Rule,
    seed: int,
    threads: int,
    row_starts: npt.NDArray[np.int64],
    ranks: npt.NDArray[np.int64],
) -> _Rows: ...
def every(
    workspace: Workspace,
    embeddings: npt.NDArray[Any],
    order: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    members: npt.NDArray[np.int64],
    bank_positives: bool,
    is_anchor: npt.NDArray[np.uint8],
    rule: Rule,
    seed: int,
    threads: int,
    row_starts: npt.NDArray[np.int64],
    n: int,
) -> tuple[_Rows, tuple[float, float]]: ...
def hinge(
    workspace: Workspace,
    embeddings: npt.NDArray[Any],
    order: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    members: npt.NDArray[np.int64],
    bank_positives: bool,
    is_anchor: npt.NDArray[np.uint8],
    rule: Rule,
    seed: int,
    threads: int,
    margin: float,
    weights: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[Any] | None, int]: ...
def neighbors(
    workspace: Workspace,
    embeddings: npt.NDArray[Any],
    order: npt.NDArray[np.int32],
    first_query: int,
    n_database: int,
    begins: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    k: int,
    threads: int,
) -> tuple[_Rows, npt.NDArray[np.float64], int]: ...
def histogram(
    workspace: Workspace,
    embeddings: npt.NDArray[Any],
    order: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    n_bins: int,
    threads: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], float, float, int]: ...
def instruction_sets() -> list[str]: ...
def instruction_set() -> str: ...
def set_instruction_set(name: str) -> None: ...
def release_threads() -> None: ...
