"""What engines do with the series that lie with them, one function for each question."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from pxtools.errors import PxUsageError
from pxtools.kalman.batch import FleetArrays, run_fleet
from pxtools.kalman.checks import Array
from pxtools.kalman.cuts import Done, Plan, do_part, part_bounds
from pxtools.kalman.fitting.sums import Summed, summed_statistics
from pxtools.kalman.fleet import Fleet, Here
from pxtools.kalman.forms.generated import Made, take
from pxtools.kalman.pieces import Piece, as_steps, read_steps, series_shape
from pxtools.kalman.writing import Target, write_part

Message = dict[str, Any]


def keep(engine: Any, message: Message) -> Message:
    """Keep series under a token, and forget those that nobody asks for any more."""
    for token in message["forget"]:
        engine.tasks.pop(token, None)
    engine.tasks[message["token"]] = message["values"]
    return {}


def ask(engine: Any, message: Message) -> Message:
    """Do something with each piece; return the answers in order.

    Parameters
    ----------
    message
        ``pieces``; ``what``, one of the functions below; ``args``, its arguments for each piece.
    """
    work: Callable[..., Any] = WORK[message["what"]]
    return {
        "answers": [work(engine, piece, *args) for piece, args in zip(message["pieces"], message["args"], strict=True)]
    }


def values_of(engine: Any, piece: Piece) -> Array:
    """Return the series of a piece, (n_series, n_steps, n_obs).

    Raises
    ------
    PxUsageError
        They are gone, or are no series.
    """
    if piece.kind == "file":
        return piece.read()
    values = _held(engine, piece)
    if not isinstance(values, np.ndarray) or values.ndim != 3 or values.dtype.kind not in "fiu":
        shape = getattr(values, "shape", "")
        raise PxUsageError(
            f"`{piece.where}` on engine {engine.engine_id} is a {type(values).__name__} {shape}; series are an array "
            "(n_series, n_steps, n_obs)."
        )
    return np.ascontiguousarray(values, dtype=np.float64)


def _held(engine: Any, piece: Piece) -> Any:
    held = engine.tasks if piece.kind == "kept" else engine.namespace
    if piece.where not in held:
        raise PxUsageError(f"`{piece.where}` is not on engine {engine.engine_id} any more. Scatter it again.")
    return held[piece.where]


def describe(engine: Any, piece: Piece) -> Message:
    """Return the shape of a piece; a file is not read for it."""
    if piece.kind == "file":
        return {"shape": (piece.stop - piece.start, *series_shape(piece.where)[1:])}
    return {"shape": values_of(engine, piece).shape}


def series(engine: Any, piece: Piece, number: int) -> Array:
    """Return one series, by its number in the piece."""
    return np.array(values_of(engine, piece)[number])


def scale(engine: Any, piece: Piece) -> float:
    """Return a variance on which free variances may start, from the first series."""
    return Here(Fleet(values_of(engine, next(piece.parts())))).scale()


def compute(
    engine: Any,
    piece: Piece,
    models: Any,
    names: tuple[str, ...],
    form: str,
    target: Target | None,
    made: tuple[Made, ...] = (),
) -> FleetArrays:
    """Filter and smooth; return the arrays, or only what is in no array where they are written to a file."""
    for code in made:
        take(code)
    found: list[tuple[int, FleetArrays]] = []
    for part in piece.parts():
        at = part.start - piece.start
        own = models if not isinstance(models, tuple) else models[at : part.stop - piece.start]
        one = run_fleet(own, values_of(engine, part), names, form=form)
        if target is not None:
            write_part(target, part.start, one.arrays)
            one.arrays = {name: array for name, array in one.arrays.items() if name == "log_likelihood"}
        found.append((at, one))
    return joined(found)


def joined(found: list[tuple[int, FleetArrays]]) -> FleetArrays:
    """Return the results of consecutive series as one; each comes with the number of its first series."""
    if len(found) == 1 and found[0][0] == 0:
        return found[0][1]
    whole = FleetArrays(n_values=sum(one.n_values for _, one in found))
    for at, one in found:
        whole.failed.update({at + s: why for s, why in one.failed.items()})
        whole.redone.update({at + s: form for s, form in one.redone.items()})
    whole.empty = np.concatenate([at + one.empty for at, one in found])
    for name in found[0][1].arrays:
        whole.arrays[name] = np.concatenate([one.arrays[name] for _, one in found])
    return whole


def totals(engine: Any, piece: Piece, models: tuple[Any, ...]) -> Array:
    """Return the log-likelihood of all good series together under each of the models."""
    sums = np.zeros(len(models))
    for part in piece.parts():
        values = values_of(engine, part)
        for k, model in enumerate(models):
            sums[k] += np.nansum(run_fleet(model, values, ("log_likelihood",)).arrays["log_likelihood"])
    return sums


def statistics(engine: Any, piece: Piece, model: Any) -> Summed:
    """Return the sufficient statistics of all good series together."""
    first, *others = (summed_statistics(model, values_of(engine, part)) for part in piece.parts())
    return sum(others, first)


# --- one long series, of which engines hold consecutive steps


def describe_steps(engine: Any, piece: Piece) -> Message:
    """Return the shape of a piece of one series."""
    if piece.kind == "file":
        return {"shape": (piece.stop - piece.start, *read_steps(piece.where, piece.start, piece.start).shape[1:])}
    values = _held(engine, piece)
    if not isinstance(values, np.ndarray) or values.ndim not in (1, 2) or values.dtype.kind not in "fiu":
        raise PxUsageError(
            f"`{piece.where}` on engine {engine.engine_id} is a {type(values).__name__}; steps of one series are an "
            "array (n_steps,) or (n_steps, n_obs)."
        )
    return {"shape": values.shape}


def steps(engine: Any, piece: Piece, start: int, stop: int) -> Array:
    """Return some steps of a piece, (n_steps, n_obs), by their numbers in the whole series."""
    if piece.kind == "file":
        return read_steps(piece.where, start, stop)
    return as_steps(_held(engine, piece)[start - piece.start : stop - piece.start])


def compute_steps(
    engine: Any,
    piece: Piece,
    plan: Plan,
    names: tuple[str, ...],
    margins: tuple[Array, Array],
    target: Target | None,
) -> Done:
    """Filter and smooth a piece of one series, part by part; arrays that are written to a file do not come back.

    Parameters
    ----------
    margins : arrays, (n_steps, n_obs)
        The steps just before the piece, and just after.
    """
    done, (before, behind) = Done(), margins
    first, end = piece.start - len(before), piece.stop + len(behind)
    for own in itertools.pairwise(part_bounds(plan, piece.start, piece.stop)):
        a, b = max(first, own[0] - plan.margin), min(end, own[1] + plan.margin)
        middle = steps(engine, piece, max(a, piece.start), min(b, piece.stop))
        own_before = before[a - first :] if a < piece.start else before[:0]
        own_behind = behind[: b - piece.stop] if b > piece.stop else behind[:0]
        part = do_part(plan, np.concatenate([own_before, middle, own_behind]), a, own, names)
        if target is not None:
            write_part(target, own[0], {name: part.array(name) for name in target.names})
            part.runs = {name: runs for name, runs in part.runs.items() if name not in target.names}
        done.add(part)
    return done


WORK: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (describe, series, scale, compute, totals, statistics, describe_steps, steps, compute_steps)
}
