"""What EM needs to know of many series: a few sums, however many series there are and wherever they lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pxtools.kalman.checks import Array
from pxtools.kalman.model import StateSpaceModel
from pxtools.kalman.uncorrelated import run_sums
from pxtools.kernels.kalman_batch_layout import split_statistics


@dataclass(frozen=True, eq=False)
class Summed:
    """Sums over series, to which those of other series can be added.

    Attributes
    ----------
    log_likelihood : float
    n_series, n_values, n_rows, n_moves : numbers of good series, observed values, rows with any, and transitions
    scores : (n, n), sum of `r r' - N` over the states that a disturbance led to
    first_mean, first_cov, first_scatter : (n,), (n, n), (n, n); mean of the first smoothed means, sum of the first
        smoothed covariances, sum of squares about that mean
    noise, noise_state, states : sums of E[e e'], E[e x'], E[x x'] over the rows with any observation
    """

    log_likelihood: float
    n_series: int
    n_values: int
    n_rows: float
    n_moves: int
    scores: Array
    first_mean: Array
    first_cov: Array
    first_scatter: Array
    noise: Array
    noise_state: Array
    states: Array

    def __add__(self, other: Summed) -> Summed:
        """Return the sums over both (Chan, Golub & LeVeque 1983 for the squares about the mean)."""
        n_series = self.n_series + other.n_series
        if not self.n_series or not other.n_series:
            return self if self.n_series else other
        apart = other.first_mean - self.first_mean
        weight = self.n_series * other.n_series / n_series
        together = {
            name: getattr(self, name) + getattr(other, name)
            for name in self.__dataclass_fields__
            if name not in ("first_mean", "first_scatter")
        }
        return Summed(
            **together,
            first_mean=self.first_mean + apart * (other.n_series / n_series),
            first_scatter=self.first_scatter + other.first_scatter + weight * np.outer(apart, apart),
        )


def summed_statistics(model: StateSpaceModel, values: Array, tick: Callable[[float], None] | None = None) -> Summed:
    """Run the E step over series `(n_series, n_steps, n_obs)` and return its sums; failed series are left out."""
    found = run_sums(model, values, tick)
    good = np.setdiff1d(np.arange(len(values)), list(found.failed))
    table = split_statistics(found.arrays["statistics"][good], model.n_states, model.n_obs)
    mean = table.first_mean.mean(axis=0) if len(good) else np.zeros(model.n_states)
    apart = table.first_mean - mean
    return Summed(
        log_likelihood=float(found.arrays["log_likelihood"][good].sum()),
        n_series=len(good),
        n_values=found.n_values,
        n_rows=float(table.n_rows.sum()),
        n_moves=len(good) * (values.shape[1] - 1),
        scores=table.scores.sum(axis=0),
        first_mean=mean,
        first_cov=table.first_cov.sum(axis=0),
        first_scatter=apart.T @ apart,
        noise=table.noise.sum(axis=0),
        noise_state=table.noise_state.sum(axis=0),
        states=table.states.sum(axis=0),
    )
