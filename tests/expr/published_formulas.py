"""Ten formulas from published collections, each with the flops of the best plan we know, found by hand.

Sources: the application problems of Barthels, Psarras, Bientinesi (2021), Linnea, ACM TOMS 47 (least squares,
generalized least squares, Tikhonov, optimization, signal processing, LMMSE, randomized inversion, stochastic Newton,
ensemble Kalman); Rasmussen, Williams (2006), Gaussian Processes for Machine Learning, algorithm 2.1; Rauch, Tung,
Striebel (1965).

Leading terms only are counted: products and factorizations of order three; the tests add what vectors cost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Published:
    """A formula, what is known, sizes, and the flops of the best known plan."""

    name: str
    source: str
    assume: str
    sizes: dict[str, int]
    best: Callable[..., float]
    naive: Callable[..., float]


PROBLEMS = [
    Published(
        "least squares",
        "b = (X.T*X).I*X.T*y",
        "X: n x m, full_rank; y: vector",
        {"n": 1500, "m": 500},
        lambda n, m: n * m**2 + m**3 / 3,
        lambda n, m: 2 * n * m**2 + 2 * m**3 + 2 * n * m**2,
    ),
    Published(
        "generalized least squares",
        "b = (X.T*M.I*X).I*X.T*M.I*y",
        "X: n x m, full_rank; M: spd; y: vector",
        {"n": 1000, "m": 300},
        lambda n, m: n**3 / 3 + n**2 * m + n * m**2 + m**3 / 3,
        lambda n, m: 2 * n**3 + 2 * n**2 * m + 2 * n * m**2 + 2 * m**3,
    ),
    Published(
        "generalized Tikhonov",
        "x = (A.T*P*A + Q).I*(A.T*P*b + Q*x0)",
        "A: n x m; P, Q: spd; b, x0: vector",
        {"n": 1000, "m": 600},
        lambda n, m: min(2 * n**2 * m, n**3 / 3 + n**2 * m) + n * m**2 + m**3 / 3,
        lambda n, m: 2 * n**2 * m + 2 * n * m**2 + 2 * m**3,
    ),
    Published(
        "constrained optimization",
        "x = W*(A.T*(A*W*A.T).I*b - c)",
        "A: m x n, full_row_rank; W: diagonal, spd; b, c: vector",
        {"n": 1500, "m": 600},
        lambda n, m: m**2 * n + m**3 / 3,
        lambda n, m: 2 * m * n**2 + 2 * m**2 * n + 2 * m**3,
    ),
    Published(
        "signal processing",
        "x = (A.T.I*B.T*B*A.I + R.T*L*R).I*A.T.I*B.T*B*A.I*y",
        "A: n x n, invertible; B: n x n, full_rank; R: m x n; L: diagonal, psd; y: vector",
        {"n": 500, "m": 499},
        lambda n, m: 2 / 3 * n**3 + 2 * n**3 + n**3 + m * n**2 + n**3 / 3,
        lambda n, m: 16 * n**3,
    ),
    Published(
        "LMMSE estimator",
        "x = Cx*A.T*(A*Cx*A.T + Cz).I*(y - A*m) + m",
        "A: k x n; Cx, Cz: spd; y, m: vector",
        {"n": 800, "k": 400},
        lambda n, k: min(2 * n**2 * k, n**3 / 3 + n**2 * k) + n * k**2 + k**3 / 3,
        lambda n, k: 4 * n**2 * k + 4 * n * k**2 + 2 * k**3,
    ),
    Published(
        "randomized matrix inversion",
        "X1 = X0 + W*A.T*S*(S.T*A*W*A.T*S).I*S.T*(Identity(n) - A*X0)",
        "W: n x n, spd; A: n x n, invertible; S: n x q, full_rank; X0: n x n",
        {"n": 800, "q": 80},
        # A.T*S, W*(A.T*S), gram, factor, S.T - (A.T*S).T*X0, solve, product
        lambda n, q: 2 * n**2 * q + 2 * n**2 * q + n * q**2 + q**3 / 3 + 2 * n**2 * q + 2 * q**2 * n + 2 * n**2 * q,
        lambda n, q: 8 * n**2 * q + 2 * n**3,
    ),
    Published(
        "stochastic Newton",
        "B1 = (4/3)*B*(Identity(n) - A.T*W*(3*Identity(q) + W.T*A*B*A.T*W).I*W.T*A*B)",
        "B: n x n, spd; A: m x n; W: m x q, full_rank",
        {"n": 800, "m": 900, "q": 100},
        lambda n, m, q: 2 * m * n * q + 2 * n**2 * q + n * q**2 + q**3 / 3 + q**2 * n + n**2 * q,
        lambda n, m, q: 4 * m * n * q + 4 * n**2 * q + 2 * n**3,
    ),
    Published(
        "ensemble Kalman analysis",
        "Xa = Xb + (B.I + H.T*R.I*H).I*H.T*R.I*(Y - H*Xb)",
        "B: n x n, spd; H: m x n, full_rank; R: spd, diagonal; Xb: n x q",
        {"n": 900, "m": 200, "q": 50},
        lambda n, m, q: 2 * m * n**2 + m**2 * n + m**3 / 3 + 4 * m * n * q + 2 * m**2 * q,
        lambda n, m, q: 4 * n**3 + 2 * m * n**2 + 4 * m * n * q + 2 * n**2 * q,
    ),
    Published(
        "Gaussian process regression",
        "mean = Ks.T*(K + s2*Identity(n)).I*y\n"
        "cov = Kss - Ks.T*(K + s2*Identity(n)).I*Ks\n"
        "evidence = -0.5*y.T*(K + s2*Identity(n)).I*y - 0.5*logdet(K + s2*Identity(n))",
        "K: n x n, psd; Ks: n x m; Kss: symmetric; s2: positive; y: vector",
        {"n": 900, "m": 300},
        lambda n, m: n**3 / 3 + n**2 * m + n * m**2,
        lambda n, m: 2 * n**3 + 4 * n**2 * m + 2 * n * m**2,
    ),
    Published(
        "Rauch-Tung-Striebel smoother",
        "xs = x + P*F.T*(F*P*F.T + Q).I*(x1 - F*x)\n"
        "Ps = P + P*F.T*(F*P*F.T + Q).I*(P1 - F*P*F.T - Q)*(F*P*F.T + Q).I*F*P",
        "P, Q: spd; P1: symmetric; F: n x n; x, x1: vector",
        {"n": 400},
        lambda n: (2 + 1 + 1 / 3 + 2 + 2 + 1) * n**3,
        lambda n: 20 * n**3,
    ),
]


def make_inputs(problem: Published, shapes: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    """Return well-conditioned inputs that are what is said of them; `shapes` as numbers by name."""
    rng = np.random.default_rng(seed)
    said: dict[str, str] = {}
    for clause in problem.assume.split(";"):
        names, _, words = clause.partition(":")
        for name in names.split(","):
            said[name.strip()] = said.get(name.strip(), "") + words
    inputs = {}
    for name, shape in shapes.items():
        words = said.get(name, "")
        if shape is None:
            inputs[name] = 0.7
        elif "diagonal" in words:
            inputs[name] = np.diag(rng.uniform(0.5, 2.0, shape[0]))
        elif "spd" in words or "psd" in words or "symmetric" in words:
            root = rng.standard_normal(shape)
            inputs[name] = root @ root.T / shape[0] + np.eye(shape[0])
        else:
            inputs[name] = rng.standard_normal(shape) / np.sqrt(shape[0])
            if "invertible" in words or (name == "B" and shape[0] == shape[1]):
                inputs[name] += 2 * np.eye(shape[0])
    return inputs
