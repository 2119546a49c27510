"""A row at once, by the Cholesky factor of its innovation covariance: the fastest for many states and observations.

Reference: Durbin & Koopman (2012), equation 4.24.
"""

from __future__ import annotations

import numpy as np

from pxtools.errors import PxUsageError
from pxtools.kalman.forms import dense
from pxtools.kalman.system import System, after_diffuse
from pxtools.kernels import kalman
from pxtools.kernels.kalman_results import Array, Filtered


def run(system: System, y: Array, steady: bool = True) -> Filtered:
    """Filter `y` (n_series, n_steps, n_obs); the exact diffuse steps are run element by element."""
    is_constant = steady and len(system.F) == len(system.H) == len(system.Q) == len(system.R) == 1
    best = dense.filter_rows if dense.pays(y, system.F, system.R, is_constant) else kalman.cholesky_filter
    try:
        return after_diffuse(system, y, lambda rest, rows: best(rows, *rest, steady=steady))
    except np.linalg.LinAlgError as error:
        raise PxUsageError(
            f"The Cholesky form failed: {error}.\n"
            'Two observations say the same, or the data are ill-conditioned: use form="sqrt" or form="auto".'
        ) from None
