"""Models from components: level, trend, seasonal, cycle, regression; `a + b` is the model of their sum.

Each builder returns a `StateSpaceModel` of one component, diffuse where it has no stationary law; `observation_var`
is the variance of the irregular part, and is given to one component of a sum.

References: Harvey (1989), Forecasting, Structural Time Series Models and the Kalman Filter, chapters 2 and 4;
Durbin & Koopman (2012), chapter 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pxtools.errors import PxUsageError
from pxtools.kalman.checks import Array, as_array
from pxtools.kalman.model import StateSpaceModel


def local_level(level_var: float, *, observation_var: float = 0.0) -> StateSpaceModel:
    """Return a random walk: `level[t+1] = level[t] + w`, w of variance `level_var`.

    Parameters
    ----------
    level_var : float
        Variance of a step.
    observation_var : float
        Variance of the irregular part, in every builder.

    Returns
    -------
    StateSpaceModel
        With one state, `level`.

    Examples
    --------
    >>> from pxtools.kalman import local_level
    >>> local_level(1469.1, observation_var=15099.0)
    StateSpaceModel(n_states=1, n_obs=1, initial=diffuse)
    """
    return _component([[1.0]], [1.0], [level_var], observation_var, ["level"])


def local_linear_trend(level_var: float, slope_var: float, *, observation_var: float = 0.0) -> StateSpaceModel:
    """Return a level with a slope that is itself a random walk; `level_var` 0 gives a smooth trend.

    Parameters
    ----------
    level_var, slope_var, observation_var : float
        Variances of a step of the level, of the slope (per step), and of the irregular part.

    Returns
    -------
    StateSpaceModel
        With the states `level` and `slope`.

    Examples
    --------
    >>> local_linear_trend(0.0, 0.1, observation_var=1.0).state_names
    ('level', 'slope')
    """
    F = [[1.0, 1.0], [0.0, 1.0]]
    return _component(F, [1.0, 0.0], [level_var, slope_var], observation_var, ["level", "slope"])


def seasonal(period: int, seasonal_var: float, *, observation_var: float = 0.0) -> StateSpaceModel:
    """Return a seasonal pattern of dummies: the last `period` values sum to a disturbance of `seasonal_var`.

    Parameters
    ----------
    period : int
        Steps of a season's round, at least 2.
    seasonal_var, observation_var : float
        Variances of the disturbance and of the irregular part.

    Returns
    -------
    StateSpaceModel
        With `period - 1` states.

    Raises
    ------
    PxUsageError
        The period is no integer of at least 2.

    Examples
    --------
    >>> (local_level(1.0, observation_var=2.0) + seasonal(4, 0.5)).n_states
    4
    """
    period = _at_least("period", period, 2)
    F = np.eye(period - 1, k=-1)
    F[0] = -1.0
    names = ["seasonal"] + [f"seasonal.L{i}" for i in range(1, period - 1)]
    selection = np.eye(period - 1)[:, :1]
    return _component(F, np.eye(period - 1)[0], [seasonal_var], observation_var, names, selection)


def trigonometric_seasonal(
    period: int, seasonal_var: float, *, n_harmonics: int | None = None, observation_var: float = 0.0
) -> StateSpaceModel:
    """Return a seasonal pattern of harmonics, each with disturbances of `seasonal_var`; smoother than dummies.

    Parameters
    ----------
    period : int
        Steps of a season's round, at least 2.
    seasonal_var, observation_var : float
        Variances of each harmonic's disturbances and of the irregular part.
    n_harmonics : int, optional
        How many of the `period // 2` harmonics; all by default.

    Returns
    -------
    StateSpaceModel
        With two states a harmonic, one for that of period 2.

    Raises
    ------
    PxUsageError
        There are not so many harmonics.

    Examples
    --------
    >>> trigonometric_seasonal(12, 0.1, n_harmonics=2).n_states
    4
    """
    period = _at_least("period", period, 2)
    most = period // 2
    count = most if n_harmonics is None else _at_least("n_harmonics", n_harmonics, 1)
    if count > most:
        raise PxUsageError(f"`n_harmonics` is {count}; a period of {period} has at most {most} harmonics.")
    model = None
    for j in range(1, count + 1):
        angle = 2 * np.pi * j / period
        if 2 * j == period:
            part = _component([[-1.0]], [1.0], [seasonal_var], 0.0, [f"harmonic{j}"])
        else:
            F = _rotation(angle)
            part = _component(F, [1.0, 0.0], [seasonal_var] * 2, 0.0, [f"harmonic{j}", f"harmonic{j}*"])
        model = part if model is None else model + part
    assert model is not None
    return model.replace(observation_cov=[[observation_var]])


def cycle(period: float, cycle_var: float, *, damping: float = 1.0, observation_var: float = 0.0) -> StateSpaceModel:
    """Return a stochastic cycle of `period` steps; stationary if `damping` is below 1, else diffuse.

    Parameters
    ----------
    period : float
        Steps of a round, more than 1.
    cycle_var, observation_var : float
        Variances of the two disturbances and of the irregular part.
    damping : float
        Factor of the amplitude a step, from 0 to 1.

    Returns
    -------
    StateSpaceModel
        With two states.

    Raises
    ------
    PxUsageError
        `period` or `damping` lie outside.

    Examples
    --------
    >>> cycle(20.0, 0.5, damping=0.9, observation_var=0.1)
    StateSpaceModel(n_states=2, n_obs=1, initial=stationary)
    """
    if not period > 1:
        raise PxUsageError(f"`period` is {period!r}; a cycle takes more than one step.")
    if not 0 <= damping <= 1:
        raise PxUsageError(f"`damping` is {damping!r}; it must lie between 0 and 1.")
    F = damping * _rotation(2 * np.pi / period)
    initial = "stationary" if damping < 1 else "diffuse"
    return _component(F, [1.0, 0.0], [cycle_var] * 2, observation_var, ["cycle", "cycle*"], initial=initial)


def regression(exog: Any, coefficient_var: float = 0.0, *, observation_var: float = 0.0) -> StateSpaceModel:
    """Return `y = X b`: the coefficients are diffuse states, constant or random walks of `coefficient_var`.

    Parameters
    ----------
    exog : array_like or DataFrame, (n_steps, n_regressors)
        X. A pandas index is kept, and observations with other dates are refused. Rows beyond the last observation
        serve forecasts.
    coefficient_var, observation_var : float
        Variances of a step of each coefficient and of the irregular part.

    Returns
    -------
    StateSpaceModel
        With one state a regressor.

    Raises
    ------
    PxUsageError
        `exog` has another shape.

    Examples
    --------
    >>> X = np.column_stack([np.ones(4), [0.0, 1.0, 2.0, 3.0]])
    >>> regression(X, observation_var=1.0).state_names
    ('beta.0', 'beta.1')
    """
    X = as_array("exog", exog)
    X = X[:, None] if X.ndim == 1 else X
    if X.ndim != 2 or X.shape[1] == 0:
        raise PxUsageError(f"`exog` has shape {X.shape}; it must be (n_steps, n_regressors).")
    columns = getattr(exog, "columns", None)
    names = [f"beta.{name}" for name in (range(X.shape[1]) if columns is None else columns)]
    index = getattr(exog, "index", None)
    k = X.shape[1]
    return StateSpaceModel(
        np.eye(k),
        X[:, None, :],
        coefficient_var * np.eye(k),
        [[observation_var]],
        initial="diffuse",
        state_names=names,
        index=None if callable(index) else index,
    )


def add_models(a: StateSpaceModel, b: StateSpaceModel) -> StateSpaceModel:
    """Return the model of the sum of two components: states side by side, intercepts and observation noise added."""
    if not isinstance(b, StateSpaceModel):
        return NotImplemented
    if a.n_obs != b.n_obs:
        raise PxUsageError(f"Components of {a.n_obs} and of {b.n_obs} observed values cannot be added.")
    kinds = *_settled(a), *_settled(b)
    means, covs, _ = zip(a.initial_state, b.initial_state, strict=True)
    is_known = "known" in kinds or any(mean.any() for mean in means)
    return StateSpaceModel(
        _diagonal(a.parts["F"], b.parts["F"]),
        _side_by_side(a.parts["H"], b.parts["H"]),
        _diagonal(a.parts["Q"], b.parts["Q"]),
        _sum(a.parts["R"], b.parts["R"]),
        initial_mean=np.concatenate(means) if is_known else None,
        initial_cov=_diagonal(*(cov[None] for cov in covs)) if is_known else None,
        initial=kinds,
        transition_intercept=_side_by_side(a.parts["c"], b.parts["c"]),
        observation_intercept=_sum(a.parts["d"], b.parts["d"]),
        selection_matrix=_diagonal(a.parts["G"], b.parts["G"]),
        state_names=[*(a.state_names or ()), *(b.state_names or ())],
        obs_names=a.obs_names,
        index=_common_index(a, b),
    )


def _component(
    F: Any,
    H: Any,
    variances: list[float],
    observation_var: float,
    names: list[str],
    selection: Array | None = None,
    initial: str = "diffuse",
) -> StateSpaceModel:
    noise = np.zeros((len(variances),) * 2)
    np.fill_diagonal(noise, as_array("variances", variances))
    return StateSpaceModel(
        F,
        [H],
        noise,
        [[observation_var]],
        initial=initial,
        selection_matrix=selection,
        state_names=names,
    )


def _rotation(angle: float) -> Array:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, sin], [-sin, cos]])


def _at_least(name: str, value: int, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise PxUsageError(f"`{name}` is {value!r}; it must be an integer of at least {least}.")
    return int(value)


def _settled(model: StateSpaceModel) -> list[str]:
    """The kinds, those that are approximate called known: their variance is the component's own."""
    return ["known" if kind == "approximate" else kind for kind in model.initial or ()]


def _same_length(a: Array, b: Array) -> tuple[Array, Array]:
    if len(a) == len(b):
        return a, b
    steps = max(len(a), len(b))
    return tuple(np.broadcast_to(part, (steps, *part.shape[1:])) if len(part) == 1 else part for part in (a, b))  # type: ignore[return-value]


def _diagonal(a: Array, b: Array) -> Array:
    a, b = _same_length(a, b)
    out = np.zeros((len(a), a.shape[1] + b.shape[1], a.shape[2] + b.shape[2]))
    out[:, : a.shape[1], : a.shape[2]] = a
    out[:, a.shape[1] :, a.shape[2] :] = b
    return out


def _side_by_side(a: Array, b: Array) -> Array:
    a, b = _same_length(a, b)
    return np.concatenate([a, b], axis=-1)


def _sum(a: Array, b: Array) -> Array:
    a, b = _same_length(a, b)
    return a + b


def _common_index(a: StateSpaceModel, b: StateSpaceModel) -> Any:
    if a.index is not None and b.index is not None:
        same = len(a.index) == len(b.index) and (np.asarray(a.index) == np.asarray(b.index)).all()
        if not same:
            raise PxUsageError("The two components come with different dates.\nAlign them: `X = X.reindex(Z.index)`.")
    return b.index if a.index is None else a.index
