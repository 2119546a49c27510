"""What the magics of other languages share: waiting for a cell, with its output live, and showing the rest."""

from __future__ import annotations

import re
import time
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pxtools.engines import Reply
from pxtools.errors import PxUsageError
from pxtools.magics.common import PxMagics
from pxtools.magics.display import label, show_replies
from pxtools.session.core import Session
from pxtools.session.handle import Handle
from pxtools.session.languages import r_function
from pxtools.session.run import Cell, Running, submit

#: seconds that output waits for the cell's end, to be shown in the order of engines, equal output once
_LIVE_AFTER_S = 1.0


def dotted_names(specs: list[str] | None) -> dict[str, str]:
    """Return dest to source for ``-i a,b``, ``-i r.name=py``, ``-i module.attribute``: either side may have dots."""
    pairs = {}
    for piece in (piece.strip() for spec in specs or [] for piece in spec.split(",")):
        dest, equals, source = (part.strip() for part in piece.partition("="))
        source = source if equals else dest
        for name in (dest, source):
            if piece and not name.replace(".", "_").isidentifier():
                raise PxUsageError(f"`{piece}`: `{name}` is no name. Write `x`, or `there=here`.")
        if piece:
            pairs[dest] = source
    return pairs


_R_FUNCTION = re.compile(r"(?<!\S)r:([A-Za-z.][\w.]*)")


def name_r_functions(line: str) -> str:
    """Return a magic's line with each word ``r:f`` as an expression, to be evaluated by `r_functions`."""
    return _R_FUNCTION.sub(r"_px_r('\1')", line)


def r_functions(session: Session, names: ChainMap[str, Any], targets: Any) -> ChainMap[str, Any]:
    """Return the names of a magic's line, and what finds the functions of R among them."""
    local = {**names.maps[0], "_px_r": lambda name: r_function(session, name, targets)}
    return ChainMap(local, names.maps[-1])


class LiveOutput:
    """Shows whole lines of a cell that goes on for a while after printing them."""

    def __init__(self) -> None:
        self._waiting_since: float | None = None
        self._shown: dict[int, int] = {}

    def tick(self, printed: Mapping[int, str]) -> None:
        """Show what is new."""
        ends = {engine: text.rfind("\n") + 1 for engine, text in printed.items()}
        if all(end <= self._shown.get(engine, 0) for engine, end in ends.items()):
            return
        now = time.monotonic()
        self._waiting_since = self._waiting_since or now
        if now - self._waiting_since < _LIVE_AFTER_S:
            return
        self._waiting_since = None
        for engine, text in sorted(printed.items()):
            end = ends[engine]
            for line in text[self._shown.get(engine, 0) : end].splitlines():
                print(f"{label([engine])} {line}", flush=True)
            self._shown[engine] = max(end, self._shown.get(engine, 0))

    def rest(self, replies: Mapping[int, Reply]) -> dict[int, Reply]:
        """Return the replies without what was shown."""
        return {i: replace(reply, stdout=reply.stdout[self._shown.get(i, 0) :]) for i, reply in replies.items()}


class LanguageMagics(PxMagics):
    """A magic whose cell runs in another language on the engines."""

    def run(self, cell: Cell, args: Any, local: Mapping[str, Any]) -> Handle | None:
        """Run a cell and show what it printed and drew; return a handle at once with ``--noblock``."""
        running = submit(self.session, cell, local)
        live = LiveOutput()

        def wait() -> Running:
            progress = self.session.progress("engines at work")

            def tick(call: Any) -> None:
                if not args.noblock:
                    live.tick(call.printed())
                progress.update(call.progress(), call.fraction())

            try:
                return running.wait(tick=tick)
            finally:
                progress.close(running.call.progress(), running.call.fraction())

        def take(ended: Running) -> dict[str, Any] | None:
            result = ended.finish()
            show_replies(live.rest(result.replies))
            if result.error is not None:
                raise result.error
            return result.outputs if args.noblock else None

        handle: Handle | None = self.carry_out(args, wait, take)
        return handle
