"""The one call behind `%pxkalman`: fit, filter, smooth, forecast."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pxtools.errors import PxUsageError
from pxtools.kalman.batch import check_models
from pxtools.kalman.filtering import filter_series
from pxtools.kalman.fitting.fit import Fit, fit_model
from pxtools.kalman.fitting.fleet import Tick, can_fit, fit_fleet
from pxtools.kalman.fleet import FleetResult, Here, Source, check_steps, read_fleet
from pxtools.kalman.model import StateSpaceModel
from pxtools.kalman.parameters import FreeModel
from pxtools.kalman.results import FilterResult

NOTHING_FITTED = "`until` says when a fit stops, and nothing is fitted here.\nAdd fit='ml' or fit='em'."


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
) -> FilterResult | FleetResult:
    """Filter observations with a linear Gaussian state-space model, after fitting it where asked.

    Parameters
    ----------
    model : StateSpaceModel, FreeModel, or a statsmodels state-space model
        A `FreeModel` is fitted by maximum likelihood unless `fit` says otherwise. A list has one model for each series.
    observations : array_like, Series or DataFrame
        `(n_steps, n_obs)`, `(n_steps,)` for one observed value, or `(n_series, n_steps, n_obs)`; NaN is missing. A
        DataFrame of several columns, where the model observes one value, is one series a column.
    smooth : bool
        Smooth now; otherwise smoothed moments are computed when first read.
    forecast : int
        Number of steps to forecast into `result.forecasts`.
    level : float
        Probability of the forecasts' intervals.
    fit : str, optional
        "ml" or "em".
    until, starts, seed, em_matrices, map
        Of the fit: see `fit_model`.
    form, steady, diffuse_constant
        See `filter_series`.

    Returns
    -------
    FilterResult, or FleetResult for many series

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
    one: StateSpaceModel | FreeModel
    if isinstance(model, (list, tuple)):
        one = as_models(model)[0]
        fleet = read_fleet(observations, one.n_obs)
        if fleet is None:
            raise PxUsageError(f"{len(model)} models are given for one series; series are (n_series, n_steps, n_obs).")
    else:
        one = as_model(model)
        n_obs = one.at(one.start()).n_obs if isinstance(one, FreeModel) else one.n_obs
        fleet = read_fleet(observations, n_obs) if diffuse_constant else None
    if fleet is not None:
        return filter_many(
            model,
            Here(fleet),
            smooth=smooth,
            forecast=forecast,
            level=level,
            fit=fit,
            until=until,
            starts=starts,
            seed=seed,
            em_matrices=em_matrices,
            form=form,
        )
    fitted: Fit | None = None
    if fit is not None or isinstance(one, FreeModel):
        fitted = fit_model(
            one,
            observations,
            fit or "ml",
            until=until,
            starts=starts,
            seed=seed,
            em_matrices=em_matrices,
            form=form,
            map=map,
        )
        one = fitted.model
    elif until is not None:
        raise PxUsageError(NOTHING_FITTED)
    result = filter_series(one, observations, form=form, steady=steady, diffuse_constant=diffuse_constant)
    if fitted is not None:
        result = result.replace(fit=fitted)
    if smooth:
        result.smoothed  # noqa: B018 - computed and kept
    return result.with_forecast(forecast, level) if forecast else result


def filter_many(
    models: Any,
    source: Source,
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
    outputs: Iterable[str] = (),
    tick: Tick | None = None,
) -> FleetResult:
    """Filter many series where they lie, after fitting one model to all of them where that is asked.

    Parameters
    ----------
    models : StateSpaceModel, FreeModel, or a sequence of one StateSpaceModel for each series
    source
        Where the series are: `Here`, or engines.
    smooth, forecast, level, fit, until, starts, seed, em_matrices, form
        See `kalman`.
    outputs : names of arrays
        To compute at once, beside the log-likelihood.
    tick : callable, optional
        Told the number of each iteration of a fit and its log-likelihood.

    Returns
    -------
    FleetResult
    """
    models = as_models(models) if isinstance(models, (list, tuple)) else as_model(models)
    fitted: Fit | None = None
    if isinstance(models, FreeModel) or fit is not None:
        if isinstance(models, tuple):
            raise PxUsageError("A list of models cannot be fitted.\nFit one model, or each series by itself.")
        wanted: Any = {"until": until, "starts": starts, "seed": seed, "em_matrices": em_matrices}
        if can_fit(models, fit or "ml", em_matrices):
            fitted = fit_fleet(models, source, fit or "ml", scale=source.scale(), tick=tick, **wanted)
        else:
            fitted = fit_model(models, source.values(), fit or "ml", form=form, **wanted)
        models = fitted.model
    elif until is not None:
        raise PxUsageError(NOTHING_FITTED)
    checked = check_models(models, source.shape[0])
    check_steps(checked, source.shape[1])
    first = checked if isinstance(checked, StateSpaceModel) else checked[0]
    if first.n_obs != source.shape[2]:
        raise PxUsageError(f"The series have {source.shape[2]} values a step; the model observes {first.n_obs}.")
    names = ["log_likelihood", *outputs, *(["smoothed_mean", "smoothed_cov"] if smooth else [])]
    names += ["last_mean", "last_cov"] if forecast else []
    result = FleetResult(checked, source, form, fit=fitted).compute(*names)
    return result.with_forecast(forecast, level) if forecast else result


def as_models(models: Sequence[Any]) -> tuple[StateSpaceModel, ...]:
    """Return models of ours, one for each series; none may have free parameters."""
    if not models:
        raise PxUsageError("The list of models is empty; give one model, or one for each series.")
    every = tuple(as_model(model) for model in models)
    if any(isinstance(model, FreeModel) for model in every):
        raise PxUsageError("A list of models cannot have free parameters.\nFit one model, or each series by itself.")
    return every  # type: ignore[return-value]


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
