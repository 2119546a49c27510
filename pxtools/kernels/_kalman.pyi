from numpy import float64
from numpy.typing import NDArray

from pxtools.kernels.kalman_results import Filtered, Smoothed

def univariate_filter(
    y: NDArray[float64],
    F: NDArray[float64],
    H: NDArray[float64],
    Q: NDArray[float64],
    R: NDArray[float64],
    c: NDArray[float64],
    d: NDArray[float64],
    x: NDArray[float64],
    P: NDArray[float64],
    Pinf: NDArray[float64],
    steady: bool = True,
) -> Filtered: ...
def univariate_smoother(
    y: NDArray[float64],
    F: NDArray[float64],
    H: NDArray[float64],
    R: NDArray[float64],
    d: NDArray[float64],
    filtered: Filtered,
    estimators: bool = True,
) -> Smoothed: ...
