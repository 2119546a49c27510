/* Types and the parts of the univariate Kalman kernels that do not depend on the number of states.
 *
 * Letters: F transition, H observation, Q process noise, R observation noise, c and d intercepts; x a state mean,
 * P a state covariance (row-major, kept symmetric). NaN in y means missing: this file must never be compiled with a
 * flag that assumes finite numbers. All memory comes from the caller.
 *
 * References: Koopman & Durbin (2000); Durbin & Koopman (2012), sections 5.2-5.3 and 6.4.
 */
#ifndef PXTOOLS_KALMAN_CORE_H
#define PXTOOLS_KALMAN_CORE_H

#include "kalman_dense.h"
#include "kalman_types.h"

#define LOG_2PI 1.8378770664093454836
#define NO_VARIANCE (8 * 2.220446049250313e-16)
#define CANCELLED 1e-10
#define NOT_DIFFUSE 1e-9
#define STEADY 4e-16

/* Write the covariances of the steps since they stood still, up to step t: another row is about to move them. */
static void catch_up(const Index n, const Index m, FilterOut *out, long t)
{
    const size_t size = n * n * sizeof(double);
    for (long k = out->n_kept; k < t; k++) {
        if (out->gains) {
            memcpy(out->gains + k * m * n, out->gains + (k - 1) * m * n, m * n * sizeof(double));
            memcpy(out->inverses + k * m, out->inverses + (k - 1) * m, m * sizeof(double));
        }
        if (!out->has_cov) continue;
        memcpy(out->filtered_cov + k * n * n, out->filtered_cov + (k - 1) * n * n, size);
        memcpy(out->predicted_cov + (k + 1) * n * n, out->predicted_cov + k * n * n, size);
    }
    out->n_kept = t;
}

/* One row made uncorrelated: element i is present or not, its value less the intercept, its row of H, its variance. */
typedef struct {
    double *y, *H_own, *r, *L;
    const double *H;
    int *present;
    int n_present;
} Row;

/* fmax calls the C library, for the sake of NaN */
ALWAYS_INLINE double not_negative(double value) { return value > 0.0 ? value : 0.0; }

/* out = P h, for symmetric P */
ALWAYS_INLINE void times_vector(const Index n, const double *P, const double *h, double *RESTRICT out)
{
    add_rows(n, h, P, out);
}

/* The same for a row of H, which is mostly zero where there are many states; and its product with a vector. */
ALWAYS_INLINE void times_row(const Index n, const double *P, const double *h, double *RESTRICT out)
{
    for (Index j = 0; j < n; j++) out[j] = P[j] * h[0];
    for (Index i = 1; i < n; i++) {
        if (n > FEW && h[i] == 0.0) continue;
        for (Index j = 0; j < n; j++) out[j] += P[i * n + j] * h[i];
    }
}

ALWAYS_INLINE double row_dot(const Index n, const double *h, const double *x)
{
    double sum = 0.0;
    for (Index j = 0; j < n; j++)
        if (n <= FEW || h[j] != 0.0) sum += h[j] * x[j];
    return sum;
}

/* Factor R = L D L' over the elements that are present and multiply the row by the inverse of L.
 * A zero pivot of a positive semi-definite R has a zero column. */
static void decorrelate(const Index n, const Index m, const double *R, const double *H, Row *row)
{
    double *L = row->L;
    for (Index i = 0; i < m; i++) {
        if (!row->present[i]) continue;
        double *h = row->H_own + i * n;
        double pivot = R[i * m + i];
        memcpy(h, H + i * n, n * sizeof(double));
        for (Index j = 0; j < i; j++) {
            if (!row->present[j]) continue;
            double rest = R[i * m + j];
            for (Index k = 0; k < j; k++)
                if (row->present[k]) rest -= L[i * m + k] * L[j * m + k] * row->r[k];
            const double l = row->r[j] > 0 ? rest / row->r[j] : 0.0;
            L[i * m + j] = l;
            pivot -= l * l * row->r[j];
            row->y[i] -= l * row->y[j];
            for (Index k = 0; k < n; k++) h[k] -= l * row->H_own[j * n + k];
        }
        row->r[i] = pivot <= NO_VARIANCE * R[i * m + i] ? 0.0 : pivot;
    }
    row->H = row->H_own;
}

ALWAYS_INLINE void prepare_row(const Index n, const Index m, const Model *model, long t, const double *y, Row *row)
{
    const double *d = model->d + t * model->d_step, *R = model->R + t * model->R_step;
    row->H = model->H + t * model->H_step;
    row->n_present = 0;
    for (Index i = 0; i < m; i++) {
        row->present[i] = y[i] == y[i];
        row->n_present += row->present[i];
        row->y[i] = y[i] - d[i];
    }
    if (model->is_diagonal)
        for (Index i = 0; i < m; i++) row->r[i] = R[i * m + i];
    else
        decorrelate(n, m, R, row->H, row);
}

/* Number of doubles that a Row needs, and its layout in memory the caller gives. */
#define ROW_DOUBLES(n, m) ((m) * ((n) + 2 + (m)) + (m))

static double *lay_row(const Index n, const Index m, double *memory, Row *row)
{
    row->y = memory;
    row->r = row->y + m;
    row->L = row->r + m;
    row->H_own = row->L + m * m;
    row->present = (int *)(row->H_own + m * n);
    return memory + ROW_DOUBLES(n, m);
}

/* How far an innovation variance could reach without the row's earlier elements. */
ALWAYS_INLINE double reach(const Index n, const double *h, const double *spread)
{
    double sum = 0.0;
    for (Index j = 0; j < n; j++)
        if (n <= FEW || h[j] != 0.0) sum += h[j] * h[j] * spread[j];
    return sum;
}

static double quadratic(const Index n, const double *P, const double *h, double *M)
{
    times_row(n, P, h, M);
    return row_dot(n, h, M);
}

/* Element i of a row adds nothing. */
ALWAYS_INLINE void no_gain(const Index n, const Index i, double *gain, double *inverse)
{
    inverse[i] = 0.0;
    memset(gain + i * n, 0, n * sizeof(double));
}

/* --- the exact diffuse phase: a few steps at the start, written for clarity ----------------------------------- */

/* Take in one row while part of P is infinite. Returns how many infinite directions are left. */
static int diffuse_update(const Index n, const Index m, const Row *row, double *x, double *P, double *Pinf,
                          const double *bound, int left, unsigned char *used, double *log_lik, long *n_cancelled,
                          double *work)
{
    double *M = work, *Minf = work + n, *spread = work + 2 * n;
    for (Index j = 0; j < n; j++) spread[j] = P[j * n + j];
    for (Index i = 0; i < m; i++) {
        if (!row->present[i]) continue;
        const double *h = row->H + i * n;
        const double v = row->y[i] - row_dot(n, h, x);
        const double limit = left ? NOT_DIFFUSE * quadratic(n, bound, h, Minf) : 0.0;
        const double finf = left ? quadratic(n, Pinf, h, Minf) : 0.0;
        const double f = row->r[i] + not_negative(quadratic(n, P, h, M));
        const double scale = row->r[i] + reach(n, h, spread);
        if (left && finf > limit) {
            for (Index j = 0; j < n; j++) x[j] += Minf[j] * v / finf;
            add_outer(n, P, -1.0 / finf, Minf, M);
            add_outer(n, P, 0.5 * f / (finf * finf), Minf, Minf);
            add_outer(n, Pinf, -0.5 / finf, Minf, Minf);
            *log_lik -= 0.5 * (LOG_2PI + log(finf));
            used[i] = 1;
            if (--left == 0) memset(Pinf, 0, n * n * sizeof(double));
            continue;
        }
        if (f < CANCELLED * scale) ++*n_cancelled;
        if (!(f > NO_VARIANCE * scale)) continue;
        for (Index j = 0; j < n; j++) x[j] += M[j] * v / f;
        add_outer(n, P, -0.5 / f, M, M);
        *log_lik -= 0.5 * (LOG_2PI + log(f) + v * v / f);
    }
    return left;
}

/* Carry Pinf and its bound without data to the next step; returns the infinite directions that are left. */
static int diffuse_predict(const Index n, const Model *model, long t, double *Pinf, double *bound, int left,
                           double *work)
{
    double *W1 = work, *W2 = work + n * n, *out = work + 2 * n * n, trace = 0.0, most = 0.0;
    for (int k = 0; k < 2; k++) {
        double *P = k ? bound : Pinf;
        if (model->is_sparse) sparse_congruence(n, model->by_rows, P, out, W1);
        else congruence(n, model->F + t * model->F_step, P, out, W1, W2);
        memcpy(P, out, n * n * sizeof(double));
    }
    for (Index j = 0; j < n; j++) {
        trace += Pinf[j * n + j];
        most += bound[j * n + j];
    }
    if (left && trace > NOT_DIFFUSE * most) return left;
    memset(Pinf, 0, n * n * sizeof(double));
    return 0;
}

/* N <- L' N L with L = I - k h' */
static void shrink(const Index n, double *N, const double *k, const double *h, double *work)
{
    times_vector(n, N, k, work);
    const double knk = dot(n, k, work);
    add_outer(n, N, -1.0, h, work);
    add_outer(n, N, 0.5 * knk, h, h);
}

/* The gains of a row while part of P is infinite, from the predicted moments. Elements without variance are no longer
 * `present` afterwards; those of infinite variance have an `inverse` of zero. `work` holds the three moments. */
static void diffuse_gains(const Index n, const Index m, const Row *row, const double *predicted_x,
                          const double *predicted_P, const double *predicted_Pinf, const unsigned char *used,
                          double *K, double *v, double *inverse, double *work)
{
    double *x = work, *P = x + n, *Pinf = P + n * n, *spread = Pinf + n * n, *scratch = spread + n;
    int *served = row->present;
    memcpy(x, predicted_x, n * sizeof(double));
    memcpy(P, predicted_P, n * n * sizeof(double));
    memcpy(Pinf, predicted_Pinf, n * n * sizeof(double));
    for (Index j = 0; j < n; j++) spread[j] = P[j * n + j];
    for (Index i = 0; i < m; i++) {
        const double *h = row->H + i * n;
        double *k = K + i * n;
        inverse[i] = 0.0;
        if (!served[i]) continue;
        v[i] = row->y[i] - row_dot(n, h, x);
        const double f = row->r[i] + not_negative(quadratic(n, P, h, k));
        if (used[i]) {
            const double finf = quadratic(n, Pinf, h, scratch);
            add_outer(n, P, -1.0 / finf, scratch, k);
            add_outer(n, P, 0.5 * f / (finf * finf), scratch, scratch);
            add_outer(n, Pinf, -0.5 / finf, scratch, scratch);
            for (Index j = 0; j < n; j++) k[j] = scratch[j] / finf;
        } else if (f > NO_VARIANCE * (row->r[i] + reach(n, h, spread))) {
            add_outer(n, P, -0.5 / f, k, k);
            for (Index j = 0; j < n; j++) k[j] /= f;
            inverse[i] = 1.0 / f;
        } else {
            served[i] = 0;
            continue;
        }
        for (Index j = 0; j < n; j++) x[j] += k[j] * v[i];
    }
}

/* The row backwards while part of P is infinite: an observation of infinite variance adds nothing to r and N. */
static void diffuse_backwards(const Index n, const Index m, const Row *row, const double *predicted_x,
                              const double *predicted_P, const double *predicted_Pinf, const unsigned char *used,
                              double *r, double *N, double *work)
{
    double *scratch = work + 2 * n * n + 2 * n, *K = scratch + n, *v = K + m * n, *inverse = v + m;
    diffuse_gains(n, m, row, predicted_x, predicted_P, predicted_Pinf, used, K, v, inverse, work);
    for (Index i = m - 1; i >= 0; i--) {
        const double *h = row->H + i * n, *k = K + i * n;
        if (!row->present[i]) continue;
        const double step = v[i] * inverse[i] - dot(n, k, r);
        shrink(n, N, k, h, scratch);
        add_outer(n, N, 0.5 * inverse[i], h, h);
        for (Index j = 0; j < n; j++) r[j] += h[j] * step;
    }
}

#define DIFFUSE_DOUBLES(n, m) (4 * (n) * (n) + 4 * (n) + (m) * (n) + 2 * (m))

#endif
