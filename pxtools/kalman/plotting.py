"""Pictures: observations with signal, intervals and forecasts; standardised residuals (matplotlib is imported here)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pxtools.errors import PxUsageError
from pxtools.kalman.diagnostics import autocorrelation

if TYPE_CHECKING:
    from pxtools.kalman.results import FilterResult

MAX_PANELS = 6
LEVEL, FORECAST, POINTS = "tab:blue", "tab:orange", "0.35"


def plot_result(result: FilterResult, *, series: int = 0, smoothed: bool | None = None, level: float = 0.95) -> Any:
    """Plot each observed column with its signal, the signal's interval, and the forecasts.

    Parameters
    ----------
    result : FilterResult
    series : int
        Which series of a batch.
    smoothed : bool, optional
        Whether the signal `d + H x` is the smoothed or the filtered one; smoothed if that was computed already.
    level : float
        Probability of the signal's interval.

    Returns
    -------
    matplotlib Figure
    """
    plt = _pyplot()
    if not 0 <= series < len(result.observed.values):
        raise PxUsageError(f"`series` is {series}; the result holds {len(result.observed.values)} series.")
    is_smoothed = "smoothed" in result.__dict__ if smoothed is None else smoothed
    y = result.observed.values[series]
    count = min(y.shape[1], MAX_PANELS)
    figure, axes = plt.subplots(count, 1, figsize=(9, 2.2 + 2.2 * count), sharex=True, squeeze=False)
    mean, half, known = _signal(result, series, is_smoothed, level)
    x = _axis(result)
    names = list(result.observed.columns or result.model.obs_names or ())
    for j, ax in enumerate(axes[:, 0]):
        ax.plot(x, y[:, j], ".", color=POINTS, markersize=4, label="observed")
        word = "smoothed" if is_smoothed else "filtered"
        ax.plot(x[known], mean[known, j], color=LEVEL, label=f"{word} signal")
        ax.fill_between(x[known], (mean - half)[known, j], (mean + half)[known, j], color=LEVEL, alpha=0.2, linewidth=0)
        _draw_forecast(ax, result, series, j, x)
        _frame(ax, y[:, j], names[j])
    axes[0, 0].legend(loc="best", frameon=False, fontsize="small")
    if y.shape[1] > count:
        axes[-1, 0].set_xlabel(f"{y.shape[1] - count} more columns are not shown")
    figure.tight_layout()
    plt.close(figure)
    return figure


def plot_diagnostics(result: FilterResult, *, series: int = 0, column: int = 0) -> Any:
    """Plot the standardised residuals of one column: over time, as histogram, as quantiles, and their correlogram."""
    plt = _pyplot()
    residuals = result.standardized_residuals
    z = (residuals[series] if result.observed.is_batch else residuals)[:, column]
    present = z[~np.isnan(z)]
    if len(present) < 10:
        raise PxUsageError(f"There are {len(present)} residuals, too few for diagnostics; at least 10 are needed.")
    from scipy.special import ndtri

    figure, ((over, histogram), (quantiles, correlogram)) = plt.subplots(2, 2, figsize=(9, 6))
    over.axhline(0, color="0.6", linewidth=0.8)
    over.plot(_axis(result), z, color=LEVEL, linewidth=0.9)
    over.set_title("standardised residuals", fontsize="medium")
    histogram.hist(present, bins="auto", density=True, color=LEVEL, alpha=0.5)
    grid = np.linspace(-4, 4, 200)
    histogram.plot(grid, np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi), color="0.2", linewidth=1)
    histogram.set_title("histogram and standard normal", fontsize="medium")
    normal = ndtri((np.arange(len(present)) + 0.5) / len(present))
    quantiles.plot(normal, np.sort(present), ".", color=LEVEL, markersize=4)
    quantiles.plot(normal, normal, color="0.2", linewidth=1)
    quantiles.set_title("quantiles against the normal", fontsize="medium")
    lags = min(20, len(present) // 4)
    correlogram.bar(range(1, lags + 1), autocorrelation(z, lags), width=0.35, color=LEVEL)
    for bound in (-1, 1):
        correlogram.axhline(bound * 1.96 / np.sqrt(len(present)), color="0.5", linestyle="--", linewidth=0.8)
    correlogram.axhline(0, color="0.6", linewidth=0.8)
    correlogram.set_title("autocorrelation", fontsize="medium")
    for ax in (over, histogram, quantiles, correlogram):
        ax.spines[["top", "right"]].set_visible(False)
    correlogram.xaxis.get_major_locator().set_params(integer=True)
    figure.tight_layout()
    plt.close(figure)
    return figure


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise PxUsageError("Plots need matplotlib, which is not installed.\nRun: pip install 'pxtools[plot]'") from None
    return plt


def _signal(result: FilterResult, series: int, smoothed: bool, level: float) -> tuple[Any, Any, Any]:
    from scipy.special import ndtri

    source = result.smoothed if smoothed else None
    mean = (source.mean if source else result.filtered.filtered_mean)[series]
    cov = (source.cov if source else result.complete.filtered_cov)[series]
    H, d = (part[: len(mean)] if len(part) > 1 else part for part in (result.model.parts[k] for k in "Hd"))
    signal = (H @ mean[..., None])[..., 0] + d
    variance = np.einsum("tii->ti", H @ cov @ H.swapaxes(-1, -2))
    known = np.ones(len(mean), dtype=bool)
    # a filtered state is not known before the diffuse phase is over
    known[: 0 if smoothed else max(result.n_diffuse_steps - 1, 0)] = False
    return signal, ndtri(0.5 + level / 2) * np.sqrt(np.maximum(variance, 0)), known


def _axis(result: FilterResult) -> Any:
    index = result.index
    if index is None:
        return np.arange(result.observed.values.shape[1])
    return np.asarray(index.to_timestamp() if hasattr(index, "to_timestamp") else index)


def _draw_forecast(ax: Any, result: FilterResult, series: int, j: int, x: Any) -> None:
    forecast = result.forecasts
    if forecast is None:
        return
    mean, lower, upper = (
        part[series] if result.observed.is_batch else part for part in (forecast.mean, forecast.lower, forecast.upper)
    )
    ahead = forecast.index
    if ahead is None:
        ahead = np.arange(len(x), len(x) + len(mean))
    elif hasattr(ahead, "to_timestamp"):
        ahead = ahead.to_timestamp()
    ax.plot(
        np.asarray(ahead),
        mean[:, j],
        color=FORECAST,
        marker="." if len(mean) == 1 else None,
        label="forecast",
    )
    label = f"{100 * forecast.level:g}% interval"
    ax.fill_between(np.asarray(ahead), lower[:, j], upper[:, j], color=FORECAST, alpha=0.2, linewidth=0, label=label)


def _frame(ax: Any, y: Any, name: str) -> None:
    ax.set_ylabel(name)
    ax.spines[["top", "right"]].set_visible(False)
    ax.margins(x=0.01)
