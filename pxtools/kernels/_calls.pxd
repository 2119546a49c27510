"""How compiled loops call their target, and what every walk does; shared by all of them."""

cimport numpy as cnp
from cpython.exc cimport PyErr_Occurred
from cpython.object cimport PyObject
from libc.math cimport INFINITY, exp, fabs, log1p
from numpy.random cimport bitgen_t

ctypedef double (*Pointer)(const double*, int) noexcept nogil

cdef enum:
    TURN = 256  # how often, in steps, other threads and Ctrl-C get their turn

cdef enum:
    FREE = 0  # how a coordinate is mapped: not at all
    ABOVE = 1  # anchor + width * exp(y)
    BETWEEN = 2  # anchor + width / (1 + exp(-y))


cdef class Caller:
    cdef object target
    cdef object vector
    cdef object on_error
    cdef object split
    cdef object blob
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


cdef class Walk:
    """Chains that walk together. Each step: `propose`, the target's answers, `settle`."""

    cdef readonly list kept_blobs
    cdef readonly double[::1] value  # (n_chains,) the target at the current points
    cdef Caller caller
    cdef object generator
    cdef bitgen_t* bits
    cdef Py_ssize_t n_chains, n_params, n_steps, t, kept, next_kept, thin
    cdef bint is_density, is_mapped, has_blobs
    cdef double[:, ::1] x, shown, rows, points, mapping
    cdef double[::1] raws, slopes
    cdef char[::1] insides
    cdef double[:, :, ::1] draws
    cdef double[:, ::1] values
    cdef list blobs, new_blobs
    cdef double* y  # (n_chains, n_params) proposals
    cdef double* raw  # (n_chains,) the target there
    cdef double* jacobian  # (n_chains,) its logarithm, 0 where nothing is mapped
    cdef char* inside  # (n_chains,) the proposal is to be evaluated

    cdef int propose(self) except -1
    cdef int settle(self) except -1
    cdef int keep(self) except -1


cdef inline int judged(Caller caller, const double* point, double value) except -1:
    if value != value or value == INFINITY or (caller.is_density and value < 0.0):
        caller.judge(point, value)
    return 0


cdef inline int evaluate(Caller caller, const double* point, double* value) except -1:
    """Call the target, count the call; refuse what no density can be."""
    caller.evaluations += 1
    if caller.pointer != NULL:
        value[0] = caller.pointer(point, <int> caller.n_params)
        if value[0] != value[0] and PyErr_Occurred() != NULL:
            caller.again(point, value)
    else:
        caller.call(point, value)
    return judged(caller, point, value[0])


cdef inline void copy(const double* source, Py_ssize_t count, double* goal) noexcept nogil:
    cdef Py_ssize_t i  # a loop: for a few numbers, calling memcpy costs more
    for i in range(count):
        goal[i] = source[i]


cdef inline bint map_point(const double* mapping, Py_ssize_t n_params, const double* y, double* x,
                           double* jacobian) noexcept nogil:
    """Write the point that the target sees and the logarithm of the Jacobian; False where rounding leaves the inside."""
    cdef Py_ssize_t i
    cdef double total = 0.0, small, anchor, width
    for i in range(n_params):
        anchor, width = mapping[n_params + i], mapping[2 * n_params + i]
        if mapping[i] == FREE:
            x[i] = y[i]
            continue
        if fabs(y[i]) > 700.0:
            return False
        if mapping[i] == ABOVE:
            x[i] = anchor + width * exp(y[i])
            total = total + y[i]
        else:
            small = exp(-fabs(y[i]))
            x[i] = anchor + width * ((1.0 if y[i] >= 0.0 else small) / (1.0 + small))
            total = total - fabs(y[i]) - 2.0 * log1p(small)
            if x[i] == anchor + width:
                return False
        if x[i] == anchor:
            return False
    jacobian[0] = total
    return True


cdef inline void map_all(Walk walk) noexcept nogil:
    cdef Py_ssize_t c
    for c in range(walk.n_chains):
        if walk.inside[c]:
            walk.inside[c] = map_point(&walk.mapping[0, 0], walk.n_params, walk.y + c * walk.n_params,
                                       &walk.points[c, 0], walk.jacobian + c)


cdef inline int answer(Walk walk) except -1:
    """Evaluate the target at the proposals, one after the other."""
    cdef Py_ssize_t c
    if walk.is_mapped:
        map_all(walk)
    for c in range(walk.n_chains):
        if walk.inside[c]:
            evaluate(walk.caller, &walk.points[c, 0], walk.raw + c)
            if walk.has_blobs:
                walk.new_blobs[c] = walk.caller.blob
    return 0


cdef inline int accept(Walk walk, Py_ssize_t c) except -1:
    """Make the proposal of chain `c` its point."""
    copy(walk.y + c * walk.n_params, walk.n_params, &walk.x[c, 0])
    if walk.is_mapped:
        copy(&walk.points[c, 0], walk.n_params, &walk.shown[c, 0])
    walk.value[c] = walk.raw[c]
    if walk.has_blobs:
        walk.blobs[c] = walk.new_blobs[c]
    return 0


cdef inline int end_step(Walk walk) except -1:
    """Keep the points, if it is their turn."""
    walk.t += 1
    if walk.t == walk.next_kept:
        walk.keep()
    return 0
