"""Factors of the covariances instead of covariances, by QR: half the digits are not lost, for ill-conditioned data.

References: Kaminski, Bryson & Schmidt (1971), Discrete square root filtering; Park & Kailath (1995), New square-root
smoothing algorithms.
"""

from __future__ import annotations

import numpy as np

from pxtools.kalman.factors import factors
from pxtools.kalman.system import System, after_diffuse
from pxtools.kernels.kalman_numpy import LOG_2PI
from pxtools.kernels.kalman_results import Array, Filtered

#: a factor's pivot below this fraction of its row is zero
NO_PIVOT = 8 * np.finfo(float).eps


def run(system: System, y: Array, steady: bool = True) -> Filtered:
    """Filter `y` (n_series, n_steps, n_obs) with QR factorisations; `steady` is ignored."""
    return after_diffuse(system, y, _filter)


def _lower(rows: Array) -> Array:
    """Return the lower triangle L with `L L' = rows rows'`, by QR of the transpose."""
    L = np.asarray(np.linalg.qr(rows.T, mode="r")).T
    size = rows.shape[0]
    return L if L.shape[1] == size else np.pad(L, ((0, 0), (0, size - L.shape[1])))


def _filter(system: System, y: Array) -> Filtered:
    n_series, n_steps, m = y.shape
    n = system.F.shape[1]
    half_Q, half_R, starts = factors(system.Q), factors(system.R), factors(system.P)
    pm, pc = np.empty((n_series, n_steps + 1, n)), np.empty((n_series, n_steps + 1, n, n))
    fm, fc = np.empty((n_series, n_steps, n)), np.empty((n_series, n_steps, n, n))
    log_lik = np.zeros((n_series, n_steps))
    for s in range(n_series):
        x, S = system.x[s], starts[s]
        for t in range(n_steps):
            F, H, c, d = (part[t if len(part) > 1 else 0] for part in (system.F, system.H, system.c, system.d))
            pm[s, t], pc[s, t] = x, S @ S.T
            here = ~np.isnan(y[s, t])
            if here.any():
                noise = half_R[t if len(half_R) > 1 else 0][here]
                x, S, log_lik[s, t] = _take_in(x, S, y[s, t, here] - d[here], H[here], noise)
            fm[s, t], fc[s, t] = x, S @ S.T
            x, S = F @ x + c, _lower(np.hstack([F @ S, half_Q[t if len(half_Q) > 1 else 0]]))
        pm[s, n_steps], pc[s, n_steps] = x, S @ S.T
    none = np.zeros((n_series, 0, n, n))
    used = np.zeros((n_series, 0, m), dtype=np.uint8)
    return Filtered(pm, pc, fm, fc, log_lik, none, none, used, np.zeros((n_series, n, n)), 0)


def _take_in(x: Array, S: Array, y: Array, H: Array, noise: Array) -> tuple[Array, Array, float]:
    """Update mean and factor with one row: the array algorithm of Kaminski, Bryson & Schmidt (1971)."""
    m, n = H.shape
    top = np.hstack([noise, H @ S])
    array = _lower(np.vstack([top, np.hstack([np.zeros((n, noise.shape[1])), S])]))
    half_F, gain, S = array[:m, :m], array[m:, :m], array[m:, m:]
    pivots, reach = np.diagonal(half_F), np.linalg.norm(top, axis=1)
    v, solved = y - H @ x, np.zeros(m)
    log_lik = 0.0
    for i in range(m):
        if abs(pivots[i]) > NO_PIVOT * reach[i]:
            solved[i] = (v[i] - half_F[i, :i] @ solved[:i]) / pivots[i]
            log_lik -= 0.5 * (LOG_2PI + 2 * np.log(abs(pivots[i])) + solved[i] ** 2)
    return x + gain @ solved, S, log_lik
