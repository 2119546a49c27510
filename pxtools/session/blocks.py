"""Formulas over a matrix in column blocks that stay on their engines: two small exchanges, and nothing else moves."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from pxtools.engines.wire import name_engines
from pxtools.errors import PxEngineLost, PxUsageError
from pxtools.expr import CompiledFormula
from pxtools.expr.blockcall import BlockCall
from pxtools.expr.columns import Columns, Stage, downdate, projection, whitening
from pxtools.expr.failure import asymmetry
from pxtools.results import PerEngine
from pxtools.session.core import Session
from pxtools.session.joining import keep_until_rebound
from pxtools.session.outgoing import Gathering, make_item
from pxtools.session.scatter import Cut

COLUMNS = "pxtools.remote.columns."

_tokens = itertools.count(1)


def call_in_blocks(session: Session, formula: CompiledFormula, given: dict[str, Any]) -> Any:
    """Call a formula one of whose matrices is in column blocks, one per engine.

    Parameters
    ----------
    formula
        Its outputs are the posterior C - C*U.T*(U*C*U.T + R).I*U*C of the matrix in blocks, and whatever follows from
        U*C*U.T + R and U*C: means, log-likelihoods.
    given
        The inputs by name; one of them a `PerEngine` of arrays (n, n_j) whose columns add up to n.

    Returns
    -------
    named tuple
        Of the formula's outputs. The posterior is a `PerEngine` again: its blocks stay on the engines, under the
        output's name; the matrix that was given is left as it was.

    Raises
    ------
    PxUsageError
        What was given is no matrix in column blocks, or the formulas need it whole.
    NotPositiveDefinite
        A matrix is not what was said of it.
    PxEngineLost
        An engine died: its columns are gone.

    Notes
    -----
    Each engine holds n²/p numbers of the matrix, as many of the result, and k*n of U or V while it works. Up and down
    travel k² and k*n numbers an engine. Deterministic for given blocks; where engines have the same processor and
    BLAS, a symmetric matrix stays symmetric to the last bit. The sum of the engines' shares is taken in their order.
    """
    names = [name for name, value in given.items() if isinstance(value, PerEngine)]
    if len(names) > 1:
        raise PxUsageError(f"Only one matrix may be in blocks, and {', '.join(f'`{n}`' for n in names)} are.")
    (name,) = names
    held = given[name]
    others = {other: value for other, value in given.items() if other != name}
    with _saying_what_is_lost(held), _Blocks(session, formula, name, held) as blocks:
        return blocks.call(others)


@contextlib.contextmanager
def _saying_what_is_lost(held: PerEngine) -> Iterator[None]:
    try:
        yield
    except PxEngineLost as error:
        first = str(error).splitlines()[0]
        raise PxEngineLost(
            f"{first}\nIts columns of `{held.name}` went with it. Bring engines up with "
            f"`%pxcluster resize -n {len(held)}`, and scatter or make the matrix again."
        ) from None


class _Blocks:
    """The engines' side of one call: messages, stages, and what they keep between them."""

    def __init__(self, session: Session, formula: CompiledFormula, name: str, held: PerEngine) -> None:
        self.session, self.formula, self.name, self.held = session, formula, name, held
        self.engines = list(held.engines)
        self.there = held.name if held.name.isidentifier() else name
        self.token = f"blocks-{next(_tokens)}-{id(session)}"
        gone = [i for i in self.engines if i not in session.wire.ids]
        if gone:
            raise PxEngineLost(f"{name_engines(gone)} died before this work.")

    def __enter__(self) -> _Blocks:
        title = f"{self.formula.name} on {name_engines(self.engines)}"
        self.display = self.session.progress(title)
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self.display.close("done", 1.0)
        else:
            self.display.close()
        wire = self.session.wire
        alive = [i for i in self.engines if i in wire.ids]
        wire.submit("pxtools.remote.work.release", {i: {"token": self.token} for i in alive})

    def call(self, others: dict[str, Any]) -> Any:
        self._look()
        call = BlockCall(self.formula, self.name, others, self.columns.n, self.is_single)
        self.dtype = str(call.dtype)
        low, white = self._exchange(call)
        values = call.rest(low, white)
        held = self._downdate(call, white)
        return self.formula.result_type(*(held if n in call.posteriors else values[n] for n in self.formula.outputs))

    def _look(self) -> None:
        """Learn how the blocks lie, and check that they make up a square matrix."""
        item = make_item(self.there, self.held, "in column blocks", self.session.namespace)
        gathering = Gathering(items={self.there: item})
        looked = self.session.good(
            self.session.deliver(
                COLUMNS + "look", gathering, self.engines, lambda parcel: {"parcel": parcel, "name": self.there}
            )
        )
        self.session.tell(gathering, {i: answer["conflicts"] for i, answer in looked.items()})
        if self.session.namespace.get(self.there) is not self.held:
            keep_until_rebound(self.session, self.there, self.engines)
        for engine, answer in looked.items():
            if "type" in answer:
                raise PxUsageError(f"`{self.name}` is no matrix of real numbers on engine {engine}: {answer['type']}.")
        shapes = [answer["shape"] for answer in looked.values()]
        edges = (0, *itertools.accumulate(cols for _, cols in shapes))
        if {rows for rows, _ in shapes} != {edges[-1]}:
            listed = ", ".join("×".join(map(str, shape)) for shape in shapes)
            raise PxUsageError(
                f"`{self.name}` lies on the engines as {listed}: no column blocks of a square matrix.\n"
                f"Scatter it with `%pxscatter {self.name} --axis 1`, then `{self.name} = %pxcollect {self.name}`."
            )
        self.orders = [answer["order"] for answer in looked.values()]
        self.columns = Columns(edges, tuple(order == "C" for order in self.orders))
        self.is_single = {answer["dtype"] for answer in looked.values()} == {"float32"}
        self.largest = max(answer["largest"] for answer in looked.values())
        self.session.cuts[self.there] = Cut("array", 1, False, tuple(self.engines))

    def _exchange(self, call: BlockCall) -> tuple[Any, Any]:
        """Return L and V."""
        k, n = call.load.shape
        p = range(len(self.engines))
        probe = np.random.default_rng(2013).standard_normal((n, 1))
        sent = {"U": np.asarray(call.load, order="F"), "x": probe}
        self._say("products with the blocks", 0.0)
        stages = [projection(self.columns, j, k) for j in p]
        shares = self._run(stages, sent, new="WSyz", keep="W", back="Syz")
        self._check_symmetry(call, shares)
        low = call.factor(share["S"] for share in shares)
        self._say("triangular solves", 0.4)
        pieces = self._run([whitening(self.columns, j, k) for j in p], {"L": low}, kept="W", back="W")
        return low, np.asfortranarray(np.concatenate([piece["W"] for piece in pieces], axis=1))

    def _downdate(self, call: BlockCall, white: Any) -> PerEngine:
        """Have the engines make their new blocks; return what stands for them here."""
        self._say("new blocks", 0.6)
        stages = [downdate(self.columns, j, len(white)) for j in range(len(self.engines))]
        out = call.posteriors[0]
        answers = self._run(stages, {"V": white}, new=("new",), bind={"new": out})
        held = self.session.per_engine(out, dict(zip(self.engines, answers, strict=True)))
        for engine in self.engines:
            self.session.ledger.record(engine, out, ("per engine", held.uid))
        self.session.cuts[out] = Cut("array", 1, False, tuple(self.engines))
        return held

    def _check_symmetry(self, call: BlockCall, shares: list[dict[str, Any]]) -> None:
        """Refuse a matrix for which C*x and C.T*x differ; name the entries."""
        forth = sum(share["y"] for share in shares)
        i = call.is_symmetric(forth, np.concatenate([share["z"] for share in shares]), self.largest)
        if i is None:
            return
        edges = self.columns.edges
        messages = {
            engine: {"name": self.there, "index": i, "column": i - a if a <= i < b else None}
            for engine, (a, b) in zip(self.engines, itertools.pairwise(edges), strict=True)
        }
        answers = list(self.session.good(self.session.wire.call(COLUMNS + "cross", messages)).values())
        row = np.concatenate([answer["row"] for answer in answers])
        column = next(answer["column"] for answer in answers if answer["column"] is not None)
        j = int(np.argmax(np.abs(row - column)))
        raise asymmetry(self.name, i, j, row[j], column[j])

    def _run(
        self,
        stages: list[Stage],
        sent: dict[str, Any],
        *,
        new: Any = (),
        kept: Any = (),
        keep: Any = (),
        back: Any = (),
        bind: dict[str, str] | None = None,
    ) -> list[dict[str, Any]]:
        """Run one stage on all engines; return what came back, or the answers for what was bound, in their order."""
        message = {  # one object for all: what is sent to all travels once
            "token": self.token,
            "dtype": self.dtype,
            "sent": sent,
            "each": {
                engine: {
                    "table": stage.plan.table(),
                    "scalars": stage.plan.scalars,
                    "arena": stage.plan.arena,
                    "order": order,
                    "buffers": {
                        label: self._place(label, made, sent, new, kept) for label, made in stage.buffers.items()
                    },
                }
                for engine, stage, order in zip(self.engines, stages, self.orders, strict=True)
            },
            "keep": tuple(keep),
            "back": tuple(back),
            "bind": bind or {},
            "limit": self.session.settings.collect_limit,
        }
        answers = self.session.good(self.session.wire.call(COLUMNS + "run", dict.fromkeys(self.engines, message)))
        if bind:
            (name,) = bind.values()
            return [answers[engine]["bound"][name] for engine in self.engines]
        return [answers[engine]["back"] for engine in self.engines]

    def _place(self, label: str, made: tuple[Any, str], sent: Any, new: Any, kept: Any) -> tuple[Any, ...]:
        """Return where the engines find a buffer, or how they make it."""
        if label in sent:
            return ("sent", label)
        if label in new:
            return ("new", *made)
        return ("kept", label) if label in kept else ("held", self.there)

    def _say(self, text: str, fraction: float) -> None:
        self.display.update(text, fraction)
