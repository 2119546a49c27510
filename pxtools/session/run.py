"""Run a cell on engines: push what it reads, run it, collect what it assigns, in one message each way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pxtools.engines import Call, Reply
from pxtools.engines.wire import raise_if_lost
from pxtools.errors import CellSyntaxError, PxEngineLost, PxNameError, PxUsageError
from pxtools.names import CellNames, analyse, mentions
from pxtools.results import PerEngine, check_how, combine
from pxtools.session.core import Session
from pxtools.session.failures import to_exception
from pxtools.session.outgoing import Gathering, Parcel, content_hash, make_item

RUN = "pxtools.remote.execute.run"


@dataclass(frozen=True)
class Cell:
    """What is to be run, and what is asked of it.

    Attributes
    ----------
    code
        The cell as typed.
    python
        The same after IPython's transformation of magics; what is analysed.
    inputs, outputs
        Name there to name here, and name here to name there, asked for by ``-i`` and ``-o``.
    auto, collects
        Push what the cell reads and collect what it assigns; collect only ``outputs`` where `collects` is false.
    extensions
        Magics whose extension the engines may have to load first.
    runner, extra
        What runs it there, and what that needs to know beside; the code is Python for `RUN` only.
    """

    code: str
    python: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    targets: Any = None
    how: str | None = None
    seed: int | None = None
    auto: bool = True
    collects: bool = True
    extensions: tuple[str, ...] = ()
    runner: str = RUN
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class RunResult:
    """What a cell did on the engines.

    Attributes
    ----------
    replies
        What each engine answered and printed.
    outputs
        Name here to `PerEngine`, or to what ``how`` made of it.
    last
        The last expression's values, or None.
    shown
        Engine to MIME bundle (data, metadata) of the last expression.
    error
        What went wrong, to be raised after the output was shown.
    """

    replies: dict[int, Reply]
    outputs: dict[str, Any] = field(default_factory=dict)
    last: Any = None
    shown: dict[int, Any] = field(default_factory=dict)
    error: BaseException | None = None


class Running:
    """A cell that was sent to engines.

    Attributes
    ----------
    call
        The messages under way.
    """

    def __init__(
        self, session: Session, cell: Cell, names: CellNames, gathering: Gathering, engines: list[int]
    ) -> None:
        self.session = session
        self.cell = cell
        self.names = names
        self.gathering = gathering
        self.engines = engines
        self.call = self._send(engines)
        self._replies: dict[int, Reply] | None = None
        self._result: RunResult | None = None

    def _send(self, engines: list[int]) -> Call:
        rank = {engine: i for i, engine in enumerate(self.engines)}
        outputs, optional = _wanted(self.cell, self.names)
        settings = self.session.settings

        def build(parcel: Parcel) -> dict[str, Any]:
            return {
                "parcel": parcel,
                "code": self.cell.code,
                "rank": rank,
                "seed": self.cell.seed,
                "outputs": outputs,
                "optional": optional,
                "limit": settings.collect_limit,
                "extensions": self.cell.extensions,
                **self.cell.extra,
            }

        return self.session.send(self.cell.runner, self.gathering, engines, build)

    def wait(self, timeout_s: float | None = None, tick: Any = None) -> Running:
        """Wait for the answers; nothing is bound or shown yet."""
        if self._replies is None:
            replies = self.call.wait(timeout_s, tick)
            again = self.session.lacking(replies)
            if again:  # names were gone that should be there: these engines have not run the cell yet
                self.call = self._send(again)
                replies |= self.call.wait(timeout_s, tick)
            self._replies = replies
        return self

    def finish(self, timeout_s: float | None = None, tick: Any = None) -> RunResult:
        """Wait, take in the answers, bind the collected names."""
        self.wait(timeout_s, tick)
        if self._result is None:
            self._result = _take_in(self, self._replies or {})
        return self._result


def plan(session: Session, cell: Cell, local: Mapping[str, Any] | None = None) -> tuple[CellNames, Gathering]:
    """Return what the cell reads and binds, and what would travel for it.

    Raises
    ------
    CellSyntaxError
        The cell is no Python; nothing was sent.
    """
    code = cell.python or cell.code if cell.runner == RUN else ""
    try:
        names = analyse(code)
        modules, attributes = mentions(code)
    except (SyntaxError, ValueError) as error:
        raise syntax_error(error) from None
    automatic = names.reads if cell.auto else frozenset()
    gathering = session.gatherer(local).gather(automatic, cell.inputs, attributes=attributes)
    gathering.more_modules |= modules
    return names, gathering


def syntax_error(error: Exception) -> CellSyntaxError:
    """Return an error of three lines for a cell that cannot be read."""
    if not isinstance(error, SyntaxError):  # a null byte
        return CellSyntaxError(f"{error}.\nNothing was sent.")
    line = (error.text or "").rstrip("\n")
    shown = line.lstrip()
    marker = " " * max((error.offset or 1) - 1 - (len(line) - len(shown)), 0) + "^"
    lines = [
        f"{error.msg} (line {error.lineno} of the cell); nothing was sent.",
        *([f"    {shown}", f"    {marker}"] if shown else []),
    ]
    return CellSyntaxError("\n".join(lines))


def submit(session: Session, cell: Cell, local: Mapping[str, Any] | None = None) -> Running:
    """Send a cell to its engines and return at once."""
    if cell.how is not None:
        check_how(cell.how)
    engines = session.targets(cell.targets)
    names, gathering = plan(session, cell, local)
    cell = replace(cell, seed=session.settings.seed_for(cell.seed))
    return Running(session, cell, names, gathering, engines)


def _wanted(cell: Cell, names: CellNames) -> tuple[list[tuple[str, str]], list[str]]:
    """Return (name there, name here) to be collected, and which of them the cell may leave unset."""
    asked = [(there, here) for here, there in cell.outputs.items()]
    taken = {*cell.outputs, *cell.outputs.values()}
    optional = [name for name in names.assigned if name not in taken] if cell.auto and cell.collects else []
    return [*asked, *((name, name) for name in optional)], optional


def run(
    session: Session,
    cell: Cell,
    local: Mapping[str, Any] | None = None,
    timeout_s: float | None = None,
    tick: Any = None,
) -> RunResult:
    """Run a cell and wait for it; the caller shows the output and raises `error`."""
    return submit(session, cell, local).finish(timeout_s, tick)


def _take_in(running: Running, replies: dict[int, Reply]) -> RunResult:
    session, result = running.session, RunResult(replies)
    answering = {i: reply for i, reply in replies.items() if not reply.lost}
    failures = {}
    for engine, reply in answering.items():
        if reply.failure is not None:  # it failed before the cell began: unknown what arrived
            session.ledger.forget(engine)
            failures[engine] = reply.failure
        elif reply.answer and "failure" in reply.answer:
            failures[engine] = reply.answer["failure"]
    answers = {i: reply.answer or {} for i, reply in answering.items()}
    session.tell(running.gathering, {i: a.get("conflicts", []) for i, a in answers.items()})
    for note in dict.fromkeys(note for answer in answers.values() for note in answer.get("notes", ())):
        session.notify(note)
    if failures:
        result.error = to_exception(failures, len(replies), running.gathering.problems, namespace=session.namespace)
        return result
    try:
        _check_missing(answers)
        result.outputs = _outputs(session, running, answers)
        last = {i: a["last"] for i, a in answers.items() if a["last"] is not None}
        result.last = session.per_engine("the last value", last) if last else None
        result.shown = {i: a["shown"] for i, a in answers.items() if a["shown"]}
        raise_if_lost(replies)  # after the others' work was taken in
    except (PxUsageError, PxNameError, PxEngineLost) as error:
        result.error = error
    return result


def _check_missing(answers: Mapping[int, Mapping[str, Any]]) -> None:
    for engine, answer in answers.items():
        for name in answer["missing"]:
            raise PxNameError(f"`-o {name}`: the cell did not set `{name}` on engine {engine}.\nNothing was collected.")


def _outputs(session: Session, running: Running, answers: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Make one `PerEngine` per name, combine as asked, bind here; remember that both sides are in step."""
    names = dict.fromkeys(name for answer in answers.values() for name in answer["outputs"])
    source = dict(running.cell.outputs)
    values: dict[str, Any] = {}
    for name in names:
        held = session.per_engine(name, {i: a["outputs"][name] for i, a in answers.items() if name in a["outputs"]})
        values[name] = combine(held, running.cell.how, held.engines, name) if running.cell.how else held
    for name, value in values.items():
        session.namespace[name] = value
        if source.get(name, name) == name:
            _mark_in_step(session, name, value, list(answers))
    return values


def _mark_in_step(session: Session, name: str, value: Any, engines: list[int]) -> None:
    if isinstance(value, PerEngine):
        stamp: Any = ("per engine", value.uid)
        engines = list(value.engines)
    else:
        item = make_item(name, value, "", session.namespace)
        stamp = content_hash(item.packed) if item.packed else item.stamp
    for engine in engines:
        session.ledger.record(engine, name, stamp)
