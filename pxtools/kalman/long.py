"""The result of one long series that was cut in time: what is read is computed where its pieces are, and kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol

import numpy as np

from pxtools.errors import PxUsageError, nearest
from pxtools.kalman.checks import Array, states_text
from pxtools.kalman.cuts import Moments, NotCut
from pxtools.kalman.filtering import filter_series
from pxtools.kalman.fleet import OTHERS
from pxtools.kalman.forecasting import Forecast, forecast
from pxtools.kalman.model import StateSpaceModel
from pxtools.kalman.results import FilterResult
from pxtools.kalman.tables import to_frame

#: tables with one row for each step
TABLES = (
    *("filtered_mean", "predicted_mean", "smoothed_mean", "log_likelihood_steps", "standardized_residuals"),
    *("innovations", "process_disturbance", "observation_disturbance"),
)


class Found(NamedTuple):
    """What a pass over all pieces gave."""

    arrays: dict[str, Array]
    log_likelihood: float
    last: Moments
    """of the state after the last step"""


class CutSource(Protocol):
    """Where the pieces of a series are, and what computes with them there."""

    shape: tuple[int, int]
    index: Any
    columns: tuple[str, ...] | None

    def compute(self, names: Sequence[str]) -> Found:
        """Return arrays with one entry for each step."""

    def values(self) -> Array:
        """Return the whole series, (n_steps, n_obs)."""

    def words(self) -> str:
        """Return where the pieces are."""

    def say_whole(self, why: str) -> None:
        """Say that the series is filtered whole, and why."""


@dataclass(frozen=True, eq=False, repr=False)
class LongResult:
    """Hold the results of one long series that was cut in time.

    It has the arrays of a `FilterResult`, equal to those of the uncut series up to rounding (1e-12). What is read is
    computed where the pieces are, in one pass, and kept; nothing else is computed or moved. `whole` filters the series
    here. `%pxkalman model y -t all -o long` makes one where that pays; `long.filtered_mean[-1]` is the last state.

    Attributes
    ----------
    model : StateSpaceModel
    forecasts : Forecast or None
    """

    model: StateSpaceModel
    source: CutSource
    form: str = "auto"
    forecasts: Forecast | None = None
    _kept: dict[str, Any] = field(default_factory=dict)

    def compute(self, *names: str) -> LongResult:
        """Compute arrays together, in one pass, and return the result itself."""
        lacking = [name for name in dict.fromkeys(names) if name not in self._kept]
        if not lacking and "log_likelihood" in self._kept:
            return self
        try:
            found = self.source.compute(lacking)
        except NotCut as error:
            self.source.say_whole(str(error))
            whole = self.whole
            found = Found(
                {name: getattr(whole, name) for name in lacking},
                whole.log_likelihood,
                Moments(whole.predicted_mean[-1], whole.filtered.predicted_cov[0, -1]),
            )
        self._kept.update(found.arrays)
        self._kept.setdefault("log_likelihood", found.log_likelihood)
        self._kept.setdefault("last", found.last)
        return self

    def _array(self, name: str) -> Array:
        array: Array = self.compute(name)._kept[name]
        return array

    @property
    def log_likelihood(self) -> float:
        """The log-likelihood of the series, with its `log(2 pi)`."""
        return float(self.compute()._kept["log_likelihood"])

    @property
    def log_likelihood_steps(self) -> Array:
        """Each step's part of it, `(n_steps,)`."""
        return self._array("log_likelihood_steps")

    @property
    def filtered_mean(self) -> Array:
        """State means given the observations to t, `(n_steps, n_states)`."""
        return self._array("filtered_mean")

    @property
    def filtered_cov(self) -> Array:
        """State covariances, `(n_steps, n_states, n_states)`; without their infinite part."""
        return self._array("filtered_cov")

    @property
    def predicted_mean(self) -> Array:
        """State means one step ahead, `(n_steps + 1, n_states)`."""
        return self._array("predicted_mean")

    @property
    def predicted_cov(self) -> Array:
        """State covariances one step ahead, `(n_steps + 1, n_states, n_states)`."""
        return self._array("predicted_cov")

    @property
    def smoothed_mean(self) -> Array:
        """State means given all observations, `(n_steps, n_states)`."""
        return self._array("smoothed_mean")

    @property
    def smoothed_cov(self) -> Array:
        """State covariances given all observations, `(n_steps, n_states, n_states)`."""
        return self._array("smoothed_cov")

    @property
    def standardized_residuals(self) -> Array:
        """Innovations over their standard deviations, `(n_steps, n_obs)`; NaN where missing or diffuse."""
        return self._array("standardized_residuals")

    def __getattr__(self, name: str) -> Array:
        if name not in OTHERS:
            raise AttributeError(f"a LongResult has no {name}; `result.whole.{name}` filters the series here")
        return self._array(name)

    @cached_property
    def whole(self) -> FilterResult:
        """The `FilterResult` of the whole series, brought here and filtered here; `plot` and `summary` are there."""
        values: Any = self.source.values()
        if self.source.index is not None:
            import pandas as pd

            values = pd.DataFrame(values, index=self.source.index, columns=self.source.columns)
        return filter_series(self.model, values, form=self.form)

    @property
    def index(self) -> Any:
        """The pandas index that the observations came with, None if they had none."""
        return self.source.index

    @property
    def observed(self) -> Any:
        """What tables and forecasts ask about the observations: their shape and columns."""
        shape = (1, *self.source.shape)
        return SimpleNamespace(values=np.broadcast_to(np.nan, shape), columns=self.source.columns, is_batch=False)

    def __len__(self) -> int:
        return self.source.shape[0]

    def forecast(self, n_steps: int, level: float = 0.95) -> Forecast:
        """Return forecasts of the `n_steps` steps after the last, with intervals of probability `level`."""
        last: Moments = self.compute()._kept["last"]
        n = self.model.n_states
        ends: Any = SimpleNamespace(
            model=self.model,
            observed=self.observed,
            filtered=SimpleNamespace(
                predicted_mean=last.mean[None, None],
                predicted_cov=last.cov[None, None],
                last_diffuse_cov=np.zeros((1, n, n)),
            ),
            index=self.index,
            _own=lambda array: array[0],
        )
        return forecast(ends, n_steps, level)

    def with_forecast(self, n_steps: int, level: float = 0.95) -> LongResult:
        """Return a copy that holds the forecasts in `forecasts`."""
        return replace(self, forecasts=self.forecast(n_steps, level))

    def to_frame(self, name: str = "filtered_mean") -> Any:
        """Return one of the two-dimensional results as a DataFrame with the index of the observations."""
        if name not in TABLES:
            raise PxUsageError(f"There is no table `{name}`; choose one of {', '.join(TABLES)}.{nearest(name, TABLES)}")
        of_result: Any = self
        return to_frame(of_result, name)

    def plot(self, **options: Any) -> Any:
        """Return a matplotlib figure of the whole series, filtered here: see `FilterResult.plot`."""
        return self.whole.plot(**options)

    def summary(self) -> str:
        """Return what was filtered, where, and the log-likelihood."""
        n_steps, n_obs = self.source.shape
        states = states_text(self.model.n_states)
        return (
            f"LongResult: {n_steps:,} steps, {n_obs} observed, {states}, {self.source.words()}\n"
            f"  log-likelihood    {self.log_likelihood:,.4f}"
        )

    def __repr__(self) -> str:
        return self.summary()
