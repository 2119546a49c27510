"""Many series on engines: where each piece lies, what is asked of it there, what happens when an engine dies."""

from __future__ import annotations

import itertools
import pickle
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pxtools.engines import Reply
from pxtools.engines.wire import name_engines
from pxtools.errors import PxEngineLost, PxUsageError
from pxtools.kalman.batch import SHARING, FleetArrays, Models
from pxtools.kalman.checks import Array
from pxtools.kalman.fitting.sums import Summed
from pxtools.kalman.forms.generated import made_for
from pxtools.kalman.model import StateSpaceModel
from pxtools.kalman.pieces import Piece, series_shape
from pxtools.kalman.there import joined
from pxtools.kalman.writing import ZARR_CHUNK, Target, being_written
from pxtools.kernels.kalman_batch_layout import shape_of
from pxtools.results import PerEngine
from pxtools.session.core import NoProgress, Session
from pxtools.session.failures import to_exception
from pxtools.session.outgoing import make_item

THERE = "pxtools.kalman.there."

#: seconds of a message, and bytes a second between processes of one host: measured with ipyparallel 9
LATENCY_S, BYTES_A_SECOND = 0.01, 0.8e9

#: arithmetic of the kernels, operations a second: eight series in the lanes of a register
OPERATIONS_A_SECOND = 15e9

_tokens = itertools.count(1)


@dataclass(frozen=True)
class Place:
    """A piece of the fleet and the engine it lies with."""

    engine: int
    piece: Piece


class OnEngines:
    """Series on engines, as a source of a `FleetResult`.

    Parameters
    ----------
    session
    places : list of Place
        In the order of the series.
    own : array, optional
        The same series here, from which those of a dead engine are brought to another one.
    write : Target, optional
        Where arrays are written instead of coming back.
    timeout_s : float, optional
        For each question.

    Attributes
    ----------
    bytes_moved : int
        Bytes of questions and answers so far, of all engines.
    """

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
        self.names: tuple[str, ...] | None = None
        self.bytes_moved = 0
        shapes = [answer["shape"] for answer in self._ask("describe", [() for _ in self.places])]
        if len({shape[1:] for shape in shapes}) > 1:
            raise PxUsageError(f"The pieces on the engines differ in their steps or values: {_words(shapes)}.")
        bounds = np.cumsum([0, *(shape[0] for shape in shapes)])
        self.places = [
            replace(place, piece=_between(place.piece, int(a), int(b)))
            for place, (a, b) in zip(self.places, itertools.pairwise(bounds), strict=True)
            if b > a
        ]
        if not self.places:
            raise PxUsageError("The engines hold no series: every piece is empty.")
        self.shape = int(bounds[-1]), int(shapes[0][1]), int(shapes[0][2])
        for place in self.places:
            self._keep_while_used(place)

    # --- what a source can do

    def compute(self, models: Models, names: Sequence[str], form: str) -> FleetArrays:
        """Return these outputs, for all series in order; with `write`, arrays are files that are mapped."""
        wanted = tuple(names)
        if self.write is None:
            return self._computed(models, wanted, form, None)
        first = models if isinstance(models, StateSpaceModel) else models[0]
        target = replace(self.write, names=tuple(name for name in wanted if len(shape_of(name, 1, 1, 1)) > 0))
        sizes = (*self.shape[:2], first.n_states, first.n_obs)
        if not target.names:
            return self._computed(models, wanted, form, None)
        with being_written(target, sizes, [place.piece.start for place in self.places]):
            every = tuple(dict.fromkeys((*wanted, "log_likelihood")))
            found = self._computed(models, every, form, target)
        found.arrays.update({name: target.opened(name) for name in target.names})
        return found

    def _computed(self, models: Models, names: tuple[str, ...], form: str, target: Target | None) -> FleetArrays:
        made = made_for(models) if form == "generated" else ()
        args = [(self._own_models(models, place), names, form, target, made) for place in self.places]
        answers = self._ask("compute", args, title=f"filtering {self.shape[0]:,} series")
        return joined([(place.piece.start, answer) for place, answer in zip(self.places, answers, strict=True)])

    def series(self, number: int) -> Array:
        """Return the observations of one series, (n_steps, n_obs)."""
        place = next(p for p in self.places if p.piece.start <= number < p.piece.stop)
        in_file = place.piece.kind == "file"
        piece = replace(place.piece, start=number, stop=number + 1) if in_file else place.piece
        values: Array = self._ask(
            "series", [(0 if in_file else number - place.piece.start,)], places=[replace(place, piece=piece)]
        )[0]
        return values

    def totals(self, models: Sequence[StateSpaceModel]) -> Array:
        """Return the log-likelihood of all good series together under each of the models."""
        return np.sum(self._ask("totals", [(tuple(models),) for _ in self.places]), axis=0)

    def statistics(self, model: StateSpaceModel) -> Summed:
        """Return the sufficient statistics of all good series together."""
        first, *others = self._ask("statistics", [(model,) for _ in self.places])
        return sum(others, first)

    def scale(self) -> float:
        """Return a variance on which free variances may start."""
        return float(np.mean(self._ask("scale", [() for _ in self.places])))

    def values(self) -> Array:
        """Return all series, brought here."""
        if self.own is not None:
            return self.own
        parts = []
        for place in self.places:
            if place.piece.kind == "file":
                parts.append(place.piece.read())
            else:
                n_own = place.piece.stop - place.piece.start
                parts.append(np.stack([self.series(place.piece.start + k) for k in range(n_own)]))
        return np.concatenate(parts)

    # --- messages

    def _own_models(self, models: Models, place: Place) -> Models:
        if isinstance(models, StateSpaceModel):
            return models
        return tuple(models[place.piece.start : place.piece.stop])

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
                raise PxEngineLost(f"series of the same piece were lost twice with their engine: {lost[0]}.")
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
        span = f"series {piece.start:,} to {piece.stop - 1:,}"
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


def _words(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(str(shape) for shape in dict.fromkeys(shapes))


def size_of(value: Any) -> int:
    """Return about how many bytes a value is in a message."""
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if isinstance(value, FleetArrays):
        return sum(array.nbytes for array in value.arrays.values()) + 100
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


def resident(session: Session, name: str | None, value: Any, targets: Any, **options: Any) -> OnEngines | None:
    """Return the series that already lie on engines under a name; None if they do not.

    They do when the name was scattered and its value here is still the same, or when engines made it (`PerEngine`).
    """
    if isinstance(value, PerEngine):
        places = [Place(i, Piece("name", value.name, 0, 0)) for i in value.engines]
        return OnEngines(session, _on(places, session, targets), **options)
    if name is None or not session.is_connected or name not in session.cuts:
        return None
    cut = session.cuts[name]
    item = make_item(name, value, "", session.namespace)
    there = [engine for engine in cut.engines if session.ledger.is_in_step(engine, item)]
    if cut.kind != "array" or cut.axis != 0 or cut.is_flat or np.ndim(value) != 3:
        return None
    if len(there) < len(cut.engines):
        session.notify(f"`{name}` is not on the engines as it is here (`%pxscatter {name}` brings it there).")
        return None
    own = np.ascontiguousarray(value, dtype=np.float64)
    bounds = [len(own) * k // len(there) for k in range(len(there) + 1)]
    spans = zip(there, itertools.pairwise(bounds), strict=True)
    places = [Place(i, Piece("name", name, a, b)) for i, (a, b) in spans if b > a]
    return OnEngines(session, places, own=own, **options)


def _on(places: list[Place], session: Session, targets: Any) -> list[Place]:
    chosen = session.targets(targets)
    left = [place for place in places if place.engine in chosen]
    if len(left) < len(places):
        away = name_engines(place.engine for place in places if place.engine not in chosen)
        raise PxUsageError(f"Some of the series are on {away}.\nLeave out `-t`, or name all engines that have some.")
    return left


def _shares(engines: Sequence[int], n_series: int) -> Iterator[tuple[int, int, int]]:
    """Give each engine its series: the first and the one after the last. Zarr's chunks shall not be cut."""
    whole = ZARR_CHUNK if n_series >= 4 * ZARR_CHUNK * len(engines) else 1
    bounds = [n_series * k // len(engines) // whole * whole for k in range(len(engines))]
    for engine, (start, stop) in zip(engines, itertools.pairwise([*bounds, n_series]), strict=True):
        if stop > start:
            yield engine, start, stop


def from_file(session: Session, path: str, targets: Any, **options: Any) -> OnEngines:
    """Return the series of a file, each engine reading its own."""
    shares = _shares(session.targets(targets), series_shape(path)[0])
    places = [Place(i, Piece("file", path, a, b)) for i, a, b in shares]
    return OnEngines(session, places, **options)


def shipped(session: Session, values: Array, targets: Any, **options: Any) -> OnEngines:
    """Return series of the notebook, brought to engines, which keep them."""
    places = [kept(session, values, a, b, i) for i, a, b in _shares(session.targets(targets), len(values))]
    return OnEngines(session, places, own=values, **options)


@dataclass(frozen=True)
class Estimate:
    """What work costs here, and on engines with the transport that it needs; seconds, bytes."""

    here_s: float
    there_s: float
    n_bytes: int

    @property
    def pays(self) -> bool:
        """Whether the engines are faster."""
        return self.there_s < self.here_s


def estimate(model: StateSpaceModel, values: Array, names: Sequence[str], n_engines: int, passes: int = 1) -> Estimate:
    """Predict what it costs to bring series to engines, work `passes` times, and bring results back."""
    n_series, n_steps, m = values.shape
    n = model.n_states
    in_F, in_H = (np.count_nonzero(model.parts[letter][0]) for letter in "FH")
    operations = 40 + m * (1.5 * n * n + 20) + 2 * n * in_H + 3 * n * in_F
    if any(name.startswith("smoothed") for name in names):
        operations *= 5
    elif not np.isnan(values[:SHARING]).any():
        operations /= 2  # gains are computed once
    here_s = passes * n_series * n_steps * operations / OPERATIONS_A_SECOND
    back = sum(8 * n_series * int(np.prod(shape_of(name, n_steps, n, m))) for name in names)
    n_bytes = values.nbytes + back
    there_s = here_s / n_engines + n_bytes / BYTES_A_SECOND + LATENCY_S * (1 + passes)
    return Estimate(here_s, there_s, n_bytes)


def with_ticks(session: Session, title: str) -> tuple[Callable[[int, float], None], Callable[[], None]]:
    """Return what shows the iterations of a fit, and what ends the display."""
    display = session.progress(title)

    def tick(iteration: int, log_likelihood: float) -> None:
        display.update(f"iteration {iteration} · log-likelihood {log_likelihood:,.4f}", None)

    return tick, display.close
