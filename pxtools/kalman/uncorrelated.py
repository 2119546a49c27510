"""Rows whose noises are correlated, made uncorrelated at once where every row is whole or missing.

`R = L D L'` with ones on the diagonal of L: `L^-1 y` has the observation matrix `L^-1 H`, noises of covariance D, and,
since the determinant of L is one, the same log-likelihood. The kernels for uncorrelated noises are four times as fast,
and EM comes to a full R after its first step, whatever it started from.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pxtools.kalman.batch import FleetArrays, Tick, run_fleet
from pxtools.kalman.checks import Array
from pxtools.kalman.model import StateSpaceModel
from pxtools.kernels.kalman_batch_layout import split_statistics


def run_sums(model: StateSpaceModel, y: Array, tick: Tick | None = None) -> FleetArrays:
    """Return log-likelihoods and sufficient statistics of series: see `run_fleet`."""
    wanted = ("log_likelihood", "statistics")
    apart = uncorrelated(model, y)
    if apart is None:
        return run_fleet(model, y, wanted, tick=tick)
    found = run_fleet(apart.model, apart.values, wanted, tick=tick)
    found.arrays["statistics"] = correlated_statistics(found.arrays["statistics"], apart.L, model.n_states)
    return found


class Uncorrelated(NamedTuple):
    """The same model and series in other observations, and the way back: `y = L values`."""

    model: StateSpaceModel
    values: Array
    L: Array


def uncorrelated(model: StateSpaceModel, y: Array) -> Uncorrelated | None:
    """Return a model and series `(n_series, n_steps, n_obs)` with uncorrelated noises.

    Returns
    -------
    None where noises are uncorrelated, singular or change with time, and where a row misses single values or holds an
    infinite one.
    """
    R = model.parts["R"][0]
    if len(model.parts["R"]) > 1 or np.count_nonzero(R) == np.count_nonzero(np.diagonal(R)):
        return None
    is_value = np.isfinite(y)
    if (is_value.any(axis=2) != is_value.all(axis=2)).any() or np.isinf(y).any():
        return None
    try:
        C = np.linalg.cholesky(R)
    except np.linalg.LinAlgError:
        return None
    L = C / np.diagonal(C)
    inverse = np.linalg.inv(L)
    other = model.replace(
        observation_matrix=inverse @ model.parts["H"],
        observation_cov=np.diag(np.diagonal(C) ** 2),
        observation_intercept=model.parts["d"] @ inverse.T,
    )
    return Uncorrelated(other, y @ inverse.T, L)


def correlated_statistics(table: Array, L: Array, n: int) -> Array:
    """Return the sufficient statistics `(n_series, n_statistics)` of the observations that were given."""
    parts = split_statistics(table, n, len(L))
    parts = parts._replace(noise=L @ parts.noise @ L.T, noise_state=L @ parts.noise_state)
    return np.concatenate([part.reshape(len(table), -1) for part in parts], axis=1)
