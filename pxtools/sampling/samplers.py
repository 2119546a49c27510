"""The samplers: one module each, one row each in the table. Standard library and NumPy only: engines run this.

A sampler module has two functions. `start` makes the state of one scheduling group, plain data that pickles small:

    start(plan, group) -> state

and `advance` takes it `n_steps` further; it returns the draws on the way and the new state, and leaves the old one:

    advance(target, state, n_steps) -> Chunk

A state has the attributes `sampler`, `group`, `n_done` (steps taken so far, of `plan.n_steps`) and `stats` (a
`GroupStats`). How a run is cut into chunks never changes the draws.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pxtools.sampling.targets import Target


@dataclass(frozen=True)
class Sampler:
    """A row of the table: where a sampler lives, and its defaults."""

    module: str
    warmup: int
    chains_per_group: int = 1


SAMPLERS = {
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
    initial: NDArray[np.float64] | None = None
    is_compiled: bool = True


class Chunk(NamedTuple):
    """What one call of `advance` gives: the kept draws on the way, and where the group stands now."""

    draws: NDArray[np.float64]
    """(n_chains in the group, n_kept, n_params)"""
    values: NDArray[np.float64]
    """(n_chains in the group, n_kept): density or log-density, as the target returns it"""
    state: Any


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

    Raises
    ------
    TargetError
        The target returned no valid value, or a chain cannot start where it is told to.
    Exception
        Whatever the target raises, with a note that names the call.
    """
    chunk: Chunk = module_of(state.sampler).advance(target, state, n_steps)
    return chunk
