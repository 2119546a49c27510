"""Two ways to plan a conditioning as one piece: observations in blocks one after another, or one QR of an array.

References
----------
Anderson, Moore (1979), Optimal Filtering, 6.4 (sequential processing), 6.5 (square-root filtering).
Kailath, Sayed, Hassibi (2000), Linear Estimation, 12.3 (array algorithms).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pxtools.expr.emit import Mat
from pxtools.expr.ir import Expr
from pxtools.expr.patterns import walk
from pxtools.expr.scalars import ADD
from pxtools.expr.values import Value

if TYPE_CHECKING:
    from pxtools.expr.planner import Planner


def block_size(n_states: int, n_obs: int) -> int:
    """Return how many observations to take at once: blocks of n/10 cost 7% more flops and let BLAS be fast."""
    return min(n_obs, max(32, min(512, -(-n_states // 10 // 32) * 32)))


#: the posterior, the gain times something, log det Z and v.T*Z.I*v
ASKED = ("post", "gain", "zlogdet", "zquad")


@dataclass
class _Ask:
    """What the formulas want of one conditioning; `sides` are the right-hand sides of gains and squares."""

    prior: Expr
    load: Expr
    noise: Expr
    wanted: list[Expr]

    def of(self, op: str) -> list[Expr]:
        return [node for node in self.wanted if node.op == op]

    @property
    def sides(self) -> list[Expr]:
        return list(dict.fromkeys(node.args[3] for node in self.wanted if len(node.args) > 3))


def plan_conditioning(planner: Planner, node: Expr) -> None:
    """Plan one of the `ASKED` expressions together with all others of the same conditioning."""
    key, how = node.args[:3], node.data
    prior, load, noise = key
    related = [e for e in walk(planner.roots) if e.op in ASKED and e.args[:3] == key and e.data == how]
    ask = _Ask(prior, load, noise, [e for e in related if e is node or not _leans_on(e, related)])
    for side in ask.sides:
        planner.value(side)
    (_plan_sequential if how == "sequential" else _plan_sqrt)(planner, ask)


def _leans_on(node: Expr, others: list[Expr]) -> bool:
    return len(node.args) > 3 and any(other in walk([node.args[3]]) for other in others)


# -- one block of observations after another ---------------------------------------------------------------------------


@dataclass
class _NoiseBlock:
    """Rows start … start + size of the observations and their noise: a diagonal, or a matrix."""

    start: int
    size: int
    diagonal: Mat | None
    matrix: Expr | None


def _noise_blocks(planner: Planner, noise: Expr, n_states: int) -> list[_NoiseBlock]:
    if planner.facts.holds(noise, "diagonal"):
        vector = planner.vector(noise)
        size = block_size(n_states, noise.rows)
        return [
            _NoiseBlock(start, rows, vector.part(start, 0, rows, 1), None)
            for start in range(0, noise.rows, size)
            for rows in (min(size, noise.rows - start),)
        ]
    blocks, start = [], 0
    for cell in (noise.args[i * noise.data + i] for i in range(noise.data)):
        blocks.append(_NoiseBlock(start, cell.rows, None, cell))
        start += cell.rows
    return blocks


def _plan_sequential(planner: Planner, ask: _Ask) -> None:
    emit = planner.emit
    blocks = _noise_blocks(planner, ask.noise, ask.prior.rows)
    for block in blocks:
        if block.matrix is not None:
            planner.value(block.matrix, half_ok=True)
    load = planner.value(ask.load)
    cov = planner.copy(planner.value(ask.prior, half_ok=True).stored, half=True)
    n = ask.prior.rows
    states = {side: emit.buffer(n, side.cols) for side in ask.sides}
    squares: dict[Expr, list[int]] = {quad.args[3]: [] for quad in ask.of("zquad")}
    logs: list[int] = []
    for block in blocks:
        rows = load.part(block.start, 0, block.size, n)
        cross = emit.buffer(block.size, n, trans=load.trans)
        emit.symm(cov, rows, cross, right=True)
        root = _block_root(planner, block, cross, rows)
        emit.triangle("trsm", root, True, cross, right=False)
        emit.syrk(cross.T, cov, alpha=emit.constant(-1.0), beta=1)
        if ask.of("zlogdet"):
            logs.append(emit.logdet(root.diagonal, alpha=emit.constant(2.0)))
        for side, state in states.items():
            rest = planner.copy(planner.value(side).part(block.start, 0, block.size, side.cols))
            if block.start:
                emit.gemm(rows, state, rest, alpha=emit.constant(-1.0), beta=1)
            emit.triangle("trsm", root, True, rest, right=False)
            emit.gemm(cross.T, rest, state, beta=int(block.start > 0))
            if side in squares:
                squares[side].append(emit.dot(rest, rest))
    for post in ask.of("post"):
        planner.store(post, Value(cov, half=True))
    for gain in ask.of("gain"):
        planner.store(gain, Value(states[gain.args[3]]))
    for node in ask.of("zlogdet"):
        planner.numbers[node] = _total(planner, logs)
    for node in ask.of("zquad"):
        planner.numbers[node] = _total(planner, squares[node.args[3]])


def _total(planner: Planner, positions: list[int]) -> int:
    total = positions[0]
    for position in positions[1:]:
        total = planner.emit.scalar(ADD, total, position)
    return total


def _block_root(planner: Planner, block: _NoiseBlock, cross: Mat, rows: Mat) -> Mat:
    """Return the Cholesky factor of one block's innovation covariance."""
    emit = planner.emit
    root = emit.buffer(block.size, block.size)
    if block.matrix is None:
        assert block.diagonal is not None
        emit.fill(root, 0)
        emit.axpby(block.diagonal.T, root.diagonal)
    else:
        emit.axpby(planner.value(block.matrix, half_ok=True).stored, root, half=True)
    emit.gemmt(cross, rows.T, root, beta=1)
    emit.potrf(root, blame=f"the innovation covariance of observations {block.start} to {block.start + block.size}")
    return root


# -- one QR ------------------------------------------------------------------------------------------------------------


def _plan_sqrt(planner: Planner, ask: _Ask) -> None:
    emit = planner.emit
    k, n = ask.load.shape or (0, 0)
    noise_root, prior_root = planner.cholesky(ask.noise), planner.cholesky(ask.prior)
    top = emit.buffer(k, k)
    emit.axpby(noise_root.T, top)
    below = emit.buffer(n, k)
    emit.axpby(planner.value(ask.load).T, below)
    emit.triangle("trmm", prior_root.T, False, below, right=False)
    cross, state_root = emit.buffer(k, n), emit.buffer(n, n)
    emit.fill(cross, 0)
    clean = emit.buffer(n, n)
    emit.axpby(prior_root, clean, half=True)
    emit.fill(clean, 0, above=True)
    emit.axpby(clean.T, state_root)
    _array_qr(planner, top, below, cross, state_root)
    for post in ask.of("post"):
        cov = emit.buffer(n, n)
        emit.syrk(state_root.T, cov)
        planner.store(post, Value(cov, half=True))
    whitened = {}
    for side in ask.sides:
        whitened[side] = planner.copy(planner.value(side))
        emit.triangle("trsm", top.T, True, whitened[side], right=False)
    for gain in ask.of("gain"):
        state = emit.buffer(n, gain.cols)
        emit.gemm(cross.T, whitened[gain.args[3]], state)
        planner.store(gain, Value(state))
    for node in ask.of("zquad"):
        planner.numbers[node] = emit.dot(whitened[node.args[3]], whitened[node.args[3]])
    for node in ask.of("zlogdet"):  # the diagonal of a QR may be negative
        squares = emit.buffer(1, k)
        emit.hadamard(top.diagonal, top.diagonal, squares)
        planner.numbers[node] = emit.logdet(squares)


def _array_qr(planner: Planner, top: Mat, below: Mat, cross: Mat, state_root: Mat) -> None:
    """Triangularize [top; below] and apply the same reflectors to [cross; state_root]."""
    emit = planner.emit
    (n, k) = below.shape
    block = min(32, k)
    room = emit.buffer(block * k + block * max(n, k), 1)
    scratch = (room.buf, 0, block * k)
    emit.put("tpqrt", m=n, n=k, flags=(block, 0, 0, 0), A=top, B=below, scratch=scratch, flops=2.0 * n * k * k)
    emit.put(
        "tpmqrt",
        m=n,
        n=n,
        k=k,
        flags=(block, 0, 0, 0),
        A=cross,
        B=state_root,
        C=below,
        scratch=scratch,
        flops=4.0 * n * n * k,
    )
