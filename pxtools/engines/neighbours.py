"""Frozen engines of other hosts: another engine there is asked, as only its host knows that a process is stopped."""

from __future__ import annotations

import platform
import time
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pxtools.engines.calls import Call
    from pxtools.engines.wire import Wire

#: seconds between two questions to a host, and how many of its engines may owe an answer: they may be at long work
_AGAIN_S, _AT_ONCE = 1.0, 3


class Neighbours:
    """Asks engines of other hosts about each other.

    Attributes
    ----------
    stopped
        Engine numbers that are stopped, by the last answers.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.stopped: set[int] = set()
        #: engine number to when it was asked last; and to the questions that are not answered
        self._asked_at: dict[int, float] = {}
        self._owed: dict[int, Call] = {}

    def ask(self, wait_s: float = 0.0) -> None:
        """Read what answers there are, and ask again where the last question was a while ago.

        Parameters
        ----------
        wait_s
            How long to wait for the answer of each host that is asked now.
        """
        here, alive = platform.node(), set(self._wire.alive)
        hosts: dict[tuple[str, str], dict[int, int]] = defaultdict(dict)
        for i, said in list(self._wire.engines.items()):
            if said["host"] != here and i in alive:
                hosts[said["host"], said["processes"]][i] = said["pid"]
        self._read()
        asked = [call for pids in hosts.values() if (call := self._ask_one_of(pids)) is not None]
        for call in asked if wait_s else ():
            call.poll(wait_s)
        self._read()

    def _ask_one_of(self, pids: dict[int, int]) -> Call | None:
        """Ask the engine of a host that was not asked for longest."""
        now, never = time.monotonic(), -1e9
        owing = self._owed.keys() & pids
        free = [i for i in pids if i not in owing and i not in self.stopped]
        is_soon = now - max(self._asked_at.get(i, never) for i in pids) < _AGAIN_S
        if len(pids) < 2 or not free or len(owing) >= _AT_ONCE or is_soon:
            return None
        who = min(free, key=lambda i: self._asked_at.get(i, never))
        self._asked_at[who] = now
        call = self._owed[who] = self._wire.submit("pxtools.remote.health.stopped", {who: {"pids": pids}})
        call.with_output = False
        return call

    def _read(self) -> None:
        for engine, call in list(self._owed.items()):
            if call.poll():
                del self._owed[engine]
                answer = call.replies[engine].answer
                if answer is not None:  # else it died
                    self.stopped = (self.stopped - answer["asked"]) | answer["stopped"]
        self.stopped &= set(self._wire.alive)
