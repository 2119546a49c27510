"""Equivalent forms of a formula, each a rewriting of the expressions."""

from __future__ import annotations

from collections.abc import Iterator

from pxtools.expr.infer import Facts
from pxtools.expr.ir import Expr, Graph


def variants(
    graph: Graph, facts: Facts, outputs: dict[str, Expr], form: str
) -> Iterator[tuple[str, dict[str, Expr]]]:
    yield "cholesky", outputs
