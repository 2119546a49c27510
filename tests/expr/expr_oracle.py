"""Formulas evaluated as written, node by node, with NumPy: the truth that plans are compared with."""

from __future__ import annotations

import ast
from typing import Any

import numpy as np


def evaluate(source: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """Evaluate a cell with plain NumPy; vectors are columns. Knows nothing of pxtools."""
    values = {name: _matrix(value) for name, value in inputs.items()}
    results = {}
    for statement in ast.parse(source).body:
        assert isinstance(statement, ast.Assign)
        name = statement.targets[0].id
        values[name] = results[name] = _visit(statement.value, values)
    return results


def _matrix(value: Any) -> Any:
    array = np.asarray(value, dtype=float)
    return float(array) if array.ndim == 0 else array.reshape(len(array), -1)


def _visit(node: ast.expr, values: dict[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return float(value)
        case ast.Name(id=name):
            return values[name]
        case ast.UnaryOp(operand=operand):
            return -_visit(operand, values)
        case ast.Attribute(value=value, attr=attr):
            inner = _visit(value, values)
            return inner.T if attr == "T" else np.linalg.inv(inner)
        case ast.BinOp(left=left, op=op, right=right):
            return _binary(op, _visit(left, values), _visit(right, values))
        case ast.Call(func=ast.Name(id=name), args=args):
            return FUNCTIONS[name](*(_visit(arg, values) for arg in args))
        case ast.List(elts=rows):
            return np.block([[_visit(cell, values) for cell in row.elts] for row in rows])
    raise AssertionError(ast.dump(node))


def _binary(op: ast.operator, left: Any, right: Any) -> Any:
    scalar = np.ndim(left) == 0 or np.ndim(right) == 0
    if isinstance(op, ast.Mult):
        return left * right if scalar else left @ right
    if isinstance(op, ast.Div):
        return left / right
    if isinstance(op, ast.Pow):
        return left**right if np.ndim(left) == 0 else np.linalg.matrix_power(left, int(right))
    if scalar and np.ndim(left) != np.ndim(right):
        left, right = float(np.asarray(left).reshape(())), float(np.asarray(right).reshape(()))
    return left + right if isinstance(op, ast.Add) else left - right


FUNCTIONS = {
    "diag": lambda v: np.diag(v[:, 0]),
    "diagonal": lambda a: np.diag(a).reshape(-1, 1),
    "hadamard": lambda a, b: a * b,
    "trace": lambda a: float(np.trace(a)),
    "det": lambda a: float(np.linalg.det(a)),
    "logdet": lambda a: float(np.linalg.slogdet(a)[1]),
    "Identity": lambda n: np.eye(int(n)),
    "eye": lambda n: np.eye(int(n)),
    "solve": np.linalg.solve,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
}
