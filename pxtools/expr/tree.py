"""The formula as it was written: nodes with shapes and their place in the source.

Both front doors (`parse.py` for cells, `from_sympy.py` for SymPy) build this tree, so that a mistake in a shape
is found once and pointed at in the text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pxtools.errors import PxUsageError
from pxtools.expr.dims import ONE, Dim, Sizes

Shape = tuple[Dim, Dim]


class FormulaError(PxUsageError):
    """A formula that cannot be what was meant; the message points at the place."""


class NotPositiveDefinite(PxUsageError):
    """A matrix that was said to be positive definite is not; nothing was computed."""


@dataclass(frozen=True)
class Span:
    """A place in a source line: 1-based line, 0-based columns."""

    text: str
    start: int
    end: int

    def pointed(self) -> str:
        return f"    {self.text}\n    {' ' * self.start}{'^' * max(1, self.end - self.start)}"


@dataclass(frozen=True, eq=False)
class Node:
    """One operation of a formula; `shape` is None for a scalar."""

    op: str
    args: tuple[Node, ...] = ()
    shape: Shape | None = None
    data: Any = None
    span: Span | None = None

    @property
    def is_scalar(self) -> bool:
        return self.shape is None


def fail(message: str, span: Span | None) -> FormulaError:
    """Return the error with the place under it."""
    return FormulaError(message + ("\n" + span.pointed() if span else ""))


@dataclass
class Builder:
    """Make nodes, learn sizes from them, refuse what does not fit."""

    sizes: Sizes = field(default_factory=Sizes)
    _fresh: int = 0

    def fresh(self) -> Dim:
        self._fresh += 1
        return Dim.var(f"?{self._fresh}")

    def shown(self, node: Node) -> str:
        if node.shape is None:
            return "a scalar"
        rows, cols = (self.sizes.resolve(d) for d in node.shape)
        return f"{_plain(rows)}×{_plain(cols)}"

    def same(self, left: Dim, right: Dim, message: str, span: Span | None) -> None:
        if not self.sizes.learn(left, right):
            raise fail(message, span)

    def number(self, value: float, span: Span | None = None) -> Node:
        return Node("num", data=float(value), span=span)

    def symbol(self, name: str, shape: Shape | None, span: Span | None = None) -> Node:
        return Node("sym", shape=shape, data=name, span=span)

    def as_scalar(self, node: Node, span: Span | None = None) -> Node:
        """Read a 1×1 matrix as a number."""
        if node.shape is None:
            return node
        for dim in node.shape:
            self.same(dim, ONE, f"A number is needed here, and this is {self.shown(node)}.", span or node.span)
        return Node("elem", (node,), None, span=node.span)

    def add(self, left: Node, right: Node, sign: int = 1, span: Span | None = None) -> Node:
        word = "add" if sign > 0 else "subtract"
        if left.is_scalar != right.is_scalar:
            left, right = self.as_scalar(left), self.as_scalar(right)
        if left.shape is not None and right.shape is not None:
            message = f"Cannot {word} {self.shown(left)} and {self.shown(right)}: the shapes differ."
            self.same(left.shape[0], right.shape[0], message, span)
            self.same(left.shape[1], right.shape[1], message, span)
        return Node("add" if sign > 0 else "sub", (left, right), left.shape, span=span)

    def mul(self, left: Node, right: Node, span: Span | None = None) -> Node:
        if left.shape is None or right.shape is None:
            return Node(
                "scale" if left.shape or right.shape else "mul",
                _scalar_first(left, right),
                left.shape or right.shape,
                span=span,
            )
        message = f"Cannot multiply {self.shown(left)} by {self.shown(right)}: the inner sizes differ."
        self.same(left.shape[1], right.shape[0], message, span)
        return Node("mul", (left, right), (left.shape[0], right.shape[1]), span=span)

    def divide(self, left: Node, right: Node, span: Span | None = None) -> Node:
        if right.shape is not None:
            right = self.as_scalar(right, span)
        return self.mul(self.power(right, -1.0, span), left, span)

    def negate(self, node: Node, span: Span | None = None) -> Node:
        return self.mul(self.number(-1.0), node, span)

    def square(self, node: Node, what: str, span: Span | None = None) -> Node:
        if node.shape is None:
            raise fail(f"{what} needs a matrix, and this is a number.", span)
        message = f"{what} needs a square matrix, and this is {self.shown(node)}."
        self.same(node.shape[0], node.shape[1], message, span)
        return node

    def power(self, node: Node, exponent: float, span: Span | None = None) -> Node:
        if node.shape is None:
            return Node("pow", (node, self.number(exponent)), None, span=span)
        if exponent != int(exponent):
            raise fail("Only whole powers of a matrix are known here.", span)
        self.square(node, "A power", span)
        if exponent < 0:
            node, exponent = self.inverse(node, span), -exponent
        if exponent == 0:
            return Node("identity", (), node.shape, span=span)
        result = node
        for _ in range(int(exponent) - 1):
            result = self.mul(result, node, span)
        return result

    def transpose(self, node: Node, span: Span | None = None) -> Node:
        if node.shape is None:
            return node
        return Node("T", (node,), (node.shape[1], node.shape[0]), span=span)

    def inverse(self, node: Node, span: Span | None = None) -> Node:
        if node.shape is None:
            return self.power(node, -1.0, span)
        return Node("inv", (self.square(node, "An inverse", span),), node.shape, span=span)

    def solve(self, left: Node, right: Node, span: Span | None = None) -> Node:
        return self.mul(self.inverse(left, span), right, span)

    def scalar_of(self, op: str, node: Node, span: Span | None = None) -> Node:
        return Node(op, (self.square(node, f"`{op}`", span),), None, span=span)

    def function(self, op: str, node: Node, span: Span | None = None) -> Node:
        return Node(op, (self.as_scalar(node, span),), None, span=span)

    def hadamard(self, left: Node, right: Node, span: Span | None = None) -> Node:
        if left.shape is None or right.shape is None:
            return self.mul(left, right, span)
        message = f"Cannot multiply {self.shown(left)} and {self.shown(right)} entry by entry."
        self.same(left.shape[0], right.shape[0], message, span)
        self.same(left.shape[1], right.shape[1], message, span)
        return Node("had", (left, right), left.shape, span=span)

    def diag(self, node: Node, span: Span | None = None) -> Node:
        if node.shape is None:
            raise fail("`diag` needs a vector, and this is a number.", span)
        if self.sizes.resolve(node.shape[0]) == ONE and self.sizes.resolve(node.shape[1]) != ONE:
            node = self.transpose(node, span)
        assert node.shape is not None
        self.same(node.shape[1], ONE, f"`diag` needs a vector, and this is {self.shown(node)}.", span)
        return Node("diag", (node,), (node.shape[0], node.shape[0]), span=span)

    def diagonal(self, node: Node, span: Span | None = None) -> Node:
        self.square(node, "`diagonal`", span)
        assert node.shape is not None
        return Node("diagonal", (node,), (node.shape[0], ONE), span=span)

    def identity(self, dim: Dim | None, span: Span | None = None) -> Node:
        size = dim or self.fresh()
        return Node("identity", (), (size, size), span=span)

    def zero(self, rows: Dim | None, cols: Dim | None, span: Span | None = None) -> Node:
        return Node("zero", (), (rows or self.fresh(), cols or self.fresh()), span=span)

    def block(self, rows: list[list[Node]], span: Span | None = None) -> Node:
        if not rows or any(len(row) != len(rows[0]) or not row for row in rows):
            raise fail("The rows of a block matrix must have equally many blocks.", span)
        if any(node.shape is None for row in rows for node in row):
            raise fail("Every block must be a matrix; write `Identity()` or `ZeroMatrix()` for 1 and 0.", span)
        shapes = [[node.shape or (ONE, ONE) for node in row] for row in rows]
        for i, row in enumerate(rows):
            for j, node in enumerate(row):
                message = f"Block ({i + 1}, {j + 1}) is {self.shown(node)} and does not fit its row or column."
                self.same(shapes[i][j][0], shapes[i][0][0], message, node.span or span)
                self.same(shapes[i][j][1], shapes[0][j][1], message, node.span or span)
        height = sum((row[0][0] for row in shapes), Dim.of(0))
        width = sum((cell[1] for cell in shapes[0]), Dim.of(0))
        return Node("block", tuple(n for row in rows for n in row), (height, width), len(rows[0]), span)

    def block_diagonal(self, nodes: list[Node], span: Span | None = None) -> Node:
        if any(node.shape is None for node in nodes):
            raise fail("Every block must be a matrix.", span)
        shapes = [node.shape or (ONE, ONE) for node in nodes]
        rows = [
            [node if i == j else self.zero(shapes[i][0], shapes[j][1]) for j in range(len(nodes))]
            for i, node in enumerate(nodes)
        ]
        return self.block(rows, span)


def _plain(dim: Dim) -> str:
    return "?" if any(name.startswith("?") for name, _ in dim.terms) else str(dim)


def _scalar_first(left: Node, right: Node) -> tuple[Node, Node]:
    return (left, right) if left.is_scalar else (right, left)
