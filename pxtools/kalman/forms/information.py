"""Precisions instead of covariances: an update adds `H' R^-1 H`, cheap when a row holds more values than states.

Reference: Anderson & Moore (1979), Optimal Filtering, section 6.3.
"""

from __future__ import annotations

import numpy as np

from pxtools.errors import PxUsageError
from pxtools.kalman.system import System, after_diffuse
from pxtools.kernels import kalman
from pxtools.kernels.kalman_results import Array, Filtered


def run(system: System, y: Array, steady: bool = True) -> Filtered:
    """Filter `y` (n_series, n_steps, n_obs); noise and predicted covariances must be invertible, `steady` is unused."""
    try:
        return after_diffuse(system, y, lambda rest, rows: kalman.information_filter(rows, *rest[:8]))
    except np.linalg.LinAlgError as error:
        raise PxUsageError(
            f"The information form inverts covariances, and {error}.\n"
            'Use form="univariate" or form="sqrt", which need no inverse.'
        ) from None
