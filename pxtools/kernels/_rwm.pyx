"""Random-walk Metropolis with a uniform box: the compiled loop. Its twin is `rwm_numpy.py`."""

cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.math cimport floor, log
from numpy.random cimport bitgen_t
from pxtools.kernels._calls cimport Caller, copy, evaluate

import numpy as np

cnp.import_array()

# how often, in steps, other threads and Ctrl-C get their turn

cdef enum:
    TURN = 1024


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


def walk(target, double[::1] x, double value, Py_ssize_t n_steps, generator, *, const double[:, ::1] box,
         bint is_density, bint is_scalar, Py_ssize_t first_kept, Py_ssize_t thin, double[:, ::1] draws,
         double[::1] values, cnp.int64_t[::1] counts, double[::1] first_nan, on_error=None):
    """Walk `n_steps` from `x`, in place; see `pxtools.kernels.rwm_numpy.walk`, whose results are the same bit for bit."""
    cdef Caller caller = Caller(target, x.shape[0], is_scalar, is_density, counts, first_nan, on_error)
    cdef bitgen_t* bits = <bitgen_t*> PyCapsule_GetPointer(generator.bit_generator.capsule, "BitGenerator")
    cdef Py_ssize_t n_params = x.shape[0], t, kept = 0, next_kept = first_kept
    cdef cnp.int64_t accepted = 0
    cdef double new = 0.0, uniform
    cdef bint is_inside
    scratch = np.empty(n_params)
    cdef double[::1] proposal = scratch
    cdef double* y = &proposal[0]
    cdef double* here = &x[0]

    with generator.bit_generator.lock:
        for t in range(1, n_steps + 1):
            is_inside = propose(bits, here, &box[0, 0], n_params, y)
            uniform = bits.next_double(bits.state)
            if is_inside:
                evaluate(caller, y, &new)
                if accepts(uniform, value, new, is_density):
                    copy(y, n_params, here)
                    value = new
                    accepted += 1
            if t == next_kept:
                copy(here, n_params, &draws[kept, 0])
                values[kept] = value
                kept += 1
                next_kept += thin
            if t % TURN == 0:
                PyErr_CheckSignals()
                with nogil:  # lets a waiting thread in: output, a debugger
                    pass
    counts[0] += caller.evaluations
    counts[1] += accepted
    return value
