"""The pattern that Kalman updates, Gaussian conditioning and ridge regression share.

A conditioning is an inverse (R + U*C*U.T).I of noise plus congruence. Around it stand the gain C*U.T*(…).I and
the posterior C - C*U.T*(…).I*U*C, for which several equivalent forms are known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pxtools.expr.ir import UNIT, Coef, Expr, Graph


@dataclass(frozen=True)
class Conditioning:
    """Z = noise + load * prior * load.T and the two products that appear around its inverse."""

    inverse: Expr
    prior: Expr
    load: tuple[Expr, ...]
    noise: Expr
    #: prior * load.T * Z.I as factors, and its transpose
    gain: tuple[Expr, ...]
    gain_t: tuple[Expr, ...]


def walk(roots: Iterable[Expr]) -> list[Expr]:
    """Return every sub-expression once, parts before wholes."""
    seen: dict[Expr, None] = {}

    def visit(node: Expr) -> None:
        if node not in seen:
            for arg in node.args:
                visit(arg)
            for _, scalars in node.data if node.op == "add" else ():
                for scalar in scalars:
                    visit(scalar)
            seen[node] = None

    for root in roots:
        visit(root)
    return list(seen)


def find_conditionings(graph: Graph, roots: Iterable[Expr]) -> list[Conditioning]:
    """Return every way to read an inverse in the formulas as a conditioning."""
    found = []
    for node in walk(roots):
        if node.op == "inv" and node.args[0].op == "add":
            found.extend(_readings(graph, node))
    return found


def _readings(graph: Graph, node: Expr) -> list[Conditioning]:
    total = node.args[0]
    readings = []
    terms = list(zip(total.data, total.args, strict=True))
    for index, (coef, term) in enumerate(terms):
        split = _congruence(graph, term) if coef == UNIT else None
        if split is None or len(terms) == 1 or graph.T(total) is not total:
            continue
        load, prior = split
        assert total.shape
        noise = graph.add(terms[:index] + terms[index + 1 :], total.shape)
        turned = tuple(graph.T(factor) for factor in reversed(load))
        middle = () if prior.op == "identity" else (prior,)
        readings.append(Conditioning(node, prior, load, noise, (*middle, *turned, node), (node, *load, *middle)))
    return readings


def _congruence(graph: Graph, term: Expr) -> tuple[tuple[Expr, ...], Expr] | None:
    """Split U*C*U.T into the factors of U and C (the identity when nothing stands between)."""
    if term.op != "mul" or graph.T(term) is not term:
        return None
    factors, half = term.args, len(term.args) // 2
    if any(graph.T(a) is not b for a, b in zip(factors[:half], reversed(factors), strict=False)):
        return None
    centre = factors[half] if len(factors) % 2 else graph.identity(factors[half].rows)
    return factors[:half], centre


def posterior_terms(graph: Graph, node: Expr, case: Conditioning) -> list[tuple[Coef, Expr]] | None:
    """Return the other terms of a sum that holds prior - gain*U*prior, the prior itself last; None if it does not."""
    if node.op != "add":
        return None
    drop = graph.mul(*case.gain, *case.load, case.prior)
    terms = dict(zip(node.args, node.data, strict=True))
    if drop not in terms or case.prior not in terms or terms[drop] != (-1.0, ()):
        return None
    number, scalars = terms[case.prior]
    if scalars or number < 1.0:
        return None
    rest = [(coef, part) for part, coef in terms.items() if part is not drop and part is not case.prior]
    if number > 1.0:
        rest.append(((number - 1.0, ()), case.prior))
    return rest


def replace_run(factors: Sequence[Expr], run: Sequence[Expr], new: Sequence[Expr]) -> list[Expr] | None:
    """Replace the first occurrence of consecutive factors; None when they do not occur."""
    size = len(run)
    for start in range(len(factors) - size + 1):
        if all(a is b for a, b in zip(factors[start : start + size], run, strict=True)):
            return [*factors[:start], *new, *factors[start + size :]]
    return None
