"""Types of the compiled twins of `kalman_numpy`."""

from numpy.typing import ArrayLike

from pxtools.kernels.kalman_results import Array, Counts, Filtered, Score, Smoothed

def univariate_filter(
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
    memory: dict[str, Array] | None = None,
) -> Filtered: ...
def univariate_smoother(
    y: Array, F: Array, H: Array, R: Array, d: Array, filtered: Filtered, estimators: bool = True
) -> Smoothed: ...
def univariate_log_likelihood(
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
    *,
    steady: bool = True,
) -> tuple[Array, Counts, int]: ...
def univariate_score(
    y: Array,
    F: Array,
    H: Array,
    R: Array,
    d: Array,
    filtered: Filtered,
    lengths: tuple[int, ...],
    entries: ArrayLike,
    n_left_out: int = 0,
) -> Score: ...
