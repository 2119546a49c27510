"""Accuracy of the post's update at its own size (n = 1000, k = 500) against long double, on four classes of inputs.

    python benchmarks/expr_accuracy.py [N K]

Classes: the post's random matrices (refused; a general plan without assumptions), the same made positive definite
(X X'), ill-conditioned, well-conditioned. Methods: NumPy's inverse, the post's 2×2 blocks with explicit inverses, and
the plan whole, in 2×2, 3×3 and uneven blocks. Errors are the largest error over the largest entry of new_Sigma. The
long double reference takes half a minute for each class.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "expr"))

from expr_reference import PAIR, SAID, relative_error, update_inputs, update_long

from pxtools.expr import NotPositiveDefinite, compile


def block_inverse(Z):
    """Invert by explicit inverses of 2×2 blocks, as the post did."""
    h = len(Z) // 2
    A, B, C, D = Z[:h, :h], Z[:h, h:], Z[h:, :h], Z[h:, h:]
    inv = np.linalg.inv(A)
    schur = np.linalg.inv(D - C @ inv @ B)
    return np.block([[inv + inv @ B @ schur @ C @ inv, -inv @ B @ schur], [-schur @ C @ inv, schur]])


def main():
    n, k = map(int, sys.argv[1:3]) if len(sys.argv) > 2 else (1000, 500)
    for kind in ("post", "post_definite", "ill", "well"):
        x = update_inputs(kind, n, k)
        S, H = x["Sigma"], x["H"]
        Z = H @ S @ H.T + x["R"]
        print(f"{kind}: condition of H*Sigma*H.T + R {np.linalg.cond(Z):.1e}")
        if kind == "post":
            refused(x)
            continue
        _, truth = update_long(**x)
        show("NumPy inv", S - S @ H.T @ np.linalg.inv(Z) @ H @ S, truth)
        show("explicit 2×2 block inverse", S - S @ H.T @ block_inverse(Z) @ H @ S, truth)
        for blocks in ("auto", 2, 3, {"n": (n - n // 7, n // 7), "k": (k // 5, k - k // 5)}):
            formula = compile(PAIR, assumptions=SAID, blocks=blocks)
            show(f"plan, blocks {blocks}", formula(**x).new_Sigma, truth)


def refused(x):
    formula = compile(PAIR, assumptions=SAID)
    try:
        formula(**x)
    except NotPositiveDefinite as error:
        print("   refused:", str(error).splitlines()[0])
    general = compile(formula.problem, assumptions=False)(**x).new_Sigma
    solved = x["Sigma"] - x["Sigma"] @ x["H"].T @ np.linalg.solve(
        x["H"] @ x["Sigma"] @ x["H"].T + x["R"], x["H"] @ x["Sigma"]
    )
    print(f"   general plan against NumPy's solve: {relative_error(general, solved):.1e}")


def show(name, found, truth):
    print(f"   {name:42s} {relative_error(found, truth):.1e}   asymmetry {np.abs(found - found.T).max():.0e}")


if __name__ == "__main__":
    main()
