"""A matrix that is not what was said of it is a clear error, never a silent number."""

from __future__ import annotations

import numpy as np
import pytest
from expr_reference import PAIR, relative_error, solve_long, update_inputs

from pxtools.expr import NotPositiveDefinite, compile

SAID = "mu, data: vector; Sigma, R: positive_definite"


def test_the_posts_own_inputs_are_refused_with_the_asymmetry():
    with pytest.raises(NotPositiveDefinite) as caught:
        compile(PAIR, assumptions=SAID)(**update_inputs("post", 50, 25))
    message = str(caught.value)
    assert message.startswith("`Sigma` is said to be symmetric, and it is not:\nentry (")
    assert "--no-assume" in message
    assert len(message.splitlines()) <= 4


@pytest.mark.parametrize("blocks", ["auto", 2, 3, {"n": (100, 41, 9), "k": (30, 45)}])
def test_the_posts_own_inputs_get_a_general_plan_without_assumptions(blocks):
    inputs = update_inputs("post", 150, 75)
    formula = compile(compile(PAIR, assumptions=SAID).problem, assumptions=False, blocks=blocks)
    result = formula(**inputs)
    S, H, R, mu, data = (np.asarray(inputs[n], dtype=np.longdouble) for n in ("Sigma", "H", "R", "mu", "data"))
    Z = H @ S @ H.T + R
    limit = 4 * np.linalg.cond(Z.astype(float)) * np.finfo(float).eps
    assert relative_error(result.new_Sigma, S - S @ H.T @ solve_long(Z, H @ S)) < limit
    assert relative_error(result.new_mu, mu + S @ H.T @ solve_long(Z, (data - H @ mu)[:, None])[:, 0]) < limit
    assert "getrf" in formula.plan.ops
    assert "potrf" not in formula.plan.ops


@pytest.mark.parametrize("blocks", ["auto", 3])
def test_a_matrix_that_is_not_definite_is_named_with_its_minor(blocks):
    inputs = update_inputs("well", 12, 9)
    inputs["R"] = np.diag([1.0] * 5 + [-50.0] + [1.0] * 3)
    with pytest.raises(NotPositiveDefinite) as caught:
        compile(PAIR, assumptions=SAID, blocks=blocks)(**inputs)
    assert "H*Sigma*H.T + R is not positive definite: its leading minor of order 6" in str(caught.value)
    assert "`R` is said to be, and is not either: its minor of order 6 fails" in str(caught.value)
    assert "Sigma` is said" not in str(caught.value)


@pytest.mark.parametrize("form", ["sequential", "information", "sqrt"])
def test_the_other_forms_refuse_it_too(form):
    inputs = update_inputs("well", 6, 3)
    inputs["R"] = np.array([1.0, -9.0, 1.0])
    with pytest.raises(
        NotPositiveDefinite, match="`R` is said to be positive definite, and its diagonal entry 1 is -9"
    ):
        compile(PAIR, assumptions=SAID + "; R: diagonal", form=form)(**inputs)


def test_a_matrix_that_is_not_diagonal_is_refused():
    inputs = update_inputs("well", 6, 3)
    with pytest.raises(NotPositiveDefinite, match="`R` is said to be diagonal, and 6 entries off its diagonal"):
        compile(PAIR, assumptions=SAID + "; R: diagonal")(**inputs)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(("word", "matrix"), [("lower", np.tri(4)), ("upper", np.tri(4).T)])
def test_a_matrix_that_is_not_triangular_is_refused(word, matrix, order):
    solve = compile("x = L.I*b", assumptions=f"L: {word}; b: vector")
    matrix = np.asarray(matrix, order=order)
    np.testing.assert_allclose(matrix @ solve(L=matrix, b=np.arange(4.0)).x, np.arange(4.0), atol=1e-12)
    with pytest.raises(NotPositiveDefinite, match="`L` is said to be triangular"):
        solve(L=matrix.T, b=np.arange(4.0))


def test_a_matrix_that_is_not_orthogonal_is_refused():
    formula = compile("x = Q.I*b", assumptions="Q: orthogonal; b: vector")
    q = np.linalg.qr(np.random.default_rng(0).standard_normal((5, 5)))[0]
    np.testing.assert_allclose(formula(Q=q, b=np.ones(5)).x, q.T @ np.ones(5), atol=1e-14)
    with pytest.raises(NotPositiveDefinite, match="`Q` is said to be orthogonal"):
        formula(Q=2 * q, b=np.ones(5))


def test_round_off_asymmetry_is_accepted_and_the_result_is_symmetric():
    inputs = update_inputs("well", 30, 10)
    inputs["Sigma"] = inputs["Sigma"] * (1 + 1e-15 * np.random.default_rng(0).standard_normal((30, 30)))
    cov = compile(PAIR, assumptions=SAID)(**inputs).new_Sigma
    assert np.array_equal(cov, cov.T)


def test_a_singular_matrix_is_an_error_that_can_be_caught_as_numpys():
    solve = compile("x = A.I*b", assumptions="b: vector")
    with pytest.raises(np.linalg.LinAlgError, match="A is singular: entry 2"):
        solve(A=np.ones((2, 2)), b=np.ones(2))


def test_nan_in_gives_nan_or_an_error_and_never_a_number():
    inputs = update_inputs("well", 8, 4)
    inputs["data"] = np.full(4, np.nan)
    result = compile(PAIR, assumptions=SAID)(**inputs)
    assert np.isnan(result.new_mu).all()
    assert np.isfinite(result.new_Sigma).all()
    inputs = update_inputs("well", 8, 4)
    inputs["R"][1, 1] = np.nan
    try:
        result = compile(PAIR, assumptions=SAID)(**inputs)
    except NotPositiveDefinite:
        return
    assert np.isnan(result.new_Sigma).any()


def test_the_workspace_survives_a_failure():
    formula = compile(PAIR, assumptions=SAID)
    good = update_inputs("well", 8, 4)
    with pytest.raises(NotPositiveDefinite):
        formula(**{**good, "R": -np.eye(4) * 100})
    fresh = compile(PAIR, assumptions=SAID)(**good)
    assert np.array_equal(formula(**good).new_Sigma, fresh.new_Sigma)
