"""Differential evolution with an archive, snooker and mixture moves: the compiled loop. Its twin is `demcz_numpy.py`."""

cimport cython
cimport numpy as cnp
from libc.math cimport INFINITY, NAN, floor, log, sqrt
from numpy.random cimport bitgen_t
from numpy.random.c_distributions cimport random_standard_normal
from pxtools.kernels._calls cimport Walk as AnyWalk, accept, copy, end_step

import numpy as np

cnp.import_array()

# degrees of freedom of the mixture's components; the moves

cdef enum:
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


@cython.final
cdef class Walk(AnyWalk):
    """The chains of a group; see `pxtools.kernels.demcz_numpy.steps`."""

    cdef readonly Py_ssize_t n_archive
    cdef const double[:, ::1] box, weights, means
    cdef const double[:, :, :, ::1] factors
    cdef readonly double[:, ::1] archive
    cdef double[:, ::1] numbers
    cdef double[::1] logs, q, distances, normals
    cdef Py_ssize_t next_stored, store_every
    cdef cnp.int64_t[::1] accepted
    cdef readonly cnp.int64_t[:, ::1] moves
    cdef double power, mixture_chance, snooker_chance
    cdef Space space
    cdef Mixture mixture

    def __init__(self, *shared, const double[:, ::1] box, double power, double[:, ::1] archive, Py_ssize_t n_archive,
                 Py_ssize_t first_stored, Py_ssize_t store_every, const double[::1] chances,
                 const double[:, ::1] weights, const double[:, ::1] means, const double[:, :, :, ::1] factors,
                 cnp.int64_t[::1] accepted, cnp.int64_t[:, ::1] moves, slopes=None, **rest):
        cdef Py_ssize_t c
        self.box, self.power, self.archive, self.n_archive = box, power, archive, n_archive
        self.next_stored, self.store_every = first_stored, store_every
        self.weights, self.means, self.factors, self.accepted, self.moves = weights, means, factors, accepted, moves
        self.mixture_chance, self.snooker_chance = chances[0], chances[0] + chances[1]
        self.logs, self.q = np.array(self.value), np.full(self.n_chains, np.nan)
        self.distances, self.normals = np.empty(weights.shape[1]), np.empty(self.n_params)
        self.numbers = np.empty((self.n_chains, 4))  # of each proposal: move, correction, mixture's density, uniform
        self.space.n_params = self.n_params
        self.space.lower, self.space.upper, self.space.period = &box[0, 0], &box[1, 0], &box[2, 0]
        self.space.jitter, self.space.is_periodic = &box[3, 0], bool((np.asarray(box[2]) > 0).any())
        self.mixture.n_components = weights.shape[1]
        self.mixture.cumulative, self.mixture.peaks, self.mixture.means = &weights[0, 0], &weights[1, 0], &means[0, 0]
        self.mixture.factors, self.mixture.inverses = &factors[0, 0, 0, 0], &factors[1, 0, 0, 0]
        for c in range(self.n_chains):
            self.logs[c] = (log(self.value[c]) if self.is_density else self.value[c]) + (0.0 if slopes is None else slopes[c])

    cdef int propose(self) except -1:
        cdef Py_ssize_t c
        for c in range(self.n_chains):
            self.propose_one(c, self.y + c * self.n_params, &self.numbers[c, 0])
        return 0

    cdef inline void propose_one(self, Py_ssize_t c, double* y, double* numbers) noexcept nogil:
        cdef double correction = 0.0, new_q = NAN, u = uniform(self.bits)
        cdef Py_ssize_t move, n_params = self.n_params
        if u < self.mixture_chance:
            move = MIXTURE
            draw_from(self.bits, &self.mixture, n_params, &self.normals[0], y)
            if self.q[c] != self.q[c]:
                self.q[c] = mixture_log_density(&self.mixture, n_params, &self.x[c, 0], &self.distances[0])
            new_q = mixture_log_density(&self.mixture, n_params, y, &self.distances[0])
            correction = self.q[c] - new_q
        elif u < self.snooker_chance:
            move = SNOOKER
            correction = snook(self.bits, &self.space, &self.archive[0, 0], self.n_archive, &self.x[c, 0], y)
        else:
            move = DIFFERENCE
            differ(self.bits, &self.space, &self.archive[0, 0], self.n_archive, &self.x[c, 0], y)
        numbers[0], numbers[1], numbers[2], numbers[3] = move, correction, new_q, uniform(self.bits)
        # -inf and inf cannot be weighed against each other: both ways are closed, which keeps the balance
        self.inside[c] = correction - correction == 0.0 and is_inside(&self.space, y)

    cdef int settle(self) except -1:
        cdef Py_ssize_t c, move
        cdef double new_log
        for c in range(self.n_chains):
            move = <Py_ssize_t> self.numbers[c, 0]
            self.moves[0, move] += 1
            if not self.inside[c]:
                continue
            new_log = (log(self.raw[c]) if self.is_density else self.raw[c]) + self.jacobian[c]
            if log(self.numbers[c, 3]) < self.power * (new_log - self.logs[c]) + self.numbers[c, 1]:
                accept(self, c)
                self.logs[c], self.q[c] = new_log, self.numbers[c, 2]
                self.accepted[c] += 1
                self.moves[1, move] += 1
        end_step(self)
        if self.t == self.next_stored:
            for c in range(self.n_chains):
                copy(&self.x[c, 0], self.n_params, &self.archive[self.n_archive, 0])
                self.n_archive += 1
            self.next_stored += self.store_every
        return 0


def walk(target, double[:, ::1] x, double[::1] value, Py_ssize_t n_steps, generator, **options):
    """Move all chains `n_steps` times, in place; see `pxtools.kernels.demcz_numpy.walk`, which does the same bit for bit."""
    cdef Walk chains = Walk(target, x, value, n_steps, generator, **options)
    chains.run()
    return chains.n_archive
