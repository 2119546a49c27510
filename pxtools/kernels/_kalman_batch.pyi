"""Types of the compiled twins of `kalman_batch_numpy`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pxtools.kernels.kalman_results import Array

def lanes_pass(
    y: Array, parts: Sequence[Array], start: NDArray[np.int_], series: NDArray[np.int_], out: dict[str, Any]
) -> None: ...
def means_pass(
    y: Array,
    parts: Sequence[Array],
    shared: dict[str, Array],
    start: int,
    series: NDArray[np.int_],
    out: dict[str, Any],
) -> None: ...
def patterns(y: Array, wants_hash: bool = True) -> tuple[NDArray[np.uint64], NDArray[np.int_], NDArray[np.bool_]]: ...
def n_statistics(n: int, m: int) -> int: ...
