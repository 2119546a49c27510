"""The Kalman kernels of the best tier there is: compiled if the package was built here, NumPy otherwise."""

from __future__ import annotations

from pxtools.kernels import kalman_numpy

try:
    from pxtools.kernels import _kalman as _best
except ImportError:  # not compiled here, or shipped to an engine as source
    _best = kalman_numpy  # type: ignore[assignment]

try:
    from pxtools.kernels import _kalman_blas as _best_dense
except ImportError:
    _best_dense = kalman_numpy  # type: ignore[assignment]

#: "compiled" or "numpy"
TIER = "numpy" if _best is kalman_numpy else "compiled"

univariate_filter = _best.univariate_filter
univariate_smoother = _best.univariate_smoother
cholesky_filter = _best_dense.cholesky_filter
