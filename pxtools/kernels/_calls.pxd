"""How compiled loops call their target; shared by all of them."""

cimport numpy as cnp
from cpython.exc cimport PyErr_Occurred
from cpython.object cimport PyObject
from libc.math cimport INFINITY

ctypedef double (*Pointer)(const double*, int) noexcept nogil


cdef class Caller:
    cdef object target
    cdef object vector
    cdef object on_error
    cdef PyObject** slots
    cdef Py_ssize_t n_params
    cdef bint is_scalar
    cdef bint is_density
    cdef Pointer pointer
    cdef cnp.int64_t[::1] counts
    cdef double[::1] first_nan
    cdef cnp.int64_t evaluations

    cdef int call(self, const double* point, double* value) except -1
    cdef int again(self, const double* point, double* value) except -1
    cdef PyObject* with_floats(self, const double* point) noexcept
    cdef int own_vector(self) except -1
    cdef PyObject* with_vector(self, const double* point) noexcept
    cdef int fail(self, const double* point, double* value) except -1
    cdef int convert(self, PyObject* result, const double* point, double* value) except -1
    cdef int judge(self, const double* point, double value) except -1


cdef inline int evaluate(Caller caller, const double* point, double* value) except -1:
    """Call the target, count the call; refuse what no density can be."""
    caller.evaluations += 1
    if caller.pointer != NULL:
        value[0] = caller.pointer(point, <int> caller.n_params)
        if value[0] != value[0] and PyErr_Occurred() != NULL:
            caller.again(point, value)
    else:
        caller.call(point, value)
    if value[0] != value[0] or value[0] == INFINITY or (caller.is_density and value[0] < 0.0):
        caller.judge(point, value[0])
    return 0


cdef inline void copy(const double* source, Py_ssize_t count, double* goal) noexcept nogil:
    cdef Py_ssize_t i  # a loop: for a few numbers, calling memcpy costs more
    for i in range(count):
        goal[i] = source[i]
