"""One long series on engines, cut in time: whether that pays, where the pieces lie, how they become one result."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pxtools.errors import PxUsageError
from pxtools.kalman import FilterResult, LongResult, StateSpaceModel, kalman
from pxtools.kalman.checks import Array
from pxtools.kalman.cuts import Done, NotCut, Plan, parts_agree, plan_for, with_longer_margin
from pxtools.kalman.fleet import read_fleet
from pxtools.kalman.long import Found
from pxtools.kalman.observations import read_observations
from pxtools.kalman.pieces import Piece, as_steps, is_series_path, read_steps, steps_shape
from pxtools.kalman.writing import being_written
from pxtools.kernels.kalman_batch_layout import AXES, shape_of
from pxtools.results import PerEngine
from pxtools.session.core import Session
from pxtools.session.kalman_fleet import BYTES_A_SECOND, LATENCY_S, Estimate, scattered
from pxtools.session.kalman_places import Held, Place, kept

#: seconds of a step; of each multiplication in it, while covariances stand still and while they do not
STEP_S, PRODUCT_S, MOVING_PRODUCT_S = 12e-9, 0.25e-9, 0.2e-9

#: bytes a second of results in memory that the system has yet to find
MEMORY_BYTES_A_SECOND = 1.5e9

#: the pass backwards and the one before it, in passes forwards
BOTH_PASSES = 2.5

#: so many steps show whether a series has gaps
GAPS_STEPS = 100_000

#: what the margins of all parts cost
MARGINS_COST = 1.1


class StepsOnEngines(Held):
    """One series on engines, as a source of a `LongResult`: see `Held`."""

    UNIT, DESCRIBE = "steps", "describe_steps"

    def __init__(self, session: Session, places: Sequence[Place], plan: Plan, label: str, **options: Any) -> None:
        super().__init__(session, places, **options)
        self.plan, self.label = plan, label
        self.columns: tuple[str, ...] | None = None
        self.shape = self.n_held, plan.model.n_obs
        if int(np.prod(self.piece_shape)) != plan.model.n_obs:
            raise PxUsageError(
                f"The pieces of {label} have {int(np.prod(self.piece_shape))} values a step; "
                f"the model observes {plan.model.n_obs}."
            )

    def compute(self, names: Sequence[str]) -> Found:
        """Return arrays with one entry for each step; with `write`, those of `AXES` are files that are mapped."""
        written = tuple(name for name in names if name in AXES)
        if self.write is None or not written:
            done = self._agreed(tuple(names), None)
            arrays = {}
        else:
            target = replace(self.write, names=written)
            sizes = self.shape[0], self.plan.model.n_states, self.shape[1]
            shapes = {name: shape_of(name, *sizes) for name in written}
            with being_written(target, shapes, [place.piece.start for place in self.places]):
                done = self._agreed(tuple(names), target)
            arrays = {name: target.opened(name) for name in written}
        arrays.update({name: done.array(name) for name in names if name not in arrays})
        return Found(arrays, done.log_likelihood, done.edges[-1].after)

    def _agreed(self, names: tuple[str, ...], target: Any) -> Done:
        """Return what all pieces gave, once their parts agree where they meet.

        Raises
        ------
        NotCut
            They do not, with any margin that is short enough.
        """
        shortest = min(place.piece.stop - place.piece.start for place in self.places)
        while True:
            done = self._done(names, target)
            if not done.n_values:
                raise PxUsageError(f"{self.label} holds no number at all: every value is NaN.\nCheck how it was read.")
            if len(done.forms) > 1:
                self.plan = replace(self.plan, form="sqrt")  # some parts are ill-conditioned: as the whole would be
            elif parts_agree(done.edges):
                return done
            else:
                self.plan = with_longer_margin(self.plan, shortest)

    def _done(self, names: tuple[str, ...], target: Any) -> Done:
        margin, n_steps = self.plan.margin, self.shape[0]
        args = []
        for place in self.places:
            start, stop = place.piece.start, place.piece.stop
            beside = self.rows(max(0, start - margin), start), self.rows(stop, min(n_steps, stop + margin))
            args.append((self.plan, names, beside, target))
        whole = Done()
        for done in self._ask("compute_steps", args, title=f"filtering {n_steps:,} steps"):
            whole.add(done)
        return whole

    def rows(self, start: int, stop: int) -> Array:
        """Return some steps of the series, (n_steps, n_obs), brought here if they are elsewhere."""
        if self.own is not None:
            return as_steps(self.own[start:stop])
        parts = [np.empty((0, self.shape[1]))]
        for place in self.places:
            a, b = max(start, place.piece.start), min(stop, place.piece.stop)
            if a < b and place.piece.kind == "file":
                parts.append(read_steps(place.piece.where, a, b))
            elif a < b:
                parts += self._ask("steps", [(a, b)], places=[place])
        return np.concatenate(parts)

    def values(self) -> Array:
        """Return the whole series."""
        return self.rows(0, self.shape[0])

    def words(self) -> str:
        """Return where the pieces are."""
        engines = ", ".join(str(place.engine) for place in self.places)
        return f"cut in time over engines {engines}"

    def say_whole(self, why: str) -> None:
        """Say that the series is filtered whole, and why."""
        self.session.notify(f"{self.label} is filtered whole, here: {why}.")


@dataclass(frozen=True)
class Located:
    """A series that may be cut, before anything is brought anywhere."""

    n_steps: int
    engines: tuple[int, ...]
    is_there: bool
    """whether the pieces lie with the engines, or in a file"""
    values: Any
    """what `kalman` takes, or what returns it"""
    bring: Callable[[Plan], StepsOnEngines]
    has_gaps: bool = False


def cut_in_time(
    session: Session,
    model: Any,
    named: tuple[str | None, Any],
    targets: Any,
    where: str,
    options: Mapping[str, Any],
) -> LongResult | FilterResult | None:
    """Filter one long series on several engines, if that pays; else here, and say why.

    Returns
    -------
    None where nobody asked for several engines, or what is given is no single series with a model that is known.
    """
    more, own = options["more"], {key: value for key, value in options.items() if key != "more"}
    is_plain = own.get("steady", True) and own.get("diffuse_constant", True)
    if not isinstance(model, StateSpaceModel) or own.get("fit") or own.get("until") or not is_plain:
        return None
    found = None if where == "here" else _located(session, model, named, targets, where, more)
    if found is None or len(found.engines) < 2:
        return None
    label = f"`{named[0]}`" if named[0] else "the series"
    form = own.get("form", "auto")
    names = ["smoothed_mean", "smoothed_cov"] if own.get("smooth") else []
    if more["write"] is not None and more["write"].kind != "npy":
        raise PxUsageError(f"{label} is one series: its results are written as .npy files.\nType `--write FOLDER`.")
    guess = estimate_cut(model, found, [*names, "filtered_mean"])
    if where == "auto" and more["write"] is None and not guess.pays:
        if targets is not None:
            session.notify(
                f"{label} is filtered here: about {1e3 * guess.here_s:.0f} ms of work; {1e3 * guess.there_s:.0f} ms "
                f"cut in time over {len(found.engines)} engines, with the transport of {guess.n_bytes / 1e6:.0f} MB."
            )
        return _whole(model, found, own)
    try:
        plan = plan_for(model, found.n_steps, len(found.engines), form)
    except NotCut as why:
        if more["write"] is not None:
            raise PxUsageError(
                f"{label} cannot be cut in time: {why}.\nLeave out `--write`: it is for many series, or a long one."
            ) from None
        session.notify(f"{label} is filtered whole, here: {why}.")
        return _whole(model, found, own)
    result = LongResult(model, found.bring(plan), form)
    outputs = ["filtered_mean", "filtered_cov"] if more["write"] is not None and not names else names
    if outputs:
        result.compute(*outputs)
    n_ahead = own.get("forecast", 0)
    return result.with_forecast(n_ahead, own.get("level", 0.95)) if n_ahead else result


def _whole(model: StateSpaceModel, found: Located, options: Mapping[str, Any]) -> FilterResult:
    values = found.values() if callable(found.values) else found.values
    result = kalman(model, values, **options)
    assert isinstance(result, FilterResult)
    return result


def _located(
    session: Session,
    model: StateSpaceModel,
    named: tuple[str | None, Any],
    targets: Any,
    where: str,
    more: Mapping[str, Any],
) -> Located | None:
    """Return where one series is and may be brought to; None for many, and where no engines are asked for."""
    name, given = named
    is_asked = targets is not None or where == "engines" or more["write"] is not None
    label = f"`{name}`" if name else "the series"

    def bring(places: Sequence[Place], **with_: Any) -> Callable[[Plan], StepsOnEngines]:
        return lambda plan: StepsOnEngines(session, places, plan, label, **with_, **more)

    if is_series_path(given):
        path = str(given)
        shape = steps_shape(path, model.n_obs)
        if shape is None or not is_asked:
            return None
        spans = _spans(session.targets(targets), shape[0])
        places = [Place(i, Piece("file", path, a, b)) for i, a, b in spans]
        values = lambda: read_steps(path, 0, shape[0])  # noqa: E731
        return Located(shape[0], tuple(i for i, _, _ in spans), True, values, bring(places))
    if isinstance(given, PerEngine):
        shapes: list[tuple[int, ...]] = [getattr(given.slot(i), "shape", ()) for i in given.engines]
        if not all(len(shape) in (1, 2) for shape in shapes):
            return None
        places = [Place(i, Piece("name", given.name, 0, 0)) for i in given.engines]
        n_steps = sum(shape[0] for shape in shapes)
        return Located(n_steps, given.engines, True, given.concat, bring(places))
    return _here_too(session, model, named, session.targets(targets) if is_asked else None, bring)


def _here_too(
    session: Session,
    model: StateSpaceModel,
    named: tuple[str | None, Any],
    engines: Sequence[int] | None,
    bring: Callable[..., Callable[[Plan], StepsOnEngines]],
) -> Located | None:
    """Return where a series is that the notebook has, and engines perhaps, too."""
    name, given = named
    there = scattered(session, name, given, (1, 2))
    if (there is None and (engines is None or len(engines) < 2)) or read_fleet(given, model.n_obs) is not None:
        return None
    if there is not None:  # checked where it lies
        at, has_gaps = tuple(place.engine for place in there), bool(np.isnan(given[:GAPS_STEPS]).any())
        return Located(len(given), at, True, given, bring(there, own=given), has_gaps)
    observed = read_observations(given, model)
    own = observed.values[0]
    has_gaps = bool(np.isnan(own[:GAPS_STEPS]).any())
    spans = _spans(engines or (), len(own))

    def ship(plan: Plan) -> StepsOnEngines:
        source = bring([kept(session, own, a, b, i) for i, a, b in spans], own=own)(plan)
        source.index, source.columns = observed.index, observed.columns
        return source

    return Located(len(own), tuple(i for i, _, _ in spans), False, given, ship, has_gaps)


def _spans(engines: Sequence[int], n_steps: int) -> list[tuple[int, int, int]]:
    """Give each engine its steps: the first and the one after the last."""
    bounds = [n_steps * k // len(engines) for k in range(len(engines) + 1)]
    return [(i, a, b) for i, (a, b) in zip(engines, itertools.pairwise(bounds), strict=True) if b > a]


def estimate_cut(model: StateSpaceModel, found: Located, names: Sequence[str]) -> Estimate:
    """Predict what it costs to filter a series here, and cut in time with the transport that it needs."""
    n, m, n_steps = model.n_states, model.n_obs, found.n_steps
    step_s, doubles = STEP_S + PRODUCT_S * (2 * n * n + 4 * m * n), m + 2 * n + 1
    if found.has_gaps:
        step_s, doubles = step_s + STEP_S + MOVING_PRODUCT_S * (4 * n**3 + 3 * m * n * n), doubles + 2 * n * n
    if any(name.startswith("smoothed") for name in names):
        step_s, doubles = BOTH_PASSES * step_s, doubles + n + n * n
    here_s = n_steps * (step_s + 8 * doubles / MEMORY_BYTES_A_SECOND)
    # covariances that stand still are sent once
    back = sum(8 * (n * n if name.endswith("cov") else n) for name in names if found.has_gaps or "cov" not in name)
    n_bytes = n_steps * (back + (0 if found.is_there else 8 * m))
    there_s = MARGINS_COST * here_s / len(found.engines) + n_bytes / BYTES_A_SECOND + 3 * LATENCY_S
    return Estimate(here_s, there_s, n_bytes)
