"""Series, or steps of one, on engines: where each piece lies, what is asked of it, what happens when an engine dies."""

from __future__ import annotations

import itertools
import pickle
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from pxtools.engines import Reply
from pxtools.errors import PxEngineLost, PxUsageError
from pxtools.kalman.batch import FleetArrays
from pxtools.kalman.checks import Array
from pxtools.kalman.cuts import Done
from pxtools.kalman.pieces import Piece
from pxtools.kalman.writing import Target
from pxtools.session.core import NoProgress, Session
from pxtools.session.failures import to_exception

THERE = "pxtools.kalman.there."

_tokens = itertools.count(1)


@dataclass(frozen=True)
class Place:
    """A piece and the engine it lies with."""

    engine: int
    piece: Piece


class Held:
    """Consecutive pieces on engines, and the questions that they are asked.

    Parameters
    ----------
    session
    places : list of Place
        In the order of the series, or of the steps of one.
    own : array, optional
        The same here, from which the pieces of a dead engine are brought to another one.
    write : Target, optional
        Where arrays are written instead of coming back.
    timeout_s : float, optional
        For each question.

    Attributes
    ----------
    bytes_moved : int
        Bytes of questions and answers so far, of all engines.
    piece_shape : tuple of int
        Of one series, or of one step.
    """

    #: what a piece has many of, and what asks for its shape
    UNIT: ClassVar[str]
    DESCRIBE: ClassVar[str]

    def __init__(
        self,
        session: Session,
        places: Sequence[Place],
        *,
        own: Array | None = None,
        write: Target | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self.session, self.places, self.own, self.write, self.timeout_s = session, list(places), own, write, timeout_s
        self.index: Any = None
        self.bytes_moved = 0
        shapes = [answer["shape"] for answer in self._ask(self.DESCRIBE, [() for _ in self.places])]
        if len({shape[1:] for shape in shapes}) > 1:
            words = ", ".join(str(shape) for shape in dict.fromkeys(shapes))
            raise PxUsageError(f"The pieces on the engines differ in their steps or values: {words}.")
        bounds = np.cumsum([0, *(shape[0] for shape in shapes)])
        self.places = [
            replace(place, piece=_between(place.piece, int(a), int(b)))
            for place, (a, b) in zip(self.places, itertools.pairwise(bounds), strict=True)
            if b > a
        ]
        if not self.places:
            raise PxUsageError("The engines hold no series: every piece is empty.")
        self.n_held, self.piece_shape = int(bounds[-1]), tuple(int(size) for size in shapes[0][1:])
        for place in self.places:
            self._keep_while_used(place)

    def _keep_while_used(self, place: Place) -> None:
        if place.piece.kind == "kept":
            weakref.finalize(self, _forget, self.session.unused_series, place).atexit = False

    def _ask(
        self, what: str, args: Sequence[tuple[Any, ...]], *, places: Sequence[Place] | None = None, title: str = ""
    ) -> list[Any]:
        """Ask about each place; pieces of an engine that dies are asked for again on another one, once."""
        chosen = list(self.places if places is None else places)
        answers: dict[int, Any] = {}
        waiting = list(range(len(chosen)))
        for is_second in (False, True):
            lost = self._ask_once(what, chosen, args, waiting, answers, title)
            if not lost:
                break
            if is_second:
                raise PxEngineLost(f"{self.UNIT} of the same piece were lost twice with their engine: {lost[0]}.")
            waiting = [k for k in range(len(chosen)) if k not in answers]
            for k in waiting:
                moved = self._elsewhere(chosen[k])
                self.places = [moved if place == chosen[k] else place for place in self.places]
                chosen[k] = moved
        return [answers[k] for k in range(len(chosen))]

    def _ask_once(
        self,
        what: str,
        places: Sequence[Place],
        args: Sequence[tuple[Any, ...]],
        waiting: Sequence[int],
        answers: dict[int, Any],
        title: str,
    ) -> list[str]:
        """Put in the answers of those that are waiting; return why engines were lost."""
        wire = self.session.wire
        by_engine: dict[int, list[int]] = {}
        gone = []
        for k in waiting:
            if places[k].engine in wire.ids:
                by_engine.setdefault(places[k].engine, []).append(k)
            else:
                gone.append("gone before the work began")
        messages = {
            engine: {"what": what, "pieces": [places[k].piece for k in own], "args": [args[k] for k in own]}
            for engine, own in by_engine.items()
        }
        replies = self._call(messages, title)
        failures = {i: reply.failure for i, reply in replies.items() if reply.failure is not None}
        if failures:
            raise to_exception(failures, len(replies), namespace=self.session.namespace)
        for engine, reply in replies.items():
            if reply.lost:
                gone.append(reply.lost)
                continue
            for k, answer in zip(by_engine[engine], (reply.answer or {})["answers"], strict=True):
                answers[k] = answer
                self.bytes_moved += size_of(answer)
        self.bytes_moved += sum(size_of(message) for message in messages.values())
        return gone

    def _call(self, messages: dict[int, dict[str, Any]], title: str) -> dict[int, Reply]:
        display = self.session.progress(title) if title else NoProgress()
        began = time.monotonic()

        def tick(call: Any) -> None:
            done = 1 - len(call.pending) / max(1, len(messages))
            display.update(f"{time.monotonic() - began:.0f} s", done)

        try:
            return self.session.wire.call(THERE + "ask", messages, self.timeout_s, tick) if messages else {}
        finally:
            display.close()

    def _elsewhere(self, place: Place) -> Place:
        """Bring a piece whose engine died to the engine that has the fewest."""
        alive = self.session.wire.ids
        if not alive:
            raise PxEngineLost("all engines of this work died.\nBring new ones up with `%pxcluster resize -n N`.")
        counts = {i: sum(p.engine == i for p in self.places) for i in alive}
        engine = min(alive, key=lambda i: (counts[i], i))
        piece = place.piece
        span = f"{self.UNIT} {piece.start:,} to {piece.stop - 1:,}"
        if piece.kind != "file":
            if self.own is None:
                raise PxEngineLost(
                    f"engine {place.engine} died with {span} of `{piece.where}`, which are nowhere else.\n"
                    "Make them again on the engines, or scatter them from the notebook."
                )
            piece = kept(self.session, self.own, piece.start, piece.stop, engine).piece
            self._keep_while_used(Place(engine, piece))
        self.session.notify(f"engine {place.engine} died: {span} are run again on engine {engine}.")
        return Place(engine, piece)


def _between(piece: Piece, start: int, stop: int) -> Piece:
    return piece if piece.kind == "file" else replace(piece, start=start, stop=stop)


def size_of(value: Any) -> int:
    """Return about how many bytes a value is in a message."""
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if isinstance(value, FleetArrays):
        return sum(array.nbytes for array in value.arrays.values()) + 100
    if isinstance(value, Done):
        return sum(part.nbytes for runs in value.runs.values() for part, _ in runs) + 100
    return len(pickle.dumps(value, protocol=5))


def kept(session: Session, values: Array, start: int, stop: int, engine: int) -> Place:
    """Bring series to an engine, which keeps them under a token."""
    token = f"series-{next(_tokens)}-{id(session)}"
    unused = session.unused_series.pop(engine, [])
    message = {"token": token, "values": values[start:stop], "forget": unused}
    session.good(session.wire.call(THERE + "keep", {engine: message}))
    return Place(engine, Piece("kept", token, start, stop))


def _forget(unused: dict[int, list[str]], place: Place) -> None:
    """Have the engine drop kept series when it is next sent some."""
    unused.setdefault(place.engine, []).append(place.piece.where)
