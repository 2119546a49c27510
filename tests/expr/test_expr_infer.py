"""What is inferred is true, SymPy's two wrong answers included."""

from __future__ import annotations

import ast

import numpy as np
import pytest
from expr_oracle import evaluate
from hypothesis import given, settings
from hypothesis import strategies as st
from random_formulas import ASSUME, formulas, make_inputs

from pxtools.expr import parse_cell
from pxtools.expr.infer import Facts
from pxtools.expr.lower import Lowering
from pxtools.expr.parse import fix_sizes


def facts_of(text: str, assume: str, sizes: str):
    problem = parse_cell(f"x = {text}", assume=assume, sizes=sizes)
    lowering = Lowering(problem, problem.sizes)
    node = lowering.outputs()["x"]
    facts = Facts(lowering.graph)
    return lambda fact: facts.holds(node, fact)


SAID = "S: n x n, spd; R: k x k, spd; Z: n x n, psd; H: k x n, full_rank; G: k x n; D: n x n, diagonal; a: positive; "
SAID += "Q: n x n, orthogonal; L: n x n, lower; U: n x n, upper; T: m x k, full_column_rank"


@pytest.mark.parametrize(
    ("text", "fact", "holds"),
    [
        ("S - S*H.T*(H*S*H.T + R).I*H*S", "symmetric", True),  # SymPy: False
        ("H.T*H", "pd", False),  # SymPy: True, and it is singular: H is wide
        ("H*H.T", "pd", True),
        ("H.T*H", "psd", True),
        ("H*S*H.T", "pd", True),
        ("G*S*G.T", "pd", False),
        ("G*S*G.T", "psd", True),
        ("G*S*G.T + R", "pd", True),
        ("G*S*G.T - R", "psd", False),
        ("G*Z*G.T + R", "pd", True),
        ("S - S*H.T*(H*S*H.T + R).I*H*S", "pd", True),
        ("S - S*G.T*(G*S*G.T + R).I*G*S", "pd", True),
        ("Z - Z*G.T*(G*Z*G.T + R).I*G*Z", "psd", True),
        ("Z - Z*G.T*(G*Z*G.T + R).I*G*Z", "pd", False),
        ("S - 2*S*G.T*(G*S*G.T + R).I*G*S", "psd", False),
        ("(S.I + G.T*R.I*G).I", "pd", True),
        ("a*S", "pd", True),
        ("(-1)*S", "psd", False),
        ("S + a*Identity(n)", "pd", True),
        ("hadamard(S, Z)", "psd", True),
        ("hadamard(S, D)", "diagonal", True),
        ("D*D", "diagonal", True),
        ("S*Z", "symmetric", False),
        ("S*Z + Z*S", "symmetric", True),
        ("[[S, Identity(n)], [Identity(n), S]]", "psd", False),
        ("block_diag(S, R)", "pd", True),
        ("S.I", "pd", True),
        ("H", "row_rank", True),
        ("H", "col_rank", False),
        ("H.T", "col_rank", True),
        ("H*S", "row_rank", True),
        ("G", "row_rank", False),
        ("T", "col_rank", True),
        ("T.T*T", "pd", True),
        ("T*T.T", "pd", False),
        ("T*R*T.T", "psd", True),
        ("T*R*T.T", "pd", False),
        ("T*H", "row_rank", False),
        ("Q*S*Q.T", "pd", True),
        ("Q.T*Q", "diagonal", True),
        ("Q*Q", "orthogonal", True),
        ("Q + Q", "orthogonal", False),
        ("Q.I", "orthogonal", True),
        ("L*L", "lower", True),
        ("L.T", "upper", True),
        ("L*U", "lower", False),
        ("L.I + D", "lower", True),
        ("S - S*H.T*R.I*H*S", "psd", False),
    ],
)
def test_inference(text, fact, holds):
    names = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    said = "; ".join(clause for clause in SAID.split("; ") if clause.split(":")[0] in names)
    sizes = ",".join(s for s, n in (("n=5", "SZDHGQLU"), ("k=3", "RHGT"), ("m=7", "T")) if names & set(n))
    assert facts_of(text, said, sizes)(fact) is holds


def test_a_schur_complement_of_a_definite_block_matrix_is_definite():
    cell = "_M = [[A, B], [B.T, C]]\nx = C - B.T*A.I*B + 0*trace(_M)*C"
    problem = parse_cell(cell, assume="A: n x n, spd; B: n x m; C: m x m, symmetric; _M: spd", sizes="n=4,m=3")
    lowering = Lowering(problem, problem.sizes)
    node = lowering.outputs()["x"]
    assert Facts(lowering.graph).holds(node, "pd")


CHECKS = {
    "symmetric": lambda a: np.allclose(a, a.T, atol=1e-9 * max(1, np.abs(a).max())),
    "psd": lambda a: np.linalg.eigvalsh((a + a.T) / 2).min() >= -1e-8 * max(1, np.abs(a).max()),
    "pd": lambda a: np.linalg.eigvalsh((a + a.T) / 2).min() > -1e-10 * max(1, np.abs(a).max()),
    "diagonal": lambda a: np.abs(a - np.diag(np.diag(a))).max(initial=0) <= 1e-9 * max(1, np.abs(a).max()),
    "lower": lambda a: np.abs(np.triu(a, 1)).max(initial=0) <= 1e-9 * max(1, np.abs(a).max()),
    "upper": lambda a: np.abs(np.tril(a, -1)).max(initial=0) <= 1e-9 * max(1, np.abs(a).max()),
    "orthogonal": lambda a: np.allclose(a @ a.T, np.eye(len(a)), atol=1e-8),
}


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["n", "m"]), st.data(), st.integers(1, 5), st.integers(1, 5), st.integers(0, 50))
def test_nothing_false_is_ever_inferred(size, data, n, m, seed):
    text = data.draw(formulas(size, size))
    inputs = make_inputs(n, m, seed)
    names = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    said = "; ".join(c for c in f"{ASSUME}; c: positive".split("; ") if c.split(":")[0] in names)
    text = text.replace("Identity(n)", f"Identity({n})").replace("Identity(m)", f"Identity({m})")
    problem = parse_cell(f"x = {text}", assume=said)
    fix_sizes(problem, {word: value for word, value in (("n", n), ("m", m)) if word in problem.dim_names()})
    lowering = Lowering(problem, problem.sizes)
    node = lowering.outputs()["x"]
    try:
        value = evaluate(f"x = {text}", inputs)["x"]
    except np.linalg.LinAlgError:
        return
    facts = Facts(lowering.graph)
    for fact, check in CHECKS.items():
        if facts.holds(node, fact):
            assert check(value), f"{fact} is inferred of {text}"
