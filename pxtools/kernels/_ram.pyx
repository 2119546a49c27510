"""Robust adaptive Metropolis: the compiled loop. Its twin is `ram_numpy.py`."""

cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.math cimport exp, floor, log, sqrt
from numpy.random cimport bitgen_t
from numpy.random.c_distributions cimport random_standard_normal
from pxtools.kernels._calls cimport Caller, copy, evaluate

import numpy as np

cnp.import_array()

# how often, in steps, other threads and Ctrl-C get their turn

cdef enum:
    TURN = 1024


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


def walk(target, double[::1] x, double value, Py_ssize_t n_steps, generator, *, const double[:, ::1] box,
         bint is_density, bint is_scalar, double[:, ::1] factor, const double[::1] rates, double goal,
         Py_ssize_t first_kept, Py_ssize_t thin, double[:, ::1] draws, double[::1] values, cnp.int64_t[::1] counts,
         double[::1] first_nan, on_error=None):
    """Walk `n_steps` from `x`, in place; see `pxtools.kernels.ram_numpy.walk`, whose results are the same bit for bit."""
    cdef Py_ssize_t n_params = x.shape[0], t, kept = 0, next_kept = first_kept, n_rates = rates.shape[0]
    cdef Caller caller = Caller(target, n_params, is_scalar, is_density, counts, first_nan, on_error)
    cdef bitgen_t* bits = <bitgen_t*> PyCapsule_GetPointer(generator.bit_generator.capsule, "BitGenerator")
    cdef cnp.int64_t accepted = 0
    cdef double new = 0.0, new_log = 0.0, here_log = log(value) if is_density else value, u, difference, chance
    cdef double[:, ::1] rows = np.empty((3, n_params))
    cdef double* y = &rows[0, 0]
    cdef double* here = &x[0]
    cdef bint is_inside

    with generator.bit_generator.lock:
        for t in range(1, n_steps + 1):
            is_inside = propose(bits, here, &box[0, 0], &factor[0, 0], n_params, &rows[1, 0], y)
            u = bits.next_double(bits.state)
            chance = 0.0
            if is_inside:
                evaluate(caller, y, &new)
                new_log = log(new) if is_density else new
                difference = new_log - here_log
                if difference >= 0.0:
                    chance = 1.0
                elif difference == difference:
                    chance = exp(difference)
                if u < chance:
                    copy(y, n_params, here)
                    value, here_log = new, new_log
                    accepted += 1
            if t <= n_rates:
                update(&factor[0, 0], n_params, &rows[1, 0], rates[t - 1] * (chance - goal), &rows[2, 0])
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
