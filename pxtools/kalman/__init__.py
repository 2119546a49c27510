"""Linear Gaussian state-space models: filter, smoother, forecasts, simulation, fits.

A pure library: it knows nothing of engines or notebooks. `pxtools.kalman(model, observations, …)` is the call behind
`%pxkalman`: the package is itself callable, since it bears the name that the contract gives to the function.
"""

import sys
from types import ModuleType
from typing import Any

from pxtools.kalman.api import kalman
from pxtools.kalman.arima import arima
from pxtools.kalman.builders import (
    cycle,
    local_level,
    local_linear_trend,
    regression,
    seasonal,
    trigonometric_seasonal,
)
from pxtools.kalman.cell import model_from_cell
from pxtools.kalman.extended import ExtendedModel, ExtendedResult, extended_filter
from pxtools.kalman.filtering import filter_series, log_likelihood
from pxtools.kalman.fitting.fit import Fit, fit_model
from pxtools.kalman.fleet import FleetResult
from pxtools.kalman.forecasting import Forecast
from pxtools.kalman.from_statsmodels import from_statsmodels
from pxtools.kalman.long import LongResult
from pxtools.kalman.model import StateSpaceModel
from pxtools.kalman.parameters import FreeModel, free
from pxtools.kalman.results import FilterResult
from pxtools.kalman.simulation import Simulated, simulate, simulate_states
from pxtools.kalman.streaming import StreamState, start_stream

__all__ = [
    "ExtendedModel",
    "ExtendedResult",
    "FilterResult",
    "Fit",
    "FleetResult",
    "Forecast",
    "FreeModel",
    "LongResult",
    "Simulated",
    "StateSpaceModel",
    "StreamState",
    "arima",
    "cycle",
    "extended_filter",
    "filter_series",
    "fit_model",
    "free",
    "from_statsmodels",
    "kalman",
    "local_level",
    "local_linear_trend",
    "log_likelihood",
    "model_from_cell",
    "regression",
    "seasonal",
    "simulate",
    "simulate_states",
    "start_stream",
    "trigonometric_seasonal",
]


class _Callable(ModuleType):
    """The package, callable as its function of the same name."""

    def __call__(self, *args: Any, **options: Any) -> FilterResult | FleetResult:
        return kalman(*args, **options)


sys.modules[__name__].__class__ = _Callable
