"""Where planned things are: values, factorizations, inputs."""

from __future__ import annotations

from dataclasses import dataclass

from pxtools.expr.emit import Mat
from pxtools.expr.ir import Expr

#: symmetric expressions whose computed entries are symmetric to the last bit
EXACTLY_SYMMETRIC = ("sym", "t", "had", "slice", "block", "zero", "identity", "diagonal")


def is_root(node: Expr) -> bool:
    """Whether this is a Cholesky factor or its transpose."""
    return node.op == "lc" or (node.op == "t" and node.args[0].op == "lc")


@dataclass
class Value:
    """Where an expression's matrix is; `half`: only the lower triangle of the storage holds it."""

    mat: Mat
    half: bool = False


@dataclass
class Target:
    """A matrix to add a product to."""

    mat: Mat
    half: bool


@dataclass
class Factored:
    """A factorization in a buffer."""

    kind: str
    mat: Mat
    pivots: int = 0
    trans: bool = False


@dataclass
class InputSlot:
    """How one input lies in memory: `mat` of the formula's shape; diagonal inputs are vectors."""

    value: Mat | None
    vector: Mat | None = None
    scalar: int | None = None
