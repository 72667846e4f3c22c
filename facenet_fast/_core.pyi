from typing import Any

import numpy as np
import numpy.typing as npt

_Rows = npt.NDArray[np.int32]

class Workspace:
    def __init__(self) -> None: ...

def mine(
    workspace: Workspace,
    embeddings: npt.NDArray[Any],
    order: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    is_anchor: npt.NDArray[np.uint8],
    band: str,
    margin: float,
    seed: int,
    threads: int,
) -> tuple[tuple[_Rows, _Rows, _Rows], int]: ...
def instruction_sets() -> list[str]: ...
def instruction_set() -> str: ...
def set_instruction_set(name: str) -> None: ...
def release_threads() -> None: ...
