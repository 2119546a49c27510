"""How compiled loops call their target. The twin is `calls_numpy.py`.

A target with an `address` is called through that C pointer; when it returns NaN and has set an exception, it is called
once more as a Python object, which raises as the user's function does. Any other is called as a Python object through
vectorcall, so a `def` or `cpdef` function that Cython compiled costs about as much as a C callback, and any other
callable works.
"""

cimport cython
cimport numpy as cnp
from cpython.exc cimport PyErr_Clear, PyErr_ExceptionMatches
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_Check
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from libc.math cimport NAN

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
                  double[::1] first_nan, on_error):
        cdef size_t address = getattr(target, "address", 0) if hasattr(type(target), "is_pointer") else 0
        self.target = getattr(target, "python", None) or target if address else target
        self.n_params = n_params
        self.is_scalar = is_scalar
        self.is_density = is_density
        self.counts = counts
        self.first_nan = first_nan
        self.on_error = on_error
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
        if PyFloat_Check(<object> result):  # np.float64 is a float too
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
        """Take a number that is no float, or raise; `result` is given up."""
        cdef object owned = <object> result
        drop(result)
        value[0] = checked_number(self.target, owned, listed(point, self.n_params), self.is_scalar)
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
