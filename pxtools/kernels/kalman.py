"""The Kalman kernels of the best tier there is: compiled if the package was built here, NumPy otherwise."""

from __future__ import annotations

from pxtools.kernels import kalman_numpy, kalman_roots_numpy, kalman_rows_numpy, kalman_score_numpy
from pxtools.kernels.kalman_results import Array, Filtered

#: "compiled" or "numpy"
TIER = "compiled"

try:
    from pxtools.kernels._kalman import (
        univariate_filter,
        univariate_log_likelihood,
        univariate_score,
        univariate_smoother,
    )
except ImportError:  # not compiled here, or shipped to an engine as source
    univariate_filter = kalman_numpy.univariate_filter
    univariate_log_likelihood = kalman_numpy.univariate_log_likelihood
    univariate_smoother = kalman_numpy.univariate_smoother
    univariate_score = kalman_score_numpy.univariate_score
    TIER = "numpy"

try:
    from pxtools.kernels._kalman_roots import information_filter, square_root_filter, square_root_smoother
except ImportError:
    information_filter = kalman_rows_numpy.information_filter
    square_root_filter = kalman_roots_numpy.square_root_filter
    square_root_smoother = kalman_roots_numpy.square_root_smoother


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
) -> Filtered:
    """Filter a row at once: see `kalman_rows_numpy.cholesky_filter`. SciPy's BLAS is loaded by the first call."""
    try:
        from pxtools.kernels._kalman_blas import cholesky_filter as best
    except ImportError:
        best = kalman_rows_numpy.cholesky_filter
    return best(y, F, H, Q, R, c, d, x, P, Pinf, steady)


__all__ = [
    "TIER",
    "cholesky_filter",
    "information_filter",
    "square_root_filter",
    "square_root_smoother",
    "univariate_filter",
    "univariate_log_likelihood",
    "univariate_score",
    "univariate_smoother",
]
