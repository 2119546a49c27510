"""Scalars of a formula: traces, determinants, 1×1 products and arithmetic on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pxtools.expr.chain import order_chain
from pxtools.expr.ir import Expr

if TYPE_CHECKING:
    from pxtools.expr.planner import Planner

ADD, MUL, POW, LOG, EXP, SQRT = range(6)


def plan_scalar(planner: Planner, node: Expr) -> int:
    """Plan a scalar; return its position among the plan's scalars."""
    emit = planner.emit
    match node.op:
        case "num":
            return emit.constant(node.data)
        case "ssym":
            position = planner.inputs[node.data].scalar
            assert position is not None
            return position
        case "sadd" | "smul":
            positions = [planner.number_of(part) for part in node.args]
            total = positions[0]
            for position in positions[1:]:
                total = emit.scalar(ADD if node.op == "sadd" else MUL, total, position)
            return total
        case "spow":
            return emit.scalar(POW, planner.number_of(node.args[0]), emit.constant(node.data))
        case "log" | "exp" | "sqrt":
            kind = {"log": LOG, "exp": EXP, "sqrt": SQRT}[node.op]
            return emit.scalar(kind, planner.number_of(node.args[0]))
        case "elem":
            return emit.dot(planner.value(node.args[0], half_ok=True), None)
        case "trace":
            return _trace(planner, node.args[0])
        case "zlogdet" | "zquad":
            from pxtools.expr.conditioning import plan_conditioning

            plan_conditioning(planner, node)
            return planner.numbers[node]
        case "logdet" | "det":
            return _determinant(planner, node.args[0], node.op == "det")
    raise AssertionError(node.op)


def _trace(planner: Planner, node: Expr) -> int:
    """tr(A*B) needs the entries of A and B.T only, not their product."""
    graph, emit = planner.graph, planner.emit
    if planner.facts.holds(node, "diagonal"):
        return emit.dot(planner.vector(node), None)
    if node.op != "mul" or planner.is_there(node):
        return emit.dot(planner.value(node, half_ok=True).stored.diagonal, None)
    factors = planner.split_factors(node)
    kinds = [planner.kind(factor) for factor in factors]
    order = order_chain(
        graph, factors, kinds, planner.is_there, lambda i: _explicit(kinds[i], factors[i]), lambda e: 1.0
    )

    def cost(split: int) -> float:
        left, right = (0, split), (split + 1, len(factors) - 1)
        same = graph.T(graph.raw_mul(factors[: split + 1])) is graph.raw_mul(factors[split + 1 :])
        return order.costs[left] + (0.0 if same else order.costs[right])

    split = min(range(len(factors) - 1), key=cost)
    left = planner.value(graph.raw_mul(factors[: split + 1]))
    right = planner.value(graph.raw_mul(factors[split + 1 :]))
    return emit.dot(left, right.T)


def _explicit(kind: str, node: Expr) -> float:
    return {"li": 1 / 3, "trisolve": 1 / 3, "lu": 4 / 3, "ldl": 4 / 3}.get(kind, 0.0) * node.rows**3


def _determinant(planner: Planner, node: Expr, is_det: bool) -> int:
    emit, facts = planner.emit, planner.facts
    if facts.holds(node, "diagonal"):
        return emit.logdet(planner.vector(node).as_row, is_det=is_det)
    if facts.holds(node, "lower") or facts.holds(node, "upper"):
        return emit.logdet(planner.value(node).stored.diagonal, is_det=is_det)
    if facts.holds(node, "pd"):
        row = planner.cholesky(node).diagonal
        if is_det:
            root = emit.logdet(row, is_det=True)
            return emit.scalar(MUL, root, root)
        return emit.logdet(row, alpha=emit.constant(2.0))
    found = planner.factorize(node, "lu")
    return emit.logdet(found.mat.diagonal, pivots=found.pivots, is_det=is_det)
