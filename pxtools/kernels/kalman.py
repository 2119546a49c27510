"""The Kalman kernels of the best tier there is: compiled if the package was built here, NumPy otherwise."""

from __future__ import annotations

from pxtools.kernels import kalman_numpy

#: "compiled" or "numpy"
TIER = "compiled"

try:
    from pxtools.kernels._kalman import univariate_filter, univariate_smoother
except ImportError:  # not compiled here, or shipped to an engine as source
    univariate_filter = kalman_numpy.univariate_filter
    univariate_smoother = kalman_numpy.univariate_smoother
    TIER = "numpy"

try:
    from pxtools.kernels._kalman_blas import cholesky_filter
except ImportError:
    cholesky_filter = kalman_numpy.cholesky_filter

__all__ = ["TIER", "cholesky_filter", "univariate_filter", "univariate_smoother"]
