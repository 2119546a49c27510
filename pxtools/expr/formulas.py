"""Formulas ready to use, each compiled once for each form and planned once for each set of shapes.

In the comments and cells: mu, Sigma state mean and covariance; H observation matrix; R its noise; K gain.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from pxtools.expr.api import compile
from pxtools.expr.compiled import CompiledFormula

Array = np.ndarray[Any, Any]

#: data - H*mu: the post of 2013 has it the other way round and so moves the mean away from the data
KALMAN_UPDATE = """
new_mu    = mu + Sigma*H.T*(H*Sigma*H.T + R).I*(data - H*mu)
new_Sigma = Sigma - Sigma*H.T*(H*Sigma*H.T + R).I*H*Sigma
"""
LOG_LIKELIHOOD = """
log_likelihood = -0.5*((data - H*mu).T*(H*Sigma*H.T + R).I*(data - H*mu) + logdet(H*Sigma*H.T + R) + constant)
"""
JOSEPH = """
_K        = Sigma*H.T*(H*Sigma*H.T + R).I
new_mu    = mu + _K*(data - H*mu)
new_Sigma = (Identity() - _K*H)*Sigma*(Identity() - _K*H).T + _K*R*_K.T
"""
CONDITIONING = """
mean = mean_a + cov_ab*cov_bb.I*(b - mean_b)
cov  = cov_aa - cov_ab*cov_bb.I*cov_ab.T
"""
LEAST_SQUARES = """
beta = (X.T*V.I*X).I*X.T*V.I*y
cov  = (X.T*V.I*X).I
"""
RIDGE = "beta = (X.T*X + penalty*Identity()).I*X.T*y"
ENSEMBLE = "analysis = X + A*A.T*H.T*(H*A*A.T*H.T + R).I*(Y - H*X)"


class KalmanUpdate(NamedTuple):
    """Filtered moments; `log_likelihood` (with its 2π) where it was asked for."""

    mean: Array
    cov: Array
    log_likelihood: float | None = None


@cache
def kalman_formula(form: str = "auto", is_diagonal: bool = False, with_likelihood: bool = False) -> CompiledFormula:
    """Return the compiled update; `form` as in `kalman_update`."""
    said = "mu, data: vector; Sigma, R: positive_definite" + ("; R: diagonal" if is_diagonal else "")
    cell = JOSEPH if form == "joseph" else KALMAN_UPDATE
    if with_likelihood:
        cell, said = cell + LOG_LIKELIHOOD, said + "; constant: scalar"
    how = "cholesky" if form == "joseph" else form
    return compile(cell, assumptions=said, name="kalman_update", form=how)


def kalman_update(
    mean: Any,
    cov: Any,
    observation: Any,
    *,
    observation_matrix: Any,
    observation_cov: Any,
    form: str = "auto",
    log_likelihood: bool = False,
) -> KalmanUpdate:
    """Condition a normal state on one linear observation.

    Parameters
    ----------
    mean : (n_states,)
    cov : (n_states, n_states), positive definite
    observation : (n_obs,)
    observation_matrix : (n_obs, n_states)
    observation_cov : (n_obs, n_obs), positive definite; (n_obs,) for a diagonal
    form
        "auto" (fewest flops), "cholesky", "joseph", "information", "sequential" (diagonal noise) or "sqrt" (accurate
        when measurements are ill-conditioned).
    log_likelihood
        Whether to return log N(observation; H mean, H cov H' + R) as well.

    Returns
    -------
    KalmanUpdate
        `cov` is symmetric to the last bit. Deterministic.

    Raises
    ------
    NotPositiveDefinite
        When a covariance is not positive definite.

    Examples
    --------
    >>> update = kalman_update([0.0], [[1.0]], [1.0], observation_matrix=[[1.0]], observation_cov=[1.0])
    >>> round(float(update.mean[0]), 12), round(float(update.cov[0, 0]), 12)
    (0.5, 0.5)

    References
    ----------
    Kalman (1960), A new approach to linear filtering and prediction problems, eq. (21)–(23) (there for the predictor).
    Bucy, Joseph (1968), Filtering for Stochastic Processes, for "joseph".
    """
    is_diagonal = np.ndim(observation_cov) == 1
    formula = kalman_formula(form, is_diagonal, log_likelihood)
    inputs = {"mu": mean, "Sigma": cov, "H": observation_matrix, "R": observation_cov, "data": observation}
    if log_likelihood:
        inputs["constant"] = len(observation) * math.log(2 * math.pi)
    result = formula(**inputs)
    return KalmanUpdate(result.new_mu, result.new_Sigma, getattr(result, "log_likelihood", None))


@cache
def _compiled(cell: str, said: str, name: str) -> CompiledFormula:
    return compile(cell, assumptions=said, name=name)


def condition_gaussian(mean_a: Any, mean_b: Any, b: Any, *, cov_aa: Any, cov_ab: Any, cov_bb: Any) -> Any:
    """Return mean and covariance of a given b, for jointly normal (a, b).

    Parameters
    ----------
    mean_a : (n,)
    mean_b, b : (m,)
    cov_aa : (n, n)
    cov_ab : (n, m)
    cov_bb : (m, m), positive definite

    Returns
    -------
    named tuple (mean, cov), of shapes (n,) and (n, n)

    Raises
    ------
    NotPositiveDefinite
        When `cov_bb` is not positive definite.

    Examples
    --------
    >>> given = condition_gaussian([0.0], [0.0], [2.0], cov_aa=[[1.0]], cov_ab=[[0.5]], cov_bb=[[1.0]])
    >>> float(given.mean[0]), float(given.cov[0, 0])
    (1.0, 0.75)

    References
    ----------
    Anderson (2003), An Introduction to Multivariate Statistical Analysis, theorem 2.5.1.
    """
    said = "mean_a, mean_b, b: vector; cov_bb: positive_definite; cov_aa: symmetric"
    formula = _compiled(CONDITIONING, said, "condition_gaussian")
    return formula(mean_a=mean_a, mean_b=mean_b, b=b, cov_aa=cov_aa, cov_ab=cov_ab, cov_bb=cov_bb)


def generalized_least_squares(X: Any, y: Any, cov: Any) -> Any:
    """Fit y = X beta + noise with noise covariance `cov`.

    Parameters
    ----------
    X : (n, p), full column rank
    y : (n,)
    cov : (n, n) positive definite; (n,) for a diagonal

    Returns
    -------
    named tuple (beta, cov), of shapes (p,) and (p, p)

    Raises
    ------
    NotPositiveDefinite
        When `cov` is not positive definite, or the columns of `X` depend on each other.

    Examples
    --------
    >>> fit = generalized_least_squares([[1.0], [1.0]], [1.0, 3.0], [1.0, 1.0])
    >>> round(float(fit.beta[0]), 12)
    2.0

    References
    ----------
    Aitken (1936), On least squares and linear combination of observations, Proc. R. Soc. Edinburgh 55.
    """
    said = "X: n x p, full_column_rank; y: vector; V: positive_definite" + (
        "; V: diagonal" if np.ndim(cov) == 1 else ""
    )
    return _compiled(LEAST_SQUARES, said, "generalized_least_squares")(X=X, y=y, V=cov)


def ridge(X: Any, y: Any, penalty: float) -> Array:
    """Return the minimizer of `|y - X beta|² + penalty |beta|²`; by the smaller of the two Gram matrices.

    Parameters
    ----------
    X : (n, p)
    y : (n,)
    penalty
        Greater than zero.

    Returns
    -------
    beta : (p,)

    Raises
    ------
    NotPositiveDefinite
        When the penalty is too small for the rank of `X`.

    Examples
    --------
    >>> [round(float(b), 12) for b in ridge([[1.0, 0.0], [0.0, 1.0]], [2.0, 4.0], 1.0)]
    [1.0, 2.0]

    References
    ----------
    Hoerl, Kennard (1970), Ridge regression, Technometrics 12.
    """
    result: Array = _compiled(RIDGE, "y: vector; penalty: positive", "ridge")(X=X, y=y, penalty=penalty).beta
    return result


def ensemble_analysis(ensemble: Any, observations: Any, *, observation_matrix: Any, observation_cov: Any) -> Array:
    """Move an ensemble towards perturbed observations (ensemble Kalman filter, stochastic form).

    Parameters
    ----------
    ensemble : (n_states, n_members)
    observations : (n_obs, n_members), one perturbed copy for each member
    observation_matrix : (n_obs, n_states)
    observation_cov : (n_obs, n_obs), or (n_obs,) for a diagonal

    Returns
    -------
    analysis : (n_states, n_members)

    Raises
    ------
    NotPositiveDefinite
        When `observation_cov` is not positive definite.

    Examples
    --------
    >>> analysis = ensemble_analysis([[0.0, 2.0]], [[1.0, 1.0]], observation_matrix=[[1.0]], observation_cov=[2.0])
    >>> [round(float(x), 12) for x in analysis[0]]
    [0.5, 1.5]

    References
    ----------
    Evensen (2003), The ensemble Kalman filter, Ocean Dynamics 53, eq. (48)–(53).
    """
    X = np.asarray(ensemble, dtype=float)
    anomalies = (X - X.mean(axis=1, keepdims=True)) / math.sqrt(X.shape[1] - 1)
    said = "H: k x n; R: positive_definite" + ("; R: diagonal" if np.ndim(observation_cov) == 1 else "")
    formula = _compiled(ENSEMBLE, said, "ensemble_analysis")
    result: Array = formula(X=X, A=anomalies, H=observation_matrix, R=observation_cov, Y=observations).analysis
    return result


__all__ = [
    "KalmanUpdate",
    "condition_gaussian",
    "ensemble_analysis",
    "generalized_least_squares",
    "kalman_formula",
    "kalman_update",
    "ridge",
]
