/* Dense loops of the square-root and information filters: Cholesky factors, products with triangles. Matrices are row-major; rows are contiguous, so that the inner loops are vectorised.
 *
 * Reference: Golub & Van Loan (2013), Matrix Computations, section 4.2.
 */
#ifndef PXTOOLS_KALMAN_ROOTS_H
#define PXTOOLS_KALMAN_ROOTS_H

#include "kalman_dense.h"

#define VANISHED 1e-250

/* out = S S', S the first n columns of rows that are `columns` long */
CLONES static void square(const Index n, const Index columns, const double *S, double *out)
{
    for (Index i = 0; i < n; i++)
        for (Index j = 0; j <= i; j++)
            out[i * n + j] = out[j * n + i] = dot(n, S + i * columns, S + j * columns);
}

/* Factor A = L L' in place, lower triangle; returns 0 where A is not positive definite. */
CLONES static int cholesky(const Index n, double *A)
{
    for (Index i = 0; i < n; i++)
        for (Index j = 0; j <= i; j++) {
            const double rest = A[i * n + j] - dot(j, A + i * n, A + j * n);
            if (i > j) A[i * n + j] = rest / A[j * n + j];
            else if (rest > 0.0) A[i * n + i] = sqrt(rest);
            else return 0;
        }
    return 1;
}

/* B <- L^-1 B for B (n, columns) */
CLONES static void solve_lower(const Index n, const Index columns, const double *L, double *B)
{
    for (Index i = 0; i < n; i++) {
        double *b = B + i * columns;
        for (Index k = 0; k < i; k++)
            for (Index j = 0; j < columns; j++) b[j] -= L[i * n + k] * B[k * columns + j];
        for (Index j = 0; j < columns; j++) b[j] /= L[i * n + i];
    }
}

/* out (columns, columns) += B' B for B (n, columns) */
CLONES static void add_gram(const Index n, const Index columns, const double *B, double *out)
{
    for (Index k = 0; k < n; k++) {
        const double *b = B + k * columns;
        for (Index i = 0; i < columns; i++)
            for (Index j = 0; j < columns; j++) out[i * columns + j] += b[i] * b[j];
    }
}

/* W (rows, columns) = A (rows, n) B (n, columns), written into rows that are `stride` long */
CLONES static void times(const Index rows, const Index n, const Index columns, const double *A, const double *B,
                         const Index B_stride, double *W, const Index stride)
{
    for (Index i = 0; i < rows; i++) {
        double *w = W + i * stride;
        for (Index j = 0; j < columns; j++) w[j] = 0.0;
        for (Index k = 0; k < n; k++) {
            const double a = A[i * n + k];
            for (Index j = 0; j < columns; j++) w[j] += a * B[k * B_stride + j];
        }
    }
}

/* P <- F P F' + Q, exactly symmetric; W1 and W2 are scratch */
CLONES static void carry(const Index n, const double *F, const double *Q, double *P, double *W1, double *W2)
{
    double *out = W2 + n * n;
    congruence(n, F, P, out, W1, W2);
    for (Index j = 0; j < n * n; j++) P[j] = out[j] + Q[j];
}

static double log_diagonal(const Index n, const double *L)
{
    double sum = 0.0;
    for (Index i = 0; i < n; i++) sum += log(fabs(L[i * n + i]));
    return sum;
}

#endif
