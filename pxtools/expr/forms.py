"""Equivalent forms of a formula, each a rewriting of the expressions.

`cholesky` is the formula as written (with common factors taken out, or sums with an identity multiplied out, where that
is cheaper). Around a conditioning, (R + U*C*U.T).I, three more are known: `information`, `sequential` and `sqrt`.

References
----------
Anderson, Moore (1979), Optimal Filtering, 6.3 (information form), 6.4 (sequential processing).
Henderson, Searle (1981), On deriving the inverse of a sum of matrices, SIAM Review 23 (Woodbury).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pxtools.errors import PxUsageError
from pxtools.expr.infer import Facts
from pxtools.expr.ir import Expr, Graph
from pxtools.expr.patterns import Conditioning, find_conditionings, posterior_terms, replace_run, walk

Outputs = dict[str, Expr]


def variants(graph: Graph, facts: Facts, outputs: Outputs, form: str) -> Iterator[tuple[str, Outputs]]:
    """Yield the forms that may be taken: all that exist for "auto", else the one that was asked for."""
    if form in ("auto", "cholesky"):
        yield "cholesky", outputs
        cheaper: tuple[type[Rewriting], ...] = (_Factoring, _Distribution, _Absorption)
        for kind in cheaper:
            changed = kind(graph, facts).outputs(outputs)
            if changed != outputs:
                yield "cholesky", changed
        if form == "cholesky":
            return
    found = False
    for case in find_conditionings(graph, outputs.values()):
        for name, rewriting in FORMS:
            if form == name or (form == "auto" and name != "sqrt"):
                if not rewriting.fits(graph, facts, case):
                    continue
                changed = rewriting(graph, facts, case).outputs(outputs)
                if changed != outputs:
                    found = True
                    yield name, changed
    if form != "auto" and not found:
        raise PxUsageError(
            f"These formulas have no form `{form}`: it needs (R + U*C*U.T).I with C and R positive definite"
            + (", R diagonal or block diagonal." if form == "sequential" else ".")
        )


class Rewriting:
    """Rebuild expressions bottom-up; subclasses say what becomes of sums, products and log-determinants."""

    def __init__(self, graph: Graph, facts: Facts) -> None:
        self.graph, self.facts = graph, facts
        self._done: dict[Expr, Expr] = {}

    def outputs(self, outputs: Outputs) -> Outputs:
        return {name: self(node) for name, node in outputs.items()}

    def __call__(self, node: Expr) -> Expr:
        if node not in self._done:
            self._done[node] = self._rebuilt(node)
        return self._done[node]

    def _rebuilt(self, node: Expr) -> Expr:
        graph = self.graph
        if node.op == "add":
            return self.sum(node)
        if node.op == "mul":
            return self.product(node)
        if node.op == "logdet":
            return self.logdet(node)
        if not node.args:
            return node
        args = [self(arg) for arg in node.args]
        if all(a is b for a, b in zip(args, node.args, strict=True)):
            return node
        rebuild: dict[str, Callable[..., Expr]] = {
            "inv": graph.inv,
            "had": graph.had,
            "diag": graph.diag,
            "diagonal": graph.diagonal,
            "sadd": graph.sadd,
            "smul": graph.smul,
        }
        if node.op in rebuild:
            return rebuild[node.op](*args)
        return graph.make(node.op, args, node.shape, node.data)

    def sum(self, node: Expr) -> Expr:
        assert node.shape
        terms = []
        for (number, scalars), part in zip(node.data, node.args, strict=True):
            terms.append(((number, tuple(self(s) for s in scalars)), self(part)))
        return self.graph.add(terms, node.shape)

    def product(self, node: Expr) -> Expr:
        return self.graph.mul(*(self(factor) for factor in node.args))

    def logdet(self, node: Expr) -> Expr:
        return self.graph.make("logdet", (self(node.args[0]),))


# -- the formula as written, more cheaply ------------------------------------------------------------------------------


class _Factoring(Rewriting):
    """A*B + A*C becomes A*(B + C)."""

    def sum(self, node: Expr) -> Expr:
        total = super().sum(node)
        return self._factored(total) if total.op == "add" and len(total.args) > 1 else total

    def _factored(self, node: Expr) -> Expr:
        graph = self.graph
        for side in (0, -1):
            groups: dict[Expr, list[int]] = {}
            for index, part in enumerate(node.args):
                if part.op == "mul" and graph.T(part) is not part:
                    groups.setdefault(part.args[side], []).append(index)
            for factor, members in groups.items():
                if len(members) > 1:
                    return self._taken_out(node, factor, members, side)
        return node

    def _taken_out(self, node: Expr, factor: Expr, members: list[int], side: int) -> Expr:
        graph = self.graph
        rests = []
        for index in members:
            part = node.args[index]
            rest = part.args[1:] if side == 0 else part.args[:-1]
            rests.append((node.data[index], graph.mul(*rest)))
        assert rests[0][1].shape
        assert node.shape
        inner = graph.add(rests, rests[0][1].shape)
        if inner.op == "add" and len(inner.args) > 1:
            inner = self._factored(inner)
        product = graph.mul(factor, inner) if side == 0 else graph.mul(inner, factor)
        others = [(node.data[i], part) for i, part in enumerate(node.args) if i not in members]
        total = graph.add([((1.0, ()), product), *others], node.shape)
        return self._factored(total) if total.op == "add" and len(total.args) > 1 else total


class _Distribution(Rewriting):
    """(Identity - K*H)*P becomes P - K*H*P; a congruence such as Joseph's form is left as it was meant."""

    def product(self, node: Expr) -> Expr:
        factors = [self(factor) for factor in node.args]
        if self.graph.T(node) is node:
            return self.graph.mul(*factors)
        for index, factor in enumerate(factors):
            if factor.op == "add" and len(factor.args) > 1 and any(part.op == "identity" for part in factor.args):
                terms = [
                    (coef, self.graph.mul(*factors[:index], part, *factors[index + 1 :]))
                    for coef, part in zip(factor.data, factor.args, strict=True)
                ]
                assert node.shape
                return self(self.graph.add(terms, node.shape))
        return self.graph.mul(*factors)


class _Absorption(Rewriting):
    """S.T*(Identity - A*X) becomes S.T - S.T*A*X where S.T has few rows."""

    def product(self, node: Expr) -> Expr:
        graph = self.graph
        factors = [self(factor) for factor in node.args]
        if graph.T(node) is node:
            return graph.mul(*factors)
        for index, factor in enumerate(factors):
            if factor.op != "add" or all(part.op != "identity" for part in factor.args):
                continue
            left, right = factors[:index], factors[index + 1 :]
            if left and left[-1].rows < left[-1].cols:
                return graph.mul(*left[:-1], self._spread(factor, [left[-1]], []), *right)
            if right and right[0].cols < right[0].rows:
                return graph.mul(*left, self._spread(factor, [], [right[0]]), *right[1:])
        return graph.mul(*factors)

    def _spread(self, factor: Expr, left: list[Expr], right: list[Expr]) -> Expr:
        shape = ((left or [factor])[0].rows, (right or [factor])[-1].cols)
        pairs = zip(factor.data, factor.args, strict=True)
        return self.graph.add(((c, self.graph.mul(*left, part, *right)) for c, part in pairs), shape)


# -- conditioning ------------------------------------------------------------------------------------------------------


class _Around(Rewriting):
    """Rewriting around one conditioning."""

    def __init__(self, graph: Graph, facts: Facts, case: Conditioning) -> None:
        super().__init__(graph, facts)
        self.case = case
        self.turned = tuple(graph.T(factor) for factor in reversed(case.load))

    @classmethod
    def fits(cls, graph: Graph, facts: Facts, case: Conditioning) -> bool:
        return facts.holds(case.prior, "pd") and facts.holds(case.noise, "pd")

    def posterior(self) -> Expr:
        raise NotImplementedError

    def sum(self, node: Expr) -> Expr:
        rest = posterior_terms(self.graph, node, self.case)
        if rest is None:
            return super().sum(node)
        assert node.shape
        terms = [(coef, self(part)) for coef, part in rest]
        return self.graph.add([((1.0, ()), self.posterior()), *terms], node.shape)


class _Information(_Around):
    """The posterior as (C.I + U.T*R.I*U).I: cheaper when there are more observations than states."""

    def posterior(self) -> Expr:
        return self.graph.inv(self.precision())

    def precision(self) -> Expr:
        graph, case = self.graph, self.case
        gram = graph.mul(*self.turned, graph.inv(case.noise), *case.load)
        return graph.plus(graph.inv(case.prior), gram)

    def product(self, node: Expr) -> Expr:
        graph, case = self.graph, self.case
        whitened = graph.inv(case.noise)
        gain = [self.posterior(), *self.turned, whitened]
        gain_t = [whitened, *case.load, self.posterior()]
        factors = list(node.args)
        for run, new in ((case.gain, gain), (case.gain_t, gain_t)):
            while (changed := replace_run(factors, run, new)) is not None:
                factors = changed
        return self._mapped(factors)

    def _mapped(self, factors: list[Expr]) -> Expr:
        return self.graph.mul(*(f if f is self.posterior() else self(f) for f in factors))

    def logdet(self, node: Expr) -> Expr:
        graph, case = self.graph, self.case
        if node.args[0] is not case.inverse.args[0]:
            return super().logdet(node)
        parts = [graph.make("logdet", (e,)) for e in (case.noise, case.prior, self.precision()) if e.op != "identity"]
        return graph.sadd(*parts)


class _Woodbury(_Information):
    """The inverse itself by the smaller matrix: R.I - R.I*U*(C.I + U.T*R.I*U).I*U.T*R.I."""

    @classmethod
    def fits(cls, graph: Graph, facts: Facts, case: Conditioning) -> bool:
        cheap = facts.holds(case.noise, "diagonal") or case.noise.op in ("block", "inv")
        return super().fits(graph, facts, case) and cheap and case.load[0].rows > case.prior.rows

    def _rebuilt(self, node: Expr) -> Expr:
        return self._expanded([], []) if node is self.case.inverse else super()._rebuilt(node)

    def _mapped(self, factors: list[Expr]) -> Expr:
        for index, factor in enumerate(factors):
            if factor is self.case.inverse:
                return self._expanded(factors[:index], factors[index + 1 :])
        return super()._mapped(factors)

    def _expanded(self, left: list[Expr], right: list[Expr]) -> Expr:
        graph, case = self.graph, self.case
        whitened = graph.inv(case.noise)
        middle = [whitened, *case.load, self.posterior(), *self.turned, whitened]
        first, second = self._mapped([*left, whitened, *right]), self._mapped([*left, *middle, *right])
        return graph.plus(first, second, -1.0)


class _Macro(_Around):
    """Keep the conditioning as one operation that `conditioning.py` plans."""

    how = ""

    def __init__(self, graph: Graph, facts: Facts, case: Conditioning) -> None:
        super().__init__(graph, facts, case)
        self.whole_load = graph.mul(*case.load)

    def posterior(self) -> Expr:
        case = self.case
        return self.graph.make("post", (case.prior, self.whole_load, case.noise), case.prior.shape, self.how)

    def product(self, node: Expr) -> Expr:
        graph, case = self.graph, self.case
        for is_turned, factors in ((False, list(node.args)), (True, list(graph.T(node).args))):
            size = len(case.gain)
            for start in range(len(factors) - size):
                if all(a is b for a, b in zip(factors[start:], case.gain, strict=False)):
                    result = self._applied(factors[:start], factors[start + size :])
                    return graph.T(result) if is_turned else result
        return super().product(node)

    def logdet(self, node: Expr) -> Expr:
        if node.args[0] is not self.case.inverse.args[0]:
            return super().logdet(node)
        return self.graph.make("zlogdet", (self.case.prior, self.whole_load, self.case.noise), None, self.how)

    def _rebuilt(self, node: Expr) -> Expr:
        """Take v.T*Z.I*v from the whitened innovations, as log-likelihoods want it."""
        graph, case = self.graph, self.case
        factors = node.args[0].args if node.op == "elem" and node.args[0].op == "mul" else ()
        if case.inverse in factors[1:-1]:
            middle = factors.index(case.inverse)
            right = graph.mul(*factors[middle + 1 :])
            if graph.T(right) is graph.mul(*factors[:middle]):
                return graph.make("zquad", (case.prior, self.whole_load, case.noise, self(right)), None, self.how)
        return super()._rebuilt(node)

    def _applied(self, before: list[Expr], after: list[Expr]) -> Expr:
        graph, case = self.graph, self.case
        right = self(graph.mul(*after))
        args = (case.prior, self.whole_load, case.noise, right)
        gain = graph.make("gain", args, (case.prior.rows, right.cols), self.how)
        return graph.mul(*map(self, before), gain)


class _Sequential(_Macro):
    """Observations in blocks, one after another: no k×k factor at all when the noise is (block) diagonal."""

    how = "sequential"

    @classmethod
    def fits(cls, graph: Graph, facts: Facts, case: Conditioning) -> bool:
        # the prior is never inverted or factored here
        known = facts.holds(case.prior, "psd") and facts.holds(case.noise, "pd")
        return known and _is_block_diagonal(facts, case.noise)


class _Sqrt(_Macro):
    """By one QR of the array [[R^T/2, 0], [C^T/2 U.T, C^T/2]]: accurate when measurements are ill-conditioned."""

    how = "sqrt"


def _is_block_diagonal(facts: Facts, noise: Expr) -> bool:
    if facts.holds(noise, "diagonal"):
        return True
    if noise.op != "block" or len(noise.args) != noise.data**2:
        return False
    wide = noise.data
    return all(cell.op == "zero" for n, cell in enumerate(noise.args) if n // wide != n % wide)


#: name of the form, rewriting; "information" has two readings
FORMS: list[tuple[str, type[_Around]]] = [
    ("information", _Information),
    ("information", _Woodbury),
    ("sequential", _Sequential),
    ("sqrt", _Sqrt),
]

__all__ = ["FORMS", "Outputs", "Rewriting", "variants", "walk"]
