"""Filter and smooth: choose the form, run it, wrap the result."""

from __future__ import annotations

from typing import Any

from pxtools.errors import PxUsageError, nearest
from pxtools.kalman.backward import refined
from pxtools.kalman.forms import FORMS, square_root
from pxtools.kalman.model import StateSpaceModel
from pxtools.kalman.observations import Observed, read_observations
from pxtools.kalman.results import FilterResult
from pxtools.kalman.system import System, system_of
from pxtools.kernels import kalman
from pxtools.kernels.kalman_numpy import LOG_2PI
from pxtools.kernels.kalman_results import Array, Filtered, Smoothed

#: from this many states on, with at least MANY_OBS observations, a row at once is faster than one by one
MANY_STATES, MANY_OBS = 16, 4


def filter_series(
    model: StateSpaceModel,
    observations: Any,
    *,
    form: str = "auto",
    steady: bool = True,
    diffuse_constant: bool = True,
) -> FilterResult:
    """Run the Kalman filter over one series or many.

    Parameters
    ----------
    model : StateSpaceModel
    observations : array_like, Series or DataFrame
        `(n_steps,)` for one observed value, `(n_steps, n_obs)`, or `(n_series, n_steps, n_obs)`. NaN is missing, in
        any element of a row.
    form : str
        "univariate", "cholesky", "sqrt", "information", or "auto": univariate, Cholesky for many states and
        observations, and the square-root form when the data turn out to be ill-conditioned.
    steady : bool
        Stop updating covariances once they no longer change beyond round-off (constant models, complete rows).
    diffuse_constant : bool
        Whether an observation that ends part of an exact diffuse initial state adds `-log(2 pi) / 2` to the
        log-likelihood (as in statsmodels and Stata), or nothing (as in KFAS).

    Returns
    -------
    FilterResult

    Raises
    ------
    PxUsageError
        Observations that do not fit the model; an unknown form; a form that the data are too ill-conditioned for.

    Notes
    -----
    Deterministic: the same input gives the same bits on one machine and kernel tier.

    Examples
    --------
    >>> from pxtools.kalman import StateSpaceModel, filter_series
    >>> model = StateSpaceModel([[1]], [[1]], [[1]], [[1]], initial_mean=[0], initial_cov=[[1]])
    >>> filter_series(model, [1.0, 2.0]).filtered_mean
    array([[0.5],
           [1.4]])
    """
    observed = read_observations(observations, model)
    system = system_of(model, *observed.values.shape[:2])
    used, filtered = run_form(system, observed.values, form, steady)
    return FilterResult(model, observed, filtered, used, diffuse_constant)


def first_form(form: str, n_states: int, n_obs: int) -> str:
    """Return the form that is tried first: what "auto" means for these sizes, else the one that is named."""
    if form == "auto":
        return "cholesky" if n_states >= MANY_STATES and n_obs >= MANY_OBS else "univariate"
    if form not in FORMS:
        choices = ["auto", *FORMS]
        raise PxUsageError(f"`form` is {form!r}; it must be one of {', '.join(choices)}.{nearest(form, choices)}")
    return form


def run_form(system: System, y: Array, form: str = "auto", steady: bool = True) -> tuple[str, Filtered]:
    """Return the name of the form that served, and its result."""
    first = first_form(form, system.F.shape[1], y.shape[2])
    if form != "auto":
        return form, FORMS[form](system, y, steady)
    try:
        filtered = FORMS[first](system, y, steady)
        if filtered.n_cancelled == 0:
            return first, filtered
    except PxUsageError:
        pass
    return "sqrt", FORMS["sqrt"](system, y, steady)


def log_likelihood(
    model: StateSpaceModel,
    observations: Any,
    *,
    form: str = "auto",
    steady: bool = True,
    diffuse_constant: bool = True,
) -> Any:
    """Return the log-likelihood alone, a float or `(n_series,)`: faster than `filter_series`, nothing else is kept.

    Parameters
    ----------
    model, observations, form, steady, diffuse_constant
        As for `filter_series`, with its errors and notes.

    Returns
    -------
    float or (n_series,) array
        The `log_likelihood` of `filter_series`, with its 2π.

    Examples
    --------
    >>> from pxtools.kalman import StateSpaceModel, log_likelihood
    >>> model = StateSpaceModel([[1]], [[1]], [[1]], [[1]], initial_mean=[0], initial_cov=[[1]])
    >>> round(log_likelihood(model, [1.0, 2.0]), 4)
    -3.3426
    """
    observed = read_observations(observations, model)
    y = observed.values
    if first_form(form, model.n_states, model.n_obs) == "univariate":
        parts = model.kernel_parts if model.n_steps is None else system_of(model, 1, y.shape[1])[:6]
        system = System._make([*parts, *model.initial_state])
        total, diffuse, cancelled = kalman.univariate_log_likelihood(y, *system, steady=steady)
        if form != "auto" or not cancelled:
            if not diffuse_constant:
                total = total + 0.5 * LOG_2PI * diffuse
            return total if observed.is_batch else float(total[0])
    used, filtered = run_form(system_of(model, *y.shape[:2]), y, form, steady)
    return FilterResult(model, observed, filtered, used, diffuse_constant).log_likelihood


def smooth_filtered(
    model: StateSpaceModel, observed: Observed, filtered: Filtered, form: str, estimators: bool = False
) -> Smoothed:
    """Run the smoother that belongs to a form over its filtered moments; r and N only with `estimators`."""
    y = observed.values
    system = system_of(model, *y.shape[:2])
    if form == "sqrt":
        return square_root.smooth(system, y, estimators)
    smoothed = kalman.univariate_smoother(y, system.F, system.H, system.R, system.d, filtered, estimators)
    return refined(system, filtered, smoothed)
