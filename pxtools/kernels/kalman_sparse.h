/* Transitions that are mostly zero, as those of seasonal and ARIMA models: most rows only move a state to another place.
 */
#ifndef PXTOOLS_KALMAN_SPARSE_H
#define PXTOOLS_KALMAN_SPARSE_H

#include "kalman_dense.h"

/* A sparse matrix by rows: the elements of row i are k = start[i] .. start[i + 1] - 1. Rows of a single one, which only
 * move a state, each of another column, stand in `runs` of neighbours (first row, first column, how many); `full` are
 * the other rows. */
typedef struct {
    const int *start;
    const int *column;
    const double *value;
    const int *runs, *full;
    int n_runs, n_full;
} SparseRows;

/* Sort the rows of a sparse matrix into runs and full ones; `memory` has 5 n numbers. */
static void find_runs(const Index n, SparseRows *A, int *memory)
{
    int *full = memory + 3 * n, *is_taken = full + n;
    memset(is_taken, 0, n * sizeof(int));
    A->runs = memory, A->full = full, A->n_runs = A->n_full = 0;
    for (int i = 0; i < n; i++) {
        const int k = A->start[i];
        if (A->start[i + 1] != k + 1 || A->value[k] != 1.0 || is_taken[A->column[k]]) {
            full[A->n_full++] = i;
            continue;
        }
        is_taken[A->column[k]] = 1;
        int *run = memory + 3 * A->n_runs;
        if (A->n_runs && run[-3] + run[-1] == i && run[-2] + run[-1] == A->column[k]) {
            run[-1]++;
            continue;
        }
        run[0] = i, run[1] = A->column[k], run[2] = 1;
        A->n_runs++;
    }
}

/* A row of a sparse matrix times a vector. */
ALWAYS_INLINE double sparse_dot(const SparseRows A, Index i, const double *x)
{
    double sum = 0.0;
    for (Index k = A.start[i]; k < A.start[i + 1]; k++) sum += A.value[k] * x[A.column[k]];
    return sum;
}

/* out = A P A', exactly symmetric, for symmetric P: what is only moved is copied. W is scratch of n n. */
ALWAYS_INLINE void sparse_congruence(const Index n, const SparseRows A, const double *P, double *RESTRICT out,
                                     double *RESTRICT W)
{
    for (const int *a = A.runs; a < A.runs + 3 * A.n_runs; a += 3)
        for (const int *b = A.runs; b < A.runs + 3 * A.n_runs; b += 3)
            for (Index i = 0; i < a[2]; i++) {
                const double *from = P + (a[1] + i) * n + b[1];
                double *to = out + (a[0] + i) * n + b[0];
                for (Index j = 0; j < b[2]; j++) to[j] = from[j];
            }
    for (Index f = 0; f < A.n_full; f++) {
        const Index i = A.full[f];
        double *w = W + f * n;
        for (Index j = 0; j < n; j++) w[j] = 0.0;
        for (Index k = A.start[i]; k < A.start[i + 1]; k++) {
            const double a = A.value[k], *row = P + A.column[k] * n;
            for (Index j = 0; j < n; j++) w[j] += a * row[j];
        }
        for (const int *b = A.runs; b < A.runs + 3 * A.n_runs; b += 3)
            for (Index j = 0; j < b[2]; j++) out[i * n + b[0] + j] = out[(b[0] + j) * n + i] = w[b[1] + j];
        for (Index g = 0; g <= f; g++) {
            const Index j = A.full[g];
            out[i * n + j] = out[j * n + i] = sparse_dot(A, i, W + g * n);
        }
    }
}

/* out = A' N A by the rows of A, exactly symmetric, for symmetric N: with A = U + sum of e D', one for each full row,
 *
 *     A' N A = U' N U + sum of D z' + z D',    z = U' N e + 1/2 sum over full rows of (e' N e2) D2
 *
 * where U only moves. W is scratch of n n. */
ALWAYS_INLINE void congruence_by_rows(const Index n, const SparseRows A, const double *N, double *RESTRICT out,
                                      double *RESTRICT W)
{
    double *z = W, *D = W + n;
    for (Index j = 0; j < n * n; j++) out[j] = 0.0;
    for (const int *a = A.runs; a < A.runs + 3 * A.n_runs; a += 3)
        for (const int *b = A.runs; b < A.runs + 3 * A.n_runs; b += 3)
            for (Index i = 0; i < a[2]; i++) {
                const double *from = N + (a[0] + i) * n + b[0];
                double *to = out + (a[1] + i) * n + b[1];
                for (Index j = 0; j < b[2]; j++) to[j] = from[j];
            }
    for (Index f = 0; f < A.n_full; f++) {
        const double *row = N + A.full[f] * n;
        for (Index j = 0; j < n; j++) z[j] = D[j] = 0.0;
        for (const int *b = A.runs; b < A.runs + 3 * A.n_runs; b += 3)
            for (Index j = 0; j < b[2]; j++) z[b[1] + j] = row[b[0] + j];
        for (Index g = 0; g < A.n_full; g++) {
            const Index i = A.full[g];
            for (Index k = A.start[i]; k < A.start[i + 1]; k++) z[A.column[k]] += 0.5 * row[i] * A.value[k];
        }
        const Index begin = A.start[A.full[f]], end = A.start[A.full[f] + 1];
        for (Index k = begin; k < end; k++) D[A.column[k]] = A.value[k];
        if (4 * (end - begin) < n) add_outer_of_few(n, out, D, z);
        else add_outer(n, out, 1.0, D, z);
    }
}

/* out = A' N A: few rows, or few columns, do more than move a state. */
ALWAYS_INLINE void sparse_congruence_back(const Index n, const SparseRows by_rows, const SparseRows by_columns,
                                          const double *N, double *RESTRICT out, double *RESTRICT W)
{
    if (by_rows.n_full < by_columns.n_full) congruence_by_rows(n, by_rows, N, out, W);
    else sparse_congruence(n, by_columns, N, out, W);
}

/* W = A B */
ALWAYS_INLINE void sparse_product(const Index n, const SparseRows A, const double *B, double *RESTRICT W)
{
    for (Index i = 0; i < n; i++) {
        for (Index j = 0; j < n; j++) W[i * n + j] = 0.0;
        for (Index k = A.start[i]; k < A.start[i + 1]; k++) {
            const double a = A.value[k];
            const double *b = B + A.column[k] * n;
            for (Index j = 0; j < n; j++) W[i * n + j] += a * b[j];
        }
    }
}

#endif
