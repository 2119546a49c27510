"""Expressions as text, in the language they were written in."""

from __future__ import annotations

from pxtools.expr.ir import Coef, Expr

FUNCTIONS = {
    "had": "hadamard",
    "diag": "diag",
    "diagonal": "diagonal",
    "trace": "trace",
    "det": "det",
    "logdet": "logdet",
    "log": "log",
    "exp": "exp",
    "sqrt": "sqrt",
}


def expr_text(node: Expr) -> str:  # noqa: C901  one branch for each operation
    """Return the expression as one line."""
    if node.op in ("sym", "ssym"):
        return str(node.data)
    if node.op == "num":
        return f"{node.data:g}"
    if node.op == "identity":
        return "I"
    if node.op == "zero":
        return "0"
    if node.op == "add":
        return _sum(list(zip(node.data, node.args, strict=True)))
    if node.op == "mul":
        return "*".join(_factor(part) for part in node.args)
    if node.op == "t":
        return f"{_factor(node.args[0])}.T"
    if node.op == "inv":
        return f"{_factor(node.args[0])}.I"
    if node.op == "li":
        return f"chol({expr_text(node.args[0])}).I"
    if node.op == "lc":
        return f"chol({expr_text(node.args[0])})"
    if node.op == "elem":
        return expr_text(node.args[0])
    if node.op == "sadd":
        return " + ".join(map(expr_text, node.args)).replace("+ -", "- ")
    if node.op == "smul":
        return "*".join(_factor(part) for part in node.args)
    if node.op == "spow":
        return f"{_factor(node.args[0])}**{node.data:g}"
    if node.op == "block":
        wide = node.data
        rows = [node.args[i : i + wide] for i in range(0, len(node.args), wide)]
        return "[" + ", ".join("[" + ", ".join(map(expr_text, row)) + "]" for row in rows) + "]"
    if node.op == "slice":
        top, left = node.data
        return f"{_factor(node.args[0])}[{top}:{top + node.rows}, {left}:{left + node.cols}]"
    return f"{FUNCTIONS.get(node.op, node.op)}({', '.join(map(expr_text, node.args))})"


def _factor(node: Expr) -> str:
    text = expr_text(node)
    return f"({text})" if node.op in ("add", "sadd", "mul", "smul") else text


def _sum(terms: list[tuple[Coef, Expr]]) -> str:
    text = ""
    for (number, scalars), part in terms:
        words = [_factor(s) for s in scalars] + [_factor(part) if part.op == "add" else expr_text(part)]
        if abs(number) != 1.0:
            words.insert(0, f"{abs(number):g}")
        sign = "-" if number < 0 else "+"
        text += (f" {sign} " if text else "-" * (number < 0)) + "*".join(words)
    return text
