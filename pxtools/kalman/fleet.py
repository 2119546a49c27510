"""The result of filtering many series: what is read is computed, where the series are, and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from pxtools.errors import PxUsageError, nearest
from pxtools.kalman.batch import FleetArrays, Models, run_fleet
from pxtools.kalman.checks import Array, states_text
from pxtools.kalman.filtering import filter_series
from pxtools.kalman.fitting.sums import Summed, summed_statistics
from pxtools.kalman.forecasting import Forecast, forecast, future_index
from pxtools.kalman.forms import FORMS
from pxtools.kalman.model import StateSpaceModel
from pxtools.kalman.parameters import variance_scale
from pxtools.kalman.results import FilterResult
from pxtools.kernels.kalman_batch_layout import AXES

if TYPE_CHECKING:
    from pxtools.kalman.fitting.fit import Fit

#: so many series are enough to see on what scale their noises may be
SCALE_SERIES = 200

#: read from the series one by one
OTHERS = (
    "innovations",
    "innovation_cov",
    "gain",
    "smoothed_lag_one_cov",
    "process_disturbance",
    "process_disturbance_cov",
    "observation_disturbance",
    "observation_disturbance_cov",
)


class Fleet(NamedTuple):
    """Many series as the kernels take them, and what they are called."""

    values: Array
    """(n_series, n_steps, n_obs), NaN where missing"""
    index: Any = None
    names: tuple[str, ...] | None = None


class Source(Protocol):
    """Where the series are, and what computes with them there."""

    shape: tuple[int, int, int]
    index: Any
    names: tuple[str, ...] | None

    def compute(self, models: Models, names: Sequence[str], form: str) -> FleetArrays:
        """Return these outputs, for all series in order."""

    def series(self, number: int) -> Array:
        """Return the observations of one series, (n_steps, n_obs)."""

    def values(self) -> Array:
        """Return all series, brought here if they are elsewhere."""

    def scale(self) -> float:
        """Return a variance on which free variances may start."""

    def totals(self, models: Sequence[StateSpaceModel]) -> Array:
        """Return the log-likelihood of all good series together under each of the models."""

    def statistics(self, model: StateSpaceModel) -> Summed:
        """Return the sufficient statistics of all good series together."""


class Here:
    """Series in this process."""

    def __init__(self, fleet: Fleet, tick: Callable[[float], None] | None = None) -> None:
        self.fleet, self.index, self.names, self.tick = fleet, fleet.index, fleet.names, tick
        self.shape = fleet.values.shape[0], fleet.values.shape[1], fleet.values.shape[2]

    def compute(self, models: Models, names: Sequence[str], form: str) -> FleetArrays:
        """Return these outputs, for all series in order."""
        return run_fleet(models, self.fleet.values, names, form=form, tick=self.tick)

    def series(self, number: int) -> Array:
        """Return the observations of one series."""
        return np.array(self.fleet.values[number])

    def values(self) -> Array:
        """Return all series."""
        return self.fleet.values

    def scale(self) -> float:
        """Return a variance on which free variances may start, from the first series."""
        values = np.array(self.fleet.values[:SCALE_SERIES])
        values[np.isinf(values)] = np.nan
        return variance_scale(values)

    def totals(self, models: Sequence[StateSpaceModel]) -> Array:
        """Return the log-likelihood of all good series together under each of the models."""
        found = (run_fleet(model, self.fleet.values, ("log_likelihood",), tick=self.tick) for model in models)
        return np.array([np.nansum(one.arrays["log_likelihood"]) for one in found])

    def statistics(self, model: StateSpaceModel) -> Summed:
        """Return the sufficient statistics of all good series together."""
        return summed_statistics(model, self.fleet.values, self.tick)


@dataclass(frozen=True, eq=False, repr=False)
class FleetResult:
    """Hold the results of many independent series.

    What is read is computed where the series are, in one pass, and kept; nothing else is computed or moved. Arrays have
    a leading axis of series; a series that failed has NaN everywhere and is named in `failed`.

    `result[k]`, or `result["name"]` for a DataFrame's columns, is the `FilterResult` of one series.

    Attributes
    ----------
    models : StateSpaceModel or tuple of them
        One for all series, or one for each.
    fit : Fit or None
        How the model was fitted, if it was.
    forecasts : Forecast or None

    Examples
    --------
    >>> import numpy as np
    >>> from pxtools.kalman import kalman, local_level
    >>> result = kalman(local_level(1.0, observation_var=2.0), np.ones((3, 50, 1)))
    >>> result.filtered_mean.shape, result.log_likelihood.shape
    ((3, 50, 1), (3,))
    """

    models: Models
    source: Source
    form: str = "auto"
    fit: Fit | None = None
    forecasts: Forecast | None = None
    _kept: dict[str, Array] = field(default_factory=dict)
    _found: FleetArrays = field(default_factory=FleetArrays)

    def __post_init__(self) -> None:
        if self.form != "auto" and self.form not in FORMS:
            choices = ["auto", *FORMS]
            raise PxUsageError(
                f"`form` is {self.form!r}; it must be one of {', '.join(choices)}.{nearest(self.form, choices)}"
            )

    # --- the arrays ---------------------------------------------------------------------------------------------

    def compute(self, *names: str) -> FleetResult:
        """Compute outputs together, in one pass, and return the result itself."""
        lacking = [name for name in dict.fromkeys(names) if name not in self._kept]
        if lacking:
            found = self.source.compute(self.models, lacking, self.form)
            self._kept.update(found.arrays)
            self._found.failed.update(found.failed)
            self._found.redone.update(found.redone)
            object.__setattr__(self._found, "empty", found.empty)
            if len(found.failed) == len(self):
                first, why = next(iter(found.failed.items()))
                raise PxUsageError(
                    f"No series can be filtered; series {first} holds {why}.\n"
                    "If infinite values stand for missing ones, make them NaN."
                )
        return self

    def _array(self, name: str) -> Array:
        return self.compute(name)._kept[name]

    @property
    def log_likelihood(self) -> Array:
        """Log-likelihood of each series, `(n_series,)`, with its `log(2 pi)`; NaN for a series that failed."""
        return self._array("log_likelihood")

    @property
    def log_likelihood_steps(self) -> Array:
        """Each step's part of it, `(n_series, n_steps)`."""
        return self._array("log_likelihood_steps")

    @property
    def filtered_mean(self) -> Array:
        """State means given the observations to t, `(n_series, n_steps, n_states)`."""
        return self._array("filtered_mean")

    @property
    def filtered_cov(self) -> Array:
        """State covariances, `(n_series, n_steps, n_states, n_states)`; without their infinite part."""
        return self._array("filtered_cov")

    @property
    def predicted_mean(self) -> Array:
        """State means one step ahead, `(n_series, n_steps + 1, n_states)`."""
        return self._array("predicted_mean")

    @property
    def predicted_cov(self) -> Array:
        """State covariances one step ahead, `(n_series, n_steps + 1, n_states, n_states)`."""
        return self._array("predicted_cov")

    @property
    def smoothed_mean(self) -> Array:
        """State means given all observations, `(n_series, n_steps, n_states)`."""
        return self._array("smoothed_mean")

    @property
    def smoothed_cov(self) -> Array:
        """State covariances given all observations, `(n_series, n_steps, n_states, n_states)`."""
        return self._array("smoothed_cov")

    @property
    def standardized_residuals(self) -> Array:
        """Innovations over their standard deviations, `(n_series, n_steps, n_obs)`; NaN where missing or diffuse."""
        return self._array("standardized_residuals")

    def __getattr__(self, name: str) -> Array:
        if name not in OTHERS:
            raise AttributeError(f"a FleetResult has no {name}; `result[0].{name}` asks one series")
        if name not in self._kept:
            self.compute("log_likelihood")
            parts = [getattr(self[k], name) if self._is_whole(k) else None for k in range(len(self))]
            like = next(part for part in parts if part is not None)
            gone = np.full_like(like, np.nan)
            self._kept[name] = np.stack([gone if part is None else part for part in parts])
        return self._kept[name]

    def _is_whole(self, number: int) -> bool:
        return number not in self._found.failed and number not in self._found.empty

    # --- the series ---------------------------------------------------------------------------------------------

    @property
    def failed(self) -> dict[int, str]:
        """Number of each series that was left out, and why."""
        self.compute("log_likelihood")
        return dict(self._found.failed)

    @property
    def empty(self) -> list[int]:
        """Numbers of the series without any value; their moments are the model's own."""
        self.compute("log_likelihood")
        return [int(number) for number in self._found.empty]

    @property
    def redone(self) -> dict[int, str]:
        """Numbers of ill-conditioned series that were done again by themselves, and in which form."""
        return dict(self._found.redone)

    @property
    def names(self) -> tuple[str, ...] | None:
        """The columns of the DataFrame that the series came in; None if they came in an array."""
        return self.source.names

    def model_of(self, number: int) -> StateSpaceModel:
        """Return the model of one series."""
        return self.models if isinstance(self.models, StateSpaceModel) else self.models[number]

    def __len__(self) -> int:
        return self.source.shape[0]

    def __getitem__(self, which: int | str) -> FilterResult:
        if isinstance(which, str):
            if which not in (self.names or ()):
                raise PxUsageError(f"There is no series {which!r}.{nearest(which, self.names or ())}")
            which = (self.names or ()).index(which)
        number = range(len(self))[which]
        values: Any = self.source.series(number)
        if self.source.index is not None:
            import pandas as pd

            values = pd.DataFrame(values, index=self.source.index)
        return filter_series(self.model_of(number), values, form=self.form)

    def __iter__(self) -> Iterator[FilterResult]:
        return (self[k] for k in range(len(self)))

    # --- forecasts and words ------------------------------------------------------------------------------------

    def forecast(self, n_steps: int, level: float = 0.95) -> Forecast:
        """Return forecasts of all series, with intervals of probability `level`; NaN where nothing determines them."""
        self.compute("last_mean", "last_cov", "log_likelihood")
        if isinstance(self.models, StateSpaceModel):
            return forecast(self._last(slice(None), self.models), n_steps, level)
        parts = [forecast(self._last(slice(k, k + 1), self.models[k]), n_steps, level) for k in range(len(self))]
        arrays = ("mean", "cov", "lower", "upper", "state_mean", "state_cov")
        joined: Any = {name: np.concatenate([getattr(p, name) for p in parts]) for name in arrays}
        return replace(parts[0], **joined)

    def _last(self, which: slice, model: StateSpaceModel) -> Any:
        """What `forecast` reads of a result."""
        mean, cov = self._kept["last_mean"][which], self._kept["last_cov"][which]
        shape = (len(mean), *self.source.shape[1:])
        return SimpleNamespace(
            model=model,
            observed=SimpleNamespace(values=np.broadcast_to(np.nan, shape), columns=None),
            filtered=SimpleNamespace(
                predicted_mean=mean[:, None], predicted_cov=np.array(cov)[:, None], last_diffuse_cov=np.zeros(1)
            ),
            index=self.source.index,
            _own=lambda array: array,
        )

    def with_forecast(self, n_steps: int, level: float = 0.95) -> FleetResult:
        """Return a copy that holds the forecasts in `forecasts`."""
        return replace(self, forecasts=self.forecast(n_steps, level))

    def to_frame(self, name: str = "filtered_mean", column: int = 0) -> Any:
        """Return one component (a state, an observed value) of a result as a DataFrame, one series a column."""
        tables = [known for known, axes in AXES.items() if len(axes) in (1, 2) and axes[0] in "T+"]
        if name not in tables:
            raise PxUsageError(f"There is no table `{name}`; choose one of {', '.join(tables)}.{nearest(name, tables)}")
        import pandas as pd

        array = np.asarray(self._array(name))
        array = array[..., column] if array.ndim == 3 else array
        index = self.source.index
        if index is not None and array.shape[1] == len(index) + 1:
            after = future_index(index, 1)
            index = index.append(after) if after is not None else None
        return pd.DataFrame(array.T, index=index, columns=self.names)

    def plot(self, series: int | str = 0, **options: Any) -> Any:
        """Return a matplotlib figure of one series: see `FilterResult.plot`."""
        return self[series].plot(**options)

    def summary(self) -> str:
        """Return what was filtered, the log-likelihood of all together, and which series are not like the others."""
        n_series, n_steps, n_obs = self.source.shape
        first = self.model_of(0)
        which = "one model" if isinstance(self.models, StateSpaceModel) else "a model for each"
        total = float(np.nansum(self.log_likelihood))
        lines = [
            f"{n_series:,} series of {n_steps:,} steps, {n_obs} observed, {states_text(first.n_states)}, {which}",
            f"log-likelihood {total:,.4f} in all, {total / max(1, n_series - len(self.failed)):,.4f} a series",
        ]
        if self.fit is not None:
            lines += repr(self.fit).splitlines()
        for number, why in list(self.failed.items())[:5]:
            lines.append(f"series {self._name(number)} was left out: {why}")
        if len(self.failed) > 5:
            lines.append(f"and {len(self.failed) - 5} more: see `.failed`")
        if self.empty:
            shown = ", ".join(self._name(number) for number in self.empty[:5])
            lines.append(f"without any value: {shown}{' …' if len(self.empty) > 5 else ''}")
        return "\n".join(lines)

    def _name(self, number: int) -> str:
        return repr(self.names[number]) if self.names else str(number)

    def __repr__(self) -> str:
        return self.summary()


def read_fleet(data: Any, n_obs: int) -> Fleet | None:
    """Return many series, or None if what is given is one.

    A three-dimensional array is `(n_series, n_steps, n_obs)`. A DataFrame of several columns, for a model that observes
    one value, is one series a column.
    """
    if hasattr(data, "columns") and hasattr(data, "index") and n_obs == 1 and len(data.columns) > 1:
        values = data.to_numpy(dtype=np.float64, na_value=np.nan).T[:, :, None]
        return Fleet(np.ascontiguousarray(values), data.index, tuple(str(name) for name in data.columns))
    if np.ndim(data) != 3:
        return None
    if isinstance(data, np.ma.MaskedArray):
        data = np.ma.filled(data.astype(np.float64), np.nan)
    values = np.asarray(data)
    if values.dtype.kind not in "fiub":
        raise PxUsageError(f"`observations` are {values.dtype}; series must be real numbers, NaN where missing.")
    if values.shape[2] != n_obs or 0 in values.shape:
        raise PxUsageError(
            f"`observations` has shape {values.shape}; the model observes {n_obs} value{'s' * (n_obs > 1)} a step, so "
            f"it must be (n_series, n_steps, {n_obs}), and not empty."
        )
    return Fleet(np.ascontiguousarray(values, dtype=np.float64))


def check_steps(models: Models, n_steps: int) -> None:
    """Refuse models whose matrices cover fewer steps than there are.

    Raises
    ------
    PxUsageError
    """
    for model in (models,) if isinstance(models, StateSpaceModel) else models:
        if model.n_steps is not None and model.n_steps < n_steps:
            raise PxUsageError(
                f"The model's matrices cover {model.n_steps} steps, the observations have {n_steps} rows.\n"
                "Give a time-varying matrix one entry for each row (more serve forecasts)."
            )
