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

/* W = A B */
ALWAYS_INLINE void product(const Index n, const double *A, const double *B, double *RESTRICT W)
{
    for (Index i = 0; i < n; i++) {
        for (Index j = 0; j < n; j++) W[i * n + j] = A[i * n] * B[j];
        for (Index k = 1; k < n; k++)
            for (Index j = 0; j < n; j++) W[i * n + j] += A[i * n + k] * B[k * n + j];
    }
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
