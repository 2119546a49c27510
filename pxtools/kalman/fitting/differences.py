"""Differencing ahead of a fit: states that hold past observations are known, and need not be filtered.

An ARIMA model carries the last k values of the series along, diffuse at first. Where no value is missing, the
likelihood is exactly that of the stationary rest given the differenced series, times that of the k values that end the
diffuse phase: with the last value's coefficient c, these add `-k log(2 pi) / 2 - k log |c|`. Reference: Ansley & Kohn
(1985), Estimation, filtering, and smoothing in state space models with incompletely specified initial conditions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pxtools.kalman.checks import Array
from pxtools.kernels.kalman_free_layout import C, D, F, FreeNumbers, G, H, P, R, X
from pxtools.kernels.kalman_numpy import LOG_2PI


class Differenced(NamedTuple):
    """What a likelihood is made of, and what has to be added to it."""

    values: Array
    numbers: FreeNumbers
    constant: float


def differenced(values: Array, numbers: FreeNumbers) -> Differenced:
    """Return series and model without the states that hold past observations; both as they are where that fails.

    Parameters
    ----------
    values : (n_series, n_steps, n_obs)
    numbers : FreeNumbers

    Returns
    -------
    Differenced
    """
    whole = Differenced(values, numbers, 0.0)
    is_constant = all(numbers.shapes[part][0] == 1 for part in (*range(6), G))
    if not (is_constant and numbers.n_obs == 1 and numbers.stationary.size):
        return whole
    past = _past(numbers)
    if past is None or not 0 < len(past) < values.shape[1] or np.isnan(values).any():
        return whole
    _, observed, *_ = numbers.parts(numbers.base)
    weights = observed[0, 0, past]
    series = values - numbers.base[numbers.slice(D)]
    k, n_steps = len(past), values.shape[1]
    rest = series[:, k:] - sum(w * series[:, k - 1 - j : n_steps - 1 - j] for j, w in enumerate(weights) if w)
    constant = -len(values) * k * (LOG_2PI / 2 + np.log(np.abs(weights[-1])))
    return Differenced(np.ascontiguousarray(rest), _without(numbers, past), float(constant))


def _past(numbers: FreeNumbers) -> NDArray[np.int_] | None:
    """The states that hold past observations, the latest first; None if there is any other but stationary ones."""
    held = np.flatnonzero(np.diagonal(numbers.diffuse_cov))
    if len(held) + len(numbers.stationary) != numbers.n_states or not held.size:
        return None
    if numbers.moved_parts & {H, R, D, X, P} or np.count_nonzero(numbers.diffuse_cov) != len(held):
        return None
    parts, moving = numbers.parts(numbers.base), numbers.parts(numbers.moving)
    if parts[R].any() or any(part[0][held].any() for part in (moving[F], moving[G], moving[C], parts[G], parts[C])):
        return None
    transition, observed = parts[F][0], parts[H][0, 0]
    if (transition[np.ix_(numbers.stationary, held)] != 0).any() or moving[F][0][:, held].any():
        return None
    rows = transition[held]
    shifts = (np.count_nonzero(rows, axis=1) == 1) & (rows.max(axis=1) == 1.0)
    following = dict(zip(rows.argmax(axis=1)[shifts].tolist(), held[shifts].tolist(), strict=True))
    chain = held[(rows == observed).all(axis=1)][:1].tolist()
    while 0 < len(chain) < len(held):
        state = following.pop(chain[-1], None)
        if state is None or state in chain:
            return None
        chain.append(state)
    return np.array(chain) if chain and observed[chain[-1]] else None


def _without(numbers: FreeNumbers, past: NDArray[np.int_]) -> FreeNumbers:
    """Return the model of the other states, whose observations have no intercept any more."""
    keeps = ~np.isin(np.arange(numbers.n_states), past)
    places = numbers.parts(np.arange(len(numbers.base)))
    kept = []
    for part, place in enumerate(places):
        if part in (F, P):
            place = place[..., keeps, :][..., keeps]
        elif part in (H, C, X):
            place = place[..., keeps]
        elif part == G:
            place = place[:, keeps]
        kept.append(place)
    rows = np.concatenate([place.ravel() for place in kept])
    base = numbers.base[rows]
    base[sum(place.size for place in kept[:D])] = 0.0
    return FreeNumbers(
        base,
        tuple(place.shape for place in kept),
        np.zeros((int(keeps.sum()),) * 2),
        np.arange(int(keeps.sum())),
        np.searchsorted(rows, numbers.where),
        numbers.first,
        numbers.second,
        numbers.weight,
        numbers.n_params,
    )
