/* What is handed to the loops of the univariate Kalman kernels: a model, room for moments, room for derivatives.
 *
 * Letters as in `kalman_core.h`. All memory comes from the caller.
 */
#ifndef PXTOOLS_KALMAN_TYPES_H
#define PXTOOLS_KALMAN_TYPES_H

#include "kalman_sparse.h"

/* A model: each part constant (step 0) or one block of memory after another (step = its size). */
typedef struct {
    Index n, m;
    long n_steps;
    const double *F, *H, *Q, *R, *c, *d;
    long F_step, H_step, Q_step, R_step, c_step, d_step;
    int is_constant; /* all parts: the covariances can converge */
    int is_diagonal; /* all of R */
    int is_sparse;   /* F is constant and mostly zero: by_rows and by_columns hold it */
    SparseRows by_rows, by_columns;
} Model;

typedef struct {
    /* room for every step; predicted_mean is NULL when the log-likelihood alone is wanted, then the rest is unused */
    double *predicted_mean, *predicted_cov, *filtered_mean, *filtered_cov;
    double *log_lik;
    /* of the elements of rows, made uncorrelated, after the diffuse steps: gains (n_steps, m, n) and inverse variances
     * (n_steps, m), zero for an element that adds nothing, and innovations (n_steps, m); NULL when they are not wanted */
    double *gains, *inverses, *innovations;
    int has_cov; /* whether covariances are wanted after the diffuse steps, too */
    long n_kept; /* covariances and gains written: those of later steps equal the last ones */
    double *diffuse_cov;         /* (n_steps, n, n), written for the diffuse steps; NULL when nothing is diffuse */
    double *diffuse_filtered_cov; /* likewise */
    unsigned char *diffuse_obs;  /* (n_steps, m), zeros on entry */
    double *last_diffuse_cov;    /* (n, n) */
    long n_diffuse_steps;
    long n_cancelled;
} FilterOut;

typedef struct {
    const double *predicted_mean, *predicted_cov, *filtered_mean, *filtered_cov, *diffuse_cov;
    const unsigned char *diffuse_obs;
    const double *gains, *inverses, *innovations; /* NULL if they are to be found from the moments */
    int has_cov;
    long n_diffuse_steps, n_kept;
    double *mean, *cov, *r, *N; /* r and N: NULL when they are not wanted */
} SmootherOut;

/* Where derivatives are added up: NULL if not wanted; by step, or (step 0) over all steps. */
typedef struct {
    double *F, *H, *Q, *R, *c, *d;
    long F_step, H_step, Q_step, R_step, c_step, d_step;
    const long *entries, *Q_entries; /* which elements of F, and of Q, are wanted; NULL for all of Q */
    long n_entries, n_Q_entries;
    long n_left_out; /* first steps that F and H leave out */
    double *r, *N;   /* of the first step, and of the first one that is not left out */
} Score;

#endif
