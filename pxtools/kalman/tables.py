"""A result as text and as DataFrames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pxtools.errors import PxUsageError
from pxtools.kalman.checks import states_text
from pxtools.kalman.diagnostics import diagnose

if TYPE_CHECKING:
    from pxtools.kalman.results import FilterResult


def to_frame(result: FilterResult, name: str) -> Any:
    """Return one two-dimensional result as a DataFrame; the columns are states or observed values."""
    import pandas as pd

    if result.observed.is_batch:
        raise PxUsageError(f"A batch of series has no single table: take `result.{name}[series]`.")
    array = np.asarray(getattr(result, name))
    array = array[:, None] if array.ndim == 1 else array
    index = result.index
    if index is not None and len(array) == len(index) + 1:
        from pxtools.kalman.forecasting import future_index

        after = future_index(index, 1)
        index = index.append(after) if after is not None else None
    return pd.DataFrame(array, index=index, columns=_columns(result, name, array.shape[1]))


def _columns(result: FilterResult, name: str, width: int) -> list[str]:
    if name.endswith("_mean"):
        return list(result.model.state_names or ())
    if name == "process_disturbance":
        return [f"w{i}" for i in range(width)]
    if name == "log_likelihood_steps":
        return ["log_likelihood"]
    return list(result.observed.columns or result.model.obs_names or ())


def heading(result: FilterResult) -> list[str]:
    """Return what was filtered: sizes, dates, numbers of values, log-likelihood."""
    values = result.observed.values
    n_series, n_steps, n_obs = values.shape
    missing = int(np.isnan(values).sum())
    of_series = f"{n_series} series, " if result.observed.is_batch else ""
    what = f"{n_steps} steps, {n_obs} observed, {states_text(result.model.n_states)}"
    dates = [f"  from              {result.index[0]} to {result.index[-1]}"] if result.index is not None else []
    return [
        f"FilterResult: {of_series}{what}, form {result.form}",
        *dates,
        f"  values            {values.size - missing} ({missing} missing)",
        _likelihood_line(result),
    ]


def summary(result: FilterResult) -> str:
    """Return the model, the fit, the log-likelihood and the diagnostics as text."""
    lines = heading(result)
    if result.fit is not None:
        lines += _fit_lines(result)
    if not result.observed.is_batch:
        lines += _state_lines(result) + _diagnosis_lines(result)
    if result.forecasts is not None:
        lines += _forecast_lines(result)
    return "\n".join(lines)


def _likelihood_line(result: FilterResult) -> str:
    total = float(np.sum(result.log_likelihood))
    diffuse = int(np.sum(result.n_diffuse_obs))
    told = f" ({diffuse} diffuse value{'s' * (diffuse != 1)})" if diffuse else ""
    return f"  log-likelihood    {total:.4f}{told}"


def _fit_lines(result: FilterResult) -> list[str]:
    fit = result.fit
    assert fit is not None
    lines = [f"  fit by {fit.method}: {fit.message}, {fit.n_iterations} iterations"]
    if fit.values:
        lines[0] += f", AIC {fit.aic:.2f}, BIC {fit.bic:.2f}"
        width = max(28, *map(len, fit.values))
        lines.append(f"    {'parameter':<{width}}{'value':>14}{'std. error':>14}")
        for name, value in fit.values.items():
            lines.append(f"    {name:<{width}}{value:>14.6g}{fit.standard_errors[name]:>14.4g}")
    return lines


def _state_lines(result: FilterResult) -> list[str]:
    names = list(result.model.state_names or ())[:8]
    deviation = np.sqrt(np.maximum(np.einsum("ii->i", result.filtered_cov[-1]), 0))
    lines = [f"  {'last state':<30}{'mean':>14}{'std. dev.':>14}"]
    for i, name in enumerate(names):
        lines.append(f"    {name:<28}{result.filtered_mean[-1, i]:>14.6g}{deviation[i]:>14.4g}")
    if result.model.n_states > len(names):
        lines.append(f"    … {result.model.n_states - len(names)} more")
    return lines


def _diagnosis_lines(result: FilterResult) -> list[str]:
    residuals = result.standardized_residuals
    names = list(result.observed.columns or result.model.obs_names or ())
    lines = []
    for j, name in enumerate(names[:4]):
        d = diagnose(residuals[:, j])
        if np.isnan(d.ljung_box):
            continue
        lines.append(
            f"    {name:<18} Ljung-Box({d.n_lags}) {d.ljung_box:.2f} (p {d.ljung_box_p:.3f}), "
            f"variance ratio {d.heteroskedasticity:.2f} (p {d.heteroskedasticity_p:.3f}), "
            f"Jarque-Bera {d.jarque_bera:.2f} (p {d.jarque_bera_p:.3f})"
        )
    return ["  residuals", *lines] if lines else []


def _forecast_lines(result: FilterResult) -> list[str]:
    forecast = result.forecasts
    assert forecast is not None
    if result.observed.is_batch:
        return [f"  forecasts         {forecast.mean.shape[-2]} steps"]
    lines = [f"  forecasts ({100 * forecast.level:g}% intervals)"]
    for h in range(min(len(forecast.mean), 6)):
        label = str(forecast.index[h]) if forecast.index is not None else f"+{h + 1}"
        parts = [
            f"{forecast.mean[h, j]:.6g} [{forecast.lower[h, j]:.6g}, {forecast.upper[h, j]:.6g}]"
            for j in range(min(forecast.mean.shape[1], 3))
        ]
        lines.append(f"    {label:<28}{'  '.join(parts)}")
    if len(forecast.mean) > 6:
        lines.append(f"    … {len(forecast.mean) - 6} more")
    return lines
