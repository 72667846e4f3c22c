import numpy as np
from numpy.typing import NDArray

def count_accepts(
    distances: NDArray[np.float64],
    is_same: NDArray[np.uint8],
    fold: NDArray[np.int32],
    n_folds: int,
    thresholds: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...
def bootstrap(
    distances: NDArray[np.float64],
    is_same: NDArray[np.uint8],
    fold: NDArray[np.int32],
    n_folds: int,
    left: NDArray[np.int32],
    right: NDArray[np.int32],
    counts: NDArray[np.int32],
    fars: NDArray[np.float64],
) -> NDArray[np.float64]: ...
