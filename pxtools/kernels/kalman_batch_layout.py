"""What a pass over many series returns, by name, and how its sufficient statistics are laid out."""

from __future__ import annotations

from typing import NamedTuple

from pxtools.kernels.kalman_results import Array

#: name -> axes after that of the series: T steps, + one more, n states, m observations
AXES = {
    "log_likelihood": "",
    "log_likelihood_steps": "T",
    "predicted_mean": "+n",
    "predicted_cov": "+nn",
    "filtered_mean": "Tn",
    "filtered_cov": "Tnn",
    "standardized_residuals": "Tm",
    "last_mean": "n",
    "last_cov": "nn",
    "smoothed_mean": "Tn",
    "smoothed_cov": "Tnn",
}

#: what needs the pass backwards
BACKWARD = frozenset({"smoothed_mean", "smoothed_cov", "statistics", "gains"})


def shape_of(name: str, n_steps: int, n: int, m: int) -> tuple[int, ...]:
    """Return the shape of one series' part of an output."""
    if name == "statistics":
        return (n_statistics(n, m),)
    sizes = {"T": n_steps, "+": n_steps + 1, "n": n, "m": m}
    return tuple(sizes[axis] for axis in AXES[name])


def n_statistics(n: int, m: int) -> int:
    """Return how many sufficient statistics a series has."""
    return 3 * n * n + n + m * m + m * n + 1


class Statistics(NamedTuple):
    """The sufficient statistics of series, each with a leading axis of series (or none, once summed)."""

    scores: Array
    """(n, n): sum of `r r' - N` over the states that a disturbance led to"""
    first_mean: Array
    """(n,): smoothed mean of the first state"""
    first_cov: Array
    """(n, n): and its covariance"""
    noise: Array
    """(m, m): sum of E[e e'] over the rows with any observation"""
    noise_state: Array
    """(m, n): sum of E[e x'] over them"""
    states: Array
    """(n, n): sum of E[x x'] over them"""
    n_rows: Array
    """their number"""


def split_statistics(table: Array, n: int, m: int) -> Statistics:
    """Return the parts of `(n_series, n_statistics)`."""
    parts, at = [], 0
    for shape in ((n, n), (n,), (n, n), (m, m), (m, n), (n, n), ()):
        size = 1
        for length in shape:
            size *= length
        parts.append(table[:, at : at + size].reshape(len(table), *shape))
        at += size
    return Statistics(*parts)
