"""Cells and SymPy expressions become the same problems, and mistakes are pointed at."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp
from expr_reference import PAIR

from pxtools.errors import PxUsageError
from pxtools.expr import FormulaError, compile, parse_cell
from pxtools.expr.assume import read_assumptions


def test_the_posts_pair_is_read_with_textbook_sizes():
    problem = parse_cell(PAIR, assume="Sigma, R: positive_definite")
    assert list(problem.inputs) == ["mu", "Sigma", "H", "R", "data"]
    shapes = {name: problem.shape_text(name) for name in [*problem.inputs, *problem.outputs]}
    assert shapes == {
        "mu": "n×c",
        "Sigma": "n×n",
        "H": "k×n",
        "R": "k×k",
        "data": "k×c",
        "new_mu": "n×c",
        "new_Sigma": "n×n",
    }


@pytest.mark.parametrize(
    ("cell", "assume", "message", "under"),
    [
        ("x = A*B + A.T", "A: 3 x 4", "Cannot add 3×? and 4×3", "A*B + A.T"),
        ("x = A*A", "A: 3 x 4", "Cannot multiply 3×4 by 3×4", "A*A"),
        ("x = A.I", "A: 3 x 4", "An inverse needs a square matrix, and this is 3×4", "A.I"),
        (
            "x = 1 + tracee(A)",
            "",
            "`tracee` is not a function of the matrix language. Did you mean `trace`?",
            "tracee(A)",
        ),
        ("x = A.J", "", "A matrix has `.T` and `.I`, no `.J`", "A.J"),
        ("x = A if B else C", "", "This is not part of the matrix language", "A if B else C"),
        ("import os", "", "Only `name = formula` lines", "import os"),
        ("é = Ä*(Ä + v)", "v: vector; Ä: 2 x 2", "Cannot add 2×2 and", "Ä + v"),
        ("x = [[A, B], [C]]", "", "equally many blocks", "[[A, B], [C]]"),
        ("x = A[0]", "", "This is not part of the matrix language", "A[0]"),
    ],
)
def test_a_mistake_is_pointed_at_in_the_formula(cell, assume, message, under):
    with pytest.raises(FormulaError) as caught:
        parse_cell(cell, assume=assume)
    first, line, carets = str(caught.value).split("\n")
    assert message in first
    start = carets.index("^")
    assert line[start : start + carets.count("^")] == under


def test_a_broken_line_is_an_error_with_its_place():
    with pytest.raises(FormulaError, match="no formula"):
        parse_cell("x = A*(B")


def test_formulas_are_never_evaluated():
    with pytest.raises(FormulaError, match="not a function of the matrix language"):
        parse_cell("x = exec(A)")


def test_names_with_an_underscore_are_intermediate():
    formula = compile("_S = A*A.T\nx = _S*v", assumptions="v: vector")
    assert formula.outputs == ("x",)
    assert formula.inputs == ("A", "v")


def test_a_name_read_before_it_is_assigned_is_an_input_and_an_output():
    formula = compile("x = A*x", assumptions="x: vector")
    assert formula.inputs == ("A", "x")
    np.testing.assert_allclose(formula(A=2 * np.eye(2), x=[1.0, 2.0]).x, [2.0, 4.0])


@pytest.mark.parametrize(
    "text",
    ["Sigma, R: positive_definite; H: full_rank", "spd(Sigma, R); fullrank(H)", "Sigma,R: spd\nH: fullrank"],
)
def test_assumptions_have_several_spellings(text):
    found = read_assumptions(text)
    assert found.has("R", "pd")
    assert found.has("Sigma", "symmetric")
    assert found.has("H", "full_rank")


def test_an_unknown_assumption_names_the_nearest():
    with pytest.raises(PxUsageError, match="Did you mean `positive_definite`"):
        parse_cell("x = A*A", assume="A: positive_definit")


def test_an_assumption_about_no_matrix_names_the_nearest():
    with pytest.raises(PxUsageError, match="Did you mean `Sigma`"):
        parse_cell("x = Sigma*Sigma", assume="Sigm: spd")


def test_sizes_are_fixed_and_checked():
    problem = parse_cell(PAIR, assume="Sigma, R: spd", sizes="n=4,k=2")
    assert problem.shape_text("H") == "2×4"
    with pytest.raises(PxUsageError, match="There is no size `z`"):
        parse_cell(PAIR, sizes="z=3")
    formula = compile(problem)
    with pytest.raises(PxUsageError, match="columns must be 4"):
        formula(mu=np.ones(4), Sigma=np.eye(4), H=np.ones((2, 5)), R=np.eye(2), data=np.ones(2))


def test_inputs_whose_sizes_differ_are_named():
    formula = compile(PAIR, assumptions="Sigma, R: spd")
    with pytest.raises(PxUsageError) as caught:
        formula(mu=np.ones(3), Sigma=np.eye(4), H=np.ones((2, 4)), R=np.eye(2), data=np.ones(2))
    assert "`Sigma` came with shape 4×4" in str(caught.value)
    assert "n = 3 (from `mu`)" in str(caught.value)


def test_missing_unknown_and_complex_inputs_are_usage_errors():
    formula = compile("x = A*b", assumptions="b: vector")
    with pytest.raises(PxUsageError, match="needs `b` as well"):
        formula(A=np.eye(2))
    with pytest.raises(PxUsageError, match="no input `a`"):
        formula(a=np.eye(2), A=np.eye(2), b=[1, 2])
    with pytest.raises(PxUsageError, match="real numbers"):
        formula(A=1j * np.eye(2), b=[1, 2])


def _symbols():
    n, k = sp.symbols("n k", integer=True, positive=True)
    mu, Sigma = sp.MatrixSymbol("mu", n, 1), sp.MatrixSymbol("Sigma", n, n)
    H, R, data = sp.MatrixSymbol("H", k, n), sp.MatrixSymbol("R", k, k), sp.MatrixSymbol("data", k, 1)
    return mu, Sigma, H, R, data


def test_the_posts_sympy_code_compiles_as_it_stands():
    mu, Sigma, H, R, data = _symbols()
    new_mu = mu + Sigma * H.T * (R + H * Sigma * H.T).I * (H * mu - data)
    new_Sigma = Sigma - Sigma * H.T * (R + H * Sigma * H.T).I * H * Sigma
    assumptions = (
        sp.Q.positive_definite(Sigma),
        sp.Q.symmetric(Sigma),
        sp.Q.positive_definite(R),
        sp.Q.symmetric(R),
        sp.Q.fullrank(H),
    )
    update = compile([new_mu, new_Sigma], [mu, Sigma, H, R, data], assumptions)
    rng = np.random.default_rng(0)
    root, h = rng.standard_normal((6, 6)), rng.standard_normal((3, 6))
    values = rng.standard_normal((6, 1)), root @ root.T, h, np.eye(3), rng.standard_normal((3, 1))
    m, S, h, r, y = values
    gain = S @ h.T @ np.linalg.inv(h @ S @ h.T + r)
    result = update(*values)
    # what is written is what is compiled: the post's sign, H*mu - data
    np.testing.assert_allclose(result[0], m + gain @ (h @ m - y), rtol=1e-10)
    np.testing.assert_allclose(result[1], S - gain @ h @ S, atol=1e-11)
    assert {"symm", "gemmt", "potrf", "trsm", "syrk"} <= set(update.plan.ops)


@pytest.mark.parametrize("cuts", [((6,), (4,)), ((3, 3), (2, 2)), ((1, 5), (3, 1)), ((2, 2, 2), (1, 2, 1))])
def test_sympys_block_matrices_are_accepted(cuts):
    Sigma, H, R = sp.MatrixSymbol("Sigma", 6, 6), sp.MatrixSymbol("H", 4, 6), sp.MatrixSymbol("R", 4, 4)
    new = Sigma - Sigma * H.T * (R + H * Sigma * H.T).I * H * Sigma
    n, k = cuts
    new = new.subs({Sigma: sp.blockcut(Sigma, n, n), H: sp.blockcut(H, k, n), R: sp.blockcut(R, k, k)})
    formula = compile({"new_Sigma": new}, None, "Sigma, R: spd")
    rng = np.random.default_rng(1)
    root, h = rng.standard_normal((6, 6)), rng.standard_normal((4, 6))
    S = root @ root.T + np.eye(6)
    expected = S - S @ h.T @ np.linalg.solve(h @ S @ h.T + np.eye(4), h @ S)
    np.testing.assert_allclose(formula(Sigma=S, H=h, R=np.eye(4)).new_Sigma, expected, atol=1e-12)


def test_every_sympy_class_of_the_language_has_its_meaning():
    A, B = sp.MatrixSymbol("A", 3, 3), sp.MatrixSymbol("B", 3, 3)
    v, a = sp.MatrixSymbol("v", 3, 1), sp.Symbol("a", positive=True)
    rng = np.random.default_rng(2)
    x = {"A": rng.random((3, 3)) + 2 * np.eye(3), "B": rng.random((3, 3)), "v": rng.random(3), "a": 1.5}
    cases = [
        (sp.HadamardProduct(A, B), x["A"] * x["B"]),
        (sp.DiagMatrix(v) * A, x["v"][:, None] * x["A"]),
        (sp.DiagonalMatrix(A), np.diag(np.diag(x["A"]))),
        (sp.diagonalize_vector(v) + sp.Identity(3), np.diag(x["v"]) + np.eye(3)),
        (A**2 + a * sp.ZeroMatrix(3, 3), x["A"] @ x["A"]),
        (sp.Trace(A * B) * B, np.trace(x["A"] @ x["B"]) * x["B"]),
        (sp.log(sp.Determinant(A)) * B / a, np.log(np.linalg.det(x["A"])) / 1.5 * x["B"]),
        (A.inv() * B.T, np.linalg.inv(x["A"]) @ x["B"].T),
        (sp.BlockDiagMatrix(A, B), np.block([[x["A"], np.zeros((3, 3))], [np.zeros((3, 3)), x["B"]]])),
    ]
    for expr, expected in cases:
        formula = compile({"out": expr})
        got = formula(**{name: x[name] for name in formula.inputs}).out
        np.testing.assert_allclose(got, expected, rtol=1e-12, err_msg=str(expr))
