"""Tests of standardised residuals: serial correlation, changing variance, normality.

References: Durbin & Koopman (2012), section 2.12; Ljung & Box (1978); Jarque & Bera (1980).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pxtools.kalman.checks import Array


class Diagnosis(NamedTuple):
    """Statistics of one residual series, each with its p-value (NaN where there are too few values)."""

    ljung_box: float
    ljung_box_p: float
    n_lags: int
    heteroskedasticity: float
    heteroskedasticity_p: float
    jarque_bera: float
    jarque_bera_p: float


def diagnose(residuals: Array) -> Diagnosis:
    """Test one series of standardised residuals `(n_steps,)`; NaN are left out."""
    z = residuals[~np.isnan(residuals)]
    n_lags = int(min(10, len(z) // 5))
    if len(z) < 10:
        return Diagnosis(np.nan, np.nan, n_lags, np.nan, np.nan, np.nan, np.nan)
    from scipy.stats import chi2, f

    rho = autocorrelation(residuals, n_lags)
    n = len(z)
    q = n * (n + 2) * float(np.sum(rho**2 / (n - np.arange(1, n_lags + 1))))
    third = max(1, round(n / 3))
    ratio = float(np.sum(z[-third:] ** 2) / np.sum(z[:third] ** 2))
    tail = min(f.cdf(ratio, third, third), f.sf(ratio, third, third))
    centred = z - z.mean()
    sd = centred.std()
    skew, kurtosis = np.mean(centred**3) / sd**3, np.mean(centred**4) / sd**4
    jb = float(n * (skew**2 / 6 + (kurtosis - 3) ** 2 / 24))
    return Diagnosis(q, float(chi2.sf(q, n_lags)), n_lags, ratio, float(2 * tail), jb, float(chi2.sf(jb, 2)))


def autocorrelation(residuals: Array, n_lags: int) -> Array:
    """Return the autocorrelations at lags 1 to `n_lags`, over the pairs that are present."""
    centred = residuals - np.nanmean(residuals)
    total = np.nansum(centred**2)
    return np.array([np.nansum(centred[k:] * centred[:-k]) / total for k in range(1, n_lags + 1)])
