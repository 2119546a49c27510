/* The passes over a block of lanes; included once for each number of states that is unrolled, and with N_STATES 0. */

/* `is_own`: a matrix in lanes, otherwise one for all lanes. A number times a vector, never a vector made of one number:
 * where functions are cloned, GCC 12 makes such a vector element by element. */
#define TIMES(own, one, vector) (is_own ? (own) * (vector) : (one) * (vector))

#if N_STATES > 0
#define LOCAL(name, size_unrolled, size) V name[size_unrolled]
#define ANY_SIZE(n, model) enum { n = N_STATES }
#define UNROLL _Pragma("GCC unroll 8")
/* whether element k is not zero: one bit, where a comparison of numbers in every step would cost as much as the work */
#define HAS(bits, at, k) (is_own || ((bits) >> (k) & 1))
#else
#define LOCAL(name, size_unrolled, size) \
    V *name = work;                      \
    work += (size)
#define ANY_SIZE(n, model) const Index n = (model)->n
#define UNROLL
#define HAS(bits, at, k) ((void)(bits), is_own || (at)[k] != 0.0)
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
    const int keeps_mean = out->filtered_mean || keeps_all, keeps_cov = out->filtered_cov || keeps_all;
    const int keeps_steps = out->residuals || keeps_all;
    Mask starts, exponents = {0}, cancelled = {0};
    V squares = splat(0.0), product = splat(1.0), count = splat(0.0);
    unsigned long long F_bits = 0, H_bits = 0;
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
        if (N_STATES && !is_own && (t == 0 || model->F.step)) F_bits = non_zeros(nn, F1);
        if (N_STATES && !is_own && (t == 0 || model->H.step)) H_bits = non_zeros(m * n, H1);
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
        if (out->predicted_mean) {
            UNROLL for (Index j = 0; j < n; j++) trace->xp[at * n + j] = x[j];
        }
        if (out->predicted_cov) {
            UNROLL for (Index j = 0; j < TRI(n); j++) trace->Pp[at * TRI(n) + j] = P[j];
        }
        V *v_t = trace->v + at * m, *inverse_t = trace->inverse + at * m, *K_t = trace->K + at * m * n;
        V *h_t = keeps_all && is_own ? trace->h + at * m * n : wide;
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
#define ROW_TIMES(j, vector) TIMES(h_t[i * n + (j)], h1[j], vector)
            const double *h1 = H1 + i * n, noise = R1[i * m + i];
            V predicted = splat(0.0), f = splat(0.0), scale = splat(0.0);
            const unsigned long long h_bits = row_bits(H_bits, n, m, i, h1);
            UNROLL for (Index j = 0; j < n; j++) M[j] = splat(0.0);
            UNROLL for (Index k = 0; k < n; k++) {
                if (!HAS(h_bits, h1, k)) continue;
                predicted += ROW_TIMES(k, x[k]);
                scale += TIMES(h_t[i * n + k] * h_t[i * n + k], h1[k] * h1[k], spread[k]);
                UNROLL for (Index j = 0; j < n; j++) M[j] += ROW_TIMES(k, P[tri(k, j)]);
            }
            UNROLL for (Index k = 0; k < n; k++) {
                if (!HAS(h_bits, h1, k)) continue;
                f += ROW_TIMES(k, M[k]);
            }
            f = only(f > 0.0, f);
            f = is_own ? r[i] + f : noise + f;
            scale = is_own ? r[i] + scale : noise + scale;
            const Mask serves = here[i] & (f > NO_VARIANCE * scale);
            cancelled -= here[i] & (f < CANCELLED * scale);
            const V v = only(serves, v_t[i] - predicted), inverse = only(serves, 1.0 / f);
            step_product *= pick(serves, f, splat(1.0));
            step_count += only(serves, splat(1.0));
            step_squares += v * v * inverse;
            if (i & 1) renormalise(&step_product, &step_exponents);
            if (keeps_steps) {
                v_t[i] = v;
                inverse_t[i] = inverse;
            }
            UNROLL for (Index j = 0; j < n; j++) {
                const V gain = M[j] * inverse;
                x[j] += gain * v;
                if (keeps_all) K_t[i * n + j] = gain;
            }
            UNROLL for (Index k = 0; k < n; k++)
                UNROLL for (Index j = 0; j <= k; j++) P[tri(k, j)] -= (M[k] * M[j]) * inverse;
#undef ROW_TIMES
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
                if (!HAS(F_bits, F1, i * n + k)) continue;
                sum += TIMES(F[i * n + k], F1[i * n + k], x[k]);
            }
            next[i] = is_own ? sum + c[i] : sum + c1[i];
        }
        UNROLL for (Index j = 0; j < n; j++) x[j] = next[j];
        UNROLL for (Index i = 0; i < n; i++) {
            UNROLL for (Index j = 0; j < n; j++) A[i * n + j] = splat(0.0);
            UNROLL for (Index k = 0; k < n; k++) {
                if (!HAS(F_bits, F1, i * n + k)) continue;
                UNROLL for (Index j = 0; j < n; j++) A[i * n + j] += TIMES(F[i * n + k], F1[i * n + k], P[tri(k, j)]);
            }
        }
        UNROLL for (Index i = 0; i < n; i++) {
            UNROLL for (Index j = 0; j <= i; j++) P[tri(i, j)] = splat(0.0);
            UNROLL for (Index k = 0; k < n; k++) {
                if (!HAS(F_bits, F1, i * n + k)) continue;
                UNROLL for (Index j = 0; j <= i; j++) P[tri(i, j)] += TIMES(F[i * n + k], F1[i * n + k], A[j * n + k]);
            }
            UNROLL for (Index j = 0; j <= i; j++) P[tri(i, j)] = is_own ? P[tri(i, j)] + Q[tri(i, j)]
                                                                        : P[tri(i, j)] + Q1[i * n + j];
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

/* Add the moments of one row to the sums, and of its noise where that is uncorrelated; returns which lanes saw any of it. */
ALWAYS_INLINE Mask NAME(add_row)(const Index n, const int is_own, const FleetModel *model, long t, const Mask started,
                                 const V *y, const V *H, const V *R, const V *d, const V *x, const V *P, Sums *sums,
                                 V *work)
{
    const Index m = model->m;
    const double *H1 = model->H.at + t * model->H.step, *R1 = model->R.at + t * model->R.step;
    const double *d1 = model->d.at + t * model->d.step;
    V *e = work, *HP = e + m;
    Mask *here = (Mask *)(HP + m * n), seen = {0};
    for (Index i = 0; i < m; i++) {
        here[i] = (y[i] == y[i]) & started;
        seen |= here[i];
    }
    *sums->count += only(seen, splat(1.0));
    UNROLL for (Index i = 0; i < n; i++)
        UNROLL for (Index j = 0; j <= i; j++) sums->states[tri(i, j)] += only(seen, P[tri(i, j)] + x[i] * x[j]);
    if (!model->is_diagonal) return seen;
    for (Index i = 0; i < m; i++) {
        const V *h_i = H + i * n;
        const double *h1 = H1 + i * n;
        V rest = is_own ? y[i] - d[i] : y[i] - d1[i];
        UNROLL for (Index k = 0; k < n; k++) rest -= TIMES(h_i[k], h1[k], x[k]);
        e[i] = only(here[i], rest);
        UNROLL for (Index j = 0; j < n; j++) {
            V sum = TIMES(h_i[0], h1[0], P[tri(0, j)]);
            UNROLL for (Index k = 1; k < n; k++) sum += TIMES(h_i[k], h1[k], P[tri(k, j)]);
            HP[i * n + j] = only(here[i], sum);
            sums->cross[i * n + j] += e[i] * x[j] - HP[i * n + j];
        }
        for (Index j = 0; j <= i; j++) {
            V sum = e[i] * e[j];
            UNROLL for (Index k = 0; k < n; k++) sum += TIMES(H[j * n + k], H1[j * n + k], HP[i * n + k]);
            sums->noise[tri(i, j)] += only(here[j], sum);
        }
        sums->noise[tri(i, i)] += TIMES(R[i * m + i], R1[i * m + i], only(seen & ~here[i], splat(1.0)));
    }
    return seen;
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
    V *F = work, *means = F + nn, *covs = means + TILE * n, *H = covs + TILE * TRI(n), *R = H + m * n, *d = R + m * m;
    V *ys = d + m, *more = ys + TILE * m;
    Sums sums;
    double *scratch = (double *)lay_sums(n, m, more + ROW_V(n, m), &sums);
    unsigned long long F_bits = 0;
    const int wants_sums = out->statistics != NULL;
    Mask starts, lost = {0};

    for (int l = 0; l < LANES; l++) starts[l] = start[rows[l]];
    for (Index k = 0; k < SUMS_V(n, m); k++) sums.scores[k] = splat(0.0);
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
            if (in_tile == TILE - 1 || t == n_steps - 1) read_rows(y, m, t - in_tile, t + 1, n_steps, rows, ys);
            if (is_own && (t == n_steps - 1 || model->H.step)) load_part(model->H, m * n, t, rows, H);
            if (is_own && (t == n_steps - 1 || model->R.step)) load_part(model->R, m * m, t, rows, R);
            if (is_own && (t == n_steps - 1 || model->d.step)) load_part(model->d, m, t, rows, d);
            const Mask seen = NAME(add_row)(n, is_own, model, t, starts <= t, ys + in_tile * m, H, R, d, mean, cov, &sums,
                                            more);
            if (!model->is_diagonal) add_correlated(n, model, t, y, rows, &seen, mean, cov, &sums, scratch);
            const Mask first = starts == t;
            UNROLL for (Index j = 0; j < n; j++) sums.mean[j] = pick(first, mean[j], sums.mean[j]);
            UNROLL for (Index j = 0; j < TRI(n); j++) sums.cov[j] = pick(first, cov[j], sums.cov[j]);
        }
        const double *H1 = model->H.at + t * model->H.step;
        for (Index i = m - 1; i >= 0; i--) {
            const V *k_i = K + i * n, *h_i = h + i * n;
            const double *h1 = H1 + i * n;
            const Mask serves = inverse[i] != 0.0;
            V Kr = splat(0.0), kNk = splat(0.0);
            UNROLL for (Index j = 0; j < n; j++) Kr += k_i[j] * r[j];
            const V step = only(serves, v[i] * inverse[i] - Kr);
            UNROLL for (Index j = 0; j < n; j++) r[j] += TIMES(h_i[j], h1[j], step);
            UNROLL for (Index j = 0; j < n; j++) {
                V sum = N[tri(j, 0)] * k_i[0];
                UNROLL for (Index k = 1; k < n; k++) sum += N[tri(j, k)] * k_i[k];
                Nk[j] = sum;
            }
            UNROLL for (Index j = 0; j < n; j++) kNk += k_i[j] * Nk[j];
            kNk = 0.5 * (kNk + inverse[i]);
            UNROLL for (Index j = 0; j < n; j++) Nk[j] = only(serves, Nk[j] - TIMES(h_i[j], h1[j], kNk));
            UNROLL for (Index k = 0; k < n; k++)
                UNROLL for (Index j = 0; j <= k; j++)
                    N[tri(k, j)] -= TIMES(h_i[k], h1[k], Nk[j]) + TIMES(h_i[j], h1[j], Nk[k]);
        }
        if (wants_sums && t > 0) {
            const Mask counts = starts < t;
            UNROLL for (Index i = 0; i < n; i++)
                UNROLL for (Index j = 0; j <= i; j++)
                    sums.scores[tri(i, j)] += only(counts, r[i] * r[j] - N[tri(i, j)]);
        }
        if (t == 0) break;
        const double *F1 = model->F.at + (t - 1) * model->F.step;
        if (is_own && model->F.step) load_part(model->F, nn, t - 1, rows, F);
        if (N_STATES && !is_own && (t == n_steps - 1 || model->F.step)) F_bits = non_zeros(nn, F1);
        UNROLL for (Index i = 0; i < n; i++) {
            V sum = splat(0.0);
            UNROLL for (Index k = 0; k < n; k++) {
                if (!HAS(F_bits, F1, k * n + i)) continue;
                sum += TIMES(F[k * n + i], F1[k * n + i], r[k]);
            }
            Nk[i] = sum;
        }
        UNROLL for (Index j = 0; j < n; j++) r[j] = Nk[j];
        UNROLL for (Index i = 0; i < n; i++) {
            UNROLL for (Index j = 0; j < n; j++) A[i * n + j] = splat(0.0);
            UNROLL for (Index k = 0; k < n; k++) {
                if (!HAS(F_bits, F1, k * n + i)) continue;
                UNROLL for (Index j = 0; j < n; j++) A[i * n + j] += TIMES(F[k * n + i], F1[k * n + i], N[tri(k, j)]);
            }
        }
        UNROLL for (Index i = 0; i < n; i++) {
            UNROLL for (Index j = 0; j <= i; j++) N[tri(i, j)] = splat(0.0);
            UNROLL for (Index k = 0; k < n; k++) {
                if (!HAS(F_bits, F1, k * n + i)) continue;
                UNROLL for (Index j = 0; j <= i; j++) N[tri(i, j)] += TIMES(F[k * n + i], F1[k * n + i], A[j * n + k]);
            }
        }
    }
    for (int l = 0; l < n_own; l++) {
        out->lost[rows[l]] = lost[l] != 0;
        if (wants_sums) write_sums(n, m, &sums, l, out->statistics + rows[l] * STATISTICS(n, m));
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
                out->rows[k * n + j] = model->H.at[t * model->H.step + i * n + j];
            }
        }
}

#define FORWARD_V(n, m) (6 * (n) + 2 * (n) * (n) + 3 * TRI(n) + (m) * (3 + (TILE) + 2 * (n) + 2 * (m)))
#define BACKWARD_V(n, m) \
    (3 * (n) + 2 * (n) * (n) + 2 * TRI(n) + (TILE) * ((n) + TRI(n)) + (m) * (1 + (TILE) + (n) + (m)) + ROW_V(n, m) \
     + SUMS_V(n, m) + CORRELATED_DOUBLES(n, m) / LANES + 1)
#define BLOCK_V(n, m) (FORWARD_V(n, m) + BACKWARD_V(n, m) + 16)

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
#undef HAS
#undef TIMES
#undef NAME
#undef N_STATES
