"""Compiled square-root filter and smoother, and information filter.

The twins are in `kalman_roots_numpy` and `kalman_rows_numpy`, the loops in `kalman_moves.h` and `kalman_roots.h`.
"""

import numpy as np

cimport numpy as cnp
from libc.math cimport isnan
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from pxtools.kernels._arrays cimport doubles, fresh, room, zeros

from pxtools.kernels import kalman_results
from pxtools.kernels.kalman_results import Filtered, Smoothed, without_diffuse

cnp.import_array()

cdef double NO_PIVOT = kalman_results.NO_PIVOT, NO_TRACE = kalman_results.NO_TRACE, NOT_WIDE = kalman_results.NOT_WIDE
cdef double LOG_2PI = 1.8378770664093454836


cdef extern from "kalman_moves.h" nogil:
    ctypedef struct Part:
        const double *first
        Py_ssize_t step
    ctypedef struct Limits:
        double no_pivot, no_trace, not_wide
    ctypedef struct Place:
        Py_ssize_t b
    ctypedef struct Roots:
        Py_ssize_t n, m, n_steps
        Part F, H, half_Q, half_R, c, d
    ctypedef struct RootsOut:
        double *predicted_mean
        double *predicted_cov
        double *filtered_mean
        double *filtered_cov
        double *log_lik
        double *wide
        double *wide_after
        double *last
        unsigned char *used
        Py_ssize_t n_diffuse
    ctypedef struct Step:
        double *before_S
    ctypedef struct SmoothedOut:
        double *mean
        double *cov
        double *lag
        double *shock
        double *shock_cov
    Py_ssize_t place_doubles "PLACE_DOUBLES"(Py_ssize_t n, Py_ssize_t m)
    Py_ssize_t smooth_doubles "SMOOTH_DOUBLES"(Py_ssize_t n, Py_ssize_t m)
    void lay_place(Py_ssize_t n, Py_ssize_t m, double *memory, Py_ssize_t *order, Place *p)
    void start_at(Place *p, const double *x, const double *S, const double *B)
    void roots_filter(const Roots *r, const Limits *limits, const double *y, Place *p, RootsOut *out)
    int keep_step(const Roots *r, const Limits *limits, Py_ssize_t t, const double *y, Place *p, unsigned char *used,
                  Step *step)
    void smooth_backwards(const Roots *r, const Step *steps, double *memory, SmoothedOut *out)
    double dot(Py_ssize_t n, const double *a, const double *b)
    int cholesky(Py_ssize_t n, double *A)
    void solve_lower(Py_ssize_t n, Py_ssize_t columns, const double *L, double *B)
    void add_gram(Py_ssize_t n, Py_ssize_t columns, const double *B, double *out)
    void carry(Py_ssize_t n, const double *F, const double *Q, double *P, double *W1, double *W2)
    double log_diagonal(Py_ssize_t n, const double *L)


cdef struct Sizes:
    Py_ssize_t n_series
    Py_ssize_t n_steps
    Py_ssize_t n
    Py_ssize_t m


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


cdef class _Roots:
    """A system of factors, checked, and room to run it in."""

    cdef Roots roots
    cdef Limits limits
    cdef Place place
    cdef const double *y
    cdef const double *x
    cdef const double *S
    cdef const double *B
    cdef Py_ssize_t n_series
    cdef object held

    def __cinit__(self, y, F, H, half_Q, half_R, c, d, x, S, B):
        cdef Sizes z = _sizes(y, F, x, S)
        cdef Py_ssize_t n = z.n, m = z.m
        _part(&self.roots.F, F, z.n_steps, (n, n))
        _part(&self.roots.H, H, z.n_steps, (m, n))
        _part(&self.roots.half_Q, half_Q, z.n_steps, (n, n))
        _part(&self.roots.half_R, half_R, z.n_steps, (m, m))
        _part(&self.roots.c, c, z.n_steps, (n,))
        _part(&self.roots.d, d, z.n_steps, (m,))
        if B.shape != S.shape:
            raise ValueError("B needs one entry for each series")
        self.roots.n, self.roots.m, self.roots.n_steps, self.n_series = n, m, z.n_steps, z.n_series
        self.limits.no_pivot, self.limits.no_trace, self.limits.not_wide = NO_PIVOT, NO_TRACE, NOT_WIDE
        self.y, self.x, self.S, self.B = doubles(y, 3), doubles(x, 2), doubles(S, 3), doubles(B, 3)
        memory, order = room(1, place_doubles(n, m)), np.empty(m, dtype=np.intp)
        lay_place(n, m, fresh(memory), <Py_ssize_t *> cnp.PyArray_DATA(order), &self.place)
        self.held = (y, F, H, half_Q, half_R, c, d, x, S, B, memory, order)

    cdef const double *start(self, Py_ssize_t s) noexcept nogil:
        """Set the place to the start of a series and return its observations."""
        cdef Py_ssize_t n = self.roots.n
        start_at(&self.place, self.x + s * n, self.S + s * n * n, self.B + s * n * n)
        return self.y + s * self.roots.n_steps * self.roots.m


def square_root_filter(y, F, H, half_Q, half_R, c, d, x, S, B):
    """Filter every series with factors instead of covariances: see `kalman_roots_numpy.square_root_filter`."""
    cdef _Roots own = _Roots(y, F, H, half_Q, half_R, c, d, x, S, B)
    cdef Py_ssize_t n = own.roots.n, m = own.roots.m, n_steps = own.roots.n_steps, nn = n * n, s, longest = 0
    cdef Py_ssize_t n_series = own.n_series, n_wide = n_steps if B.any() else 0
    means, filtered_means = room(3, n_series, n_steps + 1, n), room(3, n_series, n_steps, n)
    covs, filtered_covs = room(4, n_series, n_steps + 1, n, n), room(4, n_series, n_steps, n, n)
    log_liks, last = room(2, n_series, n_steps), room(3, n_series, n, n)
    # pages that are never touched cost no memory
    wide, wide_after = (zeros(cnp.NPY_DOUBLE, 4, n_series, n_wide, n, n) for _ in range(2))
    used, unused = zeros(cnp.NPY_UINT8, 3, n_series, n_wide, m), zeros(cnp.NPY_UINT8, 1, n_steps * m)
    cdef double *pm = fresh(means)
    cdef double *pc = fresh(covs)
    cdef double *fm = fresh(filtered_means)
    cdef double *fc = fresh(filtered_covs)
    cdef double *ll = fresh(log_liks)
    cdef double *wide_ = fresh(wide)
    cdef double *after_ = fresh(wide_after)
    cdef double *last_ = fresh(last)
    cdef unsigned char *used_ = <unsigned char *> cnp.PyArray_DATA(used if n_wide else unused)
    cdef RootsOut out
    cdef const double *rows
    with nogil:
        for s in range(n_series):
            out.predicted_mean, out.predicted_cov = pm + s * (n_steps + 1) * n, pc + s * (n_steps + 1) * nn
            out.filtered_mean, out.filtered_cov = fm + s * n_steps * n, fc + s * n_steps * nn
            out.log_lik, out.last, out.used = ll + s * n_steps, last_ + s * nn, used_ + s * n_wide * m
            out.wide, out.wide_after = wide_ + s * n_wide * nn, after_ + s * n_wide * nn
            rows = own.start(s)
            roots_filter(&own.roots, &own.limits, rows, &own.place, &out)
            longest = max(longest, out.n_diffuse)
    diffuse = [part[:, :longest].copy() for part in (wide, wide_after, used)]
    return Filtered(means, covs, filtered_means, filtered_covs, log_liks, *diffuse, last, 0)


def square_root_smoother(y, F, H, half_Q, half_R, c, d, x, S, B, bint more=True):
    """Smooth every series, steps repeated and kept: see `kalman_roots_numpy.square_root_smoother`."""
    cdef _Roots own = _Roots(y, F, H, half_Q, half_R, c, d, x, S, B)
    cdef Py_ssize_t n = own.roots.n, m = own.roots.m, n_steps = own.roots.n_steps, nn = n * n, s, t, done = 0
    cdef Py_ssize_t n_series = own.n_series, held = n_steps - 1 if more else 0
    means, covs = room(3, n_series, n_steps, n), room(4, n_series, n_steps, n, n)
    lags, shocks = room(4, n_series, held, n, n), room(3, n_series, held, n)
    shock_covs, memory, unused = room(4, n_series, held, n, n), room(1, smooth_doubles(n, m)), np.empty(m, dtype=np.uint8)
    cdef double *mean = fresh(means)
    cdef double *cov = fresh(covs)
    cdef double *lag = fresh(lags)
    cdef double *shock = fresh(shocks)
    cdef double *shock_cov = fresh(shock_covs)
    cdef double *work = fresh(memory)
    cdef unsigned char *used = <unsigned char *> cnp.PyArray_DATA(unused)
    cdef const double *rows
    cdef SmoothedOut out
    cdef Step *steps = <Step *> malloc(n_steps * sizeof(Step))
    cdef bint is_kept = steps != NULL
    out.lag = out.shock = out.shock_cov = NULL
    with nogil:
        for s in range(n_series):
            rows, done = own.start(s), 0
            while is_kept and done < n_steps:
                is_kept = keep_step(&own.roots, &own.limits, done, rows + done * m, &own.place, used, &steps[done])
                done += is_kept
            if is_kept:
                out.mean, out.cov = mean + s * n_steps * n, cov + s * n_steps * nn
                if more:
                    out.lag, out.shock = lag + s * held * nn, shock + s * held * n
                    out.shock_cov = shock_cov + s * held * nn
                smooth_backwards(&own.roots, steps, work, &out)
            for t in range(done):
                free(steps[t].before_S)
            if not is_kept:
                break
        free(steps)
    if not is_kept:
        raise MemoryError("the square-root smoother keeps every step of a series: there is no room for them")
    none = np.zeros((n_series, 0, n, n))
    return Smoothed(means, covs, none[:, :, 0].copy(), none, 0, None, lags, shocks, shock_covs)


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
