"""Maximum likelihood on transformed parameters, by quasi-Newton steps along the exact score.

The parameters are moved to the whole line (squares for one bound, a bounded curve for two), so that every step is a
model. References: Harvey (1989), section 3.4; Koopman & Shephard (1992).
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
from pxtools.kalman.fitting.score import score
from pxtools.kalman.fitting.template import Slopes, Template
from pxtools.kalman.fitting.until import Until
from pxtools.kalman.model import StateSpaceModel
from pxtools.kalman.parameters import FreeModel, variance_scale
from pxtools.kalman.system import System, system_of
from pxtools.kernels import kalman
from pxtools.kernels.kalman_results import Filtered

MAX_ITERATIONS = 500

#: step of central differences on the line, where one is a large change
STEP = 6e-6

#: step of second differences, and the least curvature per observed value that is believed
WIDE, LEAST_BEND = 1e-2, 1e-3


class Problem(NamedTuple):
    """What one start needs, all of it picklable if the model is."""

    model: FreeModel
    values: Array
    n_values: int
    units: Array
    form: str
    template: Template | None
    #: the filter's arrays, used again by each step of one climb
    memory: dict[str, Array] | None = None

    def parameters(self, places: Array) -> Array:
        """Return the parameters that belong to places on the line, `(…, n_params)`."""
        marks = self.model.parameters.values()
        columns = [m.from_line(places[..., k], self.units[k]) for k, m in enumerate(marks)]
        return np.array(columns) if places.ndim == 1 else np.stack(columns, axis=-1)

    def named(self, places: Array) -> dict[str, float]:
        """Return the parameters at one place by name."""
        return dict(zip(self.model.names, self.parameters(places).tolist(), strict=True))

    def built(self, place: Array) -> System | None:
        """Return the arrays of the model at a place, built anew; None where there is no model."""
        try:
            return system_of(self.model.at(self.named(place)), *self.values.shape[:2])
        except (PxUsageError, np.linalg.LinAlgError):
            return None

    def look(self, point: Array) -> Seen:
        """Filter at a place, keeping what its gradient needs."""
        with np.errstate(all="ignore"):
            found = self._by_template(point) or self._by_build(point)
        return found or Seen(self, point, -np.inf)

    def _by_template(self, point: Array) -> Seen | None:
        if self.template is None:
            return None
        many, are_models = self.template.at(self.parameters(point)[None])
        if not are_models[0]:
            return Seen(self, point, -np.inf)
        n_series = len(self.values)
        starts = [np.repeat(part, n_series, axis=0) if n_series > 1 else part for part in many[6:]]
        system = System._make([*(part[0] for part in many[:6]), *starts])
        filtered = kalman.univariate_filter(self.values, *system, memory=self.memory)
        if self.form == "auto" and filtered.n_cancelled:
            return None
        return Seen.of(self, point, system, filtered, self.template)

    def _by_build(self, point: Array) -> Seen | None:
        system = self.built(point)
        if system is None:
            return None
        try:
            used, filtered = run_form(system, self.values, self.form)
        except (PxUsageError, np.linalg.LinAlgError):
            return None
        # the square roots and precisions are for data that the score, which works with covariances, would spoil
        return Seen.of(self, point, system if used in ("univariate", "cholesky") else None, filtered, None)

    def log_likelihoods(self, places: Array) -> Array:
        """Return the log-likelihood at each place (n_places, n_params), minus infinity where there is no model."""
        if self.template is None:
            return np.array([self.look(place).total for place in places])
        with np.errstate(all="ignore"):
            heights, doubtful = self.template.log_likelihoods(self.parameters(places), self.values)
            heights = np.where(np.isfinite(heights), heights, -np.inf)
        if self.form == "auto" and doubtful.any():
            heights[doubtful] = [self.look(place).total for place in places[doubtful]]
        return heights

    def by_differences(self, point: Array) -> Array:
        """Return the gradient of the log-likelihood by central differences, zero where it cannot be had."""
        moves = np.diag(STEP * np.maximum(1.0, np.abs(point)))
        ahead, behind = np.split(self.log_likelihoods(point + np.concatenate([moves, -moves])), 2)
        with np.errstate(invalid="ignore"):
            gradient = (ahead - behind) / (2 * np.diagonal(moves))
        return np.where(np.isfinite(gradient), gradient, 0.0)

    def scale(self, place: Place) -> Array:
        """Return a guess of the inverse curvature along each axis; a first step is at most a half."""
        steps = WIDE * np.maximum(1.0, np.abs(place.at))
        moves = np.diag(steps)
        heights = self.log_likelihoods(place.at + np.concatenate([moves, -moves])) / self.n_values
        with np.errstate(invalid="ignore"):
            bends = np.abs(heights[: len(steps)] - 2 * place.height + heights[len(steps) :]) / steps**2
        least = np.maximum(2 * np.abs(place.gradient), LEAST_BEND)
        return 1.0 / np.where(np.isfinite(bends), np.maximum(bends, least), np.maximum(least, 1.0))


class Seen(NamedTuple):
    """A place that was filtered at: the log-likelihood there, and what its gradient follows from."""

    problem: Problem
    point: Array
    total: float
    system: System | None = None
    filtered: Filtered | None = None
    template: Template | None = None

    @classmethod
    def of(
        cls, problem: Problem, point: Array, system: System | None, filtered: Filtered, template: Template | None
    ) -> Seen:
        """Return what was filtered, without moments that the score is not meant for."""
        total = float(filtered.log_likelihood.sum())
        if not np.isfinite(total):
            return cls(problem, point, -np.inf)
        return cls(problem, point, total, system, filtered, template)

    @property
    def height(self) -> float:
        """The log-likelihood per observed value."""
        return self.total / self.problem.n_values

    def gradient(self) -> Array:
        """Return the gradient of the height: the exact score, or differences where that does not serve."""
        with np.errstate(all="ignore"):
            found = self.exact_gradient()
        if found is None or not np.isfinite(found).all():
            found = self.problem.by_differences(self.point)
        return found / self.problem.n_values

    def exact_gradient(self) -> Array | None:
        """Return the gradient of the log-likelihood by the score, None where that does not serve."""
        if self.system is None or self.filtered is None:
            return None
        problem, slopes = self.problem, self._slopes(self.system)
        if slopes is None:
            return None
        if all(slope is None for slope in slopes):
            return np.zeros(len(self.point))
        gradient = score(problem.values, self.system, slopes, self.filtered)
        if self.template is None:
            return gradient
        marks = enumerate(problem.model.parameters.values())
        return gradient * [m.slope(float(self.point[k]), problem.units[k]) for k, m in marks]

    def _slopes(self, system: System) -> Slopes | None:
        """Return how the arrays move, with the parameters of a template, or with places on the line by builds."""
        if self.template is not None:
            one = system._replace(x=system.x[0], P=system.P[0])
            return self.template.slopes(self.problem.parameters(self.point), one)
        moves = np.diag(STEP * np.maximum(1.0, np.abs(self.point)))
        ends = [[self.problem.built(self.point + sign * move) for sign in (1, -1)] for move in moves]
        found: list[Array | None] = []
        for which in range(8):
            slopes = []
            for (ahead, behind), move in zip(ends, moves, strict=True):
                if ahead is None or behind is None or ahead[which].shape != behind[which].shape:
                    return None
                slopes.append((ahead[which] - behind[which]) / (2 * move.max()))
            slope = np.stack(slopes)[:, 0] if which in (6, 7) else np.stack(slopes)
            found.append(slope if slope.any() else None)
        return tuple(found)


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
    problem, place = start_of(model, values, form)
    places = [place, *(place + _shift(seed, k, len(place)) for k in range(1, starts))]
    best = _highest(problem, places, until, map)
    if not np.isfinite(best.log_likelihood):
        _raise_without_start(model, problem.named(place))
    fitted = model.at(problem.named(best.places))
    if problem.template is not None and not problem.template.agrees(problem.parameters(best.places), fitted, values):
        # affine around the start only: every point has to be built after all
        problem = problem._replace(template=None)
        best = _highest(problem, places, until, map)
        fitted = model.at(problem.named(best.places))
    return _fit(problem, best, fitted)


def start_of(model: FreeModel, values: Array, form: str = "auto") -> tuple[Problem, Array]:
    """Return the problem of a fit, and the place on the line where it starts."""
    scale = variance_scale(values)
    first = model.start(scale)
    marks = model.parameters
    units = np.array([_unit(mark.lower, mark.upper, first[name], scale) for name, mark in marks.items()])
    template = Template.of(model, np.array(list(first.values())), _reach(model, first, units), values, form)
    place = np.array([mark.to_line(first[name], u) for (name, mark), u in zip(marks.items(), units, strict=True)])
    return Problem(model, values, count_values(values), units, form, template), place


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
    problem = problem._replace(memory={})
    n_values, look = problem.n_values, problem.look(places)
    start = Place(places, look.height, look.gradient() if np.isfinite(look.height) else np.zeros_like(places))
    del look  # and with it the moments, whose memory serves again
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
        n_values=problem.n_values,
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
