"""A run on disk: what was planned, the draws so far, and where each group stands.

The file is a pickle that `--resume` reads: like any pickle, open only your own.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from pxtools.errors import PxUsageError
from pxtools.sampling.plan import SamplePlan
from pxtools.sampling.samplers import Chunk

MAGIC = b"pxtools checkpoint 2\n"
#: what may differ between a run and its continuation
_FREE = {"draws", "notes"}


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes
    ----------
    plan : SamplePlan
        What was to be done.
    target_tier : str
        What the function was made of: another one need not give the same bits.
    chunks : list by group of list of Chunk
        The draws so far; the last chunk has the state from which to go on.
    fingerprint : str
        Of the target's code and values; empty where there is none to read.
    """

    plan: SamplePlan
    target_tier: str
    chunks: list[list[Chunk]]
    fingerprint: str = ""


def write(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write beside the file and rename: a crash, or a kill, leaves the old file or the new one."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    joined = replace(checkpoint, chunks=[_joined(group) for group in checkpoint.chunks])
    try:
        with open(partial, "wb") as file:
            file.write(MAGIC)
            pickle.dump(joined, file, protocol=5)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _joined(chunks: Sequence[Chunk]) -> list[Chunk]:
    if not chunks:
        return []
    draws = np.concatenate([chunk.draws for chunk in chunks], axis=1)
    values = np.concatenate([chunk.values for chunk in chunks], axis=1)
    names = chunks[-1].blobs  # every chunk has them
    blobs = {name: np.concatenate([chunk.blobs[name] for chunk in chunks], axis=1) for name in names}
    return [Chunk(draws, values, chunks[-1].state, blobs)]


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a file that `write` wrote.

    Raises
    ------
    PxUsageError
        It is no checkpoint.
    """
    with open(path, "rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise PxUsageError(f"{path} is no checkpoint of this pxtools.\nLeave --resume out to begin anew.")
        stored = pickle.load(file)
    assert isinstance(stored, Checkpoint)
    return stored


def check_same(stored: Checkpoint, plan: SamplePlan, target_tier: str, fingerprint: str, path: object) -> None:
    """Refuse to go on with another run than the one that was stored.

    Raises
    ------
    PxUsageError
        Names the options that differ.
    """
    names = [field.name for field in fields(plan) if field.name not in _FREE]
    different = [name for name in names if not _is_equal(getattr(stored.plan, name), getattr(plan, name))]
    if stored.target_tier != target_tier:
        different.append(f"target tier ({stored.target_tier} then, {target_tier} now)")
    if stored.fingerprint and fingerprint and stored.fingerprint != fingerprint:
        different.append(f"`{plan.target_name}` itself (its code, or a value that it uses)")
    if different:
        raise PxUsageError(
            f"{path} holds another run; different: {', '.join(different)}.\n"
            f"Give the same options (--draws may be more), or leave --resume out to begin anew."
        )


def _is_equal(one: object, two: object) -> bool:
    if isinstance(one, np.ndarray):
        return np.array_equal(one, np.asarray(two), equal_nan=True)
    if hasattr(one, "__dataclass_fields__") and type(one) is type(two):
        return all(_is_equal(getattr(one, field), getattr(two, field)) for field in one.__dataclass_fields__)
    return bool(one == two)
