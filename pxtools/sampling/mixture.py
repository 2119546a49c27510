"""A mixture of t distributions that describes an archive of points. Standard library and NumPy only: engines run this.

No call here reaches a BLAS library: its sums depend on the number of threads, and so on the number of engines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

#: points that a fit looks at: for each parameter, and the limits; a covariance in ten dimensions needs thousands
POINTS_EACH, LEAST_POINTS, MAX_POINTS = 300, 1_000, 3_000
#: steps of expectation-maximisation, and the most components
EM_STEPS = 15
MAX_COMPONENTS = 8
#: distinct points that a component's parameter needs: fewer, and a component fits accidents of the archive
POINTS_PER_PARAMETER = 2.0
#: an archive's distinct points are correlated: this share counts as independent
INDEPENDENT_SHARE = 0.4
#: a broad component for what the fit has missed: its weight, and its scale next to the whole archive's
DEFENSIVE_WEIGHT = 0.1
DEFENSIVE_SCALE = 2.0
#: the least scale next to the whole archive's
RIDGE = 1e-4


@dataclass(frozen=True)
class Mixture:
    """Components with the Cholesky factors of their scale matrices, as the kernel wants them.

    Attributes
    ----------
    weights : (2, n_components) array
        Cumulative weights; heights, the largest 1.
    means : (n_components, n_params) array
        Centres.
    factors : (2, n_components, n_params, n_params) array
        Lower Cholesky factors of the scale matrices, and their inverses.
    """

    weights: Floats
    means: Floats
    factors: Floats

    @property
    def n_components(self) -> int:
        """Components, the defensive one included."""
        return len(self.means)


def no_mixture(n_params: int) -> Mixture:
    """Return one component that is never used, so that the kernel always has one."""
    unit = np.eye(n_params)[np.newaxis]
    return Mixture(np.ones((2, 1)), np.zeros((1, n_params)), np.stack([unit, unit]))


def fit_mixture(points: Floats, generator: Generator) -> Mixture | None:
    """Describe points by Gaussian components, their number by BIC, and make t distributions of them.

    Parameters
    ----------
    points : (n_points, n_params) array
        The archive, in the order in which it grew.
    generator : numpy.random.Generator
        Chooses where components begin.

    Returns
    -------
    Mixture or None
        None when the points are too few, or lie in a plane.

    References
    ----------
    P. Giordani, R. Kohn (2010), J. Comput. Graph. Stat. 19, 243: adaptive independence proposals of this kind.
    G. Schwarz (1978), Annals of Statistics 6, 461.
    """
    n_params = points.shape[1]
    n_points = min(MAX_POINTS, max(LEAST_POINTS, POINTS_EACH * n_params))
    points = points[:: max(1, -(-len(points) // n_points))]
    n_distinct = len(np.unique(points[:, 0]))
    n_free = 1 + n_params + n_params * (n_params + 1) // 2
    most = min(MAX_COMPONENTS, int(n_distinct / (POINTS_PER_PARAMETER * n_free)))
    scale = points.std(axis=0)
    if most < 1 or not (scale > 0).all():
        return None
    centre = points.mean(axis=0)
    standard = (points - centre) / scale
    weights, means, covs = _best(standard, most, n_distinct * INDEPENDENT_SHARE, n_free, generator)
    weights = np.append(weights * (1 - DEFENSIVE_WEIGHT), DEFENSIVE_WEIGHT)
    means = np.vstack([means, np.zeros(n_params)])
    covs = np.concatenate([covs, DEFENSIVE_SCALE**2 * _covariance(standard)[np.newaxis]])
    factors = cholesky(covs)
    inverses = _inverse(factors)
    log_peaks = np.log(weights) - np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
    return Mixture(
        weights=np.stack([np.cumsum(weights), np.exp(log_peaks - log_peaks.max())]),
        means=means * scale + centre,
        factors=np.stack([factors * scale[:, np.newaxis], inverses / scale]),
    )


def _best(
    points: Floats, most: int, n_effective: float, n_free: int, generator: Generator
) -> tuple[Floats, Floats, Floats]:
    """Try one component, then more, until two more in a row are no better; return weights, means, covariances."""
    best, best_score, misses = None, -np.inf, 0
    for n_components in range(1, most + 1):
        found, log_likelihood = _em(points, n_components, generator)
        score = log_likelihood * n_effective - 0.5 * n_components * n_free * np.log(max(n_effective, 2.0))
        if score > best_score:
            best, best_score, misses = found, score, 0
        else:
            misses += 1
        if misses == 2:
            break
    assert best is not None
    return best


def _em(points: Floats, n_components: int, generator: Generator) -> tuple[tuple[Floats, Floats, Floats], float]:
    """Fit by expectation-maximisation from spread-out centres; return the fit and the mean log-likelihood."""
    shares = np.ascontiguousarray(_nearest(points, _spread_centres(points, n_components, generator)).T)
    rows, columns = np.tril_indices(points.shape[1])
    # moments are sums over these, and log-densities are linear in them: (n_features, n_points)
    features = np.vstack([np.ones(len(points)), points.T, points.T[rows] * points.T[columns]])
    mean_log_likelihood = -np.inf
    for _ in range(EM_STEPS if n_components > 1 else 1):
        weights, means, covs = _maximise(shares, features, rows, columns)
        logs = _log_densities(weights, means, covs, features, rows, columns)
        top = logs.max(axis=0)
        shares = np.exp(logs - top)
        sums = shares.sum(axis=0)
        shares /= sums
        before, mean_log_likelihood = mean_log_likelihood, float((top + np.log(sums)).mean())
        if mean_log_likelihood - before < 1e-3:
            break
    return (weights, means, covs), mean_log_likelihood


def _maximise(shares: Floats, features: Floats, rows: Indices, columns: Indices) -> tuple[Floats, Floats, Floats]:
    """Return weights, means and covariances for (n_components, n_points) shares."""
    n_params = int(rows[-1]) + 1
    moments = np.einsum("kn,fn->kf", shares, features)
    totals = moments[:, 0] + 1e-10
    means = moments[:, 1 : n_params + 1] / totals[:, np.newaxis]
    covs = np.empty((len(shares), n_params, n_params))
    below = moments[:, n_params + 1 :] / totals[:, np.newaxis] - means[:, rows] * means[:, columns]
    covs[:, rows, columns] = covs[:, columns, rows] = below
    # rounding may leave less than nothing of a component that holds (nearly) one point
    diagonal = np.arange(n_params)
    covs[:, diagonal, diagonal] = np.maximum(covs[:, diagonal, diagonal], 0.0) + RIDGE
    return totals / totals.sum(), means, covs


def _log_densities(
    weights: Floats, means: Floats, covs: Floats, features: Floats, rows: Indices, columns: Indices
) -> Floats:
    """Return each component's weighted log-density up to a constant, (n_components, n_points)."""
    factors = cholesky(covs)
    inverses = _inverse(factors)
    precisions = np.einsum("kji,kjl->kil", inverses, inverses)
    shifts = np.einsum("kij,kj->ki", precisions, means)
    log_dets = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
    constants = np.log(weights) - log_dets - 0.5 * (shifts * means).sum(axis=1)
    twice = np.where(rows == columns, 0.5, 1.0)
    slopes = np.column_stack([constants, shifts, -twice * precisions[:, rows, columns]])
    logs = np.zeros((len(weights), features.shape[1]))
    for slope, feature in zip(slopes.T, features, strict=True):
        logs += slope[:, np.newaxis] * feature
    return logs


def _spread_centres(points: Floats, count: int, generator: Generator) -> Floats:
    """Choose points far from each other (k-means++), of a few tries for each the one that helps most."""
    chosen = [points[int(generator.random() * len(points))]]
    nearest = ((points - chosen[0]) ** 2).sum(axis=1)
    for _ in range(count - 1):
        edges = np.cumsum(nearest)
        tries = np.searchsorted(edges, generator.random(3) * edges[-1]).clip(max=len(points) - 1)
        options = [np.minimum(nearest, ((points - points[i]) ** 2).sum(axis=1)) for i in tries]
        best = int(np.argmin([option.sum() for option in options]))
        chosen.append(points[tries[best]])
        nearest = options[best]
    return np.array(chosen)


def _nearest(points: Floats, centres: Floats) -> Floats:
    """Return (n_points, n_centres): 1 for each point's nearest centre after a few steps of k-means, else 0."""
    for _ in range(4):
        squares = ((points[:, np.newaxis] - centres) ** 2).sum(axis=2)
        shares = np.zeros_like(squares)
        shares[np.arange(len(points)), squares.argmin(axis=1)] = 1.0
        centres = np.einsum("nk,nd->kd", shares, points) / (shares.sum(axis=0)[:, np.newaxis] + 1e-10)
    return shares


def _covariance(points: Floats) -> Floats:
    offsets = points - points.mean(axis=0)
    product: Floats = np.einsum("ni,nj->ij", offsets, offsets) / len(points)
    return product + RIDGE * np.eye(points.shape[1])


def cholesky(covs: Floats) -> Floats:
    """Return lower Cholesky factors of (n, d, d) matrices, which must be positive definite."""
    factors = np.zeros_like(covs)
    for j in range(covs.shape[1]):
        row = factors[:, j, :j]
        factors[:, j, j] = np.sqrt(covs[:, j, j] - (row * row).sum(axis=1))
        below = covs[:, j + 1 :, j] - (factors[:, j + 1 :, :j] * row[:, np.newaxis]).sum(axis=2)
        factors[:, j + 1 :, j] = below / factors[:, j, j, np.newaxis]
    return factors


def _inverse(factors: Floats) -> Floats:
    """Return the inverses of (n, d, d) lower triangular matrices."""
    inverses = np.zeros_like(factors)
    for i in range(factors.shape[1]):
        inverses[:, i, i] = 1.0
        inverses[:, i] -= (factors[:, i, :i, np.newaxis] * inverses[:, :i]).sum(axis=1)
        inverses[:, i] /= factors[:, i, i, np.newaxis]
    return inverses
