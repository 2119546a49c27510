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
from pxtools.kalman.fitting.ascent import Place, ascend
from pxtools.kalman.fitting.fit import Fit, count_values
from pxtools.kalman.fitting.template import Template
from pxtools.kalman.fitting.until import Until
from pxtools.kalman.model import StateSpaceModel
from pxtools.kalman.parameters import FreeModel, variance_scale
from pxtools.kalman.system import system_of

MAX_ITERATIONS = 500

#: step of central differences on the line, where one is a large change
STEP = 6e-6

#: step of second differences, and the least curvature per observed value that is believed
WIDE, LEAST_BEND = 1e-2, 1e-3


class Problem(NamedTuple):
    """What one start needs, all of it picklable if the model is."""

    model: FreeModel
    values: Array
    units: Array
    form: str
    template: Template | None

    def parameters(self, places: Array) -> Array:
        """Return the parameters that belong to places on the line, `(…, n_params)`."""
        marks = self.model.parameters.values()
        columns = [m.from_line(p, u) for m, p, u in zip(marks, np.moveaxis(places, -1, 0), self.units, strict=True)]
        return np.stack(columns, axis=-1)

    def named(self, places: Array) -> dict[str, float]:
        """Return the parameters at one place by name."""
        return dict(zip(self.model.names, self.parameters(places).tolist(), strict=True))

    def log_likelihoods(self, places: Array) -> Array:
        """Return the log-likelihood at each place (n_places, n_params), minus infinity where there is no model."""
        with np.errstate(all="ignore"):
            if self.template is None:
                return np.array([self._built(place) for place in places])
            heights, doubtful = self.template.log_likelihoods(self.parameters(places), self.values)
            heights = np.where(np.isfinite(heights), heights, -np.inf)
            if self.form == "auto" and doubtful.any():
                heights[doubtful] = [self._built(place) for place in places[doubtful]]
            return heights

    def _built(self, place: Array) -> float:
        try:
            model = self.model.at(self.named(place))
            _, filtered = run_form(system_of(model, *self.values.shape[:2]), self.values, self.form)
        except (PxUsageError, np.linalg.LinAlgError):
            return -np.inf
        total = float(filtered.log_likelihood.sum())
        return total if np.isfinite(total) else -np.inf

    def height(self, point: Array) -> float:
        """Return the log-likelihood per observed value."""
        return float(self.log_likelihoods(point[None])[0]) / count_values(self.values)

    def gradient(self, point: Array) -> Array:
        """Return the gradient of the height by central differences."""
        moves = np.diag(STEP * np.maximum(1.0, np.abs(point)))
        ahead, behind = np.split(self.log_likelihoods(point + np.concatenate([moves, -moves])), 2)
        with np.errstate(invalid="ignore"):
            gradient = (ahead - behind) / (2 * np.diagonal(moves) * count_values(self.values))
        return np.where(np.isfinite(gradient), gradient, 0.0)

    def scale(self, place: Place) -> Array:
        """Return a guess of the inverse curvature along each axis; a first step is at most a half."""
        steps = WIDE * np.maximum(1.0, np.abs(place.at))
        moves = np.diag(steps)
        heights = self.log_likelihoods(place.at + np.concatenate([moves, -moves])) / count_values(self.values)
        with np.errstate(invalid="ignore"):
            bends = np.abs(heights[: len(steps)] - 2 * place.height + heights[len(steps) :]) / steps**2
        least = np.maximum(2 * np.abs(place.gradient), LEAST_BEND)
        return 1.0 / np.where(np.isfinite(bends), np.maximum(bends, least), np.maximum(least, 1.0))


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
    template = Template.of(model, np.array(list(first.values())), _reach(model, first, units), values, form)
    problem = Problem(model, values, units, form, template)
    place = np.array([m.to_line(first[name], u) for (name, m), u in zip(model.parameters.items(), units, strict=True)])
    places = [place, *(place + _shift(seed, k, len(place)) for k in range(1, starts))]
    best = _highest(problem, places, until, map)
    if not np.isfinite(best.log_likelihood):
        _raise_without_start(model, first)
    fitted = model.at(problem.named(best.places))
    if template is not None and not template.agrees(problem.parameters(best.places), fitted, values):
        # affine around the start only: every point has to be built after all
        problem = problem._replace(template=None)
        best = _highest(problem, places, until, map)
        fitted = model.at(problem.named(best.places))
    return _fit(problem, best, fitted)


def _highest(problem: Problem, places: list[Array], until: Until, map: Callable[..., Iterable[Any]]) -> Climb:
    climbs = list(map(climb, [problem] * len(places), places, [until] * len(places)))
    return max(climbs, key=lambda one: one.log_likelihood)


def _reach(model: FreeModel, first: dict[str, float], units: Array) -> Array:
    """Distances at which a model is built to see how its arrays move: inside the bounds, and of their size."""
    distances = []
    for (name, mark), unit in zip(model.parameters.items(), units, strict=True):
        if np.isfinite(mark.lower) and np.isfinite(mark.upper):
            distances.append((mark.upper - first[name]) / 2)
        elif np.isfinite(mark.upper):
            distances.append(-unit)
        else:
            distances.append(unit if np.isfinite(mark.lower) else unit / 10)
    return np.array(distances)


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
    n_values = count_values(problem.values)
    start = Place(places, problem.height(places), problem.gradient(places))
    path = [n_values * start.height]
    if not np.isfinite(start.height):
        return Climb(start.height, places, tuple(path), False, "the start has no finite log-likelihood")
    gain_goal, reason = until.goals.get("gain"), until.limit_reached(0, MAX_ITERATIONS)

    def after_step(place: Place) -> bool:
        nonlocal reason
        path.append(n_values * place.height)
        if gain_goal is not None and path[-1] - path[-2] < gain_goal:
            reason = f"the last iteration gained less than {gain_goal:g}"
        reason = reason or until.limit_reached(len(path) - 1, MAX_ITERATIONS)
        return bool(reason)

    if reason:
        return Climb(path[0], places, tuple(path), False, reason)
    end, how = ascend(problem, start, problem.scale(start), until.goal("gradient", 1e-7), after_step)
    # at a maximum, round-off leaves nothing to gain before the gradient is as small as was asked for
    is_flat = how == "flat" or (how == "stuck" and np.abs(end.gradient).max() < 1e-4)
    message = reason or ("converged" if is_flat else "not converged: no step gains any more")
    return Climb(path[-1], end.at, tuple(path), "gained" in reason if reason else is_flat, message)


def _fit(problem: Problem, best: Climb, fitted: StateSpaceModel) -> Fit:
    values = problem.named(best.places)
    errors = _standard_errors(problem, best.places)
    return Fit(
        model=fitted,
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
    information = -_curvature(problem, places, 1e-3 * np.maximum(0.1, np.abs(places)))
    # a variance of zero lies on its bound, where the log-likelihood has no quadratic top
    diagonal = np.diagonal(information)
    inner = np.isfinite(diagonal) & (diagonal > 0) & (np.abs(slopes) > 1e-6)
    errors = np.full(k, np.nan)
    block = information[np.ix_(inner, inner)]
    if inner.any() and np.isfinite(block).all() and np.linalg.eigvalsh(block)[0] > 0:
        errors[inner] = np.sqrt(np.diagonal(np.linalg.inv(block))) * np.abs(slopes[inner])
    return [float(error) for error in errors]


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
