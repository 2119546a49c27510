"""The Kalman kernels of the best tier there is: compiled if the package was built here, NumPy otherwise."""

from __future__ import annotations

#: "compiled" or "numpy"
TIER = "compiled"

try:
    from pxtools.kernels._kalman import univariate_filter, univariate_smoother
except ImportError:  # not compiled here, or shipped to an engine as source
    from pxtools.kernels.kalman_numpy import univariate_filter, univariate_smoother

    TIER = "numpy"

try:
    from pxtools.kernels._kalman_blas import cholesky_filter
except ImportError:
    from pxtools.kernels.kalman_numpy import cholesky_filter

__all__ = ["TIER", "cholesky_filter", "univariate_filter", "univariate_smoother"]
