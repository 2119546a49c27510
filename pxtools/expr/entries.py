"""Plans by entries: diagonal matrices kept as vectors, Hadamard products, block matrices put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pxtools.expr.emit import Mat
from pxtools.expr.ir import Expr
from pxtools.expr.values import Value

if TYPE_CHECKING:
    from pxtools.expr.planner import Planner


def diagonal_column(planner: Planner, node: Expr) -> Mat:
    emit = planner.emit
    if node.op == "sym":
        slot = planner.inputs[node.data]
        return slot.vector or diagonal_of(planner, node)
    if node.op == "diag":
        mat = planner.value(node.args[0])
        return mat if not mat.trans else copy_column(planner, mat)
    out = emit.buffer(node.rows, 1)
    if node.op == "identity":
        emit.fill(out, 1)
    elif node.op == "t":
        return planner.vector(node.args[0])
    elif node.op == "inv":
        emit.recip(planner.vector(node.args[0]), out)
    elif node.op == "add":
        for index, (coef, part) in enumerate(zip(node.data, node.args, strict=True)):
            if part.op == "identity":
                emit.fill(out, planner.coefficient(coef), beta=int(index > 0))
            else:
                emit.axpby(planner.vector(part), out, alpha=planner.coefficient(coef), beta=int(index > 0))
    elif node.op in ("mul", "had"):
        columns = [
            planner.vector(p) if planner.facts.holds(p, "diagonal") else diagonal_of(planner, p) for p in node.args
        ]
        emit.hadamard(columns[0], columns[1], out)
        for column in columns[2:]:
            emit.dscale(column, out, right=False)
    else:
        return diagonal_of(planner, node)
    return out


def copy_column(planner: Planner, mat: Mat) -> Mat:
    out = planner.emit.buffer(mat.shape[0], 1)
    planner.emit.axpby(mat, out)
    return out


def spread_diagonal(planner: Planner, node: Expr) -> Value:
    mat = planner.emit.buffer(node.rows, node.cols)
    planner.emit.fill(mat, 0)
    if node.op == "identity":
        planner.emit.fill(mat.diagonal, 1)
    else:
        planner.emit.axpby(planner.vector(node).T, mat.diagonal)
    return Value(mat)


def diagonal_of(planner: Planner, node: Expr) -> Mat:
    if node.op != "sym" and planner.facts.holds(node, "diagonal"):
        return planner.vector(node)
    out = planner.emit.buffer(node.rows, 1)
    planner.emit.axpby(planner.value(node, half_ok=True).stored.diagonal.T, out)
    return out


def hadamard(planner: Planner, node: Expr) -> Value:
    parts = [planner.value(part) for part in node.args]
    out = planner.emit.buffer(node.rows, node.cols, trans=parts[0].trans)
    planner.emit.hadamard(parts[0], parts[1], out)
    for part in parts[2:]:
        planner.emit.hadamard(part, out, out)
    return Value(out)


def assemble(planner: Planner, node: Expr) -> Value:
    out = planner.emit.buffer(node.rows, node.cols)
    wide, top = node.data, 0
    if any(cell.op in ("zero", "identity") for cell in node.args):
        planner.emit.fill(out, 0)
    for start in range(0, len(node.args), wide):
        left, row = 0, node.args[start : start + wide]
        for cell in row:
            put_block(planner, cell, out.part(top, left, cell.rows, cell.cols))
            left += cell.cols
        top += row[0].rows
    return Value(out)


def put_block(planner: Planner, cell: Expr, place: Mat) -> None:
    if cell.op == "identity":
        planner.emit.fill(place.diagonal, 1)
    elif cell.op != "zero":
        planner.emit.axpby(planner.value(cell), place)
