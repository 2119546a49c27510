"""The order of a product: dynamic programming over what each half costs, with what is already there for nothing.

Costs are flops. A product that is symmetric costs half; when its two halves are transposes of each other, only one of
them has to be computed (SYRK).

References
----------
Barthels, Copik, Bientinesi (2018), The generalized matrix chain algorithm, CGO 2018.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pxtools.expr.ir import Expr, Graph

#: how a factor acts when it meets a dense matrix: (kind, flops per entry of the other side and row of the factor)
ACTION_COST = {
    "dense": 2.0,
    "sym": 2.0,
    "li": 1.0,
    "tri": 1.0,
    "trisolve": 1.0,
    "lu": 2.0,
    "ldl": 2.0,
    "diag": 0.0,
}


@dataclass
class ChainPlan:
    """Where to split a chain, interval by interval."""

    splits: dict[tuple[int, int], int] = field(default_factory=dict)
    costs: dict[tuple[int, int], float] = field(default_factory=dict)


def order_chain(
    graph: Graph,
    factors: Sequence[Expr],
    kinds: Sequence[str],
    is_there: Callable[[Expr], bool],
    explicit_cost: Callable[[int], float],
    discount: Callable[[Expr], float],
) -> ChainPlan:
    """Find the cheapest order of evaluation.

    Parameters
    ----------
    factors, kinds
        The chain and how each factor acts (see `ACTION_COST`).
    is_there
        Whether a product (or its transpose) has been computed.
    explicit_cost
        What it costs to have factor number i as an explicit matrix.
    discount
        By how much to make a product cheaper that other formulas want as well.
    """
    plan = ChainPlan()
    count = len(factors)
    nodes = {(i, j): graph.raw_mul(factors[i : j + 1]) for i in range(count) for j in range(i, count)}
    for i in range(count):
        plan.costs[i, i] = explicit_cost(i)
    for length in range(1, count):
        for i in range(count - length):
            j = i + length
            options = ((_cost(graph, plan, nodes, factors, kinds, i=i, split=s, j=j), -s) for s in range(i, j))
            best, split = min(options)
            plan.splits[i, j] = -split
            free = is_there(nodes[i, j]) and length < count - 1
            plan.costs[i, j] = 0.0 if free else best * discount(nodes[i, j])
    _try_congruences(graph, plan, nodes, kinds, count)
    return plan


def _try_congruences(
    graph: Graph, plan: ChainPlan, nodes: dict[tuple[int, int], Expr], kinds: Sequence[str], count: int
) -> None:
    """Compare X*M*X.T with X computed once, which the interval costs count twice."""
    last = count - 1
    if graph.T(nodes[0, last]) is not nodes[0, last]:
        return
    for split in range((count - 1) // 2):
        centre, end = (split + 1, last - split - 1), last - split
        if graph.T(nodes[0, split]) is not nodes[end, last]:
            continue
        if centre[0] == centre[1] and kinds[centre[0]] not in ("sym", "dense"):
            continue
        m, p = nodes[0, split].rows, nodes[0, split].cols
        cost = plan.costs[0, split] + plan.costs[centre] + 2.0 * m * p * p + 1.0 * m * m * p
        if cost < plan.costs[0, last] * 0.999:
            plan.costs[0, last] = cost
            plan.splits[0, last] = split
            plan.splits[split + 1, last] = centre[1]


def _cost(
    graph: Graph,
    plan: ChainPlan,
    nodes: dict[tuple[int, int], Expr],
    factors: Sequence[Expr],
    kinds: Sequence[str],
    *,
    i: int,
    split: int,
    j: int,
) -> float:
    """Cost of the interval when it is split after `split`."""
    left, right, whole = nodes[i, split], nodes[split + 1, j], nodes[i, j]
    m, p, n = left.rows, left.cols, right.cols
    acts = ("li", "trisolve", "lu", "ldl", "diag", "tri")
    left_acts = split == i and kinds[i] in acts
    right_acts = split + 1 == j and kinds[j] in acts
    if left_acts and not (right_acts and ACTION_COST[kinds[j]] < ACTION_COST[kinds[i]]):
        return plan.costs[split + 1, j] + (ACTION_COST[kinds[i]] * m + 1.0) * m * n
    if right_acts:
        return plan.costs[i, split] + (ACTION_COST[kinds[j]] * n + 1.0) * m * n
    if graph.T(left) is right:
        return plan.costs[i, split] + 1.0 * m * m * p
    both = plan.costs[i, split] + plan.costs[split + 1, j]
    return both + (1.0 if graph.T(whole) is whole else 2.0) * m * n * p
