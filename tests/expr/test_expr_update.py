"""The post's pair: the plan it becomes, and how accurate that plan is."""

from __future__ import annotations

import numpy as np
import pytest
from expr_reference import PAIR, SAID, relative_error, update_inputs, update_long

from pxtools.expr import compile
from pxtools.kernels import blasplan

EPS = np.finfo(float).eps


@pytest.mark.parametrize(("n", "k"), [(1000, 500), (2000, 1000), (4000, 2000), (600, 300)])
def test_the_pair_becomes_five_matrix_calls_within_one_percent_of_the_least_flops(n, k):
    plan = compile(PAIR, assumptions=SAID).plan_for({"n": n, "k": k})
    arithmetic = [op for op in plan.ops if op not in ("copy", "mirror")]
    assert arithmetic == ["symm", "gemmt", "potrf", "trsm", "syrk", "gemv", "trsv", "gemv"]
    assert plan.flops <= 1.01 * (3 * k * n**2 + 2 * k**2 * n + k**3 / 3)


@pytest.mark.parametrize("blocks", ["auto", 2, 3, {"n": (170, 101, 29), "k": (20, 130)}])
@pytest.mark.parametrize(("kind", "bound"), [("post_definite", 1e-9), ("ill", 1e-10), ("well", 1e-14)])
def test_the_update_is_accurate_on_every_class_of_inputs_in_blocks_too(kind, bound, blocks):
    inputs = update_inputs(kind, 300, 150)
    mean, cov = update_long(**inputs)
    formula = compile(PAIR, assumptions=SAID, blocks=blocks, form="cholesky")
    result = formula(**inputs)
    assert relative_error(result.new_Sigma, cov) <= bound
    assert relative_error(result.new_mu, mean) <= 10 * bound
    assert np.array_equal(result.new_Sigma, result.new_Sigma.T)
    whole = compile(PAIR, assumptions=SAID, form="cholesky")(**inputs)
    S = inputs["H"] @ inputs["Sigma"] @ inputs["H"].T + inputs["R"]
    limit = 1e-13 if kind == "well" else 4 * np.linalg.cond(S) * EPS
    assert relative_error(result.new_Sigma, whole.new_Sigma) <= limit


def test_the_posterior_is_positive_definite_and_below_the_prior():
    inputs = update_inputs("post_definite", 120, 60)
    cov = compile(PAIR, assumptions=SAID)(**inputs).new_Sigma
    scale = np.linalg.norm(inputs["Sigma"], 2)
    assert np.linalg.eigvalsh(cov).min() > -1e-12 * scale
    assert np.linalg.eigvalsh(inputs["Sigma"] - cov).min() > -1e-12 * scale


@pytest.mark.parametrize("form", ["cholesky", "information", "sequential", "sqrt"])
@pytest.mark.parametrize(("n", "k"), [(40, 20), (20, 45), (30, 200), (1, 1), (1, 5), (5, 1)])
def test_all_forms_give_the_same_update(form, n, k):
    inputs = update_inputs("well", n, k, seed=n)
    said = SAID
    if form == "sequential":
        inputs["R"] = np.random.default_rng(1).uniform(0.5, 2.0, k)
        said += "; R: diagonal"
    formula = compile(PAIR, assumptions=said, form=form)
    result = formula(**inputs)
    R = np.diag(inputs["R"]) if form == "sequential" else inputs["R"]
    mean, cov = update_long(**{**inputs, "R": R})
    assert formula.plan.form == form
    assert relative_error(result.new_Sigma, cov) < 1e-12
    assert relative_error(result.new_mu, mean) < 1e-12
    assert np.array_equal(result.new_Sigma, result.new_Sigma.T)


def test_the_form_with_fewest_flops_is_taken():
    dense, diagonal = (compile(PAIR, assumptions=SAID + extra) for extra in ("", "; R: diagonal"))
    assert dense.plan_for("n=1000,k=500").form == "cholesky"
    assert dense.plan_for("n=500,k=1000").form == "information"
    assert diagonal.plan_for("n=1000,k=500").form == "sequential"
    assert diagonal.plan_for("n=100,k=5000").form == "information"
    n, k = 1000, 500
    assert diagonal.plan_for("n=1000,k=500").flops <= 1.1 * 3 * k * n**2
    for plan in (dense.plan_for("n=500,k=1000"), diagonal.plan_for("n=1000,k=500")):
        assert plan.flops <= min(flops for _, flops in plan.considered) * 1.1


def test_block_diagonal_noise_is_processed_block_by_block():
    cell = PAIR.replace("R)", "block_diag(R1, R2, R3))")
    said = "mu, data: vector; Sigma, R1, R2, R3: positive_definite; R1: 3 x 3; R2: 4 x 4; R3: 2 x 2"
    inputs = update_inputs("well", 30, 9)
    parts = {"R1": inputs["R"][:3, :3], "R2": inputs["R"][3:7, 3:7], "R3": inputs["R"][7:, 7:]}
    R = np.zeros((9, 9))
    R[:3, :3], R[3:7, 3:7], R[7:, 7:] = parts.values()
    mean, cov = update_long(**{**inputs, "R": R})
    formula = compile(cell, assumptions=said, form="sequential")
    result = formula(**{name: inputs[name] for name in ("mu", "Sigma", "H", "data")}, **parts)
    assert relative_error(result.new_Sigma, cov) < 1e-13
    assert relative_error(result.new_mu, mean) < 1e-13
    assert formula.plan.ops.count("potrf") == 3


@pytest.mark.parametrize("d", [1e-6, 1e-8])
def test_the_square_root_form_is_accurate_on_ill_conditioned_measurements(d):
    mpmath = pytest.importorskip("mpmath")
    mpmath.mp.dps = 60
    H, P, R = mpmath.matrix([[1, 1, 1], [1, 1, 1 + mpmath.mpf(d)]]), mpmath.eye(3), mpmath.eye(2) * mpmath.mpf(d) ** 2
    exact = P - P * H.T * (H * P * H.T + R) ** -1 * H * P
    exact = np.array(exact.tolist(), dtype=float)
    inputs = {
        "mu": np.zeros(3),
        "Sigma": np.eye(3),
        "H": np.array([[1, 1, 1], [1, 1, 1 + d]]),
        "R": np.eye(2) * d**2,
        "data": np.ones(2),
    }
    cov = compile(PAIR, assumptions=SAID, form="sqrt")(**inputs).new_Sigma
    assert np.abs(cov - exact).max() <= 1e-8
    assert np.linalg.eigvalsh(cov).min() >= -1e-15


def test_float32_stays_float32_and_is_symmetric():
    inputs = {name: np.asarray(x, dtype=np.float32) for name, x in update_inputs("well", 200, 100).items()}
    result = compile(PAIR, assumptions=SAID)(**inputs)
    _, cov = update_long(**inputs)
    assert result.new_Sigma.dtype == np.float32
    assert relative_error(result.new_Sigma, cov) <= 2e-6
    assert np.array_equal(result.new_Sigma, result.new_Sigma.T)


def test_dtype_can_be_asked_for():
    inputs = update_inputs("well", 20, 10)
    assert compile(PAIR, assumptions=SAID, dtype="float32")(**inputs).new_Sigma.dtype == np.float32


@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_order_and_slices_do_not_matter_and_inputs_are_left_alone(order):
    inputs = update_inputs("well", 24, 12)
    wanted = compile(PAIR, assumptions=SAID)(**inputs)
    laid = {name: np.asarray(x, order=order) if x.ndim == 2 else x for name, x in inputs.items()}
    wide = np.zeros((24, 48))
    wide[:12, ::2] = inputs["H"]
    laid["H"] = wide[:12, ::2]
    before = {name: x.copy() for name, x in laid.items()}
    for x in laid.values():
        x.flags.writeable = False
    result = compile(PAIR, assumptions=SAID)(**laid)
    np.testing.assert_allclose(result.new_Sigma, wanted.new_Sigma, atol=1e-14)
    assert all(np.array_equal(laid[name], before[name]) for name in laid)


def test_vectors_come_back_with_the_dimensions_they_came_with():
    inputs = update_inputs("well", 6, 3)
    formula = compile(PAIR, assumptions="Sigma, R: positive_definite")
    assert formula(**inputs).new_mu.shape == (6,)
    columns = {**inputs, "mu": inputs["mu"][:, None], "data": inputs["data"][:, None]}
    assert formula(**columns).new_mu.shape == (6, 1)
    many = {**inputs, "mu": np.tile(inputs["mu"][:, None], 4), "data": np.tile(inputs["data"][:, None], 4)}
    np.testing.assert_allclose(formula(**many).new_mu[:, 2], formula(**inputs).new_mu, atol=1e-14)


def test_the_twin_runs_the_same_plan(monkeypatch):
    inputs = update_inputs("well", 40, 70)
    said = SAID + "; R: diagonal"
    inputs["R"] = np.diag(np.diag(inputs["R"]))
    for form in ("cholesky", "information", "sequential", "sqrt"):
        formula = compile(PAIR, assumptions=said, form=form)
        compiled = formula(**inputs)
        with monkeypatch.context() as patch:
            patch.setattr(blasplan, "run_plan", blasplan.run_plan_numpy)
            twin = formula(**inputs)
        np.testing.assert_allclose(twin.new_Sigma, compiled.new_Sigma, atol=1e-13)
        np.testing.assert_allclose(twin.new_mu, compiled.new_mu, atol=1e-13)
