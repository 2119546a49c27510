"""Pointers to the numbers of NumPy arrays, and room for new ones.

A memoryview costs about a microsecond, as much as filtering a short series: a kernel with many small arrays takes
their addresses instead, after one look at type and order.
"""

cimport numpy as cnp


cdef inline const double *doubles(object array, int ndim) except NULL:
    """Return the address of a C-contiguous float64 array of so many dimensions."""
    if not (cnp.PyArray_Check(array) and cnp.PyArray_NDIM(array) == ndim
            and cnp.PyArray_TYPE(array) == cnp.NPY_DOUBLE and cnp.PyArray_ISCARRAY_RO(array)):
        raise ValueError(f"an array of {ndim} dimensions, C-contiguous and float64, is needed")
    return <const double *> cnp.PyArray_DATA(array)


cdef inline object room(int ndim, Py_ssize_t a, Py_ssize_t b=1, Py_ssize_t c=1, Py_ssize_t d=1):
    """Return a new array of doubles, not filled."""
    cdef cnp.npy_intp[4] shape = [a, b, c, d]
    return cnp.PyArray_EMPTY(ndim, shape, cnp.NPY_DOUBLE, 0)


cdef inline object zeros(int kind, int ndim, Py_ssize_t a, Py_ssize_t b=1, Py_ssize_t c=1, Py_ssize_t d=1):
    """Return a new array of zeros of a type such as NPY_DOUBLE; pages that are never touched cost no memory."""
    cdef cnp.npy_intp[4] shape = [a, b, c, d]
    return cnp.PyArray_ZEROS(ndim, shape, kind, 0)


cdef inline double *fresh(object array) noexcept:
    """Return where to write into an array that `room` or `zeros` made."""
    return <double *> cnp.PyArray_DATA(array)
