"""What every sampler needs for its group of chains: streams, start points, counters, and what exceptions do.

Standard library and NumPy only: engines run this.
"""

from __future__ import annotations

import traceback
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence
from numpy.typing import NDArray

from pxtools.errors import TargetError
from pxtools.sampling.samplers import GroupStats
from pxtools.sampling.starts import RandomStart
from pxtools.sampling.targets import Target

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
    target: Target, position: Floats, redraw: RandomStart | None, generator: Generator, chain: int
) -> tuple[Floats, float, int]:
    """Return a start point inside the support, the target's value there, and how many calls that took.

    Raises
    ------
    TargetError
        A given point is outside the support, or so are `START_TRIES` random ones.
    Exception
        What the target raises at a given point, and any mistake in the program.
    """
    last: Exception | None = None
    n_raised = 0
    for tries in range(1, START_TRIES + 1):
        try:
            value = target.value_at(position)
        except TargetError:
            raise
        except Exception as error:
            if redraw is None or isinstance(error, MISTAKES):
                raise
            last, value, n_raised = error, -np.inf, n_raised + 1
        if target.is_inside(value):
            return position, value, tries
        if redraw is None:
            target.refuse_start(value, position, chain)
        position = redraw.draw(generator)
    if last is not None and n_raised == START_TRIES:
        raise last
    why = f" (the last exception: {type(last).__name__}: {last})" if last is not None else ""
    raise TargetError(
        f"Chain {chain} cannot start: `{target.name}` has no support at {START_TRIES:,} random points {redraw}{why}.\n"
        f"Give start points inside its support: --initial X, or --bounds around it."
    )
