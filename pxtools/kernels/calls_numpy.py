"""How uncompiled loops call their target, and what every walk does. The twin is `_calls.pyx`."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pxtools.errors import TargetError
from pxtools.kernels.target_calls import checked_number, is_refused, note_call, refuse_value

Floats = NDArray[np.float64]
#: how a coordinate is mapped: not at all; anchor + width * exp(y); anchor + width / (1 + exp(-y))
FREE, ABOVE, BETWEEN = 0, 1, 2

#: called with an exception of the target, the point, and the calls so far; raises, or lets the step be rejected
OnError = Callable[[Exception, list[float], int], None]


class Caller:
    """Calls the target at a point and counts; refuses what no density can be.

    Parameters
    ----------
    target : callable
        Called with floats when `is_scalar`, else with one float64 vector that is its own to keep.
    is_scalar, is_density : bool
        What the target takes and returns.
    counts : (3,) int64 array
        NaN values are added to its last entry.
    first_nan : (n_params,) array
        Receives the first point where the target was NaN, if `counts[2]` was 0.
    on_error : callable, optional
        Decides about exceptions; without it they are raised.
    split : callable, optional
        Takes a result apart into a number and blobs, which `blob` then holds.
    """

    def __init__(
        self,
        target: Callable[..., Any],
        *,
        is_scalar: bool,
        is_density: bool,
        counts: NDArray[np.int64],
        first_nan: NDArray[np.float64],
        on_error: OnError | None = None,
        split: Callable[..., tuple[float, Any]] | None = None,
    ) -> None:
        self.target = target
        self.is_scalar = is_scalar
        self.is_density = is_density
        self.counts = counts
        self.first_nan = first_nan
        self.on_error = on_error
        self.split = split
        self.blob: Any = None
        self.evaluations = 0

    def evaluate(self, point: list[float]) -> float:
        """Return the target's value at `point`."""
        self.evaluations += 1
        try:
            value = self._call(point)
        except TargetError:
            raise
        except Exception as error:
            if self.on_error is None:
                raise
            self.on_error(error, point, self.evaluations)
            return 0.0 if self.is_density else -math.inf
        return self.judged(point, value)

    def _call(self, point: list[float]) -> float:
        if self.split is None:
            return value_at(self.target, point, self.is_scalar)
        result = result_at(self.target, point, self.is_scalar)
        value, self.blob = self.split(self.target, result, point, self.is_scalar)
        return value

    def judged(self, point: list[float], value: float) -> float:
        """Return the value after counting a NaN; refuse what no density can be."""
        if value != value:
            if self.counts[2] == 0:
                self.first_nan[:] = point
            self.counts[2] += 1
        elif is_refused(value, self.is_density):
            refuse_value(self.target, value, point, self.is_scalar, self.is_density)
        return value


def result_at(target: Callable[..., Any], point: list[float], is_scalar: bool) -> Any:
    """Return what the target returns at `point`; an exception gets the call attached."""
    try:
        return target(*point) if is_scalar else target(np.array(point))
    except TargetError:
        raise
    except Exception as error:
        note_call(error, target, point, is_scalar)
        raise


def value_at(target: Callable[..., Any], point: list[float], is_scalar: bool) -> float:
    """Return the target's value at `point` as a float, not yet judged as a density."""
    result = result_at(target, point, is_scalar)
    return result if type(result) is float else checked_number(target, result, point, is_scalar)


def map_point(mapping: list[list[float]], point: list[float]) -> tuple[list[float], float] | None:
    """Return the point that the target sees and the logarithm of the Jacobian; None where rounding leaves the inside.

    Parameters
    ----------
    mapping : three lists, one entry per coordinate
        `FREE`, `ABOVE` or `BETWEEN`; anchor; width.
    point : list of float
        In walking coordinates.
    """
    mapped, total = [], 0.0
    for kind, anchor, width, y in zip(*mapping, point, strict=True):
        if kind == FREE:
            mapped.append(y)
            continue
        if abs(y) > 700:
            return None
        if kind == ABOVE:
            x = anchor + width * math.exp(y)
            total = total + y
        else:
            small = math.exp(-abs(y))
            x = anchor + width * ((1.0 if y >= 0 else small) / (1.0 + small))
            total = total - abs(y) - 2.0 * math.log1p(small)
        if x == anchor or (kind == BETWEEN and x == anchor + width):
            return None
        mapped.append(x)
    return mapped, total


class Answer:
    """A proposal's point, as the target sees it, with what the target said there."""

    __slots__ = ("blob", "jacobian", "point", "value")

    def __init__(self, point: list[float], jacobian: float) -> None:
        self.point, self.jacobian = point, jacobian
        self.value, self.blob = math.nan, None


#: what a kernel's `steps` is: it yields a step's proposals, None for those not to be evaluated, and is sent the answers
Steps = Generator[list[list[float] | None], list[Answer | None], None]


class Walk:
    """Chains that walk together.

    Parameters
    ----------
    target : callable
        Called with n_params floats when `is_scalar`, else with one float64 vector that is its own to keep.
    x : (n_chains, n_params) array
        The points to start from, in walking coordinates; holds the last points afterwards.
    value : (n_chains,) array
        The target's values there, likewise.
    n_steps : int
        Steps to take.
    generator : numpy.random.Generator
        The stream; nobody else may use it meanwhile.
    is_density, is_scalar : bool
        What the target returns (density or log-density) and takes (floats or a vector).
    first_kept, thin : int
        Steps `first_kept`, `first_kept + thin`, … (the first step is number 1) are kept.
    draws : (n_chains, n_kept, n_params) array
        Receives the kept points, as the target sees them; must have exactly the rows that are kept.
    values : (n_chains, n_kept) array
        Receives the target's values there.
    counts : (3,) int64 array
        Evaluations, accepted proposals and NaN values are added to it.
    first_nan : (n_params,) array
        Receives the first point where the target was NaN, if `counts[2]` was 0.
    on_error : callable, optional
        Called with an exception of the target, the point and the number of the call; raises, or the step is rejected.
    mapping : (3, n_params) array, optional
        From walking coordinates to those of the target; see `map_point`.
    shown : (n_chains, n_params) array, optional
        With `mapping`: the current points as the target sees them.
    split : callable, optional
        Called with target, result, point, is_scalar; takes a result apart into a number and blobs.
    blobs : list, optional
        With `split`: the blobs of the current points; `kept_blobs` has those of the kept ones, by chain.
    **own
        Of the kernel.
    """

    #: what the class of a kernel runs
    steps: Callable[..., Steps]

    def __init__(
        self,
        target: Callable[..., Any],
        x: Floats,
        value: Floats,
        n_steps: int,
        generator: np.random.Generator,
        *,
        is_density: bool,
        is_scalar: bool,
        first_kept: int,
        thin: int,
        draws: Floats,
        values: Floats,
        counts: NDArray[np.int64],
        first_nan: Floats,
        on_error: OnError | None = None,
        mapping: Floats | None = None,
        shown: Floats | None = None,
        split: Callable[..., tuple[float, Any]] | None = None,
        blobs: list[Any] | None = None,
        **own: Any,
    ) -> None:
        self.caller = Caller(
            target,
            is_scalar=is_scalar,
            is_density=is_density,
            counts=counts,
            first_nan=first_nan,
            on_error=on_error,
            split=split,
        )
        self.x, self.value, self.n_steps, self.generator = x, value, n_steps, generator
        self.is_density = is_density
        self.shown = x if shown is None else shown
        self.mapping = None if mapping is None else mapping.tolist()
        self.draws, self.values, self.counts = draws, values, counts
        self.next_kept, self.thin, self.t, self.kept = first_kept, thin, 0, 0
        self.blobs = blobs if blobs is not None else [None] * len(x)
        self.kept_blobs: list[list[Any]] = [[] for _ in range(len(x))]
        self.own = own
        vars(self).update(own)  # a kernel's own arrays can be read, as those of a compiled walk can

    def begin(self) -> Steps:
        """Return the steps, to be answered."""
        return type(self).steps(self, **self.own)

    def answers(self, proposals: Sequence[list[float] | None]) -> list[Answer | None]:
        """Return what the target sees of each proposal, with room for what it says."""
        if self.mapping is None:
            return [None if p is None else Answer(p, 0.0) for p in proposals]
        mapped = [None if p is None else map_point(self.mapping, p) for p in proposals]
        return [None if m is None else Answer(*m) for m in mapped]

    def ask(self, answer: Answer) -> None:
        """Call the target."""
        answer.value = self.caller.evaluate(answer.point)
        answer.blob = self.caller.blob

    def accept(self, chain: int, answer: Answer) -> None:
        """Show a proposal as the chain's point; its kernel holds the walking coordinates."""
        self.shown[chain] = answer.point
        self.value[chain], self.blobs[chain] = answer.value, answer.blob

    def end_step(self) -> None:
        """Keep the points, if it is their turn."""
        self.t += 1
        if self.t != self.next_kept:
            return
        self.draws[:, self.kept], self.values[:, self.kept] = self.shown, self.value
        for kept, blob in zip(self.kept_blobs, self.blobs, strict=True):
            kept.append(blob)
        self.kept += 1
        self.next_kept += self.thin

    def run(self) -> None:
        """Take all steps."""
        steps = self.begin()
        answers: list[Answer | None] | None = None
        while (proposals := _step(steps, answers)) is not None:
            answers = self.answers(proposals)
            for answer in answers:
                if answer is not None:
                    self.ask(answer)
        self.finish()

    def finish(self) -> None:
        """Add the evaluations to the counts."""
        self.counts[0] += self.caller.evaluations
        self.caller.evaluations = 0


def drive(walks: Sequence[Walk], rows: Callable[[Floats], Floats]) -> None:
    """Let walks of the same number of steps go in step, and evaluate all their proposals of a step in one call.

    Each walk has its own stream, so the draws are those of walks that go alone. When the call raises, the points are
    asked one by one, and those that raise are rejected.

    Parameters
    ----------
    walks : sequence of Walk
        Their target is the same, and callable at one point.
    rows : callable
        Takes an (n_points, n_params) array that is its own to keep; returns n_points values.
    """
    steps = [walk.begin() for walk in walks]
    answers: list[list[Answer | None] | None] = [None] * len(walks)
    for _ in range(walks[0].n_steps + 1):
        proposals = [_step(one, sent) for one, sent in zip(steps, answers, strict=True)]
        answers = [walk.answers(p) if p is not None else None for walk, p in zip(walks, proposals, strict=True)]
        pending = [(w, a) for w, some in zip(walks, answers, strict=True) for a in some or () if a is not None]
        if pending:
            _ask_all(pending, rows)
    for walk in walks:
        walk.finish()


def _step(steps: Steps, answers: list[Answer | None] | None) -> list[list[float] | None] | None:
    """Send the answers to the last proposals; return the next ones, None at the end."""
    try:
        return next(steps) if answers is None else steps.send(answers)
    except StopIteration:
        return None


def _ask_all(pending: Sequence[tuple[Walk, Answer]], rows: Callable[[Floats], Floats]) -> None:
    try:
        values = rows(np.array([answer.point for _, answer in pending])).tolist()
    except TargetError:
        raise
    except Exception:
        for walk, answer in pending:
            walk.ask(answer)
        return
    for (walk, answer), value in zip(pending, values, strict=True):
        walk.caller.evaluations += 1
        answer.value = walk.caller.judged(answer.point, value)
