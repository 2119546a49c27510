"""How compiled loops call their target, and what every walk does. The twin is `calls_numpy.py`.

A target with an `address` is called through that C pointer; when it returns NaN and has set an exception, it is called
once more as a Python object, which raises as the user's function does. Any other is called as a Python object through
vectorcall, so a `def` or `cpdef` function that Cython compiled costs about as much as a C callback, and any other
callable works.
"""

cimport cython
cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals, PyErr_Clear, PyErr_ExceptionMatches
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_Check
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer
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
    void drop_if_any "Py_XDECREF"(PyObject* thing)
    Py_ssize_t count_of "Py_REFCNT"(PyObject* thing)
    ctypedef struct Float "PyFloatObject":
        double value "ob_fval"


@cython.final
cdef class Caller:
    """Calls the target at a point: through a C pointer, with floats, or with one float64 vector."""

    # slot 0 is left free for the callee (PY_VECTORCALL_ARGUMENTS_OFFSET)

    def __cinit__(self, target, Py_ssize_t n_params, bint is_scalar, bint is_density, cnp.int64_t[::1] counts,
                  double[::1] first_nan, on_error, split=None):
        cdef size_t address = getattr(target, "address", 0) if hasattr(type(target), "is_pointer") else 0
        self.target = getattr(target, "python", None) or target if address else target
        self.n_params = n_params
        self.is_scalar = is_scalar
        self.is_density = is_density
        self.counts = counts
        self.first_nan = first_nan
        self.on_error = on_error
        self.split = split
        self.pointer = <Pointer> address
        self.slots = <PyObject**> PyMem_Calloc(n_params + 2, sizeof(PyObject*))
        if self.slots == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.is_scalar and self.slots != NULL:  # these floats are ours; a vector is only lent
            for i in range(1, self.n_params + 1):
                drop_if_any(self.slots[i])
        PyMem_Free(self.slots)

    cdef int call(self, const double* point, double* value) except -1:
        cdef PyObject* result
        if self.is_scalar:
            result = self.with_floats(point)
        else:
            self.own_vector()
            result = self.with_vector(point)
        if result == NULL:
            return self.fail(point, value)
        if PyFloat_Check(<object> result) and self.split is None:  # np.float64 is a float too
            value[0] = PyFloat_AS_DOUBLE(<object> result)
            drop(result)
            return 0
        return self.convert(result, point, value)

    cdef int again(self, const double* point, double* value) except -1:
        """Call the target through Python in place of the C function that failed; let Ctrl-C through."""
        if not PyErr_ExceptionMatches(Exception):
            return pending_error()
        PyErr_Clear()
        return self.call(point, value)

    cdef PyObject* with_floats(self, const double* point) noexcept:
        """Return the target's result, or NULL with an exception set. Floats that nobody kept serve again."""
        cdef Py_ssize_t i
        cdef PyObject** arguments = self.slots + 1
        for i in range(self.n_params):
            if arguments[i] != NULL and count_of(arguments[i]) == 1:
                (<Float*> arguments[i]).value = point[i]
            else:
                drop_if_any(arguments[i])
                arguments[i] = new_float(point[i])
                if arguments[i] == NULL:
                    return NULL
        return vectorcall(<PyObject*> self.target, arguments, self.n_params | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)

    cdef int own_vector(self) except -1:
        """Have a vector that nobody else holds: the target may have kept the last one, or a view of it."""
        cdef cnp.npy_intp size = self.n_params
        if self.vector is None or count_of(<PyObject*> self.vector) > 1:
            self.vector = cnp.PyArray_SimpleNew(1, &size, cnp.NPY_DOUBLE)
        return 0

    cdef PyObject* with_vector(self, const double* point) noexcept:
        cdef double* goal = <double*> cnp.PyArray_DATA(self.vector)
        copy(point, self.n_params, goal)
        self.slots[1] = <PyObject*> self.vector
        return vectorcall(<PyObject*> self.target, self.slots + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)

    cdef int fail(self, const double* point, double* value) except -1:
        """Raise what the target raised with the call attached, or let `on_error` make it a rejection."""
        try:
            pending_error()
        except TargetError:
            raise
        except Exception as error:
            note_call(error, self.target, listed(point, self.n_params), self.is_scalar)
            if self.on_error is None:
                raise
            self.on_error(error, listed(point, self.n_params), self.evaluations)
            value[0] = -INFINITY if not self.is_density else 0.0
        return 0

    cdef int convert(self, PyObject* result, const double* point, double* value) except -1:
        """Take a number that is no float, or a number with blobs, or raise; `result` is given up."""
        cdef object owned = <object> result
        drop(result)
        if self.split is None:
            value[0] = checked_number(self.target, owned, listed(point, self.n_params), self.is_scalar)
        else:
            value[0], self.blob = self.split(self.target, owned, listed(point, self.n_params), self.is_scalar)
        return 0

    cdef int judge(self, const double* point, double value) except -1:
        """Count a NaN and keep the first one's point; refuse anything else."""
        if value == value:
            refuse_value(self.target, value, listed(point, self.n_params), self.is_scalar, self.is_density)
        if self.counts[2] == 0:
            copy(point, self.n_params, &self.first_nan[0])
        self.counts[2] += 1
        return 0


cdef int pending_error() except -1:
    """Hand the exception that C code left behind to Cython."""
    return -1


cdef list listed(const double* point, Py_ssize_t n_params):
    return [point[i] for i in range(n_params)]


cdef class Walk:
    """Chains that walk together; a kernel's own class proposes and settles. See `calls_numpy.Walk` for the arguments."""

    def __cinit__(self, target, double[:, ::1] x, double[::1] value, Py_ssize_t n_steps, generator, *, bint is_density,
                  bint is_scalar, Py_ssize_t first_kept, Py_ssize_t thin, double[:, :, ::1] draws,
                  double[:, ::1] values, cnp.int64_t[::1] counts, double[::1] first_nan, on_error=None, mapping=None,
                  shown=None, split=None, list blobs=None, **own):
        self.n_chains, self.n_params, self.n_steps = x.shape[0], x.shape[1], n_steps
        self.caller = Caller(target, self.n_params, is_scalar, is_density, counts, first_nan, on_error, split)
        self.generator = generator
        self.bits = <bitgen_t*> PyCapsule_GetPointer(generator.bit_generator.capsule, "BitGenerator")
        self.is_density, self.is_mapped, self.has_blobs = is_density, mapping is not None, split is not None
        self.next_kept, self.thin, self.draws, self.values = first_kept, thin, draws, values
        self.x, self.value = x, value
        self.rows, self.raws = np.empty((self.n_chains, self.n_params)), np.empty(self.n_chains)
        self.slopes, self.insides = np.zeros(self.n_chains), np.zeros(self.n_chains, dtype=np.int8)
        self.shown, self.points = self.x, self.rows
        if self.is_mapped:
            self.mapping, self.shown = mapping, shown
            self.points = np.empty((self.n_chains, self.n_params))
        if self.has_blobs:
            self.blobs, self.new_blobs = blobs, [None] * self.n_chains
            self.kept_blobs = [[] for _ in range(self.n_chains)]
        if self.n_chains:
            self.y, self.raw, self.jacobian = &self.rows[0, 0], &self.raws[0], &self.slopes[0]
            self.inside = &self.insides[0]

    cdef int propose(self) except -1:
        raise NotImplementedError

    cdef int settle(self) except -1:
        raise NotImplementedError

    cdef int keep(self) except -1:
        cdef Py_ssize_t c
        for c in range(self.n_chains):
            copy(&self.shown[c, 0], self.n_params, &self.draws[c, self.kept, 0])
            self.values[c, self.kept] = self.value[c]
            if self.has_blobs:
                self.kept_blobs[c].append(self.blobs[c])
        self.kept += 1
        self.next_kept += self.thin
        return 0

    def run(self):
        """Take all steps."""
        cdef Py_ssize_t t
        with self.generator.bit_generator.lock:
            for t in range(1, self.n_steps + 1):
                self.propose()
                answer(self)
                self.settle()
                if t % TURN == 0:
                    PyErr_CheckSignals()
                    with nogil:  # lets a waiting thread in: output, a debugger
                        pass
        self.finish()

    def finish(self):
        """Add the evaluations to the counts."""
        self.caller.counts[0] += self.caller.evaluations
        self.caller.evaluations = 0


def drive(list walks, rows):
    """Let walks go in step, and evaluate all their proposals of a step in one call; see `calls_numpy.drive`."""
    cdef Walk walk
    cdef Py_ssize_t t, c, count, n_params = (<Walk> walks[0]).n_params
    cdef double[:, ::1] points
    for t in range((<Walk> walks[0]).n_steps):
        count = 0
        for walk in walks:
            walk.propose()
            if walk.is_mapped:
                map_all(walk)
            for c in range(walk.n_chains):
                count += walk.inside[c]
        if count:
            array = np.empty((count, n_params))
            points, count = array, 0
            for walk in walks:
                for c in range(walk.n_chains):
                    if walk.inside[c]:
                        copy(&walk.points[c, 0], n_params, &points[count, 0])
                        count += 1
            ask(walks, rows, array)
        for walk in walks:
            walk.settle()
    for walk in walks:
        walk.finish()


cdef int ask(list walks, rows, array) except -1:
    """Hand out the answers of one call; when it raises, ask point by point who it was."""
    cdef Walk walk
    cdef Py_ssize_t c, count = 0
    cdef double[::1] answers
    try:
        answers = rows(array)
    except TargetError:
        raise
    except Exception:
        for walk in walks:
            for c in range(walk.n_chains):
                if walk.inside[c]:
                    evaluate(walk.caller, &walk.points[c, 0], walk.raw + c)
        return 0
    for walk in walks:
        for c in range(walk.n_chains):
            if walk.inside[c]:
                walk.caller.evaluations += 1
                walk.raw[c] = answers[count]
                judged(walk.caller, &walk.points[c, 0], answers[count])
                count += 1
    return 0
