"""The loops of the univariate Kalman kernels, for kernels that are built upon them; each is for any number of states."""

cdef extern from "kalman_types.h" nogil:
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
        double *gains
        double *inverses
        double *innovations
        int has_cov
        long n_kept
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
        const double *gains
        const double *inverses
        const double *innovations
        int has_cov
        long n_diffuse_steps
        long n_kept
        double *mean
        double *cov
        double *r
        double *N

    ctypedef struct Score:
        double *F
        double *H
        double *Q
        double *R
        double *c
        double *d
        long F_step
        long H_step
        long Q_step
        long R_step
        long c_step
        long d_step
        const long *entries
        const long *Q_entries
        long n_entries
        long n_Q_entries
        long n_left_out
        double *r
        double *N


cdef class SparseMemory:
    cdef object value, where, start, column, runs


#: see `filter_series` in kalman_sizes.h; `work` has `filter_room(n, m)` doubles
cdef void filter_one(const Model *model, const double *y, const double *x, const double *P, const double *Pinf,
                     int left, int may_settle, FilterOut *out, double *work) noexcept nogil
#: see `score_series`; `work` has `score_room(n, m)` doubles
cdef void score_one(const Model *model, const double *y, const SmootherOut *filtered, Score *score,
                    double *work) noexcept nogil
#: lay out the elements of a square matrix that `mask` tells; returns memory to be kept, with their values and places
cdef SparseMemory sparse_rows(SparseRows *rows, object mask, object matrix)
cdef long filter_room(Py_ssize_t n, Py_ssize_t m) noexcept nogil
cdef long score_room(Py_ssize_t n, Py_ssize_t m) noexcept nogil
