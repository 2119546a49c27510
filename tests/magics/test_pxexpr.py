"""`%%pxexpr` through a real shell on a real cluster; plans and accuracy are judged in `tests/expr`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pxtools.errors import PxUsageError

UPDATE = """
new_mu    = mu + Sigma*H.T*(H*Sigma*H.T + R).I*(data - H*mu)
new_Sigma = Sigma - Sigma*H.T*(H*Sigma*H.T + R).I*H*Sigma
"""
ASSUME = '--assume "Sigma, R: positive_definite"'


@pytest.fixture
def inputs(shell: Any, session: Any) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(6, 6)), rng.normal(size=(3, 3))
    values = {
        "mu": rng.normal(size=6),
        "Sigma": a @ a.T + np.eye(6),
        "H": rng.normal(size=(3, 6)),
        "R": b @ b.T + np.eye(3),
        "data": rng.normal(size=3),
    }
    shell.user_ns.update(values)
    return values


@pytest.fixture
def unconnected(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_wire", None)


def expected(v: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    gain = v["Sigma"] @ v["H"].T @ np.linalg.inv(v["H"] @ v["Sigma"] @ v["H"].T + v["R"])
    return v["mu"] + gain @ (v["data"] - v["H"] @ v["mu"]), v["Sigma"] - gain @ v["H"] @ v["Sigma"]


def test_the_cell_makes_a_function_here(inputs: dict[str, np.ndarray], cell: Any) -> None:
    cell(f"%%pxexpr update {ASSUME}{UPDATE}")
    result = cell("update(mu=mu, Sigma=Sigma, H=H, R=R, data=data)")
    mean, cov = expected(inputs)
    assert result._fields == ("new_mu", "new_Sigma")
    np.testing.assert_allclose(result.new_mu, mean, rtol=1e-12)
    np.testing.assert_allclose(result.new_Sigma, cov, rtol=1e-11)
    assert np.array_equal(result.new_Sigma, result.new_Sigma.T)


@pytest.mark.parametrize("said", ["'Sigma, R: positive_definite'", "dict(Sigma='spd', R=['spd'])"])
def test_what_is_assumed_may_have_a_name(said: str, cell: Any, shell: Any) -> None:
    cell(f"known = {said}")
    cell(f"%%pxexpr named --assume known{UPDATE}")
    assert "potrf" in shell.user_ns["named"].plan_for("n=9,k=3").ops
    with pytest.raises(PxUsageError, match="`unknown` is no assumption"):
        cell(f"%%pxexpr named --assume unknown{UPDATE}")


def test_and_on_every_engine(inputs: dict[str, np.ndarray], cell: Any) -> None:
    cell(f"%%pxexpr update {ASSUME}{UPDATE}")
    means = cell("%pxcollect update.name")
    assert list(means) == ["update"] * 4
    there = cell("%pxrun update(mu=mu, Sigma=Sigma, H=H, R=R, data=data).new_mu")
    assert all(np.allclose(mean, expected(inputs)[0], rtol=1e-12) for mean in there)


def test_explain_lists_the_steps_and_draws_the_graph(cell: Any, capsys: Any) -> None:
    cell(f"%%pxexpr update {ASSUME} --sizes n=1000,k=500 --explain{UPDATE}")
    shown = capsys.readouterr().out
    assert all(step in shown for step in ("symm", "gemmt", "potrf", "trsm", "syrk"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"%%pxexpr update --asume x{UPDATE}", "--assume"),
        (f"%%pxexpr update --assume Sigma: spd{UPDATE}", 'in quotes: `--assume "Sigma: spd"`'),
        (f"%%pxexpr 2x{UPDATE}", "is no name"),
        ("%%pxexpr f\ny = A*B +", "no formula"),
        (f"%%pxexpr update --form nonsense{UPDATE}", "cholesky"),
        (f"%%pxexpr update --source c{UPDATE}", "--explain"),
    ],
)
def test_usage_mistakes_say_what_to_type_and_bind_nothing(line: str, words: str, cell: Any, shell: Any) -> None:
    with pytest.raises(PxUsageError, match=words):
        cell(line)
    assert "update" not in shell.user_ns


def test_a_matrix_that_is_not_what_was_said_is_named_on_the_engine_where_it_is(
    inputs: dict[str, np.ndarray], cell: Any
) -> None:
    cell(f"%%pxexpr update {ASSUME}{UPDATE}")
    with pytest.raises(PxUsageError, match="Sigma"):
        cell("%pxrun -t 2 update(mu=mu, Sigma=-Sigma, H=H, R=R, data=data)")


def test_without_engines_it_works_here(
    inputs: dict[str, np.ndarray], session: Any, cell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_wire", None)
    cell(f"%%pxexpr update {ASSUME}{UPDATE}")
    assert cell("update(mu=mu, Sigma=Sigma, H=H, R=R, data=data).new_mu").shape == (6,)


@pytest.mark.parametrize(
    ("options", "ops", "is_near"),
    [
        ("--no-assume", {"getrf", "getrs"}, True),
        ("--blocks auto", {"symm", "gemmt", "potrf", "trsm", "syrk"}, True),
        ("--blocks 3", {"gemm", "potrf", "trsm", "syrk"}, True),
        ("--form sqrt", {"tpqrt", "tpmqrt"}, True),
        ("--form information", {"potri"}, True),
        ("--form cholesky --sizes n=6,k=3", {"potrf"}, True),
        ("--dtype float32", {"potrf"}, False),
    ],
)
@pytest.mark.usefixtures("unconnected")
def test_every_option_reaches_the_plan(
    options: str, ops: set[str], is_near: bool, inputs: dict[str, np.ndarray], cell: Any
) -> None:
    cell(f"%%pxexpr update {ASSUME} {options}{UPDATE}")
    result = cell("update(mu=mu, Sigma=Sigma, H=H, R=R, data=data)")
    mean, cov = expected(inputs)
    np.testing.assert_allclose(result.new_Sigma, cov, rtol=1e-9 if is_near else 1e-3)
    assert np.allclose(result.new_mu, mean, rtol=1e-9) is is_near
    assert result.new_mu.dtype == (np.float64 if is_near else np.float32)
    assert ops <= set(cell("update.plan.ops"))


@pytest.mark.usefixtures("unconnected", "inputs")
def test_a_size_that_was_fixed_is_kept(cell: Any) -> None:
    cell(f"%%pxexpr update {ASSUME} --sizes n=7{UPDATE}")
    with pytest.raises(PxUsageError, match="its rows must be 7"):
        cell("update(mu=mu, Sigma=Sigma, H=H, R=R, data=data)")


@pytest.mark.parametrize(
    ("language", "words"), [("python", "def update(mu, Sigma, H, R, data):"), ("c", "cblas_dsymm")]
)
@pytest.mark.usefixtures("unconnected")
def test_the_work_is_printed_as_code(language: str, words: str, cell: Any, capsys: Any) -> None:
    cell(f"%%pxexpr update {ASSUME} --sizes n=1000,k=500 --explain --source {language}{UPDATE}")
    assert words in capsys.readouterr().out


THREADS = """
import sys, threadpoolctl
from pxtools.kernels import blasplan
usual, seen = blasplan.run_plan, []
def pools():
    libraries = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
    return [pool for pool in libraries if "scipy." in str(pool.filepath)]
def watching(*args):
    seen.append([pool.num_threads for pool in pools()])
    return usual(*args)
blasplan.run_plan = watching
for pool in pools():
    pool.set_num_threads(2)
try:
    update(mu=mu, Sigma=Sigma, H=H, R=R, data=data)
finally:
    blasplan.run_plan = usual
after = [pool.num_threads for pool in pools()]
"""


def test_one_thread_is_used_on_an_engine_and_all_that_blas_is_set_to_here(
    inputs: dict[str, np.ndarray], cell: Any
) -> None:
    pytest.importorskip("threadpoolctl", reason="threadpoolctl comes with the expr extra")
    cell(f"%%pxexpr update {ASSUME}{UPDATE}")
    cell(f"%%pxrun -t 0,1 -i update,mu,Sigma,H,R,data\n{THREADS}")
    assert list(cell("%pxcollect -t 0,1 seen")) == [[[1]]] * 2
    assert list(cell("%pxcollect -t 0,1 after")) == [[2]] * 2
    cell("from threadpoolctl import threadpool_limits\nwith threadpool_limits(2, user_api='blas'):" + indented(THREADS))
    assert cell("seen") == [[2]]


def indented(code: str) -> str:
    return "".join(f"\n    {line}" for line in code.splitlines())
