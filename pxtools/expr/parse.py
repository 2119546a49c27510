"""Cells of formulas to trees: read with `ast`, never evaluated."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pxtools.errors import PxUsageError, nearest
from pxtools.expr.assume import Assumptions, read_assumptions
from pxtools.expr.dims import ONE, Dim, Sizes
from pxtools.expr.tree import Builder, FormulaError, Node, Shape, Span, fail

CONSTANTS = {"pi": math.pi}
DIM_NAMES = ["n", "k", "m", "p", "q", "r", "s", "t", "u", "v", "w"]


@dataclass(repr=False)
class Problem:
    """Formulas with their inputs, shapes and assumptions; what the planner starts from."""

    outputs: dict[str, Node]
    inputs: dict[str, Shape | None]
    assumptions: Assumptions
    sizes: Sizes
    source: str = ""
    assigned: dict[str, Node] = field(default_factory=dict)

    def __repr__(self) -> str:
        takes = ", ".join(f"{name}: {self.shape_text(name)}" for name in self.inputs)
        return f"Problem({takes} -> {', '.join(self.outputs)})"

    def shape_text(self, name: str) -> str:
        shape = self.inputs.get(name, None) if name in self.inputs else self.outputs[name].shape
        return "scalar" if shape is None else "×".join(str(self.sizes.resolve(d)) for d in shape)

    def dim_names(self) -> list[str]:
        """Return the names of the open sizes, in the order in which the inputs show them."""
        names: dict[str, None] = {}
        for shape in [*self.inputs.values(), *(node.shape for node in self.assigned.values())]:
            for dim in shape or ():
                names.update({name: None for name, _ in self.sizes.resolve(dim).terms})
        return list(names)


def parse_cell(source: str, *, assume: object = None, sizes: object = None) -> Problem:
    """Read a cell of assignments in SymPy's matrix language.

    Parameters
    ----------
    source
        Lines `name = formula`. Names that are read before they are assigned are the inputs; assigned names are the
        outputs, except those that begin with an underscore.
    assume
        `"Sigma, R: positive_definite; H: k x n"`, or a mapping; shapes and scalars are declared here too.
    sizes
        `"n=1000,k=500"` or a mapping, to fix named sizes.

    Returns
    -------
    Problem
        Its inputs, outputs, and their shapes.

    Raises
    ------
    FormulaError
        When the text is no formula or shapes do not fit; the message points at the place.

    Examples
    --------
    >>> problem = parse_cell("x = A.I*b", assume="A: positive_definite; b: vector")
    >>> list(problem.inputs), list(problem.outputs), problem.shape_text("x")
    (['A', 'b'], ['x'], 'n×1')
    """
    reader = _Reader(source, read_assumptions(assume))
    problem = reader.read()
    fix_sizes(problem, sizes)
    return problem


def fix_sizes(problem: Problem, sizes: object) -> None:
    """Put given values into named sizes."""
    for name, value in read_sizes(sizes).items():
        if name not in problem.dim_names():
            known = ", ".join(problem.dim_names()) or "none"
            raise PxUsageError(f"There is no size `{name}` in these formulas (sizes: {known}).")
        if not problem.sizes.learn(Dim.var(name), Dim.of(value)):
            raise PxUsageError(f"The size {name} = {value} contradicts the formulas.")


def read_sizes(sizes: object) -> dict[str, int]:
    """Read `"n=1000,k=500"` or a mapping.

    Examples
    --------
    >>> read_sizes("n=1000, k=500")
    {'n': 1000, 'k': 500}
    """
    if sizes is None:
        return {}
    if isinstance(sizes, Mapping):
        return {str(name): int(value) for name, value in sizes.items()}
    result = {}
    for part in str(sizes).replace(";", ",").split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not name.isidentifier() or not value.isdigit():
            raise PxUsageError(f"`{part.strip()}` is no size. Write `--sizes n=1000,k=500`.")
        result[name] = int(value)
    return result


class _Reader:
    """One pass over the cell's syntax tree."""

    def __init__(self, source: str, assumptions: Assumptions) -> None:
        self.source = source
        self.lines = source.splitlines()
        self.assumptions = assumptions
        self.build = Builder()
        self.bound: dict[str, Node] = {}
        self.inputs: dict[str, Node] = {}

    def read(self) -> Problem:
        for statement in self._statements():
            target = statement.targets[0] if len(statement.targets) == 1 else None
            if not isinstance(target, ast.Name):
                raise fail("Assign each formula to one plain name.", self.span(statement))
            node = self.visit(statement.value)
            if target.id in self.assumptions.shapes:
                self._declare(target.id, node)
            self.bound[target.id] = node
        outputs = {name: node for name, node in self.bound.items() if not name.startswith("_")}
        if not outputs:
            raise FormulaError("There is no formula in this cell. Write `name = formula` lines.")
        self._name_sizes()
        inputs = {name: node.shape for name, node in self.inputs.items()}
        self._check_assumed()
        return Problem(outputs, inputs, self.assumptions, self.build.sizes, self.source, dict(self.bound))

    def _statements(self) -> list[ast.Assign]:
        try:
            body = ast.parse(self.source).body
        except SyntaxError as error:
            line = (error.text or "").rstrip("\n")
            start = max(0, (error.offset or 1) - 1)
            raise fail(f"This is no formula: {error.msg}.", Span(line, start, start + 1)) from None
        for statement in body:
            if not isinstance(statement, ast.Assign):
                raise fail("Only `name = formula` lines are understood here.", self.span(statement))
        return [statement for statement in body if isinstance(statement, ast.Assign)]

    def span(self, item: ast.AST) -> Span | None:
        line, start = getattr(item, "lineno", None), getattr(item, "col_offset", 0)
        if line is None or line > len(self.lines):
            return None
        text = self.lines[line - 1]
        end = getattr(item, "end_col_offset", start + 1)
        if getattr(item, "end_lineno", line) != line:
            end = len(text.encode())
        # ast counts bytes; carets count characters
        begin = len(text.encode()[:start].decode())
        return Span(text, begin, len(text.encode()[:end].decode()))

    def _check_assumed(self) -> None:
        known = [*self.inputs, *self.bound]
        for name in [*self.assumptions.properties, *self.assumptions.shapes]:
            if name not in known:
                raise PxUsageError(f"`{name}` is in the assumptions and in no formula.{nearest(name, known)}")

    def _name_sizes(self) -> None:
        """Give open sizes textbook names: n, k, m, … for rows, c for mere columns such as those of data."""
        shapes = [node.shape for node in [*self.inputs.values(), *self.bound.values()] if node.shape]
        taken = {name for shape in shapes for dim in shape for name, _ in self.build.sizes.resolve(dim).terms}
        rows = {self.build.sizes.resolve(shape[0]) for shape in shapes}
        names = [name for name in DIM_NAMES if name not in taken]
        columns = ["c", *(f"c{i}" for i in range(2, 100))]
        columns = [name for name in columns if name not in taken]
        for axis in (0, 1):
            for shape in shapes:
                dim = self.build.sizes.resolve(shape[axis])
                for name, _ in dim.terms:
                    if name.startswith("?"):
                        pool = names if dim in rows and names else columns
                        self.build.sizes.known[name] = Dim.var(pool.pop(0))

    # -- expressions ---------------------------------------------------------------------------------------------

    def visit(self, item: ast.expr) -> Node:
        method: Callable[[ast.expr], Node] | None = getattr(self, f"_{type(item).__name__.lower()}", None)
        if method is None:
            raise fail("This is not part of the matrix language.", self.span(item))
        return method(item)

    def _constant(self, item: ast.Constant) -> Node:
        if isinstance(item.value, bool) or not isinstance(item.value, (int, float)):
            raise fail("Only numbers and matrices may stand in a formula.", self.span(item))
        return self.build.number(item.value, self.span(item))

    def _name(self, item: ast.Name) -> Node:
        name = item.id
        if name in self.bound:
            return self.bound[name]
        if name in self.inputs:
            return self.inputs[name]
        known = name in self.assumptions.properties or name in self.assumptions.shapes
        if name in CONSTANTS and not known:
            return self.build.number(CONSTANTS[name], self.span(item))
        if name == "I" and not known:
            return self.build.identity(None, self.span(item))
        return self._new_input(name, self.span(item))

    def _new_input(self, name: str, span: Span | None) -> Node:
        if self.assumptions.has(name, "scalar"):
            node = self.build.symbol(name, None, span)
        else:
            rows, cols = self.build.fresh(), self.build.fresh()
            found = self.assumptions.properties.get(name, set())
            if found & {"symmetric", "lower", "upper", "orthogonal", "square"}:
                cols = rows
            if "vector" in found:
                cols = ONE
            node = self.build.symbol(name, (rows, cols), span)
            if name in self.assumptions.shapes:
                self._declare(name, node)
        self.inputs[name] = node
        return node

    def _declare(self, name: str, node: Node) -> None:
        for dim, word in zip(node.shape or (), self.assumptions.shapes[name], strict=True):
            said = Dim.of(int(word)) if word.isdigit() else Dim.var(word)
            text = " x ".join(self.assumptions.shapes[name])
            self.build.same(dim, said, f"`{name}` is declared {text} and is {self.build.shown(node)}.", node.span)

    def _binop(self, item: ast.BinOp) -> Node:
        span = self.span(item)
        if isinstance(item.op, ast.Pow):
            return self._power(item, span)
        left, right = self.visit(item.left), self.visit(item.right)
        if isinstance(item.op, ast.Add):
            return self.build.add(left, right, 1, span)
        if isinstance(item.op, ast.Sub):
            return self.build.add(left, right, -1, span)
        if isinstance(item.op, (ast.Mult, ast.MatMult)):
            return self.build.mul(left, right, span)
        if isinstance(item.op, ast.Div):
            return self.build.divide(left, right, span)
        raise fail("This operator is not part of the matrix language.", span)

    def _power(self, item: ast.BinOp, span: Span | None) -> Node:
        exponent = self.visit(item.right)
        value = _number(exponent)
        base = self.visit(item.left)
        if value is None:
            if base.is_scalar and exponent.is_scalar:
                return Node("pow", (base, exponent), None, span=span)
            raise fail("The exponent must be a number.", self.span(item.right))
        return self.build.power(base, value, span)

    def _unaryop(self, item: ast.UnaryOp) -> Node:
        node = self.visit(item.operand)
        if isinstance(item.op, ast.USub):
            value = _number(node)
            if value is not None:
                return self.build.number(-value, self.span(item))
            return self.build.negate(node, self.span(item))
        if isinstance(item.op, ast.UAdd):
            return node
        raise fail("This operator is not part of the matrix language.", self.span(item))

    def _attribute(self, item: ast.Attribute) -> Node:
        node, span = self.visit(item.value), self.span(item)
        if item.attr in ("T", "H"):
            return self.build.transpose(node, span)
        if item.attr == "I":
            return self.build.inverse(node, span)
        raise fail(f"A matrix has `.T` and `.I`, no `.{item.attr}`.", span)

    def _list(self, item: ast.List) -> Node:
        rows = [row.elts if isinstance(row, ast.List) else [row] for row in item.elts]
        if item.elts and not any(isinstance(row, ast.List) for row in item.elts):
            rows = [list(item.elts)]
        return self.build.block([[self.visit(cell) for cell in row] for row in rows], self.span(item))

    def _call(self, item: ast.Call) -> Node:
        from pxtools.expr.language import call_function

        span = self.span(item)
        if item.keywords:
            raise fail("Functions of the matrix language take no keywords.", span)
        if isinstance(item.func, ast.Attribute):
            return call_function(self, item.func.attr, [item.func.value, *item.args], span, is_method=True)
        if isinstance(item.func, ast.Name):
            return call_function(self, item.func.id, item.args, span)
        raise fail("This is not a function of the matrix language.", span)

    def dim(self, item: ast.expr) -> Dim:
        """Read a size: a whole number or a name of the assumptions' shapes."""
        if isinstance(item, ast.Constant) and isinstance(item.value, int):
            return Dim.of(item.value)
        if isinstance(item, ast.Name):
            return Dim.var(item.id)
        raise fail("A size is a whole number or a name.", self.span(item))


def _number(node: Node) -> float | None:
    return node.data if node.op == "num" else None
