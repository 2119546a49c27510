"""A statsmodels state-space model as ours. statsmodels itself is never imported here."""

from __future__ import annotations

from typing import Any

import numpy as np

from pxtools.errors import PxUsageError
from pxtools.kalman.checks import Array
from pxtools.kalman.model import StateSpaceModel


def from_statsmodels(model: Any, params: Any = None) -> StateSpaceModel:
    """Return a statsmodels state-space model (SARIMAX, UnobservedComponents, …) as a `StateSpaceModel`.

    Parameters
    ----------
    model : MLEModel, its results, or Representation
        A results object brings its fitted parameters along.
    params : array_like, optional
        Parameters to set first; needed for a model that was not fitted.

    Returns
    -------
    StateSpaceModel

    Raises
    ------
    PxUsageError
        Something else than a statsmodels state-space model, or one without parameters, scale or initial state.

    Notes
    -----
    The initial state is taken over as it is: known, stationary (as its moments), exact diffuse or approximate diffuse.
    statsmodels drops the first `loglikelihood_burn` terms of a log-likelihood; `FilterResult.log_likelihood` has all.
    """
    scale = None
    if hasattr(model, "params") and hasattr(model, "model"):
        scale = getattr(model, "scale", None) if params is None else None
        params = model.params if params is None else params
        model = model.model
    if params is not None and hasattr(model, "update"):
        model.update(np.asarray(params, dtype=float))
    representation = getattr(model, "ssm", model)
    if not all(hasattr(representation, name) for name in ("design", "transition", "state_cov", "initialization")):
        raise PxUsageError(
            f"`from_statsmodels` takes a statsmodels state-space model or its results, not a {type(model).__name__}."
        )
    parts: dict[str, Any] = {ours: _leading_time(representation, theirs) for ours, theirs in NAMES.items()}
    if not all(np.isfinite(part).all() for part in parts.values()):
        raise PxUsageError("The statsmodels model has no parameters yet.\nPass its results, or `params=`.")
    mean, cov, kinds = _initial(representation)
    if getattr(representation, "filter_concentrated", False):
        if scale is None:
            raise PxUsageError(
                "The statsmodels model leaves its scale out of its parameters (concentrate_scale=True).\n"
                "Pass its results, `from_statsmodels(results)`, which hold the scale."
            )
        parts["process_cov"], parts["observation_cov"] = scale * parts["process_cov"], scale * parts["observation_cov"]
        cov = scale * cov
    names = getattr(model, "state_names", None)
    return StateSpaceModel(
        **parts,
        initial_mean=mean,
        initial_cov=cov,
        initial=kinds,
        state_names=names if names is not None and len(names) == parts["transition_matrix"].shape[-1] else None,
    )


NAMES = {
    "transition_matrix": "transition",
    "observation_matrix": "design",
    "process_cov": "state_cov",
    "observation_cov": "obs_cov",
    "selection_matrix": "selection",
    "transition_intercept": "state_intercept",
    "observation_intercept": "obs_intercept",
}


def _leading_time(representation: Any, name: str) -> Array:
    """Their time axis is the last one; ours is the first, and absent when nothing changes."""
    array = np.moveaxis(np.asarray(getattr(representation, name), dtype=float), -1, 0)
    return np.ascontiguousarray(array[0] if len(array) == 1 else array)


def _initial(representation: Any) -> tuple[Array, Array, list[str]]:
    initialization = representation.initialization
    if initialization is None:
        raise PxUsageError(
            "The statsmodels model has no initial state.\nCall one of its `ssm.initialize_…` methods first."
        )
    n = representation.k_states
    mean, wide, cov = initialization(model=representation)
    kinds = ["diffuse" if wide[i, i] > 0 else "known" for i in range(n)]
    return np.asarray(mean, dtype=float), np.asarray(cov, dtype=float), kinds
