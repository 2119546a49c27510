"""Compiled climb of a log-likelihood: see `kalman_climb_numpy` for the twin.

Steps have a handful of elements, and a call of NumPy takes as long as filtering a short series.
"""

import numpy as np

cimport numpy as cnp
from libc.math cimport INFINITY, copysign, fabs, isfinite, sqrt

from pxtools.kernels._arrays cimport doubles, fresh, room

from pxtools.kernels.kalman_climb_numpy import (
    GAIN,
    LEAST_BEND,
    LONGEST,
    MAX_TRIALS,
    NARROW,
    NEAREST,
    PATIENCE,
    ROUND_OFF,
    SLOPE,
    Place,
)

cnp.import_array()

cdef double gain_wanted = GAIN, slope_left = SLOPE, round_off = ROUND_OFF, least_bend = LEAST_BEND, longest = LONGEST
cdef double narrow = NARROW, nearest = NEAREST
cdef int max_trials = MAX_TRIALS, patience = PATIENCE, MAX_SWEEPS = 40


def ascend(hill, start, double gradient_goal, after_step):
    """See `kalman_climb_numpy.ascend`."""
    cdef Py_ssize_t k = len(start.at), i
    work = room(1, k * (3 * k + 4))
    cdef double *direction = fresh(work)
    cdef double *step = direction + k
    cdef double *bend = step + k
    cdef double *moved = bend + k
    cdef double *inverse = moved + k
    cdef bint has_inverse = False, is_fresh = False
    cdef int idle = 0
    cdef double rise, curvature
    cdef const double *slope
    here = start
    while True:
        slope = doubles(here.gradient, 1)
        if not largest(k, slope) > gradient_goal:
            return here, "flat"
        if not has_inverse:
            bends = np.ascontiguousarray(hill.bends(here))
            invert(k, doubles(bends, 2), doubles(here.at, 1), slope, inverse, inverse + k * k)
            has_inverse = is_fresh = True
        for i in range(k):
            direction[i] = dot(k, inverse + i * k, slope)
        rise = dot(k, direction, slope)
        there = along(hill, here, k, direction, rise) if rise > 0 else None
        if there is None:
            if is_fresh:
                return here, "stuck"
            has_inverse = False  # round-off has spoilt the curvature: once more
            continue
        difference(k, doubles(there.at, 1), doubles(here.at, 1), step)
        difference(k, slope, doubles(there.gradient, 1), bend)
        curvature = dot(k, step, bend)
        if curvature > 0:
            update(k, inverse, step, bend, curvature, moved)
            is_fresh = False
        rise = there.height - here.height
        idle = idle + 1 if rise <= round_off * max(1.0, fabs(here.height)) else 0
        here = there
        if after_step(here):
            return here, "stopped"
        if idle == patience:
            return here, "stuck"


cdef object along(object hill, object here, Py_ssize_t k, const double *direction, double slope):
    """Return a place along the direction that satisfies the weak Wolfe conditions, or the best that gains; or None."""
    cdef double start = here.height, low = 0.0, high = INFINITY, height = start, rise = slope, found, least, share
    cdef const double *at = doubles(here.at, 1)
    cdef double length = min(1.0, longest * max(1.0, largest(k, at)) / largest(k, direction))
    cdef Py_ssize_t i
    cdef bint is_same
    best = None
    for _ in range(max_trials):
        place = room(1, k)
        for i in range(k):
            fresh(place)[i] = at[i] + length * direction[i]
        look, share = hill.look(place), 0.5
        found, least = look.height, start + gain_wanted * length * slope
        if best is not None:
            least = max(least, height)
        if not found >= least:
            high = length
            share = share_of(height, rise * (high - low), found)
        else:
            best, height, low = Place(place, found, look.gradient()), found, length
            rise = dot(k, doubles(best.gradient, 1), direction)
            if rise <= slope_left * slope:
                return best
        length = 2 * low if high == INFINITY else low + share * (high - low)
        is_same = True
        for i in range(k):
            is_same = is_same and at[i] + length * direction[i] == fresh(place)[i]
        if is_same:
            break
    return best


cdef double share_of(double height, double rise, double end) noexcept nogil:
    """See `kalman_climb_numpy._share`."""
    cdef double fall = height + rise - end
    return min(max(rise / (2.0 * fall), nearest), 0.5) if 0.0 < fall < INFINITY else 0.5


cdef void invert(Py_ssize_t k, const double *bends, const double *at, const double *slope, double *inverse,
                 double *work) noexcept nogil:
    """See `kalman_climb_numpy.inverted`; `work` has 2 k k doubles."""
    cdef double *axes = work + k * k
    cdef double limit = longest * max(1.0, largest(k, at)), along_axis, size
    cdef Py_ssize_t i, j, m
    for i in range(k * k):
        work[i] = bends[i] if isfinite(bends[i]) else 0.0
        inverse[i] = 0.0
    rotate(k, work, axes)
    for m in range(k):
        along_axis = 0.0
        for i in range(k):
            along_axis += slope[i] * axes[i * k + m]
        size = max(max(fabs(work[m * k + m]), least_bend), fabs(along_axis) / limit)
        for i in range(k):
            for j in range(k):
                inverse[i * k + j] += axes[i * k + m] * axes[j * k + m] / size


cdef void rotate(Py_ssize_t k, double *a, double *axes) noexcept nogil:
    """Make a symmetric matrix diagonal by Jacobi's rotations, whose product are the axes, in columns.

    Reference: Golub & Van Loan (2013), Matrix Computations, section 8.5.
    """
    cdef double turn, cos, sin, left, right, off, all
    cdef Py_ssize_t i, p, q, sweep
    for i in range(k * k):
        axes[i] = 1.0 if i % (k + 1) == 0 else 0.0
    for sweep in range(MAX_SWEEPS):
        off = all = 0.0
        for i in range(k * k):
            all += a[i] * a[i]
            off += 0.0 if i % (k + 1) == 0 else a[i] * a[i]
        if not off > 1e-36 * all:
            return
        for p in range(k):
            for q in range(p + 1, k):
                if a[p * k + q] == 0.0:
                    continue
                turn = (a[q * k + q] - a[p * k + p]) / (2.0 * a[p * k + q])
                turn = copysign(1.0, turn) / (fabs(turn) + sqrt(1.0 + turn * turn))
                cos = 1.0 / sqrt(1.0 + turn * turn)
                sin = turn * cos
                for i in range(k):
                    left, right = a[i * k + p], a[i * k + q]
                    a[i * k + p], a[i * k + q] = cos * left - sin * right, sin * left + cos * right
                    left, right = axes[i * k + p], axes[i * k + q]
                    axes[i * k + p], axes[i * k + q] = cos * left - sin * right, sin * left + cos * right
                for i in range(k):
                    left, right = a[p * k + i], a[q * k + i]
                    a[p * k + i], a[q * k + i] = cos * left - sin * right, sin * left + cos * right


cdef double largest(Py_ssize_t k, const double *a) noexcept nogil:
    """The largest size of an element, NaN if there is any."""
    cdef double size = 0.0
    cdef Py_ssize_t i
    for i in range(k):
        if not fabs(a[i]) <= size:
            size = fabs(a[i])
        if size != size:
            break
    return size


cdef double dot(Py_ssize_t k, const double *a, const double *b) noexcept nogil:
    cdef double total = 0.0
    cdef Py_ssize_t i
    for i in range(k):
        total += a[i] * b[i]
    return total


cdef void difference(Py_ssize_t k, const double *a, const double *b, double *out) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(k):
        out[i] = a[i] - b[i]


cdef void update(Py_ssize_t k, double *inverse, const double *step, const double *bend, double curvature,
                 double *moved) noexcept nogil:
    """The BFGS update of the inverse curvature (Nocedal & Wright, equation 6.17)."""
    cdef Py_ssize_t i, j
    cdef double scale
    for i in range(k):
        moved[i] = dot(k, inverse + i * k, bend)
    scale = (1.0 + dot(k, bend, moved) / curvature) / curvature
    for i in range(k):
        for j in range(k):
            inverse[i * k + j] += scale * step[i] * step[j] - (step[i] * moved[j] + moved[i] * step[j]) / curvature


def from_line(places, bounds):
    """See `kalman_climb_numpy.from_line`."""
    return on_line(places, bounds, False)


def slopes_on_line(places, bounds):
    """See `kalman_climb_numpy.slopes_on_line`."""
    return on_line(places, bounds, True)


def seen_from_line(likelihood, places, base, bounds, bint gradients):
    """See `kalman_climb_numpy.seen_from_line`."""
    return see(likelihood, cnp.PyArray_DIM(places, 0), doubles(places, 2), base, bounds, gradients)


cdef tuple see(object likelihood, Py_ssize_t n_points, const double *place, object base, object bounds, bint gradients):
    cdef Py_ssize_t k = cnp.PyArray_DIM(base, 0), i
    cdef const double *origin = doubles(base, 1)
    cdef const double *bound = doubles(bounds, 2)
    moves = room(2, n_points, k)
    cdef double *move = fresh(moves)
    for i in range(n_points * k):
        move[i] = value_of(place[i], bound[i % k], bound[k + i % k], bound[2 * k + i % k]) - origin[i % k]
    totals, slopes, lost = likelihood.at(moves, gradients)
    cdef double *slope
    if gradients:
        slope = <double *> doubles(slopes, 2)
        for i in range(n_points * k):
            slope[i] *= slope_of(place[i], bound[i % k], bound[k + i % k], bound[2 * k + i % k])
    return totals, slopes, lost


cdef class Sight:
    """What is seen from one point: see `Look`."""

    cdef readonly double height
    cdef object slope

    def gradient(self):
        return self.slope


cdef class LineHill:
    """A log-likelihood a value on the line, without a detour through Python: see `Problem`, which it stands in for.

    Wherever there is more to be said about a point than what the likelihood says, the problem is asked.

    Parameters
    ----------
    problem : Hill
    likelihood : Likelihood
        Of the moves of the parameters from `base`.
    base : (n_params,)
    bounds : (3, n_params)
    constant : float
        To be added to the likelihood.
    n_values : int
    """

    cdef object problem, likelihood, base, bounds
    cdef double constant, n_values
    cdef Py_ssize_t k

    def __init__(self, problem, likelihood, base, bounds, double constant, double n_values):
        self.problem, self.likelihood, self.base, self.bounds = problem, likelihood, base, bounds
        self.constant, self.n_values = constant, n_values
        self.k = cnp.PyArray_DIM(base, 0)
        if base.ndim != 1 or bounds.shape != (3, self.k):
            raise ValueError("base must be (n_params,), bounds (3, n_params)")

    def look(self, point):
        """Filter at a place."""
        slopes = None if cnp.PyArray_DIM(point, 0) != self.k else self._gradients(1, doubles(point, 1))
        if slopes is None:
            return self.problem.look(point)
        cdef Sight sight = Sight.__new__(Sight)
        sight.height, sight.slope = slopes[1], slopes[0][0]
        return sight

    cdef tuple _gradients(self, Py_ssize_t n_points, const double *place):
        """The gradients of the height at places and the first of the heights, None if any is special."""
        cdef Py_ssize_t i
        for i in range(n_points * self.k):
            if place[i] == 0.0:
                return None
        totals, slopes, lost = see(self.likelihood, n_points, place, self.base, self.bounds, True)
        cdef double *slope = <double *> doubles(slopes, 2)
        cdef const double *total = doubles(totals, 1)
        cdef const long *cancelled = <const long *> cnp.PyArray_DATA(lost)
        for i in range(n_points * self.k):
            slope[i] /= self.n_values
            if not isfinite(slope[i]):
                return None
        for i in range(n_points):
            if cancelled[i]:
                return None
        return slopes, (total[0] + self.constant) / self.n_values

    def bends(self, place):
        """Return the second derivatives of the height, with the sign of a hill's top positive."""
        cdef Py_ssize_t k = self.k, i, j
        work = room(1, k * (k + 1))
        cdef double *points = fresh(work)
        cdef double *steps = points + k * k
        cdef const double *at = doubles(place.at, 1)
        cdef const double *here = doubles(place.gradient, 1)
        for i in range(k):
            steps[i] = narrow * max(0.1, fabs(at[i]))
            for j in range(k):
                points[i * k + j] = at[j] + (steps[i] if i == j else 0.0)
        found = self._gradients(k, points)
        if found is None:
            return self.problem.bends(place)
        cdef const double *slope = doubles(found[0], 2)
        bends = room(2, k, k)
        cdef double *bend = fresh(bends)
        for i in range(k):
            for j in range(k):
                bend[i * k + j] = 0.5 * ((here[j] - slope[i * k + j]) / steps[i] + (here[i] - slope[j * k + i]) / steps[j])
        return bends


cdef object on_line(object places, object bounds, bint are_slopes):
    cdef Py_ssize_t k = cnp.PyArray_DIM(bounds, 1), i, size = cnp.PyArray_SIZE(places)
    cdef const double *bound = doubles(bounds, 2)
    if cnp.PyArray_DIM(bounds, 0) != 3 or k == 0 or size % k:
        raise ValueError("places must be (…, n_params), bounds (3, n_params)")
    out = np.array(places, dtype=float, order="C")
    cdef double *place = fresh(out)
    for i in range(size):
        if are_slopes:
            place[i] = slope_of(place[i], bound[i % k], bound[k + i % k], bound[2 * k + i % k])
        else:
            place[i] = value_of(place[i], bound[i % k], bound[k + i % k], bound[2 * k + i % k])
    return out


cdef double value_of(double place, double lower, double upper, double unit) noexcept nogil:
    if isfinite(lower) and isfinite(upper):
        return lower + (upper - lower) * (1.0 + place / sqrt(1.0 + place * place)) / 2.0
    if isfinite(lower):
        return lower + unit * place * place
    return upper - unit * place * place if isfinite(upper) else place * unit


cdef double slope_of(double place, double lower, double upper, double unit) noexcept nogil:
    cdef double spread = 1.0 + place * place
    if isfinite(lower) and isfinite(upper):
        return (upper - lower) / 2.0 / (spread * sqrt(spread))
    if isfinite(lower):
        return 2.0 * unit * place
    return -2.0 * unit * place if isfinite(upper) else unit
