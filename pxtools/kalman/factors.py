"""Factors of covariance matrices."""

from __future__ import annotations

import numpy as np

from pxtools.kalman.checks import Array


def factors(covs: Array) -> Array:
    """Return A with `A A' = cov` for positive semi-definite matrices `(k, n, n)`."""
    diagonal = np.einsum("kii->ki", covs)
    if np.count_nonzero(covs) == np.count_nonzero(diagonal):
        halves: Array = np.sqrt(np.maximum(diagonal, 0.0))[:, :, None] * np.eye(covs.shape[1])
        return halves
    try:
        return np.asarray(np.linalg.cholesky(covs), dtype=np.float64)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(covs)
        halves = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
        return halves
