"""Precisions instead of covariances: an update adds `H' R^-1 H`, cheap when a row holds more values than states.

Reference: Anderson & Moore (1979), Optimal Filtering, section 6.3.
"""

from __future__ import annotations

import numpy as np

from pxtools.errors import PxUsageError
from pxtools.kalman.system import System, after_diffuse
from pxtools.kernels.kalman_numpy import LOG_2PI
from pxtools.kernels.kalman_results import Array, Filtered


def run(system: System, y: Array, steady: bool = True) -> Filtered:
    """Filter `y` (n_series, n_steps, n_obs); observation noise and predicted covariances must be invertible."""
    return after_diffuse(system, y, _filter)


def _filter(system: System, y: Array) -> Filtered:
    n_series, n_steps, m = y.shape
    n = system.F.shape[1]
    pm, pc = np.empty((n_series, n_steps + 1, n)), np.empty((n_series, n_steps + 1, n, n))
    fm, fc = np.empty((n_series, n_steps, n)), np.empty((n_series, n_steps, n, n))
    log_lik = np.zeros((n_series, n_steps))
    for s in range(n_series):
        x, P = system.x[s], system.P[s]
        for t in range(n_steps):
            F, H, Q, R, c, d = (part[t if len(part) > 1 else 0] for part in system[:6])
            pm[s, t], pc[s, t] = x, P
            here = ~np.isnan(y[s, t])
            if here.any():
                rows = (y[s, t, here] - d[here], H[here], R[np.ix_(here, here)])
                x, P, log_lik[s, t] = _take_in(x, P, *rows, t)
            fm[s, t], fc[s, t] = x, P
            x, P = F @ x + c, F @ P @ F.T + Q
            P = (P + P.T) / 2
        pm[s, n_steps], pc[s, n_steps] = x, P
    none = np.zeros((n_series, 0, n, n))
    used = np.zeros((n_series, 0, m), dtype=np.uint8)
    return Filtered(pm, pc, fm, fc, log_lik, none, none, used, np.zeros((n_series, n, n)), 0)


def _take_in(x: Array, P: Array, y: Array, H: Array, R: Array, t: int) -> tuple[Array, Array, float]:
    """Add the row's information `H' R^-1 H` to the precision."""
    root = _root(R, "observation_cov", t)
    whitened = np.linalg.solve(root, np.column_stack([H, y - H @ x]))
    A, v = whitened[:, :-1], whitened[:, -1]
    prior_root = _root(P, "the predicted covariance", t)
    half = np.linalg.solve(prior_root, np.eye(len(x)))
    precision = half.T @ half + A.T @ A
    post_root = np.linalg.cholesky(precision)
    inverse = np.linalg.solve(post_root, np.eye(len(x)))
    P = inverse.T @ inverse
    information = A.T @ v
    log_det = 2 * sum(float(np.log(np.diagonal(part)).sum()) for part in (root, prior_root, post_root))
    log_lik = -0.5 * (len(y) * LOG_2PI + log_det + v @ v - information @ P @ information)
    return x + P @ information, P, float(log_lik)


def _root(cov: Array, name: str, t: int) -> Array:
    try:
        return np.asarray(np.linalg.cholesky(cov), dtype=np.float64)
    except np.linalg.LinAlgError:
        raise PxUsageError(
            f"The information form inverts {name}, and at step {t} it is singular.\n"
            'Use form="univariate" or form="sqrt", which need no inverse.'
        ) from None
