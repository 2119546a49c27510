"""Work that engines were sent: waiting for it, interrupting it, and reading what comes back, whatever comes back."""

from __future__ import annotations

import concurrent.futures
import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ipyparallel as ipp

from pxtools.engines.waiting import Waiting, within
from pxtools.errors import PxCancelled, PxEngineLost, PxError, PxInterrupted, PxTimeout
from pxtools.remote import sharing

if TYPE_CHECKING:
    from pxtools.engines.wire import Wire

Message = dict[str, Any]

#: seconds between two looks at running work, for progress and interrupts
TICK_S = 0.05
#: seconds that interrupted engines get to become idle
INTERRUPT_GRACE_S = 2.0
#: seconds that an engine's process has to be stopped before the engine counts as frozen
FROZEN_S = 1.0

#: ipyparallel's results are done a moment before they can be read: another thread sets what `get` looks at
SETTLED_S = 10.0

#: what is said of an engine whose process is gone
DIED = "killed, or out of memory?"


@dataclass
class Reply:
    """What one engine answered, and what it printed and displayed on the way.

    Attributes
    ----------
    lost
        Why there is no answer.
    is_frozen
        There is none because the engine's process is stopped.
    """

    engine_id: int
    answer: Message | None = None
    failure: Message | None = None
    lost: str | None = None
    is_frozen: bool = False
    stdout: str = ""
    stderr: str = ""
    outputs: list[Message] = field(default_factory=list)


class Call:
    """Work that has been sent to engines.

    Parameters
    ----------
    results
        Engine id to ipyparallel's result; None for one that died before anything was sent.

    Attributes
    ----------
    pending
        Engine id to ipyparallel's result, for engines that have not answered.
    replies
        Engine id to answer.
    with_output
        Wait for what was printed, too, which comes after the answer.
    """

    def __init__(self, wire: Wire, results: dict[int, Any]) -> None:
        self.wire = wire
        self.engines = list(results)
        self.results = {i: result for i, result in results.items() if result is not None}
        self.pending = dict(self.results)
        self.replies = {i: Reply(i, lost=DIED) for i in self.engines if i not in self.results}
        #: called with engines of which nobody knows what they have received
        self.on_unanswered: Callable[[list[int]], None] = lambda engines: None
        self._frozen = Frozen(wire)
        self.with_output = True
        self._n_before_interrupt: int | None = None

    def poll(self, timeout_s: float = 0.0) -> bool:
        """Wait at most so long; return whether every engine has answered."""
        if self.pending:
            concurrent.futures.wait(self.pending.values(), timeout=timeout_s)
        for engine_id, result in list(self.pending.items()):
            if result.done():
                reply = self.replies[engine_id] = read_reply(result, engine_id, with_output=self.with_output)
                del self.pending[engine_id]
                if reply.lost:
                    self.wire.sweep(engine_id)
                    if self.pending:
                        self.wire.say(f"engine {engine_id} died ({reply.lost}); waiting for the others")
        return not self.pending

    def printed(self) -> dict[int, str]:
        """Return what each engine has printed so far."""
        return {i: metadata_of(result)["stdout"] for i, result in self.results.items()}

    @property
    def n_done(self) -> int:
        """Number of engines that did the work: an engine that is interrupted answers, too, and is not one of them."""
        return len(self.replies) if self._n_before_interrupt is None else self._n_before_interrupt

    def progress(self) -> str:
        """Return how many engines have done the work."""
        return f"{self.n_done}/{len(self.engines)} engines done"

    def fraction(self) -> float:
        """Return the part of the engines that have done the work."""
        return self.n_done / len(self.engines)

    def wait(self, timeout_s: float | None = None, tick: Callable[[Call], None] | None = None) -> dict[int, Reply]:
        """Wait for all engines, except those whose process is stopped.

        Parameters
        ----------
        timeout_s
            After so many seconds the engines are interrupted and `PxTimeout` is raised. What holds for this thread
            (`pxtools.engines.waiting`) holds as well.
        tick
            Called about twenty times a second with this call, for progress.

        Raises
        ------
        PxTimeout, PxCancelled, KeyboardInterrupt
            After the engines were interrupted.
        """
        with within(timeout_s) as waiting:
            try:
                while not self.poll(TICK_S) and not self._waits_for_frozen_only():
                    waiting.begun.set()
                    if waiting.display is not None:
                        waiting.display.update(self.progress())
                    if tick is not None:
                        tick(self)
                    if waiting.is_over:
                        raise self.interrupt().stopped(waiting)
            except BaseException as error:
                self.on_unanswered(self.engines)
                raise (self.interrupt().interrupted() if type(error) is KeyboardInterrupt else error) from None
            finally:
                for result in self.pending.values():
                    discard(result)
        return {i: self.replies[i] for i in self.engines}

    def _waits_for_frozen_only(self) -> bool:
        """Give up the engines whose process is stopped once there is nobody else to wait for."""
        frozen = self._frozen.among(self.pending)
        if not frozen or frozen < self.pending.keys():
            return False
        self.give_up(frozen)
        return True

    def give_up(self, frozen: Iterable[int]) -> None:
        """Wait no longer for engines whose process is stopped; they drop this work when they go on."""
        frozen = self.pending.keys() & frozen
        if frozen:
            self.wire.abandon([self.pending[i] for i in frozen], frozen)
        for engine_id in frozen:
            discard(self.pending.pop(engine_id))
            self.on_unanswered([engine_id])
            self.replies[engine_id] = Reply(engine_id, lost="its process is stopped", is_frozen=True)

    def interrupt(self) -> Halted:
        """Interrupt the engines that are at this work; take it back where it has not begun."""
        self._n_before_interrupt = self.n_done
        unbegun = self.wire.not_begun(self.pending)
        self.wire.abort([self.pending[i] for i in unbegun], unbegun)
        for engine_id in unbegun:
            discard(self.pending.pop(engine_id))
        if self.pending:
            self.wire.interrupt(list(self.pending))
            self.poll(INTERRUPT_GRACE_S)
        return Halted(self.engines, sorted(self.pending), unbegun)


class Frozen:
    """Which engines have been stopped for a while; says so once of each."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._began = time.monotonic()
        self._since: dict[int, float] = {}
        self._said: set[int] = set()

    def among(self, engines: Iterable[int]) -> set[int]:
        """Return those of the engines that have been stopped for at least `FROZEN_S`."""
        now = time.monotonic()
        if now - self._began > FROZEN_S:
            self._wire.look_elsewhere()
        stopped = self._wire.frozen().intersection(engines)
        self._since = {i: self._since.get(i, now) for i in stopped}
        lasting = {i for i, since in self._since.items() if now - since >= FROZEN_S}
        for engine_id in sorted(lasting - self._said):
            self._wire.say(f"engine {engine_id} is frozen (its process is stopped); going on without it")
        self._said |= lasting
        return lasting


@dataclass(frozen=True)
class Halted:
    """What became of engines that were told to stop.

    Attributes
    ----------
    engines
        All that had the work.
    stuck
        Those that go on with it.
    unbegun
        Those at earlier work, which is let alone; this work was taken back.
    """

    engines: Collection[int]
    stuck: Collection[int] = ()
    unbegun: Collection[int] = ()

    def words(self) -> str:
        """Return it in a line or two."""
        idle = set(self.engines) - set(self.stuck) - set(self.unbegun)
        lines = []
        if idle:
            lines.append(f"{name_engines(idle)} {_verb(idle, 'was', 'were')} interrupted and {_verb(idle, 'is')} idle.")
        if self.unbegun:
            lines.append(f"{name_engines(self.unbegun)}: still at earlier work; this work was taken back.")
        if self.stuck:
            numbers = ",".join(map(str, sorted(self.stuck)))
            lines.append(
                f"{name_engines(self.stuck)} cannot be interrupted. Replace: `%pxcluster restart -t {numbers}`."
            )
        return "\n".join(lines)

    def stopped(self, waiting: Waiting) -> PxError:
        """Return the exception for work that was cancelled or out of time."""
        if waiting.cancelled.is_set():
            return PxCancelled(f"cancelled; {self.words()}")
        more = "" if self.stuck else "\nGive more time with `--timeout S`."
        return PxTimeout(f"no end after {waiting.timeout_s:g} s; {self.words()}{more}")

    def interrupted(self) -> PxInterrupted:
        """Return the exception for a Ctrl-C."""
        return PxInterrupted(self.words())


def _verb(engines: Collection[int], one: str, many: str = "are") -> str:
    return one if len(engines) == 1 else many


def name_engines(engine_ids: Iterable[int]) -> str:
    """Return `engine 3`, or `engines 0-2, 5`: runs of numbers are folded."""
    ids = sorted(engine_ids)
    runs: list[list[int]] = []
    for i in ids:
        if runs and i == runs[-1][-1] + 1:
            runs[-1].append(i)
        else:
            runs.append([i])
    words = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return ("engine " if len(ids) == 1 else "engines ") + ", ".join(words)


def read_reply(result: Any, engine_id: int = -1, *, with_output: bool = True) -> Reply:
    """Return the reply of a finished result, whatever it is; what was printed comes later, and need not be awaited."""
    reply = Reply(engine_id)
    sharing.give_back(getattr(result, "pxtools_lent", None))
    try:
        data, lent = result.get(timeout=SETTLED_S)
    except ipp.error.RemoteError as error:
        died = error.ename == "EngineError"
        reply.lost = DIED if died else f"{error.ename}: {error.evalue}"
        return reply
    except Exception as error:
        reply.lost = f"{type(error).__name__}: {error}"
        return reply
    if with_output:
        result.wait_for_output(timeout=1.0)
        beside = metadata_of(result)
        reply.stdout, reply.stderr, reply.outputs = beside["stdout"], beside["stderr"], list(beside["outputs"])
    try:
        content = sharing.decode(data, lent)
    except Exception as error:
        reply.failure = {"type": type(error).__name__, "message": f"its answer cannot be read here: {error}"}
        return reply
    reply.answer, reply.failure = content.get("ok"), content.get("failure")
    return reply


def metadata_of(result: Any) -> dict[str, Any]:
    """Return what an engine sends beside its answer.

    `result.metadata` first reads four dates in it, which takes longer than all else that is done with an answer.
    """
    (beside,) = getattr(result, "_metadata", None) or [result.metadata]
    return dict(beside)


def discard(result: Any) -> None:
    """Let nothing remain of work that nobody waits for any more: neither what it was lent, nor its late answer."""
    sharing.give_back(getattr(result, "pxtools_lent", None))
    result.add_done_callback(_drop_answer)


def _drop_answer(result: Any) -> None:
    with contextlib.suppress(Exception):  # it died, or was aborted: there is no answer
        sharing.give_back(result.get(timeout=SETTLED_S)[1])


def raise_if_lost(replies: Mapping[int, Reply]) -> None:
    """Raise `PxEngineLost` naming the engines that died, or are frozen."""
    died = [i for i, reply in replies.items() if reply.lost and not reply.is_frozen]
    if died:
        raise PxEngineLost(
            f"{name_engines(died)} died during this work ({replies[died[0]].lost}); what the others did is kept.\n"
            f"`%pxcluster resize -n {len(replies)}` brings new ones up, with the same imports and names."
        )
    frozen = [i for i, reply in replies.items() if reply.is_frozen]
    if frozen:
        raise PxEngineLost(f"{frozen_message(frozen)}\nWhat the others did is kept.")


def frozen_message(engines: Iterable[int]) -> str:
    """Return what is to be said of engines whose process is stopped."""
    engines = sorted(engines)
    is_or_are = "is" if len(engines) == 1 else "are"
    return (
        f"{name_engines(engines)} {is_or_are} frozen (stopped, as by SIGSTOP), and left out until it goes on.\n"
        f"`%pxcluster restart -t {','.join(map(str, engines))}` replaces it, with the same imports and names."
    )
