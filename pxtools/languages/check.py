"""Compare a compiled function with the Python function that it replaces, at random points."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pxtools.errors import PxUsageError

#: relative difference below which two values are the same formula evaluated in another order
TOLERANCE = 1e-9
#: seconds for which each function is timed
_TIMED_S = 0.05


@dataclass(frozen=True)
class Comparison:
    """What `compare` found; its repr is two or three short lines.

    Attributes
    ----------
    largest
        The largest absolute difference.
    n_different, n_points
        Points where the two differ by more than rounding, of all points.
    example
        Such a point as a call's arguments, and both values there; or None.
    seconds_old, seconds_new
        Per call.
    """

    old: str
    new: str
    n_points: int
    largest: float
    n_different: int
    example: tuple[str, float, float] | None
    seconds_old: float
    seconds_new: float

    @property
    def speed_up(self) -> float:
        """How many times faster the compiled function is."""
        return self.seconds_old / self.seconds_new

    def __repr__(self) -> str:
        faster = self.speed_up
        words = f"{faster:.3g}x faster" if faster >= 1 else f"{1 / faster:.3g}x slower"
        timed = f"{words} ({human_seconds(self.seconds_new)} against {human_seconds(self.seconds_old)})"
        if self.example is None:
            largest = f"max |difference| {self.largest:.2g}"
            return f"check {self.new} vs {self.old}: {self.n_points} points, {largest}\n  {timed}"
        where, was, now = self.example
        return (
            f"check {self.new} vs {self.old}: DIFFERENT at {self.n_different} of {self.n_points} points\n"
            f"  {self.new}({where}) is {now:.6g}, {self.old} {was:.6g}\n  {timed}"
        )


def human_seconds(seconds: float) -> str:
    """Return a short time as people write it: `0.31 µs`, `12 ms`."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def compare(
    old: Callable[..., Any],
    new: Callable[..., Any],
    *,
    names: tuple[str, str],
    bounds: Any = (0.0, 1.0),
    n_points: int = 200,
    seed: int = 0,
) -> Comparison:
    """Call both functions at the same random points, uniform in `bounds`; time both.

    Parameters
    ----------
    old, new
        The Python function and the one compiled from it.
    names
        What the user calls them.
    bounds
        One (low, high) for every coordinate, or one pair per coordinate.

    Raises
    ------
    PxUsageError
        Neither floats nor one vector are accepted by both, or the bounds do not fit.
    """
    low, high = _bounds(bounds)
    rng = np.random.default_rng(seed)
    spread = _spread(old, new, names, low, high)
    points = [spread(low + (high - low) * rng.random(spread.size)) for _ in range(n_points)]
    was, now = _values(old, points, names[0]), _values(new, points, names[1])
    scale = np.maximum(np.abs(was), np.abs(now))
    with np.errstate(invalid="ignore"):
        difference = np.where(was == now, 0.0, np.abs(was - now))
        both_nan = np.isnan(was) & np.isnan(now)
        wrong = ~both_nan & ~(difference <= TOLERANCE * scale + 1e-15 * np.nanmax(scale, initial=0.0))
    rows = was.shape[0]
    any_wrong = wrong.reshape(rows, -1).any(axis=1)
    example = _example(points, any_wrong, was, now, wrong) if any_wrong.any() else None
    return Comparison(
        old=names[0],
        new=names[1],
        n_points=n_points,
        largest=float(np.nanmax(np.where(both_nan, 0.0, difference), initial=0.0)),
        n_different=int(any_wrong.sum()),
        example=example,
        seconds_old=_seconds(old, points),
        seconds_new=_seconds(new, points),
    )


def _example(points: list[Any], rows: Any, was: Any, now: Any, wrong: Any) -> tuple[str, float, float]:
    row = int(np.argmax(rows))
    cell = int(np.argmax(wrong[row].reshape(-1)))
    where = ", ".join(np.array2string(np.asarray(p), precision=4, separator=", ") for p in points[row])
    return where, float(was[row].reshape(-1)[cell]), float(now[row].reshape(-1)[cell])


class _Spread:
    """Turns coordinates into a call's arguments: floats, or one vector."""

    def __init__(self, size: int, is_vector: bool) -> None:
        self.size = size
        self.is_vector = is_vector

    def __call__(self, point: NDArray[np.float64]) -> tuple[Any, ...]:
        return (point,) if self.is_vector else tuple(float(coordinate) for coordinate in point)


def _bounds(bounds: Any) -> tuple[Any, Any]:
    pairs = np.asarray(bounds, dtype=np.float64)
    if pairs.shape != (2,) and (pairs.ndim != 2 or pairs.shape[1] != 2):
        raise PxUsageError(f"--bounds {bounds!r}: give (low, high), or one such pair per argument: [(0, 1), (-1, 1)].")
    return (pairs[0], pairs[1]) if pairs.ndim == 1 else (pairs[:, 0], pairs[:, 1])


def _spread(old: Any, new: Any, names: tuple[str, str], low: Any, high: Any) -> _Spread:
    """Find out how both functions are called; the compiled one is strict, so it is asked first."""
    given = int(np.size(low)) if np.ndim(low) else 0
    n = _n_arguments(old) or _n_arguments(new) or given or 1
    choices = [_Spread(n, False)] if n > 1 else [_Spread(1, False), _Spread(given or 2, True)]
    reasons = []
    for choice in choices:
        if given not in (0, 1, choice.size):
            reasons.append(f"--bounds has {given} pairs for {choice.size} argument(s)")
            continue
        arguments = choice((low + high) / 2 * np.ones(choice.size))
        try:
            for function in (new, old):
                np.asarray(function(*arguments), dtype=np.float64)
        except Exception as error:
            reasons.append(f"{type(error).__name__}: {error}".splitlines()[0])
            continue
        return choice
    raise PxUsageError(
        f"`{names[0]}` and `{names[1]}` cannot be called at the same random points ({reasons[-1]}).\n"
        f"They are called with floats or one float64 vector; give its length by --bounds: [(0, 1), (0, 1), (0, 1)]."
    )


def _n_arguments(function: Any) -> int:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 0
    return sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def _values(function: Callable[..., Any], points: Sequence[tuple[Any, ...]], name: str) -> NDArray[np.float64]:
    try:
        return np.array([np.asarray(function(*point), dtype=np.float64) for point in points])
    except (TypeError, ValueError) as error:
        raise PxUsageError(f"`{name}` returns no real numbers at the random points: {error}") from error


def _seconds(function: Callable[..., Any], points: Sequence[tuple[Any, ...]]) -> float:
    """Return seconds per call: the best of rounds over all points."""
    best, ends = float("inf"), time.perf_counter() + _TIMED_S
    while True:
        began = time.perf_counter()
        for point in points:
            function(*point)
        now = time.perf_counter()
        best = min(best, (now - began) / len(points))
        if now > ends:
            return best


def choose(wanted: str, compiled: Sequence[str], is_known: Callable[[str], bool]) -> tuple[str, str]:
    """Return (Python name, compiled name) for what follows ``--check``.

    Parameters
    ----------
    wanted
        ``logp`` or ``logp=logp_c``.
    compiled
        Functions that the cell defines.
    is_known
        Tells whether the notebook holds a function of that name.

    Raises
    ------
    PxUsageError
    """
    old, _, new = (part.strip() for part in wanted.partition("="))
    if not is_known(old):
        raise PxUsageError(
            f"--check {wanted}: the notebook has no function `{old}` to compare with.\nNothing was changed."
        )
    alike = [name for name in compiled if old in name or name in old]
    for choice in [new] if new else [old] if old in compiled else alike if len(alike) == 1 else list(compiled):
        if choice in compiled and (new or choice == old or len(alike) == 1 or len(compiled) == 1):
            return old, choice
    listed = ", ".join(compiled) or "no function"
    raise PxUsageError(
        f"--check {wanted}: which of {listed} is it to be compared with? Write --check {old}=NAME.\n"
        f"Nothing was changed."
    )
