"""NumPy twin of the compiled climb: by a Newton step and quasi-Newton ones (BFGS) after it, on a whole line.

Parameters with bounds are moved to the whole line (squares for one bound, a bounded curve for two), so that no step
leaves them.

References: Nocedal & Wright (2006), Numerical Optimization, section 6.1; Lewis & Overton (2013), Nonsmooth optimization
via quasi-Newton methods, whose line search needs no more than a weak Wolfe condition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from pxtools.kernels.kalman_results import Array, Counts

#: a step must gain this part of what the slope promises, and leave at most that part of the slope
GAIN, SLOPE = 1e-4, 0.9

#: relative gains below this are round-off; so many of them in a row end the climb
ROUND_OFF, PATIENCE = 1e-13, 3

#: the least curvature that is believed, and the longest step along an axis, that of the curvature too
LEAST_BEND, LONGEST = 1e-9, 0.5

#: step of differences of gradients, where one is a large change
NARROW = 1e-5

#: a step that is too long is shortened to this part of it at least
NEAREST = 0.2

#: halvings or doublings of a step before the search along a line is given up
MAX_TRIALS = 40


class Look(Protocol):
    """What is seen from one point."""

    @property
    def height(self) -> float:
        """The height, minus infinity where there is none."""
        ...

    def gradient(self) -> Array:
        """Return the gradient there."""
        ...


class Hill(Protocol):
    """What is climbed."""

    def look(self, point: Array) -> Look:
        """Return what is seen from a point."""
        ...

    def bends(self, place: Place) -> Array:
        """Return the matrix of second derivatives there, or a guess of it, with the sign of a top's positive."""
        ...


class Moves(Protocol):
    """A likelihood as a function of moves of the parameters: see `kalman_free_numpy.Likelihood`."""

    def at(self, moves: Array, gradients: bool = True) -> tuple[Array, Array, Counts]:
        """Return log-likelihoods, gradients, and how many innovation variances lost over ten digits."""
        ...


class Place(NamedTuple):
    """A point with its height and gradient."""

    at: Array
    height: float
    gradient: Array


def ascend(hill: Hill, start: Place, gradient_goal: float, after_step: Callable[[Place], bool]) -> tuple[Place, str]:
    """Climb from `start` until the gradient is small, `after_step` says so, or no step gains any more.

    A Newton step is followed by BFGS steps with its curvature, brought up to date by them; where none gains any more,
    the curvature is looked at again.

    Parameters
    ----------
    hill : Hill
    start : Place
    gradient_goal : float
        Greatest element of the gradient at the end.
    after_step : callable
        Sees the place after each step; returns whether to stop there.

    Returns
    -------
    Place, str
        The last place, and "flat", "stopped" or "stuck".
    """
    here, idle, is_fresh = start, 0, False
    inverse: Array | None = None
    while np.abs(here.gradient).max() > gradient_goal:
        if inverse is None:
            inverse, is_fresh = inverted(hill.bends(here), here), True
        direction = inverse @ here.gradient
        there = _along(hill, here, direction) if direction @ here.gradient > 0 else None
        if there is None:
            if is_fresh:
                return here, "stuck"
            inverse = None  # round-off has spoilt the curvature: once more
            continue
        step, bend = there.at - here.at, here.gradient - there.gradient
        curvature = float(step @ bend)
        if curvature > 0:
            inverse, is_fresh = _updated(inverse, step, bend, curvature), False
        idle = idle + 1 if there.height - here.height <= ROUND_OFF * max(1.0, abs(here.height)) else 0
        here = there
        if after_step(here):
            return here, "stopped"
        if idle == PATIENCE:
            return here, "stuck"
    return here, "flat"


def inverted(bends: Array, here: Place) -> Array:
    """Invert a curvature, made that of a top, so that no step along one of its axes is too long."""
    longest = LONGEST * max(1.0, float(np.abs(here.at).max()))
    sizes, axes = np.linalg.eigh(np.where(np.isfinite(bends), bends, 0.0))
    sizes = np.maximum(np.abs(sizes), np.maximum(LEAST_BEND, np.abs(here.gradient @ axes) / longest))
    return np.asarray((axes / sizes) @ axes.T)


def _updated(inverse: Array, step: Array, bend: Array, curvature: float) -> Array:
    """The BFGS update of the inverse curvature (Nocedal & Wright, equation 6.17)."""
    moved = inverse @ bend
    cross = np.outer(step, moved) / curvature
    return inverse - cross - cross.T + (1 + bend @ moved / curvature) / curvature * np.outer(step, step)


def _along(hill: Hill, here: Place, direction: Array) -> Place | None:
    """Return a place along the direction that satisfies the weak Wolfe conditions, or the best that gains; or None."""
    slope = float(here.gradient @ direction)
    longest = LONGEST * max(1.0, float(np.abs(here.at).max()))
    low, high, length = 0.0, np.inf, min(1.0, longest / float(np.abs(direction).max()))
    height, rise = here.height, slope
    best: Place | None = None
    for _ in range(MAX_TRIALS):
        place, share = here.at + length * direction, 0.5
        look, least = hill.look(place), here.height + GAIN * length * slope
        if not look.height >= (least if best is None else max(least, best.height)):
            high = length
            share = _share(height, rise * (high - low), look.height)
        else:
            best, low = Place(place, look.height, look.gradient()), length
            height, rise = best.height, float(best.gradient @ direction)
            if rise <= SLOPE * slope:
                return best
        length = 2 * low if np.isinf(high) else low + share * (high - low)
        if np.array_equal(here.at + length * direction, place):
            break
    return best


def _share(height: float, rise: float, end: float) -> float:
    """Return where the parabola through two heights that rises so at the first has its top; not too near to either."""
    fall = height + rise - end
    return min(max(rise / (2 * fall), NEAREST), 0.5) if 0 < fall < np.inf else 0.5


def from_line(places: Array, bounds: Array) -> Array:
    """Return the parameters that belong to places on the line.

    Parameters
    ----------
    places : (…, n_params)
    bounds : (3, n_params)
        Lower and upper bounds, infinite where there are none, and units, which make steps of about one.

    Returns
    -------
    (…, n_params) array
    """
    lower, upper, unit = bounds
    with np.errstate(all="ignore"):
        share = places / np.sqrt(1 + places * places)
        between = lower + (upper - lower) * (1 + share) / 2
        return _by_bounds(
            bounds, between, lower + unit * places * places, upper - unit * places * places, places * unit
        )


def slopes_on_line(places: Array, bounds: Array) -> Array:
    """Return the derivatives of `from_line`."""
    lower, upper, unit = bounds
    with np.errstate(all="ignore"):
        between = (upper - lower) / 2 / (1 + places * places) ** 1.5
        return _by_bounds(bounds, between, 2 * unit * places, -2 * unit * places, unit + 0 * places)


def seen_from_line(
    likelihood: Moves, places: Array, base: Array, bounds: Array, gradients: bool
) -> tuple[Array, Array, Counts]:
    """Return log-likelihoods and their gradients on the line.

    Parameters
    ----------
    likelihood : Moves
        Of the moves of the parameters from `base`.
    places : (n_points, n_params)
    base : (n_params,)
    bounds : (3, n_params)
        See `from_line`.
    gradients : bool
        Whether they are wanted.

    Returns
    -------
    array, array, array
        As the likelihood returns them.
    """
    with np.errstate(all="ignore"):
        totals, slopes, lost = likelihood.at(from_line(places, bounds) - base, gradients)
        return totals, slopes * slopes_on_line(places, bounds) if gradients else slopes, lost


def _by_bounds(bounds: Array, both: Array, low: Array, high: Array, none: Array) -> Array:
    has_low, has_high = np.isfinite(bounds[:2])
    return np.where(has_low & has_high, both, np.where(has_low, low, np.where(has_high, high, none)))
