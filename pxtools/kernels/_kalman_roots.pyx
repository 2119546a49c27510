"""Compiled square-root and information filters: see `kalman_rows_numpy` for the twins, `kalman_roots.h` for the loops."""

import numpy as np

cimport numpy as cnp
from libc.math cimport fabs, isnan, log, sqrt
from libc.string cimport memcpy, memset

from pxtools.kernels._arrays cimport doubles, fresh, room

from pxtools.kernels.kalman_results import NO_PIVOT as _NO_PIVOT, without_diffuse

cnp.import_array()

cdef double NO_PIVOT = _NO_PIVOT
cdef double LOG_2PI = 1.8378770664093454836


cdef extern from "kalman_roots.h" nogil:
    double dot(Py_ssize_t n, const double *a, const double *b)
    void lower_triangle(Py_ssize_t rows, Py_ssize_t columns, double *A)
    void square(Py_ssize_t n, Py_ssize_t columns, const double *S, double *out)
    int cholesky(Py_ssize_t n, double *A)
    void solve_lower(Py_ssize_t n, Py_ssize_t columns, const double *L, double *B)
    void add_gram(Py_ssize_t n, Py_ssize_t columns, const double *B, double *out)
    void times(Py_ssize_t rows, Py_ssize_t n, Py_ssize_t columns, const double *A, const double *B,
               Py_ssize_t B_stride, double *W, Py_ssize_t stride)
    void carry(Py_ssize_t n, const double *F, const double *Q, double *P, double *W1, double *W2)
    double log_diagonal(Py_ssize_t n, const double *L)


cdef struct Sizes:
    Py_ssize_t n_series
    Py_ssize_t n_steps
    Py_ssize_t n
    Py_ssize_t m


cdef struct Part:
    const double *first
    Py_ssize_t step


cdef inline const double *_now(Part part, Py_ssize_t t) noexcept nogil:
    return part.first + t * part.step


cdef _part(Part *part, object array, Py_ssize_t n_steps, tuple shape):
    """Look at one part of a model and note where its steps begin."""
    part.first = doubles(array, len(shape) + 1)
    if array.shape[1:] != shape or array.shape[0] not in (1, n_steps):
        raise ValueError(f"a part of the model has shape {array.shape}; (1 or n_steps, *{shape}) is needed")
    part.step = 0 if array.shape[0] == 1 else array[0].size


cdef Sizes _sizes(object y, object F, object x, object P) except *:
    cdef Sizes sizes
    doubles(y, 3)
    sizes.n_series, sizes.n_steps, sizes.m = y.shape
    sizes.n = F.shape[1]
    if sizes.n_series == 0 or sizes.n_steps == 0:
        raise ValueError("y must be (n_series, n_steps, n_obs) and not empty")
    if x.shape != (sizes.n_series, sizes.n) or P.shape != (sizes.n_series, sizes.n, sizes.n):
        raise ValueError("x and P need one entry for each series")
    return sizes


cdef void _predict_mean(Py_ssize_t n, const double *F, const double *c, const double *x, double *out) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = dot(n, F + i * n, x) + c[i]


cdef Py_ssize_t _present(Py_ssize_t m, const double *y, Py_ssize_t *where) noexcept nogil:
    cdef Py_ssize_t i, k = 0
    for i in range(m):
        if not isnan(y[i]):
            where[k] = i
            k += 1
    return k


def square_root_filter(y, F, H, half_Q, half_R, c, d, x, S):
    """Filter every series with factors instead of covariances: see `kalman_rows_numpy.square_root_filter`."""
    cdef Sizes z = _sizes(y, F, x, S)
    cdef Py_ssize_t n = z.n, m = z.m, nn = n * n, n_steps = z.n_steps, s, t, i, j, k
    cdef Part F_, H_, Q_, R_, c_, d_
    _part(&F_, F, n_steps, (n, n))
    _part(&H_, H, n_steps, (m, n))
    _part(&Q_, half_Q, n_steps, (n, n))
    _part(&R_, half_R, n_steps, (m, m))
    _part(&c_, c, n_steps, (n,))
    _part(&d_, d, n_steps, (m,))
    means, filtered_means = room(3, z.n_series, n_steps + 1, n), room(3, z.n_series, n_steps, n)
    covs, filtered_covs = room(4, z.n_series, n_steps + 1, n, n), room(4, z.n_series, n_steps, n, n)
    log_liks, memory = room(2, z.n_series, n_steps), room(1, nn + 2 * nn + (m + n) * (m + n) + 2 * m)
    places = np.empty(m, dtype=np.intp)
    cdef Py_ssize_t *where = <Py_ssize_t *> cnp.PyArray_DATA(places)
    cdef const double *y_ = doubles(y, 3)
    cdef const double *x_ = doubles(x, 2)
    cdef const double *S_ = doubles(S, 3)
    cdef double *pm = fresh(means)
    cdef double *pc = fresh(covs)
    cdef double *fm = fresh(filtered_means)
    cdef double *fc = fresh(filtered_covs)
    cdef double *ll = fresh(log_liks)
    cdef double *half = fresh(memory)
    cdef double *wide = half + nn
    cdef double *array = wide + 2 * nn
    cdef double *reach = array + (m + n) * (m + n)
    cdef double *solved = reach + m
    with nogil:
        for s in range(z.n_series):
            memcpy(pm, x_ + s * n, n * sizeof(double))
            memcpy(half, S_ + s * nn, nn * sizeof(double))
            square(n, n, half, pc)
            for t in range(n_steps):
                memcpy(fm, pm, n * sizeof(double))
                ll[0] = 0.0
                k = _present(m, y_, where)
                if k:
                    _by_qr(n, m, k, where, y_, _now(d_, t), _now(H_, t), _now(R_, t), fm, half, array, reach, solved, ll)
                square(n, n, half, fc)
                _predict_mean(n, _now(F_, t), _now(c_, t), fm, pm + n)
                times(n, n, n, _now(F_, t), half, n, wide, 2 * n)
                for i in range(n):
                    memcpy(wide + i * 2 * n + n, _now(Q_, t) + i * n, n * sizeof(double))
                lower_triangle(n, 2 * n, wide)
                for i in range(n):
                    memcpy(half + i * n, wide + i * 2 * n, n * sizeof(double))
                pm, pc, fm, fc, ll, y_ = pm + n, pc + nn, fm + n, fc + nn, ll + 1, y_ + m
                square(n, n, half, pc)
            pm, pc = pm + n, pc + nn
    return without_diffuse(means, covs, filtered_means, filtered_covs, log_liks, m)


cdef void _by_qr(Py_ssize_t n, Py_ssize_t m, Py_ssize_t k, const Py_ssize_t *where, const double *y, const double *d,
                 const double *H, const double *half_R, double *x, double *S, double *array, double *reach,
                 double *solved, double *log_lik) noexcept nogil:
    """Take in the k elements of a row that are present: the array algorithm, in place."""
    cdef Py_ssize_t i, j, columns = m + n
    cdef double pivot, v
    cdef double *row
    memset(array, 0, (k + n) * columns * sizeof(double))
    for i in range(k):
        row = array + i * columns
        memcpy(row, half_R + where[i] * m, m * sizeof(double))
        times(1, n, n, H + where[i] * n, S, n, row + m, columns)
        reach[i] = sqrt(dot(columns, row, row))
    for i in range(n):
        memcpy(array + (k + i) * columns + m, S + i * n, n * sizeof(double))
    lower_triangle(k + n, columns, array)
    for i in range(k):
        pivot, solved[i] = array[i * columns + i], 0.0
        if fabs(pivot) > NO_PIVOT * reach[i]:
            v = y[where[i]] - d[where[i]] - dot(n, H + where[i] * n, x)
            solved[i] = (v - dot(i, array + i * columns, solved)) / pivot
            log_lik[0] -= 0.5 * (LOG_2PI + 2 * log(fabs(pivot)) + solved[i] * solved[i])
    for i in range(n):
        x[i] += dot(k, array + (k + i) * columns, solved)
        memcpy(S + i * n, array + (k + i) * columns + k, n * sizeof(double))


cdef struct Precise:
    double *root     # (m, m) of the row's noise
    double *A        # (m, n) of the row, whitened
    double *gram     # (n, n) A'A
    double *v        # (m)
    double *w        # (n) A'v
    double *half     # (n, n)
    double *post     # (n, n)
    double *W        # (3, n, n)


def information_filter(y, F, H, Q, R, c, d, x, P):
    """Filter every series by precisions: see `kalman_rows_numpy.information_filter`."""
    cdef Sizes z = _sizes(y, F, x, P)
    cdef Py_ssize_t n = z.n, m = z.m, nn = n * n, n_steps = z.n_steps, s, t, k
    cdef Part F_, H_, Q_, R_, c_, d_
    _part(&F_, F, n_steps, (n, n))
    _part(&H_, H, n_steps, (m, n))
    _part(&Q_, Q, n_steps, (n, n))
    _part(&R_, R, n_steps, (m, m))
    _part(&c_, c, n_steps, (n,))
    _part(&d_, d, n_steps, (m,))
    means, filtered_means = room(3, z.n_series, n_steps + 1, n), room(3, z.n_series, n_steps, n)
    covs, filtered_covs = room(4, z.n_series, n_steps + 1, n, n), room(4, z.n_series, n_steps, n, n)
    log_liks, memory = room(2, z.n_series, n_steps), room(1, m * m + m * n + 6 * nn + m + n)
    places, before = np.empty(m, dtype=np.intp), np.full(m, -1, dtype=np.intp)
    cdef Py_ssize_t *where = <Py_ssize_t *> cnp.PyArray_DATA(places)
    cdef Py_ssize_t *last = <Py_ssize_t *> cnp.PyArray_DATA(before)
    cdef const double *y_ = doubles(y, 3)
    cdef const double *x_ = doubles(x, 2)
    cdef const double *P_ = doubles(P, 3)
    cdef double *pm = fresh(means)
    cdef double *pc = fresh(covs)
    cdef double *fm = fresh(filtered_means)
    cdef double *fc = fresh(filtered_covs)
    cdef double *ll = fresh(log_liks)
    cdef Precise work
    work.root = fresh(memory)
    work.A, work.gram = work.root + m * m, work.root + m * m + m * n
    work.half, work.post, work.W = work.gram + nn, work.gram + 2 * nn, work.gram + 3 * nn
    work.v, work.w = work.W + 3 * nn, work.W + 3 * nn + m
    cdef bint is_same = H_.step == 0 and R_.step == 0
    cdef Py_ssize_t n_last = -1
    cdef int failed = 0
    with nogil:
        for s in range(z.n_series):
            memcpy(pm, x_ + s * n, n * sizeof(double))
            memcpy(pc, P_ + s * nn, nn * sizeof(double))
            for t in range(n_steps):
                memcpy(fm, pm, n * sizeof(double))
                memcpy(fc, pc, nn * sizeof(double))
                ll[0] = 0.0
                k = _present(m, y_, where)
                if k:
                    # rows with the pattern of the last one need not be whitened again
                    if not (is_same and k == n_last and _equal(k, where, last)):
                        failed = _whiten(n, m, k, where, _now(H_, t), _now(R_, t), work)
                        memcpy(last, where, k * sizeof(Py_ssize_t))
                        n_last = k
                    failed = failed or _by_precision(n, k, where, y_, _now(d_, t), _now(H_, t), fm, fc, work, ll)
                    if failed:
                        break
                _predict_mean(n, _now(F_, t), _now(c_, t), fm, pm + n)
                memcpy(pc + nn, fc, nn * sizeof(double))
                carry(n, _now(F_, t), _now(Q_, t), pc + nn, work.W, work.W + nn)
                pm, pc, fm, fc, ll, y_ = pm + n, pc + nn, fm + n, fc + nn, ll + 1, y_ + m
            if failed:
                break
            pm, pc = pm + n, pc + nn
    if failed:
        name = "observation_cov" if failed == 1 else "the predicted covariance"
        raise np.linalg.LinAlgError(f"{name} is singular at step {t}")
    return without_diffuse(means, covs, filtered_means, filtered_covs, log_liks, m)


cdef bint _equal(Py_ssize_t k, const Py_ssize_t *a, const Py_ssize_t *b) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(k):
        if a[i] != b[i]:
            return False
    return True


cdef int _whiten(Py_ssize_t n, Py_ssize_t m, Py_ssize_t k, const Py_ssize_t *where, const double *H, const double *R,
                 Precise work) noexcept nogil:
    """Set root, A and A'A for the elements that are present; 1 if their noise is singular."""
    cdef Py_ssize_t i, j
    for i in range(k):
        for j in range(k):
            work.root[i * k + j] = R[where[i] * m + where[j]]
        memcpy(work.A + i * n, H + where[i] * n, n * sizeof(double))
    if not cholesky(k, work.root):
        return 1
    solve_lower(k, n, work.root, work.A)
    memset(work.gram, 0, n * n * sizeof(double))
    add_gram(k, n, work.A, work.gram)
    return 0


cdef int _by_precision(Py_ssize_t n, Py_ssize_t k, const Py_ssize_t *where, const double *y, const double *d,
                       const double *H, double *x, double *P, Precise work, double *log_lik) noexcept nogil:
    """Add the row's information to the precision, in place; 2 if the predicted covariance is singular."""
    cdef Py_ssize_t i, j
    cdef double total
    for i in range(k):
        work.v[i] = y[where[i]] - d[where[i]] - dot(n, H + where[i] * n, x)
    solve_lower(k, 1, work.root, work.v)
    memcpy(work.W, P, n * n * sizeof(double))
    if not cholesky(n, work.W):
        return 2
    total = k * LOG_2PI + 2 * log_diagonal(k, work.root) + 2 * log_diagonal(n, work.W)
    _inverse(n, work.W, work.half)
    memcpy(work.post, work.gram, n * n * sizeof(double))
    add_gram(n, n, work.half, work.post)
    if not cholesky(n, work.post):
        return 2
    total += 2 * log_diagonal(n, work.post)
    _inverse(n, work.post, work.half)
    memset(P, 0, n * n * sizeof(double))
    add_gram(n, n, work.half, P)
    for j in range(n):
        work.w[j] = 0.0
    for i in range(k):
        for j in range(n):
            work.w[j] += work.A[i * n + j] * work.v[i]
        total += work.v[i] * work.v[i]
    for i in range(n):
        work.W[i] = dot(n, P + i * n, work.w)
    total -= dot(n, work.w, work.W)
    for i in range(n):
        x[i] += work.W[i]
    log_lik[0] = -0.5 * total
    return 0


cdef void _inverse(Py_ssize_t n, const double *L, double *out) noexcept nogil:
    cdef Py_ssize_t i
    memset(out, 0, n * n * sizeof(double))
    for i in range(n):
        out[i * n + i] = 1.0
    solve_lower(n, n, L, out)
