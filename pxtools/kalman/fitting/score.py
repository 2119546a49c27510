"""The gradient of a log-likelihood by parameters, from one pass backwards through the filtered moments.

The kernel gives the derivatives by every number of the model; the chain rule does the rest. Reference: Koopman &
Shephard (1992), Exact score for time series models in state space form.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pxtools.kalman.checks import Array
from pxtools.kalman.system import System
from pxtools.kernels import kalman
from pxtools.kernels.kalman_results import Filtered
from pxtools.kernels.kalman_score_numpy import through_start

F_, H_, X, P = 0, 1, 6, 7


def score(y: Array, system: System, slopes: Sequence[Array | None], filtered: Filtered) -> Array:
    """Return the derivatives (n_params,) of the log-likelihood of all series together.

    Parameters
    ----------
    y : (n_series, n_steps, n_obs)
    system : System
        The arrays that were filtered with.
    slopes : eight arrays (n_params, …) or None
        Derivatives of F, H, Q, R, c, d, x and P by the parameters; x and P are those of every series alike.
    filtered : Filtered

    Returns
    -------
    array
        NaN where a diffuse start does not end in the same step for models nearby.
    """
    lengths = tuple(0 if slope is None else slope.shape[1] for slope in slopes[:6])
    by_F, by_x, by_P = slopes[F_], slopes[X], slopes[P]
    entries = np.zeros(0, dtype=int) if by_F is None else np.flatnonzero(by_F.any(axis=(0, 1)))
    n_diffuse = filtered.diffuse_cov.shape[1]
    found = kalman.univariate_score(y, system.F, system.H, system.R, system.d, filtered, lengths, entries)
    gradient = np.zeros(next(len(slope) for slope in slopes if slope is not None))
    for slope, part in zip(slopes[:6], found[:6], strict=True):
        if slope is not None and part is not None:
            gradient += np.dot(slope.reshape(len(slope), -1), part.reshape(-1))
    if by_x is not None:
        gradient += by_x @ found.r[:, 0].sum(axis=0)
    if by_P is not None:
        gradient += np.tensordot(by_P, _by_cov(found.r[:, 0], found.N[:, 0]).sum(axis=0), axes=2)
    if n_diffuse and not (by_F is None and slopes[H_] is None):
        gradient += through_start(kalman.univariate_filter, y, system, slopes[:2], n_diffuse, found)
    return gradient


def _by_cov(r: Array, N: Array) -> Array:
    found: Array = (r[:, :, None] * r[:, None, :] - N) / 2
    return found
