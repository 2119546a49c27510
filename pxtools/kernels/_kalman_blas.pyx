"""Compiled Kalman filter for many states and observations, on SciPy's BLAS and LAPACK: see `kalman_numpy`.

A C-contiguous matrix is its own transpose to Fortran, so H (m, n) is read as H' and P, being symmetric, as itself.
Letters as in `kalman_results`; W is P H' and then P H' L'^-1 with L the Cholesky factor of the innovation covariance.
"""

import numpy as np

from libc.math cimport fabs, isnan, log
from libc.string cimport memcpy
from scipy.linalg.cython_blas cimport dgemm, dgemv, dtrsm, dtrsv
from scipy.linalg.cython_lapack cimport dpotrf

from pxtools.kernels.kalman_results import STEADY, Filtered

cdef double LOG_2PI = 1.8378770664093454836
cdef double SETTLED = STEADY


cdef struct Work:
    double *W       # (n, k) Fortran
    double *S       # (k, k)
    double *T       # (n, n)
    double *v       # (m)
    double *next    # (n)
    double *H       # (m, n) rows that are present
    double *Ft      # (n, n) F transposed
    int *present    # (m)


cdef double _update(int n, int m, int k, const double *y, const double *d, const double *H, const double *R,
                    double *x, double *P, Work work, int *info) noexcept nogil:
    """Take in the k elements of a row that are present, in place; return the log-likelihood."""
    cdef int i, j, one = 1
    cdef double plus = 1.0, zero = 0.0, log_lik
    cdef const double *rows = H
    if k < m:
        for i in range(k):
            memcpy(work.H + i * n, H + work.present[i] * n, n * sizeof(double))
        rows = work.H
    for i in range(k):
        work.v[i] = y[work.present[i]] - d[work.present[i]]
        for j in range(k):
            work.S[i * k + j] = R[work.present[i] * m + work.present[j]]
    dgemm("N", "N", &n, &k, &n, &plus, P, &n, <double *>rows, &n, &zero, work.W, &n)
    dgemm("T", "N", &k, &k, &n, &plus, <double *>rows, &n, work.W, &n, &plus, work.S, &k)
    dpotrf("L", &k, work.S, &k, info)
    if info[0] != 0:
        return 0.0
    dtrsm("R", "L", "T", "N", &n, &k, &plus, work.S, &k, work.W, &n)
    _add_symmetric(n, k, -1.0, work.W, "T", work.W, 1, P)
    log_lik = -0.5 * k * LOG_2PI
    for i in range(k):
        log_lik -= log(work.S[i * k + i])
    return log_lik + _mean_update(n, k, rows, x, work)


cdef double _mean_update(int n, int k, const double *rows, double *x, Work work) noexcept nogil:
    """Move the mean by the innovation that `work.v` (observations less intercepts) holds; return its square / -2."""
    cdef int i, one = 1
    cdef double plus = 1.0, minus = -1.0, squares = 0.0
    dgemv("T", &n, &k, &minus, <double *>rows, &n, x, &one, &plus, work.v, &one)
    dtrsv("L", "N", "N", &k, work.S, &k, work.v, &one)
    dgemv("N", &n, &k, &plus, work.W, &n, work.v, &one, &plus, x, &one)
    for i in range(k):
        squares += work.v[i] * work.v[i]
    return -0.5 * squares


cdef void _mirror(int n, double *P) noexcept nogil:
    """Copy the triangle that Fortran calls the lower one to the other, a block of whole cache lines at a time."""
    cdef int i, j, first, last
    for first in range(0, n, 8):
        last = min(first + 8, n)
        for i in range(first, n):
            for j in range(first, min(last, i)):
                P[i * n + j] = P[j * n + i]


cdef void _add_symmetric(int n, int inner, double scale, const double *A, char *turn, const double *B,
                         Py_ssize_t column, double *out) noexcept nogil:
    """out += scale A B, or A B' if `turn` is "T", known to be symmetric: three blocks out of four, then the mirror.

    A column of B, or of B', is `column` numbers from the next one.
    """
    cdef double plus = 1.0
    cdef int half = n // 2, rest = n - n // 2
    dgemm("N", turn, &n, &half, &inner, &scale, <double *>A, &n, <double *>B, &n, &plus, out, &n)
    dgemm("N", turn, &rest, &rest, &inner, &scale, <double *>A + half, &n, <double *>B + half * column, &n, &plus,
          out + half * n + half, &n)
    _mirror(n, out)


cdef void _predict_mean(int n, const double *F, const double *c, double *x, Work work) noexcept nogil:
    cdef int one = 1
    cdef double plus = 1.0
    memcpy(work.next, c, n * sizeof(double))
    dgemv("T", &n, &n, &plus, <double *>F, &n, x, &one, &plus, work.next, &one)
    memcpy(x, work.next, n * sizeof(double))


cdef void _predict_cov(int n, const double *F, const double *Q, const double *P, double *out, Work work) noexcept nogil:
    """out = F P F' + Q; no product has a transposed first factor, which would be slower."""
    cdef double plus = 1.0, zero = 0.0
    dgemm("N", "N", &n, &n, &n, &plus, work.Ft, &n, <double *>P, &n, &zero, work.T, &n)
    memcpy(out, Q, n * n * sizeof(double))
    _add_symmetric(n, n, 1.0, work.T, "N", F, n, out)


cdef void _transpose(int n, const double *A, double *out) noexcept nogil:
    cdef int i, j
    for i in range(n):
        for j in range(n):
            out[i * n + j] = A[j * n + i]


cdef bint _has_settled(int n, const double *P, const double *before) noexcept nogil:
    cdef int i, j
    cdef double change
    for i in range(n):
        if not fabs(P[i * n + i] - before[i * n + i]) <= SETTLED * P[i * n + i]:
            return False
    for i in range(n):
        for j in range(i):
            change = P[i * n + j] - before[i * n + j]
            if not change * change <= SETTLED * SETTLED * P[i * n + i] * P[j * n + j]:
                return False
    return True


def cholesky_filter(const double[:, :, ::1] y, const double[:, :, ::1] F, const double[:, :, ::1] H,
                    const double[:, :, ::1] Q, const double[:, :, ::1] R, const double[:, ::1] c,
                    const double[:, ::1] d, const double[:, ::1] x, const double[:, :, ::1] P,
                    const double[:, :, ::1] Pinf, bint steady=True):
    """Filter every series, a row at once: see `kalman_numpy.cholesky_filter`."""
    cdef int n_series = y.shape[0], n_steps = y.shape[1], m = y.shape[2], n = F.shape[1]
    _check(y.shape, F.shape, H.shape, Q.shape, R.shape, c.shape, d.shape, x.shape, P.shape, n_steps)
    if np.any(Pinf):
        raise ValueError("the Cholesky kernel has no exact diffuse phase")
    cdef double[:, :, ::1] pm = np.empty((n_series, n_steps + 1, n)), fm = np.empty((n_series, n_steps, n))
    cdef double[:, :, :, ::1] pc = np.empty((n_series, n_steps + 1, n, n)), fc = np.empty((n_series, n_steps, n, n))
    cdef double[:, ::1] log_lik = np.zeros((n_series, n_steps))
    cdef double[::1] memory = np.empty(m * n + m * m + n * n + m + n + m * n + n * n)
    cdef int[::1] present = np.empty(m, dtype=np.intc)
    cdef long[::1] kept = np.zeros(n_series, dtype=np.int_)
    cdef long longest = 0
    cdef Work work
    work.W = &memory[0]
    work.S = work.W + m * n
    work.T = work.S + m * m
    work.v = work.T + n * n
    work.next = work.v + m
    work.H = work.next + n
    work.Ft = work.H + m * n
    work.present = &present[0]
    cdef bint may_settle = steady and F.shape[0] == H.shape[0] == Q.shape[0] == R.shape[0] == 1
    cdef int s, t = 0, i, k, info = 0
    cdef bint is_settled
    cdef double log_dets = 0.0
    cdef size_t vector = n * sizeof(double), matrix = n * n * sizeof(double)
    with nogil:
        for s in range(n_series):
            is_settled, kept[s] = False, 0
            memcpy(&pm[s, 0, 0], &x[s, 0], vector)
            memcpy(&pc[s, 0, 0, 0], &P[s, 0, 0], matrix)
            for t in range(n_steps):
                memcpy(&fm[s, t, 0], &pm[s, t, 0], vector)
                k = 0
                for i in range(m):
                    if not isnan(y[s, t, i]):
                        present[k] = i
                        k += 1
                if is_settled and k < m:
                    is_settled = False
                    _catch_up(&fc[s, 0, 0, 0], &pc[s, 0, 0, 0], matrix, &kept[s], t)
                if is_settled:
                    for i in range(m):
                        work.v[i] = y[s, t, i] - d[t if d.shape[0] > 1 else 0, i]
                    log_lik[s, t] = log_dets + _mean_update(n, m, &H[0, 0, 0], &fm[s, t, 0], work)
                else:
                    memcpy(&fc[s, t, 0, 0], &pc[s, t, 0, 0], matrix)
                    if k:
                        log_lik[s, t] = _update(
                            n, m, k, &y[s, t, 0], &d[t if d.shape[0] > 1 else 0, 0],
                            &H[t if H.shape[0] > 1 else 0, 0, 0], &R[t if R.shape[0] > 1 else 0, 0, 0],
                            &fm[s, t, 0], &fc[s, t, 0, 0], work, &info)
                        if info != 0:
                            break
                    if t == 0 or F.shape[0] > 1:
                        _transpose(n, &F[t if F.shape[0] > 1 else 0, 0, 0], work.Ft)
                    _predict_cov(n, &F[t if F.shape[0] > 1 else 0, 0, 0], &Q[t if Q.shape[0] > 1 else 0, 0, 0],
                                 &fc[s, t, 0, 0], &pc[s, t + 1, 0, 0], work)
                    kept[s] = t + 1
                    if may_settle and k == m:
                        is_settled = _has_settled(n, &pc[s, t + 1, 0, 0], &pc[s, t, 0, 0])
                        log_dets = -0.5 * m * LOG_2PI
                        for i in range(m):
                            log_dets -= log(work.S[i * m + i])
                memcpy(&pm[s, t + 1, 0], &fm[s, t, 0], vector)
                _predict_mean(n, &F[t if F.shape[0] > 1 else 0, 0, 0], &c[t if c.shape[0] > 1 else 0, 0],
                              &pm[s, t + 1, 0], work)
            if info != 0:
                break
            longest = max(longest, kept[s])
        if info == 0:
            for s in range(n_series):
                _catch_up(&fc[s, 0, 0, 0], &pc[s, 0, 0, 0], matrix, &kept[s], longest)
    if info != 0:
        raise np.linalg.LinAlgError(f"the innovation covariance at step {t} is not positive definite")
    none = np.zeros((n_series, 0, n, n))
    used = np.zeros((n_series, 0, m), dtype=np.uint8)
    covs = [np.ascontiguousarray(pc[:, :longest + 1]), np.ascontiguousarray(fc[:, :longest])]
    return Filtered(np.asarray(pm), covs[0], np.asarray(fm), covs[1], np.asarray(log_lik), none, none.copy(), used,
                    np.zeros((n_series, n, n)), 0)


cdef void _catch_up(double *fc, double *pc, size_t size, long *kept, long t) noexcept nogil:
    """Write the covariances of the steps since they stood still, up to step t."""
    cdef size_t step = size // sizeof(double)
    cdef long k
    for k in range(kept[0], t):
        memcpy(fc + k * step, fc + (k - 1) * step, size)
        memcpy(pc + (k + 1) * step, pc + k * step, size)
    kept[0] = t


def _check(y, F, H, Q, R, c, d, x, P, n_steps):
    n, m, n_series = F[1], y[2], y[0]
    wanted = [(F, (n, n)), (H, (m, n)), (Q, (n, n)), (R, (m, m)), (c, (n,)), (d, (m,))]
    for shape, tail in wanted:
        if tuple(shape[1:len(tail) + 1]) != tail or shape[0] not in (1, n_steps):
            raise ValueError("the model's matrices do not fit each other or y")
    if min(n_series, n_steps, m) == 0 or (x[0], x[1], P[0], P[1], P[2]) != (n_series, n, n_series, n, n):
        raise ValueError("y must not be empty, and x and P need one entry for each series")
