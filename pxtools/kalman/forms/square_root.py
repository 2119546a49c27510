"""Factors of the covariances instead of covariances, by QR: half the digits are not lost, for ill-conditioned data.

References: Kaminski, Bryson & Schmidt (1971), Discrete square root filtering; Park & Kailath (1995), New square-root
smoothing algorithms.
"""

from __future__ import annotations

from pxtools.kalman.factors import factors
from pxtools.kalman.system import System, after_diffuse
from pxtools.kernels import kalman
from pxtools.kernels.kalman_results import Array, Filtered


def run(system: System, y: Array, steady: bool = True) -> Filtered:
    """Filter `y` (n_series, n_steps, n_obs) with QR factorisations; `steady` is ignored."""
    return after_diffuse(system, y, _filter)


def _filter(system: System, y: Array) -> Filtered:
    half_Q, half_R, half_P = factors(system.Q), factors(system.R), factors(system.P)
    return kalman.square_root_filter(y, system.F, system.H, half_Q, half_R, system.c, system.d, system.x, half_P)
