/* The passes for 1, 2 and 4 states, unrolled by the compiler, and for any number; chosen at run time. Each unrolled
 * size costs seconds of every installation; other sizes have the generated tier. Models in lanes are not unrolled. */
#include "kalman_lanes.h"

#define GLUE(a, b) a##_##b
#define N_STATES 1
#define NAME(x) GLUE(x, 1)
#include "kalman_lanes_loops.h"
#define N_STATES 2
#define NAME(x) GLUE(x, 2)
#include "kalman_lanes_loops.h"
#define N_STATES 4
#define NAME(x) GLUE(x, 4)
#include "kalman_lanes_loops.h"
#define N_STATES 0
#define NAME(x) GLUE(x, any)
#include "kalman_lanes_loops.h"

#define BY_SIZE(size, function, ...)                       \
    switch (size) {                                    \
    case 1: function##_1(__VA_ARGS__); break;              \
    case 2: function##_2(__VA_ARGS__); break;              \
    case 4: function##_4(__VA_ARGS__); break;              \
    default: function##_any(__VA_ARGS__);                  \
    }

static void fleet(const FleetModel *model, const double *y, const long *start, const long *series, long n_series,
                  int is_own, int goes_back, FleetOut *out, double *trace, double *work)
{
    BY_SIZE(is_own ? 0 : model->n, fleet, model, y, start, series, n_series, is_own, goes_back, out, (V *)trace, (V *)work)
}

static void means(const FleetModel *model, const Shared *shared, const double *y, long start, const long *series,
                  long n_series, int goes_back, FleetOut *out, double *trace, double *work)
{
    BY_SIZE(model->n, means, model, shared, y, start, series, n_series, goes_back, out, (V *)trace, (V *)work)
}

static long trace_doubles(Index n, Index m, long length) { return LANES * TRACE_V(n, m, length); }
static long work_doubles(Index n, Index m) { return LANES * BLOCK_V(n, m); }
static long statistics_size(Index n, Index m) { return STATISTICS(n, m); }

/* How many values each series has, whether one is infinite, and a 64-bit hash of where it has none (0 if nowhere). */
CLONES static void describe(const double *y, long n_series, long size, int wants_hash, unsigned long long *hash,
                            long *n_values, unsigned char *is_bad)
{
    for (long s = 0; s < n_series; s++) {
        const double *row = y + s * size;
        long long missing = 0, not_finite = 0;
        for (long k = 0; k < size; k++) {
            missing += row[k] != row[k];
            not_finite += !(row[k] - row[k] == 0.0);
        }
        unsigned long long sum = 0, word = 0;
        for (long k = 0; wants_hash && missing && k < size; k++) {
            word = word << 1 | (row[k] != row[k]);
            if ((k & 63) == 63 || k == size - 1) {
                sum = (sum ^ word ^ 14695981039346656037ULL) * 1099511628211ULL;
                sum ^= sum >> 29;
                word = 0;
            }
        }
        hash[s] = sum;
        n_values[s] = size - missing;
        is_bad[s] = not_finite > missing;
    }
}
