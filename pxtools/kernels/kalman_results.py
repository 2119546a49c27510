"""What the Kalman kernels return, in both tiers: plain arrays with a leading axis of series.

Letters of the kernels: F transition, H observation, Q process noise (selection applied), R observation noise, c and d
their intercepts, x a state mean, P a state covariance, Pinf its diffuse part. Each matrix has a leading axis of
length 1 (constant) or n_steps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Counts = NDArray[np.int64]

#: an innovation variance below this fraction of its own terms is zero in double precision
NO_VARIANCE = 8 * np.finfo(float).eps

#: a factor's pivot below this fraction of its row is zero
NO_PIVOT = 8 * np.finfo(float).eps

#: a row of factors below this fraction of what it was computed from is round-off
NO_TRACE = 16 * np.finfo(float).eps

#: the same of an infinite direction, of which a row is a factor too
NOT_WIDE = 1e-11

#: below this fraction, more than ten digits were cancelled: the square-root form is called for
CANCELLED = 1e-10

#: a diffuse innovation variance below this fraction of its bound without data is zero
NOT_DIFFUSE = 1e-9

#: a smoothed variance below this fraction of the filtered one has lost digits to their difference
LOST = 1e-4

#: relative change of the predicted covariance from one step to the next that counts as none
STEADY = 4e-16


class Filtered(NamedTuple):
    """The forward pass.

    predicted_mean (n_series, n_steps + 1, n_states), predicted_cov (n_series, n_kept + 1, n_states, n_states),
    filtered_mean (n_series, n_steps, n_states), filtered_cov (n_series, n_kept, n_states, n_states): once the
    covariances stand still they are kept no longer, and the last one serves for all later steps; `complete` repeats it.
    log_likelihood (n_series, n_steps); the diffuse part of the predicted and of the filtered covariance for the first
    steps (n_series, n_diffuse_steps, n_states, n_states) and 1 for each observation in them that served to end it
    (n_series, n_diffuse_steps, n_obs); the final diffuse part; how many innovation variances lost over ten digits.
    """

    predicted_mean: Array
    predicted_cov: Array
    filtered_mean: Array
    filtered_cov: Array
    log_likelihood: Array
    diffuse_cov: Array
    diffuse_filtered_cov: Array
    diffuse_obs: NDArray[np.uint8]
    last_diffuse_cov: Array
    n_cancelled: int

    def complete(self) -> Filtered:
        """Return the same with a covariance for every step."""
        n_steps = self.filtered_mean.shape[1]
        if self.filtered_cov.shape[1] == n_steps:
            return self
        return self._replace(
            predicted_cov=repeated(self.predicted_cov, n_steps + 1), filtered_cov=repeated(self.filtered_cov, n_steps)
        )


def without_diffuse(
    predicted_mean: Array,
    predicted_cov: Array,
    filtered_mean: Array,
    filtered_cov: Array,
    log_likelihood: Array,
    n_obs: int,
) -> Filtered:
    """Return the forward pass of a kernel that has no exact diffuse phase."""
    n_series, _, n = filtered_mean.shape
    none, used = np.zeros((n_series, 0, n, n)), np.zeros((n_series, 0, n_obs), dtype=np.uint8)
    moments = (predicted_mean, predicted_cov, filtered_mean, filtered_cov, log_likelihood)
    return Filtered(*moments, none, none.copy(), used, np.zeros((n_series, n, n)), 0)


def repeated(part: Array, n_steps: int) -> Array:
    """Return an array (n_series, n_kept, …) with its last step repeated until there are `n_steps`."""
    more = np.broadcast_to(part[:, -1:], (len(part), n_steps - part.shape[1], *part.shape[2:]))
    return np.concatenate([part, more], axis=1)


class Smoothed(NamedTuple):
    """The backward pass: moments given all data, and the scaled estimators r and N they come from.

    mean, r: (n_series, n_steps, n_states); cov, N: (n_series, n_steps, n_states, n_states); r and N at step t hold
    what the observations from t on say about the state predicted for t. Kernels leave the moments of steps whose
    filtered state is partly infinite, and the n_lost variances below LOST of the filtered ones, to their caller, who
    notes in `by_regression` (n_series, n_steps) which steps were smoothed by regression on the next state; None for
    none. In the place of r and N, the square-root form has `Cov(x[t + 1], x[t])`, lag_one
    (n_series, n_steps - 1, n_states, n_states), and mean and covariance of the standard normal numbers that make a
    transition's noise, shock (n_series, n_steps - 1, n_states) and shock_cov.
    """

    mean: Array
    cov: Array
    r: Array
    N: Array
    n_lost: int = 0
    by_regression: NDArray[np.bool_] | None = None
    lag_one: Array | None = None
    shock: Array | None = None
    shock_cov: Array | None = None


class Score(NamedTuple):
    """Derivatives of the log-likelihood, added up over series.

    F (1 or n_steps, n_states, n_states), H (…, n_obs, n_states), Q, R, c, d: by each number of these parts, for all
    steps together or step by step; None where they were not wanted. r (n_series, 2, n_states) and
    N (n_series, 2, n_states, n_states), for the state predicted for the first step and for the first one that F and H
    do not leave out: r is the derivative by its mean, `(r r' - N) / 2` that by its covariance.
    """

    F: Array | None
    H: Array | None
    Q: Array | None
    R: Array | None
    c: Array | None
    d: Array | None
    r: Array
    N: Array
