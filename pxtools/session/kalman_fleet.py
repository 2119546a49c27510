"""Many series on engines: where each piece lies, what is asked of it there, what happens when an engine dies."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pxtools.engines.wire import name_engines
from pxtools.errors import PxUsageError
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
from pxtools.session.core import Session
from pxtools.session.kalman_places import Held, Place, kept
from pxtools.session.outgoing import make_item

#: seconds of a message, and bytes a second between processes of one host: measured with ipyparallel 9
LATENCY_S, BYTES_A_SECOND = 0.01, 0.8e9

#: arithmetic of the kernels, operations a second: eight series in the lanes of a register
OPERATIONS_A_SECOND = 15e9


class OnEngines(Held):
    """Series on engines, as a source of a `FleetResult`: see `Held`."""

    UNIT, DESCRIBE = "series", "describe"

    def __init__(self, session: Session, places: Sequence[Place], **options: Any) -> None:
        super().__init__(session, places, **options)
        self.names: tuple[str, ...] | None = None
        self.shape = self.n_held, self.piece_shape[0], self.piece_shape[1]

    # --- what a source can do

    def compute(self, models: Models, names: Sequence[str], form: str) -> FleetArrays:
        """Return these outputs, for all series in order; with `write`, arrays are files that are mapped."""
        wanted = tuple(names)
        if self.write is None:
            return self._computed(models, wanted, form, None)
        first = models if isinstance(models, StateSpaceModel) else models[0]
        target = replace(self.write, names=tuple(name for name in wanted if len(shape_of(name, 1, 1, 1)) > 0))
        if not target.names:
            return self._computed(models, wanted, form, None)
        sizes = self.shape[1], first.n_states, first.n_obs
        shapes = {name: (self.shape[0], *shape_of(name, *sizes)) for name in target.names}
        with being_written(target, shapes, [place.piece.start for place in self.places]):
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

    def _own_models(self, models: Models, place: Place) -> Models:
        if isinstance(models, StateSpaceModel):
            return models
        return tuple(models[place.piece.start : place.piece.stop])


def resident(session: Session, name: str | None, value: Any, targets: Any, **options: Any) -> OnEngines | None:
    """Return the series that already lie on engines under a name; None if they do not.

    They do when the name was scattered and its value here is still the same, or when engines made it (`PerEngine`).
    """
    if isinstance(value, PerEngine):
        places = [Place(i, Piece("name", value.name, 0, 0)) for i in value.engines]
        return OnEngines(session, _on(places, session, targets), **options)
    there = scattered(session, name, value, (3,))
    if there is None:
        return None
    return OnEngines(session, there, own=np.ascontiguousarray(value, dtype=np.float64), **options)


def scattered(session: Session, name: str | None, value: Any, dims: Sequence[int]) -> list[Place] | None:
    """Return where the pieces of an array lie that was scattered; None if it was not, or is not the same any more."""
    if name is None or not session.is_connected or name not in session.cuts:
        return None
    cut = session.cuts[name]
    if cut.kind != "array" or cut.axis != 0 or cut.is_flat or np.ndim(value) not in dims:
        return None
    item = make_item(name, value, "", session.namespace)
    there = [engine for engine in cut.engines if session.ledger.is_in_step(engine, item)]
    if len(there) < len(cut.engines):
        session.notify(f"`{name}` is not on the engines as it is here (`%pxscatter {name}` brings it there).")
        return None
    bounds = [len(value) * k // len(there) for k in range(len(there) + 1)]
    spans = zip(there, itertools.pairwise(bounds), strict=True)
    return [Place(i, Piece("name", name, a, b)) for i, (a, b) in spans if b > a]


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
