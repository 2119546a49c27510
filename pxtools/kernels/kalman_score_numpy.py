"""NumPy twin of the compiled score: derivatives of the log-likelihood by one pass backwards.

References: Koopman & Shephard (1992), Exact score for time series models in state space form, Biometrika 79;
Durbin & Koopman (2012), sections 4.5 and 7.3.3. The formulas stand in `kalman_score.h`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pxtools.kernels.kalman_numpy import Rows, _at, _carried, _ldl, _row_forwards, _times, _uncorrelated
from pxtools.kernels.kalman_results import Array, Filtered, Score

#: of the largest change: the step of differences through a diffuse start
STEP = 1e-5


def univariate_score(
    y: Array,
    F: Array,
    H: Array,
    R: Array,
    d: Array,
    filtered: Filtered,
    lengths: tuple[int, ...],
    entries: ArrayLike,
    n_left_out: int = 0,
) -> Score:
    """Differentiate the log-likelihood of all series together by the numbers of a model.

    Parameters
    ----------
    y, F, H, R, d : as for `univariate_filter`
    filtered : what a filter returned
    lengths : six of 0, 1 or n_steps
        For F, H, Q, R, c and d: not wanted, for all steps together, or step by step (of a part that changes).
    entries : array_like of int
        Which elements of F are wanted, row by row; the others may be left zero.
    n_left_out : int
        The derivatives by F and H leave out so many first steps, at least the diffuse ones.

    Returns
    -------
    Score
    """
    n_series, n_steps, m = y.shape
    n = F.shape[1]
    filtered = filtered.complete()
    n_diffuse = filtered.diffuse_cov.shape[1]
    n_left_out = max(n_left_out, n_diffuse)
    shapes = ((n, n), (m, n), (n, n), (m, m), (n,), (m,))
    sums = [np.zeros((k, *shape)) if k else None for k, shape in zip(lengths, shapes, strict=True)]
    wanted = np.zeros(n * n)
    wanted[np.asarray(entries, dtype=int)] = 1.0
    r, N = np.zeros((n_series, n)), np.zeros((n_series, n, n))
    rs, Ns = np.zeros((n_series, 2, n)), np.zeros((n_series, 2, n, n))
    for t in range(n_steps - 1, -1, -1):
        Pf = filtered.filtered_cov[:, t]
        NF, rf, Nf = N @ _at(F, t), r @ _at(F, t), _carried(N, _at(F, t).T)
        mean = filtered.filtered_mean[:, t] + _times(Pf, rf)
        K, S, weights = _gains(y[:, t], _at(H, t), _at(R, t), _at(d, t), filtered, t, n_diffuse)
        u = weights - _times(K, rf)
        KN = K @ Nf
        D = S + KN @ K.transpose(0, 2, 1)
        terms = [
            (np.einsum("si,sj->ij", r, mean) - (NF @ Pf).sum(axis=0)) * wanted.reshape(n, n) * (t >= n_left_out),
            (np.einsum("si,sj->ij", u, mean) - (K - KN @ Pf).sum(axis=0)) * (t >= n_left_out),
            (np.einsum("si,sj->ij", r, r) - N.sum(axis=0)) / 2,
            (np.einsum("si,sj->ij", u, u) - D.sum(axis=0)) / 2,
            r.sum(axis=0),
            u.sum(axis=0),
        ]
        for total, term in zip(sums, terms, strict=True):
            if total is not None:
                total[t if len(total) > 1 else 0] += term
        rows = _at(H, t)
        r, N = rf + u @ rows, Nf - rows.T @ KN - (rows.T @ KN).transpose(0, 2, 1) + rows.T @ D @ rows
        for which in [int(t > 0)] * (t in (0, n_left_out)) + [1] * (t == n_left_out == 0):
            rs[:, which], Ns[:, which] = r, N
    return Score._make([*sums, rs, Ns])


def _gains(
    y: Array, H: Array, R: Array, d: Array, filtered: Filtered, t: int, n_diffuse: int
) -> tuple[Array, Array, Array]:
    """Return `K'` (n_series, n_obs, n_states), `S^-1` and `S^-1 v` of a row, zero for what is missing."""
    rows = _uncorrelated(y, H, R, d)
    P = filtered.predicted_cov[:, t].copy()
    Pinf, used = np.zeros_like(P), np.zeros_like(rows.present)
    if t < n_diffuse:
        Pinf, used = filtered.diffuse_cov[:, t].copy(), filtered.diffuse_obs[:, t] > 0
    steps = _row_forwards(rows, filtered.predicted_mean[:, t].copy(), P, Pinf, used)
    E = _inverse_factor(rows, R)
    m, zero = y.shape[1], np.zeros(len(y))
    K, S, weights = np.zeros((len(y), m, P.shape[1])), np.zeros_like(E), np.zeros_like(y)
    for i, step in enumerate(steps):
        for j in range(i):
            explained = np.einsum("sk,sk->s", np.broadcast_to(step.h, steps[j].K.shape), steps[j].K)
            E[:, i] -= explained[:, None] * E[:, j]
        inverse = np.where(rows.present[:, i], step.inverse, zero)
        K += E[:, i, :, None] * step.K[:, None, :]
        S += inverse[:, None, None] * E[:, i, :, None] * E[:, i, None, :]
        weights += (inverse * step.v)[:, None] * E[:, i]
    return K, S, weights


def _inverse_factor(rows: Rows, R: Array) -> NDArray[np.float64]:
    """Return the inverse of L, `R = L D L'` over the elements that are present; rows of the others are zero."""
    both = rows.present[:, :, None] & rows.present[:, None, :]
    L, _ = _ldl(np.where(both, R, 0.0))
    return np.where(both, np.linalg.inv(L + np.eye(R.shape[0])), 0.0)


def through_start(
    run: Callable[..., Filtered],
    y: Array,
    system: Sequence[Array],
    slopes: Sequence[Array | None],
    n_steps: int,
    score: Score,
) -> Array:
    """Return the derivatives by way of F and H in the diffuse steps, by differences of a filter over these alone.

    Parameters
    ----------
    run : callable
        `univariate_filter` of a tier.
    y, system : what was filtered
    slopes : two arrays (n_params, 1 or n_steps, …) or None
        Derivatives of F and of H by the parameters.
    n_steps : int
        Number of diffuse steps.
    score : Score
        Its `r` and `N` say what the later steps add.

    Returns
    -------
    (n_params,) array
        NaN where a diffuse start does not end in the same step for models nearby.
    """
    y = np.ascontiguousarray(y[:, :n_steps])
    F, H, *rest = (part[:n_steps] if k < 6 and len(part) > 1 else part for k, part in enumerate(system))
    turns = [None if slope is None else slope[:, :n_steps] for slope in slopes]
    r, N = score.r[:, 1], score.N[:, 1]
    by_cov = (r[:, :, None] * r[:, None, :] - N) / 2
    gradient = np.zeros(next(len(turn) for turn in turns if turn is not None))
    for k in range(len(gradient)):
        moves = [np.zeros(()) if turn is None else turn[k] for turn in turns]
        size = max(float(np.abs(move).max()) for move in moves)
        if size == 0.0:
            continue
        step = STEP / size
        ahead, behind = (
            run(y, F + sign * moves[0], H + sign * moves[1], *rest, steady=False) for sign in (step, -step)
        )
        if ahead.last_diffuse_cov.any() or behind.last_diffuse_cov.any():
            gradient[k] = np.nan
            continue
        change = (ahead.log_likelihood - behind.log_likelihood).sum()
        change += np.vdot(r, (ahead.predicted_mean - behind.predicted_mean)[:, -1])
        change += np.vdot(by_cov, (ahead.predicted_cov - behind.predicted_cov)[:, -1])
        gradient[k] = change / (2 * step)
    return gradient
