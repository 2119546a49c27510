"""Try the forms and orders of a formula and keep the plan with the fewest flops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pxtools.expr.blocks import Cuts
from pxtools.expr.emit import Emitter
from pxtools.expr.infer import Facts
from pxtools.expr.ir import Expr, Graph
from pxtools.expr.patterns import walk
from pxtools.expr.plan import InputSpec, OutputSpec, Plan, finish
from pxtools.expr.planner import Planner, plan_outputs
from pxtools.expr.values import InputSlot

#: relative asymmetry that is taken for round-off
SYMMETRY_TOLERANCE = {True: 1e-5, False: 1e-10}


#: the information form inverts the prior, which costs accuracy: it must save a tenth of the flops
RELUCTANCE = {"information": 1.1}


#: plans that are made in full before the best of them is taken
MOST_PLANS = 60


@dataclass(frozen=True)
class Layout:
    """How the inputs will lie: which are in C order, which diagonal ones are vectors, which precision."""

    c_order: frozenset[str] = frozenset()
    vectors: frozenset[str] = frozenset()
    single: bool = False
    assume: bool = True


@dataclass
class Search:
    """One formula at one set of shapes."""

    graph: Graph
    outputs: dict[str, Expr]
    inputs: dict[str, Expr]
    layout: Layout
    cuts: Callable[[int], Cuts] | None = None
    considered: dict[str, float] = field(default_factory=dict)

    def best(self, form: str = "auto") -> Plan:
        facts = Facts(self.graph)
        candidates: list[tuple[float, int, str, _Attempt]] = []
        from pxtools.expr.forms import variants

        for name, outputs in variants(self.graph, facts, self.outputs, form):
            if len(candidates) + 5 > MOST_PLANS:  # an order, its reverse, two prices, factored centres
                break
            for attempt in self._attempts(name, outputs, facts):
                candidates.append((attempt.flops, len(candidates), name, attempt))
                self.considered[name] = min(attempt.flops, self.considered.get(name, float("inf")))
        best = min(candidates, key=lambda c: (c[0] * RELUCTANCE.get(c[2], 1.0), c[1]))[3]
        return best.finish(tuple(self.considered.items()))

    def _attempts(self, form: str, outputs: dict[str, Expr], facts: Facts) -> list[_Attempt]:
        counts = self._popular(facts, outputs)
        orders = [list(outputs)] if len(outputs) == 1 else [list(outputs), list(outputs)[::-1]]
        attempts = [
            _Attempt(self, form, outputs, order, facts=facts, popular=counts, discount=discount)
            for order in orders
            for discount in ((1.0, 0.5) if counts else (1.0,))
        ]
        if any(self._has_centre(facts, node) for node in walk(outputs.values())):
            attempts.append(_Attempt(self, form, outputs, orders[0], facts=facts, popular=counts, split_centres=True))
        return attempts

    def _has_centre(self, facts: Facts, node: Expr) -> bool:
        odd = node.op == "mul" and len(node.args) % 2 == 1 and self.graph.T(node) is node
        return odd and facts.holds(node.args[len(node.args) // 2], "pd")

    def _popular(self, facts: Facts, outputs: dict[str, Expr]) -> set[Expr]:
        """Return the products that stand in more than one place."""
        splitter = Planner(self.graph, facts, Emitter(), {})
        seen: dict[Expr, int] = {}
        for node in walk(outputs.values()):
            if node.op != "mul":
                continue
            factors = splitter.split_factors(node)
            for i in range(len(factors)):
                for j in range(i + 1, len(factors)):
                    piece = self.graph.raw_mul(factors[i : j + 1])
                    turned = self.graph.T(piece)
                    key = min(piece, turned, key=lambda e: e.serial)
                    seen[key] = seen.get(key, 0) + 1
        return {key for key, count in seen.items() if count > 1}


class _Attempt:
    """One complete planning, finished only if it wins."""

    def __init__(
        self,
        search: Search,
        form: str,
        outputs: dict[str, Expr],
        order: list[str],
        *,
        facts: Facts,
        popular: set[Expr],
        discount: float = 1.0,
        split_centres: bool = False,
    ) -> None:
        self.search, self.form = search, form
        self.emitter = Emitter()
        graph = search.graph

        def price(node: Expr) -> float:
            return discount if discount != 1.0 and (node in popular or graph.T(node) in popular) else 1.0

        self.specs, slots = self._slots(facts)
        planner = Planner(
            graph,
            facts,
            self.emitter,
            slots,
            price,
            tuple(outputs.values()),
            shared_terms(graph, outputs),
            split_centres,
        )
        self.places = plan_outputs(planner, outputs, order)
        self.outputs = outputs
        self.flops = self.emitter.flops

    def _slots(self, facts: Facts) -> tuple[list[InputSpec], dict[str, InputSlot]]:
        specs, slots = [], {}
        for name, node in self.search.inputs.items():
            if node.shape is None:
                position = self.emitter.slot()
                specs.append(InputSpec(name, None, scalar=position))
                slots[name] = InputSlot(None, None, position)
            elif name in self.search.layout.vectors:
                vector = self.emitter.buffer(node.rows, 1, "input", name)
                specs.append(InputSpec(name, node.shape, vector.buf, is_vector=True))
                slots[name] = InputSlot(None, vector)
            else:
                # a symmetric matrix or a vector lies the same way in both orders
                either = facts.holds(node, "symmetric") or 1 in (node.rows, node.cols)
                c_order = name in self.search.layout.c_order and not either
                mat = self.emitter.buffer(node.rows, node.cols, "input", name, trans=c_order)
                specs.append(InputSpec(name, node.shape, mat.buf, c_order=c_order))
                self._check_input(name, node, c_order, mat.buf, facts)
                slots[name] = InputSlot(mat)
        return specs, slots

    def _check_input(self, name: str, node: Expr, c_order: bool, buf: int, facts: Facts) -> None:
        from pxtools.expr.emit import Mat

        mat = Mat(buf, 0, max(node.rows, 1), node.rows, node.cols)
        tolerance = SYMMETRY_TOLERANCE[self.search.layout.single]
        if facts.holds(node, "symmetric"):
            self.emitter.check(mat, 0, tolerance, name)
        elif facts.holds(node, "lower") or facts.holds(node, "upper"):
            self.emitter.check(mat, 1 if facts.holds(node, "lower") != c_order else 2, 0.0, name)

    def finish(self, considered: tuple[tuple[str, float], ...]) -> Plan:
        outputs = []
        for name, (kind, place) in self.places.items():
            if kind == "scalar":
                assert isinstance(place, int)
                outputs.append(OutputSpec(name, None, scalar=place))
            else:
                assert not isinstance(place, int)
                outputs.append(OutputSpec(name, self.outputs[name].shape, place.buf, place.trans))
        return finish(self.emitter, self.specs, outputs, self.form, considered, self.search.cuts)


def shared_terms(graph: Graph, outputs: dict[str, Expr]) -> frozenset[Expr]:
    """Return the products that are terms of more than one sum, or terms and outputs as well."""
    parents: dict[Expr, set[Expr]] = {}
    for node in walk(outputs.values()):
        for part in node.args if node.op != "mul" else ():
            if part.op == "mul" and part.shape and part.cols > 1:
                parents.setdefault(part, set()).add(node)
    for node in outputs.values():
        if node.op == "mul":
            parents.setdefault(node, set()).add(node)
    turned = {part: parents.get(graph.T(part), set()) for part in parents}
    return frozenset(
        part
        for part, found in parents.items()
        if len({*found, *(graph.T(p) if p.shape else p for p in turned[part])}) > 1
    )
