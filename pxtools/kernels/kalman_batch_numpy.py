"""NumPy twins of the compiled passes over many series: same names, same arguments, all series at once.

`parts` are F, H, Q, R, c and d, each `(1 or n_series, 1 or n_steps, …)`, then x and P, `(1 or n_series, …)`: the state
that a series starts from at its step `start`. The passes fill the arrays of `out`, whose names and axes are those of
`kalman_batch_layout`; they leave steps before `start` to the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pxtools.kernels.kalman_batch_layout import BACKWARD, n_statistics
from pxtools.kernels.kalman_numpy import LOG_2PI, Rows, _ldl, _outer, _spread_along, _times
from pxtools.kernels.kalman_results import CANCELLED, NO_VARIANCE, Array

#: a smoothed variance below this fraction of the filtered one has lost digits to their difference
LOST = 1e-4


class Step(NamedTuple):
    """What the pass backwards needs of a step."""

    rows: Rows
    x: Array
    P: Array
    v: Array
    K: Array
    inverse: Array


def lanes_pass(
    y: Array,
    parts: Sequence[Array],
    start: NDArray[np.int_],
    series: NDArray[np.int_],
    out: dict[str, Any],
) -> None:
    """Filter the series, and smooth them where that is asked, each with its own missing values.

    Parameters
    ----------
    y : (n_series, n_steps, n_obs), NaN where missing
    parts : see above
    start : (n_series,), first step of each
    series : which of them
    out : arrays to fill, by name; `cancelled` and `lost` (n_series,) always: how many innovation variances lost over
        ten digits, and whether a smoothed variance lost over four
    """
    if not len(series) or not y.shape[1]:
        return
    F, H, Q, R, c, d = (part[series] if len(part) > 1 else part for part in parts[:6])
    x0, P0 = (
        part[series] if len(part) > 1 else np.broadcast_to(part, (len(series), *part.shape[1:])) for part in parts[6:]
    )
    first, values = start[series], y[series]
    x, P = np.zeros(x0.shape), np.zeros(P0.shape)
    squares, constants = np.zeros(len(series)), np.zeros(len(series))
    steps: list[Step] = []
    for t in range(y.shape[1]):
        x[first == t], P[first == t] = x0[first == t], P0[first == t]
        _put(out, "predicted_mean", series, t, x)
        _put(out, "predicted_cov", series, t, P)
        rows = _rows(values[:, t], _at(H, t), _at(R, t), _at(d, t), first <= t)
        v, K, inverse, constant, cancelled = _update(x, P, rows)
        out["cancelled"][series] += cancelled
        square = (v * v * inverse).sum(axis=1)
        squares, constants = squares + square, constants + constant
        _put(out, "log_likelihood_steps", series, t, -0.5 * (constant + square))
        z = np.where(inverse > 0, v * np.sqrt(inverse), np.nan)
        _put(out, "standardized_residuals", series, t, z)
        _put(out, "filtered_mean", series, t, x)
        _put(out, "filtered_cov", series, t, P)
        if BACKWARD & out.keys():
            steps.append(Step(rows, x.copy(), P.copy(), v, K, inverse))
        Ft = _at(F, t)
        x = _times(np.broadcast_to(Ft, P.shape), x) + _at(c, t)
        P = Ft @ P @ Ft.swapaxes(1, 2)
        P = (P + P.swapaxes(1, 2)) / 2 + _at(Q, t)
    _put(out, "predicted_mean", series, y.shape[1], x)
    _put(out, "predicted_cov", series, y.shape[1], P)
    for name, value in (("last_mean", x), ("last_cov", P), ("log_likelihood", -0.5 * (constants + squares))):
        if name in out:
            out[name][series] = value
    if steps:
        _backwards(values, (F, H, R, d), first, series, steps, out)


def means_pass(
    y: Array,
    parts: Sequence[Array],
    shared: dict[str, Array],
    start: int,
    series: NDArray[np.int_],
    out: dict[str, Any],
) -> None:
    """Filter series that share model, missing values and first covariance: here like any others.

    Parameters
    ----------
    shared : `gains`, `inverses`, `rows`, `constants` and `filtered_cov` of one of them
    start : the first step of all
    """
    spare = {name: np.zeros(len(y), dtype=np.int_) for name in ("cancelled", "lost")}
    lanes_pass(y, parts, np.full(len(y), start), series, {**spare, **out})


def patterns(y: Array, wants_hash: bool = True) -> tuple[NDArray[np.uint64], NDArray[np.int_], NDArray[np.bool_]]:
    """Return a hash of each series' missing values, how many it has, and whether it has infinite ones.

    The hash is 0 where nothing is missing; all are without `wants_hash`.
    """
    missing = np.isnan(y).reshape(len(y), -1)
    hashes = np.zeros(len(y), dtype=np.uint64)
    for s in np.flatnonzero(missing.any(axis=1)) if wants_hash else ():
        hashes[s] = hash(np.packbits(missing[s]).tobytes()) & (2**64 - 1)
    return hashes, np.count_nonzero(~missing, axis=1), np.asarray(np.isinf(y).any(axis=(1, 2)))


def _at(part: Array, t: int) -> Array:
    now: Array = part[:, t if part.shape[1] > 1 else 0]
    return now


def _put(out: dict[str, Any], name: str, series: NDArray[np.int_], t: int, value: Array) -> None:
    if name in out:
        out[name][series, t] = value


def _rows(y: Array, H: Array, R: Array, d: Array, started: NDArray[np.bool_]) -> Rows:
    """One step's observations with uncorrelated noise: see `kalman_numpy.Rows`."""
    present = ~np.isnan(y) & started[:, None]
    y = np.where(present, y - d, 0.0)
    H = np.broadcast_to(H, (len(y), *H.shape[1:]))
    both = present[:, :, None] & present[:, None, :]
    if np.count_nonzero(R) == np.count_nonzero(np.einsum("sii->si", R)):
        return Rows(y, H, np.broadcast_to(np.einsum("sii->si", R), y.shape), present)
    L, D = _ldl(np.where(both, R, 0.0))
    H = np.where(present[:, :, None], H, 0.0)
    for i in range(1, y.shape[1]):
        y[:, i] -= np.einsum("sj,sj->s", L[:, i, :i], y[:, :i])
        H[:, i] -= np.einsum("sj,sjk->sk", L[:, i, :i], H[:, :i])
    return Rows(y, H, D, present)


def _update(x: Array, P: Array, rows: Rows) -> tuple[Array, Array, Array, Array, NDArray[np.int_]]:
    """Take in one row, in place: innovations, gains, 1 / f (0 where unused), 2 pi and log f, cancellations."""
    spread = np.einsum("sii->si", P).copy()
    v, inverse = np.zeros(rows.y.shape), np.zeros(rows.y.shape)
    K = np.zeros(rows.H.shape)
    constant, cancelled = np.zeros(len(x)), np.zeros(len(x), dtype=np.int_)
    for i in range(rows.y.shape[1]):
        h, r = rows.H[:, i], rows.r[:, i]
        M, f = _spread_along(P, h)
        f = r + np.maximum(f, 0.0)
        scale = r + np.einsum("sj,sj->s", h**2, spread)
        serves = rows.present[:, i] & (f > NO_VARIANCE * scale)
        cancelled += rows.present[:, i] & (f < CANCELLED * scale)
        safe = np.where(serves, f, 1.0)
        v[:, i] = np.where(serves, rows.y[:, i] - np.einsum("sj,sj->s", h, x), 0.0)
        inverse[:, i] = np.where(serves, 1.0 / safe, 0.0)
        K[:, i] = M * inverse[:, i, None]
        x += K[:, i] * v[:, i, None]
        P -= _outer(K[:, i], M)
        constant += np.where(serves, LOG_2PI + np.log(safe), 0.0)
    return v, K, inverse, constant, cancelled


def _backwards(
    y: Array,
    parts: tuple[Array, Array, Array, Array],
    start: NDArray[np.int_],
    series: NDArray[np.int_],
    steps: list[Step],
    out: dict[str, Any],
) -> None:
    F, H, R, d = parts
    n_steps, n, m = len(steps), F.shape[-1], y.shape[2]
    r, N = np.zeros((len(series), n)), np.zeros((len(series), n, n))
    lost = np.zeros(len(series), dtype=bool)
    sums = np.zeros((len(series), n_statistics(n, m)))
    for t in range(n_steps - 1, -1, -1):
        step, counts = steps[t], start <= t
        mean, cov = step.x + _times(step.P, r), step.P - step.P @ N @ step.P
        cov = (cov + cov.swapaxes(1, 2)) / 2
        small = (np.einsum("sii->si", cov) < LOST * np.einsum("sii->si", step.P)).any(axis=1)
        lost |= small & counts & (t < n_steps - 1)
        _put(out, "smoothed_mean", series, t, mean)
        _put(out, "smoothed_cov", series, t, cov)
        if "statistics" in out:
            seen = counts & ~np.isnan(y[:, t]).all(axis=1)
            _add_observations(sums[:, n * n :], seen, y[:, t], (mean, cov), (_at(H, t), _at(R, t), _at(d, t)))
            sums[start == t, n * n : 2 * n * n + n] = np.column_stack([mean, cov.reshape(len(cov), -1)])[start == t]
        for i in range(m - 1, -1, -1):
            h, K, inverse = step.rows.H[:, i], step.K[:, i], step.inverse[:, i]
            L = np.eye(n) - _outer(K, h)
            Lt = L.swapaxes(1, 2)
            r = np.where((inverse > 0)[:, None], _times(Lt, r) + h * (step.v[:, i] * inverse)[:, None], r)
            N = np.where((inverse > 0)[:, None, None], Lt @ N @ L + _outer(h, h) * inverse[:, None, None], N)
        if t:
            sums[:, : n * n] += np.where((start < t)[:, None], (_outer(r, r) - N).reshape(len(r), -1), 0.0)
            Ft = _at(F, t - 1).swapaxes(1, 2)
            r, N = _times(np.broadcast_to(Ft, N.shape), r), Ft @ N @ Ft.swapaxes(1, 2)
    out["lost"][series] = lost
    if "statistics" in out:
        out["statistics"][series] = sums


def _add_observations(
    sums: Array,
    seen: NDArray[np.bool_],
    y: Array,
    moments: tuple[Array, Array],
    parts: tuple[Array, Array, Array],
) -> None:
    """Add the moments of one row's noise, and of the state, for the series that saw any of it."""
    mean, cov = moments
    H, R, d = (np.broadcast_to(part, (len(y), *part.shape[1:])) for part in parts)
    n, m = mean.shape[1], y.shape[1]
    here = ~np.isnan(y)
    both = here[:, :, None] & here[:, None, :]
    B = np.where(here[:, None, :], R, 0.0) @ np.linalg.pinv(np.where(both, R, 0.0), hermitian=True)
    B = np.where(here[:, :, None], np.eye(m) * here[:, None, :], B)
    rest = np.where(here[:, :, None] | here[:, None, :], 0.0, R - B @ np.where(here[:, :, None], R, 0.0))
    e = np.where(here, y - d - _times_rows(H, mean), 0.0)
    HP = np.where(here[:, :, None], H @ cov, 0.0)
    noise = B @ (_outer(e, e) + np.where(both, HP @ H.swapaxes(1, 2), 0.0)) @ B.swapaxes(1, 2) + rest
    cross = B @ (_outer(e, mean) - HP)
    states = cov + _outer(mean, mean)
    row = np.column_stack([part.reshape(len(y), -1) for part in (noise, cross, states)])
    at = n + n * n
    sums[seen, at : at + row.shape[1]] += row[seen]
    sums[seen, -1] += 1.0


def _times_rows(H: Array, x: Array) -> Array:
    product: Array = np.einsum("sij,sj->si", H, x)
    return product


__all__ = ["lanes_pass", "means_pass", "patterns"]
