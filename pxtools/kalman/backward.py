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
from numpy.typing import NDArray

from pxtools.kalman.checks import Array
from pxtools.kalman.factors import factors
from pxtools.kalman.system import System
from pxtools.kernels.kalman_results import LOST, Filtered, Smoothed, repeated

#: singular values below this fraction of the largest are zero
NO_DIRECTION = 1e-13

#: the same in diffuse steps, whose covariances are differences with round-off in every direction: its root
NO_FACTOR = 1e-7

#: of the largest: less than this of a diffuse variance is none
NOT_WIDE = 1e-13

#: so many times the round-off that it is computed with, a variance is taken for zero
KNOWN = 32

#: gains are computed for so many numbers at a time
BLOCK = 1_000_000


def backward_gains(F: Array, S: Array, half_Q: Array) -> tuple[Array, Array]:
    """Return J and a factor of the rest: `x[t] = … + J (x[t + 1] - predicted) + rest u`, u standard normal.

    Parameters
    ----------
    F : (k or 1, n, n)
    S, half_Q : (k, n, n) and (k or 1, n, n), factors of the filtered covariance and of the process noise
    """
    FS = F @ S
    D = np.concatenate([FS, np.broadcast_to(half_Q, FS.shape)], axis=-1)
    M = np.concatenate([S, np.zeros_like(S)], axis=-1)
    return _regressed(M, D, NO_DIRECTION)


def _regressed(M: Array, D: Array, none: float) -> tuple[Array, Array]:
    """Regress `M z` on `D z`, z standard normal: the coefficients and a factor of the rest."""
    U, sizes, Vt = np.linalg.svd(D, full_matrices=False)
    kept = sizes > none * sizes[..., :1]
    Vt = np.where(kept[..., None], Vt, 0.0)
    MV = M @ Vt.swapaxes(-1, -2)
    inverse = np.divide(1.0, sizes, out=np.zeros_like(sizes), where=kept)
    return (MV * inverse[..., None, :]) @ U.swapaxes(-1, -2), M - MV @ Vt


def diffuse_gain(F: Array, S: Array, half_Q: Array, B: Array) -> tuple[Array, Array]:
    """Return J and the rest of one step whose filtered state is infinite in the directions of the basis B (n, k)."""
    k = B.shape[1]
    basis, triangle = np.linalg.qr(F @ B, mode="complete")
    A = B @ np.linalg.pinv(triangle[:k]) @ basis[:, :k].T
    free = basis[:, k:]
    M = np.hstack([S - A @ F @ S, -A @ half_Q])
    D = free.T @ np.hstack([F @ S, half_Q])
    J, rest = _regressed(M, D, NO_FACTOR)
    return A + J @ free.T, rest


def refined(system: System, filtered: Filtered, smoothed: Smoothed) -> Smoothed:
    """Return the smoothed moments with the steps that need it taken by regression on the next state.

    These are the steps whose filtered state is still partly infinite and those whose smoothed variance is a small
    fraction of the filtered one.
    """
    n_steps, n_diffuse = smoothed.mean.shape[1], filtered.diffuse_filtered_cov.shape[1]
    if not smoothed.n_lost and not n_diffuse:
        return smoothed
    variance, before = (np.einsum("...ii->...i", part) for part in (smoothed.cov, filtered.filtered_cov))
    lost = variance < LOST * repeated(before, n_steps)
    needed = np.zeros(lost.shape[:2], dtype=bool)
    if lost.any():
        # of states that are known exactly all variances are round-off, and so is what a regression makes of them
        needed = (lost & ~known_states(system, filtered)).any(axis=2)
    needed[:, :n_diffuse] |= filtered.diffuse_filtered_cov.any(axis=(2, 3))
    needed[:, n_steps - 1] = False
    if not needed.any():
        return smoothed._replace(by_regression=needed)
    mean, cov = smoothed.mean.copy(), smoothed.cov.copy()
    times = np.flatnonzero(needed.any(axis=0))
    for block in np.array_split(times, -(-len(times) * len(mean) * mean.shape[2] ** 2 // BLOCK))[::-1]:
        steps = [(np.flatnonzero(needed[:, t]), int(t)) for t in block]
        series, when = np.concatenate([which for which, _ in steps]), np.repeat(block, [len(w) for w, _ in steps])
        gains, rests = gains_at(system, filtered, series, when)
        rests = rests @ rests.swapaxes(-1, -2)
        end = len(series)
        for which, t in reversed(steps):
            J, rest, end = gains[end - len(which) : end], rests[end - len(which) : end], end - len(which)
            apart = mean[which, t + 1] - filtered.predicted_mean[which, t + 1]
            mean[which, t] = filtered.filtered_mean[which, t] + (J @ apart[..., None])[..., 0]
            spread = J @ cov[which, t + 1] @ J.swapaxes(-1, -2) + rest
            cov[which, t] = (spread + spread.swapaxes(-1, -2)) / 2
    return smoothed._replace(mean=mean, cov=cov, by_regression=needed)


def known_states(system: System, filtered: Filtered) -> NDArray[np.bool_]:
    """Tell of every state (n_series, n_steps, n_states) whether its filtered variance is no more than round-off.

    An observation without noise leaves a variance of some 1e-16 of the one before, and the model hands it on.
    """
    n_steps, n_diffuse = filtered.filtered_mean.shape[1], filtered.diffuse_filtered_cov.shape[1]
    predicted = repeated(np.einsum("stii->sti", filtered.predicted_cov), n_steps + 1)
    variance = repeated(np.einsum("stii->sti", filtered.filtered_cov), n_steps)
    squares, error, known = system.F**2, np.zeros_like(predicted[:, 0]), np.empty(variance.shape, dtype=bool)
    # handed on alone, an error would grow without end: observations take it back to round-off of the largest variance
    most = (
        np.finfo(float).eps * predicted.shape[2] * np.maximum.accumulate(predicted.max(axis=2, keepdims=True), axis=1)
    )
    for t in range(n_steps):
        # where part of the state is infinite, the rest is computed from differences of all
        scale = predicted[:, t].max(axis=1, keepdims=True) if t < n_diffuse else predicted[:, t]
        error = np.minimum(np.maximum(error, scale * np.finfo(float).eps), most[:, t])
        known[:, t] = variance[:, t] <= KNOWN * error
        error = error @ squares[t if len(squares) > 1 else 0].T
    wide = np.einsum("stii->sti", filtered.diffuse_filtered_cov)
    known[:, :n_diffuse] &= wide <= NOT_WIDE * wide.max(axis=2, keepdims=True, initial=0.0)
    return known


def gains_at(
    system: System, filtered: Filtered, series: NDArray[np.intp], when: NDArray[np.intp]
) -> tuple[Array, Array]:
    """Return J and the rest, each (k, n, any), of k pairs of a series and a step."""
    n_kept, n_diffuse = filtered.filtered_cov.shape[1], filtered.diffuse_filtered_cov.shape[1]
    cov = filtered.filtered_cov[series, np.minimum(when, n_kept - 1)]
    # round-off of a variance, divided by round-off, would be a gain of any size
    here = ~known_states(system, filtered)[series, when]
    S = factors(cov * here[:, :, None] * here[:, None, :])
    F = system.F[when] if len(system.F) > 1 else system.F
    half_Q = factors(system.Q)
    half_Q = half_Q[when] if len(half_Q) > 1 else half_Q
    gains, rests = backward_gains(F, S, half_Q)
    for k in np.flatnonzero(when < n_diffuse):
        s, t = series[k], when[k]
        values, vectors = np.linalg.eigh(filtered.diffuse_filtered_cov[s, t])
        started = int(np.linalg.matrix_rank(system.Pinf[s], hermitian=True))
        left = started - int(filtered.diffuse_obs[s, : t + 1].sum())
        left = min(left, int(np.count_nonzero(values > NOT_WIDE * max(values[-1], 0.0))))
        if left > 0:
            B = vectors[:, len(values) - left :]
            gains[k], rests[k] = diffuse_gain(F[k if len(F) > 1 else 0], S[k], half_Q[k if len(half_Q) > 1 else 0], B)
    return gains, rests


def gain_at(system: System, filtered: Filtered, s: int, t: int) -> tuple[Array, Array]:
    """Return J and the rest at step t of series s."""
    gains, rests = gains_at(system, filtered, np.array([s]), np.array([t]))
    return gains[0], rests[0]
