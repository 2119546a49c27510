"""How this thread waits for engines: until when, whether it was asked to stop, and whom it tells how far it is.

Every loop that waits for engines looks here. So what lies between a magic and its messages needs no parameter for
`--timeout` and `--noblock`, and no wait can be without them.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Waiting:
    """How one thread waits.

    Attributes
    ----------
    deadline, timeout_s
        When the patience ends (`time.monotonic`), and how long it was.
    cancelled
        Set by another thread that wants the work to stop.
    begun
        Set when something was sent and is waited for: what was to travel has been copied.
    display
        Takes the progress of work in the background; None where the screen does.
    """

    deadline: float = math.inf
    timeout_s: float = math.inf
    cancelled: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)
    display: Any = None

    @property
    def is_over(self) -> bool:
        """Whether to wait no longer."""
        return self.cancelled.is_set() or time.monotonic() > self.deadline


_current: ContextVar[Waiting] = ContextVar("pxtools_waiting")


def current() -> Waiting:
    """Return how this thread waits; patiently, if nobody has said otherwise."""
    return _current.get(None) or Waiting()


@contextmanager
def as_told(waiting: Waiting) -> Iterator[Waiting]:
    """Wait that way within the block."""
    token = _current.set(waiting)
    try:
        yield waiting
    finally:
        _current.reset(token)


@contextmanager
def within(timeout_s: float | None) -> Iterator[Waiting]:
    """Wait at most so many seconds for engines, in all that the block does; without end if None.

    An outer block that ends sooner counts.
    """
    outer = current()
    deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
    if timeout_s is not None and deadline < outer.deadline:
        outer = replace(outer, deadline=deadline, timeout_s=timeout_s)
    with as_told(outer) as waiting:
        yield waiting
