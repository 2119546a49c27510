"""One call of a formula with a matrix in column blocks: the part that is done here, between the exchanges."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from pxtools.errors import PxUsageError
from pxtools.expr.compiled import CompiledFormula, Ready
from pxtools.expr.emit import Emitter
from pxtools.expr.failure import explain_failure
from pxtools.expr.inputs import InputReader, as_real, convert
from pxtools.expr.ir import Expr
from pxtools.expr.lower import Lowering
from pxtools.expr.patterns import walk
from pxtools.expr.plan import finish
from pxtools.expr.search import SYMMETRY_TOLERANCE, Layout, Search
from pxtools.expr.spread import FACTOR, WHITE, take_apart
from pxtools.kernels import blasplan
from pxtools.kernels.threads import blas_threads

Array = np.ndarray[Any, Any]


class BlockCall:
    """What is known here of one call.

    Parameters
    ----------
    formula
        Compiled as written ("auto" or "cholesky" form).
    name
        The input that lies in blocks.
    given
        The other inputs by name.
    n
        Rows of the matrix in blocks.
    is_single
        Whether its blocks are float32.

    Raises
    ------
    PxUsageError
        Sizes do not fit, or the formulas need the matrix whole.
    """

    def __init__(self, formula: CompiledFormula, name: str, given: dict[str, Any], n: int, is_single: bool) -> None:
        if formula.form not in ("auto", "cholesky"):
            raise PxUsageError(
                f"`{name}` came in blocks, and `{formula.name}` was made with `--form {formula.form}`.\n"
                f"Over engines there is the form `cholesky` (or `auto`) only."
            )
        self.formula, self.name = formula, name
        raw = {other: as_real(other, value) for other, value in given.items()}
        reader = InputReader(formula.problem, formula.assume)
        reader.read_square(name, n)
        for other, array in raw.items():
            reader.read(other, array)
        kinds = {array.dtype for array in raw.values() if array.ndim}
        single = is_single and kinds <= {np.dtype(np.float32)}
        single = single if formula.dtype is None else formula.dtype == np.float32
        self.dtype = np.dtype(np.float32 if single else np.float64)
        self.layout = Layout(frozenset(reader.c_order), frozenset(reader.vectors), single, formula.assume)
        lowering = Lowering(formula.problem, reader.sizes, formula.assume)
        self.graph = lowering.graph
        self.parts = take_apart(self.graph, lowering.outputs(), name)
        self.arrays = {o: convert(formula.problem, o, x, self.layout, self.dtype) for o, x in raw.items()}
        self.is_flat = dict(zip(formula.outputs, reader.flat_outputs(), strict=True))
        self.load, self.noise = self._run({"U": self.parts.load, "R": self.parts.noise}, self.arrays)

    @property
    def posteriors(self) -> tuple[str, ...]:
        """Outputs that stay in blocks."""
        return self.parts.posteriors

    def _run(self, outputs: dict[str, Expr], arrays: dict[str, Any]) -> list[Any]:
        symbols = {e.data: e for e in walk(outputs.values()) if e.op in ("sym", "ssym")}
        inputs = {name: symbols[name] for name in arrays if name in symbols}
        plan = Search(self.graph, outputs, inputs, self.layout).best("cholesky")
        return self.formula.run(Ready(plan), arrays, self.dtype)

    def is_symmetric(self, forth: Array, back: Array, largest: float) -> int | None:
        """Return None if C*x and C.T*x are the same vector, else the row in which they differ most."""
        gap = np.abs(forth - back).reshape(-1)
        limit = SYMMETRY_TOLERANCE[self.layout.single] * largest * np.sqrt(gap.size)
        return None if bool(np.all(gap <= limit)) else int(np.argmax(np.where(np.isnan(gap), np.inf, gap)))

    def factor(self, shares: Iterable[Array]) -> Array:
        """Return L, the Cholesky factor of R and the engines' shares of U*C*U.T.

        Raises
        ------
        NotPositiveDefinite
            Naming the expression and its first failing minor.
        """
        total = np.asfortranarray(self.noise).copy(order="F")
        for share in shares:
            total += share
        emit = Emitter()
        emit.potrf(emit.buffer(len(total), len(total), "output", "S"), blame=repr(self.parts.total))
        plan = finish(emit, [], [], "spread", ())
        buffers, scalars = [np.empty(1, self.dtype), total], np.array(plan.scalars)
        with blas_threads(self.formula.threads):
            row, info = blasplan.run_plan(
                plan.table(), buffers, scalars, np.zeros(1, np.int32), bool(self.layout.single)
            )
        if row >= 0:
            raise explain_failure(self.formula, plan.steps[row], info, self.arrays)
        return np.asfortranarray(np.tril(total))

    def rest(self, low: Array, white: Array) -> dict[str, Any]:
        """Return the outputs that are not in blocks, from L and V."""
        if not self.parts.rest:
            return {}
        values = self._run(self.parts.rest, {**self.arrays, FACTOR: low, WHITE: white})
        named = dict(zip(self.parts.rest, values, strict=True))
        return {n: v[:, 0] if self.is_flat[n] and not isinstance(v, float) else v for n, v in named.items()}
