"""Maximum likelihood on transformed parameters, by quasi-Newton steps with central differences.

The parameters are moved to the whole line (squares for one bound, a bounded curve for two), so that every step is a
model. Reference: Harvey (1989), section 3.4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from pxtools.errors import PxUsageError
from pxtools.kalman.checks import Array
from pxtools.kalman.filtering import run_form
from pxtools.kalman.fitting.fit import Fit, count_values
from pxtools.kalman.fitting.until import Until
from pxtools.kalman.parameters import FreeModel, variance_scale
from pxtools.kalman.system import system_of

MAX_ITERATIONS = 500

#: step of central differences on the line, where one is a large change
STEP = 6e-6


class Problem(NamedTuple):
    """What one start needs, all of it picklable if the model is."""

    model: FreeModel
    values: Array
    units: Array
    form: str

    def parameters(self, places: Array) -> dict[str, float]:
        """Return the parameters that belong to places on the line."""
        marks = self.model.parameters.items()
        return {name: m.from_line(p, u) for (name, m), p, u in zip(marks, places, self.units, strict=True)}

    def log_likelihood(self, places: Array) -> float:
        """Return the log-likelihood, minus infinity where there is no model."""
        try:
            with np.errstate(all="ignore"):
                model = self.model.at(self.parameters(places))
                _, filtered = run_form(system_of(model, *self.values.shape[:2]), self.values, self.form)
        except (PxUsageError, np.linalg.LinAlgError):
            return -np.inf
        total = float(filtered.log_likelihood.sum())
        return total if np.isfinite(total) else -np.inf

    def gradient(self, places: Array) -> Array:
        """Return the gradient of the log-likelihood by central differences."""
        steps = STEP * np.maximum(1.0, np.abs(places))
        gradient = np.zeros(len(places))
        for i, step in enumerate(steps):
            ahead, behind = places.copy(), places.copy()
            ahead[i] += step
            behind[i] -= step
            rise = self.log_likelihood(ahead) - self.log_likelihood(behind)
            gradient[i] = rise / (2 * step) if np.isfinite(rise) else 0.0
        return gradient


class Climb(NamedTuple):
    """Where one start ended."""

    log_likelihood: float
    places: Array
    path: tuple[float, ...]
    has_converged: bool
    message: str


def fit_ml(
    model: FreeModel,
    values: Array,
    until: Until,
    starts: int,
    seed: int,
    form: str,
    map: Callable[..., Iterable[Any]],
) -> Fit:
    """Climb from every start and keep the highest: see `fit_model`."""
    if starts < 1:
        raise PxUsageError(f"`starts` is {starts}; at least one start is needed.")
    scale = variance_scale(values)
    first = model.start(scale)
    units = np.array([_unit(mark.lower, mark.upper, first[name], scale) for name, mark in model.parameters.items()])
    problem = Problem(model, values, units, form)
    place = np.array([m.to_line(first[name], u) for (name, m), u in zip(model.parameters.items(), units, strict=True)])
    places = [place, *(place + _shift(seed, k, len(place)) for k in range(1, starts))]
    climbs = list(map(climb, [problem] * starts, places, [until] * starts))
    best = max(climbs, key=lambda one: one.log_likelihood)
    if not np.isfinite(best.log_likelihood):
        _raise_without_start(model, first)
    return _fit(problem, best)


def _unit(lower: float, upper: float, start: float, scale: float) -> float:
    if np.isfinite(lower) != np.isfinite(upper):
        gap = start - lower if np.isfinite(lower) else upper - start
        return gap if gap > 0 else scale
    return max(1.0, abs(start))


def _shift(seed: int, start: int, size: int) -> Array:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(start,))).normal(size=size)


def _raise_without_start(model: FreeModel, first: dict[str, float]) -> None:
    told = ", ".join(f"{name}={value:.4g}" for name, value in first.items())
    try:
        model.at(first)
        reason = "The log-likelihood is not finite there."
    except PxUsageError as error:
        reason = str(error).splitlines()[0]
    raise PxUsageError(
        f"No start has a finite log-likelihood; the first was {told}.\n{reason}\nGive other starts: free(1.0, …)."
    )


def climb(problem: Problem, places: Array, until: Until) -> Climb:
    """Climb the log-likelihood from one start, by BFGS; runs anywhere."""
    from scipy.optimize import minimize

    per_value = 1.0 / count_values(problem.values)
    start = problem.log_likelihood(places)
    if not np.isfinite(start):
        return Climb(start, places, (start,), False, "the start has no finite log-likelihood")
    path, gradient_goal, gain_goal = [start], until.goal("gradient", 1e-7), until.goals.get("gain")
    reason = until.limit_reached(0, MAX_ITERATIONS)
    last_places, last_value = places, start

    def objective(place: Array) -> float:
        value = problem.log_likelihood(place)
        # a finite wall: line searches cannot interpolate an infinite one
        return -per_value * value if np.isfinite(value) else per_value * abs(start) + 1e3

    def after_step(intermediate_result: Any) -> None:
        nonlocal reason, last_places, last_value
        path.append(float(-intermediate_result.fun / per_value))
        last_places, last_value = np.array(intermediate_result.x), path[-1]
        if gain_goal is not None and path[-1] - path[-2] < gain_goal:
            reason = f"the last iteration gained less than {gain_goal:g}"
        reason = reason or until.limit_reached(len(path) - 1, MAX_ITERATIONS)
        if reason:
            raise StopIteration

    if reason:
        return Climb(start, places, tuple(path), False, reason)
    end = minimize(
        objective,
        places,
        jac=lambda place: -per_value * problem.gradient(place),
        method="BFGS",
        callback=after_step,
        options={"gtol": gradient_goal, "maxiter": 10 * MAX_ITERATIONS},
    )
    if not reason and -end.fun / per_value >= last_value:
        last_places, last_value = end.x, float(-end.fun / per_value)
    # BFGS calls it a loss of precision when the line search can gain no more: at a maximum that is convergence
    is_flat = end.status == 2 and np.abs(end.jac).max() < 1e-4
    converged = bool(end.success or is_flat) if not reason else "gained" in reason
    message = reason or ("converged" if converged else f"not converged: {end.message}")
    return Climb(last_value, last_places, tuple(path), converged, message)


def _fit(problem: Problem, best: Climb) -> Fit:
    values = problem.parameters(best.places)
    errors = _standard_errors(problem, best.places)
    return Fit(
        model=problem.model.at(values),
        method="ml",
        values=values,
        standard_errors=dict(zip(values, errors, strict=True)),
        log_likelihood=best.log_likelihood,
        path=best.path,
        has_converged=best.has_converged,
        message=best.message,
        n_values=count_values(problem.values),
    )


def _standard_errors(problem: Problem, places: Array) -> list[float]:
    """Invert the observed information on the line and carry it to the parameters; NaN where it is not positive."""
    k = len(places)
    marks = list(problem.model.parameters.values())
    slopes = np.array([m.slope(p, u) for m, p, u in zip(marks, places, problem.units, strict=True)])
    steps = 1e-3 * np.maximum(0.1, np.abs(places))
    top = problem.log_likelihood(places)
    information = np.full((k, k), np.nan)
    for i in range(k):
        for j in range(i + 1):
            information[i, j] = information[j, i] = -_second(problem, places, steps, i, j, top)
    # a variance of zero lies on its bound, where the log-likelihood has no quadratic top
    inner = np.array(
        [np.isfinite(information[i, i]) and information[i, i] > 0 and abs(slopes[i]) > 1e-6 for i in range(k)]
    )
    errors = np.full(k, np.nan)
    block = information[np.ix_(inner, inner)]
    if inner.any() and np.isfinite(block).all() and np.linalg.eigvalsh(block)[0] > 0:
        errors[inner] = np.sqrt(np.diagonal(np.linalg.inv(block))) * np.abs(slopes[inner])
    return [float(error) for error in errors]


def _second(problem: Problem, places: Array, steps: Array, i: int, j: int, top: float) -> float:
    def at(*moves: tuple[int, int]) -> float:
        place = places.copy()
        for which, sign in moves:
            place[which] += sign * steps[which]
        return problem.log_likelihood(place)

    if i == j:
        return float((at((i, 1)) - 2 * top + at((i, -1))) / steps[i] ** 2)
    corners = at((i, 1), (j, 1)) - at((i, 1), (j, -1)) - at((i, -1), (j, 1)) + at((i, -1), (j, -1))
    return float(corners / (4 * steps[i] * steps[j]))
