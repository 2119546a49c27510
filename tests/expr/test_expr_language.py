"""Every word of the language against NumPy, and what a compiled formula can do besides being called."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
from expr_oracle import evaluate
from expr_reference import PAIR, update_inputs

from pxtools.errors import PxUsageError
from pxtools.expr import compile
from pxtools.kernels.threads import blas_threads

RNG = np.random.default_rng(3)
VALUES = {
    "A": RNG.standard_normal((4, 4)) + 4 * np.eye(4),
    "B": RNG.standard_normal((4, 3)),
    "S": np.eye(4) * 2 + 0.3,
    "v": RNG.standard_normal((4, 1)),
    "w": RNG.standard_normal((4, 1)),
    "a": 1.7,
    "M": np.eye(4) - 0.6,
}
SAID = {"A": "4 x 4", "B": "4 x 3", "S": "spd", "v": "vector", "w": "vector", "a": "positive", "M": "symmetric"}


@pytest.mark.parametrize(
    "text",
    [
        "A*B",
        "A - 2*A.T",
        "A/a + a*A",
        "-A",
        "A**3",
        "A**-2",
        "A.T.T",
        "A.I*B",
        "S.I*B",
        "M.I*B",
        "M.I",
        "A.I",
        "S.I",
        "solve(A, B)",
        "det(A)",
        "det(S)",
        "det(M)",
        "det(A.I)",
        "det(2*A)",
        "logdet(S)",
        "logdet(S.I)",
        "trace(A)",
        "trace(A*S)",
        "trace(S.I*A)",
        "trace(B*B.T)",
        "trace(2*A + S)",
        "v.T*w",
        "v.T*S.I*v",
        "v*w.T",
        "hadamard(A, S)",
        "hadamard(A, A.T)",
        "diag(v)*A",
        "A*diag(v)",
        "diag(v)*diag(w)",
        "diag(v).I*A",
        "diagonal(A)",
        "diag(diagonal(A))",
        "diagonal(A*S)",
        "Identity(4) + A",
        "A*Identity(4) - A",
        "[[A, B], [B.T, 2*Identity(3)]]",
        "[[A, B], [B.T, Identity(3)]].I",
        "A - A",
        "0*A",
        "v.T*w + a",
        "-0.5*(v.T*S.I*v) - 0.5*logdet(S) - 2*log(a) + exp(-a) + sqrt(a)**3",
        "a**2*A",
        "(A*A.T).I*v",
        "A.T.I*v",
        "v.T*A.I",
        "S.I*A*S.I",
        "A.I*S*A.T.I",
        "(S*A).I*B",
        "B*B.T - B*B.T",
        "A*v*(w.T*v)",
        "diag(v) + S",
        "diag(v)*S*diag(v)",
        "trace(diag(v)*A)",
        "S*(A + Identity(4))*v",
        "1/a*A",
    ],
)
def test_the_language_means_what_numpy_computes(text):
    formula = compile(f"x = {text}", assumptions={name: SAID[name] for name in VALUES if _used(name, text)})
    found = formula(**{name: VALUES[name] for name in formula.inputs}).x
    wanted = evaluate(f"x = {text}", VALUES)["x"]
    np.testing.assert_allclose(np.reshape(found, np.shape(wanted)), wanted, rtol=1e-10, atol=1e-12)


def _used(name: str, text: str) -> bool:
    import ast

    return any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(ast.parse(text)))


def test_scalars_come_back_as_floats_and_vectors_as_vectors():
    result = compile("s = v.T*v + 0*trace(v*v.T)\nt = trace(v*v.T)\nu = 2*v")(v=[3.0, 4.0])
    assert isinstance(result.t, float)
    assert result.t == 25.0
    assert result.s == 25.0
    assert result.u.shape == (2,)
    assert result._fields == ("s", "t", "u")


@pytest.mark.parametrize("n", [0, 1])
def test_empty_and_tiny_matrices_work(n):
    result = compile("x = S.I*B\ny = B.T*B\nz = logdet(S)", assumptions="S: spd")(S=np.eye(n), B=np.ones((n, 3)))
    assert result.x.shape == (n, 3)
    np.testing.assert_array_equal(result.y, np.full((3, 3), float(n)))
    assert result.z == 0.0


def test_no_observations_leave_the_state_alone():
    formula = compile(PAIR, assumptions="mu, data: vector; Sigma, R: spd")
    cov = np.diag([1.0, 2.0, 3.0])
    result = formula(mu=np.arange(3.0), Sigma=cov, H=np.zeros((0, 3)), R=np.zeros((0, 0)), data=np.zeros(0))
    assert np.array_equal(result.new_mu, np.arange(3.0))
    assert np.array_equal(result.new_Sigma, cov)


def test_a_determinant_does_not_overflow_on_the_way():
    scale = np.diag([1e200, 1e200, 1e-200, 1e-200])
    assert compile("d = det(A)")(A=scale).d == pytest.approx(1.0)
    assert np.isnan(compile("d = logdet(A)")(A=np.diag([1.0, -1.0])).d)


def test_a_formula_pickles_as_its_plan_and_gives_the_same_bits():
    formula = compile(PAIR, assumptions="mu, data: vector; Sigma, R: spd", name="update")
    inputs = update_inputs("well", 20, 10)
    before = formula(**inputs)
    copy = pickle.loads(pickle.dumps(formula))
    assert copy._ready.keys() == formula._ready.keys()
    after = copy(**inputs)
    assert np.array_equal(before.new_Sigma, after.new_Sigma)
    assert type(after).__name__ == "update_result"


def test_results_pickle():
    result = compile("x = 2*A")(A=np.eye(2))
    back = pickle.loads(pickle.dumps(result))
    assert type(back)._fields == ("x",)
    assert np.array_equal(back.x, result.x)


def test_results_are_new_memory_each_time():
    formula = compile("x = A*A\ny = A")
    a = np.eye(3)
    first, second = formula(A=a), formula(A=a)
    first.x[:] = 7
    first.y[:] = 7
    assert second.x[0, 0] == 1
    assert second.y[0, 0] == 1
    assert a[0, 0] == 1


def test_two_threads_may_use_one_formula():
    formula = compile(PAIR, assumptions="mu, data: vector; Sigma, R: spd")
    inputs = [update_inputs("well", 60, 30, seed) for seed in range(4)]
    wanted = [formula(**x).new_Sigma for x in inputs]
    wrong: list[int] = []

    def work(i: int) -> None:
        gaps = (np.abs(formula(**inputs[i]).new_Sigma - wanted[i]).max() for _ in range(20))
        wrong.extend(i for gap in gaps if gap > 1e-13)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_threads_are_set_for_the_call_and_put_back():
    controller = pytest.importorskip("threadpoolctl").ThreadpoolController()
    pools = [lib for lib in controller.lib_controllers if "scipy" in str(lib.filepath)]
    before = [pool.num_threads for pool in pools]
    with blas_threads(1):
        assert [pool.num_threads for pool in pools] == [1] * len(pools)
    assert [pool.num_threads for pool in pools] == before


def test_inside_an_engine_one_thread_is_used(monkeypatch):
    import types

    from pxtools.kernels.threads import wanted_threads

    assert wanted_threads(None) is None
    assert wanted_threads(3) == 3
    engine = types.SimpleNamespace(IPEngine=types.SimpleNamespace(initialized=lambda: True))
    monkeypatch.setitem(sys.modules, "ipyparallel.engine.app", engine)
    assert wanted_threads(None) == 1
    assert wanted_threads(2) == 2


def test_cells_need_no_sympy_and_the_library_no_ipython():
    code = (
        "import sys\nimport numpy as np\nfrom pxtools.expr import compile\ncompile('x = A*A')(A=np.eye(2))\n"
        "found = {'sympy', 'IPython', 'ipyparallel', 'matplotlib'} & set(sys.modules)\nassert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_form_or_number_of_blocks_is_a_usage_error():
    with pytest.raises(PxUsageError, match="Did you mean `information`"):
        compile("x = A", form="informaton")
    with pytest.raises(PxUsageError, match="no number of blocks"):
        compile("x = A", blocks="many")
    with pytest.raises(PxUsageError, match="do not add up to 4"):
        compile("x = A*A", blocks={"n": (1, 2)})(A=np.eye(4))
    with pytest.raises(PxUsageError, match="no form `sqrt`"):
        compile("x = A*A", form="sqrt")(A=np.eye(2))
    with pytest.raises(PxUsageError, match="Did you mean `assumptions=`"):
        compile("x = A", "A: spd")
    with pytest.raises(PxUsageError, match="float64 or float32"):
        compile("x = A", dtype=int)


def test_only_so_many_plans_are_kept_when_shapes_keep_changing():
    from pxtools.expr.compiled import KEPT_PLANS

    formula = compile("x = A*A")
    for size in [*range(1, KEPT_PLANS + 6), 1]:
        np.testing.assert_array_equal(formula(A=np.eye(size)).x, np.eye(size))
    assert len(formula._ready) == KEPT_PLANS


def test_calls_with_equal_shapes_and_other_types_or_orders_do_not_mix():
    formula = compile("x = A*B\ny = B.T*v", assumptions="v: vector")
    rng = np.random.default_rng(0)
    A, B, v = rng.random((3, 3)), rng.random((3, 2)), rng.random(3)
    for a in (A, np.asfortranarray(A), A.astype(np.float32), np.arange(9).reshape(3, 3), A[::-1], A.T):
        for b, w in ((B, v), (np.asfortranarray(B), v[:, None]), (B.astype(np.float32), v.astype(np.float32))):
            result = formula(A=a, B=b, v=w)
            np.testing.assert_allclose(result.x, a @ b, rtol=1e-6)
            assert result.y.shape == ((2,) if w.ndim == 1 else (2, 1))


def test_a_formula_shows_its_inputs_to_help_and_completion():
    formula = compile(PAIR, assumptions="Sigma, R: spd", name="update")
    assert str(inspect.signature(formula)) == "(mu, Sigma, H, R, data)"
    assert repr(formula).startswith("update(mu: n×c, Sigma: n×n, H: k×n, R: k×k, data: k×c)\n    -> (new_mu: n×c")


def test_names_that_python_cannot_bind_are_refused():
    sympy = pytest.importorskip("sympy")
    A = sympy.MatrixSymbol("A", 2, 2)
    for name in ("class", "_hidden", "two words"):
        with pytest.raises(PxUsageError, match="plain Python name"):
            compile({name: A * A})
    with pytest.raises(PxUsageError, match="plain Python name"):
        compile("x = A", name="my-formula")


@pytest.mark.parametrize(
    "text",
    ["A.I*S*A.T.I", "S.I*M*S.I", "A.I*M*A.T.I + S", "A.I + A.T.I", "M.I", "S.I", "A*S*A.T", "A*M*A.T - M", "(A*A.T).I",
     "S*M*S", "A.T*S.I*A", "S - S*A.T*(A*S*A.T + S).I*A*S", "A*B*B.T*A.T", "diag(v)*S*diag(v)", "S*M + M*S"],
)  # fmt: skip
def test_what_is_symmetric_comes_out_symmetric_to_the_last_bit(text):
    rng = np.random.default_rng(5)
    root = rng.standard_normal((30, 30))
    inputs = {"A": root + 9 * np.eye(30), "B": rng.standard_normal((30, 7)), "S": root @ root.T + np.eye(30),
              "M": root + root.T, "v": rng.standard_normal(30)}  # fmt: skip
    said = {"A": "n x n", "B": "n x m", "S": "spd", "M": "symmetric", "v": "vector"}
    formula = compile(f"x = {text}", assumptions={name: word for name, word in said.items() if _used(name, text)})
    found = formula(**{name: inputs[name] for name in formula.inputs}).x
    assert np.array_equal(found, found.T)
    wanted = evaluate(f"x = {text}", inputs)["x"]
    np.testing.assert_allclose(found, wanted, rtol=1e-7, atol=1e-7 * np.abs(wanted).max())
