/* Models whose numbers are polynomials of free parameters: the numbers at a point, the start that follows from them,
 * and the way back from derivatives by numbers to derivatives by parameters.
 *
 * A state that is stationary starts from x = F x + c and P = F P F' + Q. With the derivatives g by x and G by P,
 * `l = F' l + g` and `L = F' L F + G` give those by way of the start: l by c, L by Q, and 2 L F P + l x' by F; one
 * equation for all parameters. References: Smith (1968), Matrix equation XA + BX = C (the doubling);
 * Koopman & Shephard (1992) for the score itself.
 */
#ifndef PXTOOLS_KALMAN_FREE_H
#define PXTOOLS_KALMAN_FREE_H

#include "kalman_dense.h"

#define MAX_DOUBLINGS 40
#define VANISHED 1e-30
#define BELOW_ZERO 1e-10

/* numbers[where] = base + weight * move[first] * move[second], summed over terms; no `second` where it is negative. */
typedef struct {
    long n_terms, n_touched, n_variances;
    const long *where, *first, *second, *touched, *variances;
    const double *weight, *base;
} Polynomials;

/* Returns whether they are those of a model: round-off below a variance of zero is zero, anything less is none. */
static int place_numbers(const Polynomials *p, const double *move, double *numbers)
{
    for (long k = 0; k < p->n_touched; k++) numbers[p->touched[k]] = p->base[p->touched[k]];
    for (long k = 0; k < p->n_terms; k++)
        numbers[p->where[k]] += p->weight[k] * move[p->first[k]] * (p->second[k] < 0 ? 1.0 : move[p->second[k]]);
    for (long k = 0; k < p->n_variances; k++) {
        double *variance = numbers + p->variances[k];
        if (*variance >= 0.0) continue;
        if (!(*variance >= -BELOW_ZERO * fabs(p->base[p->variances[k]]))) return 0;
        *variance = 0.0;
    }
    return 1;
}

static void pull_back(const Polynomials *p, const double *move, const double *by_number, double *gradient)
{
    for (long k = 0; k < p->n_terms; k++) {
        const double slope = p->weight[k] * by_number[p->where[k]];
        if (p->second[k] < 0) {
            gradient[p->first[k]] += slope;
        } else {
            gradient[p->first[k]] += slope * move[p->second[k]];
            gradient[p->second[k]] += slope * move[p->first[k]];
        }
    }
}

/* out = G Q G', exactly symmetric; G is (n, q) */
static void spread_noise(Index n, Index q, const double *G, const double *Q, double *out)
{
    for (Index i = 0; i < n; i++)
        for (Index j = 0; j <= i; j++) {
            double sum = 0.0;
            for (Index a = 0; a < q; a++) {
                if (G[i * q + a] == 0.0) continue;
                for (Index b = 0; b < q; b++) sum += G[i * q + a] * Q[a * q + b] * G[j * q + b];
            }
            out[i * n + j] = out[j * n + i] = sum;
        }
}

/* With S the derivatives by G Q G': those by Q are G' S G, those by G are 2 S G Q; W has n q doubles. */
static void gather_noise(Index n, Index q, const double *G, const double *Q, const double *S, double *by_Q,
                         double *by_G, double *W)
{
    for (Index i = 0; i < n; i++)
        for (Index a = 0; a < q; a++) {
            double sum = 0.0;
            for (Index j = 0; j < n; j++) sum += S[i * n + j] * G[j * q + a];
            W[i * q + a] = sum;
        }
    for (Index a = 0; a < q; a++)
        for (Index b = 0; b < q; b++)
            for (Index i = 0; i < n; i++) by_Q[a * q + b] += G[i * q + a] * W[i * q + b];
    for (Index i = 0; i < n; i++)
        for (Index a = 0; a < q; a++)
            for (Index b = 0; b < q; b++) by_G[i * q + a] += 2.0 * W[i * q + b] * Q[b * q + a];
}

/* x and P become the sums of A^i x and of A^i P A'^i; returns whether they converge. A is lost, W has 3 n n doubles. */
CLONES static int settle(Index n, double *A, double *P, double *x, double *W)
{
    double size = 0.0, *W1 = W, *W2 = W + n * n, *W3 = W2 + n * n;
    for (int step = 0; step < MAX_DOUBLINGS; step++) {
        congruence(n, A, P, W3, W1, W2);
        for (Index j = 0; j < n * n; j++) P[j] += W3[j];
        for (Index i = 0; i < n; i++) W2[i] = dot(n, A + i * n, x);
        for (Index i = 0; i < n; i++) x[i] += W2[i];
        product(n, A, A, W1);
        memcpy(A, W1, n * n * sizeof(double));
        size = 0.0;
        for (Index j = 0; j < n * n; j++)
            if (!(fabs(A[j]) <= size)) size = fabs(A[j]);
        if (!(size > VANISHED) || size > 1.0 / VANISHED) break;
    }
    if (!(size <= VANISHED)) return 0;
    for (Index j = 0; j < n * n; j++)
        if (!(fabs(P[j]) < INFINITY)) return 0;
    return 1;
}

#endif
