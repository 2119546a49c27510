"""The modes that a run has found: where they are, and how much of the mass each holds.

References
----------
C. Hennig (2010), Methods for merging Gaussian mixture components, Adv. Data Anal. Classif. 4, 3-34.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import PCG64, Generator
from numpy.typing import NDArray

from pxtools.kernels.demcz_numpy import DOF
from pxtools.sampling.diagnostics import mcse_mean
from pxtools.sampling.mixture import Mixture, fit_mixture

Floats = NDArray[np.float64]

#: draws per chain that are sorted into modes
MAX_DRAWS = 5_000
#: components are one mode unless the draws between them fall below this share of the lower side
VALLEY = 0.3
#: a mode has at least this share of the draws
LEAST_WEIGHT = 0.005
N_BINS = 24


@dataclass(frozen=True, eq=False)
class Mode:
    """One mode of the draws.

    Attributes
    ----------
    weight, error : float
        Its share of the mass, and the Monte Carlo standard error of that.
    centre, sd : (n_params,) array
        Mean and standard deviation of the draws in it.
    """

    weight: float
    error: float
    centre: Floats
    sd: Floats


def find_modes(draws: Floats) -> list[Mode]:
    """Sort draws into modes, heaviest first; one mode when they cannot be told apart.

    Parameters
    ----------
    draws : (n_chains, n_draws, n_params) array
        The draws.
    """
    thinned = draws[:, :: max(1, -(-draws.shape[1] // MAX_DRAWS))]
    points = np.ascontiguousarray(thinned.reshape(-1, draws.shape[2]))
    mixture = fit_mixture(points, Generator(PCG64(0)))
    if mixture is None or mixture.n_components <= 2:
        labels = np.zeros(len(points), dtype=int)
    else:
        labels = _merged(_log_terms(mixture, points)[:, :-1].argmax(axis=1), points)
    return _described(labels.reshape(thinned.shape[:2]), thinned)


def _described(labels: NDArray[np.int64], draws: Floats) -> list[Mode]:
    modes = []
    for label in np.unique(labels):
        is_there = labels == label
        if is_there.mean() < LEAST_WEIGHT:
            continue
        there = draws[is_there]
        error = 0.0 if is_there.all() else float(mcse_mean(is_there.astype(np.float64)))
        modes.append(Mode(float(is_there.mean()), error, there.mean(axis=0), there.std(axis=0)))
    return sorted(modes, key=lambda mode: -mode.weight)


def _log_terms(mixture: Mixture, points: Floats) -> Floats:
    """Return the logarithm of each component's weighted density, (n_points, n_components), up to a constant."""
    terms = np.empty((len(points), mixture.n_components))
    for k, (mean, inverse) in enumerate(zip(mixture.means, mixture.factors[1], strict=True)):
        scaled = (points - mean) @ inverse.T
        terms[:, k] = -0.5 * (DOF + points.shape[1]) * np.log1p((scaled * scaled).sum(axis=1) / DOF)
    with np.errstate(divide="ignore"):
        return np.asarray(terms + np.log(mixture.weights[1]))


def _merged(labels: NDArray[np.int64], points: Floats) -> NDArray[np.int64]:
    """Join components between which the draws have no valley, directly or over others."""
    names = np.unique(labels)
    joined = {int(name): int(name) for name in names}
    for i, one in enumerate(names):
        for other in names[:i]:
            if not _has_valley(points[labels == one], points[labels == other]):
                old, new = joined[int(one)], joined[int(other)]
                joined = {name: new if group == old else group for name, group in joined.items()}
    return np.array([joined[int(label)] for label in labels])


def _has_valley(one: Floats, other: Floats) -> bool:
    """Tell whether few draws lie between two sets, seen in the direction that separates them best."""
    if min(len(one), len(other)) < 5 * N_BINS:
        return len(one) + len(other) > 10 * N_BINS and not _touches(one, other)
    apart = other.mean(axis=0) - one.mean(axis=0)
    within = np.atleast_2d(np.cov(one.T) + np.cov(other.T))
    direction = np.linalg.lstsq(within, apart, rcond=None)[0]
    at = np.concatenate([one, other]) @ direction
    ends = sorted([float(np.median(one @ direction)), float(np.median(other @ direction))])
    heights = np.histogram(at, N_BINS, (ends[0], ends[1]))[0].astype(np.float64)
    smooth = (heights[:-2] + heights[1:-1] + heights[2:]) / 3
    return bool(smooth.min() < VALLEY * min(smooth[0], smooth[-1]))


def _touches(one: Floats, other: Floats) -> bool:
    """Tell whether the means of two sets are within three standard deviations of each other everywhere."""
    distance = np.abs(one.mean(axis=0) - other.mean(axis=0))
    return bool((distance < 3 * (one.std(axis=0) + other.std(axis=0))).all())
