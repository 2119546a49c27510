"""What went wrong with a matrix that is not what it was said to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pxtools.expr.emit import Step
from pxtools.expr.tree import NotPositiveDefinite

if TYPE_CHECKING:
    from pxtools.expr.compiled import CompiledFormula

REMEDY = "Say less of it; `--no-assume` (`assumptions=False`) makes a general plan."


def explain_failure(formula: CompiledFormula, step: Step, info: int, arrays: dict[str, Any]) -> Exception:
    """Return the error for a step that failed, naming the input that is to blame where one can be found."""
    if step.op == "check":
        return _broken_structure(step, arrays)
    if step.op == "potrf":
        return _not_definite(formula, step, info, arrays)
    return np.linalg.LinAlgError(
        f"{step.blame} is singular: entry {info} of its factor's diagonal is zero (in `{formula.name}`)."
    )


def _broken_structure(step: Step, arrays: dict[str, Any]) -> Exception:
    name, matrix = step.blame, arrays[step.blame]
    if step.flags[0]:
        return NotPositiveDefinite(f"`{name}` is said to be triangular, and its other triangle is not zero.\n{REMEDY}")
    gap = np.abs(matrix - matrix.T)
    i, j = (int(index) for index in np.unravel_index(int(np.argmax(gap)), gap.shape))
    return asymmetry(name, i, j, matrix[i, j], matrix[j, i])


def asymmetry(name: str, i: int, j: int, entry: float, mirrored: float) -> NotPositiveDefinite:
    """Return the error for a matrix whose entries (i, j) and (j, i) differ."""
    return NotPositiveDefinite(
        f"`{name}` is said to be symmetric, and it is not:\n"
        f"entry ({i}, {j}) is {entry:.6g}, entry ({j}, {i}) is {mirrored:.6g}.\n"
        f"Pass `({name} + {name}.T)/2` if that is round-off.\n{REMEDY}"
    )


def _not_definite(formula: CompiledFormula, step: Step, info: int, arrays: dict[str, Any]) -> Exception:
    minor = step.m + info  # step.m: where the block of a blocked factorization begins
    lines = [f"{step.blame} is not positive definite: its leading minor of order {minor} is not positive."]
    for name, words in formula.problem.assumptions.properties.items():
        matrix = arrays.get(name)
        if "pd" in words and isinstance(matrix, np.ndarray) and matrix.ndim == 2 and name != step.blame:
            order = failing_minor(matrix)
            if order:
                lines.append(f"`{name}` is said to be, and is not either: its minor of order {order} fails.")
    return NotPositiveDefinite("\n".join([*lines, REMEDY]))


def failing_minor(matrix: Any) -> int:
    """Return the order of the first leading minor that is not positive, 0 if all are.

    Examples
    --------
    >>> failing_minor(np.array([[1.0, 2.0], [2.0, 1.0]]))
    2
    """
    from scipy.linalg import lapack

    if matrix.shape[0] == 0:
        return 0
    _, info = lapack.get_lapack_funcs("potrf", (matrix,))(matrix, lower=1, clean=0)
    return int(info)


def check_orthogonal(name: str, matrix: Any) -> None:
    """Refuse a matrix that is not orthogonal, by what it does to one fixed vector and back (n² work, not n³)."""
    probe = np.random.default_rng(2013).standard_normal(matrix.shape[1])
    gap = np.linalg.norm(matrix.T @ (matrix @ probe) - probe)
    tolerance = 1e-4 if matrix.dtype == np.float32 else 1e-8
    if matrix.shape[0] != matrix.shape[1] or gap > tolerance * np.linalg.norm(probe):
        raise NotPositiveDefinite(f"`{name}` is said to be orthogonal, and {name}.T*{name} is not 1.\n{REMEDY}")
