"""Linear Gaussian state-space models: filter, smoother, forecasts, simulation, fits.

A pure library: it knows nothing of engines or notebooks.
"""

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
from pxtools.kalman.filtering import filter_series
from pxtools.kalman.fitting.fit import Fit, fit_model
from pxtools.kalman.forecasting import Forecast
from pxtools.kalman.from_statsmodels import from_statsmodels
from pxtools.kalman.model import StateSpaceModel
from pxtools.kalman.parameters import FreeModel, free
from pxtools.kalman.results import FilterResult, join_results

__all__ = [
    "FilterResult",
    "Fit",
    "Forecast",
    "FreeModel",
    "StateSpaceModel",
    "arima",
    "cycle",
    "filter_series",
    "fit_model",
    "free",
    "from_statsmodels",
    "join_results",
    "kalman",
    "local_level",
    "local_linear_trend",
    "model_from_cell",
    "regression",
    "seasonal",
    "trigonometric_seasonal",
]
