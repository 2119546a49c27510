"""Maximum likelihood on transformed parameters, by a Newton step and quasi-Newton ones along the exact score.

References: Harvey (1989), section 3.4; Koopman & Shephard (1992).
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from pxtools.errors import PxUsageError
from pxtools.kalman.checks import Array
from pxtools.kalman.fitting.fit import Fit, count_values
from pxtools.kalman.fitting.problem import Problem
from pxtools.kalman.fitting.template import Template, asides
from pxtools.kalman.fitting.until import Until
from pxtools.kalman.model import StateSpaceModel
from pxtools.kalman.observations import likely_series, read_observations
from pxtools.kalman.parameters import FreeModel, variance_scale
from pxtools.kernels.kalman_climb import Place, ascend, slopes_on_line

MAX_ITERATIONS = 500


class Climb(NamedTuple):
    """Where one start ended."""

    log_likelihood: float
    places: Array
    gradient: Array
    path: tuple[float, ...]
    has_converged: bool
    message: str


def fit_ml(
    model: FreeModel,
    observations: Any,
    until: Until,
    starts: int,
    seed: int,
    form: str,
    map: Callable[..., Iterable[Any]],
) -> Fit:
    """Climb from every start and keep the highest: see `fit_model`."""
    if starts < 1:
        raise PxUsageError(f"`starts` is {starts}; at least one start is needed.")
    problem, place = start_of(model, observations, form)
    if map is builtins.map:
        problem = problem.ready()  # one start after another: they can share the working memory
    places = [place, *(place + _shift(seed, k, len(place)) for k in range(1, starts))]
    best = _highest(problem, places, until, map)
    if not np.isfinite(best.log_likelihood):
        _raise_without_start(model, problem.named(place))
    fitted = model.at(problem.named(best.places))
    if problem.template is not None and not problem.template.agrees(
        problem.parameters(best.places), fitted, problem.values.shape[1]
    ):
        # affine around the start only: every point has to be built after all
        problem = problem._replace(template=None, likelihood=None, constant=0.0)
        best = _highest(problem, places, until, map)
        fitted = model.at(problem.named(best.places))
    return _fit(problem, best, fitted)


def start_of(model: FreeModel, observations: Any, form: str = "auto") -> tuple[Problem, Array]:
    """Return the problem of a fit, and the place on the line where it starts."""
    # a model tells how observations are to be read, and is built on their scale: nearly always their shape tells alone
    likely = likely_series(observations)
    start = Start.of(model, variance_scale(likely))
    near = start.near(model)
    values = read_observations(observations, near or start.built(model)).values
    if values.shape != likely.shape:
        start = Start.of(model, variance_scale(values))
        near = start.near(model)
    template = None
    if near is not None:
        template = Template.of(model, start.parameters, start.reach, near, values.shape[1], form)
    return Problem(model, values, count_values(values), start.bounds, form, template), start.place


class Start(NamedTuple):
    """Where a fit starts: the parameters, their line (see `from_line`), and their place on it."""

    parameters: Array
    bounds: Array
    place: Array

    @classmethod
    def of(cls, model: FreeModel, scale: float) -> Start:
        """Return the start of a model whose observations have a variance of this scale."""
        first, marks = model.start(scale), model.parameters
        lines = [(m.lower, m.upper, _unit(m.lower, m.upper, first[name], scale)) for name, m in marks.items()]
        places = [m.to_line(first[name], line[2]) for (name, m), line in zip(marks.items(), lines, strict=True)]
        return cls(np.array([*first.values()]), np.array(lines).T.copy(), np.array(places))

    @property
    def reach(self) -> Array:
        """Distances at which a model is built to see how its arrays move: inside the bounds, and of their size."""
        distances = []
        for start, lower, upper, unit in zip(self.parameters.tolist(), *self.bounds.tolist(), strict=True):
            if math.isfinite(upper):
                distances.append((upper - start) / 2 if math.isfinite(lower) else -unit)
            else:
                distances.append(unit if math.isfinite(lower) else unit / 10)
        return np.array(distances)

    def built(self, model: FreeModel) -> StateSpaceModel:
        """Return the model at the start."""
        return model.at(dict(zip(model.names, self.parameters.tolist(), strict=True)))

    def near(self, model: FreeModel) -> StateSpaceModel | None:
        """Return the model near the start, None if there is none."""
        try:
            return self._replace(parameters=asides(self.parameters, self.reach)[0]).built(model)
        except (PxUsageError, np.linalg.LinAlgError):
            return None


def _highest(problem: Problem, places: list[Array], until: Until, map: Callable[..., Iterable[Any]]) -> Climb:
    climbs = list(map(climb, [problem] * len(places), places, [until] * len(places)))
    return max(climbs, key=lambda one: one.log_likelihood)


def _unit(lower: float, upper: float, start: float, scale: float) -> float:
    if math.isfinite(lower) != math.isfinite(upper):
        gap = start - lower if math.isfinite(lower) else upper - start
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
    problem, n_values = problem.ready(), problem.n_values
    hill = problem.hill()
    start = problem.start(hill, places)
    path = [n_values * start.height]
    if not np.isfinite(start.height):
        return Climb(start.height, places, start.gradient, tuple(path), False, "the start has no finite log-likelihood")
    gain_goal, reason = until.goals.get("gain"), until.limit_reached(0, MAX_ITERATIONS)

    def after_step(place: Place) -> bool:
        nonlocal reason
        path.append(n_values * place.height)
        if gain_goal is not None and path[-1] - path[-2] < gain_goal:
            reason = f"the last iteration gained less than {gain_goal:g}"
        reason = reason or until.limit_reached(len(path) - 1, MAX_ITERATIONS)
        return bool(reason)

    if reason:
        return Climb(path[0], start.at, start.gradient, tuple(path), False, reason)
    end, how = ascend(hill, start, until.goal("gradient", 1e-7), after_step)
    # at a maximum, round-off leaves nothing to gain before the gradient is as small as was asked for
    is_flat = how == "flat" or (how == "stuck" and np.abs(end.gradient).max() < 1e-4)
    message = reason or ("converged" if is_flat else "not converged: no step gains any more")
    return Climb(path[-1], end.at, end.gradient, tuple(path), "gained" in reason if reason else is_flat, message)


def _fit(problem: Problem, best: Climb, fitted: StateSpaceModel) -> Fit:
    values = problem.named(best.places)
    errors = _standard_errors(
        problem.ready(), Place(best.places, best.log_likelihood / problem.n_values, best.gradient)
    )
    return Fit(
        model=fitted,
        method="ml",
        values=values,
        standard_errors=dict(zip(values, errors, strict=True)),
        log_likelihood=best.log_likelihood,
        path=best.path,
        has_converged=best.has_converged,
        message=best.message,
        n_values=problem.n_values,
    )


def _standard_errors(problem: Problem, end: Place) -> list[float]:
    """Invert the observed information on the line and carry it to the parameters; NaN where it is not positive."""
    k, slopes = len(end.at), slopes_on_line(end.at, problem.bounds)
    if problem.likelihood is not None and problem.likelihood.is_exact:
        information = problem.n_values * problem.hill().bends(end)
    else:
        information = -_curvature(problem, end.at, 1e-3 * np.maximum(0.1, np.abs(end.at)))
    # a variance of zero lies on its bound, where the log-likelihood has no quadratic top
    inner = np.isfinite(information.diagonal()) & (information.diagonal() > 0)
    inner &= np.abs(slopes) > 1e-6 * problem.bounds[2]
    errors = np.full(k, np.nan)
    block = information if inner.all() else information[np.ix_(inner, inner)]
    if inner.any() and np.isfinite(block).all():
        sizes, axes = np.linalg.eigh(block)
        if sizes[0] > 0:
            errors[inner] = np.sqrt((axes * axes / sizes).sum(axis=1)) * np.abs(slopes[inner])
    return errors.tolist()


def _curvature(problem: Problem, places: Array, steps: Array) -> Array:
    """Second derivatives by differences: `f(+i) - 2 f + f(-i)`, and for pairs the four corners."""
    moves, k = np.diag(steps), len(places)
    pairs = [(i, j) for i in range(k) for j in range(i)]
    corners = [moves[i] * a + moves[j] * b for i, j in pairs for a, b in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
    heights = problem.log_likelihoods(places + np.array([0 * steps, *moves, *-moves, *corners]))
    curvature = np.diag((heights[1 : k + 1] - 2 * heights[0] + heights[k + 1 : 2 * k + 1]) / steps**2)
    for (i, j), four in zip(pairs, heights[2 * k + 1 :].reshape(-1, 4), strict=True):
        curvature[i, j] = curvature[j, i] = (four @ [1, -1, -1, 1]) / (4 * steps[i] * steps[j])
    return curvature
