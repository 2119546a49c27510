"""Formulas in normal form, each distinct expression once.

Everything below the front doors works on `Expr` nodes that one `Graph` interns: equal expressions are the same object,
transposes are pushed down to the symbols, products are flat, sums are sorted, so "is it symmetric?" is `T(e) is e` for
whatever can be seen by shuffling, and a common piece is found by looking it up. Sizes are numbers here: a formula is
planned once for each set of shapes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

Shape = tuple[int, int]


class Expr:
    """An interned expression; compare with `is`. `shape` is None for a scalar."""

    __slots__ = ("args", "data", "op", "serial", "shape", "transposed")

    def __init__(self, op: str, args: tuple[Expr, ...], shape: Shape | None, data: Any, serial: int) -> None:
        self.op, self.args, self.shape, self.data, self.serial = op, args, shape, data, serial
        self.transposed: Expr | None = None

    @property
    def rows(self) -> int:
        assert self.shape is not None
        return self.shape[0]

    @property
    def cols(self) -> int:
        assert self.shape is not None
        return self.shape[1]

    @property
    def is_square(self) -> bool:
        return self.shape is not None and self.rows == self.cols

    def __repr__(self) -> str:
        from pxtools.expr.show import expr_text

        return expr_text(self)


#: a number times scalars that are known only at run time
Coef = tuple[float, tuple[Expr, ...]]
UNIT: Coef = (1.0, ())


class Graph:
    """Maker of expressions in normal form."""

    def __init__(self, assumed: dict[str, set[str]] | None = None) -> None:
        self._interned: dict[Any, Expr] = {}
        self.symbol_facts = assumed or {}
        self.assumed: dict[Expr, set[str]] = {}

    def make(self, op: str, args: Iterable[Expr] = (), shape: Shape | None = None, data: Any = None) -> Expr:
        args = tuple(args)
        key = (op, tuple(a.serial for a in args), shape, data)
        if key not in self._interned:
            self._interned[key] = Expr(op, args, shape, data, len(self._interned))
        return self._interned[key]

    # -- leaves --------------------------------------------------------------------------------------------------

    def symbol(self, name: str, shape: Shape | None) -> Expr:
        node = self.make("sym" if shape else "ssym", (), shape, name)
        if node not in self.assumed:
            self.assume(node, self.symbol_facts.get(name, set()))
        return node

    def assume(self, node: Expr, facts: set[str]) -> None:
        """Attach what is said of an expression, with rank words resolved by its shape."""
        found = self.assumed.setdefault(node, set())
        found |= facts
        if "full_rank" in facts and node.shape:
            found |= {"row_rank"} if node.rows <= node.cols else set()
            found |= {"col_rank"} if node.cols <= node.rows else set()
        if found & {"row_rank", "col_rank"} and node.is_square:
            found |= {"row_rank", "col_rank"}

    def identity(self, size: int) -> Expr:
        return self.make("identity", (), (size, size))

    def zero(self, rows: int, cols: int) -> Expr:
        return self.make("zero", (), (rows, cols))

    def number(self, value: float) -> Expr:
        return self.make("num", (), None, float(value))

    # -- sums and products ---------------------------------------------------------------------------------------

    def add(self, terms: Iterable[tuple[Coef, Expr]], shape: Shape) -> Expr:
        """Return the sum of coefficient-expression pairs."""
        total: dict[tuple[Expr, tuple[Expr, ...]], float] = {}
        for (number, scalars), term in terms:
            inner = zip(term.data, term.args, strict=True) if term.op == "add" else [(UNIT, term)]
            for (number2, scalars2), part in inner:
                merged = tuple(sorted(scalars + scalars2, key=lambda s: s.serial))
                if part.op != "zero":
                    total[part, merged] = total.get((part, merged), 0.0) + number * number2
        kept = [(part, (value, scalars)) for (part, scalars), value in total.items() if value != 0.0]
        kept.sort(key=lambda item: (item[0].serial, tuple(s.serial for s in item[1][1])))
        if not kept:
            return self.zero(*shape)
        if len(kept) == 1 and kept[0][1] == UNIT:
            return kept[0][0]
        return self.make("add", (part for part, _ in kept), shape, tuple(coef for _, coef in kept))

    def plus(self, left: Expr, right: Expr, sign: float = 1.0) -> Expr:
        assert left.shape
        return self.add([(UNIT, left), ((sign, ()), right)], left.shape)

    def scale(self, coef: Coef, node: Expr) -> Expr:
        assert node.shape
        return self.add([(coef, node)], node.shape)

    def mul(self, *factors: Expr) -> Expr:
        """Return the product, flat, with numbers moved out and inverses cancelled."""
        number, scalars = 1.0, ()
        flat: list[Expr] = []
        shape = (factors[0].rows, factors[-1].cols)
        for factor in factors:
            if factor.op == "zero":
                return self.zero(*shape)
            if factor.op == "add" and len(factor.args) == 1:
                (value, more), factor = factor.data[0], factor.args[0]
                number, scalars = number * value, scalars + more
            for part in factor.args if factor.op == "mul" else (factor,):
                if part.op == "identity":
                    continue
                if flat and self._cancels(flat[-1], part):
                    flat.pop()
                else:
                    flat.append(part)
        product = self.raw_mul(flat) if flat else self.identity(shape[0])
        return product if (number, scalars) == UNIT else self.scale((number, scalars), product)

    def raw_mul(self, factors: Sequence[Expr]) -> Expr:
        """Return the product node as it stands."""
        if len(factors) == 1:
            return factors[0]
        return self.make("mul", factors, (factors[0].rows, factors[-1].cols))

    def _cancels(self, left: Expr, right: Expr) -> bool:
        if (left.op == "inv" and left.args[0] is right) or (right.op == "inv" and right.args[0] is left):
            return True
        return (left.is_square and "orthogonal" in self.assumed.get(left, ()) and self.T(left) is right) or (
            right.is_square and "orthogonal" in self.assumed.get(right, ()) and self.T(right) is left
        )

    # -- unary ---------------------------------------------------------------------------------------------------

    def T(self, node: Expr) -> Expr:
        """Return the transpose, pushed down to the symbols."""
        if node.transposed is None:
            node.transposed = self._transpose(node)
            node.transposed.transposed = node
        return node.transposed

    def _transpose(self, node: Expr) -> Expr:
        assert node.shape is not None
        flipped = (node.cols, node.rows)
        if "symmetric" in self.assumed.get(node, ()) or node.op in ("identity", "diag", "post"):
            return node
        if flipped == (1, 1) and node.op != "add":
            return node
        if node.op == "zero":
            return self.zero(*flipped)
        if node.op == "t":
            return node.args[0]
        if node.op == "add":
            return self.add(zip(node.data, map(self.T, node.args), strict=True), flipped)
        if node.op == "mul":
            return self.raw_mul([self.T(factor) for factor in reversed(node.args)])
        if node.op == "inv":
            return self.inv(self.T(node.args[0]))
        if node.op == "had":
            return self.had(*map(self.T, node.args))
        if node.op == "block":
            wide = node.data
            rows = [node.args[i : i + wide] for i in range(0, len(node.args), wide)]
            return self.block([[self.T(row[j]) for row in rows] for j in range(wide)])
        return self.make("t", (node,), flipped)

    def inv(self, node: Expr) -> Expr:
        """Return the inverse, spread over products of square factors."""
        assert node.shape is not None
        if node.op == "identity":
            return node
        if node.op == "inv":
            return node.args[0]
        if node.op == "add" and len(node.args) == 1:
            number, scalars = node.data[0]
            turned = tuple(self.spow(s, -1.0) for s in scalars)
            return self.scale((1.0 / number, turned), self.inv(node.args[0]))
        if node.op == "mul" and all(factor.is_square for factor in node.args):
            return self.mul(*(self.inv(factor) for factor in reversed(node.args)))
        if "orthogonal" in self.assumed.get(node, ()):
            return self.T(node)
        if node.op == "block" and (parts := self._block_diagonal(node)):
            return self.block_diagonal([self.inv(part) for part in parts])
        return self.make("inv", (node,), node.shape)

    def had(self, *factors: Expr) -> Expr:
        assert factors[0].shape
        if any(factor.op == "zero" for factor in factors):
            return self.zero(*factors[0].shape)
        number, scalars = 1.0, ()
        flat: list[Expr] = []
        for factor in factors:
            if factor.op == "add" and len(factor.args) == 1:
                (value, more), factor = factor.data[0], factor.args[0]
                number, scalars = number * value, scalars + more
            flat.extend(factor.args if factor.op == "had" else (factor,))
        flat.sort(key=lambda e: e.serial)
        return self.scale((number, scalars), self.make("had", flat, factors[0].shape))

    def diag(self, vector: Expr) -> Expr:
        if vector.op == "add":
            pairs = ((coef, self.diag(part)) for coef, part in zip(vector.data, vector.args, strict=True))
            return self.add(pairs, (vector.rows, vector.rows))
        if vector.op == "zero":
            return self.zero(vector.rows, vector.rows)
        return self.make("diag", (vector,), (vector.rows, vector.rows))

    def diagonal(self, node: Expr) -> Expr:
        if node.op == "diag":
            return node.args[0]
        if node.op == "add":
            pairs = ((coef, self.diagonal(part)) for coef, part in zip(node.data, node.args, strict=True))
            return self.add(pairs, (node.rows, 1))
        if node.op == "zero":
            return self.zero(node.rows, 1)
        if node.op == "t":
            return self.diagonal(node.args[0])
        return self.make("diagonal", (node,), (node.rows, 1))

    # -- blocks --------------------------------------------------------------------------------------------------

    def block(self, rows: Sequence[Sequence[Expr]]) -> Expr:
        shape = (sum(row[0].rows for row in rows), sum(cell.cols for cell in rows[0]))
        flat = [cell for row in rows for cell in row]
        if len(flat) == 1:
            return flat[0]
        if all(cell.op == "zero" for cell in flat):
            return self.zero(*shape)
        whole = self._reassembled(rows, shape)
        return whole or self.make("block", flat, shape, len(rows[0]))

    def _reassembled(self, rows: Sequence[Sequence[Expr]], shape: Shape) -> Expr | None:
        """Return the matrix whose slices the blocks are, put back in their places."""
        first = rows[0][0]
        if first.op != "slice" or first.args[0].shape != shape:
            return None
        top = 0
        for row in rows:
            left = 0
            for cell in row:
                if cell.op != "slice" or cell.args[0] is not first.args[0] or cell.data != (top, left):
                    return None
                left += cell.cols
            top += row[0].rows
        return first.args[0]

    def slice(self, node: Expr, top: int, left: int, shape: Shape) -> Expr:
        return node if shape == node.shape else self.make("slice", (node,), shape, (top, left))

    def block_diagonal(self, parts: Sequence[Expr]) -> Expr:
        return self.block(
            [[p if i == j else self.zero(p.rows, q.cols) for j, q in enumerate(parts)] for i, p in enumerate(parts)]
        )

    def _block_diagonal(self, node: Expr) -> list[Expr] | None:
        wide = node.data
        if len(node.args) != wide * wide:
            return None
        parts = [node.args[i * wide + i] for i in range(wide)]
        off = (cell for i, cell in enumerate(node.args) if i // wide != i % wide)
        return parts if all(cell.op == "zero" for cell in off) and all(p.is_square for p in parts) else None

    # -- scalars -------------------------------------------------------------------------------------------------

    def sadd(self, *parts: Expr) -> Expr:
        constant = sum(part.data for part in parts if part.op == "num")
        rest = [p for part in parts if part.op != "num" for p in (part.args if part.op == "sadd" else (part,))]
        constant += sum(p.data for p in rest if p.op == "num")
        rest = sorted((p for p in rest if p.op != "num"), key=lambda e: e.serial)
        if constant or not rest:
            rest = [self.number(constant), *rest]
        return rest[0] if len(rest) == 1 else self.make("sadd", rest)

    def smul(self, *parts: Expr) -> Expr:
        flat = [p for part in parts for p in (part.args if part.op == "smul" else (part,))]
        constant = math.prod(p.data for p in flat if p.op == "num")
        rest = sorted((p for p in flat if p.op != "num"), key=lambda e: e.serial)
        if constant == 0.0 or not rest:
            return self.number(constant)
        if constant != 1.0:
            rest = [self.number(constant), *rest]
        return rest[0] if len(rest) == 1 else self.make("smul", rest)

    def spow(self, base: Expr, exponent: float) -> Expr:
        if exponent == 1.0:
            return base
        if base.op == "num" and (base.data > 0 or (base.data != 0 and exponent == int(exponent))):
            return self.number(base.data**exponent)
        return self.make("spow", (base,), None, float(exponent))

    def coef(self, scalar: Expr) -> Coef:
        """Return a scalar as a number times run-time scalars."""
        if scalar.op == "num":
            return (scalar.data, ())
        if scalar.op == "smul":
            number = math.prod(p.data for p in scalar.args if p.op == "num")
            return (number, tuple(p for p in scalar.args if p.op != "num"))
        return (1.0, (scalar,))
