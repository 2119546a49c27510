/* The passes over a block of lanes; included once for each number of states that is unrolled, and with N_STATES 0. */

#if N_STATES > 0
#define LOCAL(name, size_unrolled, size) V name[size_unrolled]
#define ANY_SIZE(n, model) enum { n = N_STATES }
#define UNROLL _Pragma("GCC unroll 8")
#else
#define LOCAL(name, size_unrolled, size) \
    V *name = work;                      \
    work += (size)
#define ANY_SIZE(n, model) const Index n = (model)->n
#define UNROLL
#endif

/* One row made uncorrelated across lanes. `is_own`: each lane has its own h and r. */
ALWAYS_INLINE void NAME(own_rows)(const Index n, const Index m, const int is_diagonal, const V *y, const V *d,
                                  const V *H, const V *R, const Mask started, V *v, Mask *here, V *h, V *r, V *L)
{
    for (Index i = 0; i < m; i++) {
        here[i] = (y[i] == y[i]) & started;
        v[i] = y[i] - d[i];
        r[i] = R[i * m + i];
        UNROLL for (Index j = 0; j < n; j++) h[i * n + j] = H[i * n + j];
        if (is_diagonal) continue;
        V pivot = r[i];
        for (Index j = 0; j < i; j++) {
            const Mask both = here[i] & here[j];
            V rest = R[i * m + j];
            for (Index k = 0; k < j; k++) rest -= L[i * m + k] * L[j * m + k] * r[k];
            const V l = only(both & (r[j] > 0.0), rest / pick(r[j] > 0.0, r[j], splat(1.0)));
            L[i * m + j] = l;
            pivot -= l * l * r[j];
            v[i] -= only(both, l * v[j]);
            UNROLL for (Index k = 0; k < n; k++) h[i * n + k] -= l * h[j * n + k];
        }
        r[i] = pick(pivot <= NO_VARIANCE * R[i * m + i], splat(0.0), pivot);
    }
}

/* The forward pass of a block. `is_own`: matrices in lanes; otherwise one constant or changing model, R diagonal. */
ALWAYS_INLINE void NAME(forward)(const Index n, const int is_own, const FleetModel *model, const double *y,
                                 const long *start, const long *rows, int n_own, int keeps_all, FleetOut *out,
                                 Trace *trace, V *work)
{
    const Index m = model->m;
    const long n_steps = model->n_steps, nn = n * n;
    LOCAL(x, N_STATES, n);
    LOCAL(next, N_STATES, n);
    LOCAL(M, N_STATES, n);
    LOCAL(spread, N_STATES, n);
    LOCAL(P, TRI(N_STATES), TRI(n));
    LOCAL(A, N_STATES * N_STATES, nn);
    V *F = work, *Q = F + nn, *c = Q + TRI(n), *H = c + n, *R = H + m * n, *d = R + m * m;
    V *r = d + m, *L = r + m, *x0 = L + m * m, *P0 = x0 + n, *ys = P0 + TRI(n), *wide = ys + TILE * m;
    Mask *here = (Mask *)(wide + m * n);
    const int wants_steps = out->log_likelihood_steps || out->constants;
    const int keeps_mean = out->predicted_mean || out->filtered_mean || keeps_all;
    const int keeps_cov = out->predicted_cov || out->filtered_cov || keeps_all;
    Mask starts, exponents = {0}, cancelled = {0};
    V squares = splat(0.0), product = splat(1.0), count = splat(0.0);
    long last_start = 0;

    for (int l = 0; l < LANES; l++) {
        starts[l] = start[rows[l]];
        if (start[rows[l]] > last_start) last_start = start[rows[l]];
    }
    load_part(model->x, n, 0, rows, x0);
    load_symmetric(model->P, n, 0, rows, P0);
    UNROLL for (Index j = 0; j < n; j++) x[j] = splat(0.0);
    UNROLL for (Index j = 0; j < TRI(n); j++) P[j] = splat(0.0);
    for (long t = 0; t < n_steps; t++) {
        const long at = keeps_all ? t : t % TILE, in_tile = t % TILE;
        const double *F1 = model->F.at + t * model->F.step, *Q1 = model->Q.at + t * model->Q.step;
        const double *H1 = model->H.at + t * model->H.step, *R1 = model->R.at + t * model->R.step;
        const double *c1 = model->c.at + t * model->c.step, *d1 = model->d.at + t * model->d.step;
        if (in_tile == 0) read_rows(y, m, t, t + TILE < n_steps ? t + TILE : n_steps, n_steps, rows, ys);
        if (is_own) {
            if (t == 0 || model->F.step) load_part(model->F, nn, t, rows, F);
            if (t == 0 || model->Q.step) load_symmetric(model->Q, n, t, rows, Q);
            if (t == 0 || model->c.step) load_part(model->c, n, t, rows, c);
            if (t == 0 || model->H.step) load_part(model->H, m * n, t, rows, H);
            if (t == 0 || model->R.step) load_part(model->R, m * m, t, rows, R);
            if (t == 0 || model->d.step) load_part(model->d, m, t, rows, d);
        }
        Mask started = starts <= t;
        if (t <= last_start) {
            const Mask now = starts == t;
            UNROLL for (Index j = 0; j < n; j++) x[j] = pick(now, x0[j], pick(started, x[j], splat(0.0)));
            UNROLL for (Index j = 0; j < TRI(n); j++) P[j] = pick(now, P0[j], pick(started, P[j], splat(0.0)));
        }
        if (keeps_mean) {
            UNROLL for (Index j = 0; j < n; j++) trace->xp[at * n + j] = x[j];
        }
        if (keeps_cov) {
            UNROLL for (Index j = 0; j < TRI(n); j++) trace->Pp[at * TRI(n) + j] = P[j];
        }
        V *v_t = trace->v + at * m, *inverse_t = trace->inverse + at * m, *K_t = trace->K + at * m * n;
        V *h_t = keeps_all ? trace->h + at * m * n : wide;
        const V *y_t = ys + in_tile * m;
        if (is_own)
            NAME(own_rows)(n, m, model->is_diagonal, y_t, d, H, R, started, v_t, here, h_t, r, L);
        else
            for (Index i = 0; i < m; i++) {
                here[i] = (y_t[i] == y_t[i]) & started;
                v_t[i] = y_t[i] - d1[i];
            }
        UNROLL for (Index j = 0; j < n; j++) spread[j] = P[tri(j, j)];
        V step_squares = splat(0.0), step_product = splat(1.0), step_count = splat(0.0);
        Mask step_exponents = {0};
        for (Index i = 0; i < m; i++) {
#define ROW(j) (is_own ? h_t[i * n + (j)] : splat(H1[i * n + (j)]))
            V predicted = splat(0.0), f = splat(0.0), scale = splat(0.0);
            const V noise = is_own ? r[i] : splat(R1[i * m + i]);
            UNROLL for (Index j = 0; j < n; j++) M[j] = splat(0.0);
            UNROLL for (Index k = 0; k < n; k++) {
                if (!is_own && H1[i * n + k] == 0.0) continue;
                predicted += ROW(k) * x[k];
                scale += ROW(k) * ROW(k) * spread[k];
                UNROLL for (Index j = 0; j < n; j++) M[j] += P[tri(k, j)] * ROW(k);
            }
            UNROLL for (Index k = 0; k < n; k++) {
                if (!is_own && H1[i * n + k] == 0.0) continue;
                f += ROW(k) * M[k];
            }
            f = noise + only(f > 0.0, f);
            scale = noise + scale;
            const Mask serves = here[i] & (f > NO_VARIANCE * scale);
            cancelled -= here[i] & (f < CANCELLED * scale);
            const V v = only(serves, v_t[i] - predicted), inverse = only(serves, 1.0 / f);
            step_product *= pick(serves, f, splat(1.0));
            step_count += only(serves, splat(1.0));
            step_squares += v * v * inverse;
            if (i & 1) renormalise(&step_product, &step_exponents);
            v_t[i] = v;
            inverse_t[i] = inverse;
            UNROLL for (Index j = 0; j < n; j++) {
                const V gain = M[j] * inverse;
                x[j] += gain * v;
                K_t[i * n + j] = gain;
            }
            UNROLL for (Index k = 0; k < n; k++)
                UNROLL for (Index j = 0; j <= k; j++) P[tri(k, j)] -= (M[k] * M[j]) * inverse;
            if (!is_own && keeps_all)
                UNROLL for (Index j = 0; j < n; j++) h_t[i * n + j] = ROW(j);
#undef ROW
        }
        renormalise(&step_product, &step_exponents);
        squares += step_squares;
        count += step_count;
        product *= step_product;
        exponents += step_exponents;
        renormalise(&product, &exponents);
        if (wants_steps)
            for (int l = 0; l < LANES; l++) {
                const double rest = step_count[l] * LOG_2PI + (log(step_product[l]) + step_exponents[l] * LN_2);
                trace->log_lik[at][l] = -0.5 * (rest + step_squares[l]);
                if (out->constants && l == 0) out->constants[t] = rest;
            }
        if (keeps_mean) {
            UNROLL for (Index j = 0; j < n; j++) trace->xf[at * n + j] = x[j];
        }
        if (keeps_cov) {
            UNROLL for (Index j = 0; j < TRI(n); j++) trace->Pf[at * TRI(n) + j] = P[j];
        }
        UNROLL for (Index i = 0; i < n; i++) {
            V sum = splat(0.0);
            UNROLL for (Index k = 0; k < n; k++) {
                if (!is_own && F1[i * n + k] == 0.0) continue;
                sum += (is_own ? F[i * n + k] : splat(F1[i * n + k])) * x[k];
            }
            next[i] = sum + (is_own ? c[i] : splat(c1[i]));
        }
        UNROLL for (Index j = 0; j < n; j++) x[j] = next[j];
        UNROLL for (Index i = 0; i < n; i++) {
            UNROLL for (Index j = 0; j < n; j++) A[i * n + j] = splat(0.0);
            UNROLL for (Index k = 0; k < n; k++) {
                if (!is_own && F1[i * n + k] == 0.0) continue;
                const V f = is_own ? F[i * n + k] : splat(F1[i * n + k]);
                UNROLL for (Index j = 0; j < n; j++) A[i * n + j] += f * P[tri(k, j)];
            }
        }
        UNROLL for (Index i = 0; i < n; i++) {
            UNROLL for (Index j = 0; j <= i; j++) P[tri(i, j)] = splat(0.0);
            UNROLL for (Index k = 0; k < n; k++) {
                if (!is_own && F1[i * n + k] == 0.0) continue;
                const V f = is_own ? F[i * n + k] : splat(F1[i * n + k]);
                UNROLL for (Index j = 0; j <= i; j++) P[tri(i, j)] += f * A[j * n + k];
            }
            UNROLL for (Index j = 0; j <= i; j++) P[tri(i, j)] += is_own ? Q[tri(i, j)] : splat(Q1[i * n + j]);
        }
        if (in_tile == TILE - 1 || t == n_steps - 1) {
            const long from = t - in_tile, skip = keeps_all ? from : 0, to = t + 1;
            write_vectors(out->predicted_mean, trace->xp + skip * n, n, from, to, n_steps + 1, rows, n_own);
            write_vectors(out->filtered_mean, trace->xf + skip * n, n, from, to, n_steps, rows, n_own);
            write_matrices(out->predicted_cov, trace->Pp + skip * TRI(n), n, from, to, n_steps + 1, rows, n_own);
            write_matrices(out->filtered_cov, trace->Pf + skip * TRI(n), n, from, to, n_steps, rows, n_own);
            write_vectors(out->log_likelihood_steps, trace->log_lik + skip, 1, from, to, n_steps, rows, n_own);
            if (out->residuals) {
                V *z = trace->v + skip * m, *f = trace->inverse + skip * m;
                for (long k = 0; k < (to - from) * m; k++)
                    for (int l = 0; l < LANES; l++)
                        ys[k][l] = f[k][l] > 0 ? z[k][l] * sqrt(f[k][l]) : NAN;
                write_vectors(out->residuals, ys, m, from, to, n_steps, rows, n_own);
            }
        }
    }
    write_vectors(out->predicted_mean, x, n, n_steps, n_steps + 1, n_steps + 1, rows, n_own);
    write_matrices(out->predicted_cov, P, n, n_steps, n_steps + 1, n_steps + 1, rows, n_own);
    write_vectors(out->last_mean, x, n, 0, 1, 1, rows, n_own);
    write_matrices(out->last_cov, P, n, 0, 1, 1, rows, n_own);
    for (int l = 0; l < n_own; l++) {
        const double rest = count[l] * LOG_2PI + (log(product[l]) + exponents[l] * LN_2);
        if (out->log_likelihood) out->log_likelihood[rows[l]] = -0.5 * (rest + squares[l]);
        if (out->constants && l == 0) out->constants[n_steps] = rest;
        out->cancelled[rows[l]] = cancelled[l];
    }
}

/* The backward pass of a block over its whole trace. */
ALWAYS_INLINE void NAME(backward)(const Index n, const int is_own, const FleetModel *model, const double *y,
                                  const long *start, const long *rows, int n_own, FleetOut *out, const Trace *trace,
                                  V *work)
{
    const Index m = model->m;
    const long n_steps = model->n_steps, nn = n * n;
    LOCAL(r, N_STATES, n);
    LOCAL(Nk, N_STATES, n);
    LOCAL(N, TRI(N_STATES), TRI(n));
    LOCAL(A, N_STATES * N_STATES, nn);
    LOCAL(mean, N_STATES, n);
    LOCAL(cov, TRI(N_STATES), TRI(n));
    V *F = work, *means = F + nn, *covs = means + TILE * n, *sums = covs + TILE * TRI(n);
    double *scratch = (double *)(sums + STATISTICS(n, m));
    double *H1 = scratch, *R1 = H1 + m * n, *d1 = R1 + m * m, *x1 = d1 + m, *P1 = x1 + n;
    double *own = P1 + nn, *more = own + STATISTICS(n, m);
    V *D = sums, *noise = D + 2 * nn + n;
    const int wants_sums = out->statistics != NULL;
    Mask starts, lost = {0};

    for (int l = 0; l < LANES; l++) starts[l] = start[rows[l]];
    for (Index k = 0; k < STATISTICS(n, m); k++) sums[k] = splat(0.0);
    UNROLL for (Index j = 0; j < n; j++) r[j] = splat(0.0);
    UNROLL for (Index j = 0; j < TRI(n); j++) N[j] = splat(0.0);
    if (is_own) load_part(model->F, nn, n_steps > 1 ? (n_steps - 2) : 0, rows, F);
    for (long t = n_steps - 1; t >= 0; t--) {
        const long in_tile = t % TILE;
        const V *Pf = trace->Pf + t * TRI(n), *xf = trace->xf + t * n;
        const V *v = trace->v + t * m, *inverse = trace->inverse + t * m, *K = trace->K + t * m * n;
        const V *h = trace->h + t * m * n;
        UNROLL for (Index i = 0; i < n; i++) {
            V sum = Pf[tri(i, 0)] * r[0];
            UNROLL for (Index k = 1; k < n; k++) sum += Pf[tri(i, k)] * r[k];
            mean[i] = xf[i] + sum;
        }
        UNROLL for (Index i = 0; i < n; i++)
            UNROLL for (Index j = 0; j < n; j++) {
                V sum = Pf[tri(i, 0)] * N[tri(0, j)];
                UNROLL for (Index k = 1; k < n; k++) sum += Pf[tri(i, k)] * N[tri(k, j)];
                A[i * n + j] = sum;
            }
        UNROLL for (Index i = 0; i < n; i++)
            UNROLL for (Index j = 0; j <= i; j++) {
                V sum = Pf[tri(i, 0)] * A[j * n];
                UNROLL for (Index k = 1; k < n; k++) sum += Pf[tri(i, k)] * A[j * n + k];
                cov[tri(i, j)] = Pf[tri(i, j)] - sum;
            }
        if (t < n_steps - 1)
            UNROLL for (Index j = 0; j < n; j++)
                lost |= (starts <= t) & (cov[tri(j, j)] < LOST * Pf[tri(j, j)]);
        UNROLL for (Index j = 0; j < n; j++) means[in_tile * n + j] = mean[j];
        UNROLL for (Index j = 0; j < TRI(n); j++) covs[in_tile * TRI(n) + j] = cov[j];
        if (in_tile == 0) {
            const long to = t + TILE < n_steps ? t + TILE : n_steps;
            write_vectors(out->smoothed_mean, means, n, t, to, n_steps, rows, n_own);
            write_matrices(out->smoothed_cov, covs, n, t, to, n_steps, rows, n_own);
        }
        if (wants_sums) {
            for (int l = 0; l < n_own; l++) {
                if (starts[l] > t) continue;
                const double *y1 = y + (rows[l] * n_steps + t) * m;
                unsigned char here[64];
                if (m > 64) break;
                for (Index k = 0; k < m * n; k++) H1[k] = model->H.at[rows[l] * model->H.series + t * model->H.step + k];
                for (Index k = 0; k < m * m; k++) R1[k] = model->R.at[rows[l] * model->R.series + t * model->R.step + k];
                for (Index k = 0; k < m; k++) d1[k] = model->d.at[rows[l] * model->d.series + t * model->d.step + k];
                for (Index i = 0; i < n; i++) {
                    x1[i] = mean[i][l];
                    for (Index j = 0; j < n; j++) P1[i * n + j] = cov[tri(i, j)][l];
                }
                memset(own, 0, STATISTICS(n, m) * sizeof(double));
                double *own_noise = own, *own_cross = own + m * m, *own_states = own_cross + m * n;
                add_observation(n, m, y1, d1, H1, R1, x1, P1, own_states, own_noise, own_cross, own_states + nn, here,
                                more);
                for (Index k = 0; k < m * m + m * n + nn + 1; k++) noise[k][l] += own[k];
                if (starts[l] == t || t == 0) {
                    for (Index k = 0; k < n; k++) D[nn + k][l] = x1[k];
                    for (Index k = 0; k < nn; k++) D[nn + n + k][l] = P1[k];
                }
            }
        }
        for (Index i = m - 1; i >= 0; i--) {
            const V *k_i = K + i * n, *h_i = h + i * n;
            const Mask serves = inverse[i] != 0.0;
            V Kr = splat(0.0), kNk = splat(0.0);
            UNROLL for (Index j = 0; j < n; j++) Kr += k_i[j] * r[j];
            const V step = only(serves, v[i] * inverse[i] - Kr);
            UNROLL for (Index j = 0; j < n; j++) r[j] += h_i[j] * step;
            UNROLL for (Index j = 0; j < n; j++) {
                V sum = N[tri(j, 0)] * k_i[0];
                UNROLL for (Index k = 1; k < n; k++) sum += N[tri(j, k)] * k_i[k];
                Nk[j] = sum;
            }
            UNROLL for (Index j = 0; j < n; j++) kNk += k_i[j] * Nk[j];
            kNk = 0.5 * (kNk + inverse[i]);
            UNROLL for (Index j = 0; j < n; j++) Nk[j] = only(serves, Nk[j] - kNk * h_i[j]);
            UNROLL for (Index k = 0; k < n; k++)
                UNROLL for (Index j = 0; j <= k; j++) N[tri(k, j)] -= h_i[k] * Nk[j] + Nk[k] * h_i[j];
        }
        if (wants_sums && t > 0) {
            const Mask counts = starts < t;
            for (Index i = 0; i < n; i++)
                for (Index j = 0; j < n; j++) D[i * n + j] += only(counts, r[i] * r[j] - N[tri(i, j)]);
        }
        if (t == 0) break;
        const double *F1 = model->F.at + (t - 1) * model->F.step;
        if (is_own && model->F.step) load_part(model->F, nn, t - 1, rows, F);
        UNROLL for (Index i = 0; i < n; i++) {
            V sum = splat(0.0);
            UNROLL for (Index k = 0; k < n; k++) {
                if (!is_own && F1[k * n + i] == 0.0) continue;
                sum += (is_own ? F[k * n + i] : splat(F1[k * n + i])) * r[k];
            }
            Nk[i] = sum;
        }
        UNROLL for (Index j = 0; j < n; j++) r[j] = Nk[j];
        UNROLL for (Index i = 0; i < n; i++) {
            UNROLL for (Index j = 0; j < n; j++) A[i * n + j] = splat(0.0);
            UNROLL for (Index k = 0; k < n; k++) {
                if (!is_own && F1[k * n + i] == 0.0) continue;
                const V f = is_own ? F[k * n + i] : splat(F1[k * n + i]);
                UNROLL for (Index j = 0; j < n; j++) A[i * n + j] += f * N[tri(k, j)];
            }
        }
        UNROLL for (Index i = 0; i < n; i++) {
            UNROLL for (Index j = 0; j <= i; j++) N[tri(i, j)] = splat(0.0);
            UNROLL for (Index k = 0; k < n; k++) {
                if (!is_own && F1[k * n + i] == 0.0) continue;
                const V f = is_own ? F[k * n + i] : splat(F1[k * n + i]);
                UNROLL for (Index j = 0; j <= i; j++) N[tri(i, j)] += f * A[j * n + k];
            }
        }
    }
    for (int l = 0; l < n_own; l++) {
        out->lost[rows[l]] = lost[l] != 0;
        if (wants_sums)
            for (Index k = 0; k < STATISTICS(n, m); k++)
                out->statistics[rows[l] * STATISTICS(n, m) + k] = sums[k][l];
    }
}

/* What the first lane's gains are, for the series that share its pattern. */
static void NAME(publish)(const FleetModel *model, const double *y, long row, const FleetOut *out, const Trace *trace)
{
    const Index n = model->n, m = model->m;
    for (long t = 0; t < model->n_steps; t++)
        for (Index i = 0; i < m; i++) {
            const long k = t * m + i;
            const double value = y[row * model->n_steps * m + k];
            out->inverses[k] = value == value ? trace->inverse[k][0] : -1.0;
            for (Index j = 0; j < n; j++) {
                out->gains[k * n + j] = trace->K[k * n + j][0];
                out->rows[k * n + j] = trace->h[k * n + j][0];
            }
        }
}

#define BLOCK_V(n, m) \
    (8 * (n) + 5 * (n) * (n) + 4 * TRI(n) + (m) * (4 + (TILE) + 3 * (n) + 3 * (m)) + (TILE) * ((n) + TRI(n)) \
     + STATISTICS(n, m) + ((m) * (n) + (m) * (m) + (m) + (n) + (n) * (n) + STATISTICS(n, m) \
     + OBSERVATION_DOUBLES(n, m) + 8 * (m)) + 16)

/* Filter, and where it is wanted smooth, the series `rows`; `trace_memory` holds `trace_length` steps. */
CLONES static void NAME(fleet)(const FleetModel *model, const double *y, const long *start, const long *series,
                               long n_series, int is_own, int goes_back, FleetOut *out, V *trace_memory, V *work)
{
    ANY_SIZE(n, model);
    const Index m = model->m;
    const long length = goes_back ? model->n_steps : TILE;
    Trace trace;
    trace.xp = trace_memory;
    trace.Pp = trace.xp + length * n;
    trace.xf = trace.Pp + length * TRI(n);
    trace.Pf = trace.xf + length * n;
    trace.v = trace.Pf + length * TRI(n);
    trace.inverse = trace.v + length * m;
    trace.K = trace.inverse + length * m;
    trace.h = trace.K + length * m * n;
    trace.log_lik = trace.h + length * m * n;
    for (long first = 0; first < n_series; first += LANES) {
        long rows[LANES];
        const int n_own = n_series - first < LANES ? (int)(n_series - first) : LANES;
        for (int l = 0; l < LANES; l++) rows[l] = series[first + (l < n_own ? l : n_own - 1)];
#if N_STATES == 0
        if (is_own) NAME(forward)(n, 1, model, y, start, rows, n_own, goes_back, out, &trace, work);
        else
#endif
            NAME(forward)(n, 0, model, y, start, rows, n_own, goes_back, out, &trace, work);
        if (out->gains) NAME(publish)(model, y, rows[0], out, &trace);
        if (!goes_back) continue;
#if N_STATES == 0
        if (is_own) NAME(backward)(n, 1, model, y, start, rows, n_own, out, &trace, work);
        else
#endif
            NAME(backward)(n, 0, model, y, start, rows, n_own, out, &trace, work);
    }
}

/* The same for series that share model, pattern and first covariance: the gains are known, the means are left. */
CLONES static void NAME(means)(const FleetModel *model, const Shared *shared, const double *y, long start,
                               const long *series, long n_series, int goes_back, FleetOut *out, V *trace_memory,
                               V *work)
{
    ANY_SIZE(n, model);
    const Index m = model->m;
    const long n_steps = model->n_steps, length = goes_back ? n_steps : TILE, nn = n * n;
    LOCAL(x, N_STATES, n);
    LOCAL(next, N_STATES, n);
    V *ys = work, *tile = ys + TILE * m, *xp = trace_memory, *xf = xp + length * n, *vs = xf + length * n;
    V *log_lik = vs + length * m;
    for (long first = 0; first < n_series; first += LANES) {
        long rows[LANES];
        const int n_own = n_series - first < LANES ? (int)(n_series - first) : LANES;
        V squares = splat(0.0);
        for (int l = 0; l < LANES; l++) rows[l] = series[first + (l < n_own ? l : n_own - 1)];
        load_part(model->x, n, 0, rows, next);
        UNROLL for (Index j = 0; j < n; j++) x[j] = splat(0.0);
        for (long t = 0; t < n_steps; t++) {
            const long in_tile = t % TILE, at = goes_back ? t : in_tile;
            const double *F = model->F.at + t * model->F.step, *c = model->c.at + t * model->c.step;
            const double *d = model->d.at + t * model->d.step;
            if (in_tile == 0) read_rows(y, m, t, t + TILE < n_steps ? t + TILE : n_steps, n_steps, rows, ys);
            if (t == start)
                UNROLL for (Index j = 0; j < n; j++) x[j] = next[j];
            UNROLL for (Index j = 0; j < n; j++) xp[at * n + j] = x[j];
            V step_squares = splat(0.0);
            for (Index i = 0; i < m; i++) {
                const double inverse = shared->inverses[t * m + i];
                const double *h = shared->rows + (t * m + i) * n, *K = shared->gains + (t * m + i) * n;
                V predicted = splat(0.0), v = splat(0.0);
                if (inverse > 0.0) {
                    UNROLL for (Index j = 0; j < n; j++) predicted += h[j] * x[j];
                    v = (ys[in_tile * m + i] - d[i]) - predicted;
                    step_squares += v * v * inverse;
                    UNROLL for (Index j = 0; j < n; j++) x[j] += K[j] * v;
                }
                vs[at * m + i] = v;
            }
            squares += step_squares;
            log_lik[at] = -0.5 * (shared->constants[t] + step_squares);
            UNROLL for (Index j = 0; j < n; j++) xf[at * n + j] = x[j];
            V after[N_STATES ? N_STATES : 1], *moved = N_STATES ? after : tile;
            UNROLL for (Index i = 0; i < n; i++) {
                V sum = splat(0.0);
                UNROLL for (Index k = 0; k < n; k++) {
                    if (F[i * n + k] == 0.0) continue;
                    sum += F[i * n + k] * x[k];
                }
                moved[i] = sum + c[i];
            }
            UNROLL for (Index j = 0; j < n; j++) x[j] = moved[j];
            if (t < start)
                UNROLL for (Index j = 0; j < n; j++) x[j] = splat(0.0);
            if (in_tile == TILE - 1 || t == n_steps - 1) {
                const long from = t - in_tile, skip = goes_back ? from : 0, to = t + 1;
                write_vectors(out->predicted_mean, xp + skip * n, n, from, to, n_steps + 1, rows, n_own);
                write_vectors(out->filtered_mean, xf + skip * n, n, from, to, n_steps, rows, n_own);
                write_vectors(out->log_likelihood_steps, log_lik + skip, 1, from, to, n_steps, rows, n_own);
                if (out->residuals) {
                    for (long k = 0; k < (to - from) * m; k++) {
                        const double inverse = shared->inverses[from * m + k];
                        ys[k] = inverse > 0.0 ? vs[skip * m + k] * sqrt(inverse) : splat(NAN);
                    }
                    write_vectors(out->residuals, ys, m, from, to, n_steps, rows, n_own);
                }
            }
        }
        write_vectors(out->predicted_mean, x, n, n_steps, n_steps + 1, n_steps + 1, rows, n_own);
        write_vectors(out->last_mean, x, n, 0, 1, 1, rows, n_own);
        if (out->log_likelihood)
            for (int l = 0; l < n_own; l++)
                out->log_likelihood[rows[l]] = -0.5 * (shared->constants[n_steps] + squares[l]);
        if (!goes_back) continue;
        V *r = x;
        UNROLL for (Index j = 0; j < n; j++) r[j] = splat(0.0);
        for (long t = n_steps - 1; t >= 0; t--) {
            const long in_tile = t % TILE;
            const double *Pf = shared->filtered_cov + t * nn;
            UNROLL for (Index i = 0; i < n; i++) {
                V sum = Pf[i * n] * r[0];
                UNROLL for (Index k = 1; k < n; k++) sum += Pf[i * n + k] * r[k];
                tile[in_tile * n + i] = xf[t * n + i] + sum;
            }
            if (in_tile == 0)
                write_vectors(out->smoothed_mean, tile, n, t, t + TILE < n_steps ? t + TILE : n_steps, n_steps, rows,
                              n_own);
            for (Index i = m - 1; i >= 0; i--) {
                const double inverse = shared->inverses[t * m + i];
                const double *h = shared->rows + (t * m + i) * n, *K = shared->gains + (t * m + i) * n;
                if (!(inverse > 0.0)) continue;
                V Kr = splat(0.0);
                UNROLL for (Index j = 0; j < n; j++) Kr += K[j] * r[j];
                const V step = vs[t * m + i] * inverse - Kr;
                UNROLL for (Index j = 0; j < n; j++) r[j] += h[j] * step;
            }
            if (t == 0) break;
            const double *F = model->F.at + (t - 1) * model->F.step;
            UNROLL for (Index i = 0; i < n; i++) {
                V sum = splat(0.0);
                UNROLL for (Index k = 0; k < n; k++) {
                    if (F[k * n + i] == 0.0) continue;
                    sum += F[k * n + i] * r[k];
                }
                next[i] = sum;
            }
            UNROLL for (Index j = 0; j < n; j++) r[j] = next[j];
        }
    }
}

#define TRACE_V(n, m, length) ((length) * (2 * (n) + 2 * TRI(n) + 2 * (m) + 2 * (m) * (n) + 1) + 8)

#undef LOCAL
#undef ANY_SIZE
#undef UNROLL
#undef NAME
#undef N_STATES
