"""The Kalman update in long double, and the four classes of inputs on which the post's roundoff was traced."""

from __future__ import annotations

from typing import Any

import numpy as np

PAIR = """new_mu    = mu + Sigma*H.T*(H*Sigma*H.T + R).I*(data - H*mu)
new_Sigma = Sigma - Sigma*H.T*(H*Sigma*H.T + R).I*H*Sigma"""
SAID = "mu, data: vector; Sigma, R: positive_definite"


def cholesky_long(matrix: Any) -> Any:
    """Return the lower Cholesky factor in long double, column by column."""
    low = np.array(matrix, dtype=np.longdouble)
    for j in range(len(low)):
        low[j, j] = np.sqrt(low[j, j])
        low[j + 1 :, j] /= low[j, j]
        low[j + 1 :, j + 1 :] -= np.outer(low[j + 1 :, j], low[j + 1 :, j])
    return np.tril(low)


def substitute_long(low: Any, right: Any) -> Any:
    """Return low^-1 right in long double."""
    result = np.array(right, dtype=np.longdouble)
    for i in range(len(low)):
        result[i] = (result[i] - low[i, :i] @ result[:i]) / low[i, i]
    return result


def solve_long(matrix: Any, right: Any) -> Any:
    """Return matrix^-1 right in long double, by Gaussian elimination with row exchanges."""
    low, result = np.array(matrix, dtype=np.longdouble), np.array(right, dtype=np.longdouble)
    n = len(low)
    for j in range(n):
        pivot = j + int(np.argmax(np.abs(low[j:, j])))
        low[[j, pivot]], result[[j, pivot]] = low[[pivot, j]], result[[pivot, j]]
        factors = low[j + 1 :, j] / low[j, j]
        low[j + 1 :, j:] -= np.outer(factors, low[j, j:])
        result[j + 1 :] -= np.outer(factors, result[j])
    for j in reversed(range(n)):
        result[j] = (result[j] - low[j, j + 1 :] @ result[j + 1 :]) / low[j, j]
    return result


def update_long(mu: Any, Sigma: Any, H: Any, R: Any, data: Any) -> tuple[Any, Any]:
    """Return the update in long double."""
    mu, Sigma, H, R, data = (np.asarray(x, dtype=np.longdouble) for x in (mu, Sigma, H, R, data))
    cross = H @ Sigma
    low = cholesky_long(cross @ H.T + R)
    white = substitute_long(low, cross)
    return mu + white.T @ substitute_long(low, data - H @ mu), Sigma - white.T @ white


def update_inputs(kind: str, n: int, k: int, seed: int = 0) -> dict[str, Any]:
    """Return inputs: "post" (its random matrices), "post_definite" (X X.T of them), "ill" and "well" conditioned."""
    rng = np.random.default_rng(seed)
    inputs = {
        "mu": rng.random(n),
        "Sigma": rng.random((n, n)),
        "H": rng.random((k, n)),
        "R": rng.random((k, k)),
        "data": rng.random(k),
    }
    if kind == "post":
        return inputs
    if kind == "post_definite":
        return {**inputs, "Sigma": inputs["Sigma"] @ inputs["Sigma"].T, "R": inputs["R"] @ inputs["R"].T}
    for name, size in (("Sigma", n), ("R", k)):
        q = np.linalg.qr(rng.standard_normal((size, size)))[0]
        values = np.geomspace(1e-6, 1.0, size) if kind == "ill" else np.geomspace(1.0, 4.0, size)
        matrix = (q * (1e-4 * values if kind == "ill" and name == "R" else values)) @ q.T
        inputs[name] = (matrix + matrix.T) / 2
    inputs["H"] = rng.standard_normal((k, n)) / np.sqrt(n)
    return inputs


def relative_error(found: Any, wanted: Any) -> float:
    """Return the largest error over the largest entry."""
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())
