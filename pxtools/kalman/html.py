"""A result as HTML: the summary's numbers in tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from pxtools.kalman.diagnostics import diagnose

if TYPE_CHECKING:
    from pxtools.kalman.results import FilterResult

#: rows of states, columns of residuals and steps of forecasts that are shown
MOST = 8


def to_html(result: FilterResult) -> str:
    """Return the model, the fit, the last state, the residuals' tests and the forecasts as HTML tables."""
    from pxtools.kalman.tables import heading

    parts = [f"<p><b>{escape(heading(result)[0])}</b><br>{'<br>'.join(map(escape, heading(result)[1:]))}</p>"]
    if result.fit is not None:
        rows = [(name, value, result.fit.standard_errors.get(name)) for name, value in result.fit.values.items()]
        parts.append(_table(f"fit by {result.fit.method}: {result.fit.message}", ("", "value", "std. error"), rows))
    if not result.observed.is_batch:
        parts.append(_states(result))
        parts.append(_residuals(result))
        parts.append(_forecasts(result))
    return "".join(parts)


def _states(result: FilterResult) -> str:
    deviations = np.sqrt(np.maximum(np.einsum("ii->i", result.filtered.filtered_cov[0, -1]), 0))
    rows = list(zip(result.model.state_names or (), result.filtered_mean[-1], deviations, strict=True))
    return _table("last state", ("", "mean", "std. dev."), rows[:MOST], len(rows) - MOST)


def _residuals(result: FilterResult) -> str:
    names = list(result.observed.columns or result.model.obs_names or ())
    rows = []
    for name, residuals in zip(names[:MOST], result.standardized_residuals.T, strict=False):
        d = diagnose(residuals)
        if not np.isnan(d.ljung_box):
            rows.append((name, d.ljung_box_p, d.heteroskedasticity_p, d.jarque_bera_p))
    words = ("", "Ljung-Box p", "variance ratio p", "Jarque-Bera p")
    return _table("residuals", words, rows, len(names) - MOST) if rows else ""


def _forecasts(result: FilterResult) -> str:
    ahead = result.forecasts
    if ahead is None:
        return ""
    labels = (
        [f"+{h + 1}" for h in range(len(ahead.mean))] if ahead.index is None else [str(date) for date in ahead.index]
    )
    rows = [
        (f"{label} {column}" if len(ahead.columns) > 1 else label, *numbers)
        for label, *series in zip(labels, ahead.mean, ahead.lower, ahead.upper, strict=True)
        for column, *numbers in zip(ahead.columns, *series, strict=True)
    ]
    words = ("", "forecast", f"lower {100 * ahead.level:g}%", f"upper {100 * ahead.level:g}%")
    return _table("forecasts", words, rows[:MOST], len(rows) - MOST)


def _table(title: str, words: Sequence[str], rows: Iterable[Sequence[object]], left_out: int = 0) -> str:
    head = "".join(f"<th>{escape(word)}</th>" for word in words)
    body = "".join(f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row)}</tr>" for row in rows)
    more = f"<tr><td colspan={len(words)}>… {left_out} more</td></tr>" if left_out > 0 else ""
    return f"<table><caption>{escape(title)}</caption><tr>{head}</tr>{body}{more}</table>"


def _cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, (float, np.floating)) else escape("" if value is None else str(value))
