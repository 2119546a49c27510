"""The summary of a run: one row per parameter, and in plain words what is wrong."""

from __future__ import annotations

import html
import math
import re
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pxtools.sampling import diagnostics
from pxtools.sampling.findings import findings

if TYPE_CHECKING:
    import pandas

    from pxtools.sampling.samples import Samples

Column = NDArray[np.float64]

COLUMNS = ("mean", "sd", "mcse", "q5", "q50", "q95", "ess_bulk", "ess_tail", "rhat")
_HEADS = dict(zip(COLUMNS, ("mean", "sd", "mcse", "5%", "50%", "95%", "ess_bulk", "ess_tail", "rhat"), strict=True))
#: rows shown; `to_dataframe()` has all
MAX_ROWS = 30
WIDTH = 100


@dataclass(frozen=True, eq=False, repr=False)
class Summary:
    """Columns are (n_params,) arrays in the order of `names`.

    Attributes
    ----------
    names : tuple of str
        Parameter names.
    mean, sd, q5, q50, q95 : array
        Moments and quantiles of all chains' draws.
    mcse, mcse_sd : array
        Monte Carlo standard errors of mean and of sd.
    ess_bulk, ess_tail, rhat : array
        See `pxtools.sampling.diagnostics`.
    headline : str
        What was run.
    warnings, notes : tuple of str
        What is wrong; what else to know.
    """

    names: tuple[str, ...]
    mean: Column
    sd: Column
    mcse: Column
    mcse_sd: Column
    q5: Column
    q50: Column
    q95: Column
    ess_bulk: Column
    ess_tail: Column
    rhat: Column
    headline: str
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dataframe(self) -> pandas.DataFrame:
        """Return the columns as a pandas DataFrame with one row per parameter."""
        from pxtools.sampling.export import needed

        library = needed("pandas")
        frame: pandas.DataFrame = library.DataFrame(
            {name: getattr(self, name) for name in (*COLUMNS, "mcse_sd")}, index=self.names
        )
        return frame

    def __str__(self) -> str:
        rows = [("", *_HEADS.values()), *self._rows()]
        widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
        table = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
        remarks = [_wrapped("Warning: ", text) for text in self.warnings] + [
            _wrapped("Note: ", text) for text in self.notes
        ]
        return "\n".join(
            [*self.headline.splitlines(), "", *table, *self._omitted(), *([""] if remarks else []), *remarks]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        cells = "".join(f'<th style="text-align:right">{html.escape(head)}</th>' for head in ("", *_HEADS.values()))
        body = "".join(_html_row(row) for row in self._rows())
        return (
            f"<div>{_html_lines(self.headline)}<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"
            + "".join(f"<div>{html.escape(line)}</div>" for line in self._omitted())
            + "".join(_html_remark("Warning", text, "#d97706") for text in self.warnings)
            + "".join(_html_remark("Note", text, "#8a8f98") for text in self.notes)
            + "</div>"
        )

    def _rows(self) -> list[tuple[str, ...]]:
        return [(name, *self._cells(k)) for k, name in enumerate(self.names[:MAX_ROWS])]

    def _cells(self, k: int) -> list[str]:
        decimals = _decimals(float(self.sd[k]))
        located = {
            name: _number(float(getattr(self, name)[k]), decimals) for name in ("mean", "sd", "q5", "q50", "q95")
        }
        other = {
            "mcse": f"{self.mcse[k]:.2g}",
            "ess_bulk": _count(float(self.ess_bulk[k])),
            "ess_tail": _count(float(self.ess_tail[k])),
            "rhat": f"{self.rhat[k]:.3f}",
        }
        return [(located | other)[name] for name in COLUMNS]

    def _omitted(self) -> list[str]:
        more = len(self.names) - MAX_ROWS
        return [f"… {more} more parameters: `.summary().to_dataframe()` has all"] if more > 0 else []


def summarise(samples: Samples) -> Summary:
    """Compute the summary of a run."""
    points, draws = samples.points, samples.draws
    q5, q50, q95 = np.quantile(points, [0.05, 0.5, 0.95], axis=0)
    rhat, ess_bulk = diagnostics.rhat(draws), diagnostics.ess_bulk(draws)
    ess_tail = diagnostics.ess_tail(draws)
    warnings, notes = findings(samples, rhat=rhat, ess_bulk=ess_bulk, ess_tail=ess_tail)
    return Summary(
        names=samples.names,
        mean=points.mean(axis=0),
        sd=points.std(axis=0, ddof=1) if len(points) > 1 else np.full(samples.n_params, np.nan),
        mcse=diagnostics.mcse_mean(draws),
        mcse_sd=diagnostics.mcse_sd(draws),
        q5=q5,
        q50=q50,
        q95=q95,
        ess_bulk=ess_bulk,
        ess_tail=ess_tail,
        rhat=rhat,
        headline=_headline(samples) + _worth(float(np.fmin(ess_bulk, ess_tail).min()), samples.seconds),
        warnings=tuple(warnings),
        notes=(*notes, *_mode_lines(samples), *samples.notes),
    )


def _headline(samples: Samples) -> str:
    thinned = f" (one in {samples.thin} steps)" if samples.thin > 1 else ""
    low, high = samples.acceptance_rate.min(), samples.acceptance_rate.max()
    spread = f" ({low:.2f} to {high:.2f} by chain)" if samples.n_chains > 1 else ""
    time = "" if math.isnan(samples.seconds) else f" in {_duration(samples.seconds)}"
    return (
        f"{samples.target_name}: {_plural(samples.n_chains, 'chain')} of {_plural(samples.n_draws, 'draw')}{thinned}, "
        f"after {_plural(samples.warmup, 'warm-up step')}; sampler {samples.sampler}, seed {samples.seed}\n"
        f"acceptance {samples.acceptance_rate.mean():.2f}{spread}; "
        f"{_plural(samples.n_evaluations, 'evaluation')}{time} (target: {samples.target_tier}{_pace(samples)})"
    )


def _pace(samples: Samples) -> str:
    if math.isnan(samples.engine_seconds) or not samples.n_evaluations:
        return ""
    each = samples.engine_seconds / samples.n_evaluations
    text = f"{each * 1e9:.0f} ns" if each < 1e-6 else f"{each * 1e6:.3g} µs" if each < 1e-3 else f"{each * 1e3:.3g} ms"
    return f", {text} per evaluation"


def _worth(least_ess: float, seconds: float) -> str:
    return "" if math.isnan(seconds + least_ess) else f"; least ESS per second {least_ess / max(seconds, 1e-9):,.0f}"


def _mode_lines(samples: Samples) -> list[str]:
    """Say where the modes are, when there are several."""
    modes = samples.modes()
    if len(modes) < 2:
        return []
    lines = [
        f"{mode.weight:.3f} ± {mode.error:.2g} near "
        f"({', '.join(f'{name} = {x:.3g}' for name, x in zip(samples.names[:4], mode.centre, strict=False))})"
        for mode in modes[:6]
    ]
    return [f"{len(modes)} modes, with their shares of the mass:\n" + "\n".join(lines)]


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _duration(seconds: float) -> str:
    return (
        f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
    )


def _decimals(sd: float) -> int | None:
    """Return the decimals that show three digits of `sd`; None asks for scientific notation."""
    if not 0 < sd < math.inf:
        return 3
    decimals = 2 - math.floor(math.log10(sd))
    return max(0, decimals) if -3 <= decimals <= 8 else None


def _number(value: float, decimals: int | None) -> str:
    return f"{value:.3e}" if decimals is None else f"{value:.{decimals}f}"


def _count(value: float) -> str:
    return "nan" if math.isnan(value) else f"{value:,.0f}"


def _wrapped(label: str, text: str) -> str:
    lines = []
    for k, line in enumerate(text.splitlines()):
        first = label if k == 0 else "  "
        lines += textwrap.wrap(
            line.strip(), WIDTH, initial_indent=first, subsequent_indent="  ", break_on_hyphens=False
        )
    return "\n".join(lines)


def _html_row(row: tuple[str, ...]) -> str:
    cells = "".join(f'<td style="text-align:right">{html.escape(cell)}</td>' for cell in row[1:])
    return f'<tr><th style="text-align:left">{html.escape(row[0])}</th>{cells}</tr>'


def _html_lines(text: str) -> str:
    return "".join(f"<div>{html.escape(line)}</div>" for line in text.splitlines())


def _html_text(line: str) -> str:
    """Return a line in which no option is broken behind its dashes."""
    return re.sub(r"--\w[\w-]*", r'<span style="white-space:nowrap">\g<0></span>', html.escape(line))


def _html_remark(label: str, text: str, colour: str) -> str:
    lines = "<br>".join(map(_html_text, text.splitlines()))
    return f'<div style="border-left:4px solid {colour};padding-left:.6em;margin:.4em 0"><b>{label}:</b> {lines}</div>'
