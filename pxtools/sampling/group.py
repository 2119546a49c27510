"""What every sampler does with its group of chains: streams, start points, counters, and what exceptions do.

Standard library and NumPy only: engines run this.
"""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence
from numpy.typing import NDArray

from pxtools.errors import TargetError
from pxtools.sampling.blobs import Blob, Blobs, has_blobs
from pxtools.sampling.samplers import Chunk, GroupStats
from pxtools.sampling.space import Space, space_of
from pxtools.sampling.starts import Redraw
from pxtools.sampling.targets import Target

if TYPE_CHECKING:
    from pxtools.sampling.plan import SamplePlan

Floats = NDArray[np.float64]

#: random start points outside the support are drawn again, this often
START_TRIES = 1_000
#: mistakes in the program, which no other point would mend: always raised
MISTAKES = (NameError, TypeError, AttributeError, ImportError, SyntaxError, NotImplementedError, MemoryError)
#: exceptions reject their step up to this count; beyond it they may not be more than this share of the calls
FREE_ERRORS = 100
ERROR_SHARE = 0.5


def stream(seed: int, group: int) -> Generator:
    """Return the stream of a group, which depends on nothing else."""
    return Generator(PCG64(SeedSequence(seed, spawn_key=(group,))))


def generator_at(bits: dict[str, Any]) -> Generator:
    """Return a generator that goes on where another stopped."""
    bit_generator = PCG64(0)
    bit_generator.state = cast(Any, bits)
    return Generator(bit_generator)


class Rejections:
    """Turns exceptions of the target into rejected steps, counts them, and raises when they are too many.

    Parameters
    ----------
    stats : GroupStats
        What the group counted so far; `counted` adds to it.
    """

    def __init__(self, stats: GroupStats) -> None:
        self.n_before = stats.n_evaluations
        self.n_errors = stats.n_errors
        self.first_error = stats.first_error

    def __call__(self, error: Exception, point: list[float], n_calls: int) -> None:
        """Count `error`, which call number `n_calls` of this walk raised; raise it when that is too much."""
        if isinstance(error, MISTAKES):
            raise error
        self.n_errors += 1
        if self.first_error is None:
            self.first_error = "".join(traceback.format_exception(error)).strip()
        calls = self.n_before + n_calls
        if self.n_errors > max(FREE_ERRORS, ERROR_SHARE * calls):
            error.add_note(
                f"{self.n_errors:,} of {calls:,} calls raised: too many to reject such points and go on.\n"
                f"Where the density is 0, return -inf (0 with --density); --bounds keep the chains away."
            )
            raise error


@dataclass(frozen=True, kw_only=True)
class GroupState:
    """Where a group of chains stands. Plain data; a sampler adds its own, and three methods.

    Attributes
    ----------
    group, first_chain : int
        The group's number, which is also its stream, and the number of its first chain.
    positions : (n_chains, n_params) array
        The current points, in walking coordinates.
    shown : (n_chains, n_params) array
        The same as the target sees them.
    values : (n_chains,) array or None
        The target there; None until the first chunk evaluates it.
    space : Space
        Bounds, and how walking coordinates become the target's.
    redraw : RandomStart, Spares or None
        How to get other start points, if the first ones turn out to be outside the support.
    bits : dict
        State of the PCG64 bit generator.
    blobs, blob : list of blobs, Blobs or None
        The extra outputs at the current points, and how to take results apart.
    warmup, thin, n_done : int
        Steps to discard, distance of kept steps, steps taken so far.
    stats : GroupStats
        The counters.
    """

    group: int
    first_chain: int
    positions: Floats
    shown: Floats
    values: Floats | None = None
    space: Space
    redraw: Redraw | None
    bits: dict[str, Any]
    blobs: list[Blob] | None = None
    blob: Blobs | None = None
    warmup: int
    thin: int
    n_done: int = 0
    stats: GroupStats
    sampler: str

    @property
    def stops(self) -> Sequence[int]:
        """The steps at which a walk pauses: the end of the warm-up, and where the sampler looks at what it learns."""
        return [self.warmup]

    def begun(self) -> Self:
        """Return the state with what the sampler wants to remember of its start points, which are evaluated now."""
        return self

    def walk(self, target: Target, common: dict[str, Any], accepted: NDArray[np.int64]) -> Any:
        """Return a kernel's walk from here; `common` are the arguments that every kernel takes.

        `accepted` has room for the accepted steps of each chain; a kernel that counts them itself leaves it alone.
        """
        raise NotImplementedError

    def after(self, walk: Any, generator: Generator) -> Self:
        """Return the state with what the sampler learned on this walk; positions and counters are new already."""
        return self


def begin(plan: SamplePlan, group: int, generator: Generator) -> dict[str, Any]:
    """Return what every sampler's first state has; the target is not called yet."""
    chains, space = plan.chains_of(group), space_of(plan)
    redraw: Redraw | None = plan.random_start
    if plan.random_start is not None:
        shown = np.array([plan.random_start.draw(generator) for _ in chains])
    else:
        shown = np.array(plan.initial[chains.start : chains.stop])
        redraw = plan.spares.of(chains) if plan.spares is not None else None
    return {
        "group": group,
        "first_chain": chains.start,
        "positions": space.inward(shown),
        "shown": shown,
        "space": space,
        "redraw": redraw,
        "warmup": plan.warmup,
        "thin": plan.thin,
        "stats": GroupStats(n_evaluations=0, n_kept_steps=0, n_accepted=np.zeros(len(chains), dtype=np.int64)),
        "sampler": plan.sampler,
    }


def advance_together(target: Target, states: Sequence[GroupState], n_steps: int, kernel: Any) -> list[Chunk]:
    """Take groups of one sampler `n_steps` further; a target that takes many points gets those of all groups at once.

    `kernel` is the sampler's module in `pxtools.kernels`.
    """
    groups = [_Advance(target, state, kernel.COMPILED) for state in states]
    left = n_steps
    while left:
        size = min(
            [left, *(stop - one.state.n_done for one in groups for stop in one.state.stops if stop > one.state.n_done)]
        )
        walks = [one.begin_walk(size) for one in groups]
        if target.rows is None or any(isinstance(walk, WalkElsewhere) for walk in walks):
            for walk in walks:
                walk.run()
        else:
            kernel.drive(walks, target.rows)
        for one in groups:
            one.end_walk(size)
        left -= size
    return [one.chunk() for one in groups]


class WalkElsewhere:
    """A walk whose loop is not a kernel's: that of a function of another language, which runs there.

    Parameters
    ----------
    function : callable
        Takes the arguments of `pxtools.kernels.rwm_numpy.walk` but for the target.
    """

    def __init__(self, function: Any, x: Floats, value: Floats, n_steps: int, generator: Generator, **options: Any):
        self.function, self.x, self.value = function, x, value
        self.arguments, self.options = (n_steps, generator), options
        self.kept_blobs: list[list[Blob]] = []

    def run(self) -> None:
        """Take all steps."""
        one = {name: self.options[name][0] for name in ("draws", "values")}
        self.value[0] = self.function(self.x[0], float(self.value[0]), *self.arguments, **(self.options | one))


class _Advance:
    """One group on its way through a chunk."""

    def __init__(self, target: Target, state: GroupState, is_compiled: bool) -> None:
        self.target = target
        self.generator = generator_at(state.bits)
        self.state = state if state.values is not None else _evaluate(target, state, self.generator, is_compiled)
        self.parts: list[tuple[Floats, Floats, dict[str, NDArray[Any]]]] = []

    def begin_walk(self, n_steps: int) -> Any:
        """Allocate what the kernel fills: within warm-up or after it, never across its end."""
        state = self.state
        is_kept = state.n_done >= state.warmup
        phase = max(0, state.n_done - state.warmup) % state.thin
        n_kept = (phase + n_steps) // state.thin if is_kept else 0
        n_chains, n_params = state.positions.shape
        self.counts, self.accepted = np.zeros(3, dtype=np.int64), np.zeros(n_chains, dtype=np.int64)
        self.first_nan, self.rejections = np.full(n_params, np.nan), Rejections(state.stats)
        self.draws, self.kept_values = np.empty((n_chains, n_kept, n_params)), np.empty((n_chains, n_kept))
        assert state.values is not None
        self.positions, self.values, self.shown = state.positions.copy(), state.values.copy(), state.shown.copy()
        self.blobs = list(state.blobs) if state.blobs is not None else None
        common = {
            "x": self.positions,
            "value": self.values,
            "n_steps": n_steps,
            "generator": self.generator,
            "is_density": self.target.is_density,
            "is_scalar": self.target.is_scalar,
            "first_kept": state.thin - phase if is_kept else n_steps + 1,
            "thin": state.thin,
            "draws": self.draws,
            "values": self.kept_values,
            "counts": self.counts,
            "first_nan": self.first_nan,
            "on_error": self.rejections,
        }
        if state.space.mapping is not None:
            common |= {"mapping": state.space.mapping, "shown": self.shown}
        if state.blob is not None:
            common |= {"split": state.blob.split, "blobs": self.blobs}
        self.walk = state.walk(self.target, common, self.accepted)
        return self.walk

    def end_walk(self, n_steps: int) -> None:
        """Take over where the walk ended, and let the sampler learn."""
        state = self.state
        n_kept_steps = n_steps if state.n_done >= state.warmup else 0
        accepted = self.accepted + self.counts[1]  # kernels of one chain count in the one, those of more in the other
        stats = counted(state.stats, self.counts, accepted, self.first_nan, n_kept_steps, self.rejections)
        shown = self.shown if state.space.mapping is not None else self.positions
        kept = state.blob.stacked(self.walk.kept_blobs) if state.blob is not None else {}
        self.parts.append((self.draws, self.kept_values, kept))
        moved = replace(
            state,
            positions=self.positions,
            shown=shown,
            values=self.values,
            blobs=self.blobs,
            n_done=state.n_done + n_steps,
            stats=stats,
        )
        self.state = moved.after(self.walk, self.generator)

    def chunk(self) -> Chunk:
        """Return the draws of the whole way, and the state at its end."""
        n_chains, n_params = self.state.positions.shape
        draws = _in_a_row([np.empty((n_chains, 0, n_params)), *(part[0] for part in self.parts)])
        values = _in_a_row([np.empty((n_chains, 0)), *(part[1] for part in self.parts)])
        names = self.state.blob.names if self.state.blob is not None and self.parts else ()
        blobs = {name: _in_a_row([part[2][name] for part in self.parts]) for name in names}
        return Chunk(draws, values, replace(self.state, bits=dict(self.generator.bit_generator.state)), blobs)


def _in_a_row(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return the draws of the parts one after the other; mostly there is one that has any, and it is not copied."""
    filled = [part for part in parts if part.shape[1]]
    return filled[0] if len(filled) == 1 else np.concatenate(parts, axis=1)


def _evaluate(target: Target, state: GroupState, generator: Generator, is_compiled: bool) -> GroupState:
    """Evaluate the start points; those outside the support are drawn again where that is possible."""
    chains = range(state.first_chain, state.first_chain + len(state.shown))
    found = [
        find_start(target, point, state.redraw, generator, chain)
        for chain, point in zip(chains, state.shown, strict=True)
    ]
    shown, values = np.array([one[0] for one in found]), np.array([one[1] for one in found])
    positions = state.space.inward(shown)
    stats = replace(state.stats, n_evaluations=sum(one[2] for one in found), initial=shown, is_compiled=is_compiled)
    blob, blobs = _first_blobs(target, shown, [one[3] for one in found])
    return replace(
        state, positions=positions, shown=shown, values=values, redraw=None, stats=stats, blob=blob, blobs=blobs
    ).begun()


def _first_blobs(target: Target, points: Floats, results: Sequence[Any]) -> tuple[Blobs | None, list[Blob] | None]:
    """Return how to take results apart, and the blobs at the start points; None when there are none."""
    if not any(has_blobs(result) for result in results):
        return None, None
    first = next(k for k, result in enumerate(results) if has_blobs(result))
    blob = target.blobs_of(results[first], points[first])
    return blob, [
        blob.split(target.caller, result, point.tolist(), target.is_scalar)[1]
        for result, point in zip(results, points, strict=True)
    ]


def counted(
    stats: GroupStats,
    counts: NDArray[np.int64],
    accepted: NDArray[np.int64],
    first_nan: Floats,
    n_kept_steps: int,
    rejections: Rejections,
) -> GroupStats:
    """Return the counters after a walk; acceptance counts after warm-up only."""
    return replace(
        stats,
        n_evaluations=stats.n_evaluations + int(counts[0]),
        n_kept_steps=stats.n_kept_steps + n_kept_steps,
        n_accepted=stats.n_accepted + (accepted if n_kept_steps else 0),
        n_nan=stats.n_nan + int(counts[2]),
        first_nan=first_nan if stats.n_nan == 0 and counts[2] else stats.first_nan,
        n_errors=rejections.n_errors,
        first_error=rejections.first_error,
    )


def find_start(
    target: Target, position: Floats, redraw: Redraw | None, generator: Generator, chain: int
) -> tuple[Floats, float, int, Any]:
    """Return a start point inside the support, the target's value there, how many calls that took, and the result.

    Raises
    ------
    TargetError
        A given point is outside the support, or so are `START_TRIES` random ones, or all that a start function gave.
    Exception
        What the target raises at a given point, and any mistake in the program.
    """
    more = redraw.points(generator, chain) if redraw is not None else ()
    last: Exception | None = None
    n_raised = tries = 0
    for tries, point in enumerate(itertools.islice(itertools.chain([position], more), START_TRIES), start=1):
        try:
            value, result = target.evaluate(point)
        except TargetError:
            raise
        except Exception as error:
            if redraw is None or isinstance(error, MISTAKES):
                raise
            last, n_raised = error, n_raised + 1
            continue
        if target.is_inside(value):
            return point, value, tries, result
        if redraw is None:
            target.refuse_start(value, point, chain)
    if last is not None and n_raised == tries:
        raise last
    why = f" (the last exception: {type(last).__name__}: {last})" if last is not None else ""
    raise TargetError(
        f"Chain {chain} cannot start: `{target.name}` has no support at {tries:,} random points {redraw}{why}.\n"
        f"Give start points inside its support: --initial X, or --bounds around it."
    )
