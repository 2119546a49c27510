"""Compiled univariate Kalman filter and smoother: see `kalman_numpy` for the twins, `kalman_loops.h` for the loops."""

from sys import getrefcount

import numpy as np

cimport numpy as cnp
from libc.string cimport memset

from pxtools.kernels._arrays cimport doubles, fresh, room, zeros

from pxtools.kernels.kalman_results import LOST as _LOST, Filtered, Score as Derivatives, Smoothed

cnp.import_array()


cdef extern from "kalman_sizes.h" nogil:
    void filter_series(const Model *model, const double *y, const double *x0, const double *P0, const double *Pinf0,
                       int left, int may_settle, FilterOut *out, double *work)
    void smoother_series(const Model *model, const double *y, const SmootherOut *out, double *work)
    void score_series(const Model *model, const double *y, const SmootherOut *filtered, Score *score, double *work)
    void find_runs(Py_ssize_t n, SparseRows *A, int *memory)
    void catch_up(Py_ssize_t n, Py_ssize_t m, FilterOut *out, long t)
    long filter_doubles(Py_ssize_t n, Py_ssize_t m)
    long smoother_doubles(Py_ssize_t n, Py_ssize_t m)
    long score_doubles(Py_ssize_t n, Py_ssize_t m)


cdef void filter_one(const Model *model, const double *y, const double *x, const double *P, const double *Pinf,
                     int left, int may_settle, FilterOut *out, double *work) noexcept nogil:
    filter_series(model, y, x, P, Pinf, left, may_settle, out, work)


cdef void score_one(const Model *model, const double *y, const SmootherOut *filtered, Score *score,
                    double *work) noexcept nogil:
    score_series(model, y, filtered, score, work)


cdef long filter_room(Py_ssize_t n, Py_ssize_t m) noexcept nogil:
    return filter_doubles(n, m)


cdef long score_room(Py_ssize_t n, Py_ssize_t m) noexcept nogil:
    return score_doubles(n, m)


cdef bint _is_diagonal(const double *matrices, Py_ssize_t count, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t t, i, j
    for t in range(count):
        for i in range(size):
            for j in range(size):
                if i != j and matrices[(t * size + i) * size + j] != 0.0:
                    return False
    return True


cdef _ranks(object Pinf, Py_ssize_t n_series, Py_ssize_t n):
    """Numbers of infinite directions, by counting where that is all it takes."""
    cdef const double *P = doubles(Pinf, 3)
    if not _is_diagonal(P, n_series, n):
        return np.linalg.matrix_rank(Pinf, hermitian=True).astype(np.intc)
    ranks = zeros(cnp.NPY_INT, 1, n_series)
    cdef int *rank = <int *> cnp.PyArray_DATA(ranks)
    cdef Py_ssize_t s, i
    for s in range(n_series):
        for i in range(n):
            rank[s] += P[(s * n + i) * n + i] > 0.0
    return ranks


cdef object _again(dict memory, str name, int ndim, Py_ssize_t a, Py_ssize_t b, Py_ssize_t c=1, Py_ssize_t d=1):
    """Room for doubles: that of an earlier call if `memory` holds it and nobody looks at it any more.

    Fresh pages cost more than filtering fills them with, where a filter runs many times over.
    """
    if memory is None:
        return room(ndim, a, b, c, d)
    old = memory.get(name)
    # held by the dictionary, by this function and by its call; a view of it would be one more
    if old is None or old.shape != (a, b, c, d)[:ndim] or getrefcount(old) > 3:
        old = memory[name] = room(ndim, a, b, c, d)
    return old


cdef long _step(object part, long n_steps, Py_ssize_t rows, Py_ssize_t columns) except -1:
    """The distance between steps of one part of a model, after a look at its shape."""
    shape = part.shape
    if shape[1] != rows or (columns and shape[2] != columns):
        raise ValueError("the model's matrices do not fit each other")
    if shape[0] not in (1, n_steps):
        raise ValueError("a time-varying matrix needs one entry for each step")
    return 0 if shape[0] == 1 else rows * max(columns, 1)


cdef SparseMemory sparse_rows(SparseRows *rows, object mask, object matrix):
    cdef SparseMemory own = SparseMemory.__new__(SparseMemory)
    cdef Py_ssize_t n = matrix.shape[0]
    own.where = np.nonzero(mask)
    own.start = np.concatenate([[0], np.cumsum(np.bincount(own.where[0], minlength=n))]).astype(np.intc)
    own.column, own.value = own.where[1].astype(np.intc), np.ascontiguousarray(matrix[own.where])
    own.runs = zeros(cnp.NPY_INT, 1, 5 * n)
    rows.start = <const int *> cnp.PyArray_DATA(own.start)
    rows.column = <const int *> cnp.PyArray_DATA(own.column)
    rows.value = doubles(own.value, 1)
    find_runs(n, rows, <int *> cnp.PyArray_DATA(own.runs))
    return own


cdef class _Model:
    """Own the memory that a C `Model` points into."""

    cdef Model model
    cdef object keep

    def __cinit__(self, long n_steps, F, H, Q, R, c, d):
        cdef Model *model = &self.model
        model.F, model.H, model.Q, model.R = doubles(F, 3), doubles(H, 3), doubles(Q, 3), doubles(R, 3)
        model.c, model.d = doubles(c, 2), doubles(d, 2)
        cdef Py_ssize_t n = cnp.PyArray_DIM(F, 1), m = cnp.PyArray_DIM(H, 1)
        self.keep = [F, H, Q, R, c, d]
        model.n, model.m, model.n_steps = n, m, n_steps
        model.F_step, model.H_step = _step(F, n_steps, n, n), _step(H, n_steps, m, n)
        model.Q_step, model.R_step = _step(Q, n_steps, n, n), _step(R, n_steps, m, m)
        model.c_step, model.d_step = _step(c, n_steps, n, 0), _step(d, n_steps, m, 0)
        model.is_constant = model.F_step == model.H_step == model.Q_step == model.R_step == 0
        model.is_diagonal = _is_diagonal(model.R, cnp.PyArray_DIM(R, 0), m)
        model.is_sparse = n > 6 and model.F_step == 0 and 3 * np.count_nonzero(F) < n * n
        if model.is_sparse:
            self.keep += [sparse_rows(&model.by_rows, F[0], F[0]), sparse_rows(&model.by_columns, F[0].T, F[0].T)]


cdef _check_shape(str name, object array, tuple shape):
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, {shape} is needed")


def univariate_filter(y, F, H, Q, R, c, d, x, P, Pinf, bint steady=True, dict memory=None):
    """Filter every series, one element of a row after another: see `kalman_numpy.univariate_filter`."""
    cdef const double *y_ = doubles(y, 3)
    cdef const double *x_ = doubles(x, 2)
    cdef const double *P_ = doubles(P, 3)
    cdef const double *Pinf_ = doubles(Pinf, 3)
    cdef Py_ssize_t n_series = cnp.PyArray_DIM(y, 0), n_steps = cnp.PyArray_DIM(y, 1), m = cnp.PyArray_DIM(y, 2)
    cdef _Model holder = _Model(n_steps, F, H, Q, R, c, d)
    cdef Py_ssize_t n = holder.model.n, nn = n * n, s
    if n_series == 0 or n_steps == 0 or holder.model.m != m:
        raise ValueError("y must be (n_series, n_steps, n_obs) and not empty")
    _check_shape("x", x, (n_series, n))
    _check_shape("P", P, (n_series, n, n))
    _check_shape("Pinf", Pinf, (n_series, n, n))
    ranks = _ranks(Pinf, n_series, n)
    cdef int *left = <int *> cnp.PyArray_DATA(ranks)
    cdef Py_ssize_t kept = n_steps if ranks.any() else 0
    predicted_mean, filtered_mean = room(3, n_series, n_steps + 1, n), room(3, n_series, n_steps, n)
    predicted_cov = _again(memory, "predicted_cov", 4, n_series, n_steps + 1, n, n)
    filtered_cov = _again(memory, "filtered_cov", 4, n_series, n_steps, n, n)
    log_lik, last = room(2, n_series, n_steps), zeros(cnp.NPY_DOUBLE, 3, n_series, n, n)
    diffuse_cov = _again(memory, "diffuse_cov", 4, n_series, kept, n, n)
    diffuse_filtered = _again(memory, "diffuse_filtered_cov", 4, n_series, kept, n, n)
    diffuse_obs = zeros(cnp.NPY_UINT8, 3, n_series, kept, m)
    scratch, lengths = zeros(cnp.NPY_DOUBLE, 1, filter_doubles(n, m)), zeros(cnp.NPY_LONG, 2, 2, n_series)
    cdef long *n_kept = <long *> cnp.PyArray_DATA(lengths)
    cdef long *n_wide = n_kept + n_series
    cdef double *pm = fresh(predicted_mean)
    cdef double *pc = fresh(predicted_cov)
    cdef double *fm = fresh(filtered_mean)
    cdef double *fc = fresh(filtered_cov)
    cdef double *ll = fresh(log_lik)
    cdef double *wide = fresh(diffuse_cov)
    cdef double *wide_filtered = fresh(diffuse_filtered)
    cdef double *wide_last = fresh(last)
    cdef unsigned char *used = <unsigned char *> cnp.PyArray_DATA(diffuse_obs)
    cdef double *work = fresh(scratch)
    cdef FilterOut out
    cdef long longest = 0, written = 0
    cdef bint may_settle = steady and holder.model.is_constant
    out.n_cancelled, out.gains, out.has_cov = 0, NULL, True
    with nogil:
        for s in range(n_series):
            out.predicted_mean, out.predicted_cov = pm + s * (n_steps + 1) * n, pc + s * (n_steps + 1) * nn
            out.filtered_mean, out.filtered_cov = fm + s * n_steps * n, fc + s * n_steps * nn
            out.log_lik = ll + s * n_steps
            out.diffuse_cov, out.diffuse_filtered_cov = wide + s * kept * nn, wide_filtered + s * kept * nn
            out.diffuse_obs, out.last_diffuse_cov = used + s * kept * m, wide_last + s * nn
            filter_series(&holder.model, y_ + s * n_steps * m, x_ + s * n, P_ + s * nn, Pinf_ + s * nn, left[s],
                          may_settle, &out, work)
            longest = max(longest, out.n_diffuse_steps)
            n_kept[s], n_wide[s] = out.n_kept, out.n_diffuse_steps
            written = max(written, out.n_kept)
        for s in range(n_series):
            out.predicted_cov, out.filtered_cov = pc + s * (n_steps + 1) * nn, fc + s * n_steps * nn
            out.n_kept = n_kept[s]
            catch_up(n, m, &out, written)
            if longest:
                memset(wide + (s * kept + n_wide[s]) * nn, 0, (longest - n_wide[s]) * nn * sizeof(double))
                memset(wide_filtered + (s * kept + n_wide[s]) * nn, 0, (longest - n_wide[s]) * nn * sizeof(double))
    if written < n_steps:
        predicted_cov = np.ascontiguousarray(predicted_cov[:, :written + 1])
        filtered_cov = np.ascontiguousarray(filtered_cov[:, :written])
    if longest < kept:
        diffuse_cov, diffuse_filtered = diffuse_cov[:, :longest].copy(), diffuse_filtered[:, :longest].copy()
        diffuse_obs = diffuse_obs[:, :longest].copy()
    return Filtered(predicted_mean, predicted_cov, filtered_mean, filtered_cov, log_lik, diffuse_cov, diffuse_filtered,
                    diffuse_obs, last, out.n_cancelled)


def univariate_log_likelihood(y, F, H, Q, R, c, d, x, P, Pinf, *, bint steady=True):
    """Return the log-likelihood of every series, keeping no moments: see `kalman_numpy`."""
    cdef const double *y_ = doubles(y, 3)
    cdef const double *x_ = doubles(x, 1)
    cdef const double *P_ = doubles(P, 2)
    cdef const double *Pinf_ = doubles(Pinf, 2)
    cdef Py_ssize_t n_series = cnp.PyArray_DIM(y, 0), n_steps = cnp.PyArray_DIM(y, 1), m = cnp.PyArray_DIM(y, 2)
    cdef _Model holder = _Model(n_steps, F, H, Q, R, c, d)
    cdef Py_ssize_t n = holder.model.n, s, t
    if n_series == 0 or n_steps == 0 or holder.model.m != m:
        raise ValueError("y must be (n_series, n_steps, n_obs) and not empty")
    _check_shape("x", x, (n,))
    _check_shape("P", P, (n, n))
    _check_shape("Pinf", Pinf, (n, n))
    ranks = _ranks(Pinf[None], 1, n)
    cdef int left = (<int *> cnp.PyArray_DATA(ranks))[0]
    totals, counts = zeros(cnp.NPY_DOUBLE, 1, n_series), zeros(cnp.NPY_LONG, 1, n_series)
    steps, memory = room(1, n_steps), zeros(cnp.NPY_DOUBLE, 1, filter_doubles(n, m))
    served = zeros(cnp.NPY_UINT8, 1, n_steps * m)
    cdef double *total = fresh(totals)
    cdef double *work = fresh(memory)
    cdef long *count = <long *> cnp.PyArray_DATA(counts)
    cdef unsigned char *used = <unsigned char *> cnp.PyArray_DATA(served)
    cdef bint may_settle = steady and holder.model.is_constant
    cdef FilterOut out
    out.predicted_mean, out.gains, out.log_lik, out.diffuse_obs = NULL, NULL, fresh(steps), used
    out.n_cancelled = 0
    with nogil:
        for s in range(n_series):
            filter_series(&holder.model, y_ + s * n_steps * m, x_, P_, Pinf_, left, may_settle, &out, work)
            for t in range(n_steps):
                total[s] += out.log_lik[t]
            for t in range(out.n_diffuse_steps * m):
                count[s] += used[t]
                used[t] = 0
    return totals, counts, out.n_cancelled


def univariate_smoother(y, F, H, R, d, filtered, bint estimators=True):
    """Smooth every series backwards from its filtered moments: see `kalman_numpy.univariate_smoother`."""
    cdef const double *y_ = doubles(y, 3)
    cdef Py_ssize_t n_series = cnp.PyArray_DIM(y, 0), n_steps = cnp.PyArray_DIM(y, 1), m = cnp.PyArray_DIM(y, 2)
    cdef Py_ssize_t n = F.shape[1], nn = n * n, s
    no_noise, no_intercept = zeros(cnp.NPY_DOUBLE, 3, 1, n, n), zeros(cnp.NPY_DOUBLE, 2, 1, n)
    cdef _Model holder = _Model(n_steps, F, H, no_noise, R, no_intercept, d)
    cdef const double *pm = doubles(filtered.predicted_mean, 3)
    cdef const double *pc = doubles(filtered.predicted_cov, 4)
    cdef const double *fm = doubles(filtered.filtered_mean, 3)
    cdef const double *fc = doubles(filtered.filtered_cov, 4)
    cdef const double *wide = doubles(filtered.diffuse_cov, 4)
    diffuse_obs = np.ascontiguousarray(filtered.diffuse_obs, dtype=np.uint8)
    cdef const unsigned char *used = <const unsigned char *> cnp.PyArray_DATA(diffuse_obs)
    cdef Py_ssize_t n_diffuse = filtered.diffuse_cov.shape[1], n_kept = filtered.filtered_cov.shape[1]
    if n_series == 0 or n_steps == 0 or holder.model.m != m:
        raise ValueError("y must be (n_series, n_steps, n_obs) and not empty")
    _check_shape("predicted_mean", filtered.predicted_mean, (n_series, n_steps + 1, n))
    _check_shape("predicted_cov", filtered.predicted_cov, (n_series, n_kept + 1, n, n))
    _check_shape("filtered_mean", filtered.filtered_mean, (n_series, n_steps, n))
    _check_shape("filtered_cov", filtered.filtered_cov, (n_series, n_kept, n, n))
    _check_shape("diffuse_cov", filtered.diffuse_cov, (n_series, n_diffuse, n, n))
    _check_shape("diffuse_obs", diffuse_obs, (n_series, n_diffuse, m))
    cdef Py_ssize_t held = n_steps if estimators else 0
    means, covs = room(3, n_series, n_steps, n), room(4, n_series, n_steps, n, n)
    rs, Ns = room(3, n_series, held, n), room(4, n_series, held, n, n)
    memory = zeros(cnp.NPY_DOUBLE, 1, smoother_doubles(n, m))
    cdef double *mean = fresh(means)
    cdef double *cov = fresh(covs)
    cdef double *r = fresh(rs)
    cdef double *N = fresh(Ns)
    cdef double *work = fresh(memory)
    cdef SmootherOut out
    # its own length for each series: the others must not change its bits
    lengths = zeros(cnp.NPY_LONG, 1, n_series)
    if n_diffuse:
        lengths = filtered.diffuse_cov.any(axis=(2, 3)).sum(axis=1, dtype=np.int_)
    cdef long *length = <long *> cnp.PyArray_DATA(lengths)
    cdef long n_lost = 0
    out.n_kept, out.r, out.N = n_kept, NULL, NULL
    with nogil:
        for s in range(n_series):
            out.predicted_mean, out.predicted_cov = pm + s * (n_steps + 1) * n, pc + s * (n_kept + 1) * nn
            out.filtered_mean, out.filtered_cov = fm + s * n_steps * n, fc + s * n_kept * nn
            out.diffuse_cov, out.diffuse_obs = wide + s * n_diffuse * nn, used + s * n_diffuse * m
            out.n_diffuse_steps = length[s]
            out.mean, out.cov = mean + s * n_steps * n, cov + s * n_steps * nn
            if estimators:
                out.r, out.N = r + s * n_steps * n, N + s * n_steps * nn
            smoother_series(&holder.model, y_ + s * n_steps * m, &out, work)
            n_lost += _lost(n, n_steps, n_kept, out.cov, out.filtered_cov)
    return Smoothed(means, covs, rs, Ns, n_lost)


cdef double LOST = _LOST


cdef long _lost(Py_ssize_t n, Py_ssize_t n_steps, Py_ssize_t n_kept, const double *cov,
                const double *before) noexcept nogil:
    """Count the variances that are a small fraction of the filtered ones."""
    cdef Py_ssize_t t, j
    cdef long count = 0
    for t in range(n_steps):
        for j in range(n):
            count += cov[t * n * n + j * n + j] < LOST * before[min(t, n_kept - 1) * n * n + j * n + j]
    return count


cdef double *_sums(list sums, int which, long wanted, long n_steps, Py_ssize_t rows, Py_ssize_t columns, long *step):
    """Room for the derivatives of one part, by step if it changes with time; NULL if they are not wanted."""
    if wanted == 0:
        return NULL
    steps = n_steps if wanted > 1 else 1
    step[0] = rows * max(columns, 1) if steps > 1 else 0
    sums[which] = zeros(cnp.NPY_DOUBLE, 3, steps, rows, columns) if columns else zeros(cnp.NPY_DOUBLE, 2, steps, rows)
    return fresh(sums[which])


def univariate_score(y, F, H, R, d, filtered, tuple lengths, entries, long n_left_out=0):
    """Differentiate the log-likelihood by a model's numbers: see `kalman_score_numpy.univariate_score`."""
    cdef const double *y_ = doubles(y, 3)
    cdef Py_ssize_t n_series = cnp.PyArray_DIM(y, 0), n_steps = cnp.PyArray_DIM(y, 1), m = cnp.PyArray_DIM(y, 2)
    cdef Py_ssize_t n = F.shape[1], nn = n * n, s
    no_noise, no_intercept = zeros(cnp.NPY_DOUBLE, 3, 1, n, n), zeros(cnp.NPY_DOUBLE, 2, 1, n)
    cdef _Model holder = _Model(n_steps, F, H, no_noise, R, no_intercept, d)
    cdef const double *pm = doubles(filtered.predicted_mean, 3)
    cdef const double *pc = doubles(filtered.predicted_cov, 4)
    cdef const double *fm = doubles(filtered.filtered_mean, 3)
    cdef const double *fc = doubles(filtered.filtered_cov, 4)
    cdef const double *wide = doubles(filtered.diffuse_cov, 4)
    diffuse_obs = np.ascontiguousarray(filtered.diffuse_obs, dtype=np.uint8)
    cdef const unsigned char *used = <const unsigned char *> cnp.PyArray_DATA(diffuse_obs)
    cdef Py_ssize_t n_diffuse = filtered.diffuse_cov.shape[1], n_kept = filtered.filtered_cov.shape[1]
    if n_series == 0 or n_steps == 0 or holder.model.m != m or len(lengths) != 6:
        raise ValueError("y must be (n_series, n_steps, n_obs) and not empty")
    _check_shape("predicted_mean", filtered.predicted_mean, (n_series, n_steps + 1, n))
    _check_shape("predicted_cov", filtered.predicted_cov, (n_series, n_kept + 1, n, n))
    _check_shape("filtered_mean", filtered.filtered_mean, (n_series, n_steps, n))
    _check_shape("filtered_cov", filtered.filtered_cov, (n_series, n_kept, n, n))
    _check_shape("diffuse_cov", filtered.diffuse_cov, (n_series, n_diffuse, n, n))
    _check_shape("diffuse_obs", diffuse_obs, (n_series, n_diffuse, m))
    places = np.ascontiguousarray(entries, dtype=np.int_)
    if places.ndim != 1 or (places.size and not (0 <= places.min() and places.max() < nn)):
        raise ValueError("the entries of F are numbers of its elements, row by row")
    cdef Score g
    sums = [None] * 6
    g.F = _sums(sums, 0, lengths[0], n_steps, n, n, &g.F_step)
    g.H = _sums(sums, 1, lengths[1], n_steps, m, n, &g.H_step)
    g.Q = _sums(sums, 2, lengths[2], n_steps, n, n, &g.Q_step)
    g.R = _sums(sums, 3, lengths[3], n_steps, m, m, &g.R_step)
    g.c = _sums(sums, 4, lengths[4], n_steps, n, 0, &g.c_step)
    g.d = _sums(sums, 5, lengths[5], n_steps, m, 0, &g.d_step)
    g.entries, g.n_entries = <const long *> cnp.PyArray_DATA(places), len(places)
    g.Q_entries = NULL
    g.n_left_out = max(n_left_out, n_diffuse)
    rs, Ns = zeros(cnp.NPY_DOUBLE, 3, n_series, 2, n), zeros(cnp.NPY_DOUBLE, 4, n_series, 2, n, n)
    memory = zeros(cnp.NPY_DOUBLE, 1, score_doubles(n, m))
    cdef double *r = fresh(rs)
    cdef double *N = fresh(Ns)
    cdef double *work = fresh(memory)
    cdef SmootherOut out
    lengths_ = filtered.diffuse_cov.any(axis=(2, 3)).sum(axis=1, dtype=np.int_)
    cdef long *length = <long *> cnp.PyArray_DATA(lengths_)
    out.n_kept, out.gains, out.has_cov = n_kept, NULL, True
    with nogil:
        for s in range(n_series):
            out.predicted_mean, out.predicted_cov = pm + s * (n_steps + 1) * n, pc + s * (n_kept + 1) * nn
            out.filtered_mean, out.filtered_cov = fm + s * n_steps * n, fc + s * n_kept * nn
            out.diffuse_cov, out.diffuse_obs = wide + s * n_diffuse * nn, used + s * n_diffuse * m
            out.n_diffuse_steps = length[s]
            g.r, g.N = r + s * 2 * n, N + s * 2 * nn
            score_series(&holder.model, y_ + s * n_steps * m, &out, &g, work)
    return Derivatives(*sums, rs, Ns)
