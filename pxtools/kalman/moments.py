"""What follows from the filtered and smoothed moments: innovations, gains, disturbances, lag-one covariances.

All at once for all series and steps; arrays have the axes (n_series, n_steps, …). References: Durbin & Koopman (2012),
sections 4.3, 4.5 and 4.7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pxtools.kalman.backward import gains_at
from pxtools.kalman.checks import Array
from pxtools.kalman.factors import factors
from pxtools.kalman.system import system_of
from pxtools.kernels.kalman_results import NO_VARIANCE, Smoothed

if TYPE_CHECKING:
    from pxtools.kalman.results import FilterResult


def _part(result: FilterResult, letter: str) -> Array:
    part = result.model.parts[letter]
    return part[: result.observed.values.shape[1]] if len(part) > 1 else part


def _times(A: Array, x: Array) -> Array:
    return (A @ x[..., None])[..., 0]


def innovations(result: FilterResult) -> Array:
    """Observations less `d + H predicted_mean`."""
    predicted = result.filtered.predicted_mean[:, :-1]
    return result.observed.values - _part(result, "d") - _times(_part(result, "H"), predicted)


def innovation_cov(result: FilterResult) -> Array:
    """`H P H' + R`, infinite where the diffuse part of P reaches an observation."""
    H = _part(result, "H")
    S = H @ result.complete.predicted_cov[:, :-1] @ H.swapaxes(-1, -2) + _part(result, "R")
    S = (S + S.swapaxes(-1, -2)) / 2
    n = result.filtered.diffuse_cov.shape[1]
    if n:
        first = H[:n] if len(H) > 1 else H
        wide = np.abs(first @ result.filtered.diffuse_cov @ first.swapaxes(-1, -2))
        # where no observation served to end the diffuse phase, what is left of this is round-off
        used = np.asarray(result.filtered.diffuse_obs.any(axis=2))[..., None, None]
        S[:, :n][used & (wide > 1e-9 * wide.max(axis=(-1, -2), keepdims=True))] = np.inf
    return S


def gain(result: FilterResult) -> Array:
    """`P H' S^-1` over the observed elements; the limit of it where P is infinite."""
    H, R = _part(result, "H"), _part(result, "R")
    here = ~np.isnan(result.observed.values)
    S = np.where(here[..., :, None] & here[..., None, :], _proper_innovation_cov(result), 0.0)
    seen = np.where(here[..., None], H, 0.0)
    K = result.complete.predicted_cov[:, :-1] @ seen.swapaxes(-1, -2) @ np.linalg.pinv(S, hermitian=True)
    for t in range(result.filtered.diffuse_cov.shape[1]):
        K[:, t] = _diffuse_gain(
            seen[:, t],
            R[t if len(R) > 1 else 0],
            result.complete.predicted_cov[:, t],
            result.filtered.diffuse_cov[:, t],
            here[:, t],
            result.filtered.diffuse_obs[:, t].sum(axis=1),
        )
    return K


def _proper_innovation_cov(result: FilterResult) -> Array:
    H = _part(result, "H")
    return H @ result.complete.predicted_cov[:, :-1] @ H.swapaxes(-1, -2) + _part(result, "R")


def _diffuse_gain(
    H: Array, R: Array, P: Array, Pinf: Array, here: NDArray[np.bool_], ranks: NDArray[np.int64]
) -> Array:
    """The limit of the gain for infinite k in `P + k Pinf`: weights on the infinite directions, then on the rest."""
    Finf = H @ Pinf @ H.swapaxes(-1, -2)
    Fstar = H @ P @ H.swapaxes(-1, -2) + np.where(here[:, :, None] & here[:, None, :], R, 0.0)
    # a variance of zero, mixed with round-off by the eigenvectors, would be inverted
    Fstar = Fstar + np.eye(H.shape[1]) * ~here[:, None, :]
    values, vectors = np.linalg.eigh(Finf)
    K = np.empty((len(H), P.shape[1], H.shape[1]))
    for s, rank in enumerate(ranks):
        cut = H.shape[1] - int(rank)
        rest, wide = vectors[s][:, :cut], vectors[s][:, cut:]
        # on the directions of finite variance the proper part alone decides
        proper = rest @ np.linalg.pinv(rest.T @ Fstar[s] @ rest, hermitian=True) @ rest.T
        inverse = (wide / values[s][cut:]) @ wide.T
        left = np.eye(H.shape[1]) - Fstar[s] @ proper
        K[s] = Pinf[s] @ H[s].T @ inverse @ left + P[s] @ H[s].T @ proper
    return K


def standardized(result: FilterResult) -> Array:
    """`L^-1 v` with `L L' = S` over the observed elements of a row; NaN where missing, infinite or without variance."""
    v = innovations(result)
    S = innovation_cov(result)
    here = ~np.isnan(v) & np.isfinite(np.einsum("...ii->...i", S))
    both = here[..., :, None] & here[..., None, :]
    m = v.shape[-1]
    # missing elements become independent of the rest, so that one factorisation serves every pattern
    L = np.where(both, S, np.eye(m))
    scale = np.sqrt(np.maximum(np.einsum("...ii->...i", L), np.finfo(float).tiny))
    L = np.linalg.cholesky(L / (scale[..., :, None] * scale[..., None, :]) + NO_VARIANCE * np.eye(m))
    z = np.linalg.solve(L, (np.where(here, v, 0.0) / scale)[..., None])[..., 0]
    return np.where(here, z, np.nan)


def lag_one(result: FilterResult) -> Array:
    """`Cov(x[t + 1], x[t] | y) = (I - P[t + 1] N[t]) F P[t | t]`; `V[t + 1] J'` where a step was a regression."""
    f, smooth = result.complete, result.estimated
    if smooth.lag_one is not None:
        return smooth.lag_one
    F = _part(result, "F")
    after = (F[:-1] if len(F) > 1 else F) @ f.filtered_cov[:, :-1]
    lag = after - f.predicted_cov[:, 1:-1] @ (smooth.N[:, 1:] @ after)
    if smooth.by_regression is not None and smooth.by_regression.any():
        series, when = np.nonzero(smooth.by_regression)
        system = system_of(result.model, *result.observed.values.shape[:2])
        gains, _ = gains_at(system, f, series, when)
        lag[series, when] = smooth.cov[series, when + 1] @ gains.swapaxes(-1, -2)
    return lag


def process_disturbance(result: FilterResult) -> tuple[Array, Array]:
    """`Q G' r[t]` and `Q - Q G' N[t] G Q`, with r and N of the next step's state."""
    smooth = result.estimated
    GQ = _part(result, "G") @ _part(result, "Q")
    if smooth.shock is not None:
        return _from_shocks(result, smooth)
    r, N = np.zeros_like(smooth.r), np.zeros_like(smooth.N)
    r[:, :-1], N[:, :-1] = smooth.r[:, 1:], smooth.N[:, 1:]
    cov = _part(result, "Q") - GQ.swapaxes(-1, -2) @ N @ GQ
    return _times(GQ.swapaxes(-1, -2), r), (cov + cov.swapaxes(-1, -2)) / 2


def _from_shocks(result: FilterResult, smooth: Smoothed) -> tuple[Array, Array]:
    """`w = A shock + rest`: the shock u is standard normal, and `half_Q u` is what w adds to the state."""
    assert smooth.shock is not None
    assert smooth.shock_cov is not None
    Q, (n_series, n_steps, _) = _part(result, "Q"), result.observed.values.shape
    noise = system_of(result.model, n_series, n_steps).Q
    A = (_part(result, "G") @ Q).swapaxes(-1, -2) @ np.linalg.pinv(factors(noise)).swapaxes(-1, -2)
    mean, cov = np.zeros((n_series, n_steps, Q.shape[1])), np.empty((n_series, n_steps, *Q.shape[1:]))
    cov[:] = Q
    before = A[:-1] if len(A) > 1 else A
    mean[:, :-1] = _times(before, smooth.shock)
    known = np.eye(A.shape[2]) - smooth.shock_cov
    cov[:, :-1] -= before @ known @ before.swapaxes(-1, -2)
    return mean, (cov + cov.swapaxes(-1, -2)) / 2


def observation_disturbance(result: FilterResult) -> tuple[Array, Array]:
    """`y - d - H smoothed_mean` where observed; for missing elements what the observed ones of the row imply."""
    H, R, d = (_part(result, letter) for letter in "HRd")
    y, smooth = result.observed.values, result.smoothed
    here = ~np.isnan(y)
    both = here[..., :, None] & here[..., None, :]
    residual = np.where(here, y - d - _times(H, smooth.mean), 0.0)
    spread = np.where(both, H @ smooth.cov @ H.swapaxes(-1, -2), 0.0)
    if here.all():
        return residual, spread
    B, rest = missing_weights(R, here)
    return _times(B, residual), B @ spread @ B.swapaxes(-1, -2) + rest


def missing_weights(R: Array, here: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Return B and C of `e = B e[observed] + N(0, C)` within a row: the identity and zero for observed elements."""
    both = here[..., :, None] & here[..., None, :]
    B = np.where(here[..., None, :], R, 0.0) @ np.linalg.pinv(np.where(both, R, 0.0), hermitian=True)
    B = np.where(here[..., :, None], np.eye(here.shape[-1]) * here[..., None, :], B)
    rest = R - B @ np.where(here[..., :, None], R, 0.0)
    rest = np.where(here[..., :, None] | here[..., None, :], 0.0, rest)
    return B, (rest + rest.swapaxes(-1, -2)) / 2
