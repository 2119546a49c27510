"""The log-likelihood of a model with free parameters as a hill to climb, and the line that its parameters are moved to.

The parameters are moved to the whole line (squares for one bound, a bounded curve for two), so that every step is a
model. References: Harvey (1989), section 3.4; Koopman & Shephard (1992).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pxtools.errors import PxUsageError
from pxtools.kalman.checks import Array
from pxtools.kalman.filtering import run_form
from pxtools.kalman.fitting.differences import differenced
from pxtools.kalman.fitting.score import score
from pxtools.kalman.fitting.template import Template
from pxtools.kalman.parameters import FreeModel
from pxtools.kalman.system import System, system_of
from pxtools.kernels.kalman_climb import NARROW, Hill, LineHill, Look, Place, from_line, seen_from_line
from pxtools.kernels.kalman_free import Likelihood
from pxtools.kernels.kalman_results import Filtered

#: step of central differences on the line, where one is a large change
STEP = 6e-6

#: step of second differences
WIDE = 1e-2

#: a change of all variances, as a logarithm, that is not worth a look
LITTLE = 0.1

Slopes = tuple[Array | None, ...]


class Problem(NamedTuple):
    """What one start needs, all of it picklable if the model is, until it is `ready`."""

    model: FreeModel
    values: Array
    n_values: int
    #: (3, n_params), the line that the parameters are moved to: see `from_line`
    bounds: Array
    form: str
    template: Template | None
    #: with working memory of its own: never for two climbs at a time
    likelihood: Likelihood | None = None
    #: what has to be added to this likelihood
    constant: float = 0.0

    def ready(self) -> Problem:
        """Return the problem with a likelihood to climb, if there is a template to make it of."""
        if self.template is None or self.likelihood is not None:
            return self
        values, numbers, constant = differenced(self.values, self.template.numbers)
        return self._replace(likelihood=Likelihood(values, numbers), constant=constant)

    def parameters(self, places: Array) -> Array:
        """Return the parameters that belong to places on the line, `(…, n_params)`."""
        return from_line(places, self.bounds)

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
        if self.template is None:
            return self._by_build(point)
        totals, slopes, is_spoilt = self._by_template(point[None], gradients=True)
        if is_spoilt is not None and is_spoilt[0]:
            return self._by_build(point)
        return Seen(self, point, totals.item(), slopes[0])

    def _by_template(self, points: Array, gradients: bool) -> tuple[Array, Array, NDArray[np.bool_] | None]:
        """Log-likelihoods, their gradients on the line, and where the data are too ill-conditioned to believe them."""
        assert self.template is not None
        likelihood = self.likelihood or Likelihood(self.values, self.template.numbers)
        totals, slopes, lost = seen_from_line(likelihood, points, self.template.base, self.bounds, gradients)
        totals += self.constant
        if self.template.correlated:
            moves = self.parameters(points) - self.template.base
            totals = np.where(self.template.are_models(moves), totals, -np.inf)
        if np.count_nonzero(points) < points.size:
            totals = np.where(self.are_noiseless(points), -np.inf, totals)
        return (
            totals,
            slopes,
            np.isfinite(totals) & (lost > 0) if self.form == "auto" and np.count_nonzero(lost) else None,
        )

    def are_noiseless(self, points: Array) -> NDArray[np.bool_]:
        """Tell where all variances are zero: the filter leaves such rows out, and nothing speaks against it."""
        are_variances = self.are_variances
        return np.asarray(are_variances.any() & (points[:, are_variances] == 0).all(axis=1))

    @property
    def are_variances(self) -> NDArray[np.bool_]:
        """Which parameters have no bound but zero."""
        return np.asarray((self.bounds[0] == 0) & (self.bounds[1] == np.inf))

    def _by_build(self, point: Array) -> Seen:
        with np.errstate(all="ignore"):
            system = None if self.are_noiseless(point[None])[0] else self.built(point)
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
        heights, _, are_spoilt = self._by_template(places, gradients=False)
        if are_spoilt is not None:
            heights[are_spoilt] = [self._by_build(place).total for place in places[are_spoilt]]
        return heights

    def _gradients(self, places: Array) -> Array:
        """Return the gradients of the height at places (n_places, n_params)."""
        _, slopes, are_spoilt = self._by_template(places, gradients=True)
        if are_spoilt is None and np.isfinite(slopes).all():
            return slopes / self.n_values
        return np.array([self.look(place).gradient() for place in places])

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
            steps = NARROW * np.maximum(0.1, np.abs(place.at))
            found = (place.gradient - self._gradients(place.at + np.diag(steps))) / steps[:, None]
            return (found + found.T) / 2
        steps = WIDE * np.maximum(1.0, np.abs(place.at))
        moves = np.diag(steps)
        heights = self.log_likelihoods(place.at + np.concatenate([moves, -moves])) / self.n_values
        with np.errstate(invalid="ignore"):
            found = np.abs(heights[: len(steps)] - 2 * place.height + heights[len(steps) :]) / steps**2
        # a first step is at most a half
        return np.diag(np.maximum(np.where(np.isfinite(found), found, 1.0), 2 * np.abs(place.gradient)))

    def hill(self) -> Hill:
        """Return what to climb: a compiled one that stands in for this one wherever the template says all, or this."""
        if self.template is None or self.likelihood is None or self.template.correlated or LineHill is None:
            return self
        return LineHill(self, self.likelihood, self.template.base, self.bounds, self.constant, self.n_values)

    def start(self, hill: Hill, at: Array) -> Place:
        """Return the place to start from: as given, with all variances multiplied by what is best for them together.

        Where nothing but variances is on the scale of the data, that is known from the slopes: the log-likelihood of s
        times the variances is `-(n log s + S / s) / 2` and a constant.
        """
        here = _placed(hill, at)
        are_variances = self.are_variances
        if not (self.is_cheap and are_variances.any() and np.isfinite(here.height)):
            return here
        factor = 1 + float((here.at * here.gradient)[are_variances].sum())
        if not (factor > 0 and abs(np.log(factor)) > LITTLE):
            return here
        there = _placed(hill, np.where(are_variances, np.sqrt(factor), 1.0) * at)
        return there if there.height > here.height else here


def _placed(hill: Hill, point: Array) -> Place:
    """Return a place with its gradient, zero where there is no height."""
    look: Look = hill.look(point)
    return Place(point, look.height, look.gradient() if math.isfinite(look.height) else np.zeros_like(point))


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

    def gradient(self) -> Array:
        """Return the gradient of the height: the exact score, or differences where that does not serve."""
        found = self.slope
        if found is None:
            with np.errstate(all="ignore"):
                found = self.exact_gradient()
        if found is None or not all(map(math.isfinite, found.tolist())):
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
