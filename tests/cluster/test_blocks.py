"""Formulas over a matrix in column blocks that stay on the engines: same numbers, no whole matrix anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import pxtools
from pxtools.errors import PxUsageError
from pxtools.expr import NotPositiveDefinite, compile
from pxtools.expr.columns import TILE
from pxtools.results import PerEngine
from pxtools.session.scatter import scatter
from pxtools.session.state import collect

sys.path.append(str(Path(__file__).parent.parent / "expr"))
from expr_reference import PAIR, SAID, relative_error, update_inputs, update_long

LIKELIHOOD = """
log_likelihood = -0.5*((data - H*mu).T*(H*Sigma*H.T + R).I*(data - H*mu) + logdet(H*Sigma*H.T + R))"""


@pytest.fixture(autouse=True, scope="module")
def one_blas_thread() -> Iterator[None]:
    with threadpool_limits(limits=1, user_api="blas"):
        yield


def large_inputs(n: int, k: int) -> dict[str, Any]:
    """Well-conditioned inputs that are quick to make."""
    rng = np.random.default_rng(n)
    noise = rng.random((n, n)) / n
    inputs = {"mu": rng.random(n), "H": rng.standard_normal((k, n)) / np.sqrt(n), "data": rng.random(k)}
    return {**inputs, "Sigma": noise + noise.T + 2 * np.eye(n), "R": np.diag(rng.uniform(1, 2, k))}


def in_blocks(session: Any, matrix: Any, targets: Any = None) -> PerEngine:
    scatter(session, "Sigma", matrix, axis=1, targets=targets)
    return collect(session, "Sigma", targets=targets)


def whole(blocks: PerEngine) -> Any:
    return np.concatenate(list(blocks), axis=1)


@pytest.mark.parametrize("kind", ["well", "ill", "post_definite"])
@pytest.mark.parametrize("targets", ["0", "0,1", "::1", "3,1,2"])
def test_blocks_on_engines_give_the_plan_in_one_piece(targets: str, kind: str, session: Any) -> None:
    inputs = update_inputs(kind, 61, 20)
    local = compile(PAIR + LIKELIHOOD, assumptions=SAID)(**inputs)
    spread = pxtools.formula(PAIR + LIKELIHOOD, assumptions=SAID)
    Sigma = in_blocks(session, inputs["Sigma"], targets)
    result = spread(**{**inputs, "Sigma": Sigma})
    found = whole(result.new_Sigma)
    condition = np.linalg.cond(inputs["H"] @ inputs["Sigma"] @ inputs["H"].T + inputs["R"])
    limit = 1e-13 if kind == "well" else 4 * condition * np.finfo(float).eps
    assert relative_error(found, local.new_Sigma) <= limit
    assert relative_error(result.new_mu, local.new_mu) <= 10 * limit
    assert result.log_likelihood == pytest.approx(local.log_likelihood, rel=10 * limit)
    assert np.array_equal(found, found.T)
    assert result.new_mu.shape == (61,)
    assert np.array_equal(whole(Sigma), inputs["Sigma"])
    if kind == "well":
        mean, cov = update_long(**inputs)
        assert relative_error(found, cov) <= 1e-14
        assert relative_error(result.new_mu, mean) <= 1e-14


@pytest.mark.parametrize(("n", "k"), [(3, 2), (5, 1), (1, 1)])
def test_engines_without_columns_and_single_rows_are_no_exception(n: int, k: int, session: Any) -> None:
    inputs = update_inputs("well", n, k)
    local = compile(PAIR, assumptions=SAID)(**inputs)
    result = pxtools.formula(PAIR, assumptions=SAID)(**{**inputs, "Sigma": in_blocks(session, inputs["Sigma"])})
    assert relative_error(whole(result.new_Sigma), local.new_Sigma) <= 1e-13
    assert relative_error(result.new_mu, local.new_mu) <= 1e-13


@pytest.mark.parametrize("order", ["C", "F"])
def test_blocks_of_several_tiles_are_symmetric_to_the_last_bit(order: str, session: Any, cell: Any) -> None:
    n, k = 2 * TILE + 70, 40
    inputs = large_inputs(n, k)
    Sigma = in_blocks(session, inputs["Sigma"], "0,1")
    if order == "F":
        cell("import numpy as np\n%pxrun -t 0,1 Sigma = np.asfortranarray(Sigma)")
        Sigma = collect(session, "Sigma", targets="0,1")
    found = whole(pxtools.formula(PAIR, assumptions=SAID)(**{**inputs, "Sigma": Sigma}).new_Sigma)
    assert np.array_equal(found, found.T)
    assert relative_error(found, compile(PAIR, assumptions=SAID)(**inputs).new_Sigma) <= 1e-13


def test_a_matrix_made_on_the_engines_in_uneven_blocks_stays_there_update_after_update(cell: Any, shell: Any) -> None:
    inputs = update_inputs("well", 61, 20)
    shell.user_ns.update(inputs, whole_Sigma=inputs["Sigma"])
    cell(f'%%pxexpr update --assume "{SAID}"\n{PAIR}')
    cell("Sigma = None\n%pxrun edges = [0, 3, 43, 50, 61]; Sigma = whole_Sigma[:, edges[px_rank]:edges[px_rank + 1]]")
    cell("first = update(mu=mu, Sigma=Sigma, H=H, R=R, data=data)")
    cell("second = update(mu=first.new_mu, Sigma=first.new_Sigma, H=H, R=R, data=data)")
    local = compile(PAIR, assumptions=SAID)
    once = local(**inputs)
    twice = local(**{**inputs, "mu": once.new_mu, "Sigma": once.new_Sigma})
    gathered = cell("%pxgather new_Sigma")
    assert relative_error(gathered, twice.new_Sigma) <= 1e-13
    assert np.array_equal(gathered, gathered.T)
    assert relative_error(cell("second.new_mu"), twice.new_mu) <= 1e-13
    assert list(cell("%pxrun new_Sigma.shape")) == [(61, 3), (61, 40), (61, 7), (61, 11)]
    assert relative_error(whole(cell("first.new_Sigma")), once.new_Sigma) <= 1e-13


def test_no_engine_holds_more_than_its_blocks_and_no_block_travels(
    session: Any, cell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    n, k, p = 1000, 10, 4
    inputs = large_inputs(n, k)
    Sigma = in_blocks(session, inputs["Sigma"])
    update = pxtools.formula(PAIR, assumptions=SAID)
    update(**{**inputs, "Sigma": Sigma})
    from pxtools.remote import sharing

    sent: list[int] = []
    dump = sharing.dump

    def counting(message: Any) -> Any:
        stream, large = dump(message)
        sent.append(len(stream) + sum(buffer.raw().nbytes for buffer in large))
        return stream, large

    monkeypatch.setattr(sharing, "dump", counting)
    cell("import tracemalloc\n%pxrun tracemalloc.start()")
    try:
        sent.clear()
        result = update(**{**inputs, "Sigma": Sigma})
        n_sent = sum(sent)
        peaks = list(cell("%pxrun tracemalloc.get_traced_memory()[1]"))
    finally:
        cell("%pxrun tracemalloc.stop()")
    block, small = 8 * n * n // p, 8 * (4 * k * n + 4 * k * k + TILE * TILE + 4 * n)
    assert result.new_Sigma.slot(0).nbytes <= block + 1000
    assert all(block <= peak <= block + small + 500_000 for peak in peaks)  # the new block, and what is small
    assert n_sent < 8 * (4 * k * n + 10_000)


def test_float32_blocks_stay_float32(session: Any) -> None:
    inputs = {name: np.asarray(x, dtype=np.float32) for name, x in update_inputs("well", 80, 30).items()}
    result = pxtools.formula(PAIR, assumptions=SAID)(**{**inputs, "Sigma": in_blocks(session, inputs["Sigma"])})
    found = whole(result.new_Sigma)
    assert found.dtype == np.float32
    assert relative_error(found, update_long(**inputs)[1]) <= 2e-6
    assert np.array_equal(found, found.T)


def test_loads_of_several_factors_and_diagonal_noise_are_spread_too(session: Any) -> None:
    cell = "mean = m + C*(B*A).T*(B*A*C*A.T*B.T + s*D).I*(y - B*A*m)\ncov = C - C*A.T*B.T*(B*A*C*A.T*B.T + s*D).I*B*A*C"
    said = "m, y: vector; C: positive_definite; D: diagonal, positive_definite; s: positive"
    rng = np.random.default_rng(4)
    root = rng.standard_normal((30, 30))
    inputs = {"m": rng.random(30), "C": root @ root.T / 30 + np.eye(30), "A": rng.random((12, 30))}
    inputs |= {"B": rng.random((7, 12)), "D": rng.uniform(1, 2, 7), "s": 0.5, "y": rng.random(7)}
    local = compile(cell, assumptions=said)(**inputs)
    scatter(session, "C", inputs["C"], axis=1)
    result = pxtools.formula(cell, assumptions=said)(**{**inputs, "C": collect(session, "C")})
    assert relative_error(whole(result.cov), local.cov) <= 1e-13
    assert relative_error(result.mean, local.mean) <= 1e-12


def test_sympys_block_matrices_are_taken_for_a_matrix_in_blocks(session: Any) -> None:
    sp = pytest.importorskip("sympy")
    Sigma, H, R = sp.MatrixSymbol("Sigma", 61, 61), sp.MatrixSymbol("H", 20, 61), sp.MatrixSymbol("R", 20, 20)
    new = Sigma - Sigma * H.T * (R + H * Sigma * H.T).I * H * Sigma
    cut = new.subs({Sigma: sp.blockcut(Sigma, (30, 31), (30, 31)), H: sp.blockcut(H, (10, 10), (30, 31))})
    inputs = update_inputs("well", 61, 20)
    given = {name: inputs[name] for name in ("Sigma", "H", "R")}
    update = pxtools.formula({"new": cut}, [Sigma, H, R], "Sigma, R: positive_definite")
    found = whole(update(**{**given, "Sigma": in_blocks(session, inputs["Sigma"])}).new)
    assert relative_error(found, update(**given).new) <= 1e-13
    assert np.array_equal(found, found.T)


def test_an_asymmetric_or_indefinite_matrix_in_blocks_is_named(session: Any) -> None:
    update = pxtools.formula(PAIR, assumptions=SAID)
    inputs = update_inputs("well", 61, 20)
    crooked = inputs["Sigma"].copy()
    crooked[7, 40] += 1e-3
    with pytest.raises(
        NotPositiveDefinite, match=r"`Sigma` is said to be symmetric, and it is not:\nentry \((7, 40|40, 7)\)"
    ):
        update(**{**inputs, "Sigma": in_blocks(session, crooked)})
    with pytest.raises(NotPositiveDefinite, match="not positive definite: its leading minor of order 1 "):
        update(**{**inputs, "Sigma": in_blocks(session, -9 * inputs["Sigma"])})
    Sigma = in_blocks(session, inputs["Sigma"])
    with pytest.raises(NotPositiveDefinite, match="`R` is said to be, and is not either"):
        update(**{**inputs, "R": -50 * inputs["R"], "Sigma": Sigma})
    assert np.array_equal(whole(Sigma), inputs["Sigma"])


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        ({"outputs": PAIR + "\nt = trace(Sigma)"}, "need it whole"),
        ({"outputs": PAIR, "form": "sqrt"}, "--form sqrt"),
        ({"outputs": PAIR, "assumptions": "R: positive_definite; mu, data: vector"}, "need it whole"),
    ],
)
def test_formulas_that_cannot_be_spread_say_why(formula: dict[str, Any], words: str, session: Any) -> None:
    inputs = update_inputs("well", 61, 20)
    with pytest.raises(PxUsageError, match=words):
        pxtools.formula(**{"assumptions": SAID, **formula})(**{**inputs, "Sigma": in_blocks(session, inputs["Sigma"])})


def test_what_are_no_column_blocks_is_a_usage_error_that_says_how_to_make_some(session: Any) -> None:
    inputs = update_inputs("well", 61, 20)
    update = pxtools.formula(PAIR, assumptions=SAID)
    scatter(session, "Sigma", inputs["Sigma"], axis=0)
    rows = collect(session, "Sigma")
    with pytest.raises(PxUsageError, match="--axis 1"):
        update(**{**inputs, "Sigma": rows})
    with pytest.raises(PxUsageError, match="Only one matrix"):
        update(**{**inputs, "Sigma": rows, "R": rows})
    with pytest.raises(PxUsageError, match="knows no engines"):
        compile(PAIR, assumptions=SAID)(**{**inputs, "Sigma": rows})
    scatter(session, "Sigma", list("abcd"), flatten=True)
    with pytest.raises(PxUsageError, match="no matrix of real numbers on engine 0: str"):
        update(**{**inputs, "Sigma": collect(session, "Sigma")})


#: kernels for which V.T*W and (W.T*V).T differ in the last bits
HASWELL = """
import numpy as np
from pxtools.expr.columns import Columns, downdate
from pxtools.kernels import blasplan
rng = np.random.default_rng(0)
edges, k = (0, 3, 43, 54), 20
columns = Columns(edges, (False,) * 3)
V = np.asfortranarray(rng.standard_normal((k, 54)))
C = 100 * np.eye(54)
blocks = []
for j, (a, b) in enumerate(zip(edges, edges[1:])):
    stage, new = downdate(columns, j, k), np.empty((54, b - a), order="F")
    buffers = [np.empty(max(1, stage.plan.arena)), V, np.asfortranarray(C[:, a:b]), new]
    blasplan.run_plan(stage.plan.table(), buffers, np.array(stage.plan.scalars), np.zeros(1, np.int32), False)
    blocks.append(new)
whole = np.concatenate(blocks, axis=1)
assert np.allclose(whole, C - V.T @ V)
assert np.array_equal(whole, whole.T)
"""


def test_tiles_are_mirror_images_whatever_kernels_blas_has() -> None:
    environment = {**os.environ, "OPENBLAS_CORETYPE": "Haswell"}
    done = subprocess.run([sys.executable, "-c", HASWELL], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
