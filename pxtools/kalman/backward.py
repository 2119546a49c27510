"""One smoothing step without a difference of covariances, also where part of the state is still infinite.

The state at t is regressed on the state at t + 1. Its factor S and a basis B of its infinite directions give
`x[t] = x + S z + B delta` and `x[t + 1] = F x + c + F S z + Q^(1/2) w + F B delta`, with z and w standard normal and
delta flat. An orthogonal split of `F B` separates what delta explains; the rest is an ordinary least-squares problem.
The textbook's `P - P N P` loses as many digits as P is larger than the result, and its exact diffuse companion
(Durbin & Koopman 2012, equation 5.31) loses them twice.

References: Rauch, Tung & Striebel (1965); Park & Kailath (1995), New square-root smoothing algorithms.
"""

from __future__ import annotations

import numpy as np

from pxtools.kalman.checks import Array
from pxtools.kalman.factors import factors
from pxtools.kalman.system import System
from pxtools.kernels.kalman_results import Filtered, Smoothed, repeated

#: a smoothed variance below this fraction of the filtered one has lost digits to the difference
LOST = 1e-4

#: singular values below this fraction of the largest are zero
NO_DIRECTION = 1e-13


def backward_gain(F: Array, S: Array, half_Q: Array, B: Array | None = None) -> tuple[Array, Array]:
    """Return J and a factor of the rest: `x[t] = … + J (x[t + 1] - predicted) + rest u`, u standard normal.

    Parameters
    ----------
    F : (n, n)
    S, half_Q : (n, any), factors of the filtered covariance and of the process noise
    B : (n, k), optional
        Basis of the infinite directions of the filtered state.
    """
    n = len(F)
    A, free = np.zeros((n, n)), np.eye(n)
    if B is not None and B.shape[1]:
        basis, triangle = np.linalg.qr(F @ B, mode="complete")
        k = B.shape[1]
        A = B @ np.linalg.pinv(triangle[:k]) @ basis[:, :k].T
        free = basis[:, k:]
    M = np.hstack([S - A @ F @ S, -A @ half_Q])
    D = free.T @ np.hstack([F @ S, half_Q])
    U, sizes, Vt = np.linalg.svd(D, full_matrices=False)
    kept = sizes > NO_DIRECTION * (sizes[0] if sizes.size else 0.0)
    U, sizes, Vt = U[:, kept], sizes[kept], Vt[kept]
    MV = M @ Vt.T
    return A + (MV / sizes) @ U.T @ free.T, M - MV @ Vt


def refined(system: System, filtered: Filtered, smoothed: Smoothed, every: bool = False) -> Smoothed:
    """Return the smoothed moments with the steps that need it taken by regression on the next state.

    These are the steps whose filtered state is still partly infinite and those whose smoothed variance is a small
    fraction of the filtered one; with `every`, all but the last.
    """
    n_steps, n_diffuse = smoothed.mean.shape[1], filtered.diffuse_filtered_cov.shape[1]
    variance, before = (np.einsum("...ii->...i", part) for part in (smoothed.cov, filtered.filtered_cov))
    lost = variance < LOST * repeated(before, n_steps)
    needed = lost.any(axis=2) if lost.any() else np.zeros(lost.shape[:2], dtype=bool)
    needed |= every
    needed[:, :n_diffuse] |= filtered.diffuse_filtered_cov.any(axis=(2, 3))
    needed[:, n_steps - 1] = False
    if not needed.any():
        return smoothed._replace(by_regression=needed)
    mean, cov = smoothed.mean.copy(), smoothed.cov.copy()
    for s, t in np.argwhere(needed)[::-1]:
        J, rest = gain_at(system, filtered, int(s), int(t))
        mean[s, t] = filtered.filtered_mean[s, t] + J @ (mean[s, t + 1] - filtered.predicted_mean[s, t + 1])
        half = np.hstack([J @ factors(cov[s, t + 1][None])[0], rest])
        cov[s, t] = half @ half.T
    return smoothed._replace(mean=mean, cov=cov, by_regression=needed)


def gain_at(system: System, filtered: Filtered, s: int, t: int) -> tuple[Array, Array]:
    """Return J and the rest at step t of series s."""
    F, Q = (part[t if len(part) > 1 else 0] for part in (system.F, system.Q))
    halves = factors(np.stack([filtered.filtered_cov[s, min(t, filtered.filtered_cov.shape[1] - 1)], Q]))
    B = None
    if t < filtered.diffuse_filtered_cov.shape[1]:
        values, vectors = np.linalg.eigh(filtered.diffuse_filtered_cov[s, t])
        started = int(np.linalg.matrix_rank(system.Pinf[s], hermitian=True))
        left = started - int(filtered.diffuse_obs[s, : t + 1].sum())
        left = min(left, int(np.count_nonzero(values > NO_DIRECTION * max(values[-1], 0.0))))
        B = vectors[:, len(values) - left :]
    return backward_gain(F, halves[0], halves[1], B)


def with_estimators(filtered: Filtered, smoothed: Smoothed) -> Smoothed:
    """Return r and N that follow from the smoothed moments, for steps whose predicted state is not infinite."""
    first = filtered.diffuse_cov.shape[1]
    P = filtered.complete().predicted_cov[:, first:-1]
    inverse = np.linalg.pinv(P, hermitian=True)
    r, N = smoothed.r.copy(), smoothed.N.copy()
    r[:, first:] = (inverse @ (smoothed.mean - filtered.predicted_mean[:, :-1])[:, first:, :, None])[..., 0]
    N[:, first:] = inverse @ (P - smoothed.cov[:, first:]) @ inverse
    return smoothed._replace(r=r, N=(N + N.swapaxes(-1, -2)) / 2)
