"""Tables of operations for the blocks of a matrix in column blocks; `spread.py` says what they are for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pxtools.expr.emit import Emitter, Mat
from pxtools.expr.plan import Plan, finish

#: rows and columns of the tiles in which the product V.T*V is taken
TILE = 512


@dataclass(frozen=True)
class Columns:
    """How a matrix of `n` rows lies: block j holds the columns edges[j] … edges[j + 1]."""

    edges: tuple[int, ...]
    is_c_order: tuple[bool, ...]

    @property
    def n(self) -> int:
        return self.edges[-1]

    def width(self, j: int) -> int:
        return self.edges[j + 1] - self.edges[j]


@dataclass(frozen=True)
class Stage:
    """A table of operations, and the buffers that it works on in order: label to shape and memory order."""

    plan: Plan
    buffers: dict[str, tuple[tuple[int, int], str]]


def _stage(build: Callable[[Emitter], None], in_c_order: tuple[str, ...] = ()) -> Stage:
    emitter = Emitter()
    build(emitter)
    buffers = {
        b.name: ((b.cols, b.rows), "C") if b.name in in_c_order else ((b.rows, b.cols), "F")
        for b in emitter.buffers
        if b.kind != "temp"
    }
    return Stage(finish(emitter, [], [], "spread", ()), buffers)


def projection(columns: Columns, j: int, k: int) -> Stage:
    """Return W = U*C_j, the lower triangle of S = W*U_j.T, and a test of symmetry: y = C_j*x_j, z = C_j.T*x."""
    n, width = columns.n, columns.width(j)

    def build(emit: Emitter) -> None:
        load = emit.buffer(k, n, "input", "U")
        block = emit.buffer(n, width, "input", "C", trans=columns.is_c_order[j])
        probe = emit.buffer(n, 1, "input", "x")
        cross, share = emit.buffer(k, width, "output", "W"), emit.buffer(k, k, "output", "S")
        emit.gemm(load, block, cross)
        emit.fill(share, 0)
        emit.gemmt(cross, load.part(0, columns.edges[j], k, width).T, share, beta=1)
        emit.gemm(block, probe.part(columns.edges[j], 0, width, 1), emit.buffer(n, 1, "output", "y"))
        emit.gemm(block.T, probe, emit.buffer(width, 1, "output", "z"))

    return _stage(build)


def whitening(columns: Columns, j: int, k: int) -> Stage:
    """Return W overwritten by V_j = L.I*W."""

    def build(emit: Emitter) -> None:
        low = emit.buffer(k, k, "input", "L")
        emit.triangle("trsm", low, True, emit.buffer(k, columns.width(j), "output", "W"), right=False)

    return _stage(build)


def downdate(columns: Columns, j: int, k: int) -> Stage:
    """Return the new block C_j - V.T*V_j, whose tiles are the mirror images of other blocks' to the last bit."""
    n, width, left = columns.n, columns.width(j), columns.edges[j]
    is_c_order = all(columns.is_c_order)

    def build(emit: Emitter) -> None:
        white = emit.buffer(k, n, "input", "V")
        block = emit.buffer(n, width, "input", "C", trans=columns.is_c_order[j])
        new = emit.buffer(n, width, "output", "new", trans=is_c_order)
        emit.axpby(block, new)
        own = white.part(0, left, k, width)
        emit.syrk(own.T, new.part(left, 0, width, width), emit.constant(-1.0), 1)
        emit.mirror(new.part(left, 0, width, width))
        tiles = _Tiles(emit, white, new, left, {})
        for i in range(len(columns.edges) - 1):
            for top, rows in _cut(columns, i) if i != j else ():
                for first, cols in _cut(columns, j):
                    tiles.subtract(top, rows, first, cols)

    return _stage(build, ("new",) if is_c_order else ())


def _cut(columns: Columns, j: int) -> list[tuple[int, int]]:
    start, end = columns.edges[j], columns.edges[j + 1]
    return [(at, min(TILE, end - at)) for at in range(start, end, TILE)]


@dataclass
class _Tiles:
    """Subtracts V_r.T*V_c from tiles: below the diagonal in place, above it as the transpose of the same product."""

    emit: Emitter
    white: Mat
    new: Mat
    left: int
    spare: dict[tuple[int, int], Mat]

    def subtract(self, top: int, rows: int, first: int, cols: int) -> None:
        emit, k, minus = self.emit, self.white.rows, self.emit.constant(-1.0)
        goal = self.new.part(top, first - self.left, rows, cols)
        above, beside = self.white.part(0, top, k, rows), self.white.part(0, first, k, cols)
        if top > first:
            emit.gemm(above.T, beside, goal, minus, 1)
            return
        if (cols, rows) not in self.spare:
            self.spare[cols, rows] = emit.buffer(cols, rows, trans=self.new.trans)
        turned = self.spare[cols, rows]
        emit.axpby(goal.T, turned)
        emit.gemm(beside.T, above, turned, minus, 1)
        emit.axpby(turned.T, goal)
