"""The extended Kalman filter, with Jacobians derived by SymPy or given as functions.

    y[t]   = h(x[t]) + e[t],      e ~ N(0, R)
    x[t+1] = f(x[t]) + w[t],      w ~ N(0, Q)

Reference: Anderson & Moore (1979), Optimal Filtering, chapter 8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pxtools.errors import PxUsageError
from pxtools.kalman.checks import Array, as_covariances, as_vectors
from pxtools.kalman.observations import Observed, read_observations
from pxtools.kernels import kalman

Function = Callable[[Array], Any]


@dataclass(frozen=True, eq=False, repr=False)
class ExtendedModel:
    """Hold a nonlinear state-space model with its Jacobians.

    Build one from SymPy expressions with `from_sympy`, or give the four functions of the state vector.

    Parameters
    ----------
    transition, observation : callable
        f and h, from a state `(n_states,)` to a state and to a row `(n_obs,)`.
    transition_jacobian, observation_jacobian : callable
        Their derivatives, `(n_states, n_states)` and `(n_obs, n_states)`.
    process_cov, observation_cov, initial_mean, initial_cov : array_like
        Q, R, and the moments of the first state before its observation is seen.
    """

    transition: Function
    observation: Function
    transition_jacobian: Function
    observation_jacobian: Function
    process_cov: Array
    observation_cov: Array
    initial_mean: Array
    initial_cov: Array

    def __post_init__(self) -> None:
        mean = np.atleast_1d(np.asarray(self.initial_mean, dtype=float))
        n = mean.size
        object.__setattr__(self, "initial_mean", as_vectors("initial_mean", mean, n)[0])
        object.__setattr__(self, "initial_cov", as_covariances("initial_cov", self.initial_cov, n)[0])
        object.__setattr__(self, "process_cov", as_covariances("process_cov", self.process_cov, n)[0])
        object.__setattr__(self, "observation_cov", as_covariances("observation_cov", self.observation_cov, None)[0])
        _shaped("transition", self.transition(mean), (n,))
        _shaped("observation", self.observation(mean), (self.n_obs,))
        _shaped("transition_jacobian", self.transition_jacobian(mean), (n, n))
        _shaped("observation_jacobian", self.observation_jacobian(mean), (self.n_obs, n))

    @property
    def n_states(self) -> int:
        """Number of states."""
        return len(self.initial_mean)

    @property
    def n_obs(self) -> int:
        """Number of observed values in a row."""
        return len(self.observation_cov)

    #: no part changes with time by itself, and no dates belong to it
    n_steps = None
    index = None

    @classmethod
    def from_sympy(
        cls, states: Sequence[Any], transition: Sequence[Any], observation: Sequence[Any], **parts: Any
    ) -> ExtendedModel:
        """Derive the Jacobians of SymPy expressions and compile all four functions.

        Parameters
        ----------
        states : sequence of Symbol
            The names of the states in the expressions.
        transition, observation : sequences of expressions
            One for each state, one for each observed value.
        **parts
            `process_cov`, `observation_cov`, `initial_mean`, `initial_cov`.

        Raises
        ------
        PxUsageError
            An expression with a symbol that is no state.

        Examples
        --------
        >>> import sympy as sp
        >>> from pxtools.kalman import ExtendedModel, extended_filter
        >>> x, v = sp.symbols("x v")
        >>> model = ExtendedModel.from_sympy(
        ...     [x, v], [x + v, v], [sp.sqrt(1 + x**2)],
        ...     process_cov=[[0.1, 0], [0, 0.1]], observation_cov=[[0.1]],
        ...     initial_mean=[1, 1], initial_cov=[[1, 0], [0, 1]],
        ... )
        >>> extended_filter(model, [1.5, 2.2]).filtered_mean.shape
        (2, 2)
        """
        try:
            import sympy
        except ImportError:
            raise PxUsageError(
                "Jacobians are derived by SymPy, which is not installed.\nRun: pip install sympy"
            ) from None
        f, h = (sympy.Matrix([sympy.sympify(e) for e in part]) for part in (transition, observation))
        extra = (f.free_symbols | h.free_symbols) - set(states)
        if extra:
            names = ", ".join(sorted(map(str, extra)))
            raise PxUsageError(
                f"The expressions hold {names}, not among the states.\nGive numbers: `expr.subs(symbol, 1.0)`."
            )
        symbols = list(states)
        return cls(
            _compiled(sympy, symbols, f, False),
            _compiled(sympy, symbols, h, False),
            _compiled(sympy, symbols, f.jacobian(symbols), True),
            _compiled(sympy, symbols, h.jacobian(symbols), True),
            **parts,
        )


def _compiled(sympy: Any, states: list[Any], expressions: Any, is_matrix: bool) -> Function:
    function = sympy.lambdify(states, expressions.tolist() if is_matrix else list(expressions), "numpy", cse=True)
    return lambda x: np.array(function(*x), dtype=float)


def _shaped(name: str, value: Any, shape: tuple[int, ...]) -> Array:
    array = np.asarray(value, dtype=float)
    if array.shape != shape:
        raise PxUsageError(f"`{name}` returns shape {array.shape}; it must return {shape}.")
    return array


@dataclass(frozen=True, eq=False, repr=False)
class ExtendedResult:
    """Hold the moments of an extended filter, named as in `FilterResult`; the log-likelihood is an approximation."""

    model: ExtendedModel
    observed: Observed
    predicted_mean: Array
    predicted_cov: Array
    filtered_mean: Array
    filtered_cov: Array
    log_likelihood_steps: Array

    @property
    def log_likelihood(self) -> float:
        """The Gaussian approximation of the log-likelihood."""
        return float(self.log_likelihood_steps.sum())

    def __repr__(self) -> str:
        return f"ExtendedResult({len(self.filtered_mean)} steps, log-likelihood {self.log_likelihood:.4f})"


def extended_filter(model: ExtendedModel, observations: Any) -> ExtendedResult:
    """Filter one series with a nonlinear model, linearised at each predicted and filtered mean.

    Parameters
    ----------
    model : ExtendedModel
    observations : array_like, (n_steps, n_obs)
        NaN is missing, in any element of a row.

    Returns
    -------
    ExtendedResult

    Raises
    ------
    PxUsageError
        Observations that do not fit, or a function that returns something that is not finite.

    Examples
    --------
    A range that is measured from the origin, with a model made of functions:

    >>> import numpy as np
    >>> model = ExtendedModel(
    ...     transition=lambda x: x, transition_jacobian=lambda x: np.eye(2), process_cov=0.01 * np.eye(2),
    ...     observation=lambda x: [np.hypot(*x)], observation_jacobian=lambda x: [x / np.hypot(*x)],
    ...     observation_cov=[[0.1]], initial_mean=[3.0, 4.0], initial_cov=np.eye(2),
    ... )
    >>> extended_filter(model, [[5.5], [5.4]]).filtered_mean.shape
    (2, 2)
    """
    observed = read_observations(observations, model)  # type: ignore[arg-type]
    if len(observed.values) != 1:
        raise PxUsageError("The extended filter takes one series at a time.")
    y, n = observed.values, model.n_states
    n_steps = y.shape[1]
    pm, pc, fm, fc = (np.empty((n_steps + k, *s)) for k, s in ((1, (n,)), (1, (n, n)), (0, (n,)), (0, (n, n))))
    log_lik = np.empty(n_steps)
    none, zero = np.zeros((1, n, n)), np.zeros((1, n))
    x, P = model.initial_mean, model.initial_cov
    R, still = model.observation_cov[None], np.eye(n)[None]
    for t in range(n_steps):
        pm[t], pc[t] = x, P
        H = _finite("observation_jacobian", model.observation_jacobian(x), t)
        d = _finite("observation", model.observation(x), t) - H @ x
        row = np.ascontiguousarray(y[:, t : t + 1])
        step = kalman.univariate_filter(row, still, H[None], none, R, zero, d[None], x[None], P[None], none)
        fm[t], fc[t], log_lik[t] = (
            step.filtered_mean[0, 0],
            step.filtered_cov[0, 0],
            step.log_likelihood[0, 0],
        )
        F = _finite("transition_jacobian", model.transition_jacobian(fm[t]), t)
        x = _finite("transition", model.transition(fm[t]), t)
        P = F @ fc[t] @ F.T + model.process_cov
        P = (P + P.T) / 2
    pm[n_steps], pc[n_steps] = x, P
    return ExtendedResult(model, observed, pm, pc, fm, fc, log_lik)


def _finite(name: str, value: Any, t: int) -> Array:
    array = np.asarray(value, dtype=float)
    if not np.isfinite(array).all():
        raise PxUsageError(f"`{name}` is not finite at step {t}: the filter has left the region where the model holds.")
    return array
