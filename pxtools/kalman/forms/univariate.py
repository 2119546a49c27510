"""One element of a row after another: no matrix is inverted, and missing elements are left out. The default.

Reference: Koopman & Durbin (2000), Fast filtering and smoothing for multivariate state space models.
"""

from __future__ import annotations

from pxtools.kalman.system import System
from pxtools.kernels import kalman
from pxtools.kernels.kalman_results import Array, Filtered


def run(system: System, y: Array, steady: bool = True) -> Filtered:
    """Filter `y` (n_series, n_steps, n_obs)."""
    return kalman.univariate_filter(y, *system, steady=steady)
