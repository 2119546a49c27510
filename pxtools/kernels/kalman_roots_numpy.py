"""NumPy twins of the compiled square-root filter and smoother: factors of covariances, never covariances.

The state is `mean + S u + B delta`: u is standard normal and delta flat, numbers that all states and observations are
linear in. A row of observations, and a transition, turn these numbers into others by reflections. The smoother carries
what all observations say of u and delta back through the same reflections: no covariance is inverted or subtracted, and
no rank is decided.

References: Kaminski, Bryson & Schmidt (1971), Discrete square root filtering; Paige & Saunders (1977), Least squares
estimation of discrete linear dynamic systems using orthogonal transformations; Durbin & Koopman (2012), sections
5.2-5.3 (diffuse); Golub & Van Loan (2013), section 5.2.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pxtools.kernels.kalman_numpy import LOG_2PI, new_moments
from pxtools.kernels.kalman_results import NO_PIVOT, NO_TRACE, NOT_WIDE, Array, Filtered, Smoothed


class State(NamedTuple):
    """Mean, factor (n_states, n_states) and infinite directions (n_states, n_wide)."""

    mean: Array
    half: Array
    wide: Array


class Move(NamedTuple):
    """Where a row or a transition leads, and the numbers before it in terms of those after it.

    `(u, delta)` before are `known + from_half u + from_wide delta + rest e`, with u and delta those of `state`.
    """

    state: State
    known: Array
    from_half: Array
    from_wide: Array
    rest: Array


class Said(NamedTuple):
    """What a row says: its part of the log-likelihood, and 1 for each element that ended an infinite direction."""

    log_lik: float
    used: NDArray[np.uint8]


def square_root_filter(
    y: Array,
    F: Array,
    H: Array,
    half_Q: Array,
    half_R: Array,
    c: Array,
    d: Array,
    x: Array,
    S: Array,
    B: Array,
) -> Filtered:
    """Filter every series with factors instead of covariances.

    Parameters
    ----------
    y, F, H, c, d, x : as for `univariate_filter`
    half_Q, half_R : (1 or n_steps, n_states, n_states), (1 or n_steps, n_obs, n_obs), A with `A A' = Q`, R
    S, B : (n_series, n_states, n_states), factors of the first predicted covariance and of its diffuse part

    Returns
    -------
    Filtered
    """
    n_series, n_steps, m = y.shape
    n = F.shape[1]
    out, last = new_moments(n_series, n_steps, n), np.zeros((n_series, n, n))
    wide, wide_after = np.zeros((n_series, n_steps, n, n)), np.zeros((n_series, n_steps, n, n))
    used, n_diffuse = np.zeros((n_series, n_steps, m), dtype=np.uint8), 0
    for s in range(n_series):
        state, bound = State(x[s], S[s], B[s][:, B[s].any(axis=0)]), _square(B[s])
        for t in range(n_steps):
            out.predicted_mean[s, t], out.predicted_cov[s, t] = state.mean, _square(state.half)
            if state.wide.shape[1]:
                wide[s, t], n_diffuse = _square(state.wide), max(n_diffuse, t + 1)
            move, said = _through_row(state, bound, y[s, t] - _at(d, t), _at(H, t), _at(half_R, t))
            out.log_likelihood[s, t], used[s, t], state = said.log_lik, said.used, move.state
            out.filtered_mean[s, t], out.filtered_cov[s, t] = state.mean, _square(state.half)
            wide_after[s, t] = _square(state.wide)
            bound = _at(F, t) @ bound @ _at(F, t).T if state.wide.shape[1] else bound
            state = _through_transition(state, bound, _at(F, t), _at(half_Q, t), _at(c, t)).state
        out.predicted_mean[s, n_steps], out.predicted_cov[s, n_steps] = state.mean, _square(state.half)
        last[s] = _square(state.wide)
    wide, wide_after, used = wide[:, :n_diffuse].copy(), wide_after[:, :n_diffuse].copy(), used[:, :n_diffuse].copy()
    return Filtered(*out, wide, wide_after, used, last, 0)


def square_root_smoother(
    y: Array,
    F: Array,
    H: Array,
    half_Q: Array,
    half_R: Array,
    c: Array,
    d: Array,
    x: Array,
    S: Array,
    B: Array,
    more: bool = True,
) -> Smoothed:
    """Smooth every series: arguments of `square_root_filter`, whose steps are repeated and kept.

    Parameters
    ----------
    more : bool
        Whether to return lag-one covariances and disturbances too; without them they are empty.

    Returns
    -------
    Smoothed
        Directions that no observation reaches count as known.
    """
    n_series, n_steps, _ = y.shape
    n, kept = F.shape[1], (n_steps - 1 if more else 0)
    mean, cov = np.empty((n_series, n_steps, n)), np.empty((n_series, n_steps, n, n))
    lag, shock, shock_cov = (np.empty((n_series, kept, *shape)) for shape in ((n, n), (n,), (n, n)))
    for s in range(n_series):
        start = State(x[s], S[s], B[s][:, B[s].any(axis=0)])
        before, rows, moves = _moves(start, y[s] - d, F, H, half_Q, half_R, c)
        n_flat = rows[-1].state.wide.shape[1]
        centre, root = np.zeros(n + n_flat), np.eye(n + n_flat, n)
        for t in range(n_steps - 1, -1, -1):
            if t < n_steps - 1:
                ahead = before[t + 1].half @ root[:n] + before[t + 1].wide @ root[n:]
                centre, root = _back(moves[t], centre, root)
                # the numbers of the disturbance stand between those of the state and the flat ones
                of_state = np.r_[:n, 2 * n : len(centre)]
                if more:
                    shock[s, t], shock_cov[s, t] = centre[n : 2 * n], _square(root[n : 2 * n])
                centre, root = centre[of_state], root[of_state]
            _, half, wide = rows[t].state
            spread = half @ root[:n] + wide @ root[n:]
            mean[s, t] = rows[t].state.mean + half @ centre[:n] + wide @ centre[n:]
            cov[s, t] = _square(spread)
            if more and t < n_steps - 1:
                lag[s, t] = ahead @ spread[:, : ahead.shape[1]].T
            centre, root = _back(rows[t], centre, root)
            root = _lower(root)
    none = np.zeros((n_series, 0, n, n))
    return Smoothed(mean, cov, none[:, :, 0].copy(), none, 0, None, lag, shock, shock_cov)


def _moves(
    state: State, y: Array, F: Array, H: Array, half_Q: Array, half_R: Array, c: Array
) -> tuple[list[State], list[Move], list[Move]]:
    """Return the predicted states, and the moves through rows and transitions, of one series."""
    before, rows, moves, bound = [], [], [], _square(state.wide)
    for t in range(len(y)):
        before.append(state)
        rows.append(_through_row(state, bound, y[t], _at(H, t), _at(half_R, t))[0])
        bound = _at(F, t) @ bound @ _at(F, t).T if rows[t].state.wide.shape[1] else bound
        moves.append(_through_transition(rows[t].state, bound, _at(F, t), _at(half_Q, t), _at(c, t)))
        state = moves[t].state
    return before, rows, moves


def _back(move: Move, mean: Array, root: Array) -> tuple[Array, Array]:
    """Return mean and factor of the numbers before a move, from those of the numbers after it."""
    both = np.hstack([move.from_half, move.from_wide])
    return move.known + both @ mean, np.hstack([both @ root, move.rest])


def _through_row(state: State, bound: Array, row: Array, H: Array, noise: Array) -> tuple[Move, Said]:
    """Take in what is observed of a row (less its intercept); the numbers before it are u, then delta."""
    here = np.flatnonzero(~np.isnan(row))
    used = np.zeros(len(row), dtype=np.uint8)
    x, S, B = state
    k, n, b, q = len(here), len(x), B.shape[1], noise.shape[1]
    if not k:
        same = np.eye(n + b)
        return Move(state, np.zeros(n + b), same[:, :n], same[:, n:], np.zeros((n + b, 0))), Said(0.0, used)
    H, noise = H[here], noise[here]
    Z = np.zeros((k + 2 * n + b, b + q + n + 1))
    Z[:k, :b], Z[:k, b : b + q], Z[:k, b + q : -1], Z[:k, -1] = H @ B, noise, H @ S, row[here] - H @ x
    Z[k : k + n, :b], Z[k : k + n, b + q : -1] = B, S
    Z[k + n : k + 2 * n, b + q : -1], Z[k + 2 * n :, :b] = np.eye(n), np.eye(b)
    wide_reach = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", H, bound, H), 0.0))
    first, proper, used[here], log_lik = _absorb(Z, k, b, wide_reach, _lengths(noise) + np.abs(H) @ _lengths(S))
    Z = Z[k:]
    reach = _lengths(S)
    # an infinite direction that ends brings its own size
    reach = np.maximum(reach, _lengths(Z[:n, proper:-1])) if first else reach
    half, turned = _triangle(Z[:n, proper:-1], Z[n:, proper:-1], reach)
    after = State(x - Z[:n, -1], half, Z[:n, first:b].copy())
    return Move(after, -Z[n:, -1], turned[:, :n], Z[n:, first:b], turned[:, n:]), Said(log_lik, used)


def _through_transition(state: State, bound: Array, F: Array, half_Q: Array, c: Array) -> Move:
    """Predict; the numbers before it are u, then those of the disturbance, then delta."""
    x, S, B = state
    n, b = len(x), B.shape[1]
    half, turned = _triangle(np.hstack([F @ S, half_Q]), np.eye(2 * n), np.abs(F) @ _lengths(S) + _lengths(half_Q))
    wide, turn = _narrowed(F @ B, np.sqrt(np.maximum(np.diagonal(bound), 0.0)))
    numbers, flat = np.vstack([turned, np.zeros((b, 2 * n))]), np.vstack([np.zeros((2 * n, turn.shape[1])), turn])
    return Move(State(F @ x + c, half, wide), np.zeros(2 * n + b), numbers[:, :n], flat, numbers[:, n:])


def _narrowed(B: Array, reach: Array) -> tuple[Array, Array]:
    """Return B without the directions that a transition has made vanish, and the old flat numbers by the new ones."""
    (n, b), found = B.shape, 0
    B = np.where((_lengths(B) > NOT_WIDE * reach)[:, None], B, 0.0)
    Z, left = np.vstack([B, np.eye(b)]), list(range(n))
    while found < b and (i := _largest(Z, left, found, b, NOT_WIDE * reach)) is not None:
        left.remove(i)
        _reflect(Z, i, [*left, *range(n, n + b)], found, b)
        found += 1
    turn = np.eye(b) if found == b else Z[n:, :found]
    return B @ turn, turn


def _absorb(
    Z: Array, top: int, n_wide: int, wide_reach: Array, reach: Array
) -> tuple[int, int, NDArray[np.uint8], float]:
    """Condition the rows of Z below the first `top` on the first, in place: the array algorithm.

    Parameters
    ----------
    Z : (top + any, n_wide + any + 1)
        Rows are linear forms of n_wide flat and any standard normal numbers. The last column of the first rows is what
        they turned out to be less their means.
    wide_reach, reach : (top,)
        Sizes of the numbers that the flat and the proper part of a row were computed from.

    Returns
    -------
    The first columns that are left of the flat and of the proper ones, which top rows ended a flat number, and the
    log-likelihood. The last column of the rows below is to be taken from their means.
    """
    used, left, log_lik = np.zeros(top, dtype=np.uint8), list(range(top)), 0.0
    first, proper = 0, n_wide
    while first < n_wide and (i := _largest(Z, left, first, n_wide, NOT_WIDE * wide_reach)) is not None:
        left.remove(i)
        used[i] = 1
        others = [*left, *range(top, len(Z))]
        before = _lengths(Z[others, first:n_wide])
        _reflect(Z, i, others, first, n_wide)
        Z[others, n_wide:] -= (Z[others, first] / Z[i, first])[:, None] * Z[i, n_wide:]
        log_lik -= 0.5 * LOG_2PI + float(np.log(abs(Z[i, first])))
        first += 1
        rest = Z[others, first:n_wide]
        Z[others, first:n_wide] = np.where((_lengths(rest) > NOT_WIDE * before)[:, None], rest, 0.0)
    while (i := _largest(Z, left, proper, -1, NO_PIVOT * reach)) is not None:
        left.remove(i)
        others = [*left, *range(top, len(Z))]
        _reflect(Z, i, others, proper, Z.shape[1] - 1)
        found = Z[i, -1] / Z[i, proper]
        Z[others, -1] -= Z[others, proper] * found
        log_lik -= 0.5 * (LOG_2PI + found**2) + float(np.log(abs(Z[i, proper])))
        proper += 1
    return first, proper, used, log_lik


def _largest(Z: Array, left: list[int], first: int, stop: int, limit: Array) -> int | None:
    """Return the row with the longest rest beyond its limit."""
    sizes = _lengths(Z[left, first:stop])
    sizes[~(sizes > limit[left])] = 0.0
    return left[int(np.argmax(sizes))] if sizes.any() else None


def _reflect(Z: Array, i: int, others: list[int], first: int, stop: int) -> None:
    """Turn columns so that row i has only the first of them: a Householder reflection."""
    a = Z[i, first:stop].copy()
    rest = a[1:] @ a[1:]
    if rest == 0.0:
        return
    size = np.sqrt(a[0] * a[0] + rest)
    pivot = -size if a[0] > 0 else size
    a[0] -= pivot
    Z[others, first:stop] += ((Z[others, first:stop] @ a) / (pivot * a[0]))[:, None] * a
    Z[i, first], Z[i, first + 1 : stop] = pivot, 0.0


def _triangle(rows: Array, more: Array, reach: Array) -> tuple[Array, Array]:
    """Turn columns so that `rows` are a lower triangle, and `more` with them; rows that are round-off become zero."""
    turn, triangle = np.linalg.qr(rows.T, mode="complete")
    half = triangle.T[:, : len(rows)]
    return np.where((_lengths(half) > NO_TRACE * reach)[:, None], half, 0.0), more @ turn


def _lower(rows: Array) -> Array:
    """Return the lower triangle L with `L L' = rows rows'`; rows that are too few to be one stay."""
    if rows.shape[1] <= rows.shape[0]:
        return rows
    return np.asarray(np.linalg.qr(rows.T, mode="r")).T


def _lengths(rows: Array) -> Array:
    return np.asarray(np.linalg.norm(rows, axis=1))


def _square(S: Array) -> Array:
    product: Array = S @ S.swapaxes(-1, -2)
    return product


def _at(part: Array, t: int) -> Array:
    now: Array = part[t if len(part) > 1 else 0]
    return now
