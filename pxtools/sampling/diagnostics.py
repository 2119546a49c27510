"""Do the chains agree, and how much are their draws worth: R-hat, effective sample sizes, Monte Carlo errors.

Every function takes draws as (n_chains, n_draws) or (n_chains, n_draws, n_params) and returns a float or an (n_params,)
array; NaN where a number cannot be had: fewer than four draws, a NaN among them, one chain for R-hat. The results equal
those of ArviZ.

References
----------
A. Vehtari, A. Gelman, D. Simpson, B. Carpenter, P.-C. Bürkner (2021), Rank-normalization, folding, and localization: an
improved R-hat for assessing convergence of MCMC, Bayesian Analysis 16, 667-718.
C. J. Geyer (1992), Practical Markov chain Monte Carlo, Statistical Science 7, 473-483.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.fft import next_fast_len
from scipy.special import ndtri

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], float]

#: the tails whose effective sample size counts
TAILS = (0.05, 0.95)
MIN_DRAWS = 4


def _per_parameter(min_chains: int) -> Callable[[Statistic], Callable[[ArrayLike], Floats]]:
    """Apply a statistic of (n_chains, n_draws) to each parameter, where there is enough to compute it from."""

    def decorate(statistic: Statistic) -> Callable[[ArrayLike], Floats]:
        @wraps(statistic)
        def over_parameters(draws: ArrayLike) -> Floats:
            array = np.asarray(draws, dtype=np.float64)
            if array.ndim not in (2, 3):
                raise ValueError(
                    f"draws must be (n_chains, n_draws) or (n_chains, n_draws, n_params), not {array.shape}"
                )
            columns = array.reshape(*array.shape[:2], -1)
            is_enough = columns.shape[0] >= min_chains and columns.shape[1] >= MIN_DRAWS
            results = np.full(columns.shape[2], np.nan)
            for k in range(columns.shape[2]):
                column = np.ascontiguousarray(columns[:, :, k])
                if is_enough and not np.isnan(column).any():
                    results[k] = statistic(column)
            return results if array.ndim == 3 else results[0]

        return over_parameters

    return decorate


@_per_parameter(min_chains=2)
def rhat(draws: Floats) -> float:
    """Return the rank-normalised split R-hat: above 1.01 when chains differ in location or in spread."""
    halves = _split(draws)
    bulk = _plain_rhat(_normal_scores(halves))
    tail = _plain_rhat(_normal_scores(np.abs(halves - np.median(halves))))
    return tail if tail > bulk else bulk


@_per_parameter(min_chains=1)
def ess_bulk(draws: Floats) -> float:
    """Return how many independent draws would tell as much about the middle of the distribution."""
    return _ess(_normal_scores(_split(draws)))


@_per_parameter(min_chains=1)
def ess_tail(draws: Floats) -> float:
    """Return how many independent draws would tell as much about the 5 % and the 95 % quantile, whichever is less."""
    return min(_ess(_split((draws <= quantile).astype(np.float64))) for quantile in _quantiles(draws, TAILS))


@_per_parameter(min_chains=1)
def mcse_mean(draws: Floats) -> float:
    """Return the standard error of the mean as an estimate of the target's."""
    return float(np.std(draws, ddof=1) / np.sqrt(_ess(_split(draws))))


@_per_parameter(min_chains=1)
def mcse_sd(draws: Floats) -> float:
    """Return the standard error of the standard deviation as an estimate of the target's."""
    squares = (draws - draws.mean()) ** 2
    variance = squares.mean()
    with np.errstate(invalid="ignore", divide="ignore"):
        variance_of_sd = ((squares**2).mean() - variance**2) / _ess(_split(squares)) / variance / 4
        return float(np.sqrt(variance_of_sd))


def _split(draws: Floats) -> Floats:
    """Cut each chain into halves, which become chains; the middle draw of an odd number is left out."""
    half = draws.shape[1] // 2
    return np.concatenate([draws[:, :half], draws[:, -half:]])


def _normal_scores(draws: Floats) -> Floats:
    """Replace the draws by the normal quantiles of their ranks (Vehtari et al. 2021, equation 14)."""
    scores: Floats = ndtri((_mean_ranks(draws.ravel()) - 0.375) / (draws.size + 0.25))
    return scores.reshape(draws.shape)


def _mean_ranks(values: Floats) -> Floats:
    """Return ranks from 1; equal values share their mean rank."""
    # scipy.stats.rankdata does the same, but importing scipy.stats takes a second
    order = np.argsort(values)
    ordered = values[order]
    firsts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    lengths = np.diff(firsts, append=values.size)
    ranks = np.empty(values.size)
    ranks[order] = np.repeat(firsts + (lengths + 1) / 2, lengths)
    return ranks


def _plain_rhat(draws: Floats) -> float:
    """Return R-hat of chains as they are (equations 1 to 4)."""
    n_draws = draws.shape[1]
    between = n_draws * np.var(draws.mean(axis=1), ddof=1)
    within = np.var(draws, axis=1, ddof=1).mean()
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.sqrt((between / within + n_draws - 1) / n_draws))


def _ess(draws: Floats) -> float:
    """Return the effective sample size of chains as they are (equations 10 to 13)."""
    if np.ptp(draws) < np.finfo(np.float64).resolution:
        return float(draws.size)
    n_chains, n_draws = draws.shape
    covariances = _mean_autocovariances(draws)
    within = covariances[0] * n_draws / (n_draws - 1)
    total = covariances[0] + (np.var(draws.mean(axis=1), ddof=1) if n_chains > 1 else 0.0)
    correlations = 1 - (within - covariances) / total
    correlations[0] = 1.0
    return draws.size / max(_autocorrelation_time(correlations), 1 / np.log10(draws.size))


def _autocorrelation_time(correlations: Floats) -> float:
    """Sum correlations over Geyer's initial positive sequence of pairs, made monotone."""
    n_draws = len(correlations)
    pairs = correlations[: n_draws // 2 * 2].reshape(-1, 2).sum(axis=1)
    longest = max(0, (n_draws - 3) // 2)
    ends = np.flatnonzero(pairs[: longest + 1] <= 0)
    last = int(ends[0]) if ends.size else longest
    even = correlations[2 * last]
    remainder = even if last == 0 or pairs[last] >= 0 else max(even, 0.0)
    return float(-1 + 2 * np.minimum.accumulate(pairs[:last]).sum() + remainder)


def _mean_autocovariances(draws: Floats) -> Floats:
    """Return the autocovariance at every lag, averaged over chains, (n_draws,)."""
    n_draws = draws.shape[1]
    length = next_fast_len(2 * n_draws, real=True)
    power = np.zeros(length // 2 + 1)
    for chain in draws:  # one chain at a time: memory
        spectrum = np.fft.rfft(chain - chain.mean(), n=length)
        power += spectrum.real**2 + spectrum.imag**2
    covariances: Floats = np.fft.irfft(power, n=length)[:n_draws]
    return covariances / (n_draws * len(draws))


def _quantiles(draws: Floats, probabilities: tuple[float, ...]) -> list[float]:
    """Return quantiles of R's type 7, rounded as SciPy's `mquantiles` (and so ArviZ) rounds.

    Draws repeat where steps are rejected, and then the last bit decides on which side of the quantile a point falls.
    """
    ordered = np.sort(draws, axis=None)
    quantiles = []
    for probability in probabilities:
        place = len(ordered) * probability + (1.0 - probability)
        k = int(np.floor(np.clip(place, 1, len(ordered) - 1)))
        weight = np.clip(place - k, 0, 1)
        quantiles.append(float((1.0 - weight) * ordered[k - 1] + weight * ordered[k]))
    return quantiles
