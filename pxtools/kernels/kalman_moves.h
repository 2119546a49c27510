/* Square-root filtering and smoothing of one series: see `kalman_roots_numpy`, whose names and letters are used here.
 *
 * The state is x + S u + B delta, u standard normal, delta flat. Matrices are row-major. Z has the rows to condition on,
 * then those of the state, then, for the smoother, those of the numbers (u, delta) themselves; its columns are the flat
 * numbers, the proper ones, and what the first rows turned out to be.
 */
#ifndef PXTOOLS_KALMAN_MOVES_H
#define PXTOOLS_KALMAN_MOVES_H

#include <stdlib.h>

#include "kalman_roots.h"

#define LOG_OF_2PI 1.8378770664093454836

typedef struct {
    double no_pivot, no_trace, not_wide;
} Limits;

typedef struct {
    Index n, m;
    double *x, *S, *B; /* (n), (n, n), (n, n) of which the first b columns count */
    Index b;
    double *bound; /* (n, n) what B B' would be had nothing been observed; while b > 0 */
    double *Z, *reach, *wide_reach, *length, *bound_work;
    Index *order;
} Place;

ALWAYS_INLINE double length_of(const Index n, const double *a) { return sqrt(dot(n, a, a)); }

ALWAYS_INLINE void swap_rows(const Index n, double *a, double *b)
{
    for (Index j = 0; j < n; j++) {
        const double kept = a[j];
        a[j] = b[j];
        b[j] = kept;
    }
}

/* Turn the columns from `first` to `stop` so that row i has only the first of them; the rows below turn with it. */
ALWAYS_INLINE void reflect(const Index rows, const Index stride, const Index i, const Index first, const Index stop,
                           double *Z)
{
    double *a = Z + i * stride + first;
    const Index length = stop - first;
    const double rest = dot(length - 1, a + 1, a + 1);
    /* squares of what has vanished underflow, and their quotient would be no number */
    if (a[0] * a[0] + rest < VANISHED) {
        memset(a + 1, 0, (length - 1) * sizeof(double));
        return;
    }
    if (rest == 0.0) return;
    const double size = sqrt(a[0] * a[0] + rest), pivot = a[0] > 0 ? -size : size;
    const double head = a[0] - pivot, scale = 1.0 / (pivot * head);
    a[0] = head;
    for (Index k = i + 1; k < rows; k++) {
        double *b = Z + k * stride + first;
        const double s = scale * dot(length, a, b);
        for (Index j = 0; j < length; j++) b[j] += s * a[j];
    }
    memset(a, 0, length * sizeof(double));
    a[0] = pivot;
}

/* Bring the row with the longest rest beyond its limit to place `done`; 0 if there is none. */
ALWAYS_INLINE int bring_largest(const Place *p, const Index done, const Index top, const Index stride,
                                const Index first, const Index stop, const double limit, const double *reach)
{
    Index best = -1;
    double longest = 0.0;
    for (Index i = done; i < top; i++) {
        const double size = length_of(stop - first, p->Z + i * stride + first);
        if (size > limit * reach[i] && size > longest) {
            longest = size;
            best = i;
        }
    }
    if (best < 0) return 0;
    if (best != done) {
        const Index kept = p->order[done];
        p->order[done] = p->order[best];
        p->order[best] = kept;
        swap_rows(stride, p->Z + done * stride, p->Z + best * stride);
        swap_rows(1, p->reach + done, p->reach + best);
        swap_rows(1, p->wide_reach + done, p->wide_reach + best);
    }
    return 1;
}

/* Condition the rows below the first `top` on the first; first and proper end as the columns that are left. */
ALWAYS_INLINE double absorb(const Place *p, const Limits *limits, const Index rows, const Index stride, const Index top,
                            const Index n_wide, Index *first, Index *proper, unsigned char *used)
{
    double *Z = p->Z, log_lik = 0.0;
    const Index last = stride - 1;
    Index done = 0;
    *first = 0;
    *proper = n_wide;
    while (*first < n_wide &&
           bring_largest(p, done, top, stride, *first, n_wide, limits->not_wide, p->wide_reach)) {
        used[p->order[done]] = 1;
        for (Index k = done + 1; k < rows; k++) p->length[k] = length_of(n_wide - *first, Z + k * stride + *first);
        reflect(rows, stride, done, *first, n_wide, Z);
        const double *a = Z + done * stride;
        for (Index k = done + 1; k < rows; k++) {
            double *b = Z + k * stride;
            const double weight = b[*first] / a[*first];
            for (Index j = n_wide; j < stride; j++) b[j] -= weight * a[j];
            if (!(length_of(n_wide - *first - 1, b + *first + 1) > limits->not_wide * p->length[k]))
                memset(b + *first + 1, 0, (n_wide - *first - 1) * sizeof(double));
        }
        log_lik -= 0.5 * LOG_OF_2PI + log(fabs(a[*first]));
        ++*first;
        done++;
    }
    while (*proper < last && bring_largest(p, done, top, stride, *proper, last, limits->no_pivot, p->reach)) {
        reflect(rows, stride, done, *proper, last, Z);
        const double *a = Z + done * stride;
        const double found = a[last] / a[*proper];
        for (Index k = done + 1; k < rows; k++) Z[k * stride + last] -= Z[k * stride + *proper] * found;
        log_lik -= 0.5 * (LOG_OF_2PI + found * found) + log(fabs(a[*proper]));
        ++*proper;
        done++;
    }
    return log_lik;
}

/* Make the n rows from row `at` on a lower triangle S from column `first` on; rows that are round-off become zero. */
ALWAYS_INLINE void triangle(const Index n, const Index rows, const Index stride, const Index at, const Index first,
                            const Index stop, const double limit, const double *reach, double *Z, double *S)
{
    for (Index i = 0; i < n; i++)
        if (first + i < stop) reflect(rows, stride, at + i, first + i, stop, Z);
    for (Index i = 0; i < n; i++) {
        const double *row = Z + (at + i) * stride + first;
        const Index length = i + 1 < stop - first ? i + 1 : stop - first;
        memset(S + i * n, 0, n * sizeof(double));
        if (length_of(length, row) > limit * reach[i]) memcpy(S + i * n, row, length * sizeof(double));
    }
}

/* What a move leaves for the way back: the numbers before it are known + A (u, delta, rest) of the numbers after it. */
typedef struct {
    Index rows, wide, rest; /* of A: (rows, n + wide + rest) */
    double *known, *A;
} Back;

/* Take in the elements of a row that are present, and set `back` unless it is NULL; returns the log-likelihood. */
CLONES static double through_row(Place *p, const Limits *limits, const Index k, const double *y, const double *d,
                                 const double *H, const double *half_R, unsigned char *used, Back *back)
{
    const Index n = p->n, m = p->m, b = p->b, stride = b + m + n + 1, at = back ? n + b : 0, rows = k + n + at;
    double *Z = p->Z, *reach = p->length + rows;
    if (k == 0) {
        if (back == NULL) return 0.0;
        back->rows = n + b, back->wide = b, back->rest = 0;
        memset(back->known, 0, (n + b) * sizeof(double));
        memset(back->A, 0, (n + b) * (n + b) * sizeof(double));
        for (Index i = 0; i < n + b; i++) back->A[i * (n + b) + i] = 1.0;
        return 0.0;
    }
    memset(Z, 0, rows * stride * sizeof(double));
    for (Index i = 0; i < n; i++) reach[i] = length_of(n, p->S + i * n);
    for (Index i = 0; i < k; i++) {
        const Index which = p->order[i];
        const double *h = H + which * n;
        double *row = Z + i * stride;
        times(1, n, b, h, p->B, n, row, stride);
        memcpy(row + b, half_R + which * m, m * sizeof(double));
        times(1, n, n, h, p->S, n, row + b + m, stride);
        row[stride - 1] = y[which] - d[which] - dot(n, h, p->x);
        p->reach[i] = length_of(m, row + b);
        for (Index j = 0; j < n; j++) p->reach[i] += fabs(h[j]) * reach[j];
        p->wide_reach[i] = 0.0;
        for (Index j = 0; b && j < n; j++) p->wide_reach[i] += h[j] * dot(n, p->bound + j * n, h);
        p->wide_reach[i] = sqrt(p->wide_reach[i] > 0.0 ? p->wide_reach[i] : 0.0);
    }
    for (Index i = 0; i < n; i++) {
        memcpy(Z + (k + i) * stride, p->B + i * n, b * sizeof(double));
        memcpy(Z + (k + i) * stride + b + m, p->S + i * n, n * sizeof(double));
        if (back) Z[(k + n + i) * stride + b + m + i] = 1.0;
    }
    for (Index i = 0; back && i < b; i++) Z[(k + 2 * n + i) * stride + i] = 1.0;
    Index first, proper;
    const double log_lik = absorb(p, limits, rows, stride, k, b, &first, &proper, used);
    /* an infinite direction that ends brings its own size */
    for (Index i = 0; first && i < n; i++) {
        const double now = length_of(stride - 1 - proper, Z + (k + i) * stride + proper);
        if (now > reach[i]) reach[i] = now;
    }
    triangle(n, rows, stride, k, proper, stride - 1, limits->no_trace, reach, Z, p->S);
    p->b = b - first;
    for (Index i = 0; i < n; i++) {
        p->x[i] -= Z[(k + i) * stride + stride - 1];
        memcpy(p->B + i * n, Z + (k + i) * stride + first, p->b * sizeof(double));
    }
    if (back == NULL) return log_lik;
    back->rows = n + b, back->wide = p->b, back->rest = stride - 1 - proper - n;
    double *A = back->A;
    for (Index i = 0; i < n + b; i++) {
        const double *row = Z + (k + n + i) * stride;
        back->known[i] = -row[stride - 1];
        memcpy(A, row + proper, n * sizeof(double));
        memcpy(A + n, row + first, p->b * sizeof(double));
        memcpy(A + n + p->b, row + proper + n, back->rest * sizeof(double));
        A += n + p->b + back->rest;
    }
    return log_lik;
}

/* Leave out the directions that a transition has made vanish: B <- B turn, turn (b, fewer). Set `turn`, stride b. */
ALWAYS_INLINE void narrow(Place *p, const Limits *limits, double *turn)
{
    const Index n = p->n, b = p->b, rows = n + b;
    double *Z = p->Z;
    for (Index i = 0; i < n; i++) {
        const double reach = sqrt(p->bound[i * n + i] > 0.0 ? p->bound[i * n + i] : 0.0);
        p->length[i] = reach;
        if (!(length_of(b, p->B + i * n) > limits->not_wide * reach)) memset(p->B + i * n, 0, b * sizeof(double));
        memcpy(Z + i * b, p->B + i * n, b * sizeof(double));
    }
    memset(Z + n * b, 0, b * b * sizeof(double));
    for (Index i = 0; i < b; i++) Z[(n + i) * b + i] = 1.0;
    Index found = 0;
    /* columns turn so that the row with the longest rest has only the first of them: what is left has vanished */
    while (found < b) {
        Index best = -1;
        double longest = 0.0;
        for (Index i = found; i < n; i++) {
            const double size = length_of(b - found, Z + i * b + found);
            if (size > limits->not_wide * p->length[i] && size > longest) {
                longest = size;
                best = i;
            }
        }
        if (best < 0) break;
        swap_rows(b, Z + found * b, Z + best * b);
        swap_rows(1, p->length + found, p->length + best);
        reflect(rows, b, found, found, b, Z);
        found++;
    }
    memset(turn, 0, b * b * sizeof(double));
    if (found == b) {
        for (Index i = 0; i < b; i++) turn[i * b + i] = 1.0;
        return;
    }
    for (Index i = 0; i < b; i++) memcpy(turn + i * b, Z + (n + i) * b, found * sizeof(double));
    for (Index i = 0; i < n; i++) {
        memcpy(Z, p->B + i * n, b * sizeof(double));
        times(1, b, found, Z, turn, b, p->B + i * n, n);
    }
    p->b = found;
}

/* Predict. Unless they are NULL, `turned` (2 n, 2 n) ends as the numbers of the state and of the disturbance before it
 * by those after it, and `turn` (b, b) as the flat ones. `next` is scratch of n. */
CLONES static void through_transition(Place *p, const Limits *limits, const double *F, const double *half_Q,
                                      const double *c, double *turned, double *turn)
{
    const Index n = p->n, stride = 2 * n, rows = turned ? 3 * n : n;
    double *Z = p->Z, *reach = p->length, *work = p->bound_work;
    for (Index i = 0; i < n; i++) work[i] = length_of(n, p->S + i * n);
    times(n, n, n, F, p->S, n, Z, stride);
    for (Index i = 0; i < n; i++) {
        memcpy(Z + i * stride + n, half_Q + i * n, n * sizeof(double));
        reach[i] = length_of(n, half_Q + i * n);
        for (Index j = 0; j < n; j++) reach[i] += fabs(F[i * n + j]) * work[j];
    }
    if (turned) {
        memset(Z + n * stride, 0, 2 * n * stride * sizeof(double));
        for (Index i = 0; i < 2 * n; i++) Z[(n + i) * stride + i] = 1.0;
    }
    triangle(n, rows, stride, 0, 0, stride, limits->no_trace, reach, Z, p->S);
    if (turned) memcpy(turned, Z + n * stride, 2 * n * stride * sizeof(double));
    for (Index i = 0; i < n; i++) work[i] = dot(n, F + i * n, p->x) + c[i];
    memcpy(p->x, work, n * sizeof(double));
    if (p->b == 0) return;
    congruence(n, F, p->bound, work, work + n * n, work + 2 * n * n);
    memcpy(p->bound, work, n * n * sizeof(double));
    times(n, n, p->b, F, p->B, n, work, n);
    memcpy(p->B, work, n * n * sizeof(double));
    narrow(p, limits, turn ? turn : work);
}

typedef struct {
    const double *first;
    Index step; /* 0 where the part is constant */
} Part;

typedef struct {
    Index n, m, n_steps;
    Part F, H, half_Q, half_R, c, d;
} Roots;

ALWAYS_INLINE const double *now(const Part part, const Index t) { return part.first + t * part.step; }

/* Where a filter leaves what it finds; wide, wide_after (steps, n, n) and used (steps, m) are zero before. */
typedef struct {
    double *predicted_mean, *predicted_cov, *filtered_mean, *filtered_cov, *log_lik, *wide, *wide_after, *last;
    unsigned char *used;
    Index n_diffuse;
} RootsOut;

static double *lay_place(const Index n, const Index m, double *memory, Index *order, Place *p)
{
    p->n = n, p->m = m, p->order = order;
    p->x = memory, p->S = p->x + n, p->B = p->S + n * n, p->bound = p->B + n * n, p->Z = p->bound + n * n;
    p->reach = p->Z + (m + 3 * n) * (m + 2 * n + 1) + 2 * n * n;
    p->wide_reach = p->reach + m, p->length = p->wide_reach + m, p->bound_work = p->length + m + 4 * n;
    return p->bound_work + 3 * n * n;
}

#define PLACE_DOUBLES(n, m) \
    ((n) + 8 * (n) * (n) + ((m) + 3 * (n)) * ((m) + 2 * (n) + 1) + 3 * (m) + 4 * (n))

static void start_at(Place *p, const double *x, const double *S, const double *B)
{
    const Index n = p->n;
    memcpy(p->x, x, n * sizeof(double));
    memcpy(p->S, S, n * n * sizeof(double));
    p->b = 0;
    for (Index j = 0; j < n; j++) {
        double any = 0.0;
        for (Index i = 0; i < n; i++) any += fabs(B[i * n + j]);
        if (any == 0.0) continue;
        for (Index i = 0; i < n; i++) p->B[i * n + p->b] = B[i * n + j];
        p->b++;
    }
    square(n, n, B, p->bound);
}

/* out = B B', of which b columns count */
static void wide_square(const Place *p, double *out)
{
    for (Index i = 0; i < p->n; i++)
        for (Index j = 0; j < p->n; j++) out[i * p->n + j] = dot(p->b, p->B + i * p->n, p->B + j * p->n);
}

ALWAYS_INLINE Index present(const Index m, const double *y, Index *where)
{
    Index k = 0;
    for (Index i = 0; i < m; i++)
        if (y[i] == y[i]) where[k++] = i;
    return k;
}

static void roots_filter(const Roots *r, const Limits *limits, const double *y, Place *p, RootsOut *out)
{
    const Index n = r->n, m = r->m, nn = n * n;
    out->n_diffuse = 0;
    for (Index t = 0; t < r->n_steps; t++, y += m) {
        memcpy(out->predicted_mean + t * n, p->x, n * sizeof(double));
        square(n, n, p->S, out->predicted_cov + t * nn);
        if (p->b) {
            wide_square(p, out->wide + t * nn);
            out->n_diffuse = t + 1;
        }
        const int was_wide = p->b > 0;
        const Index k = present(m, y, p->order);
        out->log_lik[t] = through_row(p, limits, k, y, now(r->d, t), now(r->H, t), now(r->half_R, t),
                                      out->used + t * m, NULL);
        memcpy(out->filtered_mean + t * n, p->x, n * sizeof(double));
        square(n, n, p->S, out->filtered_cov + t * nn);
        if (was_wide) wide_square(p, out->wide_after + t * nn);
        through_transition(p, limits, now(r->F, t), now(r->half_Q, t), now(r->c, t), NULL, NULL);
    }
    memcpy(out->predicted_mean + r->n_steps * n, p->x, n * sizeof(double));
    square(n, n, p->S, out->predicted_cov + r->n_steps * nn);
    wide_square(p, out->last);
}

/* What the smoother keeps of one step. */
typedef struct {
    Index b, b_after, b_next, rest;
    double *before_S, *before_B, *x, *S, *B, *known, *A, *turned, *turn;
} Step;

#define STEP_DOUBLES(n, m, b) \
    ((n) + 2 * (n) * (n) + 2 * (n) * (b) + ((n) + (b)) * (1 + (n) + (b) + (m)) + 4 * (n) * (n) + (b) * (b))

static double *kept(const double *from, const Index rows, const Index columns, const Index stride, double **at)
{
    double *here = *at;
    for (Index i = 0; i < rows; i++) memcpy(here + i * columns, from + i * stride, columns * sizeof(double));
    *at += rows * columns;
    return here;
}

/* Go forwards through one step and keep it; 0 if there is no memory. */
static int keep_step(const Roots *r, const Limits *limits, const Index t, const double *y, Place *p,
                     unsigned char *used, Step *step)
{
    const Index n = r->n, m = r->m, b = p->b;
    double *at = malloc(STEP_DOUBLES(n, m, b) * sizeof(double));
    if (at == NULL) return 0;
    Back back;
    step->before_S = kept(p->S, n, n, n, &at);
    step->before_B = kept(p->B, n, b, n, &at);
    back.known = step->known = at, at += n + b;
    back.A = step->A = at, at += (n + b) * (n + b + m);
    const Index k = present(m, y, p->order);
    through_row(p, limits, k, y, now(r->d, t), now(r->H, t), now(r->half_R, t), used, &back);
    step->b = b, step->b_after = p->b, step->rest = back.rest;
    step->x = kept(p->x, 1, n, n, &at);
    step->S = kept(p->S, n, n, n, &at);
    step->B = kept(p->B, n, p->b, n, &at);
    step->turned = at, at += 4 * n * n;
    step->turn = at;
    through_transition(p, limits, now(r->F, t), now(r->half_Q, t), now(r->c, t), step->turned, step->turn);
    step->b_next = p->b;
    return 1;
}

/* What all observations say of the numbers (u, delta): their mean, and a factor with rows that are `stride` long. */
typedef struct {
    Index columns, stride;
    double *centre, *root;
} Said;

#define SAID_DOUBLES(n, m) (3 * (n) + 3 * (n) * (3 * (n) + (m)))

/* out = S S', S (n, columns) of rows that are `stride` long */
CLONES static void square_of(const Index n, const Index columns, const Index stride, const double *S, double *out)
{
    for (Index i = 0; i < n; i++)
        for (Index j = 0; j <= i; j++)
            out[i * n + j] = out[j * n + i] = dot(columns, S + i * stride, S + j * stride);
}

/* Smoothed moments; lag, shock and shock_cov may be NULL. */
typedef struct {
    double *mean, *cov, *lag, *shock, *shock_cov;
} SmoothedOut;

/* to <- the numbers before a transition: those of the state, of the disturbance, and the flat ones */
static void back_through_transition(const Index n, const Step *step, const Said *from, Said *to)
{
    const Index c = from->columns, stride = from->stride;
    to->columns = c + n;
    for (Index i = 0; i < 2 * n; i++) {
        const double *A = step->turned + i * 2 * n;
        to->centre[i] = dot(n, A, from->centre);
        times(1, n, c, A, from->root, stride, to->root + i * stride, stride);
        memcpy(to->root + i * stride + c, A + n, n * sizeof(double));
    }
    for (Index i = 0; i < step->b_after; i++) {
        const double *A = step->turn + i * step->b_after;
        double *row = to->root + (2 * n + i) * stride;
        to->centre[2 * n + i] = dot(step->b_next, A, from->centre + n);
        times(1, step->b_next, c, A, from->root + n * stride, stride, row, stride);
        memset(row + c, 0, n * sizeof(double));
    }
}

/* to <- the numbers before a row, with a triangle for a factor */
static void back_through_row(const Index n, const Step *step, const Said *from, Said *to)
{
    const Index rows = n + step->b, inner = n + step->b_after, wide = inner + step->rest, c = from->columns;
    const Index stride = from->stride;
    for (Index i = 0; i < rows; i++) {
        const double *A = step->A + i * wide;
        to->centre[i] = step->known[i] + dot(inner, A, from->centre);
        times(1, inner, c, A, from->root, stride, to->root + i * stride, stride);
        memcpy(to->root + i * stride + c, A + inner, step->rest * sizeof(double));
    }
    to->columns = c + step->rest;
    if (to->columns <= rows) return;
    for (Index i = 0; i < rows; i++) reflect(rows, stride, i, i, to->columns, to->root);
    to->columns = rows;
}

/* The moments at step t; `ahead` (n, ahead_columns) is the factor of the state after it. */
static void smoothed_moments(const Index n, const Index t, const Step *step, const Said *said, const double *ahead,
                             const Index ahead_columns, double *spread, SmoothedOut *out)
{
    const Index stride = said->stride, c = said->columns;
    for (Index i = 0; i < n; i++) {
        const double *S = step->S + i * n, *B = step->B + i * step->b_after;
        double *row = spread + i * stride, *first = spread + n * stride;
        out->mean[t * n + i] = step->x[i] + dot(n, S, said->centre) + dot(step->b_after, B, said->centre + n);
        times(1, n, c, S, said->root, stride, row, stride);
        times(1, step->b_after, c, B, said->root + n * stride, stride, first, stride);
        for (Index j = 0; j < c; j++) row[j] += first[j];
    }
    square_of(n, c, stride, spread, out->cov + t * n * n);
    if (out->lag == NULL || ahead_columns == 0) return;
    for (Index i = 0; i < n; i++)
        for (Index j = 0; j < n; j++)
            out->lag[(t * n + i) * n + j] = dot(ahead_columns, ahead + i * stride, spread + j * stride);
}

/* Smooth from kept steps; memory for 2 SAID_DOUBLES and 2 (n + 1) strides. */
static void smooth_backwards(const Roots *r, const Step *steps, double *memory, SmoothedOut *out)
{
    const Index n = r->n, m = r->m, stride = 3 * n + m, last = r->n_steps - 1;
    Said now_ = {n, stride, memory, memory + 3 * n}, other = now_;
    other.centre = now_.root + 3 * n * stride, other.root = other.centre + 3 * n;
    double *ahead = other.root + 3 * n * stride, *spread = ahead + n * stride;
    Index ahead_columns = 0;
    memset(now_.centre, 0, 3 * n * sizeof(double));
    memset(now_.root, 0, 3 * n * stride * sizeof(double));
    for (Index i = 0; i < n; i++) now_.root[i * stride + i] = 1.0;
    for (Index t = last; t >= 0; t--) {
        const Step *step = steps + t;
        if (t < last) {
            const Step *after = step + 1;
            ahead_columns = now_.columns;
            for (Index i = 0; out->lag && i < n; i++) {
                double *row = ahead + i * stride;
                times(1, n, ahead_columns, after->before_S + i * n, now_.root, stride, row, stride);
                times(1, after->b, ahead_columns, after->before_B + i * after->b, now_.root + n * stride, stride, spread,
                      stride);
                for (Index j = 0; j < ahead_columns; j++) row[j] += spread[j];
            }
            back_through_transition(n, step, &now_, &other);
            if (out->shock) {
                memcpy(out->shock + t * n, other.centre + n, n * sizeof(double));
                square_of(n, other.columns, stride, other.root + n * stride, out->shock_cov + t * n * n);
            }
            memmove(other.centre + n, other.centre + 2 * n, step->b_after * sizeof(double));
            memmove(other.root + n * stride, other.root + 2 * n * stride, step->b_after * stride * sizeof(double));
            const Said kept_ = now_;
            now_ = other, other = kept_;
        }
        smoothed_moments(n, t, step, &now_, ahead, ahead_columns, spread, out);
        back_through_row(n, step, &now_, &other);
        const Said kept_ = now_;
        now_ = other, other = kept_;
    }
}

#define SMOOTH_DOUBLES(n, m) (2 * SAID_DOUBLES(n, m) + (2 * (n) + 1) * (3 * (n) + (m)))

#endif
