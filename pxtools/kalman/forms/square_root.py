"""Factors of the covariances instead of covariances, by QR: half the digits are not lost, for ill-conditioned data.

References: Kaminski, Bryson & Schmidt (1971), Discrete square root filtering; Park & Kailath (1995), New square-root
smoothing algorithms.
"""

from __future__ import annotations

import numpy as np

from pxtools.kalman.forms.system import System, after_diffuse
from pxtools.kernels.kalman_numpy import LOG_2PI
from pxtools.kernels.kalman_results import Array, Filtered, Smoothed

#: a factor's pivot below this fraction of its row is zero
NO_PIVOT = 8 * np.finfo(float).eps


def run(system: System, y: Array, steady: bool = True) -> Filtered:
    """Filter `y` (n_series, n_steps, n_obs) with QR factorisations; `steady` is ignored."""
    return after_diffuse(system, y, _filter)


def factors(covs: Array) -> Array:
    """Return A with `A A' = cov` for positive semi-definite matrices `(k, n, n)`."""
    diagonal = np.einsum("kii->ki", covs)
    if np.count_nonzero(covs) == np.count_nonzero(diagonal):
        return np.sqrt(diagonal)[:, :, None] * np.eye(covs.shape[1])
    try:
        return np.linalg.cholesky(covs)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(covs)
        return vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]


def _lower(rows: Array) -> Array:
    """Return the lower triangle L with `L L' = rows rows'`, by QR of the transpose."""
    L = np.linalg.qr(rows.T, mode="r").T
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
            F, H, c, d = (
                part[t if len(part) > 1 else 0] for part in (system.F, system.H, system.c, system.d)
            )
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


def smooth(system: System, filtered: Filtered) -> Smoothed:
    """Smooth backwards with sums of squares only: the covariances cannot lose their definiteness.

    The steps of the exact diffuse phase, if any, are those of `filtered` and are not smoothed here: they keep zeros.
    """
    n_series, n_steps, n = filtered.filtered_mean.shape
    half_Q, halves = factors(system.Q), [factors(part) for part in filtered.filtered_cov]
    mean, cov = filtered.filtered_mean.copy(), filtered.filtered_cov.copy()
    r, N = np.zeros_like(mean), np.zeros_like(cov)
    first = filtered.diffuse_cov.shape[1]
    for s in range(n_series):
        for t in range(n_steps - 1, first - 1, -1):
            if t < n_steps - 1:
                F = system.F[t if len(system.F) > 1 else 0]
                J, rest = _backward_gain(F, halves[s][t], half_Q[t if len(half_Q) > 1 else 0])
                mean[s, t] += J @ (mean[s, t + 1] - filtered.predicted_mean[s, t + 1])
                half_V = np.hstack([J @ factors(cov[s, t + 1][None])[0], rest])
                cov[s, t] = half_V @ half_V.T
            inverse = np.linalg.pinv(filtered.predicted_cov[s, t], hermitian=True)
            r[s, t] = inverse @ (mean[s, t] - filtered.predicted_mean[s, t])
            N[s, t] = inverse @ (filtered.predicted_cov[s, t] - cov[s, t]) @ inverse
    none = np.zeros((n_series, first, n, n))
    return Smoothed(mean, cov, r, (N + N.transpose(0, 1, 3, 2)) / 2, none, none)


def _backward_gain(F: Array, S: Array, half_Q: Array) -> tuple[Array, Array]:
    """Return J = P F' (F P F' + Q)^-1 and a factor of `P - J (F P F' + Q) J'`, from the factor S of P."""
    n = len(F)
    array = _lower(np.vstack([np.hstack([F @ S, half_Q]), np.hstack([S, np.zeros((n, half_Q.shape[1]))])]))
    half_P, cross, rest = array[:n, :n], array[n:, :n], array[n:, n:]
    return np.linalg.lstsq(half_P.T, cross.T, rcond=1e-14)[0].T, rest
