"""The operation table of a matrix plan: what its columns mean, the NumPy twin, and the choice between the two.

A plan is an `(n_ops, 24)` table of int64. Every matrix is column-major and given by three columns: the buffer (slot),
the offset of its first entry and its leading dimension. `alpha` and `beta` are positions in an array of scalars,
so that numbers which are known only at run time need no new table.

=======  ======================================================================================================
columns  meaning
=======  ======================================================================================================
0        operation (`OPS`)
1-3      sizes m, n, k
4-7      flags f1 … f4 (transposition, side, upper or lower, unit diagonal; see each operation)
8-10     A: slot, offset, leading dimension
11-13    B
14-16    C, the result
17-18    alpha, beta: positions in `scalars`
19       position of the pivots
20       position in `scalars` of a scalar result
21-23    slot and two offsets of workspace
=======  ======================================================================================================

A triangle that is stored alone is the lower one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

WIDTH = 24
OPS = {
    "gemm": 1,
    "symm": 2,
    "syrk": 3,
    "gemmt": 4,
    "trsm": 5,
    "trmm": 6,
    "potrf": 7,
    "getrf": 8,
    "getrs": 9,
    "sytrf": 10,
    "sytrs": 11,
    "axpby": 12,
    "mirror": 13,
    "hadamard": 14,
    "dscale": 15,
    "fill": 16,
    "recip": 17,
    "dot": 18,
    "logdet": 19,
    "scalar": 20,
    "potri": 21,
    "getri": 22,
    "trtri": 23,
    "tpqrt": 24,
    "tpmqrt": 25,
    "check": 26,
}
SCALAR_KINDS = ("add", "mul", "pow", "log", "exp", "sqrt")

Array = np.ndarray[Any, Any]


def run_plan_numpy(table: Array, buffers: list[Array], scalars: Array, pivots: Array, single: bool) -> tuple[int, int]:
    """Run a table with NumPy and SciPy: the twin of the compiled `run_plan`.

    Parameters
    ----------
    table : (n_ops, 24) int64
    buffers : list of arrays, contiguous in C or Fortran order
        Inputs, outputs and workspace by slot.
    scalars : (n_scalars,) float64
        Constants and run-time scalars; scalar results are written here.
    pivots : (n_pivots,) int32
    single : bool
        Whether the buffers are float32.

    Returns
    -------
    (row, info)
        Which operation failed and LAPACK's info, or (-1, 0).
    """
    del single
    flat = [buffer.ravel(order="K") for buffer in buffers]
    for row, line in enumerate(table):
        info = _TWINS[int(line[0])](_Line(line, flat, scalars, pivots))
        if info:
            return row, int(info)
    return -1, 0


class _Line:
    """One row of the table with its operands as NumPy views."""

    def __init__(self, line: Array, flat: list[Array], scalars: Array, pivots: Array) -> None:
        (_, self.m, self.n, self.k, self.f1, self.f2, self.f3, self.f4) = map(int, line[:8])
        self.line, self.flat, self.scalars = line, flat, scalars
        self.pivots = pivots[int(line[19]) :]
        self.alpha, self.beta = scalars[line[17]], scalars[line[18]]

    def view(self, which: str, rows: int, cols: int) -> Array:
        slot, offset, ld = (int(x) for x in self.line[{"A": 8, "B": 11, "C": 14}[which] :][:3])
        piece = self.flat[slot][offset:]
        return as_strided(piece, (rows, cols), (piece.itemsize, piece.itemsize * ld))

    def op(self, which: str, trans: int, rows: int, cols: int) -> Array:
        return self.view(which, cols, rows).T if trans else self.view(which, rows, cols)

    def write(self, target: Array, value: Array, half: bool = False) -> None:
        """Target = alpha value + beta target, where beta = 0 overwrites even NaN."""
        result = self.alpha * value if self.beta == 0 else self.alpha * value + self.beta * target
        if half:
            rows, cols = np.tril_indices(target.shape[0], m=target.shape[1])
            target[rows, cols] = result[rows, cols]
        else:
            target[...] = result

    def symmetric(self, which: str, size: int) -> Array:
        low = np.tril(self.view(which, size, size))
        return low + np.tril(low, -1).T


def _gemm(s: _Line) -> None:
    s.write(s.view("C", s.m, s.n), s.op("A", s.f1, s.m, s.k) @ s.op("B", s.f2, s.k, s.n))


def _symm(s: _Line) -> None:
    a, b = s.symmetric("A", s.n if s.f1 else s.m), s.view("B", s.m, s.n)
    s.write(s.view("C", s.m, s.n), b @ a if s.f1 else a @ b)


def _syrk(s: _Line) -> None:
    a = s.op("A", s.f1, s.n, s.k)
    s.write(s.view("C", s.n, s.n), a @ a.T, half=True)


def _gemmt(s: _Line) -> None:
    s.write(s.view("C", s.n, s.n), s.op("A", s.f1, s.n, s.k) @ s.op("B", s.f2, s.k, s.n), half=True)


def _triangle(s: _Line) -> Array:
    a = s.view("A", *[s.n if s.f1 else s.m] * 2)
    a = np.triu(a) if s.f2 else np.tril(a)
    if s.f4:
        a = a - np.diag(np.diag(a)) + np.eye(len(a), dtype=a.dtype)
    return a.T if s.f3 else a


def _trsm(s: _Line) -> None:
    from scipy.linalg import solve_triangular

    a, c = _triangle(s), s.view("C", s.m, s.n)
    if c.size == 0:
        return
    lower = bool(s.f2) == bool(s.f3)
    with np.errstate(all="ignore"):
        if s.f1:
            c[...] = _substitute(a.T, c.T, not lower, solve_triangular).T
        else:
            c[...] = _substitute(a, c, lower, solve_triangular)


def _substitute(a: Array, b: Array, lower: bool, solve: Callable[..., Array]) -> Array:
    if not np.all(np.diag(a)):  # as BLAS does: no check, infinities come out
        return np.full_like(b, np.nan)
    return solve(a, b, lower=lower, check_finite=False)


def _trmm(s: _Line) -> None:
    c = s.view("C", s.m, s.n)
    c[...] = c @ _triangle(s) if s.f1 else _triangle(s) @ c


def _potrf(s: _Line) -> int:
    from scipy.linalg import lapack

    c = s.view("C", s.n, s.n)
    if s.n == 0:
        return 0
    factor, info = lapack.get_lapack_funcs("potrf", (c,))(c, lower=1, clean=0)
    low = np.tril_indices(s.n)
    c[low] = factor[low]
    return int(info)


def _getrf(s: _Line) -> int:
    from scipy.linalg import lapack

    c = s.view("C", s.n, s.n)
    if s.n == 0:
        return 0
    c[...], pivots, info = lapack.get_lapack_funcs("getrf", (c,))(c)
    s.pivots[: s.n] = pivots + 1
    return int(info)


def _getrs(s: _Line) -> int:
    from scipy.linalg import lapack

    a, c = s.view("A", s.n, s.n), s.view("C", s.n, s.k)
    if c.size:
        c[...] = lapack.get_lapack_funcs("getrs", (a,))(a, s.pivots[: s.n] - 1, c, trans=s.f1)[0]
    return 0


def _sytrf(s: _Line) -> int:
    from scipy.linalg import lapack

    c = s.view("C", s.n, s.n)
    if s.n == 0:
        return 0
    c[...], pivots, info = lapack.get_lapack_funcs("sytrf", (c,))(c, lower=1)
    s.pivots[: s.n] = pivots
    return int(info)


def _sytrs(s: _Line) -> int:
    """Solve with the factor of `_sytrf`, read as SciPy's `ldl` would read it."""
    a, c = s.view("A", s.n, s.n), s.view("C", s.n, s.k)
    i, steps = 0, []
    while i < s.n:
        wide = 1 if s.pivots[i] > 0 else 2
        steps.append((i, wide, abs(int(s.pivots[i + wide - 1])) - 1))
        i += wide
    for i, wide, pivot in steps:
        _swap_rows(c, i + wide - 1, pivot)
        c[i + wide :] -= a[i + wide :, i : i + wide] @ c[i : i + wide]
        block = np.tril(a[i : i + wide, i : i + wide])
        c[i : i + wide] = np.linalg.solve(block + np.tril(block, -1).T, c[i : i + wide])
    for i, wide, pivot in reversed(steps):
        c[i : i + wide] -= a[i + wide :, i : i + wide].T @ c[i + wide :]
        _swap_rows(c, i + wide - 1, pivot)
    return 0


def _swap_rows(c: Array, i: int, j: int) -> None:
    if i != j:
        c[[i, j]] = c[[j, i]]


def _axpby(s: _Line) -> None:
    s.write(s.view("C", s.m, s.n), s.op("A", s.f1, s.m, s.n), half=bool(s.f2))


def _mirror(s: _Line) -> None:
    c = s.view("C", s.n, s.n)
    c[...] = np.tril(c) + np.tril(c, -1).T if np.isfinite(c).all() else _mirrored(c)


def _mirrored(c: Array) -> Array:
    result = c.copy()
    rows, cols = np.tril_indices(len(c), -1)
    result[cols, rows] = c[rows, cols]
    return result


def _hadamard(s: _Line) -> None:
    s.write(s.view("C", s.m, s.n), s.op("A", s.f1, s.m, s.n) * s.op("B", s.f2, s.m, s.n))


def _dscale(s: _Line) -> None:
    a = s.view("A", s.n if s.f1 else s.m, 1)
    c = s.view("C", s.m, s.n)
    with np.errstate(all="ignore"):
        factor = a.T if s.f1 else a
        c[...] = c / factor if s.f2 else c * factor


def _fill(s: _Line) -> None:
    c = s.view("C", s.m, s.n)
    value = np.full((s.m, s.n), s.alpha) if s.beta == 0 else s.alpha + s.beta * c
    if s.f2:
        rows, cols = np.triu_indices(s.m, 1, s.n)
        c[rows, cols] = value[rows, cols]
    else:
        c[...] = value


def _recip(s: _Line) -> None:
    with np.errstate(all="ignore"):
        s.view("C", s.m, 1)[...] = s.alpha / s.view("A", s.m, 1)


def _dot(s: _Line) -> None:
    a = s.op("A", s.f1, s.m, s.n).astype(float)
    total = a.sum() if s.f3 else (a * s.op("B", s.f2, s.m, s.n)).sum()
    s.scalars[s.line[20]] = s.alpha * total


def _logdet(s: _Line) -> None:
    entries = s.view("A", 1, s.n)[0].astype(float)
    swaps = int(np.sum(s.pivots[: s.n] != np.arange(1, s.n + 1))) if s.f1 else 0
    negative = bool((int(np.sum(entries < 0)) + swaps) % 2)
    with np.errstate(all="ignore"):
        if s.f2:
            mantissa, exponent = np.frexp(np.abs(entries))
            total, power = 1.0, int(exponent.sum())
            for value in mantissa:
                total, shift = np.frexp(total * value)
                power += int(shift)
            result = float(np.ldexp(-total if negative else total, power))
        else:
            result = float("nan") if negative else float(np.sum(np.log(np.abs(entries))))
    s.scalars[s.line[20]] = s.alpha * result


def _scalar(s: _Line) -> None:
    x, y = s.alpha, s.beta
    with np.errstate(all="ignore"):
        value = (x + y, x * y) if s.f1 < 2 else (0.0, 0.0)
        functions: dict[int, Callable[[], Any]] = {
            0: lambda: value[0],
            1: lambda: value[1],
            2: lambda: np.power(x, y),
            3: lambda: np.log(x),
            4: lambda: np.exp(x),
            5: lambda: np.sqrt(x),
        }
        s.scalars[s.line[20]] = functions[s.f1]()


def _potri(s: _Line) -> int:
    from scipy.linalg import lapack

    c = s.view("C", s.n, s.n)
    if s.n == 0:
        return 0
    inverse, info = lapack.get_lapack_funcs("potri", (c,))(c, lower=1)
    low = np.tril_indices(s.n)
    c[low] = inverse[low]
    return int(info)


def _getri(s: _Line) -> int:
    from scipy.linalg import lapack

    c = s.view("C", s.n, s.n)
    if s.n == 0:
        return 0
    c[...], info = lapack.get_lapack_funcs("getri", (c,))(c, s.pivots[: s.n] - 1)
    return int(info)


def _trtri(s: _Line) -> int:
    from scipy.linalg import lapack

    c = s.view("C", s.n, s.n)
    if s.n == 0:
        return 0
    inverse, info = lapack.get_lapack_funcs("trtri", (c,))(c, lower=not s.f2)
    kept = np.triu_indices(s.n) if s.f2 else np.tril_indices(s.n)
    c[kept] = inverse[kept]
    return int(info)


def _tpqrt(s: _Line) -> int:
    from scipy.linalg import lapack

    a, b = s.view("A", s.n, s.n), s.view("B", s.m, s.n)
    upper = np.triu_indices(s.n)
    factor, b[...], t, info = lapack.get_lapack_funcs("tpqrt", (a,))(0, s.f1, a, b)
    a[upper] = factor[upper]
    slot, start = int(s.line[21]), int(s.line[22])
    s.flat[slot][start : start + t.size] = t.ravel(order="F")
    return int(info)


def _tpmqrt(s: _Line) -> int:
    from scipy.linalg import lapack

    a, b, v = s.view("A", s.k, s.n), s.view("B", s.m, s.n), s.view("C", s.m, s.k)
    slot, start = int(s.line[21]), int(s.line[22])
    t = s.flat[slot][start : start + s.f1 * s.k].reshape((s.f1, s.k), order="F")
    a[...], b[...], info = lapack.get_lapack_funcs("tpmqrt", (a,))(0, v, t, a, b, side="L", trans="T")
    return int(info)


def _check(s: _Line) -> int:
    a = s.view("A", s.n, s.n)
    gap = np.abs(a - a.T) if s.f1 == 0 else np.abs(np.triu(a, 1) if s.f1 == 1 else np.tril(a, -1))
    limit = s.alpha * np.abs(np.tril(a)).max(initial=0.0) if s.f1 == 0 else 0.0
    return int(s.n > 0 and bool(gap.max() > limit))


_TWINS: dict[int, Callable[[_Line], int | None]] = {code: globals()[f"_{name}"] for name, code in OPS.items()}

try:
    from pxtools.kernels._blasplan import run_plan as run_plan_compiled
except ImportError:  # not built here: the twin serves
    run_plan_compiled = None

run_plan = run_plan_compiled or run_plan_numpy
