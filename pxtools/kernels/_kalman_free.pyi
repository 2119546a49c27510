"""Types of the compiled twin of `kalman_free_numpy`."""

from pxtools.kernels.kalman_free_layout import FreeNumbers
from pxtools.kernels.kalman_results import Array, Counts

def settled(A: Array, x: Array, P: Array) -> tuple[Array, Array, bool]: ...

class Likelihood:
    is_exact: bool
    def __init__(self, y: Array, numbers: FreeNumbers) -> None: ...
    def at(self, moves: Array, gradients: bool = True) -> tuple[Array, Array, Counts]: ...
