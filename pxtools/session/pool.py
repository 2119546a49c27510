"""Pieces of work on whichever engine is free, through ipyparallel's own scheduler."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

from pxtools.engines import Reply
from pxtools.engines.wire import INTERRUPT_GRACE_S, TICK_S, Message, interrupted, read_reply
from pxtools.errors import PxEngineLost, PxTimeout
from pxtools.remote.pickling import Packed
from pxtools.session.core import Session
from pxtools.session.outgoing import Gathering

WORK = "pxtools.remote.work."

#: pieces of work that end by themselves this soon are let alone: a signal could hit what runs after them
_SOON_S = 0.5

_tokens = itertools.count(1)


class Pool:
    """An object kept on engines, and tasks that use it.

    Use as a context manager: at its end the engines forget the object, and after an interrupt they are stopped.

    Parameters
    ----------
    task
        What the engines keep, packed.
    gathering
        What it relies on.
    targets
        Engine numbers.
    timeout_s
        For the whole of the work.
    """

    def __init__(
        self, session: Session, task: Packed, gathering: Gathering, targets: list[int], timeout_s: float | None = None
    ) -> None:
        self.session = session
        self.targets = targets
        self.token = f"task-{next(_tokens)}-{id(session)}"
        self._pending: dict[Any, tuple[Any, str, Message, bool]] = {}
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        replies = session.deliver(
            WORK + "keep", gathering, targets, lambda parcel: {"parcel": parcel, "token": self.token, "task": task}
        )
        answers = session.good(replies, gathering.problems)
        session.tell(gathering, {i: answer["conflicts"] for i, answer in answers.items()})

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        wire = self.session.wire
        stuck = self._abandon() if self._pending else []
        wire.submit(WORK + "release", {i: {"token": self.token} for i in self.targets if i in wire.ids})
        if kind is KeyboardInterrupt:
            raise interrupted(self.targets, stuck) from None

    def submit(self, key: Any, function: str, message: Message) -> None:
        """Send one piece of work; `key` comes back with its reply."""
        self._send(key, function, {"token": self.token, **message}, is_second=False)

    def _send(self, key: Any, function: str, message: Message, *, is_second: bool) -> None:
        wire = self.session.wire
        self.targets = [i for i in self.targets if i in wire.ids]
        if not self.targets:
            raise PxEngineLost("all engines of this work died.\nBring new ones up with `%pxcluster resize -n N`.")
        result = wire.submit_balanced(WORK + function, message, self.targets)
        self._pending[result] = (key, function, message, is_second)

    @property
    def n_pending(self) -> int:
        """How many pieces of work are under way."""
        return len(self._pending)

    def completed(self, tick: Callable[[], None] | None = None) -> Iterator[tuple[Any, Reply]]:
        """Yield (key, reply) in the order of completion until nothing is under way; more may be submitted meanwhile.

        Work that was lost with its engine is sent once more.

        Raises
        ------
        PxTimeout, PxEngineLost
        """
        while self._pending:
            finished, _ = concurrent.futures.wait(
                self._pending, timeout=TICK_S, return_when=concurrent.futures.FIRST_COMPLETED
            )
            if tick is not None:
                tick()
            if not finished and self._deadline is not None and time.monotonic() > self._deadline:
                raise PxTimeout(
                    f"no end after {self._timeout_s:g} s; the engines were interrupted.\nGive `--timeout S`."
                )
            for result in finished:
                key, function, message, is_second = self._pending.pop(result)
                reply = read_reply(result, _engine_of(result))
                if reply.lost and not is_second:
                    self._send(key, function, message, is_second=True)
                elif reply.lost:
                    raise PxEngineLost(f"the same piece of work was lost twice with its engine ({reply.lost}).")
                else:
                    yield key, reply

    def _abandon(self) -> list[int]:
        """Take back what has not begun, interrupt what has; return the engines that go on all the same."""
        wire = self.session.wire
        pending = list(self._pending)
        self._pending.clear()
        with contextlib.suppress(Exception):  # some have begun, or are done already
            wire.client.abort(pending, block=False)
        _, late = concurrent.futures.wait(pending, timeout=_SOON_S)
        if not late:
            return []
        wire.interrupt(self.targets)
        _, late = concurrent.futures.wait(late, timeout=INTERRUPT_GRACE_S)
        return wire.busy(self.targets) if late else []


def _engine_of(result: Any) -> int:
    engine = result.engine_id
    return engine if isinstance(engine, int) else -1
