"""The inputs of a call: sizes learned from their shapes, values turned into what the kernel reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pxtools.errors import PxUsageError
from pxtools.expr.dims import ONE, Dim
from pxtools.expr.failure import check_orthogonal
from pxtools.expr.parse import Problem
from pxtools.expr.search import Layout
from pxtools.expr.tree import NotPositiveDefinite

Array = np.ndarray[Any, Any]


def as_real(name: str, value: Any) -> Array:
    """Return a value as an array of real numbers with at most two dimensions."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise PxUsageError(f"`{name}` must hold real numbers, and its dtype is {array.dtype}.")
    if array.ndim > 2:
        raise PxUsageError(f"`{name}` must be a matrix or a vector, and it has {array.ndim} dimensions.")
    return array


@dataclass
class InputReader:
    """Learns the sizes from the inputs' shapes, one after another."""

    problem: Problem
    assume: bool
    c_order: set[str] = field(default_factory=set)
    vectors: set[str] = field(default_factory=set)
    one_dim: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.sizes = self.problem.sizes.copy()
        self.told: dict[str, str] = {}

    def read(self, name: str, array: Array) -> None:
        """Learn from one input."""
        shape = self.problem.inputs[name]
        if shape is None:
            if array.size != 1:
                raise PxUsageError(f"`{name}` is a number in the formulas, and it came with shape {array.shape}.")
            return
        if self.assume and self.problem.assumptions.has(name, "diagonal"):
            self.vectors.add(name)
            self._learn(name, shape, array.shape if array.ndim == 2 else (array.size, array.size))
            return
        if array.ndim < 2:
            self.one_dim.add(name)
            array = array.reshape(-1, 1)
        if not array.flags.f_contiguous:
            self.c_order.add(name)
        self._learn(name, shape, array.shape)

    def read_square(self, name: str, size: int) -> None:
        """Learn from a square matrix of which only the size is known here."""
        shape = self.problem.inputs[name]
        if shape is None:
            raise PxUsageError(f"`{name}` is a number in the formulas, and it came as a matrix in blocks.")
        self._learn(name, shape, (size, size))

    def _learn(self, name: str, shape: tuple[Dim, Dim], found: tuple[int, ...]) -> None:
        for axis in (0, 1):
            if not self.sizes.learn(shape[axis], Dim.of(found[axis])):
                dim = self.problem.sizes.resolve(shape[axis])
                known = self.sizes.value(dim)
                by = next((f" (from `{self.told[n]}`)" for n, _ in dim.terms if n in self.told), "")
                want = f"{dim} = {known}{by}" if not dim.is_known else str(dim)
                raise PxUsageError(
                    f"`{name}` came with shape {found[0]}×{found[1]}, and its "
                    f"{('rows', 'columns')[axis]} must be {want}.\n"
                    f"In the formulas it is {self.problem.shape_text(name)}."
                )
            for dim_name, _ in self.problem.sizes.resolve(shape[axis]).terms:
                self.told.setdefault(dim_name, name)

    def flat_outputs(self) -> tuple[bool, ...]:
        """Tell which outputs lose their second dimension: those whose columns only inputs with one dimension have."""
        flat: set[str] = set()
        kept: set[str] = set()
        for name, shape in self.problem.inputs.items():
            if shape is not None:
                (flat if name in self.one_dim else kept).add(self._columns(shape))
        shapes = (node.shape for node in self.problem.outputs.values())
        return tuple(shape is not None and self._columns(shape) in flat - kept for shape in shapes)

    def _columns(self, shape: tuple[Dim, Dim]) -> str:
        dim = self.problem.sizes.resolve(shape[1])
        return "1" if dim == ONE else str(dim)


def convert(problem: Problem, name: str, array: Array, layout: Layout, dtype: Any) -> Any:
    """Return an input as the kernel reads it; a copy only where type or memory order ask for one."""
    if problem.inputs[name] is None:
        return float(array.reshape(()))
    if name in layout.vectors:
        return _diagonal(problem, name, array, dtype)
    if array.ndim < 2:
        array = array.reshape(-1, 1)
    if layout.assume and problem.assumptions.has(name, "orthogonal"):
        check_orthogonal(name, array)
    return np.asarray(array, dtype=dtype, order="C" if name in layout.c_order else "F")


def _diagonal(problem: Problem, name: str, array: Array, dtype: Any) -> Array:
    """Keep a diagonal matrix as its diagonal, whichever way it was given."""
    if array.ndim == 2:
        off = np.count_nonzero(array) - np.count_nonzero(array.diagonal())
        if off:
            raise NotPositiveDefinite(
                f"`{name}` is said to be diagonal, and {off} entries off its diagonal are not zero."
            )
        array = array.diagonal()
    vector = np.ascontiguousarray(array, dtype=dtype).reshape(-1)
    if problem.assumptions.has(name, "pd") and not np.all(vector > 0):
        worst = int(np.argmin(vector))
        raise NotPositiveDefinite(
            f"`{name}` is said to be positive definite, and its diagonal entry {worst} is {vector[worst]:g}."
        )
    return vector
