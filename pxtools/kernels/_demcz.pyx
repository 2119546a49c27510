"""Differential evolution with an archive, snooker and mixture moves: the compiled loop. Its twin is `demcz_numpy.py`."""

cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.math cimport INFINITY, NAN, floor, log, sqrt
from numpy.random cimport bitgen_t
from numpy.random.c_distributions cimport random_standard_normal
from pxtools.kernels._calls cimport Caller, copy, evaluate

import numpy as np

cnp.import_array()

# how often, in steps, other threads and Ctrl-C get their turn; degrees of freedom of the mixture's components

cdef enum:
    TURN = 256
    DOF = 5
    DIFFERENCE = 0
    SNOOKER = 1
    MIXTURE = 2


cdef struct Mixture:
    Py_ssize_t n_components
    const double* cumulative
    const double* peaks
    const double* means
    const double* factors
    const double* inverses


cdef struct Space:
    Py_ssize_t n_params
    const double* lower
    const double* upper
    const double* period
    const double* jitter
    bint is_periodic


cdef inline double uniform(bitgen_t* bits) noexcept nogil:
    return bits.next_double(bits.state)


cdef inline bint is_inside(const Space* space, const double* y) noexcept nogil:
    cdef Py_ssize_t i
    cdef bint inside = True
    for i in range(space.n_params):
        inside = inside & (space.lower[i] <= y[i]) & (y[i] <= space.upper[i])
    return inside


cdef inline Py_ssize_t below(bitgen_t* bits, Py_ssize_t count) noexcept nogil:
    return <Py_ssize_t> (uniform(bits) * count)


cdef inline void pick_two(bitgen_t* bits, const double* archive, Py_ssize_t count, Py_ssize_t n_params,
                          const double** first, const double** second) noexcept nogil:
    cdef Py_ssize_t a = below(bits, count)
    cdef Py_ssize_t b = below(bits, count - 1)
    if b >= a:
        b += 1
    first[0] = archive + a * n_params
    second[0] = archive + b * n_params


cdef inline void differ(bitgen_t* bits, const Space* space, const double* archive, Py_ssize_t count, const double* x,
                        double* y) noexcept nogil:
    """Propose x + gamma (z1 - z2) + a little noise."""
    cdef Py_ssize_t i
    cdef const double* first
    cdef const double* second
    cdef double gamma = 1.0
    pick_two(bits, archive, count, space.n_params, &first, &second)
    if uniform(bits) >= 0.1:
        gamma = 2.38 / sqrt(2.0 * space.n_params) * (0.9 + 0.2 * uniform(bits))
    for i in range(space.n_params):
        y[i] = x[i] + gamma * (first[i] - second[i]) + space.jitter[i] * (uniform(bits) - 0.5)
        if space.is_periodic and space.period[i] > 0.0:
            y[i] = y[i] - space.period[i] * floor((y[i] - space.lower[i]) / space.period[i])


cdef inline double snook(bitgen_t* bits, const Space* space, const double* archive, Py_ssize_t count, const double* x,
                         double* y) noexcept nogil:
    """Propose a point on the line through x and an archive point; return the logarithm of the Jacobian, or NaN."""
    cdef Py_ssize_t i
    cdef const double* first
    cdef const double* second
    cdef const double* centre = archive + below(bits, count) * space.n_params
    cdef double old = 0.0, new = 0.0, along = 0.0, scale
    pick_two(bits, archive, count, space.n_params, &first, &second)
    for i in range(space.n_params):
        old += (x[i] - centre[i]) * (x[i] - centre[i])
        along += (first[i] - second[i]) * (x[i] - centre[i])
    scale = (1.2 + uniform(bits)) * along
    if old == 0.0:
        return NAN
    scale = scale / old
    for i in range(space.n_params):
        y[i] = x[i] + scale * (x[i] - centre[i])
        new += (y[i] - centre[i]) * (y[i] - centre[i])
    return 0.5 * (space.n_params - 1) * (log(new) - log(old))


cdef inline double half_power(double base, Py_ssize_t twice) noexcept nogil:
    """Return base ** (twice / 2) by multiplications."""
    cdef double result = sqrt(base) if twice & 1 else 1.0
    cdef Py_ssize_t left = twice >> 1
    while left:
        if left & 1:
            result = result * base
        base = base * base
        left >>= 1
    return result


cdef inline double distance(const Mixture* mixture, Py_ssize_t k, Py_ssize_t n_params, const double* y) noexcept nogil:
    """Return 1 + (y - mean)' cov^-1 (y - mean) / DOF."""
    cdef Py_ssize_t i, j
    cdef const double* mean = mixture.means + k * n_params
    cdef const double* inverse = mixture.inverses + k * n_params * n_params
    cdef double total = 0.0, z
    for i in range(n_params):
        z = 0.0
        for j in range(i + 1):
            z = z + inverse[i * n_params + j] * (y[j] - mean[j])
        total = total + z * z
    return 1.0 + total / DOF


cdef inline double mixture_log_density(const Mixture* mixture, Py_ssize_t n_params, const double* y,
                                       double* distances) noexcept nogil:
    cdef Py_ssize_t k
    cdef double nearest = INFINITY, total = 0.0
    for k in range(mixture.n_components):
        distances[k] = distance(mixture, k, n_params, y)
        if distances[k] < nearest:
            nearest = distances[k]
    for k in range(mixture.n_components):
        total = total + mixture.peaks[k] * half_power(nearest / distances[k], DOF + n_params)
    return log(total) - 0.5 * (DOF + n_params) * log(nearest)


cdef inline void draw_from(bitgen_t* bits, const Mixture* mixture, Py_ssize_t n_params, double* normals,
                           double* y) noexcept nogil:
    """Propose a draw of the mixture of multivariate t distributions, whatever x is."""
    cdef Py_ssize_t i, j, k = 0
    cdef double u = uniform(bits), chi2 = 0.0, z, stretch
    cdef const double* factor
    while k < mixture.n_components - 1 and u >= mixture.cumulative[k]:
        k += 1
    for i in range(n_params):
        normals[i] = random_standard_normal(bits)
    for i in range(DOF):
        z = random_standard_normal(bits)
        chi2 = chi2 + z * z
    stretch = sqrt(DOF / chi2)
    factor = mixture.factors + k * n_params * n_params
    for i in range(n_params):
        z = 0.0
        for j in range(i + 1):
            z = z + factor[i * n_params + j] * normals[j]
        y[i] = mixture.means[k * n_params + i] + stretch * z


def walk(target, double[:, ::1] x, double[::1] value, Py_ssize_t n_steps, generator, *, const double[:, ::1] box,
         bint is_density, bint is_scalar, double power, double[:, ::1] archive, Py_ssize_t n_archive, Py_ssize_t first_stored,
         Py_ssize_t store_every, const double[::1] chances, const double[:, ::1] weights, const double[:, ::1] means,
         const double[:, :, :, ::1] factors, Py_ssize_t first_kept, Py_ssize_t thin, double[:, :, ::1] draws, double[:, ::1] values,
         cnp.int64_t[::1] counts, cnp.int64_t[::1] accepted, cnp.int64_t[:, ::1] moves, double[::1] first_nan,
         on_error=None):
    """Move all chains `n_steps` times, in place; see `pxtools.kernels.demcz_numpy.walk`, which does the same bit for bit."""
    cdef Py_ssize_t n_params = x.shape[1], n_chains = x.shape[0], t, c, kept = 0, move
    cdef Py_ssize_t next_kept = first_kept, next_stored = first_stored
    cdef Caller caller = Caller(target, n_params, is_scalar, is_density, counts, first_nan, on_error)
    cdef bitgen_t* bits = <bitgen_t*> PyCapsule_GetPointer(generator.bit_generator.capsule, "BitGenerator")
    cdef Space space
    cdef Mixture mixture
    cdef double new = 0.0, new_log, correction, new_q = 0.0, u
    cdef double[:, ::1] rows = np.empty((2, n_params))
    cdef double[::1] logs = np.array(value), q = np.full(n_chains, np.nan), distances = np.empty(weights.shape[1])
    cdef double* y = &rows[0, 0]
    cdef double* normals = &rows[1, 0]
    cdef double mixture_chance = chances[0], snooker_chance = chances[0] + chances[1]
    space.n_params = n_params
    space.lower, space.upper, space.period, space.jitter = &box[0, 0], &box[1, 0], &box[2, 0], &box[3, 0]
    space.is_periodic = bool((np.asarray(box[2]) > 0).any())
    mixture.n_components = weights.shape[1]
    mixture.cumulative, mixture.peaks, mixture.means = &weights[0, 0], &weights[1, 0], &means[0, 0]
    mixture.factors, mixture.inverses = &factors[0, 0, 0, 0], &factors[1, 0, 0, 0]
    if is_density:
        for c in range(n_chains):
            logs[c] = log(value[c])

    with generator.bit_generator.lock:
        for t in range(1, n_steps + 1):
            for c in range(n_chains):
                u = uniform(bits)
                correction = 0.0
                if u < mixture_chance:
                    move = MIXTURE
                    draw_from(bits, &mixture, n_params, normals, y)
                    if q[c] != q[c]:
                        q[c] = mixture_log_density(&mixture, n_params, &x[c, 0], &distances[0])
                    new_q = mixture_log_density(&mixture, n_params, y, &distances[0])
                    correction = q[c] - new_q
                elif u < snooker_chance:
                    move = SNOOKER
                    correction = snook(bits, &space, &archive[0, 0], n_archive, &x[c, 0], y)
                else:
                    move = DIFFERENCE
                    differ(bits, &space, &archive[0, 0], n_archive, &x[c, 0], y)
                u = uniform(bits)
                moves[0, move] += 1
                # -inf and inf cannot be weighed against each other: both ways are closed, which keeps the balance
                if correction - correction == 0.0 and is_inside(&space, y):
                    evaluate(caller, y, &new)
                    new_log = log(new) if is_density else new
                    if log(u) < power * (new_log - logs[c]) + correction:
                        copy(y, n_params, &x[c, 0])
                        value[c], logs[c] = new, new_log
                        q[c] = new_q if move == MIXTURE else NAN
                        accepted[c] += 1
                        moves[1, move] += 1
            if t == next_kept:
                for c in range(n_chains):
                    copy(&x[c, 0], n_params, &draws[c, kept, 0])
                    values[c, kept] = value[c]
                kept += 1
                next_kept += thin
            if t == next_stored:
                for c in range(n_chains):
                    copy(&x[c, 0], n_params, &archive[n_archive, 0])
                    n_archive += 1
                next_stored += store_every
            if t % TURN == 0:
                PyErr_CheckSignals()
                with nogil:  # lets a waiting thread in: output, a debugger
                    pass
    counts[0] += caller.evaluations
    return n_archive
