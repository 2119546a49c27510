"""Kalman filters here or on engines: many series are worked on where they lie, the starts of a fit are mapped."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pxtools.errors import PxInterrupted, PxUsageError
from pxtools.kalman import FilterResult, FleetResult, FreeModel, LongResult, StateSpaceModel, kalman
from pxtools.kalman.api import as_model, as_models, filter_many
from pxtools.kalman.fitting.fleet import can_fit
from pxtools.kalman.fleet import Fleet, Here, Source, read_fleet
from pxtools.kalman.pieces import is_series_path, read_series, read_steps, series_shape, steps_shape
from pxtools.kalman.writing import Target
from pxtools.session import kalman_fleet
from pxtools.session.core import Session
from pxtools.session.failures import to_exception
from pxtools.session.kalman_fleet import OnEngines, estimate, with_ticks
from pxtools.session.kalman_long import cut_in_time
from pxtools.session.mapping import map_on
from pxtools.session.pool import Pool

CALL = "operator.call"

WHERE = ("auto", "here", "engines")

#: passes over the data that a fit may need, when nothing is known about it
FIT_PASSES = 100


def filter_on(
    session: Session,
    model: Any,
    observations: Any,
    *,
    name: str | None = None,
    targets: Any = None,
    where: str = "auto",
    write: str | None = None,
    timeout_s: float | None = None,
    local: Mapping[str, Any] | None = None,
    **options: Any,
) -> FilterResult | FleetResult | LongResult:
    """Filter observations, on the engines where that pays or where they lie.

    Parameters
    ----------
    model, observations
        See `pxtools.kalman.kalman`. Observations may also be the path of a .npy, .zarr or .parquet file of many series,
        which each engine reads for itself, or a `PerEngine` value: series that engines hold.
    name
        What the notebook calls the observations; series that were scattered under it are worked on where they are.
    targets
        Engines. Many series are split over them if that pays, and a long one is cut in time; one series goes to the
        only one of them.
        Without targets the work is done here, except on series that lie on engines, and except the starts of a
        multi-start fit of one series, which are mapped over engines if there are some.
    where
        "engines" sends the series even if that does not pay, "here" never; "auto" predicts what is faster.
    write
        A folder, or a path ending in .zarr or .parquet, that the engines write arrays to.
    timeout_s
        For the engines' work.
    **options
        Of `pxtools.kalman.kalman`: smooth, forecast, level, fit, until, starts, seed, form.

    Returns
    -------
    FilterResult, FleetResult for many series, or LongResult for one that was cut in time
        The same, to the last bit, wherever it was computed; up to rounding where a series was cut.

    Raises
    ------
    PxUsageError
        What was given does not fit together.
    PxEngineLost
        An engine died, and the series that it held are nowhere else; or a second one did with the same series.
    """
    if where not in WHERE:
        raise PxUsageError(f"`--where {where}`: it must be one of {', '.join(WHERE)}.")
    models = as_models(model) if isinstance(model, (list, tuple)) else as_model(model)
    more = {"timeout_s": timeout_s, "write": None if write is None else Target(_absolute(write), ())}
    if is_series_path(observations):
        observations = _absolute(observations)
    together = {**options, "more": more}
    result = cut_in_time(session, models, (name, observations), targets, where, together)
    if result is not None:
        return result
    if is_series_path(observations) and not isinstance(models, tuple):
        shape = steps_shape(observations, _one_of(models).n_obs)
        observations = read_steps(observations, 0, shape[0]) if shape is not None else observations
    source = _source(session, models, (name, observations), targets, where, together)
    if source is not None:
        return _fleet(session, models, source, options)
    if write is not None:
        raise PxUsageError(
            "`--write` is for many series, or a long one, on engines: scatter them, or give a file and `-t all`."
        )
    options["map"] = functools.partial(map_on, session, targets=targets, timeout_s=timeout_s, local=local)
    return _one_place(session, models, observations, targets, timeout_s, options)


def _source(
    session: Session,
    models: Any,
    named: tuple[str | None, Any],
    targets: Any,
    where: str,
    options: Mapping[str, Any],
) -> Source | None:
    """Return where many series lie, after bringing them to engines if that pays; None for one series."""
    name, observations = named
    more = options["more"]
    if is_series_path(observations):
        if targets is None and more["write"] is None:
            return Here(Fleet(read_series(observations, 0, series_shape(observations)[0])))
        return kalman_fleet.from_file(session, observations, targets, **more)
    found = None if where == "here" else kalman_fleet.resident(session, name, observations, targets, **more)
    if found is not None:
        return found
    fleet = read_fleet(observations, _one_of(models).n_obs)
    if fleet is None:
        return None
    is_wanted = where == "engines" or (where == "auto" and (targets is not None or more["write"] is not None))
    if not is_wanted or (
        where == "auto" and more["write"] is None and not _pays(session, models, fleet, targets, options)
    ):
        return Here(fleet)
    source = kalman_fleet.shipped(session, fleet.values, targets, **more)
    source.index, source.names = fleet.index, fleet.names
    return source


def _one_of(models: Any) -> StateSpaceModel:
    """Return a model of the sizes of all."""
    one = models[0] if isinstance(models, tuple) else models
    return one.at(one.start()) if isinstance(one, FreeModel) else one


def _absolute(path: Any) -> str:
    """Return a path that means the same to engines, whatever folder they are in."""
    return str(Path(path).expanduser().absolute())


def _pays(session: Session, models: Any, fleet: Fleet, targets: Any, options: Mapping[str, Any]) -> bool:
    """Return whether engines are faster, transport counted; say so in a line if they are not."""
    engines = session.targets(targets)
    names = ["log_likelihood", *(["smoothed_mean", "smoothed_cov"] if options.get("smooth") else [])]
    is_fit = isinstance(models, FreeModel) or options.get("fit") is not None
    guess = estimate(_one_of(models), fleet.values, names, len(engines), FIT_PASSES if is_fit else 1)
    if not guess.pays:
        session.notify(
            f"filtered here: about {1e3 * guess.here_s:.0f} ms of work; {1e3 * guess.there_s:.0f} ms with the "
            f"transport of {guess.n_bytes / 1e6:.0f} MB to {len(engines)} engines (`%pxscatter` keeps series there)."
        )
    return guess.pays


def _fleet(session: Session, models: Any, source: Source, options: Mapping[str, Any]) -> FleetResult:
    """Filter many series where they lie, with the iterations of a fit on display."""
    is_fit = isinstance(models, FreeModel) or options.get("fit") is not None
    is_away = isinstance(source, OnEngines)
    if is_fit and is_away and not can_fit(models, options.get("fit") or "ml", options.get("em_matrices")):
        session.notify("EM of a transition matrix, or with a diffuse start, needs all series in one place: here.")
    writes = isinstance(source, OnEngines) and source.write is not None
    outputs = ["filtered_mean", "filtered_cov"] if writes and not options.get("smooth") else []
    tick, close = with_ticks(session, f"fitting {source.shape[0]:,} series") if is_fit else (None, lambda: None)
    try:
        return filter_many(models, source, outputs=outputs, tick=tick, **options)
    except KeyboardInterrupt as error:
        if isinstance(error, PxInterrupted) or not is_away:
            raise
        raise PxInterrupted("between two passes over the series; the engines are idle, or soon will be.") from None
    finally:
        close()


def _one_place(
    session: Session,
    model: Any,
    observations: Any,
    targets: Any,
    timeout_s: float | None,
    options: dict[str, Any],
) -> FilterResult | FleetResult:
    """Filter one series, here or on the first of the engines; the starts of a fit are mapped over them."""
    is_fit = isinstance(model, FreeModel) or options.get("fit") is not None
    spread = options.pop("map")
    if is_fit and (targets is not None or (session.is_connected and options.get("starts", 1) > 1)):
        options["map"] = spread
    if is_fit or targets is None:
        return kalman(model, observations, **options)
    task, gathering = session.gatherer(spread.keywords["local"]).pack_value(functools.partial(kalman, model, **options))
    gathering.more_modules |= task.modules
    with Pool(session, task, gathering, session.targets(targets)[:1], timeout_s) as pool:
        pool.submit(0, "call_task", {"function": CALL, "args": (observations,)})
        ((_, reply),) = pool.completed()
    if reply.failure is not None:
        raise to_exception({reply.engine_id: reply.failure}, 1)
    result: FilterResult = (reply.answer or {})["value"]
    return result
