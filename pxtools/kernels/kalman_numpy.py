"""NumPy twins of the compiled Kalman kernels: same names, same signatures, all series at once.

The univariate treatment takes the elements of a row one after another, so a missing element is simply left out and
no matrix is inverted. Masks over series stand where the compiled kernel branches.

References: Koopman & Durbin (2000), Fast filtering and smoothing for multivariate state space models, J. Time Series
Analysis 21; Durbin & Koopman (2012), sections 5.2-5.3 (exact diffuse) and 6.4 (univariate).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pxtools.kernels.kalman_results import (
    CANCELLED,
    LOST,
    NO_VARIANCE,
    NOT_DIFFUSE,
    Array,
    Counts,
    Filtered,
    Smoothed,
)

LOG_2PI = float(np.log(2 * np.pi))
Mask = NDArray[np.bool_]


class Rows(NamedTuple):
    """One step's observations, made uncorrelated: y (n_series, n_obs), H (n_series or 1, n_obs, n_states), r."""

    y: Array
    H: Array
    r: Array
    present: Mask


def univariate_filter(
    y: Array,
    F: Array,
    H: Array,
    Q: Array,
    R: Array,
    c: Array,
    d: Array,
    x: Array,
    P: Array,
    Pinf: Array,
    steady: bool = True,
    memory: dict[str, Array] | None = None,
) -> Filtered:
    """Filter every series, one element of a row after another.

    Parameters
    ----------
    y : (n_series, n_steps, n_obs), NaN where missing
    F, H, Q, R, c, d : matrices and vectors with a leading axis of length 1 or n_steps
    x, P, Pinf : mean (n_series, n_states), covariance and diffuse covariance (n_series, n_states, n_states) of the
        first predicted state
    steady : ignored here; the compiled twin stops updating covariances that no longer change
    memory : ignored here; the compiled twin keeps its large arrays in it, and uses them again when nobody does

    Returns
    -------
    Filtered
    """
    n_series, n_steps, _ = y.shape
    n = F.shape[1]
    out = new_moments(n_series, n_steps, n)
    x, P, Pinf = x.copy(), P.copy(), Pinf.copy()
    bound = Pinf.copy()
    left = np.linalg.matrix_rank(Pinf, hermitian=True) if Pinf.any() else np.zeros(n_series, dtype=int)
    diffuse_covs, diffuse_filtered, diffuse_obs, cancelled = [], [], [], 0
    for t in range(n_steps):
        out.predicted_mean[:, t], out.predicted_cov[:, t] = x, P
        rows = _uncorrelated(y[:, t], _at(H, t), _at(R, t), _at(d, t))
        is_diffuse = bool(left.any())
        used = np.zeros(rows.y.shape, dtype=np.uint8)
        if is_diffuse:
            diffuse_covs.append(Pinf.copy())
            diffuse_obs.append(used)
        cancelled += _update(x, P, Pinf, bound, left, rows, out.log_likelihood[:, t], used)
        out.filtered_mean[:, t], out.filtered_cov[:, t] = x, P
        if is_diffuse:
            diffuse_filtered.append(Pinf.copy())
            Pinf, bound = _carried(Pinf, _at(F, t)), _carried(bound, _at(F, t))
            left[_trace(Pinf) <= NOT_DIFFUSE * _trace(bound)] = 0
            Pinf[left == 0] = 0.0
        x = x @ _at(F, t).T + _at(c, t)
        P = _carried(P, _at(F, t)) + _at(Q, t)
    out.predicted_mean[:, n_steps], out.predicted_cov[:, n_steps] = x, P
    return Filtered(
        *out,
        _stacked(diffuse_covs, np.zeros((n_series, n, n))),
        _stacked(diffuse_filtered, np.zeros((n_series, n, n))),
        _stacked(diffuse_obs, np.zeros((n_series, y.shape[2]), dtype=np.uint8)),
        Pinf,
        cancelled,
    )


def univariate_log_likelihood(
    y: Array,
    F: Array,
    H: Array,
    Q: Array,
    R: Array,
    c: Array,
    d: Array,
    x: Array,
    P: Array,
    Pinf: Array,
    *,
    steady: bool = True,
) -> tuple[Array, Counts, int]:
    """Return the log-likelihood of every series, keeping no moments.

    Parameters
    ----------
    y, F, H, Q, R, c, d, steady : as for `univariate_filter`
    x, P, Pinf : (n_states,), (n_states, n_states): all series start alike

    Returns
    -------
    log-likelihoods (n_series,), numbers of observations that ended the diffuse phase (n_series,), number of
    innovation variances that lost over ten digits
    """
    x, P, Pinf = (np.repeat(part[None], len(y), axis=0) for part in (x, P, Pinf))
    filtered = univariate_filter(y, F, H, Q, R, c, d, x, P, Pinf)
    used = filtered.diffuse_obs.sum(axis=(1, 2), dtype=np.int64)
    return filtered.log_likelihood.sum(axis=1), used, filtered.n_cancelled


class Moments(NamedTuple):
    """The arrays that a filter fills: see `Filtered`."""

    predicted_mean: Array
    predicted_cov: Array
    filtered_mean: Array
    filtered_cov: Array
    log_likelihood: Array


def new_moments(n_series: int, n_steps: int, n: int) -> Moments:
    """Return room for the forward pass; the log-likelihoods are zero."""
    return Moments(
        np.empty((n_series, n_steps + 1, n)),
        np.empty((n_series, n_steps + 1, n, n)),
        np.empty((n_series, n_steps, n)),
        np.empty((n_series, n_steps, n, n)),
        np.zeros((n_series, n_steps)),
    )


def _stacked(parts: list[Any], one: Any) -> Any:
    return np.stack(parts, axis=1) if parts else one[:, None][:, :0].copy()


def _at(part: Array, t: int) -> Array:
    now: Array = part[t if len(part) > 1 else 0]
    return now


def _carried(P: Array, F: Array) -> Array:
    P = F @ P @ F.T
    return (P + P.transpose(0, 2, 1)) / 2


def _trace(P: Array) -> Array:
    total: Array = np.einsum("sii->s", P)
    return total


def _outer(a: Array, b: Array) -> Array:
    return a[:, :, None] * b[:, None, :]


def _uncorrelated(y: Array, H: Array, R: Array, d: Array) -> Rows:
    """Multiply a row by the inverse unit triangle of R = L D L', over the elements that are present."""
    present = ~np.isnan(y)
    y = np.where(present, y - d, 0.0)
    if np.count_nonzero(R) == np.count_nonzero(np.diagonal(R)):
        return Rows(y, H[None], np.broadcast_to(np.diagonal(R), y.shape), present)
    both = present[:, :, None] & present[:, None, :]
    L, D = _ldl(np.where(both, R, 0.0))
    H = np.where(present[:, :, None], H, 0.0)
    for i in range(1, y.shape[1]):
        y[:, i] -= np.einsum("sj,sj->s", L[:, i, :i], y[:, :i])
        H[:, i] -= np.einsum("sj,sjk->sk", L[:, i, :i], H[:, :i])
    return Rows(y, H, D, present)


def _ldl(R: Array) -> tuple[Array, Array]:
    """Factor positive semi-definite `R = L D L'` (n_series, n_obs, n_obs); a zero pivot has a zero column."""
    n_series, m, _ = R.shape
    L, D = np.zeros_like(R), np.zeros((n_series, m))
    for i in range(m):
        for j in range(i):
            rest = R[:, i, j] - np.einsum("sk,sk,sk->s", L[:, i, :j], L[:, j, :j], D[:, :j])
            L[:, i, j] = np.divide(rest, D[:, j], out=np.zeros(n_series), where=D[:, j] > 0)
        D[:, i] = R[:, i, i] - np.einsum("sk,sk->s", L[:, i, :i] ** 2, D[:, :i])
        D[D[:, i] <= NO_VARIANCE * R[:, i, i], i] = 0.0
    return L, D


def _update(
    x: Array,
    P: Array,
    Pinf: Array,
    bound: Array,
    left: NDArray[np.int64],
    rows: Rows,
    log_lik: Array,
    used: NDArray[np.uint8],
) -> int:
    """Take in one row, in place; return how many innovation variances lost more than ten digits."""
    spread = np.einsum("sii->si", P).copy()
    cancelled = 0
    for i in range(rows.y.shape[1]):
        h, r = rows.H[:, i], rows.r[:, i]
        v = rows.y[:, i] - np.einsum("sj,sj->s", np.broadcast_to(h, x.shape), x)
        Mstar, fstar = _spread_along(P, h)
        fstar = r + np.maximum(fstar, 0.0)
        scale = r + np.einsum("sj,sj->s", np.broadcast_to(h**2, spread.shape), spread)
        diffuse = np.zeros(len(x), dtype=bool)
        if left.any():
            Minf, finf = _spread_along(Pinf, h)
            diffuse = rows.present[:, i] & (left > 0) & (finf > NOT_DIFFUSE * _spread_along(bound, h)[1])
            if diffuse.any():
                _diffuse_update(x, P, Pinf, diffuse, v, Mstar, fstar, Minf, finf)
                log_lik[diffuse] -= 0.5 * (LOG_2PI + np.log(finf[diffuse]))
                left[diffuse] -= 1
                used[diffuse, i] = 1
                Pinf[left == 0] = 0.0
        proper = rows.present[:, i] & ~diffuse & (fstar > NO_VARIANCE * scale)
        cancelled += int(np.count_nonzero(rows.present[:, i] & ~diffuse & (fstar < CANCELLED * scale)))
        K = np.where(proper, Mstar.T / np.where(proper, fstar, 1.0), 0.0).T
        x += K * v[:, None]
        P -= _outer(K, Mstar)
        log_lik -= np.where(proper, 0.5 * (LOG_2PI + np.log(np.where(proper, fstar, 1.0)) + K_square(v, fstar)), 0.0)
    P += P.transpose(0, 2, 1).copy()
    P /= 2
    return cancelled


def K_square(v: Array, f: Array) -> Array:
    """Return `v^2 / f`, zero where f is."""
    return np.divide(v * v, f, out=np.zeros_like(v), where=f > 0)


def _spread_along(P: Array, h: Array) -> tuple[Array, Array]:
    M = np.einsum("sij,sj->si", P, np.broadcast_to(h, P.shape[:2]))
    return M, np.einsum("sj,sj->s", np.broadcast_to(h, M.shape), M)


def _diffuse_update(
    x: Array,
    P: Array,
    Pinf: Array,
    which: Mask,
    v: Array,
    Mstar: Array,
    fstar: Array,
    Minf: Array,
    finf: Array,
) -> None:
    """Use an observation of infinite variance: Durbin & Koopman (2012), equations 5.13-5.15, one element."""
    f = finf[which]
    K0 = Minf[which] / f[:, None]
    K1 = (Mstar[which] - K0 * fstar[which, None]) / f[:, None]
    x[which] += K0 * v[which, None]
    P[which] -= _outer(K0, Mstar[which]) + _outer(K1, Minf[which])
    Pinf[which] -= _outer(K0, Minf[which])


def univariate_smoother(
    y: Array,
    F: Array,
    H: Array,
    R: Array,
    d: Array,
    filtered: Filtered,
    estimators: bool = True,
) -> Smoothed:
    """Smooth every series backwards from its filtered moments, whatever form they were computed in.

    Each step repeats the updates of its row from the predicted moments, then runs through them backwards; nothing
    but the moments has to be kept from the forward pass. The smoothed moments start from the filtered ones, not, as
    in the textbook, from the predicted ones: those may be huge, and the difference would be lost.

    Parameters
    ----------
    y, F, H, R, d : as for `univariate_filter`
    filtered : what it returned
    estimators : bool
        Whether to return r and N too; without them they are empty.

    Returns
    -------
    Smoothed
    """
    n_series, n_steps, _ = y.shape
    filtered = filtered.complete()
    n, n_diffuse = F.shape[1], filtered.diffuse_cov.shape[1]
    mean, cov = np.empty((n_series, n_steps, n)), np.empty((n_series, n_steps, n, n))
    r_all, N_all = np.empty_like(mean), np.empty_like(cov)
    r, N = np.zeros((n_series, n)), np.zeros((n_series, n, n))
    for t in range(n_steps - 1, -1, -1):
        rows = _uncorrelated(y[:, t], _at(H, t), _at(R, t), _at(d, t))
        Pf = filtered.filtered_cov[:, t]
        mean[:, t] = filtered.filtered_mean[:, t] + _times(Pf, r)
        cov[:, t] = Pf - Pf @ N @ Pf
        Pinf, used = np.zeros_like(Pf), np.zeros_like(rows.present)
        if t < n_diffuse:
            Pinf, used = filtered.diffuse_cov[:, t].copy(), filtered.diffuse_obs[:, t] > 0
        steps = _row_forwards(
            rows, filtered.predicted_mean[:, t].copy(), filtered.predicted_cov[:, t].copy(), Pinf, used
        )
        r, N = _row_backwards(steps, r, N)
        r_all[:, t], N_all[:, t] = r, N
        if t:
            r, N = r @ _at(F, t - 1), _carried(N, _at(F, t - 1).T)
    kept = n_steps if estimators else 0
    n_lost = np.count_nonzero(_variances(cov) < LOST * _variances(filtered.filtered_cov))
    return Smoothed(mean, (cov + cov.transpose(0, 1, 3, 2)) / 2, r_all[:, :kept], N_all[:, :kept], int(n_lost))


def _variances(covs: Array) -> Array:
    return np.einsum("...ii->...i", covs)


def _times(P: Array, r: Array) -> Array:
    product: Array = np.einsum("sij,sj->si", P, r)
    return product


class _Step(NamedTuple):
    """One element's update, as the backward pass needs it: `inverse` is 1 / f, zero where f is infinite."""

    h: Array
    v: Array
    K: Array
    inverse: Array


def _row_backwards(steps: list[_Step], r: Array, N: Array) -> tuple[Array, Array]:
    for step in reversed(steps):
        h = np.broadcast_to(step.h, r.shape)
        L = np.eye(r.shape[1]) - _outer(step.K, h)
        Lt = L.transpose(0, 2, 1)
        r = _times(Lt, r) + h * (step.v * step.inverse)[:, None]
        N = Lt @ N @ L + _outer(h, h) * step.inverse[:, None, None]
    return r, N


def _row_forwards(rows: Rows, x: Array, P: Array, Pinf: Array, used: Mask) -> list[_Step]:
    spread = np.einsum("sii->si", P).copy()
    steps = []
    for i in range(rows.y.shape[1]):
        h, r = rows.H[:, i], rows.r[:, i]
        v = rows.y[:, i] - np.einsum("sj,sj->s", np.broadcast_to(h, x.shape), x)
        Mstar, fstar = _spread_along(P, h)
        fstar = r + np.maximum(fstar, 0.0)
        Minf, finf = _spread_along(Pinf, h)
        scale = r + np.einsum("sj,sj->s", np.broadcast_to(h**2, spread.shape), spread)
        diffuse = used[:, i]
        proper = rows.present[:, i] & ~diffuse & (fstar > NO_VARIANCE * scale)
        f = np.where(diffuse, finf, np.where(proper, fstar, 1.0))
        K = np.where(diffuse, Minf.T, np.where(proper, Mstar.T, 0.0)).T / f[:, None]
        K1 = np.where(diffuse, (Mstar - K * fstar[:, None]).T / f, 0.0).T
        steps.append(_Step(h, v, K, np.where(proper, 1.0 / f, 0.0)))
        x += K * v[:, None]
        P -= _outer(K, Mstar) + _outer(K1, np.where(diffuse, Minf.T, 0.0).T)
        Pinf -= _outer(np.where(diffuse, K.T, 0.0).T, Minf)
    return steps
