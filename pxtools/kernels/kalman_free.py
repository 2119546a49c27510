"""The log-likelihood of models with free parameters, of the best tier there is."""

from __future__ import annotations

from pxtools.kernels import kalman_free_numpy

try:
    from pxtools.kernels._kalman_free import Likelihood, settled
except ImportError:  # not compiled here, or shipped to an engine as source
    Likelihood = kalman_free_numpy.Likelihood  # type: ignore[misc, assignment]
    settled = kalman_free_numpy.settled

__all__ = ["Likelihood", "settled"]
