"""Random-walk Metropolis with a uniform box: the compiled loop. Its twin is `rwm_numpy.py`."""

cimport cython
cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from libc.math cimport floor, log
from numpy.random cimport bitgen_t
from pxtools.kernels._calls cimport Caller, TURN, Walk as AnyWalk, accept, copy, end_step, evaluate

import numpy as np

cnp.import_array()

cdef inline bint propose(bitgen_t* bits, const double* x, const double* box, Py_ssize_t n_params, double* y) noexcept nogil:
    """Write a proposal to `y`; tell whether it is inside. `box` is (4, n_params): half-width, lower, upper, period."""
    cdef Py_ssize_t i
    cdef double period
    cdef bint is_inside = True
    for i in range(n_params):
        y[i] = x[i] + box[i] * (2.0 * bits.next_double(bits.state) - 1.0)
        period = box[3 * n_params + i]
        if period > 0.0:
            y[i] = y[i] - period * floor((y[i] - box[n_params + i]) / period)
        is_inside = is_inside & (box[n_params + i] <= y[i]) & (y[i] <= box[2 * n_params + i])
    return is_inside


cdef inline bint accepts(double uniform, double old, double new, bint is_density) noexcept nogil:
    """Metropolis' rule; NaN is never accepted. No division: a density may underflow."""
    if is_density:
        return uniform * old < new
    return new >= old or log(uniform) < new - old


@cython.final
cdef class Walk(AnyWalk):
    """One chain; see `pxtools.kernels.rwm_numpy.steps`."""

    cdef const double[:, ::1] box
    cdef double uniform, slope
    cdef cnp.int64_t accepted

    def __init__(self, *shared, const double[:, ::1] box, double slope=0.0, **rest):
        self.box, self.slope = box, slope

    cdef int propose(self) except -1:
        self.inside[0] = propose(self.bits, &self.x[0, 0], &self.box[0, 0], self.n_params, self.y)
        self.uniform = self.bits.next_double(self.bits.state)
        return 0

    cdef int settle(self) except -1:
        if self.inside[0] and self.is_accepted():
            self.slope = self.jacobian[0]
            accept(self, 0)
            self.accepted += 1
        return end_step(self)

    cdef inline bint is_accepted(self) noexcept nogil:
        cdef double old = self.value[0], new = self.raw[0]
        if not self.is_mapped:
            return accepts(self.uniform, old, new, self.is_density)
        if self.is_density:
            old, new = log(old), log(new)
        return accepts(self.uniform, old + self.slope, new + self.jacobian[0], False)

    def run(self):
        """Take all steps; the plain case, where a step may cost no more than the target, has a loop of its own."""
        if self.is_mapped or self.has_blobs:
            AnyWalk.run(self)
            return
        with self.generator.bit_generator.lock:
            self.run_plain()
        self.finish()

    cdef int run_plain(self) except -1:
        cdef Caller caller = self.caller
        cdef bitgen_t* bits = self.bits
        cdef Py_ssize_t t, n_params = self.n_params, next_kept = self.next_kept
        cdef cnp.int64_t accepted = 0
        cdef double uniform, new = 0.0, value = self.value[0]
        cdef bint is_inside, is_density = self.is_density
        cdef double* here = &self.x[0, 0]
        cdef double* y = self.y
        cdef const double* box = &self.box[0, 0]
        for t in range(1, self.n_steps + 1):
            is_inside = propose(bits, here, box, n_params, y)
            uniform = bits.next_double(bits.state)
            if is_inside:
                evaluate(caller, y, &new)
                if accepts(uniform, value, new, is_density):
                    copy(y, n_params, here)
                    value = new
                    accepted += 1
            if t == next_kept:
                copy(here, n_params, &self.draws[0, self.kept, 0])
                self.values[0, self.kept] = value
                self.kept += 1
                next_kept += self.thin
            if t % TURN == 0:
                PyErr_CheckSignals()
                with nogil:  # lets a waiting thread in: output, a debugger
                    pass
        self.value[0] = value
        self.accepted += accepted
        return 0

    def finish(self):
        """Add what was counted to the counts."""
        AnyWalk.finish(self)
        self.caller.counts[1] += self.accepted
        self.accepted = 0


def walk(target, double[::1] x, double value, Py_ssize_t n_steps, generator, *, double[:, ::1] draws,
         double[::1] values, **options):
    """Walk `n_steps` from `x`, in place; see `pxtools.kernels.rwm_numpy.walk`, whose results are the same bit for bit."""
    cdef Walk one = Walk(target, np.asarray(x)[np.newaxis], np.array([value]), n_steps, generator,
                         draws=np.asarray(draws)[np.newaxis], values=np.asarray(values)[np.newaxis], **options)
    one.run()
    return one.value[0]
