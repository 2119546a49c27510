"""What a plan looks like: table, graph, Python that computes the same, C that does too."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import scipy
from expr_reference import PAIR, SAID, update_inputs

from pxtools.errors import PxUsageError
from pxtools.expr import compile


def test_the_table_lists_steps_flops_and_the_forms_not_taken():
    text = compile(PAIR, assumptions=SAID, name="update").explain("n=1000,k=500")
    lines = text.splitlines()
    assert lines[0].startswith("update: mu 1000×1, Sigma 1000×1000, H 500×1000")
    assert any("symm" in line and "t2 = Sigma*H.T" in line and " 1,000 " in line for line in lines)
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


WITH_LIKELIHOOD = PAIR + "\nfit = (data - H*mu).T*(H*Sigma*H.T + R).I*(data - H*mu) + logdet(H*Sigma*H.T + R)"
FORMULAS = [
    (WITH_LIKELIHOOD, SAID + "; R: diagonal", "sequential"),
    (WITH_LIKELIHOOD, SAID, "sqrt"),
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


#: the standard's names and values; SciPy's own BLAS has every name with a prefix
CBLAS = """
typedef enum {CblasColMajor = 102} CBLAS_LAYOUT;
typedef enum {CblasNoTrans = 111, CblasTrans = 112} CBLAS_TRANSPOSE;
typedef enum {CblasUpper = 121, CblasLower = 122} CBLAS_UPLO;
typedef enum {CblasNonUnit = 131} CBLAS_DIAG;
typedef enum {CblasLeft = 141, CblasRight = 142} CBLAS_SIDE;
#define CD const double *
#define HEAD CBLAS_LAYOUT
void P(gemm)(HEAD, CBLAS_TRANSPOSE, CBLAS_TRANSPOSE, int, int, int, double, CD, int, CD, int, double, double *, int);
void P(symm)(HEAD, CBLAS_SIDE, CBLAS_UPLO, int, int, double, CD, int, CD, int, double, double *, int);
void P(syrk)(HEAD, CBLAS_UPLO, CBLAS_TRANSPOSE, int, int, double, CD, int, double, double *, int);
void P(trsm)(HEAD, CBLAS_SIDE, CBLAS_UPLO, CBLAS_TRANSPOSE, CBLAS_DIAG, int, int, double, CD, int, double *, int);
void P(trmm)(HEAD, CBLAS_SIDE, CBLAS_UPLO, CBLAS_TRANSPOSE, CBLAS_DIAG, int, int, double, CD, int, double *, int);
"""
LAPACKE = """
#define LAPACK_COL_MAJOR 102
void scipy_LAPACKE_set_nancheck(int);
#define LAPACKE_set_nancheck scipy_LAPACKE_set_nancheck
int P(potrf)(int, char, int, double *, int);
int P(potri)(int, char, int, double *, int);
int P(trtri)(int, char, char, int, double *, int);
int P(getrf)(int, int, int, double *, int, int *);
int P(getri)(int, int, double *, int, const int *);
int P(getrs)(int, char, int, int, const double *, int, const int *, double *, int);
int P(sytrf)(int, char, int, double *, int, int *);
int P(sytrs)(int, char, int, int, const double *, int, const int *, double *, int);
int P(tpqrt)(int, int, int, int, int, double *, int, double *, int, double *, int);
int P(tpmqrt)(int, char, char, int, int, int, int, int, const double *, int, const double *, int, double *, int,
              double *, int);
"""


def _built(source, folder):
    """Compile the C source and link it with SciPy's BLAS and LAPACK."""
    libraries = [p for p in Path(scipy.__file__).parent.parent.glob("scipy.libs/libscipy_openblas*") if p.is_file()]
    if not libraries:
        pytest.skip("this SciPy does not bring the C interfaces of BLAS and LAPACK along")
    for header, names, prefix in (("cblas.h", CBLAS, "cblas_d"), ("lapacke.h", LAPACKE, "LAPACKE_d")):
        words = re.findall(r"P\((\w+)\)", names)
        defines = "".join(f"#define {prefix}{word} scipy_{prefix}{word}\n" for word in words)
        (folder / header).write_text(defines + re.sub(r"P\((\w+)\)", prefix + r"\1", names))
    (folder / "f.c").write_text(source)
    command = ["gcc", "-std=c11", "-O1", "-Wall", "-Werror", "-Wno-unused-variable", "-shared", "-fPIC", "-I", folder]
    command += [folder / "f.c", "-o", folder / "f.so", libraries[0], f"-Wl,-rpath,{libraries[0].parent}", "-lm"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(folder / "f.so"))


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler to build the C source")
@pytest.mark.parametrize(("cell", "said", "form"), [*FORMULAS, (PAIR, SAID, "large")])
def test_the_c_source_is_built_linked_and_computes_the_same(cell, said, form, tmp_path):
    formula = compile(cell, assumptions=said, form=form.replace("large", "cholesky"), name="f")
    inputs = _inputs(formula, *((100, 90) if form == "large" else (7, 5)))
    wanted, plan = formula(**inputs), formula.plan
    library = _built(formula.explain(source="c"), tmp_path)
    pointer = ctypes.POINTER(ctypes.c_double)

    def place(array):
        return array.ctypes.data_as(pointer)

    arguments = [
        np.array(inputs[spec.name], dtype=float, order="C" if spec.c_order else "F", ndmin=1) for spec in plan.inputs
    ]
    results = [np.full(out.shape or (1,), np.nan, order="C" if out.trans else "F") for out in plan.outputs]
    work, pivots = np.full(plan.arena, np.nan), np.zeros(plan.n_pivots, np.intc)
    info = library.f(*map(place, [*arguments, *results, work]), pivots.ctypes.data_as(ctypes.POINTER(ctypes.c_int)))
    assert info == 0
    for name, value, truth in zip(formula.outputs, results, wanted, strict=True):
        np.testing.assert_allclose(np.reshape(value, np.shape(truth)), truth, rtol=1e-9, atol=1e-10, err_msg=name)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler to build the C source")
def test_the_c_source_returns_the_failing_minor(tmp_path):
    formula = compile("x = logdet(A)", assumptions="A: spd", name="f")
    formula(A=np.eye(3))
    library = _built(formula.explain(source="c"), tmp_path)
    matrix, out, work = np.diag([1.0, -1.0, 1.0]), np.zeros(1), np.zeros(formula.plan.arena)
    pivots = np.zeros(formula.plan.n_pivots, np.intc)
    assert library.f(*(x.ctypes.data_as(ctypes.c_void_p) for x in (matrix, out, work, pivots))) == 2
