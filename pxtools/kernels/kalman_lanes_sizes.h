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

/* A 64-bit hash of where each series has NaN, and whether it has an infinite value or no value at all. */
CLONES static void describe(const double *y, long n_series, long size, unsigned long long *hash, unsigned char *is_bad,
                            unsigned char *is_empty)
{
    for (long s = 0; s < n_series; s++) {
        unsigned long long sum = 14695981039346656037ULL, word = 0;
        int infinite = 0, found = 0;
        for (long k = 0; k < size; k++) {
            const double value = y[s * size + k];
            const int missing = value != value;
            infinite |= !missing && (value - value != 0.0);
            found |= !missing;
            word = word << 1 | missing;
            if ((k & 63) == 63 || k == size - 1) {
                sum = (sum ^ word) * 1099511628211ULL;
                sum ^= sum >> 29;
                word = 0;
            }
        }
        hash[s] = sum;
        is_bad[s] = infinite != 0;
        is_empty[s] = !found;
    }
}
