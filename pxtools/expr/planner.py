"""From expressions to steps: which factorization, which order, which piece computed once.

`Planner` plans the outputs of one graph in a given order and can be run many times; `search.py` tries forms and orders
and keeps the plan with the fewest flops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pxtools.expr import entries
from pxtools.expr.chain import order_chain
from pxtools.expr.emit import Emitter, Mat
from pxtools.expr.infer import Facts
from pxtools.expr.ir import Coef, Expr, Graph
from pxtools.expr.values import EXACTLY_SYMMETRIC, Factored, InputSlot, Target, Value, is_root


@dataclass
class Planner:
    """Plans expressions one after another into one emitter."""

    graph: Graph
    facts: Facts
    emit: Emitter
    inputs: dict[str, InputSlot]
    popular: Callable[[Expr], float] = lambda node: 1.0
    roots: tuple[Expr, ...] = ()
    #: products that several sums want: computed once by themselves instead of into each sum
    shared: frozenset[Expr] = frozenset()
    #: whether A*P*A.T with a definite P goes through the factor of P (TRMM and SYRK instead of SYMM and GEMMT)
    split_centres: bool = False
    values: dict[Expr, Value] = field(default_factory=dict)
    vectors: dict[Expr, Mat] = field(default_factory=dict)
    factors: dict[Expr, Factored] = field(default_factory=dict)
    numbers: dict[Expr, int] = field(default_factory=dict)

    # -- values --------------------------------------------------------------------------------------------------

    def lookup(self, node: Expr) -> Value | None:
        if node in self.values:
            return self.values[node]
        turned = self.graph.T(node)
        if turned in self.values:
            found = self.values[turned]
            return Value(found.mat.T, found.half)
        return None

    def is_there(self, node: Expr) -> bool:
        return self.lookup(node) is not None

    def value(self, node: Expr, half_ok: bool = False) -> Mat:
        """Return the matrix of an expression, computing it if it is not there yet."""
        if self.lookup(node) is None:
            self.store(node, self._compute(node))
        owner = node if node in self.values else self.graph.T(node)
        if self.values[owner].half and not half_ok:
            self.emit.mirror(self.values[owner].mat)
            self.values[owner].half = False
        found = self.lookup(node)
        assert found is not None
        return found.mat

    def store(self, node: Expr, value: Value) -> None:
        """Keep a computed value; of a symmetric result one triangle counts, so that it is exactly symmetric."""
        if node.is_square and self.graph.T(node) is node:
            exact = node.op in EXACTLY_SYMMETRIC or node.rows == 1 or self.facts.holds(node, "diagonal")
            value = Value(value.mat.stored, value.half or not exact)
        self.values[node] = value

    def _compute(self, node: Expr) -> Value:  # noqa: C901  one branch for each operation
        lies_whole = node.op == "zero" or (node.op == "sym" and self.inputs[node.data].value is not None)
        if self.facts.holds(node, "diagonal") and not lies_whole:
            return entries.spread_diagonal(self, node)
        match node.op:
            case "sym":
                slot = self.inputs[node.data].value
                assert slot is not None
                return Value(slot)
            case "t":
                found = self.value(node.args[0])
                return Value(found.T)
            case "zero":
                mat = self.emit.buffer(*(node.shape or (0, 0)))
                self.emit.fill(mat, 0)
                return Value(mat)
            case "add":
                return self._sum(node)
            case "mul":
                return self._product(node)
            case "inv":
                return self._inverse(node)
            case "li":
                return self._inverse_factor(node)
            case "lc":
                return Value(self._clean_factor(node))
            case "had":
                return entries.hadamard(self, node)
            case "diagonal":
                return Value(entries.diagonal_of(self, node.args[0]))
            case "block":
                return entries.assemble(self, node)
            case "slice":
                top, left = node.data
                return Value(self.value(node.args[0]).part(top, left, node.rows, node.cols))
            case "post" | "gain":
                from pxtools.expr.conditioning import plan_conditioning

                plan_conditioning(self, node)
                return self.values[node]
        raise AssertionError(node.op)

    def copy(self, mat: Mat, half: bool = False, alpha: int = 1) -> Mat:
        """Return a copy that may be overwritten (dropped later when nothing else reads the original)."""
        rows, cols = mat.shape
        new = self.emit.buffer(rows, cols, trans=mat.trans)
        self.emit.axpby(mat, new, alpha=alpha, half=half)
        return new

    def vector(self, node: Expr) -> Mat:
        """Return the diagonal of a diagonal expression as a column."""
        if node not in self.vectors:
            self.vectors[node] = entries.diagonal_column(self, node)
        return self.vectors[node]

    # -- sums ----------------------------------------------------------------------------------------------------

    def coefficient(self, coef: Coef) -> int:
        """Return where the number of a coefficient is, multiplying run-time scalars."""
        number, scalars = coef
        position = self.emit.constant(number)
        for scalar in scalars:
            position = (
                self.number_of(scalar) if position == 1 else self.emit.scalar(1, position, self.number_of(scalar))
            )
        return position

    def number_of(self, scalar: Expr) -> int:
        from pxtools.expr.scalars import plan_scalar

        if scalar not in self.numbers:
            self.numbers[scalar] = plan_scalar(self, scalar)
        return self.numbers[scalar]

    def _sum(self, node: Expr) -> Value:
        terms = list(zip(node.data, node.args, strict=True))
        if len(terms) == 1 and self._is_product(terms[0][1]):
            return self._chain(terms[0][1], self.coefficient(terms[0][0]), None)
        half = node.is_square and node.rows > 1 and self.graph.T(node) is node
        dense = [t for t in terms if not self._is_product(t[1]) and not self.facts.holds(t[1], "diagonal")]
        products = [t for t in terms if self._is_product(t[1])]
        diagonals = [t for t in terms if self.facts.holds(t[1], "diagonal")]
        for _, term in dense:  # made before the sum is begun, so that the sum can be made in their place
            self.value(term, half_ok=half)
        dense.sort(key=lambda t: t[1].op == "sym" or t[0] != (1.0, ()))
        target = None
        for coef, term in dense:
            target = self._add_matrix(node, target, self.value(term, half_ok=half), self.coefficient(coef), half)
        for coef, term in products:
            position = self.coefficient(coef)
            if target is None:
                target = self._first_product(term, position, half)
            else:
                self._chain(term, position, target)
        assert target is not None
        for coef, term in diagonals:
            row = target.mat.diagonal
            if term.op == "identity":
                self.emit.fill(row, self.coefficient(coef), beta=1)
            else:
                self.emit.axpby(self.vector(term).T, row, alpha=self.coefficient(coef), beta=1)
        return Value(target.mat, target.half)

    def _is_product(self, term: Expr) -> bool:
        if term in self.shared:
            return False
        return term.op == "mul" and not self.is_there(term) and not self.facts.holds(term, "diagonal")

    def _add_matrix(self, node: Expr, target: Target | None, mat: Mat, alpha: int, half: bool) -> Target:
        if target is not None:
            self.emit.axpby(mat, target.mat, alpha=alpha, beta=1, half=half)
            return target
        new = self.emit.buffer(node.rows, node.cols, trans=mat.trans and not half)
        self.emit.axpby(mat, new, alpha=alpha, half=half)
        return Target(new, half)

    def _first_product(self, term: Expr, alpha: int, half: bool) -> Target:
        if half and self.graph.T(term) is not term:
            target = Target(self.emit.buffer(term.rows, term.cols), True)
            self.emit.fill(target.mat, 0)
            self._chain(term, alpha, target)
            return target
        made = self._chain(term, alpha, None)
        if made.half and not half:
            self.emit.mirror(made.mat)
        return Target(made.mat, half)

    # -- products ------------------------------------------------------------------------------------------------

    def _product(self, node: Expr) -> Value:
        return self._chain(node, 1, None)

    def kind(self, node: Expr) -> str:
        """Return how a factor acts on a dense matrix."""
        holds = self.facts.holds
        if holds(node, "diagonal"):
            return "diag"
        is_inverse_root = node.op == "li" or (node.op == "t" and node.args[0].op == "li")
        if node.op != "inv" and not is_inverse_root and (holds(node, "lower") or holds(node, "upper")):
            return "tri"
        if self.is_there(node):
            return "sym" if self.graph.T(node) is node else "dense"
        if is_inverse_root:
            return "li"
        if node.op == "inv":
            inner = node.args[0]
            if holds(inner, "lower") or holds(inner, "upper"):
                return "trisolve"
            return "ldl" if holds(inner, "symmetric") else "lu"
        return "sym" if self.graph.T(node) is node else "dense"

    def split_factors(self, node: Expr) -> list[Expr]:
        """Return the factors with definite inverses as two triangles and neighbouring diagonals as one."""
        result: list[Expr] = []
        holds = self.facts.holds
        centre = self._centre_to_split(node)
        for factor in node.args if node.op == "mul" else (node,):
            if result and holds(result[-1], "diagonal") and holds(factor, "diagonal"):
                result[-1] = self.graph.mul(result[-1], factor)
            elif (
                factor.op == "inv"
                and holds(factor.args[0], "pd")
                and not self.is_there(factor)
                and not (holds(factor, "diagonal") or holds(factor, "lower") or holds(factor, "upper"))
            ):
                half = self.graph.make("li", (factor.args[0],), factor.shape)
                result += [self.graph.T(half), half]
            elif factor is centre:
                root = self.graph.make("lc", (factor,), factor.shape)
                result += [root, self.graph.T(root)]
            else:
                result.append(factor)
        return result

    def _centre_to_split(self, node: Expr) -> Expr | None:
        """Return the definite matrix in the middle of a congruence, if it is to be factored."""
        if not self.split_centres or node.op != "mul" or len(node.args) % 2 == 0 or self.graph.T(node) is not node:
            return None
        centre = node.args[len(node.args) // 2]
        holds = self.facts.holds
        simple = holds(centre, "diagonal") or centre.op == "inv" or (self.is_there(centre) and centre.op != "sym")
        return centre if holds(centre, "pd") and not simple else None

    def _chain(self, node: Expr, alpha: int, target: Target | None) -> Value:
        factors = self.split_factors(node)
        if len(factors) == 1:
            mat = self.value(factors[0])
            if target is None:
                return Value(self.copy(mat, alpha=alpha))
            self.emit.axpby(mat, target.mat, alpha=alpha, beta=1, half=target.half)
            return Value(target.mat, target.half)
        for factor in factors:
            self._prepare(factor)
        kinds = [self.kind(factor) for factor in factors]
        order = order_chain(
            self.graph,
            factors,
            kinds,
            self.is_there,
            lambda i: self._explicit_cost(factors[i], kinds[i]),
            self.popular,
        )
        from pxtools.expr.product import Product

        return Product(self, factors, kinds, order).run(alpha, target)

    def _prepare(self, factor: Expr) -> None:
        """Plan what a factor stands on: factorizations and inner sums."""
        kind = self.kind(factor)
        if kind == "li":
            self.cholesky((factor.args[0] if factor.op == "t" else factor).args[0])
        elif kind in ("lu", "ldl"):
            self.factorize(factor.args[0], kind)
        elif kind == "diag":
            self.vector(factor.args[0] if factor.op == "inv" else factor)
        elif kind == "trisolve":
            self.value(factor.args[0])
        elif is_root(factor):
            self.cholesky((factor.args[0] if factor.op == "t" else factor).args[0])
        else:
            self.value(factor, half_ok=True)

    def _explicit_cost(self, factor: Expr, kind: str) -> float:
        if kind in ("li", "trisolve"):
            return factor.rows**3 / 3
        return {"lu": 4 / 3, "ldl": 4 / 3}.get(kind, 0.0) * factor.rows**3

    # -- factorizations ------------------------------------------------------------------------------------------

    def cholesky(self, node: Expr) -> Mat:
        """Return the lower Cholesky factor of a positive definite expression."""
        if node not in self.factors:
            mat = self.copy(self.value(node, half_ok=True).stored, half=True)
            self.emit.potrf(mat, blame=repr(node))
            self.factors[node] = Factored("chol", mat)
        return self.factors[node].mat

    def factorize(self, node: Expr, kind: str) -> Factored:
        """Return a pivoted factorization: "ldl" of a symmetric expression, else "lu" (shared with the transpose)."""
        if node in self.factors and self.factors[node].kind == kind:
            return self.factors[node]
        turned = self.factors.get(self.graph.T(node))
        if turned and turned.kind == kind:
            return Factored(kind, turned.mat, turned.pivots, not turned.trans)
        source = self.value(node, half_ok=kind == "ldl")
        mat, pivots = self.copy(source.stored, half=kind == "ldl"), self.emit.pivots(node.rows)
        if kind == "ldl":
            self.emit.sytrf(mat, pivots, blame=repr(node))
        else:
            self.emit.getrf(mat, pivots, blame=repr(node))
        self.factors[node] = Factored(kind, mat, pivots, source.trans)
        return self.factors[node]

    def _inverse(self, node: Expr) -> Value:
        """Return an explicit inverse: only where the formula asks for the matrix itself."""
        inner, holds = node.args[0], self.facts.holds
        if holds(inner, "lower") or holds(inner, "upper"):
            mat = self.copy(self.value(inner))
            self.emit.invert("trtri", mat, upper=holds(inner, "lower") == mat.trans, blame=repr(inner))
            return Value(mat)
        if holds(inner, "pd"):
            mat = self.copy(self.cholesky(inner), half=True)
            self.emit.invert("potri", mat, blame=repr(inner))
            return Value(mat, half=True)
        found = self.factorize(inner, "lu")
        mat = self.copy(found.mat)
        self.emit.invert("getri", mat, found.pivots, blame=repr(inner))
        half = self.graph.T(node) is node
        return Value(mat.T if found.trans else mat, half)

    def _clean_factor(self, node: Expr) -> Mat:
        """Return a Cholesky factor with zeros in its other triangle."""
        mat = self.emit.buffer(node.rows, node.rows)
        self.emit.axpby(self.cholesky(node.args[0]), mat, half=True)
        self.emit.fill(mat, 0, above=True)
        return mat

    def _inverse_factor(self, node: Expr) -> Value:
        mat = self._clean_factor(node)
        self.emit.invert("trtri", mat)
        return Value(mat)


def plan_outputs(planner: Planner, outputs: dict[str, Expr], order: Sequence[str]) -> dict[str, tuple[str, Mat | int]]:
    """Plan every output, in the order given; returns where each one is."""
    for name in order:
        node = outputs[name]
        if node.shape is None:
            planner.number_of(node)
        else:
            planner.value(node, half_ok=True)
    places: dict[str, tuple[str, Mat | int]] = {}
    for name, node in outputs.items():
        if node.shape is None:
            places[name] = ("scalar", planner.number_of(node))
        else:
            mat = planner.value(node)
            out = planner.emit.buffer(*mat.shape, kind="output", name=name, trans=mat.trans)
            planner.emit.axpby(mat, out)
            places[name] = ("matrix", out)
    return places
