from typing import Any

import numpy as np
import numpy.typing as npt

class Workspace:
    def __init__(
        self,
        *,
        largest_rows: int | None = None,
        whole_bytes: int | None = None,
        stripe_bytes: int | None = None,
    ) -> None: ...

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

class DeviceView:
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def device(self) -> int: ...
    @property
    def can_be_mined(self) -> bool: ...
    def to_numpy(self) -> npt.NDArray[Any]: ...

class DeviceArray:
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def device(self) -> int: ...
    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...
    def __dlpack__(
        self,
        *,
        stream: object = None,
        max_version: object = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...
    def __len__(self) -> int: ...
    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]: ...
    def to_numpy(self) -> npt.NDArray[Any]: ...

_Rows = npt.NDArray[np.float32] | npt.NDArray[np.float64] | DeviceView
# Where the rows are.
_Column = npt.NDArray[np.int32] | DeviceArray

def mine(
    workspace: Workspace,
    embeddings: _Rows,
    order: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    members: npt.NDArray[np.int64],
    bank_positives: bool,
    is_anchor: npt.NDArray[np.uint8],
    rule: Rule,
    seed: int,
    threads: int,
) -> tuple[tuple[_Column, _Column, _Column], int, tuple[int, int], tuple[float, float]]: ...
def count(
    workspace: Workspace,
    embeddings: _Rows,
    order: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    members: npt.NDArray[np.int64],
    bank_positives: bool,
    is_anchor: npt.NDArray[np.uint8],
    rule: Rule,
    seed: int,
    threads: int,
) -> tuple[tuple[_Column, _Column, _Column], int]: ...
def every(
    workspace: Workspace,
    embeddings: _Rows,
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
) -> tuple[_Column, tuple[float, float]]: ...
def hinge(
    workspace: Workspace,
    embeddings: _Rows,
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
    mean: bool = False,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[Any] | DeviceArray | None, int]: ...
def device_view(values: Any) -> DeviceView: ...
def to_device(
    values: npt.NDArray[np.int32] | npt.NDArray[np.float32] | npt.NDArray[np.float64],
    device: int | None = None,
) -> DeviceArray: ...
def devices() -> list[tuple[int, str, tuple[int, int], int]]: ...
def is_emulated() -> bool: ...

# Of the emulated device alone.
def limit_memory(n_bytes: int) -> None: ...
def live_bytes() -> int: ...
