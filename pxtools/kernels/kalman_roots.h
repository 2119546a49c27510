/* Dense loops of the square-root and information filters: triangles by Householder reflections, Cholesky factors,
 * products with triangles. Matrices are row-major; rows are contiguous, so that the inner loops are vectorised.
 *
 * Reference: Golub & Van Loan (2013), Matrix Computations, sections 4.2 and 5.2.
 */
#ifndef PXTOOLS_KALMAN_ROOTS_H
#define PXTOOLS_KALMAN_ROOTS_H

#include "kalman_dense.h"

#define VANISHED 1e-250

/* Turn A (rows, columns), rows <= columns, into a lower triangle L with L L' = A A', by reflections from the right. */
CLONES static void lower_triangle(const Index rows, const Index columns, double *A)
{
    for (Index i = 0; i < rows; i++) {
        double *a = A + i * columns + i;
        const Index length = columns - i;
        const double rest = dot(length - 1, a + 1, a + 1);
        /* squares of what has vanished underflow, and their quotient would be no number */
        if (a[0] * a[0] + rest < VANISHED) {
            memset(a + 1, 0, (length - 1) * sizeof(double));
            continue;
        }
        if (rest == 0.0) continue;
        const double size = sqrt(a[0] * a[0] + rest), pivot = a[0] > 0 ? -size : size;
        const double first = a[0] - pivot, scale = -1.0 / (pivot * first);
        a[0] = first;
        for (Index k = i + 1; k < rows; k++) {
            double *b = A + k * columns + i;
            const double s = scale * dot(length, a, b);
            for (Index j = 0; j < length; j++) b[j] -= s * a[j];
        }
        memset(a, 0, length * sizeof(double));
        a[0] = pivot;
    }
}

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
