"""Types of the compiled twins of `kalman_numpy`."""

from pxtools.kernels.kalman_results import Array, Filtered

def cholesky_filter(
    y: Array,
    F: Array,
    H: Array,
    Q: Array,
    R: Array,
    c: Array,
    d: Array,
    x: Array,
    P: Array,
    Pinf: Array,
    steady: bool = True,
) -> Filtered: ...
