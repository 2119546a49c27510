"""Formulas over a matrix in column blocks: what is done where the blocks are, and what here.

The posterior C - C*U.T*Z.I*U*C with Z = U*C*U.T + R, of a large symmetric C in column blocks C_j, needs two small
exchanges and moves nothing of C:

    there   W_j = U*C_j,  S_j = W_j*U_j.T
    here    L = chol(R + sum of S_j)                 k×k numbers from each, k×k to each
    there   V_j = L.I*W_j
    here    V = [V_1, V_2, …]                        k×n numbers in all, and to each
    there   C_j - V.T*V_j

Whatever else the formulas ask for (means, log-likelihoods) follows from L and V: U*C = L*V and Z = L*L.T are put into
them, most factors cancel, and what is left is planned like any formula and run here.

References
----------
Golub, Van Loan (2013), Matrix Computations, 1.6 (block-column products), 4.2 (Cholesky).
"""

from __future__ import annotations

from dataclasses import dataclass

from pxtools.errors import PxUsageError
from pxtools.expr.forms import Rewriting
from pxtools.expr.infer import Facts
from pxtools.expr.ir import UNIT, Expr, Graph
from pxtools.expr.patterns import Conditioning, find_conditionings, replace_run, walk

Outputs = dict[str, Expr]

#: names of L and V among the inputs of what is planned here; no cell can hold such names
FACTOR, WHITE = "(L)", "(V)"


@dataclass(frozen=True)
class Spread:
    """One formula, taken apart.

    Attributes
    ----------
    load, noise
        U and R.
    total
        Z, for the words of an error.
    posteriors
        Outputs that stay in blocks.
    rest
        Expressions of the other outputs, over L, V and the other inputs.
    """

    load: Expr
    noise: Expr
    total: Expr
    posteriors: tuple[str, ...]
    rest: Outputs


def take_apart(graph: Graph, outputs: Outputs, name: str) -> Spread:
    """Return what a formula does with the matrix `name` that lies in blocks.

    Raises
    ------
    PxUsageError
        When an output is no posterior of it and cannot be had without it.
    """
    facts = Facts(graph)
    cases = [c for c in find_conditionings(graph, outputs.values()) if _is_symbol(c.prior, name)]
    for case in cases:
        if not facts.holds(case.noise, "psd") or any(_is_symbol(e, name) for e in walk([*case.load, case.noise])):
            continue
        posteriors, rest = _sorted(graph, facts, case, outputs)
        if posteriors and not any(_is_symbol(e, name) for e in walk(rest.values())):
            load = graph.mul(*case.load)
            return Spread(load, case.noise, case.inverse.args[0], tuple(posteriors), rest)
    raise PxUsageError(
        f"`{name}` came in column blocks, and these formulas need it whole: only {name} - {name}*U.T*Z.I*U*{name} with "
        f"Z = U*{name}*U.T + R is spread,\nfor symmetric {name} and positive definite R (`--assume`), beside outputs "
        f"that need {name} in Z and U*{name} only.\nGive the whole matrix: `%pxgather {name}`."
    )


def _is_symbol(node: Expr, name: str) -> bool:
    return node.op == "sym" and node.data == name


def _sorted(graph: Graph, facts: Facts, case: Conditioning, outputs: Outputs) -> tuple[list[str], Outputs]:
    """Return which outputs are posteriors, and the others over L and V."""
    k, n = case.load[0].rows, case.prior.rows
    graph.symbol_facts[FACTOR] = {"lower", "full_rank"}
    low, white = graph.symbol(FACTOR, (k, k)), graph.symbol(WHITE, (k, n))
    over = _ByFactor(graph, facts, case, low, white)
    drop = graph.mul(graph.T(white), white)
    posteriors, rest = [], {}
    for name, node in outputs.items():
        changed = over(node)
        terms = dict(zip(changed.args, changed.data, strict=True)) if changed.op == "add" else {}
        if terms == {case.prior: UNIT, drop: (-1.0, ())}:
            posteriors.append(name)
        else:
            rest[name] = changed
    return posteriors, rest


class _ByFactor(Rewriting):
    """Put L*L.T for Z and L*V for U*C; gains become V.T*L.I, because factors cancel."""

    def __init__(self, graph: Graph, facts: Facts, case: Conditioning, low: Expr, white: Expr) -> None:
        super().__init__(graph, facts)
        self.case, self.low = case, low
        turned = tuple(graph.T(factor) for factor in reversed(case.load))
        self.runs = (
            ((*case.load, case.prior), (low, white)),
            ((case.prior, *turned), (graph.T(white), graph.T(low))),
        )

    def _rebuilt(self, node: Expr) -> Expr:
        graph, low = self.graph, self.low
        if node is self.case.inverse:
            return graph.mul(graph.inv(graph.T(low)), graph.inv(low))
        if node is self.case.inverse.args[0]:
            return graph.mul(low, graph.T(low))
        return super()._rebuilt(node)

    def product(self, node: Expr) -> Expr:
        factors = list(node.args)
        for run, new in self.runs:
            while (changed := replace_run(factors, run, new)) is not None:
                factors = changed
        return self.graph.mul(*(self(factor) for factor in factors))

    def logdet(self, node: Expr) -> Expr:
        if node.args[0] is not self.case.inverse.args[0]:
            return super().logdet(node)
        return self.graph.smul(self.graph.number(2.0), self.graph.make("logdet", (self.low,)))
