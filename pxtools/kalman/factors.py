"""Factors of covariance matrices."""

from __future__ import annotations

import numpy as np

from pxtools.kalman.checks import Array

#: times the number of states: an eigenvalue of a correlation matrix below this is round-off
NO_EIGENVALUE = 16 * np.finfo(float).eps

#: a variance below this, among the last numbers there are, has no digits
VANISHED = 1e-290


def factors(covs: Array) -> Array:
    """Return A with `A A' = cov` for positive semi-definite matrices `(k, n, n)`.

    Directions without variance have none in A either: the root of a variance that is round-off, 1e-16, would be a
    standard deviation of 1e-8.
    """
    diagonal = np.einsum("kii->ki", covs)
    scale = np.sqrt(np.where(diagonal > VANISHED, diagonal, 0.0))[:, :, None]
    n = covs.shape[1]
    if np.count_nonzero(covs) == np.count_nonzero(diagonal):
        halves: Array = scale * np.eye(n)
        return halves
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    correlations = inverse * covs * inverse.swapaxes(1, 2)
    try:
        roots = np.linalg.cholesky(correlations)
        if np.einsum("kii->ki", roots).min() ** 2 > n * NO_EIGENVALUE:
            return np.asarray(scale * roots)
    except np.linalg.LinAlgError:
        pass
    values, vectors = np.linalg.eigh(correlations)
    values = np.where(values > n * NO_EIGENVALUE, values, 0.0)
    return np.asarray(scale * vectors * np.sqrt(values)[:, None, :])
