/* What all Kalman kernels need of small dense matrices (row-major), and how functions are compiled for several machines.
 */
#ifndef PXTOOLS_KALMAN_DENSE_H
#define PXTOOLS_KALMAN_DENSE_H

#include <math.h>
#include <stddef.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

#if defined(_MSC_VER)
#define ALWAYS_INLINE static __forceinline
#define RESTRICT __restrict
#else
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define RESTRICT restrict
#endif

#define FEW 6 /* the loops over so many states are unrolled */

/* as wide as a pointer: Python builds with -fwrapv, under which loops over int indices are not vectorised */
typedef ptrdiff_t Index;

ALWAYS_INLINE double dot(const Index n, const double *a, const double *b)
{
    double sum = 0.0;
    for (Index j = 0; j < n; j++) sum += a[j] * b[j];
    return sum;
}

ALWAYS_INLINE void mirror(const Index n, double *P)
{
    for (Index i = 0; i < n; i++)
        for (Index j = i + 1; j < n; j++) P[i * n + j] = P[j * n + i];
}

/* P += s (a b' + b a') */
ALWAYS_INLINE void add_outer(const Index n, double *P, double s, const double *a, const double *b)
{
    for (Index i = 0; i < n; i++)
        for (Index j = 0; j < n; j++) P[i * n + j] += s * (a[i] * b[j] + b[i] * a[j]);
}

/* P += a b' + b a', where most of a is zero if it is long */
ALWAYS_INLINE void add_outer_of_few(const Index n, double *P, const double *a, const double *b)
{
    if (n <= FEW) {
        add_outer(n, P, 1.0, a, b);
        return;
    }
    for (Index i = 0; i < n; i++) {
        if (a[i] == 0.0) continue;
        for (Index j = 0; j < n; j++) P[i * n + j] += a[i] * b[j];
        for (Index j = 0; j < n; j++) P[j * n + i] += a[i] * b[j];
    }
}

/* out = sum of the rows of B, each with its weight. */
ALWAYS_INLINE void add_rows(const Index n, const double *weight, const double *B, double *RESTRICT out)
{
    Index i = 1;
    for (Index j = 0; j < n; j++) out[j] = weight[0] * B[j];
    /* four rows at a time, in the same order: every sum waits for the one before to come back from memory */
    for (; n > FEW && i + 3 < n; i += 4) {
        const double *a = B + i * n, *b = a + n, *c = b + n, *d = c + n;
        for (Index j = 0; j < n; j++)
            out[j] = out[j] + weight[i] * a[j] + weight[i + 1] * b[j] + weight[i + 2] * c[j] + weight[i + 3] * d[j];
    }
    for (; i < n; i++)
        for (Index j = 0; j < n; j++) out[j] += weight[i] * B[i * n + j];
}

/* W = A B */
ALWAYS_INLINE void product(const Index n, const double *A, const double *B, double *RESTRICT W)
{
    for (Index i = 0; i < n; i++) add_rows(n, A + i * n, B, W + i * n);
}

ALWAYS_INLINE void transpose(const Index n, const double *A, double *RESTRICT W)
{
    for (Index i = 0; i < n; i++)
        for (Index j = 0; j < n; j++) W[j * n + i] = A[i * n + j];
}

/* out = A P A', exactly symmetric; W1 and W2 are scratch */
ALWAYS_INLINE void congruence(const Index n, const double *A, const double *P, double *RESTRICT out,
                              double *RESTRICT W1, double *RESTRICT W2)
{
    product(n, A, P, W1);
    transpose(n, W1, W2);
    product(n, A, W2, out);
    mirror(n, out);
}

#endif
