"""Pictures of samples: histograms of pairs, and traces. matplotlib is imported when a picture is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pxtools.errors import PxUsageError, nearest
from pxtools.sampling.export import needed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pxtools.sampling.samples import Samples

MAX_PARAMS = 5
BINS = 60
#: points drawn per chain and trace; more cannot be told apart
MAX_TRACE_POINTS = 2_000
CELL_INCHES = 2.6
TRACE_INCHES = (6.5, 1.7)


def plot(samples: Samples, kind: str, params: Sequence[str] | None) -> Figure:
    """Return the figure; see `Samples.plot`."""
    if kind not in KINDS:
        raise PxUsageError(f"There is no plot of kind `{kind}`.{nearest(kind, KINDS)}\nKinds: {', '.join(KINDS)}.")
    pyplot = needed("matplotlib", "matplotlib.pyplot")
    names = list(samples.names[:MAX_PARAMS]) if params is None else list(params)
    for name in names:
        samples[name]  # an unknown name fails before anything is drawn
    figure: Figure = KINDS[kind](pyplot, samples, names)
    if "inline" in str(needed("matplotlib").get_backend()).lower():
        pyplot.close(figure)  # the notebook shows what the cell returns: once is enough
    return figure


def _overview(pyplot: Any, samples: Samples, names: list[str]) -> Any:
    n = len(names)
    side, height = n * CELL_INCHES, max(n * CELL_INCHES, n * TRACE_INCHES[1])
    figure = pyplot.figure(figsize=(side + TRACE_INCHES[0], height), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[side, TRACE_INCHES[0]])
    _draw_pairs(left, samples, names)
    _draw_traces(right, samples, names)
    return _titled(figure, samples)


def _pairs(pyplot: Any, samples: Samples, names: list[str]) -> Any:
    size = max(len(names), 1.5) * CELL_INCHES
    figure = pyplot.figure(figsize=(size, size), layout="constrained")
    _draw_pairs(figure, samples, names)
    return _titled(figure, samples)


def _trace(pyplot: Any, samples: Samples, names: list[str]) -> Any:
    figure = pyplot.figure(figsize=(TRACE_INCHES[0], max(2.4, len(names) * TRACE_INCHES[1])), layout="constrained")
    _draw_traces(figure, samples, names)
    return _titled(figure, samples)


def _titled(figure: Any, samples: Samples) -> Any:
    verdict = ": the chains disagree" if any("disagree" in text for text in samples.summary().warnings) else ""
    figure.suptitle(
        f"{samples.target_name}, {samples.n_chains} × {samples.n_draws:,} draws{verdict}", fontsize="medium"
    )
    return figure


def _draw_pairs(figure: Any, samples: Samples, names: list[str]) -> None:
    """2-D histograms below the diagonal, each parameter's own on it."""
    n = len(names)
    axes = figure.subplots(n, n, squeeze=False, sharex="col")
    columns = {name: samples[name].ravel() for name in names}
    for row in range(n):
        for col in range(n):
            axis = axes[row, col]
            if col > row:
                axis.set_axis_off()
            elif col == row:
                axis.hist(columns[names[col]], BINS, density=True, histtype="stepfilled", color="C0", alpha=0.8)
                axis.set_yticks([])
            else:
                _draw_pair(axis, columns[names[col]], columns[names[row]])
                axis.set_ylabel(names[row] if col == 0 else "")
            if row == n - 1:
                axis.set_xlabel(names[col])


def _draw_pair(axis: Any, x: Any, y: Any) -> None:
    heights, x_edges, y_edges = np.histogram2d(x, y, BINS)
    axis.pcolormesh(x_edges, y_edges, np.ma.masked_equal(heights.T, 0), cmap="viridis", rasterized=True)


def _draw_traces(figure: Any, samples: Samples, names: list[str]) -> None:
    axes = figure.subplots(len(names), 1, squeeze=False, sharex=True)[:, 0]
    stride = max(1, -(-samples.n_draws // MAX_TRACE_POINTS))
    when = np.arange(0, samples.n_draws, stride)
    for axis, name in zip(axes, names, strict=True):
        for chain in samples[name]:
            axis.plot(when, chain[::stride], linewidth=0.5, alpha=0.8)
        axis.set_ylabel(name)
        axis.margins(x=0)
    axes[-1].set_xlabel("draw")


KINDS: dict[str, Callable[[Any, Samples, list[str]], Any]] = {"overview": _overview, "pairs": _pairs, "trace": _trace}
