"""Compiled univariate Kalman filter and smoother: see `kalman_numpy` for the twins, `kalman_loops.h` for the loops."""

import numpy as np

from pxtools.kernels.kalman_results import Filtered, Smoothed


cdef extern from "kalman_sizes.h" nogil:
    ctypedef struct SparseRows:
        const int *start
        const int *column
        const double *value

    ctypedef struct Model:
        Py_ssize_t n
        Py_ssize_t m
        long n_steps
        const double *F
        const double *H
        const double *Q
        const double *R
        const double *c
        const double *d
        long F_step
        long H_step
        long Q_step
        long R_step
        long c_step
        long d_step
        int is_constant
        int is_diagonal
        int is_sparse
        SparseRows by_rows
        SparseRows by_columns

    ctypedef struct FilterOut:
        double *predicted_mean
        double *predicted_cov
        double *filtered_mean
        double *filtered_cov
        double *log_lik
        double *diffuse_cov
        double *diffuse_filtered_cov
        unsigned char *diffuse_obs
        double *last_diffuse_cov
        long n_diffuse_steps
        long n_cancelled

    ctypedef struct SmootherOut:
        const double *predicted_mean
        const double *predicted_cov
        const double *filtered_mean
        const double *filtered_cov
        const double *diffuse_cov
        const unsigned char *diffuse_obs
        long n_diffuse_steps
        double *mean
        double *cov
        double *r
        double *N

    void filter_series(const Model *model, const double *y, const double *x0, const double *P0, const double *Pinf0,
                       int left, int may_settle, FilterOut *out, double *work)
    void smoother_series(const Model *model, const double *y, const SmootherOut *out, double *work)
    long filter_doubles(Py_ssize_t n, Py_ssize_t m)
    long smoother_doubles(Py_ssize_t n, Py_ssize_t m)


cdef bint _is_diagonal(const double[:, :, ::1] matrices) noexcept nogil:
    cdef Py_ssize_t t, i, j
    for t in range(matrices.shape[0]):
        for i in range(matrices.shape[1]):
            for j in range(matrices.shape[2]):
                if i != j and matrices[t, i, j] != 0.0:
                    return False
    return True


cdef _ranks(const double[:, :, ::1] Pinf):
    """Numbers of infinite directions, by counting where that is all it takes."""
    if not _is_diagonal(Pinf):
        return np.linalg.matrix_rank(Pinf, hermitian=True).astype(np.intc)
    cdef int[::1] ranks = np.zeros(Pinf.shape[0], dtype=np.intc)
    cdef Py_ssize_t s, i
    for s in range(Pinf.shape[0]):
        for i in range(Pinf.shape[1]):
            ranks[s] += Pinf[s, i, i] > 0.0
    return ranks


cdef class _Model:
    """Own the memory that a C `Model` points into."""

    cdef Model model
    cdef object keep

    def __cinit__(self, long n_steps, F, H, Q, R, c, d):
        cdef const double[:, :, ::1] F_ = F, H_ = H, Q_ = Q, R_ = R
        cdef const double[:, ::1] c_ = c, d_ = d
        n, m = F.shape[1], H.shape[1]
        if (F.shape[2], H.shape[2], Q.shape[1:], R.shape[1:], c.shape[1], d.shape[1]) != (n, n, (n, n), (m, m), n, m):
            raise ValueError("the model's matrices do not fit each other")
        for part in (F, H, Q, R, c, d):
            if part.shape[0] not in (1, n_steps):
                raise ValueError("a time-varying matrix needs one entry for each step")
        self.keep = [F, H, Q, R, c, d]
        self.model.n, self.model.m, self.model.n_steps = n, m, n_steps
        self.model.F, self.model.F_step = &F_[0, 0, 0], 0 if F_.shape[0] == 1 else n * n
        self.model.H, self.model.H_step = &H_[0, 0, 0] if m else NULL, 0 if H_.shape[0] == 1 else m * n
        self.model.Q, self.model.Q_step = &Q_[0, 0, 0], 0 if Q_.shape[0] == 1 else n * n
        self.model.R, self.model.R_step = &R_[0, 0, 0] if m else NULL, 0 if R_.shape[0] == 1 else m * m
        self.model.c, self.model.c_step = &c_[0, 0], 0 if c_.shape[0] == 1 else n
        self.model.d, self.model.d_step = &d_[0, 0] if m else NULL, 0 if d_.shape[0] == 1 else m
        self.model.is_constant = F_.shape[0] == 1 and H_.shape[0] == 1 and Q_.shape[0] == 1 and R_.shape[0] == 1
        self.model.is_diagonal = _is_diagonal(R_)
        self.model.is_sparse = n > 6 and F_.shape[0] == 1 and 3 * np.count_nonzero(F) < n * n
        if self.model.is_sparse:
            self._set_sparse(&self.model.by_rows, F[0])
            self._set_sparse(&self.model.by_columns, F[0].T)

    cdef _set_sparse(self, SparseRows *rows, matrix):
        where = np.nonzero(matrix)
        counts = np.bincount(where[0], minlength=matrix.shape[0])
        start = np.concatenate([[0], np.cumsum(counts)]).astype(np.intc)
        column, value = where[1].astype(np.intc), np.ascontiguousarray(matrix[where])
        cdef int[::1] start_ = start, column_ = column
        cdef double[::1] value_ = value
        self.keep += [start, column, value]
        rows.start = &start_[0]
        rows.column = &column_[0] if len(column) else NULL
        rows.value = &value_[0] if len(value) else NULL


def univariate_filter(const double[:, :, ::1] y, F, H, Q, R, c, d, const double[:, ::1] x,
                      const double[:, :, ::1] P, const double[:, :, ::1] Pinf, bint steady=True):
    """Filter every series, one element of a row after another: see `kalman_numpy.univariate_filter`."""
    cdef Py_ssize_t n_series = y.shape[0], n_steps = y.shape[1], m = y.shape[2], n = F.shape[1], s
    cdef _Model holder = _Model(n_steps, F, H, Q, R, c, d)
    if n_series == 0 or n_steps == 0 or H.shape[1] != m:
        raise ValueError("y must be (n_series, n_steps, n_obs) and not empty")
    if (x.shape[0], x.shape[1], P.shape[0], P.shape[1], P.shape[2]) != (n_series, n, n_series, n, n):
        raise ValueError("x and P need one entry for each series")
    if (Pinf.shape[0], Pinf.shape[1], Pinf.shape[2]) != (n_series, n, n):
        raise ValueError("Pinf needs one entry for each series")
    cdef int[::1] left = _ranks(Pinf)
    is_diffuse = any(left)
    # zeros that are never touched cost no memory
    kept = n_steps if is_diffuse else 0
    cdef double[:, :, ::1] pm = np.empty((n_series, n_steps + 1, n)), fm = np.empty((n_series, n_steps, n))
    cdef double[:, :, :, ::1] pc = np.empty((n_series, n_steps + 1, n, n)), fc = np.empty((n_series, n_steps, n, n))
    cdef double[:, ::1] log_lik = np.empty((n_series, n_steps))
    cdef double[:, :, :, ::1] diffuse_cov = np.zeros((n_series, kept, n, n))
    cdef double[:, :, :, ::1] diffuse_filtered = np.zeros((n_series, kept, n, n))
    cdef unsigned char[:, :, ::1] diffuse_obs = np.zeros((n_series, kept, m), dtype=np.uint8)
    cdef double[:, :, ::1] last = np.zeros((n_series, n, n))
    cdef double[::1] work = np.zeros(filter_doubles(n, m))
    cdef FilterOut out
    cdef long longest = 0
    cdef bint may_settle = steady and holder.model.is_constant
    out.n_cancelled = 0
    with nogil:
        for s in range(n_series):
            out.predicted_mean, out.predicted_cov = &pm[s, 0, 0], &pc[s, 0, 0, 0]
            out.filtered_mean, out.filtered_cov = &fm[s, 0, 0], &fc[s, 0, 0, 0]
            out.log_lik = &log_lik[s, 0]
            out.diffuse_cov = &diffuse_cov[s, 0, 0, 0] if left[s] else NULL
            out.diffuse_filtered_cov = &diffuse_filtered[s, 0, 0, 0] if left[s] else NULL
            out.diffuse_obs = &diffuse_obs[s, 0, 0] if left[s] else NULL
            out.last_diffuse_cov = &last[s, 0, 0]
            filter_series(&holder.model, &y[s, 0, 0], &x[s, 0], &P[s, 0, 0], &Pinf[s, 0, 0], left[s], may_settle, &out,
                          &work[0])
            longest = max(longest, out.n_diffuse_steps)
    return Filtered(
        np.asarray(pm), np.asarray(pc), np.asarray(fm), np.asarray(fc), np.asarray(log_lik),
        np.array(diffuse_cov[:, :longest]), np.array(diffuse_filtered[:, :longest]), np.array(diffuse_obs[:, :longest]),
        np.asarray(last), out.n_cancelled,
    )


def univariate_smoother(const double[:, :, ::1] y, F, H, R, d, filtered, bint estimators=True):
    """Smooth every series backwards from its filtered moments: see `kalman_numpy.univariate_smoother`."""
    cdef const double[:, :, ::1] pm = filtered.predicted_mean, fm = filtered.filtered_mean
    cdef const double[:, :, :, ::1] pc = filtered.predicted_cov, fc = filtered.filtered_cov
    cdef const double[:, :, :, ::1] dc = filtered.diffuse_cov
    cdef const unsigned char[:, :, ::1] used = filtered.diffuse_obs
    cdef Py_ssize_t n_series = y.shape[0], n_steps = y.shape[1], m = y.shape[2], n = F.shape[1], s
    cdef _Model holder = _Model(n_steps, F, H, np.zeros((1, n, n)), R, np.zeros((1, n)), d)
    cdef Py_ssize_t n_diffuse = dc.shape[1]
    if n_series == 0 or n_steps == 0 or H.shape[1] != m:
        raise ValueError("y must be (n_series, n_steps, n_obs) and not empty")
    wanted = {"predicted_mean": (n_series, n_steps + 1, n), "predicted_cov": (n_series, n_steps + 1, n, n),
              "filtered_mean": (n_series, n_steps, n), "filtered_cov": (n_series, n_steps, n, n),
              "diffuse_cov": (n_series, n_diffuse, n, n), "diffuse_obs": (n_series, n_diffuse, m)}
    for name, shape in wanted.items():
        if getattr(filtered, name).shape != shape:
            raise ValueError(f"{name} does not fit y and F")
    cdef Py_ssize_t kept = n_steps if estimators else 0
    cdef double[:, :, ::1] mean = np.empty((n_series, n_steps, n)), r = np.empty((n_series, kept, n))
    cdef double[:, :, :, ::1] cov = np.empty((n_series, n_steps, n, n)), N = np.empty((n_series, kept, n, n))
    cdef double[::1] work = np.zeros(smoother_doubles(n, m))
    cdef SmootherOut out
    # its own length for each series: the others must not change its bits
    cdef long[::1] lengths = np.any(filtered.diffuse_cov, axis=(2, 3)).sum(axis=1).astype(np.int_)
    with nogil:
        for s in range(n_series):
            out.predicted_mean, out.predicted_cov = &pm[s, 0, 0], &pc[s, 0, 0, 0]
            out.filtered_mean, out.filtered_cov = &fm[s, 0, 0], &fc[s, 0, 0, 0]
            out.mean, out.cov = &mean[s, 0, 0], &cov[s, 0, 0, 0]
            out.r, out.N = NULL, NULL
            if estimators:
                out.r, out.N = &r[s, 0, 0], &N[s, 0, 0, 0]
            out.n_diffuse_steps = lengths[s]
            if n_diffuse:
                out.diffuse_cov, out.diffuse_obs = &dc[s, 0, 0, 0], &used[s, 0, 0]
            smoother_series(&holder.model, &y[s, 0, 0], &out, &work[0])
    return Smoothed(np.asarray(mean), np.asarray(cov), np.asarray(r), np.asarray(N))
