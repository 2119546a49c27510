"""NumPy twins of the compiled kernels that take in a row at once: by Cholesky factor, by precisions.

Same names and signatures as in `_kalman_blas` and `_kalman_roots`. References: Durbin & Koopman (2012), equation 4.24;
Anderson & Moore (1979), Optimal Filtering, section 6.3.
"""

from __future__ import annotations

import numpy as np

from pxtools.kernels.kalman_numpy import LOG_2PI, new_moments
from pxtools.kernels.kalman_results import Array, Filtered, without_diffuse


def _at(part: Array, t: int) -> Array:
    now: Array = part[t if len(part) > 1 else 0]
    return now


def cholesky_filter(
    y: Array,
    F: Array,
    H: Array,
    Q: Array,
    R: Array,
    c: Array,
    d: Array,
    x: Array,
    P: Array,
    Pinf: Array,
    steady: bool = True,
) -> Filtered:
    """Filter every series, a row at once: Durbin & Koopman (2012), equation 4.24.

    Parameters as for `univariate_filter`; Pinf must be zero. Raises `numpy.linalg.LinAlgError`, with the step in its
    message, where the covariance of an innovation is not positive definite.
    """
    n_series, n_steps, m = y.shape
    n = F.shape[1]
    if Pinf.any():
        raise ValueError("the Cholesky kernel has no exact diffuse phase")
    out = new_moments(n_series, n_steps, n)
    for s in range(n_series):
        mean, cov = x[s].copy(), P[s].copy()
        for t in range(n_steps):
            out.predicted_mean[s, t], out.predicted_cov[s, t] = mean, cov
            here = ~np.isnan(y[s, t])
            if here.any():
                Ht, Rt = _at(H, t)[here], _at(R, t)[np.ix_(here, here)]
                W = Ht @ cov
                L = _cholesky_at(W @ Ht.T + Rt, t)
                V = np.linalg.solve(L, np.column_stack([W, y[s, t, here] - _at(d, t)[here] - Ht @ mean]))
                V, v = V[:, :-1], V[:, -1]
                mean, cov = mean + V.T @ v, cov - V.T @ V
                out.log_likelihood[s, t] = -0.5 * (len(v) * LOG_2PI + 2 * np.log(np.diagonal(L)).sum() + v @ v)
            cov = (cov + cov.T) / 2
            out.filtered_mean[s, t], out.filtered_cov[s, t] = mean, cov
            mean = _at(F, t) @ mean + _at(c, t)
            cov = _symmetric(_at(F, t) @ cov @ _at(F, t).T) + _at(Q, t)
        out.predicted_mean[s, n_steps], out.predicted_cov[s, n_steps] = mean, cov
    return without_diffuse(*out, m)


def _cholesky_at(S: Array, t: int) -> Array:
    try:
        return np.asarray(np.linalg.cholesky(S), dtype=np.float64)
    except np.linalg.LinAlgError:
        raise np.linalg.LinAlgError(f"the innovation covariance at step {t} is not positive definite") from None


def _symmetric(P: Array) -> Array:
    return (P + P.T) / 2


def information_filter(
    y: Array,
    F: Array,
    H: Array,
    Q: Array,
    R: Array,
    c: Array,
    d: Array,
    x: Array,
    P: Array,
) -> Filtered:
    """Filter every series, adding the `H' R^-1 H` of a row to the precision of the state.

    Parameters as for `univariate_filter`. Raises `numpy.linalg.LinAlgError`, with the matrix and the step in its
    message, where the noise of a row or a predicted covariance is not positive definite.
    """
    n_series, n_steps, m = y.shape
    out = new_moments(n_series, n_steps, F.shape[1])
    for s in range(n_series):
        mean, cov = x[s], P[s]
        for t in range(n_steps):
            out.predicted_mean[s, t], out.predicted_cov[s, t] = mean, cov
            here = ~np.isnan(y[s, t])
            if here.any():
                rows = (y[s, t, here] - _at(d, t)[here], _at(H, t)[here], _at(R, t)[np.ix_(here, here)])
                mean, cov, out.log_likelihood[s, t] = _by_precision(mean, cov, *rows, t)
            out.filtered_mean[s, t], out.filtered_cov[s, t] = mean, cov
            mean, cov = _at(F, t) @ mean + _at(c, t), _symmetric(_at(F, t) @ cov @ _at(F, t).T) + _at(Q, t)
        out.predicted_mean[s, n_steps], out.predicted_cov[s, n_steps] = mean, cov
    return without_diffuse(*out, m)


def _by_precision(x: Array, P: Array, y: Array, H: Array, R: Array, t: int) -> tuple[Array, Array, float]:
    root = _root(R, "observation_cov", t)
    whitened = np.linalg.solve(root, np.column_stack([H, y - H @ x]))
    A, v = whitened[:, :-1], whitened[:, -1]
    prior_root = _root(P, "the predicted covariance", t)
    half = np.linalg.solve(prior_root, np.eye(len(x)))
    post_root = np.linalg.cholesky(half.T @ half + A.T @ A)
    inverse = np.linalg.solve(post_root, np.eye(len(x)))
    P = inverse.T @ inverse
    information = A.T @ v
    log_det = 2 * sum(float(np.log(np.diagonal(part)).sum()) for part in (root, prior_root, post_root))
    log_lik = -0.5 * (len(y) * LOG_2PI + log_det + v @ v - information @ P @ information)
    return x + P @ information, P, float(log_lik)


def _root(cov: Array, name: str, t: int) -> Array:
    try:
        return np.asarray(np.linalg.cholesky(cov), dtype=np.float64)
    except np.linalg.LinAlgError:
        raise np.linalg.LinAlgError(f"{name} is singular at step {t}") from None
