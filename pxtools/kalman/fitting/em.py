"""Expectation-maximisation of whole matrices: no gradient, every iteration gains log-likelihood.

References: Shumway & Stoffer (1982), An approach to time series smoothing and forecasting using the EM algorithm;
Ghahramani & Hinton (1996), Parameter estimation for linear dynamical systems; Durbin & Koopman (2012), section 7.3.4.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from pxtools.errors import PxUsageError, nearest
from pxtools.kalman.checks import Array
from pxtools.kalman.fitting.fit import Fit, count_values
from pxtools.kalman.fitting.until import Until
from pxtools.kalman.model import StateSpaceModel
from pxtools.kalman.moments import missing_weights
from pxtools.kalman.observations import Observed
from pxtools.kalman.results import FilterResult

DEFAULT = ("process_cov", "observation_cov", "initial_mean", "initial_cov")
MATRICES = ("transition_matrix", "observation_matrix", *DEFAULT)
MAX_ITERATIONS = 200


class Expected(NamedTuple):
    """Moments given all observations, (n_series, n_steps, …)."""

    mean: Array
    cov: Array
    lag: Array
    noise: Array
    """E[e[t] e[t]'], over the rows with any observation"""
    noise_state: Array
    """E[e[t] x[t]']"""
    observed: Any
    """whether a row has any observation"""


def fit_em(model: StateSpaceModel, values: Array, until: Until, matrices: Iterable[str] | None, form: str) -> Fit:
    """Run EM from the model's own matrices: see `fit_model`."""
    chosen = _checked(model, tuple(DEFAULT if matrices is None else matrices), matrices is None)
    goal, path = until.goal("gain", 1e-6), []
    while True:
        result = _filtered(model, values, form)
        path.append(float(result.filtered.log_likelihood.sum()))
        reason = until.limit_reached(len(path) - 1, MAX_ITERATIONS)
        has_converged = len(path) > 1 and path[-1] - path[-2] < goal
        if has_converged or reason:
            break
        model = maximised(model, values, expected(result), chosen)
    return Fit(
        model=model,
        method="em",
        values={},
        standard_errors={},
        log_likelihood=path[-1],
        path=tuple(path),
        has_converged=has_converged,
        message="converged" if has_converged else reason,
        n_values=count_values(values),
    )


def _filtered(model: StateSpaceModel, values: Array, form: str) -> FilterResult:
    from pxtools.kalman.filtering import run_form
    from pxtools.kalman.system import system_of

    used, filtered = run_form(system_of(model, *values.shape[:2]), values, form)
    return FilterResult(model, Observed(values, None, None, True), filtered, used)


def _checked(model: StateSpaceModel, chosen: tuple[str, ...], is_default: bool) -> tuple[str, ...]:
    for name in chosen:
        if name not in MATRICES:
            raise PxUsageError(f"EM cannot fit `{name}`; it fits {', '.join(MATRICES)}.{nearest(name, MATRICES)}")
    wide = [kind != "known" for kind in model.initial or ()]
    if any(wide):
        if not is_default and {"initial_mean", "initial_cov"} & set(chosen):
            raise PxUsageError(
                "EM fits `initial_mean` and `initial_cov` of a known initial state only.\n"
                "Give the model starting values for both, or leave them out of em_matrices."
            )
        chosen = tuple(name for name in chosen if not name.startswith("initial"))
    for name in chosen:
        if not name.startswith("initial") and getattr(model, name).ndim > 2:
            raise PxUsageError(f"`{name}` changes with time; EM fits constant matrices only.")
    if "transition_matrix" in chosen and not np.array_equal(model.parts["G"][0], np.eye(model.n_states)):
        raise PxUsageError("EM fits `transition_matrix` only in models without a selection_matrix.")
    return chosen


def expected(result: FilterResult) -> Expected:
    """The E step: moments of states and noises given all observations."""
    mean, cov = result.smoothed.mean, result.smoothed.cov
    H, R = result.model.parts["H"], result.model.parts["R"]
    y = result.observed.values
    here = ~np.isnan(y)
    e, spread = result.observation_disturbance, result.observation_disturbance_cov
    B, _ = missing_weights(R, here)
    # e = y - d - H x where observed, hence Cov(e, x) = -H Cov(x)
    cross = B @ np.where(here[..., None], -(H @ cov), 0.0)
    return Expected(
        mean,
        cov,
        result.smoothed_lag_one_cov,
        e[..., :, None] * e[..., None, :] + spread,
        e[..., :, None] * mean[..., None, :] + cross,
        here.any(axis=2),
    )


def maximised(model: StateSpaceModel, values: Array, ex: Expected, chosen: tuple[str, ...]) -> StateSpaceModel:
    """The M step: the matrices that make the expected log-likelihood greatest."""
    changes: dict[str, Any] = {}
    if "observation_matrix" in chosen or "observation_cov" in chosen:
        changes.update(_observation(model, ex, chosen))
    if "transition_matrix" in chosen or "process_cov" in chosen:
        changes.update(_transition(model, ex, chosen))
    start = ex.mean[:, 0].mean(axis=0)
    if "initial_mean" in chosen:
        changes["initial_mean"] = start
    if "initial_cov" in chosen:
        centre = start if "initial_mean" in chosen else model.initial_state.mean
        apart = ex.mean[:, 0] - centre
        changes["initial_cov"] = ex.cov[:, 0].mean(axis=0) + apart.T @ apart / len(apart)
    return model.replace(**{name: _covariance(name, value) for name, value in changes.items()})


def _covariance(name: str, value: Array) -> Array:
    return (value + value.T) / 2 if name.endswith("cov") else value


def _observation(model: StateSpaceModel, ex: Expected, chosen: tuple[str, ...]) -> dict[str, Array]:
    """H and R from e = y - d - H x: with E[e e'], E[e x'] at the old H, the new one follows from its change."""
    rows = ex.observed
    count = np.count_nonzero(rows)
    noise, changes = ex.noise[rows].sum(axis=0), {}
    if "observation_matrix" in chosen:
        states = (ex.cov[rows] + ex.mean[rows][:, :, None] * ex.mean[rows][:, None, :]).sum(axis=0)
        cross = ex.noise_state[rows].sum(axis=0)
        step = np.linalg.solve(states, cross.T).T
        changes["observation_matrix"] = model.parts["H"][0] + step
        noise = noise - step @ cross.T - cross @ step.T + step @ states @ step.T
    if "observation_cov" in chosen:
        changes["observation_cov"] = noise / count
    return changes


def _transition(model: StateSpaceModel, ex: Expected, chosen: tuple[str, ...]) -> dict[str, Array]:
    F, c, G = model.parts["F"], model.parts["c"], model.parts["G"]
    length = ex.mean.shape[1]
    F, c = (part[: length - 1] if len(part) > 1 else part for part in (F, c))
    before, after = ex.mean[:, :-1], ex.mean[:, 1:] - c
    old = (ex.cov[:, :-1] + before[..., :, None] * before[..., None, :]).sum(axis=(0, 1))
    cross = (ex.lag + after[..., :, None] * before[..., None, :]).sum(axis=(0, 1))
    new = (ex.cov[:, 1:] + after[..., :, None] * after[..., None, :]).sum(axis=(0, 1))
    changes: dict[str, Array] = {}
    if "transition_matrix" in chosen:
        F = np.linalg.solve(old, cross.T).T[None]
        changes["transition_matrix"] = F[0]
    if "process_cov" in chosen:
        if len(F) == 1:
            noise = new - F[0] @ cross.T - cross @ F[0].T + F[0] @ old @ F[0].T
        else:
            noise = _noise_of_changing(F, ex, before, after)
        left = np.linalg.pinv(G[0])
        changes["process_cov"] = left @ noise @ left.T / (len(ex.mean) * (length - 1))
    return changes


def _noise_of_changing(F: Array, ex: Expected, before: Array, after: Array) -> Array:
    apart = after - (F @ before[..., None])[..., 0]
    lag = ex.lag @ F.swapaxes(-1, -2)
    spread = ex.cov[:, 1:] - lag - lag.swapaxes(-1, -2) + F @ ex.cov[:, :-1] @ F.swapaxes(-1, -2)
    total: Array = (apart[..., :, None] * apart[..., None, :] + spread).sum(axis=(0, 1))
    return total
