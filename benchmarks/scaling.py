"""What grows with the number of engines: start, memory, a cell, a broadcast; measured, then drawn out to 10,000.

Run: python benchmarks/scaling.py [ENGINES ...]        (default 4 16 64)

Engines are light: without the watching process that each usually has beside it (that one is measured once, with the
smallest number). Processor time is what is drawn out, as it does not depend on what else the machine does; a line
through the points is all the theory there is. docs/scaling.md says what the figures mean.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil

from pxtools.session.core import Session
from pxtools.session.run import Cell, run

LIGHT = ["engine_args=--IPEngine.enable_nanny=False"]
#: what does not depend on the number of engines
PER_ENGINE = ("start, engine", "engine,")
CELLS = 15
BROADCASTS = 3
ARRAY = np.random.default_rng(1).random(131_072)  # 1 MB


def family(pid: int) -> list[psutil.Process]:
    return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]


def cpu_s(processes: list[psutil.Process]) -> float:
    return sum(sum(p.cpu_times()[:2]) for p in processes)


def pss_mb(processes: list[psutil.Process]) -> float:
    """Return memory with shared pages counted once."""
    return sum(p.memory_full_info().pss for p in processes) / 1e6


def measured(work: Callable[[], Any], times: int, controller: list[psutil.Process]) -> dict[str, float]:
    """Return seconds of one piece of work: on the clock, of this process, of the controller."""
    work()
    clock, here, there = [], time.process_time(), cpu_s(controller)
    for _ in range(times):
        began = time.perf_counter()
        work()
        clock.append(time.perf_counter() - began)
    return {
        "clock": statistics.median(clock),
        "client": (time.process_time() - here) / times,
        "controller": (cpu_s(controller) - there) / times,
    }


def measure(n: int) -> dict[str, float]:
    """Return the figures of a cluster of `n` light engines."""
    session = Session({"__name__": "__main__"}, notify=lambda line: None)
    began, here = time.perf_counter(), time.process_time()
    session.start(n, launcher_options=LIGHT, timeout_s=600)
    start_s, client_s = time.perf_counter() - began, time.process_time() - here
    try:
        engines = [psutil.Process(said["pid"]) for said in session.wire.engines.values()]
        controller = family(session.connection.cluster.controller.pid)
        figures = {"start, s": start_s, "start, client s": client_s, "start, engine s": cpu_s(engines) / n}
        figures |= {"engine, MB": pss_mb(engines) / n, "controller, MB": pss_mb(controller)}
        cell = measured(lambda: run(session, Cell("pass")), CELLS, controller)
        view, tree = session.client[:], session.client.broadcast_view()
        direct = measured(lambda: view.push({"array": ARRAY}, block=True), BROADCASTS, controller)
        spread = measured(lambda: tree.push({"array": ARRAY}, block=True), BROADCASTS, controller)
        for name, found in (("cell", cell), ("1 MB to each", direct), ("1 MB by tree", spread)):
            figures |= {f"{name}, {part} ms": 1000 * seconds for part, seconds in found.items()}
        return figures
    finally:
        session.stop()


def nanny_mb() -> float:
    """Return the memory of the process that watches over an engine."""
    session = Session({"__name__": "__main__"}, notify=lambda line: None)
    session.start(2)
    try:
        nannies = [psutil.Process(said["pid"]).children() for said in session.wire.engines.values()]
        return pss_mb([process for processes in nannies for process in processes]) / 2
    finally:
        session.stop()


def main() -> None:
    sizes = [int(word) for word in sys.argv[1:]] or [4, 16, 64]
    columns = {n: measure(n) for n in sizes}
    paper = [10, 100, 1000, 10_000]
    print(f"{'':28}" + "".join(f"{n:>9}" for n in sizes) + "   drawn out:" + "".join(f"{n:>10,}" for n in paper))
    for name in columns[sizes[0]]:
        values = [columns[n][name] for n in sizes]
        line = f"{name:28}" + "".join(f"{value:9.2f}" for value in values)
        if len(sizes) > 1 and not name.startswith(PER_ENGINE):
            slope, base = np.polyfit(sizes, values, 1)
            line += "             " + "".join(f"{max(base, 0) + slope * n:10,.1f}" for n in paper)
        print(line)
    print(f"watching process of an engine: {nanny_mb():.1f} MB")


if __name__ == "__main__":
    main()
