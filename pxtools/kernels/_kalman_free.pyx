"""Compiled log-likelihood and gradient of models with free parameters: see `kalman_free_numpy` for the twin."""

import numpy as np

cimport numpy as cnp
from libc.math cimport isfinite
from libc.string cimport memcpy, memset

from pxtools.kernels._arrays cimport doubles, fresh, room, zeros
from pxtools.kernels._kalman cimport (
    FilterOut, Model, Score, SmootherOut, SparseMemory, filter_one, filter_room, score_one, score_room, sparse_rows
)

from pxtools.kernels.kalman_free_layout import matrix_step, rank_of

cnp.import_array()


cdef extern from "kalman_free.h" nogil:
    ctypedef struct Polynomials:
        long n_terms
        long n_touched
        long n_variances
        const long *where
        const long *first
        const long *second
        const long *touched
        const long *variances
        const double *weight
        const double *base

    int place_numbers(const Polynomials *p, const double *move, double *numbers)
    void pull_back(const Polynomials *p, const double *move, const double *by_number, double *gradient)
    void spread_noise(Py_ssize_t n, Py_ssize_t q, const double *G, const double *Q, double *out)
    void gather_noise(Py_ssize_t n, Py_ssize_t q, const double *G, const double *Q, const double *S, double *by_Q,
                      double *by_G, double *W)
    int settle(Py_ssize_t n, double *A, double *P, double *x, double *W)


cdef enum:
    F_, H_, Q_, R_, C_, D_, X_, P_, G_, N_PARTS


cdef const long *_numbers(object array) except NULL:
    if not (cnp.PyArray_Check(array) and cnp.PyArray_TYPE(array) == cnp.NPY_LONG and cnp.PyArray_ISCARRAY_RO(array)):
        raise ValueError("a C-contiguous array of integers is needed")
    return <const long *> cnp.PyArray_DATA(array)


def settled(A, x, P):
    """See `kalman_free_numpy.settled`."""
    A, x, P = np.array(A, dtype=float, order="C"), np.array(x, dtype=float), np.array(P, dtype=float, order="C")
    cdef Py_ssize_t n = len(A)
    if A.shape != (n, n) or P.shape != (n, n) or x.shape != (n,):
        raise ValueError("A and P must be (n, n), x (n,)")
    work = room(1, 3 * n * n)
    settles = settle(n, <double *> doubles(A, 2), <double *> doubles(P, 2), <double *> doubles(x, 1), fresh(work))
    return x, P, bool(settles)


cdef class Likelihood:
    """See `kalman_free_numpy.Likelihood`."""

    cdef Model model
    cdef Polynomials polynomials
    cdef FilterOut out
    cdef Py_ssize_t n_series, n_params, n_stationary, q, n_numbers, n_noises, n_sparse
    cdef Py_ssize_t start[9]
    cdef Py_ssize_t step[9]
    cdef bint moves[9]
    cdef bint spreads
    cdef readonly bint is_exact
    cdef int rank
    cdef const double *y
    cdef const double *wide
    cdef const long *stationary
    cdef const long *entries
    cdef const long *noise_entries
    cdef const long *by_rows
    cdef const long *by_columns
    cdef Py_ssize_t n_entries, n_noise_entries
    # working memory
    cdef double *numbers
    cdef double *slopes
    cdef double *noise
    cdef double *noise_slopes
    cdef double *log_lik
    cdef double *work
    cdef double *start_work
    cdef double *ends
    cdef double *row_values
    cdef double *column_values
    cdef list keep

    def __cinit__(self, y, layout):
        cdef Py_ssize_t n = layout.n_states, m = layout.n_obs, k
        self.keep = [y, layout]
        self.y = doubles(y, 3)
        self.n_series, self.n_params, self.q = y.shape[0], layout.n_params, layout.n_noise
        self.model.n, self.model.m, self.model.n_steps = n, m, y.shape[1]
        if self.n_series == 0 or self.model.n_steps == 0 or y.shape[2] != m:
            raise ValueError("y must be (n_series, n_steps, n_obs) and not empty")
        starts = layout.starts
        for k, shape in enumerate(layout.shapes):
            self.start[k], self.step[k] = starts[k], matrix_step(shape, k, self.model.n_steps)
            self.moves[k] = k in layout.moved_parts
        self.n_numbers = starts[N_PARTS]
        self.wide, self.rank = doubles(layout.diffuse_cov, 2), rank_of(layout.diffuse_cov)
        self.is_exact = layout.is_exact
        self._take_polynomials(layout)
        self._take_room(layout)
        self._take_sparsity(layout)

    cdef _take_polynomials(self, layout):
        cdef Polynomials *p = &self.polynomials
        if not len(layout.where) == len(layout.first) == len(layout.second) == len(layout.weight):
            raise ValueError("the terms' arrays differ in length")
        for array, low, high in ((layout.where, 0, self.n_numbers), (layout.first, 0, self.n_params),
                                 (layout.second, -1, self.n_params), (layout.stationary, 0, self.model.n)):
            if array.size and not (low <= array.min() and array.max() < high):
                raise ValueError("a term lies outside the model's numbers")
        if layout.base.shape != (self.n_numbers,) or layout.diffuse_cov.shape != (self.model.n, self.model.n):
            raise ValueError("the model's numbers do not fit its shapes")
        touched, variances = layout.touched, layout.variances
        self.keep += [touched, variances]
        p.n_terms, p.n_touched, p.n_variances = len(layout.where), len(touched), len(variances)
        p.where, p.first, p.second = _numbers(layout.where), _numbers(layout.first), _numbers(layout.second)
        p.touched, p.variances = _numbers(touched), _numbers(variances)
        p.weight, p.base = doubles(layout.weight, 1), doubles(layout.base, 1)
        self.stationary, self.n_stationary = _numbers(layout.stationary), len(layout.stationary)

    cdef double *_room(self, Py_ssize_t count) except NULL:
        array = zeros(cnp.NPY_DOUBLE, 1, max(count, 1))
        self.keep.append(array)
        return fresh(array)

    cdef _take_room(self, layout):
        cdef Model *model = &self.model
        cdef Py_ssize_t n = model.n, m = model.m, nn = n * n, steps = model.n_steps
        self.numbers, self.slopes = self._room(self.n_numbers), self._room(self.n_numbers)
        memcpy(self.numbers, self.polynomials.base, self.n_numbers * sizeof(double))
        self.spreads = layout.spreads
        self.n_noises = max(layout.shapes[Q_][0], layout.shapes[G_][0])
        if self.spreads:
            self.noise, self.noise_slopes = self._room(self.n_noises * nn), self._room(self.n_noises * nn)
        elif self.q != n:
            raise ValueError("disturbances that are not spread over the states need one for each")
        else:
            self.noise, self.noise_slopes = self.numbers + self.start[Q_], self.slopes + self.start[Q_]
        model.F, model.H = self.numbers + self.start[F_], self.numbers + self.start[H_]
        model.Q, model.R = self.noise, self.numbers + self.start[R_]
        model.c, model.d = self.numbers + self.start[C_], self.numbers + self.start[D_]
        model.F_step, model.H_step, model.R_step = self.step[F_], self.step[H_], self.step[R_]
        model.Q_step = nn if self.n_noises > 1 else 0
        model.c_step, model.d_step = self.step[C_], self.step[D_]
        model.is_constant = model.F_step == model.H_step == model.Q_step == model.R_step == 0
        model.is_diagonal = layout.is_diagonal(R_)
        cdef Py_ssize_t wide = steps if self.rank > 0 else 0
        self.out.predicted_mean, self.out.filtered_mean = self._room((steps + 1) * n), self._room(steps * n)
        self.out.predicted_cov, self.out.filtered_cov = self._room((steps + 1) * nn), self._room(steps * nn)
        self.out.diffuse_cov, self.out.diffuse_filtered_cov = self._room(wide * nn), self._room(wide * nn)
        flags = zeros(cnp.NPY_UINT8, 1, max(wide * m, 1))
        self.keep.append(flags)
        self.out.diffuse_obs, self.out.last_diffuse_cov = <unsigned char *> cnp.PyArray_DATA(flags), self._room(nn)
        self.out.log_lik = self.log_lik = self._room(steps)
        # derivatives by F and H alone look at covariances; the others at gains
        self.out.has_cov = self.moves[F_] or self.moves[H_]
        self.out.gains, self.out.inverses = self._room(steps * m * n), self._room(steps * m)
        self.out.innovations = self._room(steps * m)
        self.work = self._room(max(filter_room(n, m), score_room(n, m)))
        self.start_work = self._room(7 * nn + 3 * n + n * self.q)
        self.ends = self._room(2 * n + 2 * nn + 2 * (n + nn))

    cdef _take_sparsity(self, layout):
        cdef Py_ssize_t n = self.model.n
        entries, of_noise = layout.wanted(F_), layout.wanted(Q_)
        self.keep += [entries, of_noise]
        self.entries, self.n_entries = _numbers(entries), len(entries)
        self.noise_entries, self.n_noise_entries = NULL, len(of_noise)
        if not self.spreads:
            self.noise_entries = _numbers(of_noise)
        if n <= 6 or self.step[F_] > 0:
            return
        mask = layout.mask(F_)
        self.model.is_sparse = 3 * np.count_nonzero(mask) < n * n
        if not self.model.is_sparse:
            return
        # what moves is no one: its row is more than a move of states
        matrix = np.where(layout.moving, np.nan, layout.base)[layout.slice(F_)].reshape(n, n)
        cdef SparseMemory rows = sparse_rows(&self.model.by_rows, mask, matrix)
        cdef SparseMemory columns = sparse_rows(&self.model.by_columns, mask.T, matrix.T)
        places = [rows.where[0] * n + rows.where[1], columns.where[1] * n + columns.where[0]]
        self.keep += [rows, columns, places]
        self.n_sparse, self.by_rows, self.by_columns = len(places[0]), _numbers(places[0]), _numbers(places[1])
        self.row_values, self.column_values = fresh(rows.value), fresh(columns.value)

    def at(self, moves, bint gradients=True):
        """See `kalman_free_numpy.Likelihood.at`."""
        cdef const double *move = doubles(moves, 2)
        cdef Py_ssize_t count = cnp.PyArray_DIM(moves, 0), k
        if cnp.PyArray_DIM(moves, 1) != self.n_params:
            raise ValueError("moves must be (n_points, n_params)")
        heights, slopes = room(1, count), zeros(cnp.NPY_DOUBLE, 2, count if gradients else 0, self.n_params)
        lost = zeros(cnp.NPY_LONG, 1, count)
        cdef double *height = fresh(heights)
        cdef double *slope = fresh(slopes)
        cdef long *cancelled = <long *> cnp.PyArray_DATA(lost)
        with nogil:
            for k in range(count):
                height[k] = self._one(move + k * self.n_params, slope + k * self.n_params if gradients else NULL)
                cancelled[k] = self.out.n_cancelled
        return heights, slopes, lost

    cdef double _one(self, const double *move, double *gradient) noexcept nogil:
        """The log-likelihood at a point, and the gradient if wanted."""
        cdef Model *model = &self.model
        cdef Py_ssize_t s, t
        cdef double total = 0.0
        self.out.n_cancelled = 0
        if not (place_numbers(&self.polynomials, move, self.numbers) and self._place_rest()):
            return -1.0 / 0.0
        if gradient:
            memset(self.slopes, 0, self.n_numbers * sizeof(double))
            if self.spreads:
                memset(self.noise_slopes, 0, self.n_noises * model.n * model.n * sizeof(double))
        for s in range(self.n_series):
            self._filter(self.y + s * model.n_steps * model.m)
            for t in range(model.n_steps):
                total += self.log_lik[t]
            if not isfinite(total):
                return -1.0 / 0.0
            if gradient:
                self._differentiate(self.y + s * model.n_steps * model.m, move, gradient)
            memset(self.out.diffuse_obs, 0, self.out.n_diffuse_steps * model.m)
        if gradient:
            self._gather(move, gradient)
        return total

    cdef bint _place_rest(self) noexcept nogil:
        """What follows from the numbers: the noise of the states, the sparse transition, the stationary start."""
        cdef Py_ssize_t n = self.model.n, t
        if self.spreads:
            for t in range(self.n_noises):
                spread_noise(n, self.q, self.numbers + self.start[G_] + t * self.step[G_],
                             self.numbers + self.start[Q_] + t * self.step[Q_], self.noise + t * n * n)
        self._place_sparse()
        return self._settle_start()

    cdef void _place_sparse(self) noexcept nogil:
        cdef Py_ssize_t k
        cdef double *F = self.numbers + self.start[F_]
        for k in range(self.n_sparse):
            self.row_values[k] = F[self.by_rows[k]]
            self.column_values[k] = F[self.by_columns[k]]

    cdef bint _settle_start(self) noexcept nogil:
        cdef Py_ssize_t n = self.model.n, r = self.n_stationary, i, j
        cdef const long *rows = self.stationary
        cdef double *A = self.start_work
        cdef double *P = A + n * n
        cdef double *x = P + n * n
        if r == 0:
            return True
        for i in range(r):
            x[i] = self.numbers[self.start[C_] + rows[i]]
            for j in range(r):
                A[i * r + j] = self.numbers[self.start[F_] + rows[i] * n + rows[j]]
                P[i * r + j] = self.noise[rows[i] * n + rows[j]]
        if not settle(r, A, P, x, x + n):
            return False
        for i in range(r):
            self.numbers[self.start[X_] + rows[i]] = x[i]
            for j in range(r):
                self.numbers[self.start[P_] + rows[i] * n + rows[j]] = 0.5 * (P[i * r + j] + P[j * r + i])
        return True

    cdef void _filter(self, const double *y) noexcept nogil:
        filter_one(&self.model, y, self.numbers + self.start[X_], self.numbers + self.start[P_], self.wide, self.rank,
                   self.model.is_constant, &self.out, self.work)

    cdef double *_slopes(self, int part) noexcept nogil:
        """Where derivatives by a part of the model go; those of a stationary start go by way of F, Q and c."""
        if part == Q_:
            return self.noise_slopes if self.moves[Q_] or self.moves[G_] else NULL
        return self.slopes + self.start[part] if self.moves[part] else NULL

    cdef void _differentiate(self, const double *y, const double *move, double *gradient) noexcept nogil:
        """Add a series' derivatives by the numbers, after its filter."""
        cdef Py_ssize_t n = self.model.n, nn = n * n, i, j
        cdef SmootherOut seen
        cdef Score g
        cdef double *r = self.ends + 2 * (n + nn)
        cdef double *N = r + 2 * n
        seen.predicted_mean, seen.predicted_cov = self.out.predicted_mean, self.out.predicted_cov
        seen.filtered_mean, seen.filtered_cov = self.out.filtered_mean, self.out.filtered_cov
        seen.diffuse_cov, seen.diffuse_obs = self.out.diffuse_cov, self.out.diffuse_obs
        seen.gains, seen.inverses = self.out.gains, self.out.inverses
        seen.innovations, seen.has_cov = self.out.innovations, self.out.has_cov
        seen.n_diffuse_steps, seen.n_kept = self.out.n_diffuse_steps, self.out.n_kept
        g.F, g.H, g.Q, g.R = self._slopes(F_), self._slopes(H_), self._slopes(Q_), self._slopes(R_)
        g.c, g.d = self._slopes(C_), self._slopes(D_)
        g.F_step, g.H_step, g.Q_step = self.step[F_], self.step[H_], self.model.Q_step
        g.R_step, g.c_step, g.d_step = self.step[R_], self.step[C_], self.step[D_]
        g.entries, g.n_entries, g.n_left_out = self.entries, self.n_entries, seen.n_diffuse_steps
        g.Q_entries, g.n_Q_entries = self.noise_entries, self.n_noise_entries
        g.r, g.N = r, N
        memset(r, 0, 2 * (n + nn) * sizeof(double))
        score_one(&self.model, y, &seen, &g, self.work)
        for i in range(n):
            self.slopes[self.start[X_] + i] += r[i]
            for j in range(n):
                self.slopes[self.start[P_] + i * n + j] += 0.5 * (r[i] * r[j] - N[i * n + j])
        if not self.is_exact and seen.n_diffuse_steps:
            self._turn_start(y, move, r + n, N + nn, seen.n_diffuse_steps, gradient)

    cdef void _turn_start(self, const double *y, const double *move, const double *r, const double *N, long n_steps,
                          double *gradient) noexcept nogil:
        """Add the derivatives by way of F and H in the diffuse steps, by differences of a filter over these alone."""
        cdef Py_ssize_t k
        cdef long all_steps = self.model.n_steps
        cdef double size, ahead, behind
        self.model.n_steps = n_steps
        for k in range(self.n_params):
            size = self._turn(k, move, 0.0)
            if size > 0.0:
                ahead = self._turned(k, y, move, r, N, 1e-5 / size)
                behind = self._turned(k, y, move, r, N, -1e-5 / size)
                gradient[k] += (ahead - behind) / (2e-5 / size)
        self.model.n_steps = all_steps

    cdef double _turn(self, Py_ssize_t k, const double *move, double step) noexcept nogil:
        """Move F and H along a parameter's slope; return the slope's largest element."""
        cdef Polynomials *p = &self.polynomials
        cdef Py_ssize_t j, where
        cdef double slope, size = 0.0
        cdef double *by_number = self.numbers
        for j in range(p.n_terms):
            where = p.where[j]
            if not (where < self.start[Q_] and (p.first[j] == k or p.second[j] == k)):
                continue
            slope = p.weight[j]
            if p.second[j] >= 0:
                slope *= 2.0 * move[k] if p.first[j] == p.second[j] else move[p.first[j] + p.second[j] - k]
            size = max(size, abs(slope))
            by_number[where] += step * slope
        return size

    cdef double _turned(self, Py_ssize_t k, const double *y, const double *move, const double *r, const double *N,
                        double step) noexcept nogil:
        """The log-likelihood of the diffuse steps, and of the others to first order, after a turn of F and H."""
        cdef Py_ssize_t n = self.model.n, nn = n * n, i, j
        cdef long n_steps = self.model.n_steps
        cdef double total = 0.0
        cdef double *x = self.out.predicted_mean + n_steps * n
        cdef double *P = self.out.predicted_cov + n_steps * nn
        cdef long n_cancelled = self.out.n_cancelled
        self._turn(k, move, step)
        self._place_sparse()
        memset(self.out.diffuse_obs, 0, n_steps * self.model.m)
        memset(self.out.last_diffuse_cov, 0, nn * sizeof(double))
        filter_one(&self.model, y, self.numbers + self.start[X_], self.numbers + self.start[P_], self.wide, self.rank,
                   0, &self.out, self.work)
        self.out.n_cancelled = n_cancelled
        place_numbers(&self.polynomials, move, self.numbers)
        self._place_sparse()
        for i in range(n_steps):
            total += self.log_lik[i]
        for i in range(n):
            total += r[i] * x[i]
            for j in range(n):
                total += 0.5 * (r[i] * r[j] - N[i * n + j]) * P[i * n + j]
                if self.out.last_diffuse_cov[i * n + j] != 0.0:
                    total = 0.0 / 0.0
        return total

    cdef void _gather(self, const double *move, double *gradient) noexcept nogil:
        """Carry the derivatives by numbers back to the parameters."""
        cdef Py_ssize_t n = self.model.n, t
        if self.n_stationary:
            self._gather_start()
        if self.spreads and (self.moves[Q_] or self.moves[G_]):
            for t in range(self.n_noises):
                gather_noise(n, self.q, self.numbers + self.start[G_] + t * self.step[G_],
                             self.numbers + self.start[Q_] + t * self.step[Q_], self.noise_slopes + t * n * n,
                             self.slopes + self.start[Q_] + t * self.step[Q_],
                             self.slopes + self.start[G_] + t * self.step[G_], self.start_work)
        pull_back(&self.polynomials, move, self.slopes, gradient)

    cdef void _gather_start(self) noexcept nogil:
        """From the derivatives by stationary moments to those by F, Q and c: see kalman_free.h."""
        cdef Py_ssize_t n = self.model.n, r = self.n_stationary, i, j, k
        cdef const long *rows = self.stationary
        cdef double *A = self.start_work
        cdef double *L = A + n * n
        cdef double *l = L + n * n
        cdef double *F = self.numbers + self.start[F_]
        cdef double *x = self.numbers + self.start[X_]
        cdef double *P = self.numbers + self.start[P_]
        cdef double *W = l + n
        cdef double sum
        for i in range(r):
            l[i] = self.slopes[self.start[X_] + rows[i]]
            for j in range(r):
                A[i * r + j] = F[rows[j] * n + rows[i]]
                L[i * r + j] = self.slopes[self.start[P_] + rows[i] * n + rows[j]]
        if not settle(r, A, L, l, W):
            self.slopes[0] = 0.0 / 0.0
        for i in range(r):
            self.slopes[self.start[C_] + rows[i]] += l[i]
            for j in range(r):
                self.noise_slopes[rows[i] * n + rows[j]] += L[i * r + j]
        if not self.moves[F_]:
            return
        for i in range(r):
            for j in range(r):
                sum = 0.0
                for k in range(r):
                    sum += L[i * r + k] * F[rows[k] * n + rows[j]]
                W[i * r + j] = sum
        for i in range(r):
            for j in range(r):
                sum = 0.0
                for k in range(r):
                    sum += W[i * r + k] * P[rows[k] * n + rows[j]]
                self.slopes[self.start[F_] + rows[i] * n + rows[j]] += 2.0 * sum + l[i] * x[rows[j]]
