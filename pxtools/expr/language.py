"""The functions of the matrix language, under SymPy's names and the short ones."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pxtools.errors import nearest
from pxtools.expr.tree import Builder, Node, Span, fail

if TYPE_CHECKING:
    from pxtools.expr.parse import _Reader

#: functions of matrices only: name, number of arguments, what is built
PLAIN: dict[str, tuple[int, Callable[..., Node]]] = {
    "Inverse": (1, Builder.inverse),
    "inv": (1, Builder.inverse),
    "inverse": (1, Builder.inverse),
    "Transpose": (1, Builder.transpose),
    "transpose": (1, Builder.transpose),
    "solve": (2, Builder.solve),
    "LUsolve": (2, Builder.solve),
    "cholesky_solve": (2, Builder.solve),
    "diag": (1, Builder.diag),
    "DiagMatrix": (1, Builder.diag),
    "diagonal": (1, Builder.diagonal),
    "DiagonalOf": (1, Builder.diagonal),
    "hadamard": (2, Builder.hadamard),
    "HadamardProduct": (2, Builder.hadamard),
    "hadamard_product": (2, Builder.hadamard),
    "multiply_elementwise": (2, Builder.hadamard),
    "MatMul": (2, Builder.mul),
}
SCALAR_OF = {
    "det": "det",
    "Determinant": "det",
    "logdet": "logdet",
    "trace": "trace",
    "Trace": "trace",
    "tr": "trace",
}
FUNCTIONS = ("log", "exp", "sqrt")
SHAPED = {"Identity": "identity", "eye": "identity", "ZeroMatrix": "zero", "zeros": "zero"}
BLOCKS = ("BlockMatrix", "block", "BlockDiagMatrix", "block_diag", "DiagonalMatrix")


def call_function(
    reader: _Reader, name: str, items: list[ast.expr], span: Span | None, is_method: bool = False
) -> Node:
    """Build what a call in the text means."""
    build = reader.build
    if name in SHAPED and not is_method:
        dims: list[Any] = [reader.dim(item) for item in items]
        if SHAPED[name] == "identity":
            return build.identity(dims[0] if dims else None, span)
        if len(dims) not in (0, 2):
            return _count(name, 2, span)
        rows, cols = dims or (None, None)
        return build.zero(rows, cols, span)
    if name in {"BlockMatrix", "block"}:
        return reader.visit(items[0]) if len(items) == 1 else _count(name, 1, span)
    nodes = [reader.visit(item) for item in items]
    if name in ("BlockDiagMatrix", "block_diag"):
        return build.block_diagonal(nodes, span)
    if name == "DiagonalMatrix":
        return build.diag(build.diagonal(nodes[0], span), span)
    if name in FUNCTIONS:
        if len(nodes) != 1:
            return _count(name, 1, span)
        if name == "log" and nodes[0].op == "det":
            return build.scalar_of("logdet", nodes[0].args[0], span)
        return build.function(name, nodes[0], span)
    if name in SCALAR_OF:
        return build.scalar_of(SCALAR_OF[name], nodes[0], span) if len(nodes) == 1 else _count(name, 1, span)
    if name in PLAIN:
        count, function = PLAIN[name]
        return function(build, *nodes, span) if len(nodes) == count else _count(name, count, span)
    choices = [*PLAIN, *SCALAR_OF, *FUNCTIONS, *SHAPED, *BLOCKS]
    raise fail(f"`{name}` is not a function of the matrix language.{nearest(name, choices)}", span)


def _count(name: str, count: int, span: Span | None) -> Node:
    raise fail(f"`{name}` takes {count} argument{'s' if count > 1 else ''}.", span)
