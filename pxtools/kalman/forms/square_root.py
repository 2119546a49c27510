"""Factors of the covariances instead of covariances, by QR: half the digits are not lost, for ill-conditioned data.

The infinite part of a diffuse start is a factor too.

References: Kaminski, Bryson & Schmidt (1971), Discrete square root filtering; Park & Kailath (1995), New square-root
smoothing algorithms.
"""

from __future__ import annotations

from pxtools.kalman.factors import factors
from pxtools.kalman.system import System
from pxtools.kernels import kalman
from pxtools.kernels.kalman_results import Array, Filtered, Smoothed


def run(system: System, y: Array, steady: bool = True) -> Filtered:
    """Filter `y` (n_series, n_steps, n_obs) with QR factorisations; `steady` is ignored."""
    return kalman.square_root_filter(y, *_with_factors(system))


def smooth(system: System, y: Array, more: bool) -> Smoothed:
    """Smooth `y`; `more`, to get lag-one covariances and disturbances too."""
    return kalman.square_root_smoother(y, *_with_factors(system), more=more)


def _with_factors(system: System) -> System:
    half_Q, half_R, half_P, half_Pinf = (factors(part) for part in (system.Q, system.R, system.P, system.Pinf))
    return system._replace(Q=half_Q, R=half_R, P=half_P, Pinf=half_Pinf)
