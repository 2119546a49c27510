/* The loops over time. This file is included once for each number of states N_STATES that is unrolled, and once with
 * N_STATES 0 for any number; NAME(x) gives each copy its own name. */

/* Small matrices stay where they are, in registers if the compiler can; large ones change places. */
#if N_STATES > 0
#define LOCAL(name, size_unrolled, size) double name[size_unrolled]
#define TAKE(to, from) memcpy(to, from, sizeof(to))
#else
#define LOCAL(name, size_unrolled, size) \
    double *name = work;                 \
    work += (size)
#define TAKE(to, from)         \
    do {                       \
        double *taken = from;  \
        from = to;             \
        to = taken;            \
    } while (0)
#endif

#define NN (N_STATES * N_STATES)

ALWAYS_INLINE void NAME(predict_cov)(const Index n, const Model *model, long t, const double *P, double *out,
                                     double *W1, double *W2)
{
    const double *Q = model->Q + t * model->Q_step;
#if N_STATES == 0
    if (model->is_sparse) sparse_congruence(n, model->by_rows, P, out, W1);
    else
#endif
    congruence(n, model->F + t * model->F_step, P, out, W1, W2);
    for (Index j = 0; j < n * n; j++) out[j] += Q[j];
}

ALWAYS_INLINE void NAME(predict_mean)(const Index n, const Model *model, long t, const double *x, double *RESTRICT out)
{
    const double *F = model->F + t * model->F_step, *c = model->c + t * model->c_step;
#if N_STATES == 0
    if (model->is_sparse) {
        for (Index i = 0; i < n; i++) out[i] = sparse_dot(model->by_rows, i, x) + c[i];
        return;
    }
#endif
    for (Index i = 0; i < n; i++) out[i] = dot(n, F + i * n, x) + c[i];
}

/* Has every element stopped moving, relative to its own standard deviations? */
ALWAYS_INLINE int NAME(has_settled)(const Index n, const double *P, const double *before)
{
    for (Index i = 0; i < n; i++)
        if (!(fabs(P[i * n + i] - before[i * n + i]) <= STEADY * P[i * n + i])) return 0;
    for (Index i = 0; i < n; i++)
        for (Index j = 0; j < i; j++) {
            const double change = P[i * n + j] - before[i * n + j];
            if (!(change * change <= STEADY * STEADY * P[i * n + i] * P[j * n + j])) return 0;
        }
    return 1;
}

CLONES static void NAME(filter)(const Model *model, const double *y, const double *x0, const double *P0,
                                const double *Pinf0, int left, int may_settle, FilterOut *out, double *work)
{
#if N_STATES > 0
    enum { n = N_STATES };
#else
    const Index n = model->n;
#endif
    const Index m = model->m;
    const long n_steps = model->n_steps, nn = n * n;
    const size_t matrix = nn * sizeof(double);
    Row row;
    LOCAL(x, N_STATES, n);
    LOCAL(next, N_STATES, n);
    LOCAL(M, N_STATES, n);
    LOCAL(spread, N_STATES, n);
    LOCAL(P, NN, nn);
    LOCAL(before, NN, nn);
    LOCAL(W1, NN, nn);
    LOCAL(W2, NN, nn);
    LOCAL(W3, NN, nn);
    work = lay_row(n, m, work, &row);
    double *gain = work, *bound = gain + m * n, *Pinf = bound + nn, *scratch = Pinf + nn;
    double log_dets = 0.0, settled_inverse[1];
    double *inverse = m == 1 ? settled_inverse : scratch + DIFFUSE_DOUBLES(n, m);
    int is_settled = 0, was_settled = 0;
    const int keeps = out->predicted_mean != NULL, has_gains = out->gains != NULL;

    memcpy(x, x0, n * sizeof(double));
    memcpy(P, P0, nn * sizeof(double));
    if (left) {
        memcpy(Pinf, Pinf0, nn * sizeof(double));
        memcpy(bound, Pinf0, nn * sizeof(double));
    }
    out->n_diffuse_steps = 0;
    out->n_kept = 0;
    if (keeps) memcpy(out->predicted_cov, P, nn * sizeof(double));
    for (long t = 0; t < n_steps; t++, y += m) {
        double log_lik = 0.0;
        if (keeps) memcpy(out->predicted_mean + t * n, x, n * sizeof(double));
        prepare_row(n, m, model, t, y, &row);
        is_settled = is_settled && row.n_present == m;
        if (keeps && was_settled && !is_settled) catch_up(n, m, out, t);
        was_settled = is_settled;
        if (is_settled) {
            double squares = 0.0;
            for (Index i = 0; i < m; i++) {
                const double v = row.y[i] - row_dot(n, row.H + i * n, x);
                for (Index j = 0; j < n; j++) x[j] += gain[i * n + j] * v;
                squares += v * v * inverse[i];
                if (has_gains) out->innovations[t * m + i] = v;
            }
            out->log_lik[t] = -0.5 * (log_dets + squares);
            if (keeps) memcpy(out->filtered_mean + t * n, x, n * sizeof(double));
            NAME(predict_mean)(n, model, t, x, next);
            TAKE(x, next);
            continue;
        }
        memcpy(before, P, matrix);
        if (has_gains) gain = out->gains + t * m * n, inverse = out->inverses + t * m;
        /* a step that ends the diffuse phase may leave the covariance of the step before by chance */
        const int is_diffuse = left != 0, keeps_cov = keeps && (is_diffuse || out->has_cov);
        if (is_diffuse) {
            if (keeps) memcpy(out->diffuse_cov + t * nn, Pinf, nn * sizeof(double));
            left = diffuse_update(n, m, &row, x, P, Pinf, bound, left, out->diffuse_obs + t * m, &log_lik,
                                  &out->n_cancelled, scratch);
            mirror(n, P);
            mirror(n, Pinf);
            if (keeps) memcpy(out->diffuse_filtered_cov + t * nn, Pinf, nn * sizeof(double));
            left = diffuse_predict(n, model, t, Pinf, bound, left, scratch);
            out->n_diffuse_steps = t + 1;
        } else {
            double det = 1.0;
            log_dets = 0.0;
            for (Index j = 0; j < n; j++) spread[j] = P[j * n + j];
            for (Index i = 0; i < m; i++) {
                if (!row.present[i]) {
                    if (has_gains) no_gain(n, i, gain, inverse);
                    continue;
                }
                const double *h = row.H + i * n;
                const double v = row.y[i] - row_dot(n, h, x);
                if (has_gains) out->innovations[t * m + i] = v;
                times_row(n, P, h, M);
                const double f = row.r[i] + not_negative(row_dot(n, h, M)), scale = row.r[i] + reach(n, h, spread);
                if (f < CANCELLED * scale) out->n_cancelled++;
                if (!(f > NO_VARIANCE * scale)) {
                    no_gain(n, i, gain, inverse);
                    continue;
                }
                inverse[i] = 1.0 / f;
                det *= f;
                log_dets += LOG_2PI;
                if (!(det > 1e-100 && det < 1e100)) {
                    log_dets += log(det);
                    det = 1.0;
                }
                log_lik -= 0.5 * v * v * inverse[i];
                for (Index j = 0; j < n; j++) gain[i * n + j] = M[j] * inverse[i];
                for (Index j = 0; j < n; j++) x[j] += gain[i * n + j] * v;
                for (Index k = 0; k < n; k++)
                    for (Index j = 0; j < n; j++) P[k * n + j] -= (M[k] * M[j]) * inverse[i];
            }
            log_dets += log(det);
            log_lik -= 0.5 * log_dets;
        }
        out->log_lik[t] = log_lik;
        if (keeps) {
            memcpy(out->filtered_mean + t * n, x, n * sizeof(double));
            if (keeps_cov) memcpy(out->filtered_cov + t * nn, P, matrix);
        }
        NAME(predict_mean)(n, model, t, x, next);
        TAKE(x, next);
        NAME(predict_cov)(n, model, t, P, W3, W1, W2);
        TAKE(P, W3);
        if (keeps_cov) memcpy(out->predicted_cov + (t + 1) * nn, P, matrix);
        out->n_kept = t + 1;
        if (may_settle && !is_diffuse && row.n_present == m) is_settled = NAME(has_settled)(n, P, before);
    }
    if (keeps) memcpy(out->predicted_mean + n_steps * n, x, n * sizeof(double));
    if (keeps && left) memcpy(out->last_diffuse_cov, Pinf, nn * sizeof(double));
}

#define FILTER_DOUBLES(n, m) \
    (4 * (n) + 7 * (n) * (n) + ROW_DOUBLES(n, m) + (m) * (n) + DIFFUSE_DOUBLES(n, m) + (m) + 8)

/* The gains and innovations of a row, from the predicted moments; x and P end as the filtered ones, K holds M / f. */
ALWAYS_INLINE void NAME(row_gains)(const Index n, const Index m, const Row *row, double *x, const double *P_t,
                                   double *P, double *K, double *v, double *inverse, double *spread, double *gain)
{
    memcpy(P, P_t, n * n * sizeof(double));
    for (Index j = 0; j < n; j++) spread[j] = P[j * n + j];
    for (Index i = 0; i < m; i++) {
        const double *h = row->H + i * n;
        double *k = K + i * n;
        inverse[i] = 0.0;
        if (!row->present[i]) continue;
        v[i] = row->y[i] - row_dot(n, h, x);
        times_row(n, P, h, k);
        const double f = row->r[i] + not_negative(row_dot(n, h, k));
        if (!(f > NO_VARIANCE * (row->r[i] + reach(n, h, spread)))) continue;
        inverse[i] = 1.0 / f;
        for (Index j = 0; j < n; j++) gain[j] = k[j] * inverse[i];
        for (Index j = 0; j < n; j++) x[j] += gain[j] * v[i];
        if (i + 1 < m)
            for (Index a = 0; a < n; a++)
                for (Index j = 0; j < n; j++) P[a * n + j] -= gain[a] * k[j];
        for (Index j = 0; j < n; j++) k[j] = gain[j];
    }
}

CLONES static void NAME(smoother)(const Model *model, const double *y, const SmootherOut *out, double *work)
{
#if N_STATES > 0
    enum { n = N_STATES };
#else
    const Index n = model->n;
#endif
    const Index m = model->m;
    const long n_steps = model->n_steps, nn = n * n;
    Row row;
    LOCAL(x, N_STATES, n);
    LOCAL(r, N_STATES, n);
    LOCAL(Nk, N_STATES, n);
    LOCAL(spread, N_STATES, n);
    LOCAL(P, NN, nn);
    LOCAL(N, NN, nn);
    LOCAL(W1, NN, nn);
    LOCAL(W2, NN, nn);
    LOCAL(W3, NN, nn);
    LOCAL(Ft, NN, nn);
    LOCAL(N_after, NN, nn);
    work = lay_row(n, m, work, &row);
    double *K = work, *v = K + m * n, *inverse = v + m;
    double *scratch = inverse + m;

    memset(r, 0, n * sizeof(double));
    memset(N, 0, nn * sizeof(double));
    memset(N_after, 0, nn * sizeof(double));
    transpose(n, model->F, Ft);
    int was_complete = 0, is_settled = 0, was_settled = 0;
    for (long t = n_steps - 1; t >= 0; t--) {
        const long last = out->n_kept;
        const double *x_t = out->predicted_mean + t * n, *P_t = out->predicted_cov + (t < last ? t : last) * nn;
        const int is_diffuse = t < out->n_diffuse_steps;
        prepare_row(n, m, model, t, y + t * m, &row);
        /* where the filter stood still, the gains of the step after serve again; soon N stands still too */
        const int is_complete = model->is_constant && !is_diffuse && row.n_present == m;
        const int repeats =
            is_complete && was_complete && (t >= last || memcmp(P_t, P_t + nn, nn * sizeof(double)) == 0);
        is_settled = is_settled && repeats;
        was_settled = is_settled;
        was_complete = is_complete;
        /* from the filtered moments: the predicted ones may be huge, and their difference from the smoothed lost */
        const double *Pf = out->filtered_cov + (t < last ? t : last - 1) * nn;
        double *mean = out->mean + t * n, *cov = out->cov + t * nn;
        times_vector(n, Pf, r, Nk);
        for (Index j = 0; j < n; j++) mean[j] = out->filtered_mean[t * n + j] + Nk[j];
        if (is_settled) {
            memcpy(cov, cov + nn, nn * sizeof(double));
        } else {
            congruence(n, Pf, N, W3, W1, W2);
            for (Index j = 0; j < nn; j++) cov[j] = Pf[j] - W3[j];
        }
        if (is_diffuse) {
            diffuse_backwards(n, m, &row, x_t, P_t, out->diffuse_cov + t * nn, out->diffuse_obs + t * m, r, N,
                              scratch);
        } else {
            memcpy(x, x_t, n * sizeof(double));
            if (repeats) {
                for (Index i = 0; i < m; i++) {
                    v[i] = row.y[i] - row_dot(n, row.H + i * n, x);
                    if (inverse[i] == 0.0) continue;
                    for (Index j = 0; j < n; j++) x[j] += K[i * n + j] * v[i];
                }
            } else {
                NAME(row_gains)(n, m, &row, x, P_t, P, K, v, inverse, spread, W1);
            }
            for (Index i = m - 1; i >= 0; i--) {
                if (inverse[i] == 0.0) continue;
                const double *h = row.H + i * n, *k = K + i * n;
                const double step = v[i] * inverse[i] - dot(n, k, r);
                for (Index j = 0; j < n; j++) r[j] += h[j] * step;
                if (is_settled) continue;
                times_vector(n, N, k, Nk);
                const double knk = 0.5 * (dot(n, k, Nk) + inverse[i]);
                for (Index j = 0; j < n; j++) Nk[j] -= knk * h[j];
                add_outer(n, N, -1.0, h, Nk);
            }
        }
        if (out->r) {
            memcpy(out->r + t * n, r, n * sizeof(double));
            memcpy(out->N + t * nn, is_settled ? N_after : N, nn * sizeof(double));
        }
        if (!is_settled) {
            if (repeats) is_settled = NAME(has_settled)(n, N, N_after);
            memcpy(N_after, N, nn * sizeof(double));
        }
        if (t == 0) break;
        if (model->F_step) transpose(n, model->F + (t - 1) * model->F_step, Ft);
        for (Index i = 0; i < n; i++) Nk[i] = dot(n, Ft + i * n, r);
        memcpy(r, Nk, n * sizeof(double));
        if (was_settled) continue;
#if N_STATES == 0
        if (model->is_sparse) sparse_congruence_back(n, model->by_rows, model->by_columns, N, W3, W1);
        else
#endif
        congruence(n, Ft, N, W3, W1, W2);
        memcpy(N, W3, nn * sizeof(double));
    }
}

#define SMOOTHER_DOUBLES(n, m) \
    (4 * (n) + 7 * (n) * (n) + ROW_DOUBLES(n, m) + (m) * ((n) + 2) + DIFFUSE_DOUBLES(n, m) + 8)

#undef LOCAL
#undef TAKE
#undef NN
#undef NAME
#undef N_STATES
