"""Forecasts with intervals, and the dates that they belong to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pxtools.errors import PxUsageError
from pxtools.kalman.checks import Array
from pxtools.kalman.system import system_of
from pxtools.kernels import kalman

if TYPE_CHECKING:
    from pxtools.kalman.results import FilterResult


@dataclass(frozen=True, eq=False, repr=False)
class Forecast:
    """Hold forecasts of the observations and of the states.

    Arrays have the axes `(n_steps, …)`, with a leading axis of series for a batch.

    Attributes
    ----------
    mean, lower, upper : arrays, (n_steps, n_obs)
        Forecasts of the observations and the ends of their intervals.
    cov : array, (n_steps, n_obs, n_obs)
        Their covariances, observation noise included.
    state_mean, state_cov : arrays, (n_steps, n_states), (n_steps, n_states, n_states)
        Forecasts of the states.
    level : float
        Probability of each interval.
    index : pandas index or None
        The dates of the forecasts, when the observations had regular dates.
    """

    mean: Array
    cov: Array
    lower: Array
    upper: Array
    state_mean: Array
    state_cov: Array
    level: float
    index: Any
    columns: tuple[str, ...]

    def to_frame(self) -> Any:
        """Return a DataFrame with columns mean, lower and upper (for each observed column if there are several)."""
        import pandas as pd

        if self.mean.ndim == 3:
            raise PxUsageError("A batch of series has no single table: take `forecast.mean[series]`.")
        named = {}
        for j, column in enumerate(self.columns):
            for word in ("mean", "lower", "upper"):
                key = word if len(self.columns) == 1 else f"{column} {word}"
                named[key] = getattr(self, word)[:, j]
        return pd.DataFrame(named, index=self.index)

    def __repr__(self) -> str:
        n_steps = self.mean.shape[-2]
        return f"Forecast({n_steps} step{'s' * (n_steps > 1)}, {100 * self.level:g}% intervals)"


def forecast(result: FilterResult, n_steps: int, level: float = 0.95) -> Forecast:
    """Return forecasts of the steps after the last observation.

    Parameters
    ----------
    result : FilterResult
    n_steps : int
        How many, at least 1. A time-varying model must have the matrices of these steps.
    level : float
        Probability of the intervals, between 0 and 1.

    Raises
    ------
    PxUsageError
        Bad arguments; a model without matrices for the future; observations that leave a state undetermined.
    """
    if isinstance(n_steps, bool) or not isinstance(n_steps, (int, np.integer)) or n_steps < 1:
        raise PxUsageError(f"`n_steps` is {n_steps!r}; the number of forecasts must be a positive integer.")
    if not 0 < level < 1:
        raise PxUsageError(f"`level` is {level!r}; it must lie between 0 and 1, for example 0.95.")
    if result.filtered.last_diffuse_cov.any():
        raise PxUsageError(
            "The observations do not determine all states: forecasts would have infinite variance.\n"
            'Give more observations, or a proper initial state (initial="stationary", or initial_mean and initial_cov).'
        )
    mean, cov, state_mean, state_cov = _moments(result, int(n_steps))
    from scipy.special import ndtri

    half = ndtri(0.5 + level / 2) * np.sqrt(np.maximum(np.einsum("stii->sti", cov), 0.0))
    own = result._own
    return Forecast(
        own(mean),
        own(cov),
        own(mean - half),
        own(mean + half),
        own(state_mean),
        own(state_cov),
        float(level),
        future_index(result.index, int(n_steps)),
        result.observed.columns or tuple(result.model.obs_names or ()),
    )


def _moments(result: FilterResult, n_steps: int) -> tuple[Array, Array, Array, Array]:
    model, (n_series, length, n_obs) = result.model, result.observed.values.shape
    if model.n_steps is not None and model.n_steps < length + n_steps:
        raise PxUsageError(
            f"The model's matrices cover {model.n_steps} steps; {length} observations and {n_steps} forecasts need "
            f"{length + n_steps}.\nGive the time-varying matrices of the future too."
        )
    system = system_of(model, n_series, length + n_steps).between(length)
    system = system.starting(result.filtered.predicted_mean[:, -1], result.filtered.predicted_cov[:, -1])
    ahead = kalman.univariate_filter(np.full((n_series, n_steps, n_obs), np.nan), *system)
    state_mean, state_cov = ahead.filtered_mean, ahead.filtered_cov
    H, R, d = system.H, system.R, system.d
    mean = (H @ state_mean[..., None])[..., 0] + d
    cov = H @ state_cov @ H.swapaxes(-1, -2) + R
    return mean, (cov + cov.swapaxes(-1, -2)) / 2, state_mean, state_cov


def future_index(index: Any, n_steps: int) -> Any:
    """Return the labels of the `n_steps` after a pandas index, None without one.

    Dates need a frequency that can be seen; numbers need equal distances.
    """
    if index is None:
        return None
    import pandas as pd

    if isinstance(index, pd.PeriodIndex):
        return pd.period_range(index[-1] + 1, periods=n_steps, freq=index.freq)
    if isinstance(index, (pd.DatetimeIndex, pd.TimedeltaIndex)):
        freq = index.freq or _inferred(index)
        if freq is None:
            raise PxUsageError(
                "The dates of the observations are not evenly spaced, so forecasts have no dates.\n"
                "Set their frequency with NaN in the gaps, for example `y = y.asfreq('D')`."
            )
        make = pd.date_range if isinstance(index, pd.DatetimeIndex) else pd.timedelta_range
        return make(index[-1], periods=n_steps + 1, freq=freq)[1:]
    if pd.api.types.is_numeric_dtype(index.dtype) and len(index) > 1:
        step = index[1] - index[0]
        if np.allclose(np.diff(index.to_numpy()), step):
            return pd.Index(index[-1] + step * np.arange(1, n_steps + 1), name=index.name)
    return None


def _inferred(index: Any) -> Any:
    import warnings

    import pandas as pd

    if len(index) < 3:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas 3 announces another type of the same answer
        return pd.infer_freq(index)
