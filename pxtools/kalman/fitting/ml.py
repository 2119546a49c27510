"""Maximum likelihood on transformed parameters, by quasi-Newton steps along the exact score.

The parameters are moved to the whole line (squares for one bound, a bounded curve for two), so that every step is a
model. References: Harvey (1989), section 3.4; Koopman & Shephard (1992).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pxtools.errors import PxUsageError
from pxtools.kalman.checks import Array
from pxtools.kalman.filtering import run_form
from pxtools.kalman.fitting.ascent import Place, ascend
from pxtools.kalman.fitting.fit import Fit, count_values
from pxtools.kalman.fitting.score import score
from pxtools.kalman.fitting.template import Template
from pxtools.kalman.fitting.until import Until
from pxtools.kalman.model import StateSpaceModel
from pxtools.kalman.parameters import FreeModel, variance_scale
from pxtools.kalman.system import System, system_of
from pxtools.kernels.kalman_free import Likelihood
from pxtools.kernels.kalman_results import Filtered

MAX_ITERATIONS = 500

#: step of central differences on the line, where one is a large change
STEP = 6e-6

#: steps of second differences, and of differences of exact gradients
WIDE, NARROW = 1e-2, 1e-5

#: a change of all variances, as a logarithm, that is not worth a look
LITTLE = 0.1

Slopes = tuple[Array | None, ...]


class Problem(NamedTuple):
    """What one start needs, all of it picklable if the model is, until it is `ready`."""

    model: FreeModel
    values: Array
    n_values: int
    units: Array
    form: str
    template: Template | None
    #: with working memory of its own: one for each climb
    likelihood: Likelihood | None = None

    def ready(self) -> Problem:
        """Return the problem with a likelihood to climb, if there is a template to make it of."""
        if self.template is None:
            return self
        return self._replace(likelihood=Likelihood(self.values, self.template.numbers))

    def parameters(self, places: Array) -> Array:
        """Return the parameters that belong to places on the line, `(…, n_params)`."""
        marks = self.model.parameters.values()
        columns = [m.from_line(places[..., k], self.units[k]) for k, m in enumerate(marks)]
        return np.array(columns) if places.ndim == 1 else np.stack(columns, axis=-1)

    def slopes(self, places: Array) -> Array:
        """Return the derivatives of the parameters by places on the line, `(…, n_params)`."""
        marks = self.model.parameters.values()
        return np.stack([m.slope(places[..., k], self.units[k]) for k, m in enumerate(marks)], axis=-1)

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
        return self.looks(point[None])[0]

    def looks(self, points: Array) -> list[Seen]:
        """Filter at places (n_points, n_params)."""
        if self.template is None:
            return [self._by_build(point) for point in points]
        totals, slopes, are_good = self._by_template(points, gradients=True)
        return [
            Seen(self, *one) if good else self._by_build(one[0])
            for *one, good in zip(points, totals.tolist(), slopes, are_good.tolist(), strict=True)
        ]

    def _by_template(self, points: Array, gradients: bool) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Log-likelihoods, their gradients on the line, and where these are not too ill-conditioned to be believed."""
        assert self.template is not None
        likelihood = self.likelihood or Likelihood(self.values, self.template.numbers)
        with np.errstate(all="ignore"):
            moves = np.ascontiguousarray(self.parameters(points) - self.template.base)
            totals, slopes, lost = likelihood.at(moves, gradients)
            if gradients:
                slopes *= self.slopes(points)
        if self.template.correlated:
            totals = np.where(self.template.are_models(moves), totals, -np.inf)
        return totals, slopes, (lost == 0) | (self.form != "auto") | ~np.isfinite(totals)

    def _by_build(self, point: Array) -> Seen:
        with np.errstate(all="ignore"):
            system = self.built(point)
            if system is None:
                return Seen(self, point, -np.inf)
            try:
                used, filtered = run_form(system, self.values, self.form)
            except (PxUsageError, np.linalg.LinAlgError):
                return Seen(self, point, -np.inf)
            total = float(filtered.log_likelihood.sum())
        if not np.isfinite(total):
            return Seen(self, point, -np.inf)
        # the square roots and precisions are for data that the score, which works with covariances, would spoil
        return Seen(self, point, total, None, system if used in ("univariate", "cholesky") else None, filtered)

    def log_likelihoods(self, places: Array) -> Array:
        """Return the log-likelihood at each place (n_places, n_params), minus infinity where there is no model."""
        if self.template is None:
            return np.array([self.look(place).total for place in places])
        heights, _, are_good = self._by_template(places, gradients=False)
        for k in np.flatnonzero(~are_good):
            heights[k] = self._by_build(places[k]).total
        return heights

    def by_differences(self, point: Array) -> Array:
        """Return the gradient of the log-likelihood by central differences, zero where it cannot be had."""
        moves = np.diag(STEP * np.maximum(1.0, np.abs(point)))
        ahead, behind = np.split(self.log_likelihoods(point + np.concatenate([moves, -moves])), 2)
        with np.errstate(invalid="ignore"):
            gradient = (ahead - behind) / (2 * np.diagonal(moves))
        return np.where(np.isfinite(gradient), gradient, 0.0)

    @property
    def is_cheap(self) -> bool:
        """Whether a gradient costs so little that those of places nearby are a way to see the curvature."""
        return self.template is not None

    def bends(self, place: Place) -> Array:
        """Return the second derivatives (n_params, n_params) of the height, with the sign of a hill's top positive."""
        if self.is_cheap:
            steps = NARROW * np.maximum(1.0, np.abs(place.at))
            ahead = np.array([look.gradient() for look in self.looks(place.at + np.diag(steps))])
            found = (place.gradient - ahead) / steps[:, None]
            return (found + found.T) / 2
        steps = WIDE * np.maximum(1.0, np.abs(place.at))
        moves = np.diag(steps)
        heights = self.log_likelihoods(place.at + np.concatenate([moves, -moves])) / self.n_values
        with np.errstate(invalid="ignore"):
            found = np.abs(heights[: len(steps)] - 2 * place.height + heights[len(steps) :]) / steps**2
        # a first step is at most a half
        return np.diag(np.maximum(np.where(np.isfinite(found), found, 1.0), 2 * np.abs(place.gradient)))

    def start(self, at: Array) -> Place:
        """Return the place to start from: as given, with all variances multiplied by what is best for them together.

        Where nothing but variances is on the scale of the data, that is known from the slopes: the log-likelihood of s
        times the variances is `-(n log s + S / s) / 2` and a constant.
        """
        here = self.look(at).place()
        marks = self.model.parameters.values()
        are_variances = np.array([mark.lower == 0 and np.isinf(mark.upper) for mark in marks])
        if not (self.is_cheap and are_variances.any() and np.isfinite(here.height)):
            return here
        factor = 1 + float((here.at * here.gradient)[are_variances].sum())
        if not (factor > 0 and abs(np.log(factor)) > LITTLE):
            return here
        there = self.look(np.where(are_variances, np.sqrt(factor), 1.0) * at)
        return there.place() if there.height > here.height else here


class Seen(NamedTuple):
    """A place that was filtered at: the log-likelihood there, and its gradient or what that follows from."""

    problem: Problem
    point: Array
    total: float
    slope: Array | None = None
    system: System | None = None
    filtered: Filtered | None = None

    @property
    def height(self) -> float:
        """The log-likelihood per observed value."""
        return self.total / self.problem.n_values

    def place(self) -> Place:
        """Return the place with its gradient, zero where there is no height."""
        has_height = np.isfinite(self.total)
        return Place(self.point, self.height, self.gradient() if has_height else np.zeros_like(self.point))

    def gradient(self) -> Array:
        """Return the gradient of the height: the exact score, or differences where that does not serve."""
        with np.errstate(all="ignore"):
            found = self.exact_gradient()
        if found is None or not np.isfinite(found).all():
            found = self.problem.by_differences(self.point)
        return found / self.problem.n_values

    def exact_gradient(self) -> Array | None:
        """Return the gradient of the log-likelihood by the score, None where that does not serve."""
        if self.slope is not None or self.system is None or self.filtered is None:
            return self.slope
        slopes = self._slopes()
        if slopes is None:
            return None
        if all(slope is None for slope in slopes):
            return np.zeros(len(self.point))
        return score(self.problem.values, self.system, slopes, self.filtered)

    def _slopes(self) -> Slopes | None:
        """Return how the arrays move with places on the line, by builds."""
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
    if problem.template is not None and not problem.template.agrees(
        problem.parameters(best.places), fitted, values.shape[1]
    ):
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
    problem, n_values = problem.ready(), problem.n_values
    start = problem.start(places)
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
    end, how = ascend(problem, start, until.goal("gradient", 1e-7), after_step)
    # at a maximum, round-off leaves nothing to gain before the gradient is as small as was asked for
    is_flat = how == "flat" or (how == "stuck" and np.abs(end.gradient).max() < 1e-4)
    message = reason or ("converged" if is_flat else "not converged: no step gains any more")
    return Climb(path[-1], end.at, tuple(path), "gained" in reason if reason else is_flat, message)


def _fit(problem: Problem, best: Climb, fitted: StateSpaceModel) -> Fit:
    values = problem.named(best.places)
    errors = _standard_errors(problem.ready(), best.places)
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
    k, slopes = len(places), problem.slopes(places)
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
    """Second derivatives by differences of gradients; without these `f(+i) - 2 f + f(-i)`, for pairs four corners."""
    moves, k = np.diag(steps), len(places)
    if problem.is_cheap:
        looks = problem.looks(places + np.concatenate([moves, -moves]))
        if all(look.slope is not None for look in looks):
            ahead, behind = np.split(np.array([look.slope for look in looks]), 2)
            found = (ahead - behind) / (2 * steps[:, None])
            return np.asarray((found + found.T) / 2)
    pairs = [(i, j) for i in range(k) for j in range(i)]
    corners = [moves[i] * a + moves[j] * b for i, j in pairs for a, b in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
    heights = problem.log_likelihoods(places + np.array([0 * steps, *moves, *-moves, *corners]))
    curvature = np.diag((heights[1 : k + 1] - 2 * heights[0] + heights[k + 1 : 2 * k + 1]) / steps**2)
    for (i, j), four in zip(pairs, heights[2 * k + 1 :].reshape(-1, 4), strict=True):
        curvature[i, j] = curvature[j, i] = (four @ [1, -1, -1, 1]) / (4 * steps[i] * steps[j])
    return curvature
