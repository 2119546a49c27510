"""Robust adaptive Metropolis: the compiled loop. Its twin is `ram_numpy.py`."""

cimport cython
cimport numpy as cnp
from libc.math cimport exp, floor, log, sqrt
from numpy.random cimport bitgen_t
from numpy.random.c_distributions cimport random_standard_normal
from pxtools.kernels._calls cimport Walk as AnyWalk, accept, end_step

import numpy as np

cnp.import_array()

cdef inline bint propose(bitgen_t* bits, const double* x, const double* box, const double* factor, Py_ssize_t n_params,
                         double* normals, double* y) noexcept nogil:
    cdef Py_ssize_t i, j
    cdef double move, period
    cdef bint is_inside = True
    for i in range(n_params):
        normals[i] = random_standard_normal(bits)
    for i in range(n_params):
        move = 0.0
        for j in range(i + 1):
            move = move + factor[i * n_params + j] * normals[j]
        y[i] = x[i] + move
        period = box[2 * n_params + i]
        if period > 0.0:
            y[i] = y[i] - period * floor((y[i] - box[i]) / period)
        is_inside = is_inside & (box[i] <= y[i]) & (y[i] <= box[n_params + i])
    return is_inside


cdef inline void update(double* factor, Py_ssize_t n_params, const double* normals, double change,
                        double* move) noexcept nogil:
    """Make S S' into S (I + change u u' / |u|^2) S': a rank-one update of the Cholesky factor."""
    cdef Py_ssize_t i, j
    cdef double square = 0.0, weight, pivot, old, new, ratio
    for i in range(n_params):
        square = square + normals[i] * normals[i]
    if square == 0.0:
        return
    for i in range(n_params):
        move[i] = 0.0
        for j in range(i + 1):
            move[i] = move[i] + factor[i * n_params + j] * normals[j]
    weight = change / square
    ratio = 1.0
    for j in range(n_params):
        old = factor[j * n_params + j]
        pivot = move[j]
        new = sqrt(old * old + weight / ratio * pivot * pivot)
        square = old * old * ratio + weight * pivot * pivot
        for i in range(j + 1, n_params):
            move[i] = move[i] - pivot / old * factor[i * n_params + j]
            factor[i * n_params + j] = (new / old * factor[i * n_params + j]
                                        + new * weight * pivot / square * move[i])
        ratio = ratio + weight * pivot * pivot / (old * old)
        factor[j * n_params + j] = new


@cython.final
cdef class Walk(AnyWalk):
    """One chain; see `pxtools.kernels.ram_numpy.steps`."""

    cdef const double[:, ::1] box
    cdef readonly double[:, ::1] factor
    cdef double[:, ::1] scratch
    cdef const double[::1] rates
    cdef double goal, uniform, here_log
    cdef cnp.int64_t accepted

    def __init__(self, *shared, const double[:, ::1] box, double[:, ::1] factor, const double[::1] rates, double goal,
                 double slope=0.0, **rest):
        self.box, self.factor, self.rates, self.goal = box, factor, rates, goal
        self.scratch = np.empty((2, self.n_params))
        self.here_log = (log(self.value[0]) if self.is_density else self.value[0]) + slope

    cdef int propose(self) except -1:
        self.inside[0] = propose(self.bits, &self.x[0, 0], &self.box[0, 0], &self.factor[0, 0], self.n_params,
                                 &self.scratch[0, 0], self.y)
        self.uniform = self.bits.next_double(self.bits.state)
        return 0

    cdef int settle(self) except -1:
        cdef double new_log, difference, chance = 0.0
        if self.inside[0]:
            new_log = (log(self.raw[0]) if self.is_density else self.raw[0]) + self.jacobian[0]
            difference = new_log - self.here_log
            if difference >= 0.0:
                chance = 1.0
            elif difference == difference:
                chance = exp(difference)
            if self.uniform < chance:
                accept(self, 0)
                self.here_log = new_log
                self.accepted += 1
        if self.t < self.rates.shape[0]:
            update(&self.factor[0, 0], self.n_params, &self.scratch[0, 0], self.rates[self.t] * (chance - self.goal),
                   &self.scratch[1, 0])
        return end_step(self)

    def finish(self):
        """Add what was counted to the counts."""
        AnyWalk.finish(self)
        self.caller.counts[1] += self.accepted
        self.accepted = 0


def walk(target, double[::1] x, double value, Py_ssize_t n_steps, generator, *, double[:, ::1] draws,
         double[::1] values, **options):
    """Walk `n_steps` from `x`, in place; see `pxtools.kernels.ram_numpy.walk`, whose results are the same bit for bit."""
    cdef Walk one = Walk(target, np.asarray(x)[np.newaxis], np.array([value]), n_steps, generator,
                         draws=np.asarray(draws)[np.newaxis], values=np.asarray(values)[np.newaxis], **options)
    one.run()
    return one.value[0]
