"""What CurveZMQ costs: a small cell, and arrays over the wire, on a cluster with it and on one without, interleaved.

    python benchmarks/encryption.py [-n 4] [--mb 1 100] [--times 7]

Arrays are kept out of shared memory, as if the engines were on other hosts.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from measuring import private_profile, table

from pxtools.session import state
from pxtools.session.core import Session
from pxtools.session.run import Cell, run

CELLS = 50


def main() -> None:
    parser = argparse.ArgumentParser(description="Encryption.")
    parser.add_argument("-n", type=int, default=4, help="engines")
    parser.add_argument("--mb", type=float, nargs="+", default=[1, 100], help="sizes in MB")
    parser.add_argument("--times", type=int, default=7, help="transfers of each kind; the median counts")
    args = parser.parse_args()
    with private_profile():
        sessions = {encrypt: connected(args.n, encrypt=encrypt) for encrypt in (False, True)}
        try:
            rows = [row("a small cell", sessions, lambda s: run(s, Cell("px_rank")), CELLS)]
            for mb in args.mb:
                rows += transfers(mb, sessions, args.times)
        finally:
            for session in sessions.values():
                session.disconnect()
    print(f"{args.n} engines, milliseconds\n")
    print(table(("what", "plain", "encrypted", "ratio"), rows))


def connected(n: int, *, encrypt: bool) -> Session:
    """Return a session whose engines get everything over the wire."""
    session = Session({"__name__": "__main__"}, notify=lambda line: None)
    session.start(n, encrypt=encrypt)
    for said in session.wire.engines.values():
        said["shares_memory"] = False
    session.settings.collect_limit = 10**10
    return session


def transfers(mb: float, sessions: dict[bool, Session], times: int) -> list[tuple[str, ...]]:
    """Return a row for an array to all engines, and one for an array from each."""
    array = np.random.default_rng(0).random(int(mb * 1e6 / 8))
    for session in sessions.values():
        session.namespace["array"] = array

    def to_all(session: Session) -> None:
        array[0] += 1  # else nothing would travel
        state.push(session, ["array"])

    def from_each(session: Session) -> None:
        assert len(state.collect(session, "own", how="list")) == len(session.wire.ids)

    rows = [row(f"{mb:g} MB to all", sessions, to_all, times)]
    for session in sessions.values():
        run(session, Cell("own = array + px_rank", collects=False))
    return [*rows, row(f"{mb:g} MB from each", sessions, from_each, times)]


def row(what: str, sessions: dict[bool, Session], do: Callable[[Session], Any], times: int) -> tuple[str, ...]:
    """Measure a call on both clusters in turn."""
    seconds: dict[bool, list[float]] = {encrypt: [] for encrypt in sessions}
    for k in range(times + 2):
        for encrypt, session in sessions.items():
            began = time.perf_counter()
            do(session)
            if k > 1:
                seconds[encrypt].append(1e3 * (time.perf_counter() - began))
    plain, encrypted = statistics.median(seconds[False]), statistics.median(seconds[True])
    return what, f"{plain:.1f}", f"{encrypted:.1f}", f"{encrypted / plain:.2f}"


if __name__ == "__main__":
    main()
