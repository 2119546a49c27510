"""Plans in blocks: every large operation cut into operations on tiles.

The post cut expressions before it compiled them, and so had to invert blocks; the error of that grows with the
square of the condition number (its 1e-3). Here the plan is cut instead: a Cholesky factorization in blocks never forms
an inverse and is as accurate as one in a piece. In one process the kernels' own recursion is faster, so `auto` cuts
nothing; tiles are for matrices that are spread over several memories.

References
----------
Golub, Van Loan (2013), Matrix Computations, 4.2.9 (blocked Cholesky), 3.1.4 (blocked substitution).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pxtools.errors import PxUsageError
from pxtools.expr.emit import Emitter, Mat, Step

Cuts = list[tuple[int, int]]


def read_blocks(blocks: Any, sizes: Mapping[str, int]) -> Callable[[int], Cuts] | None:
    """Return how to cut a size: None for "auto" and 1, else a function to pairs (start, length).

    Examples
    --------
    >>> read_blocks(3, {})(10)
    [(0, 3), (3, 3), (6, 4)]
    >>> read_blocks({"n": (7, 3)}, {"n": 10})(10)
    [(0, 7), (7, 3)]
    """
    if blocks in (None, "auto", 1, "1"):
        return None
    if isinstance(blocks, Mapping):
        given = {sizes.get(str(key), key): tuple(map(int, parts)) for key, parts in blocks.items()}
        for size, parts in given.items():
            if sum(parts) != size or min(parts) < 1:
                raise PxUsageError(f"The blocks {parts} do not add up to {size}.")
        return lambda size: _starts(given.get(size, (size,)))
    try:
        count = int(blocks)
    except (TypeError, ValueError):
        raise PxUsageError(f"`{blocks}` is no number of blocks. Write `--blocks auto` or `--blocks 2`.") from None
    if count < 1:
        raise PxUsageError(f"`{blocks}` is no number of blocks. Write `--blocks auto` or `--blocks 2`.")
    return lambda size: _even(size, count)


def _even(size: int, count: int) -> Cuts:
    count = max(1, min(count, size))
    edges = [size * i // count for i in range(count + 1)]
    return [(a, b - a) for a, b in itertools.pairwise(edges)]


def _starts(parts: tuple[int, ...]) -> Cuts:
    cuts, start = [], 0
    for part in parts:
        cuts.append((start, part))
        start += part
    return cuts


def tiled(emitter: Emitter, cuts: Callable[[int], Cuts]) -> None:
    """Replace the emitter's large steps by steps on tiles."""
    old, emitter.steps = emitter.steps, []
    tiler = _Tiler(emitter, cuts)
    for step in old:
        method = getattr(tiler, step.op, None)
        if method is None or tiler.is_small(step):
            emitter.steps.append(step)
        else:
            method(step)


@dataclass
class _Tiler:
    """One method for each operation that is cut; all arithmetic is in `Emitter`'s terms."""

    emit: Emitter
    cuts: Callable[[int], Cuts]

    def is_small(self, step: Step) -> bool:
        return step.op in ("gemm", "symm", "trsm") and 1 in (step.m, step.n)

    @staticmethod
    def _read(mat: Mat | None, trans: int) -> Mat:
        assert mat is not None
        return replace(mat, trans=bool(trans))

    def gemm(self, step: Step) -> None:
        a, b, c = self._read(step.A, step.flags[0]), self._read(step.B, step.flags[1]), self._read(step.C, 0)
        for i, m in self.cuts(step.m):
            for j, n in self.cuts(step.n):
                for nth, (p, k) in enumerate(self.cuts(step.k)):
                    beta = step.beta if nth == 0 else 1
                    self.emit.gemm(a.part(i, p, m, k), b.part(p, j, k, n), c.part(i, j, m, n), step.alpha, beta)

    def symm(self, step: Step) -> None:
        right = bool(step.flags[0])
        s, b, c = self._read(step.A, 0), self._read(step.B, 0), self._read(step.C, 0)
        if right:
            b, c = b.T, c.T
        width = c.shape[1]
        for j, n in self.cuts(width):
            for i, m in self.cuts(s.rows):
                for nth, (p, k) in enumerate(self.cuts(s.rows)):
                    beta = step.beta if nth == 0 else 1
                    source, goal = b.part(p, j, k, n), c.part(i, j, m, n)
                    if i == p:
                        self.emit.symm(s.part(i, i, m, m), source, goal, False, step.alpha, beta)
                    else:
                        tile = s.part(i, p, m, k) if i > p else s.part(p, i, k, m).T
                        self.emit.gemm(tile, source, goal, step.alpha, beta)

    def syrk(self, step: Step) -> None:
        a = self._read(step.A, step.flags[0])
        self._lower_product(step, a, a.T, is_syrk=True)

    def gemmt(self, step: Step) -> None:
        self._lower_product(step, self._read(step.A, step.flags[0]), self._read(step.B, step.flags[1]), False)

    def _lower_product(self, step: Step, a: Mat, b: Mat, is_syrk: bool) -> None:
        c = self._read(step.C, 0)
        for i, m in self.cuts(step.n):
            for j, n in self.cuts(step.n):
                for nth, (p, k) in enumerate(self.cuts(step.k)):
                    beta = step.beta if nth == 0 else 1
                    left, right, goal = a.part(i, p, m, k), b.part(p, j, k, n), c.part(i, j, m, n)
                    if i > j:
                        self.emit.gemm(left, right, goal, step.alpha, beta)
                    elif i == j and is_syrk:
                        self.emit.syrk(left, goal, step.alpha, beta)
                    elif i == j:
                        self.emit.gemmt(left, right, goal, step.alpha, beta)

    def trsm(self, step: Step) -> None:
        right, upper, trans, _ = step.flags
        a, c = self._read(step.A, trans), self._read(step.C, 0)
        lower = bool(upper) == bool(trans)
        if right:  # X A = B is A.T X.T = B.T
            a, c, lower = a.T, c.T, not lower
        self._substitute(a, c, lower)

    def _substitute(self, a: Mat, c: Mat, lower: bool) -> None:
        rows = self.cuts(a.rows) if lower else self.cuts(a.rows)[::-1]
        minus = self.emit.constant(-1.0)
        for j, n in self.cuts(c.shape[1]):
            for nth, (i, m) in enumerate(rows):
                goal = c.part(i, j, m, n)
                for p, k in rows[:nth]:
                    self.emit.gemm(a.part(i, p, m, k), c.part(p, j, k, n), goal, minus, 1)
                self.emit.triangle("trsm", a.part(i, i, m, m), lower, goal, right=False)

    def potrf(self, step: Step) -> None:
        c, minus = self._read(step.C, 0), self.emit.constant(-1.0)
        cuts = self.cuts(step.n)
        for nth, (j, n) in enumerate(cuts):
            pivot = c.part(j, j, n, n)
            for p, k in cuts[:nth]:
                self.emit.syrk(c.part(j, p, n, k), pivot, minus, 1)
            self.emit.potrf(pivot, step.blame)
            self.emit.steps[-1] = replace(self.emit.steps[-1], m=step.m + j)
            for i, m in cuts[nth + 1 :]:
                goal = c.part(i, j, m, n)
                for p, k in cuts[:nth]:
                    self.emit.gemm(c.part(i, p, m, k), c.part(j, p, n, k).T, goal, minus, 1)
                self.emit.triangle("trsm", pivot.T, False, goal, right=True)
