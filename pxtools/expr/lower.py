"""Trees with symbolic sizes to expressions with numbers for sizes."""

from __future__ import annotations

from pxtools.errors import PxUsageError
from pxtools.expr.dims import Sizes
from pxtools.expr.ir import UNIT, Expr, Graph
from pxtools.expr.parse import Problem
from pxtools.expr.tree import Node


class Lowering:
    """Build the expressions of one problem for given sizes."""

    def __init__(self, problem: Problem, sizes: Sizes, assume: bool = True) -> None:
        facts = problem.assumptions.properties if assume else {}
        self.problem, self.sizes = problem, sizes
        self.graph = Graph({name: set(words) for name, words in facts.items()})
        self._done: dict[int, Expr] = {}
        self._names = {id(node): name for name, node in problem.assigned.items()}

    def outputs(self) -> dict[str, Expr]:
        # intermediate names first, so that what is said of them is known when they are used
        for node in self.problem.assigned.values():
            self.expr(node)
        return {name: self.expr(node) for name, node in self.problem.outputs.items()}

    def expr(self, node: Node) -> Expr:
        if id(node) not in self._done:
            made = self._make(node)
            name = self._names.get(id(node))
            facts = self.graph.symbol_facts.get(name, set()) if name else set()
            if facts and made.shape and node.op != "sym":
                self.graph.assume(made, facts)
            self._done[id(node)] = made
        return self._done[id(node)]

    def shape(self, node: Node) -> tuple[int, int]:
        assert node.shape is not None
        values = tuple(self.sizes.value(dim) for dim in node.shape)
        if None in values:
            missing = {name for dim in node.shape for name, _ in self.sizes.resolve(dim).terms}
            raise PxUsageError(f"The size {', '.join(sorted(missing))} is not known. Give it: `--sizes n=1000`.")
        return values[0] or 0, values[1] or 0

    def _make(self, node: Node) -> Expr:  # noqa: C901  one branch for each operation
        graph, args = self.graph, [self.expr(arg) for arg in node.args]
        if node.shape is None:
            return self._scalar(node, args)
        shape = self.shape(node)
        match node.op:
            case "sym":
                return graph.symbol(node.data, shape)
            case "identity":
                return graph.identity(shape[0])
            case "zero":
                return graph.zero(*shape)
            case "add":
                return graph.plus(args[0], args[1])
            case "sub":
                return graph.plus(args[0], args[1], -1.0)
            case "scale":
                return graph.scale(graph.coef(args[0]), args[1])
            case "mul":
                return graph.mul(*args)
            case "T":
                return graph.T(args[0])
            case "inv":
                return graph.inv(args[0])
            case "had":
                return graph.had(*args)
            case "diag":
                return graph.diag(args[0])
            case "diagonal":
                return graph.diagonal(args[0])
            case "slice":
                top, left = (self.sizes.value(dim) or 0 for dim in node.data)
                return graph.slice(args[0], top, left, shape)
            case "block":
                wide = node.data
                return graph.block([args[i : i + wide] for i in range(0, len(args), wide)])
        raise AssertionError(node.op)

    def _scalar(self, node: Node, args: list[Expr]) -> Expr:
        graph = self.graph
        match node.op:
            case "num":
                return graph.number(node.data)
            case "sym":
                return graph.symbol(node.data, None)
            case "add":
                return graph.sadd(*args)
            case "sub":
                return graph.sadd(args[0], graph.smul(graph.number(-1.0), args[1]))
            case "mul":
                return graph.smul(*args)
            case "pow":
                if args[1].op == "num":
                    return graph.spow(args[0], args[1].data)
                return graph.make("exp", (graph.smul(args[1], graph.make("log", (args[0],))),))
            case "elem":
                return self._element(args[0])
            case "trace":
                return self._trace(args[0])
            case "logdet" | "det":
                return self._determinant(node.op, args[0])
        return graph.make(node.op, args)

    def _element(self, arg: Expr) -> Expr:
        """Read a 1×1 matrix as a scalar, with its coefficients outside."""
        graph = self.graph
        if arg.op == "zero":
            return graph.number(0.0)
        if arg.op == "identity":
            return graph.number(1.0)
        if arg.op != "add":
            return graph.make("elem", (arg,))
        return graph.sadd(*(self._times(c, self._element(part)) for c, part in zip(arg.data, arg.args, strict=True)))

    def _times(self, coef: tuple[float, tuple[Expr, ...]], scalar: Expr) -> Expr:
        return self.graph.smul(self.graph.number(coef[0]), *coef[1], scalar)

    def _trace(self, arg: Expr) -> Expr:
        graph = self.graph
        if arg.op == "zero":
            return graph.number(0.0)
        if arg.op == "identity":
            return graph.number(float(arg.rows))
        if arg.op == "add":
            parts = zip(arg.data, arg.args, strict=True)
            return graph.sadd(*(self._times(coef, self._trace(part)) for coef, part in parts))
        return graph.make("trace", (arg,))

    def _determinant(self, op: str, arg: Expr) -> Expr:
        """Spread a (log-)determinant over scale, inverse and products of square factors."""
        graph = self.graph
        is_log = op == "logdet"
        if arg.op == "identity":
            return graph.number(0.0 if is_log else 1.0)
        if arg.op == "t":
            return self._determinant(op, arg.args[0])
        if arg.op == "inv":
            inner = self._determinant(op, arg.args[0])
            return graph.smul(graph.number(-1.0), inner) if is_log else graph.spow(inner, -1.0)
        if arg.op == "mul" and all(factor.is_square for factor in arg.args) and not is_log:
            return graph.smul(*(self._determinant(op, factor) for factor in arg.args))
        if arg.op == "add" and len(arg.args) == 1 and not is_log:
            scale = graph.smul(graph.number(arg.data[0][0]), *arg.data[0][1])
            return graph.smul(graph.spow(scale, float(arg.rows)), self._determinant(op, arg.args[0]))
        return graph.make(op, (arg,))


__all__ = ["UNIT", "Lowering"]
