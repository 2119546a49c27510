"""SymPy's matrix expressions to trees. SymPy itself is imported by whoever made the expressions, not here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pxtools.errors import PxUsageError
from pxtools.expr.assume import Assumptions, read_assumptions
from pxtools.expr.dims import Dim
from pxtools.expr.parse import Problem, fix_sizes
from pxtools.expr.tree import Builder, FormulaError, Node


def problem_from_sympy(
    outputs: Mapping[str, Any] | Iterable[Any],
    inputs: Iterable[Any] | None,
    assumptions: Any,
    sizes: Any = None,
) -> Problem:
    """Read SymPy expressions as a problem.

    Parameters
    ----------
    outputs
        Expressions by name, or a sequence (named `out_0`, `out_1`, …); an expression that is a `MatrixSymbol` in a
        sequence lends its name.
    inputs
        `MatrixSymbol`s and scalar `Symbol`s in the order of the arguments; by default in order of appearance.
    assumptions
        `sympy.Q` predicates, conjunctions or sequences of them, or what `parse_cell` takes.

    Raises
    ------
    FormulaError
        When an expression is not part of the matrix language here, or an input is missing.
    """
    named = dict(outputs) if isinstance(outputs, Mapping) else {f"out_{i}": e for i, e in enumerate(outputs)}
    reader = _SymPyReader(read_assumptions(assumptions))
    nodes = {str(name): reader.read(expr) for name, expr in named.items()}
    if inputs is not None:
        reader.reorder(list(inputs))
    shapes = {name: node.shape for name, node in reader.inputs.items()}
    source = "\n".join(f"{name} = {expr}" for name, expr in named.items())
    problem = Problem(nodes, shapes, reader.assumptions, reader.build.sizes, source, dict(nodes))
    fix_sizes(problem, sizes)
    return problem


class _SymPyReader:
    def __init__(self, assumptions: Assumptions) -> None:
        self.build = Builder()
        self.assumptions = assumptions
        self.inputs: dict[str, Node] = {}
        self._done: dict[Any, Node] = {}

    def read(self, expr: Any) -> Node:
        if isinstance(expr, (int, float)):
            return self.build.number(expr)
        if expr not in self._done:
            self._done[expr] = self._read(expr)
        return self._done[expr]

    def _read(self, expr: Any) -> Node:
        for kind in type(expr).__mro__:
            method: Callable[[Any], Node] | None = getattr(self, f"_{kind.__name__.lower()}", None)
            if method is not None:
                return method(expr)
        if getattr(expr, "is_number", False):
            return self.build.number(float(expr))
        raise FormulaError(f"SymPy's {type(expr).__name__} is not part of the matrix language here: {expr}")

    def reorder(self, wanted: list[Any]) -> None:
        names = [str(getattr(symbol, "name", symbol)) for symbol in wanted]
        missing = [name for name in self.inputs if name not in names]
        if missing:
            raise FormulaError(f"The formulas need {', '.join(f'`{m}`' for m in missing)} among the inputs.")
        self.inputs = {name: self.inputs.get(name) or self.read(s) for name, s in zip(names, wanted, strict=True)}

    def dim(self, size: Any) -> Dim:
        """Read a size: a whole number, a symbol, or a linear sum of them."""
        if getattr(size, "is_Integer", False) or isinstance(size, int):
            return Dim.of(int(size))
        if getattr(size, "is_Symbol", False):
            return Dim.var(size.name)
        if getattr(size, "is_Add", False):
            total = Dim.of(0)
            for part in size.args:
                total = total + self.dim(part)
            return total
        if getattr(size, "is_Mul", False) and len(size.args) == 2 and size.args[0].is_Integer:
            return self.dim(size.args[1]).times(int(size.args[0]))
        raise PxUsageError(f"The size {size} is not a whole number, a symbol or a sum of them.")

    # -- SymPy's classes, by name --------------------------------------------------------------------------------

    def _matrixsymbol(self, expr: Any) -> Node:
        node = self.build.symbol(expr.name, (self.dim(expr.shape[0]), self.dim(expr.shape[1])))
        return self.inputs.setdefault(expr.name, node)

    def _symbol(self, expr: Any) -> Node:
        words = {"scalar"} | ({"positive"} if expr.is_positive else set())
        self.assumptions.properties.setdefault(expr.name, set()).update(words)
        return self.inputs.setdefault(expr.name, self.build.symbol(expr.name, None))

    def _fold(self, function: Callable[[Node, Node], Node], args: Iterable[Any]) -> Node:
        nodes = [self.read(arg) for arg in args]
        total = nodes[0]
        for node in nodes[1:]:
            total = function(total, node)
        return total

    def _matmul(self, expr: Any) -> Node:
        return self._fold(self.build.mul, expr.args)

    _mul = _matmul

    def _matadd(self, expr: Any) -> Node:
        return self._fold(self.build.add, expr.args)

    _add = _matadd

    def _hadamardproduct(self, expr: Any) -> Node:
        return self._fold(self.build.hadamard, expr.args)

    def _transpose(self, expr: Any) -> Node:
        return self.build.transpose(self.read(expr.args[0]))

    def _inverse(self, expr: Any) -> Node:
        return self.build.inverse(self.read(expr.args[0]))

    def _matrixsolve(self, expr: Any) -> Node:
        return self.build.solve(self.read(expr.args[0]), self.read(expr.args[1]))

    def _matpow(self, expr: Any) -> Node:
        return self.build.power(self.read(expr.args[0]), float(expr.args[1]))

    def _pow(self, expr: Any) -> Node:
        base, exponent = map(self.read, expr.args)
        return Node("pow", (base, exponent))

    def _identity(self, expr: Any) -> Node:
        return self.build.identity(self.dim(expr.shape[0]))

    def _zeromatrix(self, expr: Any) -> Node:
        return self.build.zero(self.dim(expr.shape[0]), self.dim(expr.shape[1]))

    def _diagmatrix(self, expr: Any) -> Node:
        return self.build.diag(self.read(expr.args[0]))

    def _diagonalof(self, expr: Any) -> Node:
        return self.build.diagonal(self.read(expr.args[0]))

    def _diagonalmatrix(self, expr: Any) -> Node:
        return self.build.diag(self.build.diagonal(self.read(expr.args[0])))

    def _trace(self, expr: Any) -> Node:
        return self.build.scalar_of("trace", self.read(expr.args[0]))

    def _determinant(self, expr: Any) -> Node:
        return self.build.scalar_of("det", self.read(expr.args[0]))

    def _log(self, expr: Any) -> Node:
        inner = self.read(expr.args[0])
        return self.build.scalar_of("logdet", inner.args[0]) if inner.op == "det" else self.build.function("log", inner)

    def _exp(self, expr: Any) -> Node:
        return self.build.function("exp", self.read(expr.args[0]))

    def _matrixelement(self, expr: Any) -> Node:
        if expr.args[0].shape != (1, 1):
            raise FormulaError("Of the entries of a matrix only those of 1×1 matrices are understood.")
        return self.build.as_scalar(self.read(expr.args[0]))

    def _blockmatrix(self, expr: Any) -> Node:
        rows, cols = expr.blockshape
        return self.build.block([[self.read(expr.blocks[i, j]) for j in range(cols)] for i in range(rows)])

    def _blockdiagmatrix(self, expr: Any) -> Node:
        return self.build.block_diagonal([self.read(part) for part in expr.args])

    def _matrixslice(self, expr: Any) -> Node:
        (top, bottom, row_step), (left, right, col_step) = expr.rowslice, expr.colslice
        if (row_step, col_step) != (1, 1):
            raise FormulaError("Slices with a step are not understood.")
        shape = (self.dim(bottom - top), self.dim(right - left))
        return Node("slice", (self.read(expr.parent),), shape, (self.dim(top), self.dim(left)))
