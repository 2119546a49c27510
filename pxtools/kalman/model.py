"""A linear Gaussian state-space model: frozen, checked once.

    y[t]   = d + H x[t] + e[t],          e ~ N(0, R)      observation
    x[t+1] = c + F x[t] + G w[t],        w ~ N(0, Q)      transition

F `transition_matrix`, H `observation_matrix`, Q `process_cov`, R `observation_cov`, G `selection_matrix`,
c `transition_intercept`, d `observation_intercept`. The initial state is that of the first observation,
before it is seen (Durbin & Koopman 2012, equation 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from pxtools.errors import PxUsageError, nearest
from pxtools.kalman.checks import (
    Array,
    as_array,
    as_covariances,
    as_matrices,
    as_vectors,
    common_steps,
    freeze,
    identity,
)
from pxtools.kalman.initial import APPROXIMATE_VARIANCE, InitialState, initial_state, kinds_of


@dataclass(frozen=True, eq=False, repr=False)
class StateSpaceModel:
    """Hold a linear Gaussian state-space model, each part constant or time-varying.

    Parameters
    ----------
    transition_matrix : array_like, (n_states, n_states) or (n_steps, n_states, n_states)
        F; the entry at step t leads from t to t + 1.
    observation_matrix : array_like, (n_obs, n_states) or (n_steps, n_obs, n_states)
        H; one row of numbers when there is one observation.
    process_cov : array_like, (n_noise, n_noise) or (n_steps, n_noise, n_noise)
        Q, symmetric and positive semi-definite. n_noise is n_states without a `selection_matrix`.
    observation_cov : array_like, (n_obs, n_obs) or (n_steps, n_obs, n_obs)
        R, symmetric and positive semi-definite.
    initial_mean, initial_cov : array_like, (n_states,) and (n_states, n_states), optional
        Mean and covariance of the first state before its observation is seen. Giving `initial_cov` makes
        the initial state known unless `initial` says otherwise.
    initial : str or sequence of str, optional
        "known", "stationary", "diffuse" (exact) or "approximate" (diffuse with a large variance), for all
        states or for each. Diffuse when nothing is given.
    approximate_variance : float
        Variance of approximately diffuse states, 1e6.
    transition_intercept, observation_intercept : array_like, optional
        c, (n_states,) or (n_steps, n_states), and d, (n_obs,) or (n_steps, n_obs). Zero.
    selection_matrix : array_like, optional
        G, (n_states, n_noise) or (n_steps, n_states, n_noise). The identity.
    state_names, obs_names : sequence of str, optional
        Words for tables and plots.
    index : array_like, optional
        The labels (dates) of the steps of a time-varying model; observations with other labels are refused.

    Raises
    ------
    PxUsageError
        A shape that does not fit, a covariance that is not symmetric or has a negative eigenvalue, a
        number that is not finite. The message names the matrix.

    Examples
    --------
    >>> from pxtools.kalman import StateSpaceModel
    >>> StateSpaceModel([[1.0]], [[1.0]], [[1469.1]], [[15099.0]], initial="diffuse")
    StateSpaceModel(n_states=1, n_obs=1, initial=diffuse)
    """

    # array_like in, read-only arrays out
    transition_matrix: Any
    observation_matrix: Any
    process_cov: Any
    observation_cov: Any
    initial_mean: Any = None
    initial_cov: Any = None
    initial: str | Sequence[str] | None = None
    approximate_variance: float = APPROXIMATE_VARIANCE
    transition_intercept: Any = None
    observation_intercept: Any = None
    selection_matrix: Any = None
    state_names: Sequence[str] | None = None
    obs_names: Sequence[str] | None = None
    index: Any = None

    def __post_init__(self) -> None:
        parts = _checked(self)
        kinds = _kinds(self, parts["F"].shape[1])
        parts = {letter: freeze(part) for letter, part in parts.items()}
        for letter, name in LETTERS.items():
            object.__setattr__(self, name, _public(parts[letter]))
        object.__setattr__(self, "initial", kinds)
        object.__setattr__(self, "_parts", parts)
        object.__setattr__(self, "state_names", _names(self.state_names, "state", self.n_states))
        object.__setattr__(self, "obs_names", _names(self.obs_names, "y", self.n_obs))
        self.initial_state  # noqa: B018 - a stationary state that does not exist is an error now, not later

    @property
    def parts(self) -> dict[str, Array]:
        """The matrices by letter, each with a leading axis of length 1 or n_steps."""
        return self._parts  # type: ignore[attr-defined]

    @property
    def n_states(self) -> int:
        """Number of states."""
        return int(self.parts["F"].shape[1])

    @property
    def n_obs(self) -> int:
        """Number of observed series in a row."""
        return int(self.parts["H"].shape[1])

    @property
    def n_noise(self) -> int:
        """Number of process disturbances."""
        return int(self.parts["Q"].shape[1])

    @cached_property
    def n_steps(self) -> int | None:
        """Number of steps of a time-varying model, None of a constant one."""
        names = {**LETTERS}
        return common_steps({names[letter]: len(part) for letter, part in self.parts.items() if letter in names})

    @cached_property
    def state_noise(self) -> Array:
        """`G Q G'`, `(1 or n_steps, n_states, n_states)`."""
        G, Q = self.parts["G"], self.parts["Q"]
        if G is identity(self.n_states) or np.array_equal(G, identity(self.n_states)):
            return Q
        noise = G @ Q @ G.transpose(0, 2, 1)
        return freeze((noise + noise.transpose(0, 2, 1)) / 2)

    @cached_property
    def kernel_parts(self) -> tuple[Array, ...]:
        """F, H, `G Q G'`, R, c and d, in the order in which the kernels take them."""
        parts = self.parts
        return parts["F"], parts["H"], self.state_noise, parts["R"], parts["c"], parts["d"]

    @cached_property
    def initial_state(self) -> InitialState:
        """Mean, covariance and diffuse covariance of the first predicted state."""
        n, parts = self.n_states, self.parts
        assert self.initial is not None
        mean = np.zeros(n) if self.initial_mean is None else self.initial_mean
        cov = np.zeros((n, n)) if self.initial_cov is None else self.initial_cov
        state = initial_state(
            self.initial,
            mean,
            cov,
            parts["F"][0],
            self.state_noise[0] if "stationary" in self.initial else parts["Q"][0],
            parts["c"][0],
            self.approximate_variance,
        )
        return InitialState(*(freeze(part) for part in state))

    def replace(self, **changes: Any) -> StateSpaceModel:
        """Return a copy with some parts replaced, checked again."""
        known = [field.name for field in fields(self)]
        for name in changes:
            if name not in known:
                raise PxUsageError(f"A model has no part `{name}`.{nearest(name, known)}")
        if "initial_cov" in changes:
            changes.setdefault("initial", None)
        return replace(self, **changes)

    def __add__(self, other: StateSpaceModel) -> StateSpaceModel:
        """Return the model of the sum of two unobserved components: states side by side, noises added."""
        from pxtools.kalman.builders import add_models

        return add_models(self, other)

    def __repr__(self) -> str:
        assert self.initial is not None
        kinds = "/".join(dict.fromkeys(self.initial))
        steps = f", n_steps={self.n_steps}" if self.n_steps else ""
        return f"StateSpaceModel(n_states={self.n_states}, n_obs={self.n_obs}{steps}, initial={kinds})"


#: the textbook letters of the kernels and cells, beside the public words
LETTERS = {
    "F": "transition_matrix",
    "H": "observation_matrix",
    "Q": "process_cov",
    "R": "observation_cov",
    "c": "transition_intercept",
    "d": "observation_intercept",
    "G": "selection_matrix",
}


def _checked(model: StateSpaceModel) -> dict[str, Array]:
    F = as_matrices("transition_matrix", model.transition_matrix, None, None)
    n = F.shape[1]
    if F.shape[2] != n or n == 0:
        raise PxUsageError(f"`transition_matrix` has shape {np.shape(model.transition_matrix)}; it must be square.")
    H = as_matrices("observation_matrix", model.observation_matrix, None, n)
    m = H.shape[1]
    G = identity(n)
    if model.selection_matrix is not None:
        G = as_matrices("selection_matrix", model.selection_matrix, n, None)
    parts = {
        "F": F,
        "H": H,
        "Q": as_covariances("process_cov", model.process_cov, G.shape[2]),
        "R": as_covariances("observation_cov", model.observation_cov, m),
        "c": as_vectors("transition_intercept", model.transition_intercept, n),
        "d": as_vectors("observation_intercept", model.observation_intercept, m),
        "G": G,
    }
    if any(len(part) > 1 for part in parts.values()):
        common_steps({LETTERS[letter]: len(part) for letter, part in parts.items()})
    return parts


def _kinds(model: StateSpaceModel, n: int) -> tuple[str, ...]:
    given = model.initial_cov is not None
    if model.initial_mean is not None:
        mean = as_vectors("initial_mean", model.initial_mean, n)
        if len(mean) != 1:
            raise PxUsageError(f"`initial_mean` has shape {np.shape(model.initial_mean)}; it must be ({n},).")
        object.__setattr__(model, "initial_mean", freeze(mean[0]))
    if given:
        cov = as_covariances("initial_cov", model.initial_cov, n)
        if len(cov) != 1:
            raise PxUsageError(f"`initial_cov` has shape {np.shape(model.initial_cov)}; it must be ({n}, {n}).")
        object.__setattr__(model, "initial_cov", freeze(cov[0]))
    if model.initial is None and model.initial_mean is not None and not given:
        raise PxUsageError(
            "`initial_mean` is given without `initial_cov`.\n"
            'Give both, or leave both out and say initial="diffuse" or "stationary".'
        )
    kinds = kinds_of(model.initial or ("known" if given else "diffuse"), n)
    if "known" in kinds and not given:
        raise PxUsageError('initial="known" needs `initial_cov` (and `initial_mean`, zero when left out).')
    variance = as_array("approximate_variance", model.approximate_variance)
    if variance.ndim or variance <= 0:
        raise PxUsageError(f"`approximate_variance` is {model.approximate_variance!r}; it must be a positive number.")
    return kinds


def _public(part: Array) -> Array:
    return part[0] if len(part) == 1 else part


def _names(given: Sequence[str] | None, stem: str, count: int) -> tuple[str, ...]:
    if given is None:
        return (stem,) if count == 1 else tuple(f"{stem}{i}" for i in range(count))
    names = (given,) if isinstance(given, str) else tuple(str(name) for name in given)
    if len(names) != count:
        raise PxUsageError(f"{len(names)} names are given for {count} {stem} columns: {', '.join(names)}.")
    return names
