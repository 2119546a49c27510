"""One product, once its order is known: which BLAS call does each pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pxtools.expr.chain import ACTION_COST, ChainPlan
from pxtools.expr.emit import Mat
from pxtools.expr.ir import Expr
from pxtools.expr.values import Target, Value, is_root

if TYPE_CHECKING:
    from pxtools.expr.planner import Planner

ACTING = ("li", "trisolve", "lu", "ldl", "diag", "tri")


@dataclass
class Product:
    """The steps of one chain of factors."""

    planner: Planner
    factors: Sequence[Expr]
    kinds: Sequence[str]
    order: ChainPlan

    def run(self, alpha: int, target: Target | None) -> Value:
        return self._multiply(0, len(self.factors) - 1, alpha, target)

    def _interval(self, i: int, j: int, half_ok: bool = False) -> Mat:
        """Return the matrix of factors i … j."""
        planner = self.planner
        if i == j:
            return planner.value(self.factors[i], half_ok=half_ok)
        node = planner.graph.raw_mul(self.factors[i : j + 1])
        if not planner.is_there(node):
            planner.store(node, self._multiply(i, j, 1, None))
        return planner.value(node, half_ok=half_ok)

    def _multiply(self, i: int, j: int, alpha: int, target: Target | None) -> Value:
        split = self.order.splits[i, j]
        left_acts = split == i and self.kinds[i] in ACTING
        right_acts = split + 1 == j and self.kinds[j] in ACTING
        if left_acts and not (right_acts and ACTION_COST[self.kinds[j]] < ACTION_COST[self.kinds[i]]):
            return self._apply(i, self._interval(split + 1, j), False, alpha, target)
        if right_acts:
            return self._apply(j, self._interval(i, split), True, alpha, target)
        return self._dense(i, split, j, alpha, target)

    # -- factors that act in place -------------------------------------------------------------------------------

    def _apply(self, index: int, operand: Mat, right: bool, alpha: int, target: Target | None) -> Value:
        work = self._workable(index, operand, right, 1 if target else alpha)
        self._act(index, work, right)
        if target is None:
            return Value(work)
        self.planner.emit.axpby(work, target.mat, alpha=alpha, beta=1, half=target.half)
        return Value(target.mat, target.half)

    def _workable(self, index: int, operand: Mat, right: bool, alpha: int) -> Mat:
        """Return a copy that lies as the operation needs it: LAPACK's solves work on columns only."""
        planner = self.planner
        if self.kinds[index] in ("lu", "ldl") and operand.trans != right:
            rows, cols = operand.shape
            new = planner.emit.buffer(rows, cols, trans=right)
            planner.emit.axpby(operand, new, alpha=alpha)
            return new
        return planner.copy(operand, alpha=alpha)

    def _act(self, index: int, work: Mat, right: bool) -> None:
        planner, emit, node, kind = self.planner, self.planner.emit, self.factors[index], self.kinds[index]
        if kind == "diag":
            divide = node.op == "inv"
            emit.dscale(planner.vector(node.args[0] if divide else node), work, right, divide)
        elif kind == "li":
            turned = node.op == "t"
            factor = planner.cholesky((node.args[0] if turned else node).args[0])
            emit.triangle("trsm", factor.T if turned else factor, not turned, work, right)
        elif is_root(node):
            turned = node.op == "t"
            factor = planner.cholesky((node.args[0] if turned else node).args[0])
            emit.triangle("trmm", factor.T if turned else factor, not turned, work, right)
        elif kind in ("tri", "trisolve"):
            inner = node.args[0] if kind == "trisolve" else node
            lower = planner.facts.holds(inner, "lower")
            emit.triangle("trsm" if kind == "trisolve" else "trmm", planner.value(inner), lower, work, right)
        else:
            found = planner.factorize(node.args[0], kind)
            work, trans = (work.T, not found.trans) if right else (work, found.trans)
            emit.solve("getrs" if kind == "lu" else "sytrs", found.mat, found.pivots, work, trans and kind == "lu")

    # -- two matrices --------------------------------------------------------------------------------------------

    def _dense(self, i: int, split: int, j: int, alpha: int, target: Target | None) -> Value:
        graph, emit = self.planner.graph, self.planner.emit
        left = graph.raw_mul(self.factors[i : split + 1])
        right = graph.raw_mul(self.factors[split + 1 : j + 1])
        whole = graph.raw_mul(self.factors[i : j + 1])
        is_symmetric = graph.T(whole) is whole and whole.rows > 1
        if graph.T(left) is right:
            a = self._interval(i, split)
            goal, beta = (target.mat, 1) if target else (emit.buffer(whole.rows, whole.cols), 0)
            if whole.rows == 1 or (target and not target.half):
                emit.gemm(a, a.T, goal, alpha, beta)
                return Value(goal)
            emit.syrk(a, goal, alpha, beta)
            return Value(goal, half=True)
        half = target.half if target else is_symmetric
        if half:
            a, b = self._interval(i, split), self._interval(split + 1, j)
            goal, beta = (target.mat, 1) if target else (emit.buffer(whole.rows, whole.cols), 0)
            emit.gemmt(a, b, goal, alpha, beta)
            return Value(goal, half=True)
        return self._gemm_or_symm(i, split, j, alpha, target)

    def _gemm_or_symm(self, i: int, split: int, j: int, alpha: int, target: Target | None) -> Value:
        planner, emit = self.planner, self.planner.emit
        left_sym = split == i and self.kinds[i] == "sym"
        right_sym = split + 1 == j and self.kinds[j] == "sym"
        rows, cols = self.factors[i].rows, self.factors[j].cols
        if left_sym or right_sym:
            s_index, side = (i, False) if left_sym else (j, True)
            other = self._interval(split + 1, j) if left_sym else self._interval(i, split)
            goal, beta = (target.mat, 1) if target else (emit.buffer(rows, cols, trans=other.trans), 0)
            if goal.trans == other.trans or min(other.rows, other.cols) == 1:
                other = _lying(other, goal.trans)
                if other.trans == goal.trans:
                    emit.symm(planner.value(self.factors[s_index], half_ok=True), other, goal, side, alpha, beta)
                    return Value(goal)
        a, b = self._interval(i, split), self._interval(split + 1, j)
        goal, beta = (target.mat, 1) if target else (emit.buffer(rows, cols), 0)
        emit.gemm(a, b, goal, alpha, beta)
        return Value(goal)


def _lying(mat: Mat, trans: bool) -> Mat:
    """Return a contiguous vector as if it lay the other way."""
    if mat.trans == trans:
        return mat
    if mat.cols == 1:
        return Mat(mat.buf, mat.offset, 1, 1, mat.rows, trans)
    if mat.rows == 1 and mat.ld == 1:
        return Mat(mat.buf, mat.offset, mat.cols, mat.cols, 1, trans)
    return mat
