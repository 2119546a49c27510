"""The boundary between the library and whoever schedules its groups.

A scheduler does three things: `start_groups(plan)`, then `advance(target, state, n_steps)` for each group until
`state.n_done == plan.n_steps`, on whatever machine and in whatever pieces, then `assemble(plan, chunks)`. `sample_here`
is the one that needs no engines.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pxtools.errors import PxUsageError, TargetError
from pxtools.sampling.plan import SamplePlan
from pxtools.sampling.samplers import Chunk, GroupStats, advance_for, module_of
from pxtools.sampling.targets import Target

if TYPE_CHECKING:
    from pxtools.sampling.samples import Samples

#: how long a chunk should take
CHUNK_S = 0.2


def start_groups(plan: SamplePlan) -> list[Any]:
    """Return the state of every group before its first step, in group order.

    Deterministic for a plan. The target is not called: the first chunk evaluates the start points, where it lives.

    Parameters
    ----------
    plan : SamplePlan
        From `make_plan`.

    Returns
    -------
    list
        One small, picklable state a group, for `advance`.
    """
    return [module_of(plan.sampler).start(plan, group) for group in range(plan.n_groups)]


def assemble(
    plan: SamplePlan,
    chunks: Sequence[Sequence[Chunk]],
    *,
    seconds: float = float("nan"),
    engine_seconds: float = float("nan"),
    target_tier: str = "python",
    notes: Iterable[str] = (),
) -> Samples:
    """Put the chunks of all groups together.

    Parameters
    ----------
    plan : SamplePlan
        The plan that was carried out.
    chunks : sequence by group of sequence of Chunk
        Each group's chunks in the order in which they were walked. Groups that got less far than others (an interrupt)
        cut the result to the draws that every chain has, and a note says so.
    seconds : float
        Wall time of the run.
    engine_seconds : float
        Time spent walking, summed over engines.
    target_tier : str
        `target.tier` where it ran.
    notes : iterable of str
        More for the user to know, shown under the summary.

    Returns
    -------
    Samples

    Raises
    ------
    PxUsageError
        Some chain has no draws yet.
    """
    from pxtools.sampling.samples import Samples

    n_draws = min((sum(chunk.draws.shape[1] for chunk in group) for group in chunks), default=0)
    if len(chunks) != plan.n_groups or n_draws == 0:
        raise PxUsageError(
            "Not every chain has got through its warm-up, so there are no draws.\n"
            "Let it run longer, or take a smaller --warmup."
        )
    stats = [group[-1].state.stats for group in chunks]
    names = list(dict.fromkeys(name for group in chunks for chunk in group for name in chunk.blobs))
    return Samples(
        draws=_together([[chunk.draws for chunk in group] for group in chunks], n_draws),
        values=_together([[chunk.values for chunk in group] for group in chunks], n_draws),
        blobs={name: _blob(name, chunks, n_draws) for name in names},
        names=plan.names,
        target_name=plan.target_name,
        is_density=plan.is_density,
        sampler=plan.sampler,
        warmup=plan.warmup,
        thin=plan.thin,
        step=plan.step,
        bounds=np.stack([plan.lower, plan.upper], axis=1),
        seed=plan.seed,
        initial=np.concatenate([group.initial for group in stats]),
        acceptance_rate=np.concatenate([_acceptance_rate(group) for group in stats]),
        n_evaluations=sum(group.n_evaluations for group in stats),
        n_nan=sum(group.n_nan for group in stats),
        first_nan=next((group.first_nan for group in stats if group.first_nan is not None), None),
        n_errors=sum(group.n_errors for group in stats),
        first_error=next((group.first_error for group in stats if group.first_error is not None), None),
        seconds=seconds,
        engine_seconds=engine_seconds,
        target_tier=target_tier,
        notes=(*plan.notes, *notes, *_run_notes(plan, stats, n_draws)),
    )


def _together(parts: Sequence[Sequence[NDArray[Any]]], n_draws: int) -> NDArray[Any]:
    """Return the arrays of all groups as one, (n_chains, n_draws, ...); each number is copied once."""
    n_chains, first = sum(len(group[0]) for group in parts), parts[0][0]
    whole = np.empty(
        (n_chains, n_draws, *first.shape[2:]), dtype=np.result_type(*(part for group in parts for part in group))
    )
    row = 0
    for group in parts:
        column, n_rows = 0, len(group[0])
        for part in group:
            width = min(part.shape[1], n_draws - column)
            whole[row : row + n_rows, column : column + width] = part[:, :width]
            column += width
        row += n_rows
    return whole


def _blob(name: str, chunks: Sequence[Sequence[Chunk]], n_draws: int) -> NDArray[Any]:
    """Return one extra output of all chains, (n_chains, n_draws, ...)."""
    parts = [[chunk.blobs[name] for chunk in group if name in chunk.blobs] for group in chunks]
    if not all(parts) or len({part[0].shape[2:] for part in parts}) > 1:
        shapes = sorted({str(part[0].shape[2:]) if part else "missing" for part in parts})
        raise TargetError(
            f"The blob `{name}` differs between groups of chains: {', '.join(shapes)}.\n"
            f"Return it with the same shape at every point."
        )
    return _together(parts, n_draws)


def _acceptance_rate(stats: GroupStats) -> NDArray[np.float64]:
    return np.asarray(stats.n_accepted / max(stats.n_kept_steps, 1), dtype=np.float64)


def _run_notes(plan: SamplePlan, stats: Sequence[GroupStats], n_draws: int) -> list[str]:
    notes = []
    if n_draws < plan.draws:
        notes.append(f"Stopped early: {n_draws:,} of {plan.draws:,} draws per chain.")
    uncompiled = sum(not group.is_compiled for group in stats)
    if uncompiled:
        notes.append(
            f"The loop ran uncompiled for {uncompiled} of {len(stats)} group(s) of chains: the same draws, but slower. "
            f"To compile it, install pxtools there."
        )
    return notes


def sample_here(
    target: Target,
    plan: SamplePlan,
    progress: Callable[[int, int], None] | None = None,
    chunk_s: float = CHUNK_S,
) -> Samples:
    """Carry the plan out in this process, one group after another.

    Parameters
    ----------
    target : Target
        What is sampled.
    plan : SamplePlan
        From `make_plan`.
    progress : callable, optional
        Called after each chunk with (steps done, steps in all), over all groups.
    chunk_s : float
        Seconds that a chunk should take; it never changes the draws.

    Returns
    -------
    Samples

    Raises
    ------
    TargetError
        The target returned no valid value, or a chain cannot start where it is told to.
    KeyboardInterrupt
        Ctrl-C; the draws so far are lost here, schedulers keep theirs.

    Examples
    --------
    >>> from pxtools import sampling
    >>> target = sampling.resolve_target(lambda x, y: -(x**2 + y**2) / 2)
    >>> samples = sample_here(target, sampling.make_plan(target, draws=100, chains=4, seed=1))
    >>> samples.draws.shape
    (4, 100, 2)
    """
    began = time.perf_counter()
    chunks: list[list[Chunk]] = []
    for number, state in enumerate(start_groups(plan)):
        chunks.append([])
        for pieces in walk_group(target, state, plan.n_steps, chunk_s):
            chunks[-1] += pieces
            if progress is not None:
                progress(number * plan.n_steps + pieces[-1].state.n_done, plan.n_groups * plan.n_steps)
    seconds = time.perf_counter() - began
    return assemble(plan, chunks, seconds=seconds, engine_seconds=seconds, target_tier=target.tier)


def walk_group(target: Target, state: Any, n_steps: int, chunk_s: float = CHUNK_S) -> Iterator[list[Chunk]]:
    """Yield a group's chunks, those of about `chunk_s` seconds together, until it has done `n_steps`."""
    while state.n_done < n_steps:
        pieces = advance_for(target, [state], n_steps - state.n_done, chunk_s)[0]
        state = pieces[-1].state
        yield pieces
