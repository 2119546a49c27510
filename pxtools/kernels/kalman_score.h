/* The derivatives of the log-likelihood with respect to every number of a model, by one pass backwards.
 *
 * With r and N, what the observations after a step say about the next state, and u and D, the same about a row's noise:
 *
 *     d log L / dQ = (r r' - N) / 2       d log L / dR = (u u' - D) / 2      d log L / dc = r     d log L / dd = u
 *     d log L / dF = r x' - N F P         d log L / dH = u x' - K' (I - F' N F P)
 *
 * where x is the smoothed mean, P the filtered covariance and K = P H' S^-1. Rows are taken element by element and put
 * together again, so that no matrix is inverted, and the limits for an infinite P come of themselves; only the
 * derivatives by F and H have none here, and leave out the first steps. Letters as in `kalman_core.h`.
 *
 * References: Koopman & Shephard (1992), Exact score for time series models in state space form, Biometrika 79;
 * Durbin & Koopman (2012), sections 4.5 and 7.3.3.
 */
#ifndef PXTOOLS_KALMAN_SCORE_H
#define PXTOOLS_KALMAN_SCORE_H

/* A row put together again: K' (m, n), the weights E of the innovations in its elements (m, m), and what follows. */
typedef struct {
    const double *elements, *v, *inverse;
    double *E, *K, *KN, *S, *D, *u;
} Whole;

/* v[i] = E[i] . (y - d - H x): undo the factor of R, and what the elements before have explained. */
ALWAYS_INLINE void put_together(const Index n, const Index m, const Row *row, int is_diagonal, Whole w)
{
    if (m == 1) {
        const int is_here = row->present[0];
        for (Index k = 0; k < n; k++) w.K[k] = is_here ? w.elements[k] : 0.0;
        w.E[0] = is_here;
        w.S[0] = is_here ? w.inverse[0] : 0.0;
        return;
    }
    double *inverse_L = w.D; /* D comes later */
    memset(w.E, 0, m * m * sizeof(double));
    memset(w.K, 0, m * n * sizeof(double));
    memset(w.S, 0, m * m * sizeof(double));
    memset(inverse_L, 0, m * m * sizeof(double));
    for (Index i = 0; i < m; i++) {
        if (!row->present[i]) continue;
        double *e = w.E + i * m, *l = inverse_L + i * m;
        l[i] = 1.0;
        if (!is_diagonal)
            for (Index j = 0; j < i; j++)
                if (row->present[j])
                    for (Index k = 0; k <= j; k++) l[k] -= row->L[i * m + j] * inverse_L[j * m + k];
        memcpy(e, l, m * sizeof(double));
        for (Index j = 0; j < i; j++) {
            if (!row->present[j]) continue;
            const double explained = row_dot(n, row->H + i * n, w.elements + j * n);
            for (Index k = 0; k <= j; k++) e[k] -= explained * w.E[j * m + k];
        }
        for (Index j = 0; j <= i; j++) {
            for (Index k = 0; k < n; k++) w.K[j * n + k] += e[j] * w.elements[i * n + k];
            for (Index k = 0; k <= i; k++) w.S[j * m + k] += w.inverse[i] * e[j] * e[k];
        }
    }
}

/* Add (r r' - N) / 2, each so many times. */
ALWAYS_INLINE void add_noise(const Index n, const Score *g, long t, double r_times, const double *r, double N_times,
                             const double *N)
{
    if (!g->Q) return;
    double *Q = g->Q + t * g->Q_step;
    if (g->Q_entries) {
        for (long k = 0; k < g->n_Q_entries; k++) {
            const long where = g->Q_entries[k], i = where / n, j = where % n;
            Q[where] += 0.5 * (r_times * r[i] * r[j] - N_times * N[where]);
        }
        return;
    }
    for (Index i = 0; i < n; i++) {
        const double half = 0.5 * r_times * r[i];
        for (Index j = 0; j < n; j++) Q[i * n + j] += half * r[j] - 0.5 * N_times * N[i * n + j];
    }
}

/* Add `weight` times what does not depend on the observations' values: D, N F P and K' (I - F' N F P). */
ALWAYS_INLINE void add_covariances(const Index n, const Index m, const Score *g, long t, double weight,
                                   const double *NF, const double *Pf, int has_FH, Whole w)
{
    if (g->R) {
        double *R = g->R + t * g->R_step;
        for (Index j = 0; j < m * m; j++) R[j] -= 0.5 * weight * w.D[j];
    }
    if (g->F && has_FH)
        for (long k = 0; k < g->n_entries; k++) {
            const long i = g->entries[k] / n, j = g->entries[k] % n;
            /* P is symmetric: its row serves for its column */
            g->F[t * g->F_step + i * n + j] -= weight * dot(n, NF + i * n, Pf + j * n);
        }
    if (g->H && has_FH) {
        double *H = g->H + t * g->H_step;
        for (Index i = 0; i < m; i++)
            for (Index j = 0; j < n; j++)
                H[i * n + j] -= weight * (w.K[i * n + j] - dot(n, w.KN + i * n, Pf + j * n));
    }
}

/* Add what depends on the observations' values. */
ALWAYS_INLINE void add_means(const Index n, const Index m, const Score *g, long t, const double *r, const double *x,
                             int has_FH, Whole w)
{
    if (g->c)
        for (Index i = 0; i < n; i++) g->c[t * g->c_step + i] += r[i];
    if (g->d)
        for (Index i = 0; i < m; i++) g->d[t * g->d_step + i] += w.u[i];
    if (g->R)
        for (Index i = 0; i < m; i++)
            for (Index j = 0; j < m; j++) g->R[t * g->R_step + i * m + j] += 0.5 * w.u[i] * w.u[j];
    if (g->F && has_FH)
        for (long k = 0; k < g->n_entries; k++) {
            const long i = g->entries[k] / n, j = g->entries[k] % n;
            g->F[t * g->F_step + i * n + j] += r[i] * x[j];
        }
    if (g->H && has_FH)
        for (Index i = 0; i < m; i++)
            for (Index j = 0; j < n; j++) g->H[t * g->H_step + i * n + j] += w.u[i] * x[j];
}

/* F' N F, and N F if it is wanted or comes by itself */
ALWAYS_INLINE void carry_back(const Index n, const Model *model, long t, int wants_NF, const double *N,
                              double *RESTRICT NF, double *RESTRICT out, double *RESTRICT W)
{
    if (model->is_sparse) {
        sparse_congruence_back(n, model->by_rows, model->by_columns, N, out, W);
        if (!wants_NF) return;
        sparse_product(n, model->by_columns, N, W);
        transpose(n, W, NF);
        return;
    }
    const double *F = model->F + t * model->F_step;
    product(n, N, F, NF);
    transpose(n, F, W);
    product(n, W, NF, out);
    mirror(n, out);
}

ALWAYS_INLINE void carry_mean_back(const Index n, const Model *model, long t, const double *r, double *RESTRICT out)
{
    if (model->is_sparse) {
        for (Index j = 0; j < n; j++) out[j] = sparse_dot(model->by_columns, j, r);
        return;
    }
    const double *F = model->F + t * model->F_step;
    for (Index j = 0; j < n; j++) out[j] = F[j] * r[0];
    for (Index i = 1; i < n; i++)
        for (Index j = 0; j < n; j++) out[j] += F[i * n + j] * r[i];
}

/* N <- N - H' K'N - (K'N)' H + H' D H, where D holds S^-1 + K'N K; H are the rows as they were given */
ALWAYS_INLINE void take_in_row(const Index n, const Index m, const double *H, double *RESTRICT N, Whole w)
{
    for (Index i = 0; i < m; i++) {
        const double *h = H + i * n;
        double *pull = w.K + m * n; /* a row of scratch behind K */
        for (Index j = 0; j < n; j++) pull[j] = -w.KN[i * n + j];
        for (Index k = 0; k < m; k++)
            for (Index j = 0; j < n; j++) pull[j] += 0.5 * w.D[i * m + k] * H[k * n + j];
        add_outer_of_few(n, N, h, pull);
    }
}

/* Do the gains, and the covariance where it is wanted, equal those of the next step? */
ALWAYS_INLINE int stands_still(const Index n, const Index m, const SmootherOut *in, long t)
{
    if (t >= in->n_kept) return 1;
    if (in->gains && t + 1 < in->n_kept) {
        const double *K = in->gains + t * m * n, *inverse = in->inverses + t * m;
        if (memcmp(K, K + m * n, m * n * sizeof(double)) || memcmp(inverse, inverse + m, m * sizeof(double))) return 0;
    }
    const double *P = in->predicted_cov + t * n * n;
    return !in->has_cov || memcmp(P, P + n * n, n * n * sizeof(double)) == 0;
}

ALWAYS_INLINE void score_with(const Index n, const Model *model, const double *y, const SmootherOut *in, Score *g,
                              double *work)
{
    const Index m = model->m, nn = n * n;
    const size_t matrix = nn * sizeof(double);
    Row row;
    Whole w;
    work = lay_row(n, m, work, &row);
    double *r = work, *rf = r + n, *x = rf + n, *spread = x + n;
    double *N = spread + n, *Nf = N + nn, *NF = Nf + nn, *P = NF + nn, *W1 = P + nn, *W2 = W1 + nn, *before = W2 + nn;
    double *own_elements = before + nn;
    w.K = own_elements + m * n;
    w.KN = w.K + (m + 1) * n;
    w.E = w.KN + m * n;
    w.S = w.E + m * m;
    w.D = w.S + m * m;
    double *own_v = w.D + m * m, *own_inverse = own_v + m;
    w.u = own_inverse + m;
    double *scratch = w.u + m;
    const double *held = NULL; /* the covariance of the steps that are counted as the same */
    long same = 0;
    int was_complete = 0, is_settled = 0;

    memset(r, 0, n * sizeof(double));
    memset(N, 0, matrix);
    memset(w.D, 0, m * m * sizeof(double));
    for (long t = model->n_steps - 1; t >= 0; t--) {
        const long last = in->n_kept;
        const double *x_t = in->predicted_mean + t * n, *P_t = in->predicted_cov + (t < last ? t : last) * nn;
        const double *Pf = in->filtered_cov + (t < last ? t : last - 1) * nn;
        const double *H = model->H + t * model->H_step;
        const int is_diffuse = t < in->n_diffuse_steps, has_FH = t >= g->n_left_out;
        prepare_row(n, m, model, t, y + t * m, &row);
        const int is_complete = model->is_constant && !is_diffuse && row.n_present == m;
        const int repeats = is_complete && was_complete && has_FH && stands_still(n, m, in, t);
        was_complete = is_complete;
        if (same && !(is_settled && repeats)) {
            add_covariances(n, m, g, 0, (double)same, NF, held, 1, w);
            add_noise(n, g, 0, 0.0, r, (double)same, N);
            same = 0;
        }
        is_settled = is_settled && repeats;
        carry_mean_back(n, model, t, r, rf);
        if (!is_settled) carry_back(n, model, t, g->F != NULL, N, NF, Nf, W1);
        if ((g->F || g->H) && has_FH) {
            times_vector(n, Pf, rf, x);
            for (Index j = 0; j < n; j++) x[j] += in->filtered_mean[t * n + j];
        }
        w.elements = own_elements, w.v = own_v, w.inverse = own_inverse;
        if (in->gains && !is_diffuse) {
            const long kept = t < last ? t : last - 1;
            w.elements = in->gains + kept * m * n, w.inverse = in->inverses + kept * m, w.v = in->innovations + t * m;
        } else if (is_diffuse) {
            diffuse_gains(n, m, &row, x_t, P_t, in->diffuse_cov + t * nn, in->diffuse_obs + t * m, own_elements,
                          own_v, own_inverse, scratch);
        } else if (repeats) {
            double *now = spread;
            memcpy(now, x_t, n * sizeof(double));
            for (Index i = 0; i < m; i++) {
                own_v[i] = row.y[i] - row_dot(n, row.H + i * n, now);
                for (Index j = 0; j < n; j++) now[j] += w.elements[i * n + j] * w.v[i];
            }
        } else {
            memset(own_elements, 0, m * n * sizeof(double));
            memcpy(W2, x_t, n * sizeof(double));
            row_gains_any(n, m, &row, W2, P_t, P, own_elements, own_v, own_inverse, spread, W1);
            /* an element without variance has neither gain nor innovation */
            for (Index i = 0; i < m; i++)
                if (row.present[i] && own_inverse[i] == 0.0) memset(own_elements + i * n, 0, n * sizeof(double));
        }
        if (!repeats) put_together(n, m, &row, model->is_diagonal, w);
        memset(w.u, 0, m * sizeof(double));
        for (Index i = 0; i < m; i++) {
            if (!row.present[i]) continue;
            const double step = w.inverse[i] * w.v[i] - dot(n, w.elements + i * n, rf);
            for (Index j = 0; j <= i; j++) w.u[j] += w.E[i * m + j] * step;
        }
        add_means(n, m, g, t, r, x, has_FH, w);
        add_noise(n, g, t, 1.0, r, is_settled ? 0.0 : 1.0, N);
        if (is_settled) {
            same++;
            held = Pf;
        } else {
            for (Index i = 0; i < m; i++) times_vector(n, Nf, w.K + i * n, w.KN + i * n);
            for (Index i = 0; i < m; i++)
                for (Index j = 0; j < m; j++)
                    w.D[i * m + j] = w.S[i * m + j] + dot(n, w.KN + i * n, w.K + j * n);
            add_covariances(n, m, g, t, 1.0, NF, Pf, has_FH, w);
            double *spare = before;
            before = N, N = Nf, Nf = spare;
            take_in_row(n, m, H, N, w);
            if (repeats) is_settled = has_settled_any(n, N, before);
        }
        for (Index j = 0; j < n; j++) r[j] = rf[j];
        for (Index i = 0; i < m; i++)
            for (Index j = 0; j < n; j++) r[j] += H[i * n + j] * w.u[i];
        if (t == g->n_left_out || t == 0) {
            memcpy(g->r + (t > 0) * n, r, n * sizeof(double));
            memcpy(g->N + (t > 0) * nn, N, matrix);
        }
    }
    if (same) {
        add_covariances(n, m, g, 0, (double)same, NF, held, 1, w);
        add_noise(n, g, 0, 0.0, r, (double)same, N);
    }
    if (g->n_left_out == 0) {
        memcpy(g->r + n, g->r, n * sizeof(double));
        memcpy(g->N + nn, g->N, matrix);
    }
}

#define SCORE_DOUBLES(n, m) \
    (5 * (n) + 7 * (n) * (n) + ROW_DOUBLES(n, m) + 3 * (m) * (n) + (n) + 3 * (m) * (m) + 3 * (m) + DIFFUSE_DOUBLES(n, m) + 8)

#define SCORE_OF(name, size)                                                                                           \
    CLONES static void name(const Model *model, const double *y, const SmootherOut *in, Score *g, double *work)        \
    {                                                                                                                  \
        score_with(size, model, y, in, g, work);                                                                       \
    }
SCORE_OF(score_1, 1)
SCORE_OF(score_2, 2)
SCORE_OF(score_3, 3)
SCORE_OF(score_4, 4)
SCORE_OF(score_any, model->n)

static void score_series(const Model *model, const double *y, const SmootherOut *in, Score *g, double *work)
{
    switch (model->n) {
    case 1: score_1(model, y, in, g, work); break;
    case 2: score_2(model, y, in, g, work); break;
    case 3: score_3(model, y, in, g, work); break;
    case 4: score_4(model, y, in, g, work); break;
    default: score_any(model, y, in, g, work);
    }
}

static long score_doubles(Index n, Index m) { return SCORE_DOUBLES(n, m); }

#endif
