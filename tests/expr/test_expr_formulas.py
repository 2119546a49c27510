"""The ready formulas against independent computations."""

from __future__ import annotations

import numpy as np
import pytest
from expr_reference import relative_error, update_inputs, update_long
from scipy.stats import multivariate_normal

from pxtools.expr.formulas import (
    condition_gaussian,
    ensemble_analysis,
    generalized_least_squares,
    kalman_formula,
    kalman_update,
    ridge,
)


@pytest.mark.parametrize("form", ["auto", "cholesky", "joseph", "information", "sequential", "sqrt"])
def test_the_kalman_update_moves_towards_the_data_in_every_form(form):
    x = update_inputs("well", 20, 8)
    x["R"] = np.diag(np.linspace(1, 2, 8))
    mean, cov = update_long(**x)
    noise = np.diag(x["R"]) if form in ("sequential", "auto") else x["R"]
    update = kalman_update(x["mu"], x["Sigma"], x["data"], observation_matrix=x["H"], observation_cov=noise, form=form)
    assert relative_error(update.mean, mean) < 1e-13
    assert relative_error(update.cov, cov) < 1e-13
    assert np.linalg.norm(x["data"] - x["H"] @ update.mean) < np.linalg.norm(x["data"] - x["H"] @ x["mu"])


def test_the_log_likelihood_is_the_normal_density():
    x = update_inputs("well", 7, 3)
    update = kalman_update(
        x["mu"], x["Sigma"], x["data"], observation_matrix=x["H"], observation_cov=x["R"], log_likelihood=True
    )
    S = x["H"] @ x["Sigma"] @ x["H"].T + x["R"]
    assert update.log_likelihood == pytest.approx(multivariate_normal(x["H"] @ x["mu"], S).logpdf(x["data"]), rel=1e-12)


def test_joseph_form_is_left_as_it_was_meant():
    formula = kalman_formula("joseph")
    ops = formula.plan_for("n=40,k=10").ops
    assert ops.count("gemmt") + ops.count("syrk") >= 2


def test_gaussian_conditioning_agrees_with_the_joint_density():
    rng = np.random.default_rng(0)
    root = rng.standard_normal((7, 7))
    cov, mean, b = root @ root.T, rng.standard_normal(7), rng.standard_normal(3)
    found = condition_gaussian(mean[:4], mean[4:], b, cov_aa=cov[:4, :4], cov_ab=cov[:4, 4:], cov_bb=cov[4:, 4:])
    joint, marginal = multivariate_normal(mean, cov), multivariate_normal(mean[4:], cov[4:, 4:])
    for a in rng.standard_normal((3, 4)):
        conditional = multivariate_normal(found.mean, found.cov).logpdf(a)
        assert conditional == pytest.approx(joint.logpdf([*a, *b]) - marginal.logpdf(b), rel=1e-9)


@pytest.mark.parametrize("is_diagonal", [False, True])
def test_generalized_least_squares_agrees_with_whitened_least_squares(is_diagonal):
    rng = np.random.default_rng(1)
    X, y, root = rng.standard_normal((30, 4)), rng.standard_normal(30), rng.standard_normal((30, 30))
    V = np.diag(rng.uniform(1, 2, 30)) if is_diagonal else root @ root.T + np.eye(30)
    white = np.linalg.inv(np.linalg.cholesky(V))
    fit = generalized_least_squares(X, y, np.diag(V) if is_diagonal else V)
    np.testing.assert_allclose(fit.beta, np.linalg.lstsq(white @ X, white @ y, rcond=None)[0], rtol=1e-9)
    np.testing.assert_allclose(fit.cov, np.linalg.inv(X.T @ np.linalg.inv(V) @ X), rtol=1e-9)


@pytest.mark.parametrize(("n", "p"), [(40, 6), (6, 40)])
def test_ridge_is_the_augmented_least_squares_solution(n, p):
    rng = np.random.default_rng(2)
    X, y = rng.standard_normal((n, p)), rng.standard_normal(n)
    augmented = np.vstack([X, np.sqrt(0.3) * np.eye(p)])
    wanted = np.linalg.lstsq(augmented, np.concatenate([y, np.zeros(p)]), rcond=None)[0]
    np.testing.assert_allclose(ridge(X, y, 0.3), wanted, rtol=1e-9, atol=1e-12)


def test_ridge_factors_the_smaller_gram_matrix():
    from pxtools.expr import compile
    from pxtools.expr.formulas import RIDGE

    formula = compile(RIDGE, assumptions="y: vector; penalty: positive; X: n x p")
    wide = formula.plan_for("n=50,p=2000")
    assert {step.n for step in wide.steps if step.op == "potrf"} == {50}


@pytest.mark.parametrize("is_diagonal", [False, True])
@pytest.mark.parametrize(("n", "k", "q"), [(12, 5, 30), (40, 25, 8)])
def test_ensemble_analysis_is_the_kalman_gain_of_the_sample_covariance(n, k, q, is_diagonal):
    rng = np.random.default_rng(3)
    X, H, Y = rng.standard_normal((n, q)), rng.standard_normal((k, n)), rng.standard_normal((k, q))
    R = np.diag(rng.uniform(1, 2, k))
    P = np.cov(X)
    wanted = X + P @ H.T @ np.linalg.solve(H @ P @ H.T + R, Y - H @ X)
    found = ensemble_analysis(X, Y, observation_matrix=H, observation_cov=np.diag(R) if is_diagonal else R)
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("n", "k"), [(30, 20), (20, 130), (3, 700), (7, 1)])
def test_observations_one_after_another_give_the_likelihood_without_a_large_factor(n, k):
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(k)
    root, H, R = rng.standard_normal((n, n)), rng.standard_normal((k, n)), rng.uniform(0.5, 2.0, k)
    mean, cov, y = rng.standard_normal(n), root @ root.T / n + np.eye(n), rng.standard_normal(k)
    update = kalman_update(
        mean, cov, y, observation_matrix=H, observation_cov=R, form="sequential", log_likelihood=True
    )
    truth = stats.multivariate_normal(H @ mean, H @ cov @ H.T + np.diag(R)).logpdf(y)
    assert update.log_likelihood == pytest.approx(truth, rel=1e-12)
    plan = kalman_formula("sequential", True, True).plan
    factors = [step for step in plan.steps if step.op == "potrf"]
    assert sum(step.n for step in factors) == k
    assert max(step.n for step in factors) <= max(32, n)
    assert plan.form == "sequential"


@pytest.mark.parametrize("d", [1e-6, 1e-8])
def test_the_square_root_form_gives_the_likelihood_of_ill_conditioned_measurements(d):
    mpmath = pytest.importorskip("mpmath")
    mpmath.mp.dps = 60
    H, R = mpmath.matrix([[1, 1, 1], [1, 1, 1 + mpmath.mpf(d)]]), mpmath.eye(2) * mpmath.mpf(d) ** 2
    S, y = H * H.T + R, mpmath.matrix([1, 1])
    truth = -(mpmath.log(mpmath.det(S)) + (y.T * S**-1 * y)[0] + 2 * mpmath.log(2 * mpmath.pi)) / 2
    update = kalman_update(
        np.zeros(3),
        np.eye(3),
        np.ones(2),
        observation_matrix=[[1, 1, 1], [1, 1, 1 + d]],
        observation_cov=np.eye(2) * d**2,
        form="sqrt",
        log_likelihood=True,
    )
    assert update.log_likelihood == pytest.approx(float(truth), rel=1e-7)
    assert kalman_formula("sqrt", False, True).plan.ops.count("potrf") == 2  # the factors of Sigma and R
