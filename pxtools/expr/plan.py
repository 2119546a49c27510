"""The finished plan: steps with their buffers placed, ready for the kernel, for a reader, and for pickling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pxtools.expr.blocks import Cuts, tiled
from pxtools.expr.emit import Buffer, Emitter, Mat, Step
from pxtools.kernels.blasplan import OPS, WIDTH

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class InputSpec:
    """One input as the kernel wants it: its buffer, or its position among the scalars."""

    name: str
    shape: tuple[int, int] | None
    buffer: int = -1
    scalar: int = -1
    is_vector: bool = False
    c_order: bool = False


@dataclass(frozen=True)
class OutputSpec:
    """One output: a buffer read as stored or transposed, or a scalar."""

    name: str
    shape: tuple[int, int] | None
    buffer: int = -1
    trans: bool = False
    scalar: int = -1


@dataclass(frozen=True)
class Plan:
    """A list of BLAS and LAPACK operations for given shapes.

    Attributes
    ----------
    steps
        The operations in order; see `Step`.
    flops
        Floating-point operations of all steps.
    form
        Which form of the formula was planned ("cholesky", "information", "sequential", "sqrt").
    considered
        Flops of the forms that were compared.
    """

    steps: tuple[Step, ...]
    buffers: tuple[Buffer, ...]
    scalars: tuple[float, ...]
    n_pivots: int
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    #: where each buffer lies: ("input" | "output" | "work", offset in the arena)
    places: tuple[int, ...]
    arena: int
    form: str = "cholesky"
    considered: tuple[tuple[str, float], ...] = ()

    @property
    def flops(self) -> float:
        return sum(step.flops for step in self.steps)

    @property
    def ops(self) -> list[str]:
        """Return the names of the operations that do arithmetic, vector forms named as such."""
        return [op_name(step) for step in self.steps if step.op not in ("check",)]

    def table(self) -> Array:
        """Return the kernel's table of operations."""
        table = np.zeros((len(self.steps), WIDTH), dtype=np.int64)
        for row, step in zip(table, self.steps, strict=True):
            row[0] = OPS[step.op]
            row[1:4] = step.m, step.n, step.k
            row[4:8] = step.flags
            for start, mat in ((8, step.A), (11, step.B), (14, step.C)):
                if mat is not None:
                    row[start : start + 3] = self._place(mat)
            row[17], row[18], row[19], row[20] = step.alpha, step.beta, step.pivots, step.result
            if step.scratch:
                slot, offset, _ = self._place(Mat(step.scratch[0], 0, 1, 1, 1))
                row[21:24] = slot, offset + step.scratch[1], offset + step.scratch[2]
        return table

    def _place(self, mat: Mat) -> tuple[int, int, int]:
        """Return slot, offset and leading dimension; slot 0 is the arena, the others follow `slots`."""
        buffer = self.buffers[mat.buf]
        if buffer.kind == "temp":
            return 0, self.places[mat.buf] + mat.offset, mat.ld
        return self.places[mat.buf], mat.offset, mat.ld


def op_name(step: Step) -> str:
    """Return the operation's name as BLAS would call it for these sizes."""
    if step.op in ("gemm", "symm") and 1 in (step.m, step.n):
        return {"gemm": "gemv", "symm": "symv"}[step.op]
    if step.op == "trsm" and (step.m if step.flags[0] else step.n) == 1:
        return "trsv"
    if step.op == "axpby" and (step.alpha, step.beta) == (1, 0):
        return "copy"
    return step.op


def finish(
    emitter: Emitter,
    inputs: list[InputSpec],
    outputs: list[OutputSpec],
    form: str,
    considered: tuple[tuple[str, float], ...],
    cuts: Callable[[int], Cuts] | None = None,
) -> Plan:
    """Drop copies that are not needed, cut into blocks, place temporaries in one arena, and freeze."""
    emitter.steps = coalesce(emitter.steps, emitter.buffers)
    if cuts is not None:
        tiled(emitter, cuts)
    steps = emitter.steps
    used = {mat.buf for step in steps for mat in (step.A, step.B, step.C) if mat}
    used |= {step.scratch[0] for step in steps if step.scratch}
    places, slot = [0] * len(emitter.buffers), 1
    for index, buffer in enumerate(emitter.buffers):
        if buffer.kind != "temp":
            places[index] = slot
            slot += 1
    arena = place_temporaries(steps, emitter.buffers, places, used)
    return Plan(
        tuple(steps),
        tuple(emitter.buffers),
        tuple(emitter.scalars),
        emitter.n_pivots,
        tuple(inputs),
        tuple(outputs),
        tuple(places),
        arena,
        form,
        considered,
    )


def coalesce(steps: list[Step], buffers: list[Buffer]) -> list[Step]:
    """Let a copy and its original share memory where the original is temporary and not needed afterwards."""
    steps = list(steps)
    index = 0
    while index < len(steps):
        merged = _merge_at(steps, index, buffers)
        if merged is None:
            index += 1
        else:
            steps = merged
    return steps


def _merge_at(steps: list[Step], index: int, buffers: list[Buffer]) -> list[Step] | None:
    step = steps[index]
    if step.op != "axpby" or step.beta != 0 or step.alpha != 1 or step.flags[0]:
        return None
    source, copy = step.A, step.C
    assert source is not None
    assert copy is not None
    if source.buf == copy.buf or buffers[source.buf].kind != "temp" or not _is_whole(source, copy, buffers):
        return None
    later, earlier = steps[index + 1 :], steps[:index]
    if any(source.buf in s.reads | s.writes for s in later) or any(copy.buf in s.writes for s in earlier):
        return None
    kept, gone = (source.buf, copy.buf) if buffers[copy.buf].kind == "temp" else (copy.buf, source.buf)
    return [_rename(s, gone, kept) for s in (*earlier, *later)]


def _is_whole(source: Mat, copy: Mat, buffers: list[Buffer]) -> bool:
    a, b = buffers[source.buf], buffers[copy.buf]
    same = (a.rows, a.cols) == (b.rows, b.cols) == (source.rows, source.cols) == (copy.rows, copy.cols)
    return same and source.offset == copy.offset == 0


def _rename(step: Step, old: int, new: int) -> Step:
    def moved(mat: Mat | None) -> Mat | None:
        return replace(mat, buf=new) if mat and mat.buf == old else mat

    return replace(step, A=moved(step.A), B=moved(step.B), C=moved(step.C))


def place_temporaries(steps: list[Step], buffers: list[Buffer], places: list[int], used: set[int]) -> int:
    """Give each temporary an offset in the arena, first fit by lifetime; returns the arena's length."""
    births: dict[int, int] = {}
    deaths: dict[int, int] = {}
    for index, step in enumerate(steps):
        for buf in step.reads | step.writes:
            births.setdefault(buf, index)
            deaths[buf] = index
    placed: list[tuple[int, int, int]] = []  # offset, end, buffer
    arena = 0
    order = sorted((b for b in used if buffers[b].kind == "temp"), key=lambda b: births[b])
    for buf in order:
        size = max(1, buffers[buf].rows * buffers[buf].cols)
        size += -size % 8
        alive = sorted((o, e) for o, e, other in placed if deaths[other] >= births[buf])
        offset = 0
        for start, end in alive:
            if offset + size <= start:
                break
            offset = max(offset, end)
        places[buf] = offset
        placed.append((offset, offset + size, buf))
        arena = max(arena, offset + size)
    return arena
