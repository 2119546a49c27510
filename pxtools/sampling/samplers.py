"""The table of samplers, and what the boundary carries.

A sampler is one module with three things. Its state, a `GroupState` with what the sampler learns, plain data that
pickles small; `start`, which makes the state of one scheduling group; and `kernel`, the module of its loop:

    start(plan, group) -> state

`advance` takes a state `n_steps` further; it returns the draws on the way and the new state, and leaves the old one:

    advance(target, state, n_steps) -> Chunk

A state has the attributes `sampler`, `group`, `n_done` (steps taken so far, of `plan.n_steps`) and `stats` (a
`GroupStats`). How a run is cut into chunks, and which groups go together, never changes the draws.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pxtools.sampling.targets import Target


@dataclass(frozen=True)
class Sampler:
    """A row of the table: where a sampler lives, and its defaults.

    Attributes
    ----------
    module : str
        Has `start` and `kernel`.
    warmup, warmup_per_parameter, warmup_share : int, int, float
        Steps that are discarded unless told: the first, or the second times the parameters, or the third times the
        steps that are kept, whichever is most. A long run is worth a long preparation.
    chains_per_group : int
        The least; a group has up to twice as many less one, so that any number of chains can be divided.
    default_chains : int
        The least number of chains unless told.
    """

    module: str
    warmup: int
    warmup_per_parameter: int = 0
    warmup_share: float = 0.0
    chains_per_group: int = 1
    default_chains: int = 4


#: how much longer the next piece of a chunk may be than the last one, whose time is no measure when it was short
MOST_GROWTH = 50.0

#: a share of the kept steps makes no warm-up longer than this
MOST_WARMUP = 20_000

#: the first one is the default
SAMPLERS = {
    "auto": Sampler(
        "pxtools.sampling.demcz",
        warmup=1_000,
        warmup_per_parameter=300,
        warmup_share=0.2,
        chains_per_group=4,
        default_chains=8,
    ),
    "ram": Sampler("pxtools.sampling.ram", warmup=1_000, warmup_per_parameter=300),
    "rwm": Sampler("pxtools.sampling.rwm", warmup=100),
}


@dataclass(frozen=True)
class GroupStats:
    """What a group counted so far; arrays have one entry per chain of the group.

    Attributes
    ----------
    n_evaluations : int
        Calls of the target, warm-up and start points included.
    n_kept_steps, n_accepted : int, (n_chains,) array
        Steps after warm-up, and the accepted ones among them.
    n_nan, first_nan : int, (n_params,) array or None
        How often the target was NaN, and where first.
    n_errors, first_error : int, str or None
        How often it raised, and the first traceback.
    initial : (n_chains, n_params) array or None
        The points where the chains really started.
    is_compiled : bool
        The loop ran compiled.
    """

    n_evaluations: int
    n_kept_steps: int
    n_accepted: NDArray[np.int64]
    n_nan: int = 0
    first_nan: NDArray[np.float64] | None = None
    n_errors: int = 0
    first_error: str | None = None
    initial: NDArray[np.float64] | None = None
    is_compiled: bool = True


class Chunk(NamedTuple):
    """What one call of `advance` gives: the kept draws on the way, and where the group stands now."""

    draws: NDArray[np.float64]
    """(n_chains in the group, n_kept, n_params)"""
    values: NDArray[np.float64]
    """(n_chains in the group, n_kept): density or log-density, as the target returns it"""
    state: Any
    """where the group stands at its end; None when another chunk follows that has it"""
    blobs: dict[str, NDArray[Any]] = {}  # noqa: RUF012  a field's default, never changed
    """(n_chains in the group, n_kept, ...) for each extra output of the target"""


def module_of(sampler: str) -> ModuleType:
    """Return the module of a sampler in the table."""
    return importlib.import_module(SAMPLERS[sampler].module)


def advance(target: Target, state: Any, n_steps: int) -> Chunk:
    """Take a group `n_steps` further, by its sampler.

    Deterministic: the same target, state and number of steps give the same chunk on every engine of this platform. The
    old state stays valid, so that a chunk lost with its engine can be run again.

    Parameters
    ----------
    target : Target
        What is sampled.
    state : state of a sampler
        From `start_groups`, or from an earlier chunk.
    n_steps : int
        Steps to take; warm-up steps count too and give no draws.

    Returns
    -------
    Chunk
        Its draws, (chains of the group, n_steps after warm-up, n_params), and the state to go on from.

    Raises
    ------
    TargetError
        The target returned no valid value, or a chain cannot start where it is told to.
    Exception
        Whatever the target raises, with a note that names the call.

    Examples
    --------
    >>> from pxtools import sampling
    >>> target = sampling.resolve_target(lambda x, y: -(x**2 + y**2) / 2)
    >>> plan = sampling.make_plan(target, draws=5, warmup=0, chains=1, sampler="rwm", seed=1)
    >>> advance(target, sampling.start_groups(plan)[0], 5).draws.shape
    (1, 5, 2)
    """
    return advance_all(target, [state], n_steps)[0]


def advance_all(target: Target, states: Sequence[Any], n_steps: int) -> list[Chunk]:
    """Take several groups of one run `n_steps` further each; see `advance`.

    A target that takes many points in one call gets those of all groups together, step by step. The draws are the same
    as if each group went alone.

    Parameters
    ----------
    target : Target
        What is sampled.
    states : sequence of states
        One a group.
    n_steps : int
        Steps to take.

    Returns
    -------
    list of Chunk
        One a group.
    """
    from pxtools.sampling.group import advance_together

    return advance_together(target, states, n_steps, module_of(states[0].sampler).kernel)


def advance_for(target: Target, states: Sequence[Any], n_steps: int, seconds: float) -> list[list[Chunk]]:
    """Take several groups of one run `n_steps` further, or as far as they get in about `seconds`; see `advance_all`.

    It takes one step to begin with, then as many as should fit, and one step at least however long that takes. So a
    slow target answers soon, and a short run is one call. All groups get equally far.

    Parameters
    ----------
    target : Target
        What is sampled.
    states : sequence of states
        One a group.
    n_steps : int
        The most steps to take.
    seconds : float
        About how long to walk.

    Returns
    -------
    list by group of list of Chunk
        The pieces of each group's way, in order. The last one alone has a state.
    """
    ends_at = time.perf_counter() + seconds
    pieces: list[list[Chunk]] = [[] for _ in states]
    n_done, size = 0, 1
    while n_done < n_steps:
        began = time.perf_counter()
        chunks = advance_all(target, states, size)
        for group, chunk in zip(pieces, chunks, strict=True):
            if group:
                group[-1] = group[-1]._replace(state=None)
            group.append(chunk)
        states, n_done = [chunk.state for chunk in chunks], n_done + size
        now = time.perf_counter()
        if ends_at - now < seconds / 10:
            break
        growth = min(MOST_GROWTH, (ends_at - now) / max(now - began, 1e-9))
        size = min(n_steps - n_done, max(1, int(size * growth)))
    return pieces
