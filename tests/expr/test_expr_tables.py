"""A plan is a table of operations over buffers: another table, for another device, can stand beside the CPU's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from expr_reference import PAIR, SAID, cholesky_long, relative_error, substitute_long, update_inputs, update_long

from pxtools.expr import compile
from pxtools.kernels.blasplan import OPS


class LongDevice:
    """Stands for a device: it has its own memory, of long doubles, and its own table of operations."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def __call__(self, table: Any, buffers: list[Any], scalars: Any, pivots: Any, single: bool) -> tuple[int, int]:
        names = {code: name for name, code in OPS.items()}
        with np.errstate(invalid="ignore"):  # what nothing wrote yet may hold any bits, a signalling NaN too
            memory = [np.array(buffer.ravel(order="K"), dtype=np.longdouble) for buffer in buffers]  # to the device
        for row, line in enumerate(table):
            name = names[int(line[0])]
            self.ran.append(name)
            operation: Callable[[_Operands], int | None] = getattr(self, name)
            info = operation(_Operands(line, memory, scalars))
            if info:
                return row, info
        with np.errstate(invalid="ignore"):
            for buffer, there in zip(buffers, memory, strict=True):  # and back
                if buffer.flags.writeable:
                    buffer.ravel(order="K")[...] = there
        return -1, 0

    def check(self, s: _Operands) -> None:
        pass

    def axpby(self, s: _Operands) -> None:
        s.write("C", s.m, s.n, s.op("A", s.f1, s.m, s.n), half=bool(s.f2))

    def gemm(self, s: _Operands) -> None:
        s.write("C", s.m, s.n, s.op("A", s.f1, s.m, s.k) @ s.op("B", s.f2, s.k, s.n))

    def gemmt(self, s: _Operands) -> None:
        s.write("C", s.n, s.n, s.op("A", s.f1, s.n, s.k) @ s.op("B", s.f2, s.k, s.n), half=True)

    def syrk(self, s: _Operands) -> None:
        a = s.op("A", s.f1, s.n, s.k)
        s.write("C", s.n, s.n, a @ a.T, half=True)

    def symm(self, s: _Operands) -> None:
        size = s.n if s.f1 else s.m
        low = np.tril(s.view("A", size, size))
        a, b = low + np.tril(low, -1).T, s.view("B", s.m, s.n)
        s.write("C", s.m, s.n, b @ a if s.f1 else a @ b)

    def potrf(self, s: _Operands) -> None:
        c = s.view("C", s.n, s.n)
        c[...] = cholesky_long(np.tril(c) + np.tril(c, -1).T) + np.triu(c, 1)

    def trsm(self, s: _Operands) -> None:
        assert not s.f2  # the pair needs lower factors only
        low, c = np.tril(s.view("A", *[s.n if s.f1 else s.m] * 2)), s.view("C", s.m, s.n)
        if s.f1 and s.f3:
            c[...] = substitute_long(low, c.T).T
        else:
            assert not s.f1
            assert not s.f3
            c[...] = substitute_long(low, c)

    def mirror(self, s: _Operands) -> None:
        c = s.view("C", s.n, s.n)
        c[...] = np.tril(c) + np.tril(c, -1).T


class _Operands:
    def __init__(self, line: Any, memory: list[Any], scalars: Any) -> None:
        self.m, self.n, self.k, self.f1, self.f2, self.f3 = map(int, line[1:7])
        self.line, self.memory = line, memory
        self.alpha, self.beta = scalars[line[17]], scalars[line[18]]

    def view(self, which: str, rows: int, cols: int) -> Any:
        slot, offset, ld = map(int, self.line[{"A": 8, "B": 11, "C": 14}[which] :][:3])
        piece = self.memory[slot][offset:]
        strides = (piece.itemsize, piece.itemsize * ld)
        return np.lib.stride_tricks.as_strided(piece, (rows, cols), strides)

    def op(self, which: str, trans: int, rows: int, cols: int) -> Any:
        return self.view(which, cols, rows).T if trans else self.view(which, rows, cols)

    def write(self, which: str, rows: int, cols: int, value: Any, half: bool = False) -> None:
        target = self.view(which, rows, cols)
        new = self.alpha * value + (self.beta * target if self.beta else 0)
        target[...] = np.where(np.tri(rows, cols, dtype=bool), new, target) if half else new


@pytest.mark.parametrize("blocks", ["auto", 2])
def test_another_table_runs_the_same_plan(blocks):
    inputs = update_inputs("post_definite", 60, 30)
    formula = compile(PAIR, assumptions=SAID, form="cholesky", blocks=blocks)
    here = formula(**inputs)
    formula.run_table = device = LongDevice()
    there = formula(**inputs)
    assert {"symm", "gemmt", "potrf", "trsm", "syrk", "gemm", "axpby", "mirror"} <= set(device.ran)
    mean, cov = update_long(**inputs)
    assert relative_error(there.new_Sigma, cov) < relative_error(here.new_Sigma, cov) / 10
    assert relative_error(there.new_mu, mean) < 1e-12
    assert np.array_equal(there.new_Sigma, there.new_Sigma.T)
