"""Random-walk Metropolis with a uniform box: the compiled loop. Its twin is `rwm_numpy.py`.

The target is called as a Python object through vectorcall, so a `def` or `cpdef` function that Cython compiled costs about
as much as a C callback, and any other callable works.
"""

cimport cython
cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_Check
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.math cimport INFINITY, log
from numpy.random cimport bitgen_t

import numpy as np

from pxtools.errors import TargetError
from pxtools.kernels.target_calls import checked_number, note_call, refuse_value

cnp.import_array()

cdef extern from "Python.h":
    size_t PY_VECTORCALL_ARGUMENTS_OFFSET
    PyObject* vectorcall "PyObject_Vectorcall"(PyObject* callable, PyObject** arguments, size_t count, PyObject* names)
    PyObject* new_float "PyFloat_FromDouble"(double value)
    void drop "Py_DECREF"(PyObject* thing)
    Py_ssize_t count_of "Py_REFCNT"(PyObject* thing)

# how often, in steps, other threads and Ctrl-C get their turn

cdef enum:
    TURN = 1024


@cython.final
cdef class Caller:
    """Calls the target at a point: with floats, or with one float64 vector."""

    cdef object target
    cdef object vector
    cdef PyObject** slots  # slot 0 is left free for the callee (PY_VECTORCALL_ARGUMENTS_OFFSET)
    cdef Py_ssize_t n_params
    cdef bint is_scalar

    def __cinit__(self, target, Py_ssize_t n_params, bint is_scalar):
        self.target = target
        self.n_params = n_params
        self.is_scalar = is_scalar
        self.slots = <PyObject**> PyMem_Malloc((n_params + 2) * sizeof(PyObject*))
        if self.slots == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self.slots)

    cdef inline int value_at(self, const double* point, double* value) except -1:
        cdef PyObject* result
        if self.is_scalar:
            result = self.with_floats(point)
        else:
            self.own_vector()
            result = self.with_vector(point)
        if result == NULL:
            self.fail(point)
        if PyFloat_Check(<object> result):  # np.float64 is a float too
            value[0] = PyFloat_AS_DOUBLE(<object> result)
            drop(result)
            return 0
        return self.convert(result, point, value)

    cdef inline PyObject* with_floats(self, const double* point) noexcept:
        """Return the target's result, or NULL with an exception set."""
        cdef Py_ssize_t i, made = 0
        cdef PyObject** arguments = self.slots + 1
        cdef PyObject* result = NULL
        while made < self.n_params:
            arguments[made] = new_float(point[made])
            if arguments[made] == NULL:
                break
            made += 1
        else:
            result = vectorcall(<PyObject*> self.target, arguments, made | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
        for i in range(made):
            drop(arguments[i])
        return result

    cdef inline int own_vector(self) except -1:
        """Have a vector that nobody else holds: the target may have kept the last one, or a view of it."""
        cdef cnp.npy_intp size = self.n_params
        if self.vector is None or count_of(<PyObject*> self.vector) > 1:
            self.vector = cnp.PyArray_SimpleNew(1, &size, cnp.NPY_DOUBLE)
        return 0

    cdef inline PyObject* with_vector(self, const double* point) noexcept:
        copy(point, self.n_params, <double*> cnp.PyArray_DATA(self.vector))
        self.slots[1] = <PyObject*> self.vector
        return vectorcall(<PyObject*> self.target, self.slots + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)

    cdef int fail(self, const double* point) except -1:
        """Raise what the target raised, with the call attached."""
        try:
            pending_error()
        except TargetError:
            raise
        except Exception as error:
            note_call(error, self.target, listed(point, self.n_params), self.is_scalar)
            raise

    cdef int convert(self, PyObject* result, const double* point, double* value) except -1:
        """Take a number that is no float, or raise; `result` is given up."""
        cdef object owned = <object> result
        drop(result)
        value[0] = checked_number(self.target, owned, listed(point, self.n_params), self.is_scalar)
        return 0


cdef int pending_error() except -1:
    """Hand the exception that C code left behind to Cython."""
    return -1


cdef list listed(const double* point, Py_ssize_t n_params):
    return [point[i] for i in range(n_params)]


cdef inline void copy(const double* source, Py_ssize_t count, double* goal) noexcept nogil:
    cdef Py_ssize_t i  # a loop: for a few numbers, calling memcpy costs more
    for i in range(count):
        goal[i] = source[i]


cdef inline bint propose(bitgen_t* bits, const double* x, const double* box, Py_ssize_t n_params, double* y) noexcept nogil:
    """Write a proposal to `y`; tell whether it is inside the bounds. `box` is (3, n_params): half-width, lower, upper."""
    cdef Py_ssize_t i
    cdef bint is_inside = True
    for i in range(n_params):
        y[i] = x[i] + box[i] * (2.0 * bits.next_double(bits.state) - 1.0)
        is_inside = is_inside & (box[n_params + i] <= y[i]) & (y[i] <= box[2 * n_params + i])
    return is_inside


cdef inline bint accepts(double uniform, double old, double new, bint is_density) noexcept nogil:
    """Metropolis' rule; NaN is never accepted. No division: a density may underflow."""
    if is_density:
        return uniform * old < new
    return new >= old or log(uniform) < new - old


def walk(target, double[::1] x, double value, Py_ssize_t n_steps, generator, *, const double[:, ::1] box,
         bint is_density, bint is_scalar, Py_ssize_t first_kept, Py_ssize_t thin, double[:, ::1] draws,
         double[::1] values, cnp.int64_t[::1] counts, double[::1] first_nan):
    """Walk `n_steps` from `x`, in place; see `pxtools.kernels.rwm_numpy.walk`, whose results are the same bit for bit."""
    cdef Caller caller = Caller(target, x.shape[0], is_scalar)
    cdef bitgen_t* bits = <bitgen_t*> PyCapsule_GetPointer(generator.bit_generator.capsule, "BitGenerator")
    cdef Py_ssize_t n_params = x.shape[0], t, kept = 0, next_kept = first_kept
    cdef cnp.int64_t evaluations = 0, accepted = 0, nans = 0
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
                caller.value_at(y, &new)
                evaluations += 1
                if new == INFINITY or (is_density and new < 0.0):
                    refuse_value(target, new, listed(y, n_params), is_scalar, is_density)
                if new != new:
                    if nans == 0 and counts[2] == 0:
                        copy(y, n_params, &first_nan[0])
                    nans += 1
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
    counts[0] += evaluations
    counts[1] += accepted
    counts[2] += nans
    return value
