"""Pieces of work on whichever engine is free.

Each goes to an engine that is chosen here, through the queues that cells use: ipyparallel's scheduler of tasks takes
ten times as long for a message, and does not tell which engine has it.
"""

from __future__ import annotations

import concurrent.futures
import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pxtools.engines import Call, Reply, waiting
from pxtools.engines.calls import INTERRUPT_GRACE_S, TICK_S, Frozen, Halted, Message, discard, read_reply
from pxtools.errors import PxEngineLost
from pxtools.remote.pickling import Packed
from pxtools.session.core import Session
from pxtools.session.outgoing import Gathering

WORK = "pxtools.remote.work."

#: pieces of work that end by themselves this soon are let alone: a signal could hit what runs after them
_SOON_S = 0.5
#: objects up to this size travel with an engine's first piece, and stay there until the next message to it: that
#: saves two messages to each
_SMALL_BYTES = 1_000_000
_tokens = itertools.count(1)


@dataclass(eq=False)
class _Piece:
    """A piece of work: its key, what is sent, who should not get it, how long it takes against others of the pool.

    And who has it, how often it was lost before, and what is to be called if it is never answered.
    """

    key: Any
    function: str
    message: Message
    avoid: int
    weight: int
    engine: int = -1
    times_lost: int = 0
    on_unanswered: Callable[[list[int]], None] | None = None

    def give_up(self, engine: int) -> None:
        """Note that nobody knows what the engine has received with it."""
        if self.on_unanswered is not None:
            self.on_unanswered([engine])
        self.on_unanswered = None


class Pool:
    """An object kept on engines, and tasks that use it.

    Use as a context manager: at its end the engines forget the object, and after an interrupt they are stopped.
    Nobody waits for what engines say to the object: pieces are sent behind it, or with it if it is small.

    Parameters
    ----------
    task
        What the engines keep, packed.
    gathering
        What it relies on.
    engines
        Engine numbers. One that freezes is left out until it goes on.
    timeout_s
        For the whole of the work.
    retries
        How often a piece of work that was lost with its engine is sent again.

    Attributes
    ----------
    ahead
        How many pieces an engine may have at once. Two hide the way of a message; but what waits behind a piece that
        takes long cannot be balanced any more.
    """

    def __init__(
        self,
        session: Session,
        task: Packed,
        gathering: Gathering,
        engines: list[int],
        timeout_s: float | None = None,
        *,
        retries: int = 1,
    ) -> None:
        self.session = session
        self.engines = engines
        self.token = f"task-{next(_tokens)}-{id(session)}"
        self._retries = retries
        self._waiting_here: deque[_Piece] = deque()
        self._pending: dict[Any, _Piece] = {}
        self._frozen = Frozen(session.wire)
        self.ahead = 1
        self._gathering, self._nbytes = gathering, task.nbytes
        self._build = lambda parcel: {"parcel": parcel, "token": self.token, "task": task}
        self._keeping: Call | None = None
        #: engines to which the object has not been sent, and what those said that got it with a piece
        self._without: set[int] = set()
        self._conflicts: dict[int, list[str]] = {}
        with waiting.within(timeout_s) as self._waiting:
            if _is_small(task, gathering):
                self._without.update(engines)
            else:
                self._keeping = session.send(WORK + "keep", gathering, engines, self._build)
                self._keeping.with_output = False

    def __enter__(self) -> Pool:
        self.session.tell(self._gathering, {})
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.session.tell(Gathering(), self._conflicts)
        if not self.session.is_connected:
            return
        wire = self.session.wire
        halted = self._abandon() if self._pending or self._keeping is not None else Halted(self.engines)
        if self._nbytes > _SMALL_BYTES:
            wire.submit(WORK + "release", {i: {"token": self.token} for i in self.engines if i in wire.alive})
        else:
            self.session.release(self.engines, self.token)
        if kind is KeyboardInterrupt:
            raise halted.interrupted() from None

    @property
    def targets(self) -> list[int]:
        """Those of the engines that can be used now."""
        usable = self.session.wire.ids
        return [i for i in self.engines if i in usable]

    def submit(self, key: Any, function: str, message: Message, *, avoid: int = -1, weight: int = 1) -> None:
        """Send one piece of work; `key` comes back with its reply.

        Parameters
        ----------
        avoid
            An engine that should not get it if there is another.
        weight
            How long it takes, in any unit that all pieces of this pool share.
        """
        self._send(_Piece(key, function, {"token": self.token, **message}, avoid, weight))

    def _send(self, piece: _Piece) -> None:
        self._waiting_here.append(piece)
        self._share_out()

    def _share_out(self) -> None:
        """Give what waits here to the engines that have least to do, up to `ahead` pieces each."""
        if not self._waiting_here:
            return
        targets = self.targets
        if not targets:
            raise PxEngineLost("all engines of this work died or froze.\nBring new ones up: `%pxcluster restart`.")
        pieces, load = Counter[int](), Counter[int]()
        for piece in self._pending.values():
            pieces[piece.engine] += 1
            load[piece.engine] += piece.weight
        for piece in list(self._waiting_here):
            free = [i for i in targets if pieces[i] < self.ahead and (i != piece.avoid or len(targets) == 1)]
            if not free:
                continue
            engine = min(free, key=load.__getitem__)
            result = self._submit_to(engine, piece)
            if result is not None:  # else it died just now
                self._waiting_here.remove(piece)
                piece.engine = engine
                self._pending[result] = piece
                pieces[engine] += 1
                load[engine] += piece.weight

    def _submit_to(self, engine: int, piece: _Piece) -> Any:
        """Send a piece to an engine, with the object if it has not got it; return ipyparallel's result, or None."""
        if engine not in self._without:
            return self.session.wire.submit_one(WORK + piece.function, engine, piece.message)
        self._without.remove(engine)
        call = self.session.send(
            WORK + piece.function, self._gathering, [engine], lambda parcel: {**self._build(parcel), **piece.message}
        )
        piece.on_unanswered = call.on_unanswered
        return call.results.get(engine)

    @property
    def n_pending(self) -> int:
        """How many pieces of work are under way."""
        return len(self._pending) + len(self._waiting_here)

    def completed(self, tick: Callable[[], None] | None = None) -> Iterator[tuple[Any, Reply]]:
        """Yield (key, reply) in the order of completion until nothing is under way; more may be submitted meanwhile.

        Work that was lost with its engine is sent again, `retries` times.

        Raises
        ------
        PxTimeout, PxCancelled, PxEngineLost
        """
        while self._pending or self._waiting_here:
            finished, _ = concurrent.futures.wait(
                self._pending, timeout=TICK_S, return_when=concurrent.futures.FIRST_COMPLETED
            )
            self._waiting.begun.set()
            if tick is not None:
                tick()
            if self._waiting.cancelled.is_set() or (not finished and self._waiting.is_over):
                raise self._abandon().stopped(self._waiting)
            self._take_from_frozen()
            if self._keeping is not None and self._keeping.poll():
                self._settle()
            self._share_out()
            for result in finished & self._pending.keys():
                piece = self._pending[result]
                engine, piece.engine = piece.engine, -1
                self._share_out()  # before the answer is read: the engine has nothing to do
                reply = read_reply(result, engine, with_output=False)
                del self._pending[result]  # not before: what an interrupt leaves unread has to be found
                if reply.answer is None:
                    piece.give_up(engine)
                elif "conflicts" in reply.answer:
                    self._conflicts[engine] = reply.answer["conflicts"]
                if reply.lost:
                    self._send_again(piece, reply.lost)
                elif reply.answer and "lacking" in reply.answer:  # not even begun
                    self._settle(engine)
                    self._send(piece)
                else:
                    yield piece.key, reply
        self._settle()

    def _settle(self, lacks_it: int | None = None) -> None:
        """Read what engines said to the object; have it sent again where it, or a name that it relies on, is gone."""
        lacking = [] if lacks_it is None else [lacks_it]
        replies: dict[int, Reply] = {}
        with waiting.as_told(self._waiting):
            if self._keeping is not None:
                keeping, self._keeping = self._keeping, None
                replies = keeping.wait()
                lacking = self.session.lacking(replies)
            if lacking:
                replies |= self.session.deliver(WORK + "keep", self._gathering, lacking, self._build)
        held = {i: reply for i, reply in replies.items() if not reply.lost}
        answers = self.session.good(held or replies, self._gathering.problems)  # who died just now is left out
        self._conflicts |= {i: answer["conflicts"] for i, answer in answers.items()}

    def _send_again(self, piece: _Piece, why: str) -> None:
        if piece.times_lost >= self._retries:
            raise PxEngineLost(
                f"the same piece of work was lost {piece.times_lost + 1} times with its engine ({why}).\n"
                f"`%pxcluster resize -n {len(self.engines)}` brings new engines up."
            )
        piece.times_lost += 1
        self._send(piece)

    def _take_from_frozen(self) -> None:
        """Send the work of frozen engines to the others."""
        frozen = self._frozen.among(self.engines)
        stranded = [result for result, piece in self._pending.items() if piece.engine in frozen]
        if self._keeping is not None:
            self._keeping.give_up(frozen)
        if stranded:
            self.session.wire.abandon(stranded, frozen)
        for result in stranded:
            discard(result)
            piece = self._pending.pop(result)
            piece.give_up(piece.engine)
            self._send(piece)

    def _abandon(self) -> Halted:
        """Take back what has not begun, interrupt what has, and let engines that are at other work go on."""
        wire = self.session.wire
        pending = {result: piece.engine for result, piece in self._pending.items()}
        if self._keeping is not None:
            pending |= {result: engine for engine, result in self._keeping.pending.items()}
            self._keeping.on_unanswered(list(self._keeping.pending))
            self._keeping = None
        for piece in self._pending.values():
            piece.give_up(piece.engine)
        self._pending.clear()
        self._waiting_here.clear()
        try:
            elsewhere = wire.at_other_work(pending)
            wire.abort(list(pending), wire.alive)
            mine = [result for result, engine in pending.items() if engine not in elsewhere]
            _, late = concurrent.futures.wait(mine, timeout=_SOON_S)
            wire.interrupt(sorted({pending[result] for result in late}))
            _, late = concurrent.futures.wait(late, timeout=INTERRUPT_GRACE_S)
            return Halted({*pending.values()}, sorted({pending[result] for result in late}), elsewhere)
        finally:
            for result in pending:
                discard(result)


def _is_small(task: Packed, gathering: Gathering) -> bool:
    """Return whether the object and all that it relies on may be sent to each engine for itself."""
    items = gathering.items.values()
    return task.nbytes + sum(item.nbytes for item in items) <= _SMALL_BYTES and not any(i.per_engine for i in items)
