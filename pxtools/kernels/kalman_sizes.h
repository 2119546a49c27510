/* The loops for 1 to 6 states, unrolled by the compiler, and for any number; chosen at run time. */
#include "kalman_core.h"

#define GLUE(a, b) a##_##b
#define N_STATES 1
#define NAME(x) GLUE(x, 1)
#include "kalman_loops.h"
#define N_STATES 2
#define NAME(x) GLUE(x, 2)
#include "kalman_loops.h"
#define N_STATES 3
#define NAME(x) GLUE(x, 3)
#include "kalman_loops.h"
#define N_STATES 4
#define NAME(x) GLUE(x, 4)
#include "kalman_loops.h"
#define N_STATES 5
#define NAME(x) GLUE(x, 5)
#include "kalman_loops.h"
#define N_STATES 6
#define NAME(x) GLUE(x, 6)
#include "kalman_loops.h"
#define N_STATES 0
#define NAME(x) GLUE(x, any)
#include "kalman_loops.h"
#include "kalman_score.h"

#define BY_SIZE(function, ...)                             \
    switch (model->n) {                                    \
    case 1: function##_1(__VA_ARGS__); break;              \
    case 2: function##_2(__VA_ARGS__); break;              \
    case 3: function##_3(__VA_ARGS__); break;              \
    case 4: function##_4(__VA_ARGS__); break;              \
    case 5: function##_5(__VA_ARGS__); break;              \
    case 6: function##_6(__VA_ARGS__); break;              \
    default: function##_any(__VA_ARGS__);                  \
    }

static void filter_series(const Model *model, const double *y, const double *x0, const double *P0,
                          const double *Pinf0, int left, int may_settle, FilterOut *out, double *work)
{
    BY_SIZE(filter, model, y, x0, P0, Pinf0, left, may_settle, out, work)
}

static void smoother_series(const Model *model, const double *y, const SmootherOut *out, double *work)
{
    BY_SIZE(smoother, model, y, out, work)
}

static long filter_doubles(Index n, Index m) { return FILTER_DOUBLES(n, m); }
static long smoother_doubles(Index n, Index m) { return SMOOTHER_DOUBLES(n, m); }
