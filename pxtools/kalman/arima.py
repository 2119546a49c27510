"""ARIMA models in state-space form, with exact likelihood: differencing states are diffuse, the rest is stationary.

Reference: Harvey (1989), section 3.3; Durbin & Koopman (2012), section 3.4.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pxtools.errors import PxUsageError
from pxtools.kalman.checks import Array, as_array
from pxtools.kalman.model import StateSpaceModel


def arima(
    ar: Sequence[float] = (),
    ma: Sequence[float] = (),
    var: float = 1.0,
    *,
    d: int = 0,
    period: int = 0,
    seasonal_ar: Sequence[float] = (),
    seasonal_ma: Sequence[float] = (),
    seasonal_d: int = 0,
    mean: float = 0.0,
) -> StateSpaceModel:
    """Return the state-space form of a (seasonal) ARIMA model.

    `phi(B) Phi(B^s) (1 - B)^d (1 - B^s)^D (y - mean) = theta(B) Theta(B^s) e`, with
    `phi(B) = 1 - ar[0] B - …` and `theta(B) = 1 + ma[0] B + …` (the signs of R and statsmodels).

    Parameters
    ----------
    ar, ma : sequence of float
        Coefficients.
    var : float
        Variance of e.
    d, seasonal_d : int
        Orders of differencing.
    period : int
        Steps of a season, where there are seasonal parts.
    seasonal_ar, seasonal_ma : sequence of float
        Seasonal coefficients.
    mean : float
        Mean of the series (of no effect when it is differenced).

    Returns
    -------
    StateSpaceModel
        With exact likelihood: stationary parts start from their moments, differences diffuse.

    Raises
    ------
    PxUsageError
        Autoregressive coefficients outside the stationary region, or seasonal parts without a period.

    Examples
    --------
    >>> from pxtools.kalman import arima
    >>> arima([0.5], [0.4], var=2.0, d=1)
    StateSpaceModel(n_states=3, n_obs=1, initial=diffuse/stationary)
    """
    is_seasonal = len(seasonal_ar) or len(seasonal_ma) or seasonal_d
    if is_seasonal and period < 2:
        raise PxUsageError(f"`period` is {period}; seasonal parts need a period of at least 2 steps.")
    if min(d, seasonal_d) < 0:
        raise PxUsageError(f"`d` is {d} and `seasonal_d` is {seasonal_d}; differences cannot be negative in number.")
    phi = _times_lags(_lags("ar", ar, -1.0), _lags("seasonal_ar", seasonal_ar, -1.0, period))
    theta = _times_lags(_lags("ma", ma, 1.0), _lags("seasonal_ma", seasonal_ma, 1.0, period))
    differences = np.array([1.0])
    for _ in range(d):
        differences = _times_lags(differences, np.array([1.0, -1.0]))
    for _ in range(seasonal_d):
        differences = _times_lags(differences, np.concatenate([[1.0], np.zeros(period - 1), [-1.0]]))
    return _assembled(-phi[1:], theta, -differences[1:], var, mean)


def _assembled(phi: Array, theta: Array, past: Array, var: float, mean: float) -> StateSpaceModel:
    """States: the last len(past) values of the series, then Harvey's ARMA states of its differences."""
    k, r = len(past), max(len(phi), len(theta))
    F = np.zeros((k + r, k + r))
    F[k : k + len(phi), k] = phi
    F[k : k + r - 1, k + 1 :] = np.eye(r - 1)
    H = np.zeros(k + r)
    H[:k], H[k] = past, 1.0
    if k:
        F[0] = H
        F[1:k, : k - 1] = np.eye(k - 1)
    G = np.zeros((k + r, 1))
    G[k : k + len(theta), 0] = theta
    names = [f"y.L{i + 1}" for i in range(k)] + [f"arma{i}" for i in range(r)]
    try:
        return StateSpaceModel(
            F,
            [H],
            [[var]],
            [[0.0]],
            initial=["diffuse"] * k + ["stationary"] * r,
            observation_intercept=[mean],
            selection_matrix=G,
            state_names=names,
        )
    except PxUsageError as error:
        if "stationary" not in str(error):
            raise
        raise PxUsageError(
            "The autoregressive coefficients are not stationary: a root of their polynomial lies on or inside the unit "
            "circle.\nDifference instead (`d=1`), or choose smaller coefficients."
        ) from None


def _lags(name: str, coefficients: Sequence[float], sign: float, step: int = 1) -> Array:
    values = as_array(name, coefficients).reshape(-1)
    polynomial = np.zeros(len(values) * step + 1)
    polynomial[0] = 1.0
    if len(values):
        polynomial[step::step] = sign * values
    return polynomial


def _times_lags(a: Array, b: Array) -> Array:
    return np.convolve(a, b)
