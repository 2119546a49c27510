"""Random formulas over matrices of every kind, with inputs that are what is said of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

#: letter -> (rows, columns, words); n, m are drawn sizes
KINDS = {
    "A": ("n", "n", ""),
    "B": ("n", "n", ""),
    "X": ("n", "m", "full_rank"),
    "Y": ("n", "m", ""),
    "S": ("n", "n", "positive_definite"),
    "P": ("m", "m", "positive_definite"),
    "M": ("n", "n", "symmetric"),
    "D": ("n", "n", "diagonal"),
    "E": ("m", "m", "diagonal, positive_definite"),
    "L": ("n", "n", "lower_triangular"),
    "U": ("n", "n", "upper_triangular"),
    "Q": ("n", "n", "orthogonal"),
    "v": ("n", "1", ""),
    "w": ("m", "1", ""),
    "Z": ("m", "m", "positive_semidefinite"),
}
ASSUME = "; ".join(
    f"{name}: {rows} x {cols}" + (f", {words}" if words else "") for name, (rows, cols, words) in KINDS.items()
)
INVERTIBLE = {"S", "P", "A", "L", "U", "Q", "D", "E", "M"}


@dataclass
class Formula:
    text: str
    used: set[str] = field(default_factory=set)


@st.composite
def formulas(draw: Any, rows: str = "n", cols: str = "m", depth: int = 3) -> str:
    """Draw a formula of the given symbolic shape."""
    if depth == 0 or draw(st.integers(0, 5)) == 0:
        return draw(_leaves(rows, cols))
    kind = draw(st.sampled_from(["add", "sub", "mul", "mul", "mul", "scale", "T", "special"]))
    if kind in ("add", "sub"):
        left, right = draw(formulas(rows, cols, depth - 1)), draw(formulas(rows, cols, depth - 1))
        return f"({left} {'+' if kind == 'add' else '-'} {right})"
    if kind == "mul":
        inner = draw(st.sampled_from(["n", "m", "n", "m", "1"]))
        return f"{draw(formulas(rows, inner, depth - 1))}*{draw(formulas(inner, cols, depth - 1))}"
    if kind == "scale":
        return f"{draw(st.sampled_from(['2', '0.5', '(-1)', 'c']))}*{draw(formulas(rows, cols, depth - 1))}"
    if kind == "T":
        return f"({draw(formulas(cols, rows, depth - 1))}).T"
    return draw(_special(rows, cols, depth))


def _leaves(rows: str, cols: str) -> Any:
    names = [name for name, (r, c, _) in KINDS.items() if (r, c) == (rows, cols)]
    names += [f"{name}.T" for name, (r, c, _) in KINDS.items() if (r, c) == (cols, rows)]
    if rows == cols:
        names += [f"{name}.I" for name in INVERTIBLE if KINDS[name][0] == rows]
        names += [f"Identity({rows})"] if rows != "1" else ["v.T*v", "w.T*w"]
    return st.sampled_from(names)


@st.composite
def _special(draw: Any, rows: str, cols: str, depth: int) -> str:
    """Draw congruences, definite inverses, Hadamard products and diagonals."""
    if rows == cols == "1":
        return f"{draw(formulas('1', 'n', depth - 1))}*S.I*{draw(formulas('n', '1', depth - 1))}"
    if rows == cols:
        other = "m" if rows == "n" else "n"
        middle = "P" if other == "m" else "S"
        noise = "S" if rows == "n" else draw(st.sampled_from(["P", "E", "2*Identity(m)"]))
        side = draw(formulas(rows, other, 0))
        return draw(
            st.sampled_from(
                [
                    f"{side}*{middle}*({side}).T",
                    f"({noise} + {side}*{middle}*({side}).T).I",
                    f"({noise} + {side}*({side}).T).I",
                    f"hadamard({noise}, {draw(formulas(rows, cols, depth - 1))})",
                    f"diag(diagonal({draw(formulas(rows, cols, depth - 1))}))",
                    f"({side}*{middle}.I*({side}).T + {noise})",
                ]
            )
        )
    left = {"n": "S", "m": "P", "1": None}[rows]
    inner = draw(formulas(rows, cols, depth - 1))
    return f"{left}.I*{inner}" if left else f"hadamard({inner}, {draw(formulas(rows, cols, depth - 1))})"


def make_inputs(n: int, m: int, seed: int) -> dict[str, Any]:
    """Return well-conditioned inputs of every kind, in mixed memory orders."""
    rng = np.random.default_rng(seed)

    def dense(rows: int, cols: int) -> Any:
        return rng.uniform(-1, 1, (rows, cols))

    def definite(size: int) -> Any:
        root = dense(size, size)
        return root @ root.T + size * np.eye(size)

    low = dense(m, max(1, m - 1))
    values = {
        "A": dense(n, n) + 3 * n * np.eye(n),
        "B": dense(n, n),
        "X": dense(n, m),
        "Y": dense(n, m),
        "S": definite(n),
        "P": definite(m),
        "M": definite(n) - 5 * n * np.diag(np.arange(n) % 2),
        "D": np.diag(rng.uniform(0.5, 2, n) * rng.choice([-1, 1], n)),
        "E": np.diag(rng.uniform(0.5, 2, m)),
        "L": np.tril(dense(n, n)) + 3 * np.eye(n),
        "U": np.triu(dense(n, n)) + 3 * np.eye(n),
        "Q": np.linalg.qr(dense(n, n))[0],
        "v": dense(n, 1),
        "w": dense(m, 1),
        "Z": low @ low.T,
    }
    ordered = {k: np.asarray(v, order=rng.choice(["C", "F"])) for k, v in values.items()}
    return {**ordered, "c": float(rng.uniform(0.5, 2))}
