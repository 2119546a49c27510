"""What a matrix plan does entry by entry, where there is no BLAS: sums, copies, mirrors, checks. See `_blasplan.pyx`.

Everything that transposes goes through a square tile in the nearest cache, and the loops are written for the vector unit.
"""

from libc.math cimport exp, fabs, frexp, ldexp, log, pow, sqrt
from libc.string cimport memcpy, memmove

ctypedef fused real:
    float
    double

cdef enum:
    TILE = 32  # side of the square that is transposed at once; `range` wants it as a literal


cdef struct Step:
    int op, m, n, k
    int f1, f2, f3, f4
    int lda, ldb, ldc


cdef inline void axpby_entries(Py_ssize_t n, real alpha, real* a, Py_ssize_t step, real beta, real* c) noexcept nogil:
    cdef Py_ssize_t i
    if beta == 0:
        for i in range(n):
            c[i] = alpha * a[i * step]
    elif beta == 1:
        for i in range(n):
            c[i] = c[i] + alpha * a[i * step]
    else:
        for i in range(n):
            c[i] = beta * c[i] + alpha * a[i * step]


cdef inline void axpby(Step* s, real alpha, real* a, real beta, real* c) noexcept nogil:
    """C = alpha op(A) + beta C, in tiles when transposing; beta = 0 overwrites, NaN included."""
    cdef Py_ssize_t i0, j, j0, first, m = s.m, n = s.n, lda = s.lda, ldc = s.ldc
    if not s.f1:
        for j in range(n):
            first = min(j, m) if s.f2 else 0
            if alpha == 1 and beta == 0:
                memmove(c + first + j * ldc, a + first + j * lda, (m - first) * sizeof(real))
            else:
                axpby_entries(m - first, alpha, a + first + j * lda, 1, beta, c + first + j * ldc)
        return
    for j0 in range(0, n, 32):
        for i0 in range(0, m, 32):
            for j in range(j0, min(j0 + TILE, n)):
                first = max(i0, j) if s.f2 else i0
                if first < min(i0 + TILE, m):
                    axpby_entries(min(i0 + TILE, m) - first, alpha, a + j + first * lda, lda, beta, c + first + j * ldc)


cdef inline void tile_of(real* a, Py_ssize_t ld, Py_ssize_t rows, Py_ssize_t cols, real* tile) noexcept nogil:
    """Write a piece of at most TILE by TILE to the tile, transposed: only the tile, in the nearest cache, is strided."""
    if rows == TILE and cols == TILE:
        fill_tile(a, ld, TILE, TILE, tile)  # a copy of the loop whose counts the compiler knows: twice as fast
    else:
        fill_tile(a, ld, rows, cols, tile)


cdef inline void fill_tile(real* a, Py_ssize_t ld, Py_ssize_t rows, Py_ssize_t cols, real* tile) noexcept nogil:
    cdef Py_ssize_t i, j
    for j in range(cols):
        for i in range(rows):
            tile[i * TILE + j] = a[j * ld + i]


cdef inline void mirror(int n, real* c, int ldc) noexcept nogil:
    """Copy the lower triangle to the upper one, tile by tile."""
    cdef Py_ssize_t i, i0, j0, rows, cols, ld = ldc
    cdef real tile[TILE * TILE]
    for j0 in range(0, n, 32):
        cols = min(n - j0, TILE)
        for i0 in range(j0, n, 32):
            rows = min(n - i0, TILE)
            tile_of(c + i0 + j0 * ld, ld, rows, cols, tile)
            for i in range(rows):
                memcpy(c + (i0 + i) * ld + j0, tile + i * TILE, (i if i0 == j0 else cols) * sizeof(real))


cdef inline void hadamard(Step* s, real alpha, real* a, real* b, real beta, real* c) noexcept nogil:
    cdef Py_ssize_t i, j
    cdef Py_ssize_t ai = s.lda if s.f1 else 1
    cdef Py_ssize_t aj = 1 if s.f1 else s.lda
    cdef Py_ssize_t bi = s.ldb if s.f2 else 1
    cdef Py_ssize_t bj = 1 if s.f2 else s.ldb
    cdef real value
    for j in range(s.n):
        for i in range(s.m):
            value = alpha * a[i * ai + j * aj] * b[i * bi + j * bj]
            c[i + j * <Py_ssize_t>s.ldc] = value if beta == 0 else beta * c[i + j * <Py_ssize_t>s.ldc] + value


cdef inline void scale_by(Step* s, real* a, real* c) noexcept nogil:
    """Multiply (f2: divide) the rows (f1: columns) of C by a vector."""
    cdef Py_ssize_t i, j
    for j in range(s.n):
        for i in range(s.m):
            if s.f2:
                c[i + j * <Py_ssize_t>s.ldc] /= a[j if s.f1 else i]
            else:
                c[i + j * <Py_ssize_t>s.ldc] *= a[j if s.f1 else i]


cdef inline void fill(Step* s, real alpha, real beta, real* c) noexcept nogil:
    """C = alpha + beta C in every entry; f2: 1 only above the diagonal."""
    cdef Py_ssize_t i, j, last
    for j in range(s.n):
        last = min(<Py_ssize_t>s.m, j) if s.f2 else s.m
        for i in range(last):
            c[i + j * <Py_ssize_t>s.ldc] = alpha if beta == 0 else alpha + beta * c[i + j * <Py_ssize_t>s.ldc]


cdef inline void reciprocal(Step* s, real alpha, real* a, real* c) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(s.m):
        c[i] = alpha / a[i]


cdef inline double dot(Step* s, real* a, real* b) noexcept nogil:
    """Sum of op(A) * op(B) entry by entry; f3: sum of A alone."""
    cdef Py_ssize_t i, j
    cdef Py_ssize_t ai = s.lda if s.f1 else 1
    cdef Py_ssize_t aj = 1 if s.f1 else s.lda
    cdef Py_ssize_t bi = s.ldb if s.f2 else 1
    cdef Py_ssize_t bj = 1 if s.f2 else s.ldb
    cdef double total = 0
    for j in range(s.n):
        for i in range(s.m):
            total += a[i * ai + j * aj] if s.f3 else <double>a[i * ai + j * aj] * b[i * bi + j * bj]
    return total


cdef inline double determinant(Step* s, real* a, int* pivots) noexcept nogil:
    """(Log-)product of n entries that lie lda apart; f1: with the sign of the pivots, f2: no logarithm."""
    cdef Py_ssize_t i
    cdef double mantissa = 1, total = 0, value
    cdef int power, exponent = 0, negative = 0
    for i in range(s.n):
        value = a[i * <Py_ssize_t>s.lda]
        if s.f1 and pivots[i] != i + 1:
            negative = not negative
        if value < 0:
            negative = not negative
        mantissa = frexp(mantissa * fabs(value), &power)
        exponent += power
        if not s.f2:
            total += log(fabs(value))
    if s.f2:
        return ldexp(-mantissa if negative else mantissa, exponent)
    return log(-1.0) if negative else total


cdef inline double scalar(int kind, double x, double y) noexcept nogil:
    if kind == 0:
        return x + y
    if kind == 1:
        return x * y
    if kind == 2:
        return pow(x, y)
    if kind == 3:
        return log(x)
    if kind == 4:
        return exp(x)
    return sqrt(x)


cdef inline real farthest(Py_ssize_t n, real* x, real* y, real most) noexcept nogil:
    """Return the largest of |x - y| and `most`; a NaN counts as nothing. In lanes, for the vector unit."""
    cdef real lanes[8]
    cdef real gap
    cdef Py_ssize_t i, l
    for l in range(8):
        lanes[l] = most
    for i in range(0, n - 7, 8):
        for l in range(8):
            gap = fabs(x[i + l] - y[i + l])
            lanes[l] = gap if gap > lanes[l] else lanes[l]
    for i in range(n - n % 8, n):
        gap = fabs(x[i] - y[i])
        lanes[0] = gap if gap > lanes[0] else lanes[0]
    for l in range(8):
        most = lanes[l] if lanes[l] > most else most
    return most


cdef inline int check(Step* s, double tolerance, real* a) noexcept nogil:
    """Return 0, or 1 when entries break symmetry (f1 = 0), or the zeros above (1) or below (2) the diagonal."""
    cdef Py_ssize_t i, j, i0, j0, rows, cols, n = s.n, ld = s.lda
    cdef real largest = 0, most = 0, gap
    cdef real tile[TILE * TILE]
    if s.f1:
        for j in range(n):
            for i in range(j if s.f1 == 1 else n - j - 1):
                gap = fabs(a[i + j * ld] if s.f1 == 1 else a[n - 1 - i + j * ld])
                most = gap if gap > most else most
        return most > 0
    for j0 in range(0, n, 32):
        cols = min(n - j0, TILE)
        for i0 in range(j0, n, 32):
            rows = min(n - i0, TILE)
            tile_of(a + j0 + i0 * ld, ld, cols, rows, tile)
            for j in range(cols):
                most = farthest(rows, a + i0 + (j0 + j) * ld, tile + j * TILE, most)
    if most == 0:
        return 0
    for j in range(n):
        for i in range(j, n):
            gap = fabs(a[i + j * ld])
            largest = gap if gap > largest else largest
    return most > tolerance * largest
