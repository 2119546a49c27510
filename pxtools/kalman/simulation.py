"""Draws from a model: series from nothing, and states given observations.

References: de Jong & Shephard (1995), The simulation smoother; Durbin & Koopman (2002), A simple and efficient
simulation smoother, whose mean correction is used here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pxtools.errors import PxUsageError
from pxtools.kalman.checks import Array
from pxtools.kalman.factors import factors
from pxtools.kalman.filtering import run_form, smooth_filtered
from pxtools.kalman.model import StateSpaceModel
from pxtools.kalman.observations import Observed
from pxtools.kalman.results import FilterResult
from pxtools.kalman.system import system_of


class Simulated(NamedTuple):
    """Draws of states `(n_draws, n_steps, n_states)` and observations `(n_draws, n_steps, n_obs)`."""

    states: Array
    observations: Array


def simulate(
    model: StateSpaceModel, n_steps: int, *, n_draws: int = 1, seed: Any = None, initial_states: Any = None
) -> Simulated:
    """Draw series from a model.

    Parameters
    ----------
    model : StateSpaceModel
    n_steps : int
        Length of each series; a time-varying model must cover it.
    n_draws : int
        Number of series.
    seed : int, SeedSequence or Generator, optional
        The same seed gives the same draws.
    initial_states : array_like, optional
        `(n_states,)` or `(n_draws, n_states)`; drawn from the initial state when left out. A diffuse state, which has
        no distribution to draw from, then starts at its mean.

    Returns
    -------
    Simulated

    Raises
    ------
    PxUsageError
        Numbers that are not positive, or a model that covers fewer steps.

    Examples
    --------
    >>> from pxtools.kalman import local_level
    >>> drawn = simulate(local_level(1.0, observation_var=2.0), 50, n_draws=3, seed=1)
    >>> drawn.states.shape, drawn.observations.shape
    ((3, 50, 1), (3, 50, 1))
    """
    _check_counts(model, n_steps, n_draws)
    rng = np.random.default_rng(seed)
    F, H, Q, R, c, d, G = (model.parts[letter] for letter in "FHQRcdG")
    start = model.initial_state
    if initial_states is None:
        x = start.mean + rng.normal(size=(n_draws, model.n_states)) @ factors(start.cov[None])[0].T
    else:
        x = np.broadcast_to(np.asarray(initial_states, dtype=float), (n_draws, model.n_states))
    states, observations = (
        np.empty((n_draws, n_steps, model.n_states)),
        np.empty((n_draws, n_steps, model.n_obs)),
    )
    half_Q, half_R = factors(Q), factors(R)

    def at(part: Array, t: int) -> Array:
        now: Array = part[t if len(part) > 1 else 0]
        return now

    for t in range(n_steps):
        noise = rng.normal(size=(n_draws, model.n_obs)) @ at(half_R, t).T
        states[:, t], observations[:, t] = x, x @ at(H, t).T + at(d, t) + noise
        shock = rng.normal(size=(n_draws, model.n_noise)) @ at(half_Q, t).T
        x = x @ at(F, t).T + at(c, t) + shock @ at(G, t).T
    return Simulated(states, observations)


def simulate_states(result: FilterResult, n_draws: int, *, seed: Any = None) -> Array:
    """Draw the states given the observations: the simulation smoother.

    Parameters
    ----------
    result : FilterResult
        Of one series.
    n_draws : int
    seed : int, SeedSequence or Generator, optional

    Returns
    -------
    array, (n_draws, n_steps, n_states)

    Raises
    ------
    PxUsageError
        A batch of series, or observations that leave a state undetermined.

    References
    ----------
    Durbin & Koopman (2002), Biometrika 89, 603-616.

    Examples
    --------
    >>> from pxtools.kalman import kalman, local_level
    >>> result = kalman(local_level(1.0, observation_var=2.0), [1.0, 3.0, 2.0])
    >>> simulate_states(result, 5, seed=1).shape
    (5, 3, 1)
    """
    if result.observed.is_batch and len(result.observed.values) > 1:
        raise PxUsageError("`simulate_states` takes one series: filter `observations[i]` by itself.")
    if result.filtered.last_diffuse_cov.any():
        raise PxUsageError("The observations do not determine all states, which therefore have no distribution.")
    model, y = result.model, result.observed.values
    drawn = simulate(model, y.shape[1], n_draws=n_draws, seed=seed)
    rows = np.where(np.isnan(y), np.nan, drawn.observations)
    form = result.form if result.form in ("univariate", "cholesky", "sqrt", "information") else "auto"
    used, filtered = run_form(system_of(model, n_draws, y.shape[1]), rows, form)
    expected = smooth_filtered(model, Observed(rows, None, None, True), filtered, used).mean
    states: Array = result.smoothed.mean + drawn.states - expected
    return states


def _check_counts(model: StateSpaceModel, n_steps: int, n_draws: int) -> None:
    for name, value in (("n_steps", n_steps), ("n_draws", n_draws)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise PxUsageError(f"`{name}` is {value!r}; it must be a positive integer.")
    if model.n_steps is not None and model.n_steps < n_steps:
        raise PxUsageError(
            f"The model's matrices cover {model.n_steps} steps, {n_steps} are to be drawn.\nGive more, or draw fewer."
        )
