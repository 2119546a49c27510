"""What a plan looks like: table, graph, Python that computes the same, C that a compiler accepts."""

from __future__ import annotations

import shutil
import subprocess
from xml.etree import ElementTree

import numpy as np
import pytest
from expr_reference import PAIR, SAID, update_inputs

from pxtools.errors import PxUsageError
from pxtools.expr import compile


def test_the_table_lists_steps_flops_and_the_forms_not_taken():
    text = compile(PAIR, assumptions=SAID, name="update").explain("n=1000,k=500")
    lines = text.splitlines()
    assert lines[0].startswith("update: mu 1000×1, Sigma 1000×1000, H 500×1000")
    assert any("symm" in line and "t2 = Sigma*H.T" in line and "1e+03" in line for line in lines)
    assert any("potrf" in line and "t1 = chol(t1)" in line for line in lines)
    assert "form: cholesky" in lines[-2]
    assert "2,045 Mflop" in lines[-2]
    assert "not taken: information 2,7" in lines[-1]


def test_explaining_without_sizes_shows_the_last_plan_or_says_what_to_type():
    formula = compile(PAIR, assumptions=SAID)
    with pytest.raises(PxUsageError, match="--sizes n=1000"):
        formula.explain()
    formula(**update_inputs("well", 6, 3))
    assert "Sigma 6×6" in formula.explain()
    with pytest.raises(PxUsageError, match="no size `q`"):
        formula.explain("n=3,k=2,q=1")
    with pytest.raises(PxUsageError, match="python or c"):
        formula.explain(source="fortran")


def test_the_graph_is_an_svg_with_every_operation():
    graph = compile(PAIR, assumptions=SAID).graph("n=1000,k=500")
    root = ElementTree.fromstring(graph._repr_svg_())
    words = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"SYMM", "GEMMT", "POTRF", "TRSM", "SYRK", "Sigma", "new_Sigma", "1000×1000"} <= words


def test_boxes_of_the_graph_do_not_overlap():
    for form, extra in (("cholesky", ""), ("information", ""), ("sequential", "; R: diagonal")):
        graph = compile(PAIR, assumptions=SAID + extra, form=form).graph("n=100,k=150")
        for a in graph.nodes:
            for b in graph.nodes:
                if a is not b and a.layer == b.layer:
                    assert abs(a.x - b.x) >= (a.width + b.width) / 2


FORMULAS = [
    (PAIR, SAID, "cholesky"),
    (PAIR, SAID, "information"),
    (PAIR, SAID + "; R: diagonal", "sequential"),
    (PAIR, SAID, "sqrt"),
    ("x = A.I*B + 2*B\ny = logdet(C) - det(A)\nz = hadamard(C, A*C.I*A.T)", "C: spd", "auto"),
    (
        "x = L.I*B*U\ny = M.I*B\nz = [[L, B], [B.T, M]]\nw = trace(L*M)*diag(v)*M",
        "L: lower; U: upper; M: symmetric",
        "auto",
    ),
]


def _inputs(formula, n=7, k=5):
    known = update_inputs("well", n, k)
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((n, n)) + 4 * np.eye(n)
    known |= {
        "A": dense,
        "B": rng.standard_normal((n, n)),
        "C": dense @ dense.T,
        "L": np.tril(dense),
        "v": rng.random(n),
        "U": np.triu(dense),
        "M": dense + dense.T,
    }
    if "diagonal" in formula.problem.assumptions.properties.get("R", ()):
        known["R"] = rng.random(k) + 1
    return {name: known[name] for name in formula.inputs}


@pytest.mark.parametrize(("cell", "said", "form"), FORMULAS)
def test_the_python_source_computes_the_same(cell, said, form):
    formula = compile(cell, assumptions=said, form=form, name="f")
    inputs = _inputs(formula)
    wanted = formula(**inputs)
    space: dict = {}
    exec(formula.explain(source="python"), space)
    found = space["f"](**inputs)
    for name, value, truth in zip(formula.outputs, found, wanted, strict=True):
        np.testing.assert_allclose(np.reshape(value, np.shape(truth)), truth, rtol=1e-9, atol=1e-10, err_msg=name)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler to judge the C source")
@pytest.mark.parametrize(("cell", "said", "form"), FORMULAS)
def test_the_c_source_is_accepted_by_a_compiler(cell, said, form, tmp_path):
    formula = compile(cell, assumptions=said, form=form, name="f")
    formula(**_inputs(formula))
    names = (
        "CblasColMajor",
        "CblasNoTrans",
        "CblasTrans",
        "CblasLeft",
        "CblasRight",
        "CblasLower",
        "CblasUpper",
        "CblasNonUnit",
    )
    calls = ("gemm", "gemmt", "symm", "syrk", "trsm", "trmm")
    header = f"enum {{{', '.join(names)}}};" + "".join(f"void cblas_d{call}();" for call in calls)
    (tmp_path / "cblas.h").write_text(header)
    routines = ("potrf", "potri", "trtri", "getrf", "getri", "getrs", "sytrf", "sytrs", "tpqrt", "tpmqrt")
    (tmp_path / "lapacke.h").write_text(
        "enum {LAPACK_COL_MAJOR};" + "".join(f"int LAPACKE_d{routine}();" for routine in routines)
    )
    (tmp_path / "f.c").write_text(formula.explain(source="c"))
    command = ["gcc", "-std=c11", "-Wall", "-Wno-unused-variable", "-fsyntax-only", "-I", str(tmp_path)]
    done = subprocess.run([*command, str(tmp_path / "f.c")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
