"""Linear Gaussian state-space models: filter, smoother, forecasts, simulation, fits.

A pure library: it knows nothing of engines or notebooks.
"""

from pxtools.kalman.filtering import filter_series
from pxtools.kalman.forecasting import Forecast
from pxtools.kalman.model import StateSpaceModel
from pxtools.kalman.results import FilterResult, join_results

__all__ = ["FilterResult", "Forecast", "StateSpaceModel", "filter_series", "join_results"]
