"""What the filter returns: one frozen object; what was not asked for is computed when it is first read."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pxtools.errors import PxUsageError, nearest
from pxtools.kalman import moments
from pxtools.kalman.checks import Array
from pxtools.kalman.model import StateSpaceModel
from pxtools.kalman.observations import Observed
from pxtools.kernels.kalman_results import Filtered, Smoothed

if TYPE_CHECKING:
    from pxtools.kalman.fitting.fit import Fit
    from pxtools.kalman.forecasting import Forecast


@dataclass(frozen=True, eq=False, repr=False)
class FilterResult:
    """Hold a filtered series, or a batch of series of equal length.

    Arrays have the axes `(n_steps, …)`, and `(n_series, n_steps, …)` when the observations had an axis of series.
    The smoothed moments, disturbances and diagnostics are computed when first read, and kept.

    Attributes
    ----------
    filtered_mean, filtered_cov : arrays, (n_steps, n_states) and (n_steps, n_states, n_states)
        Moments of the state at t given the observations to t.
    predicted_mean, predicted_cov : arrays, (n_steps + 1, …)
        Moments of the state at t given the observations to t - 1; the last entry is the first forecast.
    log_likelihood : float, or array (n_series,)
        With its `log(2 pi)`; see `diffuse_constant` of `filter_series` for exact diffuse states.
    """

    model: StateSpaceModel
    observed: Observed
    filtered: Filtered
    form: str
    diffuse_constant: bool = True
    fit: Fit | None = None
    forecasts: Forecast | None = field(default=None)

    # --- the forward pass ---------------------------------------------------------------------------------------

    @cached_property
    def complete(self) -> Filtered:
        """The filter's raw output with a covariance for every step, also for those where none changed any more."""
        return self.filtered.complete()

    @property
    def observations(self) -> Array:
        """The observations, NaN where missing, `(n_steps, n_obs)`."""
        return self._own(self.observed.values)

    @property
    def index(self) -> Any:
        """The pandas index that the observations came with, None if they had none."""
        return self.observed.index

    @property
    def predicted_mean(self) -> Array:
        """State means one step ahead, `(n_steps + 1, n_states)`."""
        return self._own(self.filtered.predicted_mean)

    @property
    def predicted_cov(self) -> Array:
        """State covariances one step ahead, `(n_steps + 1, n_states, n_states)`; without their infinite part."""
        return self._own(self.complete.predicted_cov)

    @property
    def filtered_mean(self) -> Array:
        """State means, `(n_steps, n_states)`."""
        return self._own(self.filtered.filtered_mean)

    @property
    def filtered_cov(self) -> Array:
        """State covariances, `(n_steps, n_states, n_states)`; without their infinite part."""
        return self._own(self.complete.filtered_cov)

    @property
    def n_diffuse_steps(self) -> int:
        """Number of steps before which part of the state's covariance was infinite (the most of all series)."""
        return int(self.filtered.diffuse_cov.shape[1])

    @cached_property
    def n_diffuse_obs(self) -> Any:
        """Number of observations that served to end the exact diffuse phase."""
        return self._number(self.filtered.diffuse_obs.sum(axis=(1, 2)).astype(int))

    @cached_property
    def log_likelihood_steps(self) -> Array:
        """Each step's part of the log-likelihood, `(n_steps,)`."""
        steps = self.filtered.log_likelihood
        if not self.diffuse_constant and self.n_diffuse_steps:
            steps = steps.copy()
            steps[:, : self.n_diffuse_steps] += 0.5 * np.log(2 * np.pi) * self.filtered.diffuse_obs.sum(axis=2)
        return self._own(steps)

    @cached_property
    def log_likelihood(self) -> Any:
        """The log-likelihood of the series, a float; `(n_series,)` for a batch."""
        total = self.log_likelihood_steps.sum(axis=-1)
        return total if self.observed.is_batch else float(total)

    # --- innovations --------------------------------------------------------------------------------------------

    @cached_property
    def innovations(self) -> Array:
        """Observations less their one-step predictions, `(n_steps, n_obs)`, NaN where missing."""
        return self._own(moments.innovations(self))

    @cached_property
    def innovation_cov(self) -> Array:
        """Covariances of the innovations, `(n_steps, n_obs, n_obs)`; infinite in the diffuse phase where it is."""
        return self._own(moments.innovation_cov(self))

    @cached_property
    def gain(self) -> Array:
        """Kalman gains `K` of `filtered = predicted + K innovation`, `(n_steps, n_states, n_obs)`, 0 where missing."""
        return self._own(moments.gain(self))

    @cached_property
    def standardized_residuals(self) -> Array:
        """Innovations divided by the Cholesky factor of their covariance, `(n_steps, n_obs)`; NaN where missing."""
        return self._own(moments.standardized(self))

    # --- the backward pass --------------------------------------------------------------------------------------

    @cached_property
    def smoothed(self) -> Smoothed:
        """The smoother's raw output, with its axis of series."""
        from pxtools.kalman.filtering import smooth_filtered

        return smooth_filtered(self.model, self.observed, self.filtered, self.form)

    @cached_property
    def estimated(self) -> Smoothed:
        """The smoother's raw output with the scaled estimators r and N, for disturbances and lag-one covariances."""
        from pxtools.kalman.filtering import smooth_filtered

        return smooth_filtered(self.model, self.observed, self.filtered, self.form, estimators=True)

    @property
    def smoothed_mean(self) -> Array:
        """State means given all observations, `(n_steps, n_states)`."""
        return self._own(self.smoothed.mean)

    @property
    def smoothed_cov(self) -> Array:
        """State covariances given all observations, `(n_steps, n_states, n_states)`."""
        return self._own(self.smoothed.cov)

    @cached_property
    def smoothed_lag_one_cov(self) -> Array:
        """`Cov(x[t + 1], x[t])` given all observations, `(n_steps - 1, n_states, n_states)`."""
        return self._own(moments.lag_one(self))

    @cached_property
    def process_disturbance(self) -> Array:
        """Means of the process disturbances w[t] given all observations, `(n_steps, n_noise)`; 0 at the last step."""
        return self._own(moments.process_disturbance(self)[0])

    @cached_property
    def process_disturbance_cov(self) -> Array:
        """Their covariances, `(n_steps, n_noise, n_noise)`."""
        return self._own(moments.process_disturbance(self)[1])

    @cached_property
    def observation_disturbance(self) -> Array:
        """Means of the observation disturbances e[t] given all observations, `(n_steps, n_obs)`."""
        return self._own(moments.observation_disturbance(self)[0])

    @cached_property
    def observation_disturbance_cov(self) -> Array:
        """Their covariances, `(n_steps, n_obs, n_obs)`."""
        return self._own(moments.observation_disturbance(self)[1])

    # --- forecasts, tables, pictures ----------------------------------------------------------------------------

    def forecast(self, n_steps: int, level: float = 0.95) -> Forecast:
        """Return forecasts of the `n_steps` steps after the last, with intervals of probability `level`."""
        from pxtools.kalman.forecasting import forecast

        return forecast(self, n_steps, level)

    def with_forecast(self, n_steps: int, level: float = 0.95) -> FilterResult:
        """Return a copy that holds the forecasts in `forecasts`."""
        return self.replace(forecasts=self.forecast(n_steps, level))

    def replace(self, **changes: Any) -> FilterResult:
        """Return a copy with some fields replaced; what was computed is kept."""
        copy = replace(self, **changes)
        for name in ("smoothed",):
            if name in self.__dict__:
                copy.__dict__[name] = self.__dict__[name]
        return copy

    def to_frame(self, name: str = "filtered_mean") -> Any:
        """Return one of the two-dimensional results as a DataFrame with the index of the observations."""
        from pxtools.kalman.tables import to_frame

        names = [n for n in dir(type(self)) if n.endswith(("_mean", "ations", "residuals", "disturbance", "_steps"))]
        if name not in names:
            raise PxUsageError(f"There is no table `{name}`; choose one of {', '.join(names)}.{nearest(name, names)}")
        return to_frame(self, name)

    def summary(self) -> str:
        """Return a table: the model, the fit, the log-likelihood, and tests of the residuals."""
        from pxtools.kalman.tables import summary

        return summary(self)

    def plot(self, **options: Any) -> Any:
        """Return a matplotlib figure of observations, level, intervals and forecasts: see `plotting.plot_result`."""
        from pxtools.kalman.plotting import plot_result

        return plot_result(self, **options)

    def plot_diagnostics(self, **options: Any) -> Any:
        """Return a matplotlib figure of the standardised residuals: see `plotting.plot_diagnostics`."""
        from pxtools.kalman.plotting import plot_diagnostics

        return plot_diagnostics(self, **options)

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        from pxtools.kalman.html import to_html

        return to_html(self)

    def _own(self, array: Array) -> Array:
        return array if self.observed.is_batch else array[0]

    def _number(self, array: Any) -> Any:
        return array if self.observed.is_batch else array[0].item()
