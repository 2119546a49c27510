"""Compiled climb of a log-likelihood: see `kalman_climb_numpy` for the twin.

Steps have a handful of elements, and a call of NumPy takes as long as filtering a short series.
"""

import numpy as np

cimport numpy as cnp
from libc.math cimport INFINITY, fabs, isfinite, sqrt
from libc.string cimport memcpy

from pxtools.kernels._arrays cimport doubles, fresh, room

from pxtools.kernels.kalman_climb_numpy import GAIN, MAX_TRIALS, PATIENCE, ROUND_OFF, SLOPE, Place, inverted

cnp.import_array()

cdef double gain_wanted = GAIN, slope_left = SLOPE, round_off = ROUND_OFF
cdef int max_trials = MAX_TRIALS, patience = PATIENCE


def ascend(hill, start, double gradient_goal, after_step):
    """See `kalman_climb_numpy.ascend`."""
    cdef Py_ssize_t k = len(start.at), i
    work = room(1, k * (k + 4))
    cdef double *direction = fresh(work)
    cdef double *step = direction + k
    cdef double *bend = step + k
    cdef double *moved = bend + k
    cdef double *inverse = moved + k
    cdef bint has_inverse = False, is_fresh = False
    cdef int idle = 0
    cdef double slow = 1 - 1 / (1.0 + k) if hill.is_cheap else INFINITY
    cdef double size, rise, curvature
    cdef const double *slope
    here = start
    while True:
        slope = doubles(here.gradient, 1)
        size = largest(k, slope)
        if not size > gradient_goal:
            return here, "flat"
        if not has_inverse:
            fresh_inverse = np.ascontiguousarray(inverted(hill.bends(here), here))
            memcpy(inverse, doubles(fresh_inverse, 2), k * k * sizeof(double))
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
        if largest(k, doubles(there.gradient, 1)) > slow * size:
            has_inverse = False
        elif curvature > 0:
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
    cdef double low = 0.0, high = INFINITY, length = 1.0, height = here.height, best_height = height, least, found
    cdef const double *at = doubles(here.at, 1)
    cdef Py_ssize_t i
    cdef bint is_same
    best = None
    for _ in range(max_trials):
        place = room(1, k)
        for i in range(k):
            fresh(place)[i] = at[i] + length * direction[i]
        look = hill.look(place)
        found, least = look.height, height + gain_wanted * length * slope
        if best is not None:
            least = max(least, best_height)
        if not found >= least:
            high = length
        else:
            best, best_height, low = Place(place, found, look.gradient()), found, length
            if dot(k, doubles(best.gradient, 1), direction) <= slope_left * slope:
                return best
        length = 2 * low if high == INFINITY else (low + high) / 2
        is_same = True
        for i in range(k):
            is_same = is_same and at[i] + length * direction[i] == fresh(place)[i]
        if is_same:
            break
    return best


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
    moves = on_line(places, bounds, False)
    cdef Py_ssize_t k = cnp.PyArray_DIM(bounds, 1), i, j, n_points = cnp.PyArray_DIM(places, 0)
    cdef double *move = fresh(moves)
    cdef const double *origin = doubles(base, 1)
    cdef const double *bound = doubles(bounds, 2)
    cdef const double *place = doubles(places, 2)
    if cnp.PyArray_DIM(base, 0) != k:
        raise ValueError("base must be (n_params,)")
    for i in range(n_points):
        for j in range(k):
            move[i * k + j] -= origin[j]
    totals, slopes, lost = likelihood.at(moves, gradients)
    cdef double *slope
    if gradients:
        if not (doubles(slopes, 2) and cnp.PyArray_DIM(slopes, 0) == n_points and cnp.PyArray_DIM(slopes, 1) == k):
            raise ValueError("slopes must be (n_points, n_params)")
        slope = fresh(slopes)
        for i in range(n_points):
            for j in range(k):
                slope[i * k + j] *= slope_of(place[i * k + j], bound[j], bound[k + j], bound[2 * k + j])
    return totals, slopes, lost


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
