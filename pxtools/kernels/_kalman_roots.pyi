"""Types of the compiled twins of `kalman_roots_numpy` and `kalman_rows_numpy`."""

from pxtools.kernels.kalman_results import Array, Filtered, Smoothed

def square_root_filter(
    y: Array, F: Array, H: Array, half_Q: Array, half_R: Array, c: Array, d: Array, x: Array, S: Array, B: Array
) -> Filtered: ...
def square_root_smoother(
    y: Array,
    F: Array,
    H: Array,
    half_Q: Array,
    half_R: Array,
    c: Array,
    d: Array,
    x: Array,
    S: Array,
    B: Array,
    more: bool = True,
) -> Smoothed: ...
def information_filter(
    y: Array, F: Array, H: Array, Q: Array, R: Array, c: Array, d: Array, x: Array, P: Array
) -> Filtered: ...
