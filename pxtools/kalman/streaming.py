"""One observation after another, as they come in: a frozen state and a pure step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pxtools.errors import PxUsageError
from pxtools.kalman.checks import Array, freeze
from pxtools.kalman.model import StateSpaceModel
from pxtools.kalman.system import System
from pxtools.kernels import kalman


@dataclass(frozen=True, eq=False, repr=False)
class StreamState:
    """Hold all that the past says: the state predicted for the next observation.

    Attributes
    ----------
    predicted_mean, predicted_cov : arrays, (n_states,), (n_states, n_states)
        Of the state at the next step.
    filtered_mean, filtered_cov : arrays or None
        Of the state at the last step.
    n_steps : int
        Observations so far.
    log_likelihood : float
        Of all observations so far.
    last_log_likelihood : float
        Of the last observation.
    """

    model: StateSpaceModel
    predicted_mean: Array
    predicted_cov: Array
    diffuse_cov: Array
    filtered_mean: Array | None = None
    filtered_cov: Array | None = None
    n_steps: int = 0
    log_likelihood: float = 0.0
    last_log_likelihood: float = 0.0
    _system: System | None = field(default=None, compare=False)

    @property
    def is_diffuse(self) -> bool:
        """Whether a part of the state has still infinite variance."""
        return bool(self.diffuse_cov.any())

    def update(self, observation: Any) -> StreamState:
        """Return the state after one more observation, `(n_obs,)` or a number; NaN is missing."""
        y = _row(observation, self.model.n_obs)
        system = self._matrices()
        step = kalman.univariate_filter(
            y[None, None, :],
            *system[:6],
            self.predicted_mean[None],
            self.predicted_cov[None],
            self.diffuse_cov[None],
        )
        gained = float(step.log_likelihood[0, 0])
        return StreamState(
            self.model,
            freeze(step.predicted_mean[0, 1]),
            freeze(step.predicted_cov[0, 1]),
            freeze(step.last_diffuse_cov[0]),
            freeze(step.filtered_mean[0, 0]),
            freeze(step.filtered_cov[0, 0]),
            self.n_steps + 1,
            self.log_likelihood + gained,
            gained,
            system if self.model.n_steps is None else None,
        )

    def _matrices(self) -> System:
        if self._system is not None:
            return self._system
        model, t = self.model, self.n_steps
        if model.n_steps is not None and t >= model.n_steps:
            raise PxUsageError(f"The model's matrices cover {model.n_steps} steps, and all are used up.")
        arrays = (part[t : t + 1] if len(part) > 1 else part for part in model.kernel_parts)
        return System._make([*arrays, *model.initial_state])

    def __repr__(self) -> str:
        return f"StreamState({self.n_steps} steps, log-likelihood {self.log_likelihood:.4f})"


def start_stream(model: StateSpaceModel) -> StreamState:
    """Return the state before the first observation.

    Parameters
    ----------
    model : StateSpaceModel

    Returns
    -------
    StreamState
        Its `update(observation)` returns the state after a row of (n_obs,) values.

    Examples
    --------
    >>> from pxtools.kalman import local_level, start_stream
    >>> state = start_stream(local_level(1.0, observation_var=2.0))
    >>> for y in [1.0, float("nan"), 3.0]:
    ...     state = state.update(y)
    >>> state.filtered_mean.round(4)
    array([2.3333])
    """
    start = model.initial_state
    return StreamState(model, start.mean, start.cov, start.diffuse_cov)


def _row(observation: Any, n_obs: int) -> Array:
    try:
        y = np.array(observation, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        raise PxUsageError(f"The observation {observation!r} is no row of numbers.") from None
    if y.size != n_obs:
        raise PxUsageError(f"The observation has {y.size} values, the model observes {n_obs}.")
    if np.isinf(y).any():
        raise PxUsageError(f"The observation holds an infinite value: {y.tolist()}.\nA missing value is NaN.")
    return y
