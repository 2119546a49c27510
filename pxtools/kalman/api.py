"""The one call behind `%pxkalman`: fit, filter, smooth, forecast."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pxtools.errors import PxUsageError
from pxtools.kalman.filtering import filter_series
from pxtools.kalman.fitting.fit import Fit, fit_model
from pxtools.kalman.model import StateSpaceModel
from pxtools.kalman.parameters import FreeModel
from pxtools.kalman.results import FilterResult


def kalman(
    model: StateSpaceModel | FreeModel | Any,
    observations: Any,
    *,
    smooth: bool = False,
    forecast: int = 0,
    level: float = 0.95,
    fit: str | None = None,
    until: str | None = None,
    starts: int = 1,
    seed: int = 0,
    em_matrices: Iterable[str] | None = None,
    form: str = "auto",
    steady: bool = True,
    diffuse_constant: bool = True,
    map: Callable[..., Iterable[Any]] = map,
) -> FilterResult:
    """Filter observations with a linear Gaussian state-space model, after fitting it where asked.

    Parameters
    ----------
    model : StateSpaceModel, FreeModel, or a statsmodels state-space model
        A `FreeModel` is fitted by maximum likelihood unless `fit` says otherwise.
    observations : array_like, Series or DataFrame
        `(n_steps, n_obs)`, `(n_steps,)` for one observed value, or `(n_series, n_steps, n_obs)`; NaN is missing.
    smooth : bool
        Smooth now; otherwise smoothed moments are computed when first read.
    forecast : int
        Number of steps to forecast into `result.forecasts`.
    level : float
        Probability of the forecasts' intervals.
    fit : str, optional
        "ml" or "em": see `fit_model`, also for `until`, `starts`, `seed`, `em_matrices` and `map`.
    form, steady, diffuse_constant
        See `filter_series`.

    Returns
    -------
    FilterResult

    Raises
    ------
    PxUsageError
        What was given does not fit together; the message says what to type.

    Examples
    --------
    >>> from pxtools.kalman import kalman, local_level
    >>> result = kalman(local_level(1.0, observation_var=2.0), [1.0, 3.0, 2.0], forecast=1)
    >>> result.forecasts.mean.round(4)
    array([[2.0952]])
    """
    model = as_model(model)
    fitted: Fit | None = None
    if fit is not None or isinstance(model, FreeModel):
        fitted = fit_model(
            model,
            observations,
            fit or "ml",
            until=until,
            starts=starts,
            seed=seed,
            em_matrices=em_matrices,
            form=form,
            map=map,
        )
        model = fitted.model
    elif until is not None:
        raise PxUsageError("`until` says when a fit stops, and nothing is fitted here.\nAdd fit='ml' or fit='em'.")
    result = filter_series(model, observations, form=form, steady=steady, diffuse_constant=diffuse_constant)
    if fitted is not None:
        result = result.replace(fit=fitted)
    if smooth:
        result.smoothed  # noqa: B018 - computed and kept
    return result.with_forecast(forecast, level) if forecast else result


def as_model(model: Any) -> StateSpaceModel | FreeModel:
    """Return a model of ours, taking over statsmodels' models and results."""
    if isinstance(model, (StateSpaceModel, FreeModel)):
        return model
    if hasattr(model, "ssm") or (hasattr(model, "model") and hasattr(model, "params")):
        from pxtools.kalman.from_statsmodels import from_statsmodels

        return from_statsmodels(model)
    raise PxUsageError(
        f"The model is a {type(model).__name__}; it must be a StateSpaceModel, a FreeModel, or one of statsmodels.\n"
        "Build one: `from pxtools.kalman import local_level; model = local_level(1.0, observation_var=2.0)`."
    )
