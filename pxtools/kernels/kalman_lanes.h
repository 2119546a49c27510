/* The univariate Kalman filter and smoother over many series at once: one lane of a vector is one series.
 *
 * Letters as in kalman_core.h. Each lane has its own missing values, and may have its own model. Covariances are packed
 * lower triangles. The order of all operations is that of kalman_loops.h, so that a lane gives the bits of a series
 * filtered alone. NaN in y means missing: never compile this with a flag that assumes finite numbers.
 *
 * A pass over a block of lanes keeps a trace: what the outputs and the backward pass need of each step. Without a
 * backward pass the trace is a ring of TILE steps, written out whenever it is full.
 */
#ifndef PXTOOLS_KALMAN_LANES_H
#define PXTOOLS_KALMAN_LANES_H

#include "kalman_core.h"

#define LANES 8
#define TILE 8
#define LN_2 0.69314718055994530942
#define LOST 1e-4

typedef double V __attribute__((vector_size(LANES * sizeof(double))));
typedef long long Mask __attribute__((vector_size(LANES * sizeof(double))));

#define TRI(n) ((n) * ((n) + 1) / 2)

/* Where a part of the model lies: element k of series s at step t is at[s * series + t * step + k]. */
typedef struct {
    const double *at;
    long series, step;
} Part;

typedef struct {
    Index n, m;
    long n_steps;
    Part F, H, Q, R, c, d, x, P;
    int is_diagonal; /* all of R */
} FleetModel;

/* Outputs over all series, NULL where not wanted. */
typedef struct {
    double *log_likelihood, *log_likelihood_steps;
    double *predicted_mean, *predicted_cov, *filtered_mean, *filtered_cov, *residuals;
    double *last_mean, *last_cov, *smoothed_mean, *smoothed_cov, *statistics;
    double *gains, *inverses, *rows, *constants; /* of the first series only: what the series of its pattern share */
    long *cancelled, *lost;
} FleetOut;

/* The trace of a block: what was predicted, filtered and learnt at each step, in lanes. */
typedef struct {
    V *xp, *Pp, *xf, *Pf, *v, *inverse, *K, *h, *log_lik;
} Trace;

ALWAYS_INLINE V splat(double a) { return (V){a, a, a, a, a, a, a, a}; }
ALWAYS_INLINE V pick(Mask which, V yes, V no) { return (V)((which & (Mask)yes) | (~which & (Mask)no)); }
ALWAYS_INLINE V only(Mask which, V yes) { return (V)(which & (Mask)yes); }
ALWAYS_INLINE Index tri(Index i, Index j) { return i >= j ? i * (i + 1) / 2 + j : j * (j + 1) / 2 + i; }

ALWAYS_INLINE int any(Mask which)
{
    long long found = 0;
    for (int l = 0; l < LANES; l++) found |= which[l];
    return found != 0;
}

/* Which of at most 64 numbers are not zero, a bit each; beyond, all bits. */
ALWAYS_INLINE unsigned long long non_zeros(Index size, const double *at)
{
    unsigned long long bits = 0;
    if (size > 64) return ~0ULL;
    for (Index k = 0; k < size; k++) bits |= (unsigned long long)(at[k] != 0.0) << k;
    return bits;
}

/* Those of row i of a matrix (m, n). */
ALWAYS_INLINE unsigned long long row_bits(unsigned long long bits, Index n, Index m, Index i, const double *row)
{
    return m * n > 64 ? non_zeros(n, row) : bits >> i * n;
}

/* Take the exponents out of a product that must not overflow. */
ALWAYS_INLINE void renormalise(V *product, Mask *exponents)
{
    const Mask bits = (Mask)*product;
    *exponents += ((bits >> 52) & 0x7ff) - 1023;
    *product = (V)((bits & 0x800fffffffffffffLL) | 0x3ff0000000000000LL);
}

/* Bring element k of a part at step t into lanes, for the series of the lanes. */
static void load_part(Part part, Index size, long t, const long *rows, V *lanes)
{
    for (int l = 0; l < LANES; l++) {
        const double *from = part.at + rows[l] * part.series + t * part.step;
        for (Index k = 0; k < size; k++) ((double *)(lanes + k))[l] = from[k];
    }
}

static void load_symmetric(Part part, Index n, long t, const long *rows, V *lanes)
{
    for (int l = 0; l < LANES; l++) {
        const double *from = part.at + rows[l] * part.series + t * part.step;
        for (Index i = 0; i < n; i++)
            for (Index j = 0; j <= i; j++) ((double *)(lanes + tri(i, j)))[l] = from[i * n + j];
    }
}

/* Write steps [from, to) of a traced vector to its place in the output; n_own lanes are real. */
static void write_vectors(double *out, const V *trace, Index size, long from, long to, long length, const long *rows,
                          int n_own)
{
    if (!out) return;
    for (int l = 0; l < n_own; l++) {
        double *place = out + (rows[l] * length + from) * size;
        const double *lane = (const double *)trace + l;
        for (long k = 0; k < (to - from) * size; k++) place[k] = lane[k * LANES];
    }
}

static void write_matrices(double *out, const V *trace, Index n, long from, long to, long length, const long *rows,
                           int n_own)
{
    if (!out) return;
    for (int l = 0; l < n_own; l++) {
        double *place = out + (rows[l] * length + from) * n * n;
        const double *lane = (const double *)trace + l;
        for (long t = from; t < to; t++, place += n * n, lane += TRI(n) * LANES)
            for (Index i = 0; i < n; i++)
                for (Index j = 0; j <= i; j++) place[i * n + j] = place[j * n + i] = lane[tri(i, j) * LANES];
    }
}

/* Read steps [from, to) of the observations into lanes. */
static void read_rows(const double *y, Index m, long from, long to, long length, const long *rows, V *lanes)
{
    for (int l = 0; l < LANES; l++) {
        const double *place = y + (rows[l] * length + from) * m;
        double *lane = (double *)lanes + l;
        for (long k = 0; k < (to - from) * m; k++) lane[k * LANES] = place[k];
    }
}

/* --- sufficient statistics for EM ------------------------------------------------------------------------------ */

/* Of one series: sum of r r' - N, first mean and covariance, sums of E[e e'], E[e x'] and E[x x'] over rows with any
 * observation, and their number: `kalman_batch_layout.py`. */
#define STATISTICS(n, m) (3 * (n) * (n) + (n) + (m) * (m) + (m) * (n) + 1)

/* What the observed elements say about the missing ones' noise: B and C of `e = B e[observed] + N(0, C)`. */
static void missing_noise(Index m, const double *R, const unsigned char *here, double *B, double *C, double *work)
{
    double *L = work, *w = work + m * m;
    for (Index i = 0; i < m * m; i++) B[i] = C[i] = L[i] = 0.0;
    for (Index i = 0; i < m; i++) { /* R = L D L' over the observed elements, D on the diagonal of L */
        if (!here[i]) continue;
        double pivot = R[i * m + i];
        B[i * m + i] = 1.0;
        for (Index j = 0; j < i; j++) {
            if (!here[j]) continue;
            double rest = R[i * m + j];
            for (Index k = 0; k < j; k++) rest -= L[i * m + k] * L[j * m + k] * L[k * m + k];
            L[i * m + j] = L[j * m + j] > 0 ? rest / L[j * m + j] : 0.0;
            pivot -= L[i * m + j] * L[i * m + j] * L[j * m + j];
        }
        L[i * m + i] = pivot <= NO_VARIANCE * R[i * m + i] ? 0.0 : pivot;
    }
    for (Index i = 0; i < m; i++) { /* row i of B solves B R[observed, observed] = R[i, observed] */
        if (here[i]) continue;
        for (Index j = 0; j < m; j++) {
            w[j] = here[j] ? R[i * m + j] : 0.0;
            for (Index k = 0; k < j; k++) w[j] -= L[j * m + k] * w[k];
        }
        for (Index j = m - 1; j >= 0; j--) {
            double sum = L[j * m + j] > 0 ? w[j] / L[j * m + j] : 0.0;
            for (Index k = j + 1; k < m; k++) sum -= L[k * m + j] * B[i * m + k];
            B[i * m + j] = here[j] ? sum : 0.0;
        }
    }
    for (Index i = 0; i < m; i++)
        for (Index j = 0; j < m; j++) {
            if (here[i] || here[j]) continue;
            double rest = R[i * m + j];
            for (Index k = 0; k < m; k++) rest -= B[i * m + k] * R[k * m + j] * here[k];
            C[i * m + j] = rest;
        }
}

/* Add one row's noise moments, E[e e'] and E[e x'] given all observations; x and P are smoothed, R is correlated. */
static void add_noise(Index n, Index m, const double *y, const double *d, const double *H, const double *R,
                      const double *x, const double *P, double *noise, double *noise_state, unsigned char *here,
                      double *work)
{
    double *e = work, *HP = e + m, *B = HP + m * n, *C = B + m * m, *T = C + m * m, *scratch = T + m * m;
    for (Index i = 0; i < m; i++) {
        here[i] = y[i] == y[i];
        e[i] = here[i] ? y[i] - d[i] - dot(n, H + i * n, x) : 0.0;
        for (Index j = 0; j < n; j++) HP[i * n + j] = here[i] ? dot(n, H + i * n, P + j * n) : 0.0;
    }
    missing_noise(m, R, here, B, C, scratch);
    for (Index i = 0; i < m; i++) /* E[e x'] = B (e x' - H P) */
        for (Index j = 0; j < n; j++) {
            double sum = 0.0;
            for (Index k = 0; k < m; k++) sum += B[i * m + k] * (e[k] * x[j] - HP[k * n + j]);
            noise_state[i * n + j] = sum;
        }
    for (Index i = 0; i < m; i++) /* T = B (e e' + H P H') */
        for (Index j = 0; j < m; j++) {
            double sum = 0.0;
            for (Index k = 0; k < m; k++)
                sum += B[i * m + k] * (e[k] * e[j] + (here[j] ? dot(n, HP + k * n, H + j * n) : 0.0));
            T[i * m + j] = sum;
        }
    for (Index i = 0; i < m; i++)
        for (Index j = 0; j <= i; j++) {
            double sum = C[i * m + j];
            for (Index k = 0; k < m; k++) sum += T[i * m + k] * B[j * m + k];
            noise[tri(i, j)] = sum;
        }
}

/* The sums of a block, in lanes; symmetric ones as lower triangles. One after another in memory, from `scores`. */
typedef struct {
    V *scores, *mean, *cov, *noise, *cross, *states, *count;
} Sums;

#define SUMS_V(n, m) (3 * TRI(n) + (n) + TRI(m) + (m) * (n) + 1)
/* scratch of a row's sums: its noise, H P, and which elements are there */
#define ROW_V(n, m) ((m) * (2 + (n)))
#define CORRELATED_DOUBLES(n, m) ((n) + (n) * (n) + (m) * (4 + 3 * (n) + 6 * (m)))

static V *lay_sums(Index n, Index m, V *memory, Sums *sums)
{
    sums->scores = memory;
    sums->mean = sums->scores + TRI(n);
    sums->cov = sums->mean + n;
    sums->noise = sums->cov + TRI(n);
    sums->cross = sums->noise + TRI(m);
    sums->states = sums->cross + m * n;
    sums->count = sums->states + TRI(n);
    return sums->count + 1;
}

/* Add the noise moments of one row where R is correlated: one lane after another. Vectors come by address: a function
 * that is not inlined into a clone takes them from elsewhere than the clone puts them. */
static void add_correlated(Index n, const FleetModel *model, long t, const double *y, const long *rows,
                           const Mask *seen, const V *x, const V *P, Sums *sums, double *work)
{
    const Index m = model->m;
    double *x1 = work, *P1 = x1 + n, *noise = P1 + n * n, *cross = noise + m * m, *more = cross + m * n;
    unsigned char *here = (unsigned char *)more;
    for (int l = 0; l < LANES; l++) {
        if (!(*seen)[l]) continue;
        const Part H = model->H, R = model->R, d = model->d;
        const long s = rows[l];
        for (Index i = 0; i < n; i++) {
            x1[i] = x[i][l];
            for (Index j = 0; j < n; j++) P1[i * n + j] = P[tri(i, j)][l];
        }
        add_noise(n, m, y + (s * model->n_steps + t) * m, d.at + s * d.series + t * d.step,
                  H.at + s * H.series + t * H.step, R.at + s * R.series + t * R.step, x1, P1, noise, cross, here,
                  more + m);
        for (Index k = 0; k < TRI(m); k++) sums->noise[k][l] += noise[k];
        for (Index k = 0; k < m * n; k++) sums->cross[k][l] += cross[k];
    }
}

static double *write_symmetric(Index n, const V *from, int lane, double *to)
{
    for (Index i = 0; i < n; i++)
        for (Index j = 0; j < n; j++) to[i * n + j] = from[tri(i, j)][lane];
    return to + n * n;
}

static double *write_lane(Index size, const V *from, int lane, double *to)
{
    for (Index k = 0; k < size; k++) to[k] = from[k][lane];
    return to + size;
}

/* Write the sums of one series. */
static void write_sums(Index n, Index m, const Sums *sums, int lane, double *to)
{
    to = write_symmetric(n, sums->scores, lane, to);
    to = write_lane(n, sums->mean, lane, to);
    to = write_symmetric(n, sums->cov, lane, to);
    to = write_symmetric(m, sums->noise, lane, to);
    to = write_lane(m * n, sums->cross, lane, to);
    to = write_symmetric(n, sums->states, lane, to);
    *to = (*sums->count)[lane];
}

/* --- series with one pattern and one model: the gains are known, only means are left --------------------------- */

typedef struct {
    const double *gains, *inverses, *rows; /* (n_steps, m, n), (n_steps, m), (n_steps, m, n); inverse < 0: missing */
    const double *filtered_cov;            /* (n_steps, n, n), for the smoother */
    const double *constants;               /* (n_steps + 1): of the log-likelihood of each step, and of all */
} Shared;

#endif
