"""Clusters of several hosts: what is said of them at connect, waiting for a queue, and resizing by kind."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from typing import Any

from pxtools.engines import Connection, Wire
from pxtools.engines.connection import wait_for
from pxtools.engines.kinds import find_kind
from pxtools.engines.wire import name_engines
from pxtools.errors import PxClusterError


def greet(wire: Wire) -> Iterable[str]:
    """Yield the lines that are shown when a cluster is taken into use."""
    connection, n = wire.connection, len(wire.ids)
    if connection.pending:
        yield f"{connection.in_words()}; the others join as they come"
    else:
        words = "1 engine ready" if n == 1 else f"{n} engines ready"
        yield f"{words} ({connection.origin})" if connection.origin else words
    if outlives(connection):
        yield f"it goes on after this notebook: `%pxcluster stop` ends it\n`{connection.reconnect_line}` finds it again"
    difference = differences(wire.engines)
    if difference:
        yield difference


def outlives(connection: Connection) -> bool:
    """Return whether this is a cluster that pxtools started and that does not end with the notebook."""
    return connection.is_ours and not connection.stops_at_close and connection.cluster is not None


def differences(engines: Mapping[int, Mapping[str, Any]]) -> str:
    """Return one line on engines whose Python, NumPy or platform is not the notebook's; empty if none."""
    import numpy

    machine = f"{platform.system()} {platform.machine()}"
    here = {"Python": platform.python_version(), "NumPy": numpy.__version__, "platform": machine}
    keys = {"Python": "python", "NumPy": "numpy", "platform": "machine"}
    groups: dict[str, list[int]] = {}
    for engine, said in engines.items():
        other = [f"{what} {said[key]}" for what, key in keys.items() if said.get(key) not in (None, here[what])]
        if other:
            groups.setdefault(" and ".join(other), []).append(engine)
    if not groups:
        return ""
    there = "; ".join(f"{name_engines(ids)}: {other}" for other, ids in groups.items())
    differing = [what for what in here if any(f"{what} " in other for other in groups)]
    mine = " and ".join(f"{what} {here[what]}" for what in differing)
    warning = " Functions cannot go there, cells can." if _other_minor(engines.values(), here["Python"]) else ""
    return f"versions differ ({there}; here: {mine}).{warning}"


def _other_minor(engines: Iterable[Mapping[str, Any]], here: str) -> bool:
    return any(said["python"].split(".")[:2] != here.split(".")[:2] for said in engines)


def none_yet(connection: Connection) -> PxClusterError:
    """Return the error for work on a cluster of which no engine has come."""
    return PxClusterError(f"no engine has come yet: {connection.in_words()}.\nWait for some: `%pxcluster wait -n 1`.")


def wait(wire: Wire, n: int | None, timeout_s: float | None) -> None:
    """Wait until `n` engines are here, all that were asked for when left out.

    Raises
    ------
    PxClusterError
        Time is up, or no engine can come any more.
    """
    connection = wire.connection
    if connection.cluster is None:
        raise PxClusterError("this cluster is known by its connection file only: nobody knows what is still to come.")
    wait_for(connection, n or len(connection.client.ids) + connection.pending, timeout_s)


def without_waiting(options: dict[str, Any]) -> tuple[dict[str, Any], int | None, float | None]:
    """Return what to start with, and how many engines to wait for after that, and how long.

    A queue is waited for when the cluster is in use already: Ctrl-C, or too short a time, then ends the waiting and not
    the job.
    """
    if not find_kind(options.get("engines", "local")).is_batch:
        return options, None, None
    return {**options, "min_engines": 0}, options.get("min_engines"), options.get("timeout_s")


def is_one_job(wire: Wire) -> bool:
    """Return whether the engines share one communicator, which can neither grow nor shrink."""
    kind = wire.connection.kind
    return kind is not None and kind.is_mpi


def add(wire: Wire, n: int) -> None:
    """Start engines so that there are `n`; what is on its way counts."""
    more = n - len(wire.connection.client.ids) - wire.connection.pending
    if more > 0:
        wire.connection.start_more(more)


def n_or_cores(n: int | None, options: Mapping[str, Any]) -> int | None:
    """Return how many local engines to start; other kinds have rules of their own."""
    return n or (os.cpu_count() or 1 if options.get("engines", "local") == "local" else None)
