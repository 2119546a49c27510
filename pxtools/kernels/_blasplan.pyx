"""Run a table of BLAS and LAPACK operations without Python between them.

All matrices are column-major pieces (slot, offset, leading dimension) of the buffers; the columns of the table are
named in `blasplan.py`, which also holds the NumPy twin. BLAS comes from SciPy's `cython_blas` only: NumPy carries a
second OpenBLAS, and two thread pools in one process slow each other down.
"""

cimport cython
from libc.stdint cimport int64_t
from scipy.linalg.cython_blas cimport (
    dgemm, dgemv, dsymm, dsymv, dsyrk, dtrmm, dtrsm, dtrsv, sgemm, sgemv, ssymm, ssymv, ssyrk, strmm, strsm, strsv,
)
from scipy.linalg.cython_lapack cimport (
    dgetrf, dgetri, dgetrs, dpotrf, dpotri, dsytrf, dsytrs, dtpmqrt, dtpqrt, dtrtri,
    sgetrf, sgetri, sgetrs, spotrf, spotri, ssytrf, ssytrs, stpmqrt, stpqrt, strtri,
)
cimport numpy as cnp

from pxtools.kernels._blasplan_entries cimport (
    Step, axpby, check, determinant, dot, fill, hadamard, mirror, real, reciprocal, scalar, scale_by,
)

cnp.import_array()

cdef int SMALL = 64  # below this a triangle is left to BLAS
cdef int LEAF = 128  # and a Cholesky factor to LAPACK


cdef inline char letter(int flag) noexcept nogil:
    return c'T' if flag else c'N'


# -- products ------------------------------------------------------------------------------------------------------

cdef void gemm(int ta, int tb, int m, int n, int k, real alpha, real* a, int lda, real* b, int ldb,
               real beta, real* c, int ldc) noexcept nogil:
    """C = alpha op(A) op(B) + beta C, by GEMV when one side is a vector."""
    cdef char t, u
    cdef int inc, incc, rows, cols
    if m == 0 or n == 0:
        return
    if k == 0:
        t, u = c'N', c'N'
        if real is double:
            dgemm(&t, &u, &m, &n, &k, &alpha, a, &lda, b, &ldb, &beta, c, &ldc)
        else:
            sgemm(&t, &u, &m, &n, &k, &alpha, a, &lda, b, &ldb, &beta, c, &ldc)
        return
    if n == 1:
        t = letter(ta)
        inc = ldb if tb else 1
        incc = 1
        rows, cols = (k, m) if ta else (m, k)
        if real is double:
            dgemv(&t, &rows, &cols, &alpha, a, &lda, b, &inc, &beta, c, &incc)
        else:
            sgemv(&t, &rows, &cols, &alpha, a, &lda, b, &inc, &beta, c, &incc)
    elif m == 1:
        t = letter(not tb)
        inc = 1 if ta else lda
        rows, cols = (n, k) if tb else (k, n)
        if real is double:
            dgemv(&t, &rows, &cols, &alpha, b, &ldb, a, &inc, &beta, c, &ldc)
        else:
            sgemv(&t, &rows, &cols, &alpha, b, &ldb, a, &inc, &beta, c, &ldc)
    else:
        t, u = letter(ta), letter(tb)
        if real is double:
            dgemm(&t, &u, &m, &n, &k, &alpha, a, &lda, b, &ldb, &beta, c, &ldc)
        else:
            sgemm(&t, &u, &m, &n, &k, &alpha, a, &lda, b, &ldb, &beta, c, &ldc)


cdef void symm(int right, int m, int n, real alpha, real* a, int lda, real* b, int ldb, real beta, real* c,
               int ldc) noexcept nogil:
    """C = alpha A B + beta C (or B A) with the lower triangle of a symmetric A."""
    cdef char side = c'R' if right else c'L'
    cdef char uplo = c'L'
    cdef int one = 1
    if m == 0 or n == 0:
        return
    if n == 1 and not right:
        if real is double:
            dsymv(&uplo, &m, &alpha, a, &lda, b, &one, &beta, c, &one)
        else:
            ssymv(&uplo, &m, &alpha, a, &lda, b, &one, &beta, c, &one)
    elif m == 1 and right:
        if real is double:
            dsymv(&uplo, &n, &alpha, a, &lda, b, &ldb, &beta, c, &ldc)
        else:
            ssymv(&uplo, &n, &alpha, a, &lda, b, &ldb, &beta, c, &ldc)
    elif real is double:
        dsymm(&side, &uplo, &m, &n, &alpha, a, &lda, b, &ldb, &beta, c, &ldc)
    else:
        ssymm(&side, &uplo, &m, &n, &alpha, a, &lda, b, &ldb, &beta, c, &ldc)


cdef void syrk(int ta, int n, int k, real alpha, real* a, int lda, real beta, real* c, int ldc) noexcept nogil:
    cdef char uplo = c'L'
    cdef char t = letter(ta)
    if real is double:
        dsyrk(&uplo, &t, &n, &k, &alpha, a, &lda, &beta, c, &ldc)
    else:
        ssyrk(&uplo, &t, &n, &k, &alpha, a, &lda, &beta, c, &ldc)


cdef void gemmt(int ta, int tb, int n, int k, real alpha, real* a, int lda, real* b, int ldb, real beta, real* c,
                int ldc) noexcept nogil:
    """Lower triangle of C = alpha op(A) op(B) + beta C by halving; small diagonal blocks are done whole."""
    cdef int half
    cdef real* lower_a
    if n <= SMALL:
        gemm(ta, tb, n, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
        return
    half = split(n)
    lower_a = a + (<size_t>half * lda if ta else half)
    gemmt(ta, tb, half, k, alpha, a, lda, b, ldb, beta, c, ldc)
    gemm(ta, tb, n - half, half, k, alpha, lower_a, lda, b, ldb, beta, c + half, ldc)
    gemmt(ta, tb, n - half, k, alpha, lower_a, lda, b + (half if tb else <size_t>half * ldb), ldb, beta,
          c + half + <size_t>half * ldc, ldc)


cdef inline int split(int n) noexcept nogil:
    """Half of n, on a multiple of 8 when that is possible."""
    return (n // 2 + 7) // 8 * 8 if n >= 32 else n // 2


# -- triangles -----------------------------------------------------------------------------------------------------

cdef void trsm_base(int right, int upper, int trans, int unit, int m, int n, real* a, int lda, real* b,
                    int ldb) noexcept nogil:
    cdef char side = c'R' if right else c'L'
    cdef char uplo = c'U' if upper else c'L'
    cdef char t = letter(trans)
    cdef char d = c'U' if unit else c'N'
    cdef real one = 1
    cdef int inc = 1
    if n == 1 and not right:
        if real is double:
            dtrsv(&uplo, &t, &d, &m, a, &lda, b, &inc)
        else:
            strsv(&uplo, &t, &d, &m, a, &lda, b, &inc)
    elif m == 1 and right:
        t = letter(not trans)
        if real is double:
            dtrsv(&uplo, &t, &d, &n, a, &lda, b, &ldb)
        else:
            strsv(&uplo, &t, &d, &n, a, &lda, b, &ldb)
    elif real is double:
        dtrsm(&side, &uplo, &t, &d, &m, &n, &one, a, &lda, b, &ldb)
    else:
        strsm(&side, &uplo, &t, &d, &m, &n, &one, a, &lda, b, &ldb)


cdef void trsm(int right, int upper, int trans, int unit, int m, int n, real* a, int lda, real* b,
               int ldb) noexcept nogil:
    """B = op(A)^-1 B (or B op(A)^-1) by halving the triangle, so that most of the work is GEMM."""
    cdef int size = n if right else m
    cdef int half, rest
    cdef real* off
    cdef real* last
    cdef real* b2
    if m == 0 or n == 0:
        return
    if size <= SMALL or (n == 1 and not right) or (m == 1 and right):
        trsm_base(right, upper, trans, unit, m, n, a, lda, b, ldb)
        return
    half = split(size)
    rest = size - half
    off = a + (<size_t>half * lda if upper else half)
    last = a + half + <size_t>half * lda
    b2 = b + (<size_t>half * ldb if right else half)
    if not right:
        if upper == trans:  # op(A) is lower: from the top
            trsm(0, upper, trans, unit, half, n, a, lda, b, ldb)
            gemm(trans, 0, rest, n, half, <real>-1, off, lda, b, ldb, <real>1, b2, ldb)
            trsm(0, upper, trans, unit, rest, n, last, lda, b2, ldb)
        else:
            trsm(0, upper, trans, unit, rest, n, last, lda, b2, ldb)
            gemm(trans, 0, half, n, rest, <real>-1, off, lda, b2, ldb, <real>1, b, ldb)
            trsm(0, upper, trans, unit, half, n, a, lda, b, ldb)
    elif upper == trans:
        trsm(1, upper, trans, unit, m, rest, last, lda, b2, ldb)
        gemm(0, trans, m, half, rest, <real>-1, b2, ldb, off, lda, <real>1, b, ldb)
        trsm(1, upper, trans, unit, m, half, a, lda, b, ldb)
    else:
        trsm(1, upper, trans, unit, m, half, a, lda, b, ldb)
        gemm(0, trans, m, rest, half, <real>-1, b, ldb, off, lda, <real>1, b2, ldb)
        trsm(1, upper, trans, unit, m, rest, last, lda, b2, ldb)


cdef void trmm(Step* s, real* a, real* b) noexcept nogil:
    cdef char side = c'R' if s.f1 else c'L'
    cdef char uplo = c'U' if s.f2 else c'L'
    cdef char t = letter(s.f3)
    cdef char d = c'U' if s.f4 else c'N'
    cdef real one = 1
    if s.m == 0 or s.n == 0:
        return
    if real is double:
        dtrmm(&side, &uplo, &t, &d, &s.m, &s.n, &one, a, &s.lda, b, &s.ldc)
    else:
        strmm(&side, &uplo, &t, &d, &s.m, &s.n, &one, a, &s.lda, b, &s.ldc)


# -- factorizations ------------------------------------------------------------------------------------------------

cdef int potrf(int n, real* c, int ldc) noexcept nogil:
    """Cholesky factor of the lower triangle by halving: OpenBLAS's own gains nothing from a second thread."""
    cdef char low = c'L'
    cdef int info = 0, half
    cdef real* below
    cdef real* last
    if n <= LEAF:
        if real is double:
            dpotrf(&low, &n, c, &ldc, &info)
        else:
            spotrf(&low, &n, c, &ldc, &info)
        return info
    half = split(n)
    below = c + half
    last = below + <size_t>half * ldc
    info = potrf(half, c, ldc)
    if info != 0:
        return info
    trsm(1, 0, 1, 0, n - half, half, c, ldc, below, ldc)
    syrk(0, n - half, half, <real>-1, below, ldc, <real>1, last, ldc)
    info = potrf(n - half, last, ldc)
    return info + half if info > 0 else info


cdef int factor(Step* s, real* a, real* b, real* c, int* pivots) noexcept nogil:
    """The LAPACK operations: `c` is changed in place, `b` is workspace."""
    cdef char low = c'L'
    cdef char t = letter(s.f1)
    cdef char u = c'U' if s.f2 else c'L'
    cdef char d = c'N'
    cdef int info = 0
    if s.n == 0 or (s.op == 9 and s.k == 0):
        return 0
    if s.op == 7:
        info = potrf(s.n, c, s.ldc)
    elif s.op == 8:
        if real is double:
            dgetrf(&s.n, &s.n, c, &s.ldc, pivots, &info)
        else:
            sgetrf(&s.n, &s.n, c, &s.ldc, pivots, &info)
    elif s.op == 9:
        if real is double:
            dgetrs(&t, &s.n, &s.k, a, &s.lda, pivots, c, &s.ldc, &info)
        else:
            sgetrs(&t, &s.n, &s.k, a, &s.lda, pivots, c, &s.ldc, &info)
    elif s.op == 10:
        if real is double:
            dsytrf(&low, &s.n, c, &s.ldc, pivots, b, &s.k, &info)
        else:
            ssytrf(&low, &s.n, c, &s.ldc, pivots, b, &s.k, &info)
    elif s.op == 11:
        if real is double:
            dsytrs(&low, &s.n, &s.k, a, &s.lda, pivots, c, &s.ldc, &info)
        else:
            ssytrs(&low, &s.n, &s.k, a, &s.lda, pivots, c, &s.ldc, &info)
    elif s.op == 21:
        if real is double:
            dpotri(&low, &s.n, c, &s.ldc, &info)
        else:
            spotri(&low, &s.n, c, &s.ldc, &info)
    elif s.op == 22:
        if real is double:
            dgetri(&s.n, c, &s.ldc, pivots, b, &s.k, &info)
        else:
            sgetri(&s.n, c, &s.ldc, pivots, b, &s.k, &info)
    elif s.op == 23:
        if real is double:
            dtrtri(&u, &d, &s.n, c, &s.ldc, &info)
        else:
            strtri(&u, &d, &s.n, c, &s.ldc, &info)
    return info


cdef int array_qr(Step* s, real* a, real* b, real* c, real* t, real* work) noexcept nogil:
    """TPQRT of [A upper; B full] (op 24), or its reflectors applied to [A; B] (op 25; C holds the reflectors)."""
    cdef int zero = 0, info = 0
    cdef int block = s.f1
    cdef char left = c'L', tr = c'T'
    if s.op == 24:
        if real is double:
            dtpqrt(&s.m, &s.n, &zero, &block, a, &s.lda, b, &s.ldb, t, &block, work, &info)
        else:
            stpqrt(&s.m, &s.n, &zero, &block, a, &s.lda, b, &s.ldb, t, &block, work, &info)
    elif real is double:
        dtpmqrt(&left, &tr, &s.m, &s.n, &s.k, &zero, &block, c, &s.ldc, t, &block, a, &s.lda, b, &s.ldb, work, &info)
    else:
        stpmqrt(&left, &tr, &s.m, &s.n, &s.k, &zero, &block, c, &s.ldc, t, &block, a, &s.lda, b, &s.ldb, work, &info)
    return info


# -- the loop ------------------------------------------------------------------------------------------------------

cdef int run(real* tag, const int64_t[:, ::1] table, size_t* bases, double[::1] scalars, int* pivots,
             int* failed) noexcept nogil:
    cdef Py_ssize_t row
    cdef Step s
    cdef real* a
    cdef real* b
    cdef real* c
    cdef real alpha, beta
    cdef int info = 0, op
    for row in range(table.shape[0]):
        s.op = op = <int>table[row, 0]
        s.m, s.n, s.k = <int>table[row, 1], <int>table[row, 2], <int>table[row, 3]
        s.f1, s.f2, s.f3, s.f4 = <int>table[row, 4], <int>table[row, 5], <int>table[row, 6], <int>table[row, 7]
        s.lda, s.ldb, s.ldc = <int>table[row, 10], <int>table[row, 13], <int>table[row, 16]
        a = <real*>bases[table[row, 8]] + table[row, 9]
        b = <real*>bases[table[row, 11]] + table[row, 12]
        c = <real*>bases[table[row, 14]] + table[row, 15]
        alpha, beta = <real>scalars[table[row, 17]], <real>scalars[table[row, 18]]
        if op == 1:
            gemm(s.f1, s.f2, s.m, s.n, s.k, alpha, a, s.lda, b, s.ldb, beta, c, s.ldc)
        elif op == 2:
            symm(s.f1, s.m, s.n, alpha, a, s.lda, b, s.ldb, beta, c, s.ldc)
        elif op == 3:
            syrk(s.f1, s.n, s.k, alpha, a, s.lda, beta, c, s.ldc)
        elif op == 4:
            gemmt(s.f1, s.f2, s.n, s.k, alpha, a, s.lda, b, s.ldb, beta, c, s.ldc)
        elif op == 5:
            trsm(s.f1, s.f2, s.f3, s.f4, s.m, s.n, a, s.lda, c, s.ldc)
        elif op == 6:
            trmm(&s, a, c)
        elif 7 <= op <= 11 or 21 <= op <= 23:
            info = factor(&s, a, b, c, pivots + table[row, 19])
        elif op == 12:
            axpby(&s, alpha, a, beta, c)
        elif op == 13:
            mirror(s.n, c, s.ldc)
        elif op == 14:
            hadamard(&s, alpha, a, b, beta, c)
        elif op == 15:
            scale_by(&s, a, c)
        elif op == 16:
            fill(&s, alpha, beta, c)
        elif op == 17:
            reciprocal(&s, alpha, a, c)
        elif op == 18:
            scalars[table[row, 20]] = scalars[table[row, 17]] * dot(&s, a, b)
        elif op == 19:
            scalars[table[row, 20]] = scalars[table[row, 17]] * determinant(&s, a, pivots + table[row, 19])
        elif op == 20:
            scalars[table[row, 20]] = scalar(s.f1, scalars[table[row, 17]], scalars[table[row, 18]])
        elif op == 24 or op == 25:
            info = array_qr(&s, a, b, c, <real*>bases[table[row, 21]] + table[row, 22],
                            <real*>bases[table[row, 21]] + table[row, 23])
        elif op == 26:
            info = check(&s, scalars[table[row, 17]], a)
        if info != 0:
            failed[0] = <int>row
            return info
    return 0


def run_plan(const int64_t[:, ::1] table, list buffers, double[::1] scalars, int[::1] pivots, bint single):
    """Run the table; return (row, info) of the operation that failed, or (-1, 0). See `blasplan.run_plan`."""
    cdef size_t bases[256]
    cdef Py_ssize_t i
    cdef int failed = -1, info
    cdef cnp.ndarray array
    if len(buffers) > 256:
        raise ValueError("more than 256 buffers")
    for i in range(len(buffers)):
        array = buffers[i]
        bases[i] = <size_t>cnp.PyArray_DATA(array)
    with nogil:
        if single:
            info = run[float](<float*>NULL, table, bases, scalars, &pivots[0], &failed)
        else:
            info = run[double](<double*>NULL, table, bases, scalars, &pivots[0], &failed)
    return failed, info
