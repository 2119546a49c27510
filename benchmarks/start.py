"""Start of local engines: ipyparallel's defaults against `pxtools.engines.start`, alternating in one run.

    python benchmarks/start.py [-n 4] [--starts 5] [--stall 5]

A start that is fast because it drops slow engines would be worth nothing. So after the starts one engine of a
pxtools cluster is stopped (SIGSTOP) for some seconds and continued, and then all of them must still answer.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import signal
import statistics
import sys
import tempfile
import time
from typing import Any


def main() -> int:
    parser = argparse.ArgumentParser(description="Start of local engines.")
    parser.add_argument("-n", type=int, default=4, help="engines")
    parser.add_argument("--starts", type=int, default=5, help="starts of each kind")
    parser.add_argument("--stall", type=float, default=5.0, help="seconds for which one engine is stopped")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["IPYTHONDIR"] = folder  # a private profile: no cluster of the user plays a part
        os.environ.pop("PXTOOLS_CLUSTER_FILE", None)
        plain, ours = [], []
        for _ in range(args.starts):
            plain.append(plain_start(args.n))
            ours.append(pxtools_start(args.n))
        show(plain, ours, args)
        answered = answers_after_stall(args.n, args.stall)
    print(f"after one engine stood still for {args.stall:g} s: {answered} of {args.n} answer")
    return 0 if answered == args.n else 1


def plain_start(n: int) -> float:
    """Return the seconds until ipyparallel's own start has `n` engines; they are stopped again."""
    import ipyparallel as ipp

    logging.getLogger("ipyparallel.cluster").setLevel(logging.ERROR)
    cluster: Any = ipp.Cluster(n=n)
    began = time.perf_counter()
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            client = cluster.start_and_connect_sync()
        seconds = time.perf_counter() - began
        assert len(client[:].apply_sync(os.getpid)) == n, "some engine does not answer"
        client.close()
    finally:
        cluster.stop_cluster_sync()
    return seconds


def pxtools_start(n: int) -> float:
    """Return the seconds until `pxtools.engines.start` has `n` engines; they are stopped again."""
    from pxtools.engines import start

    began = time.perf_counter()
    connection = start(n)
    try:
        seconds = time.perf_counter() - began
        assert len(connection.client[:].apply_sync(os.getpid)) == n, "some engine does not answer"
    finally:
        connection.close()
    return seconds


def answers_after_stall(n: int, stall_s: float) -> int:
    """Return how many engines answer after one of them was stopped for `stall_s` seconds."""
    from pxtools.engines import start

    connection = start(n)
    try:
        view = connection.client[:]
        stalled = view.apply_sync(os.getpid)[0]
        os.kill(stalled, signal.SIGSTOP)
        try:
            time.sleep(stall_s)
        finally:
            os.kill(stalled, signal.SIGCONT)
        time.sleep(1)  # long enough for a hub to notice missed heartbeats
        still = [i for i in view.targets if i in connection.client.ids]
        return len(connection.client[still].apply_async(os.getpid).get(timeout=30))
    finally:
        connection.close()


def show(plain: list[float], ours: list[float], args: argparse.Namespace) -> None:
    print(f"start of {args.n} local engines until all answer, {args.starts} alternating starts of each\n")
    for name, seconds in {"ipyparallel's defaults": plain, "pxtools": ours}.items():
        each = "  ".join(f"{s:.2f}" for s in seconds)
        print(f"{name:24} median {statistics.median(seconds):6.2f} s   ({each})")
    print(f"\npxtools / ipyparallel: {statistics.median(ours) / statistics.median(plain):.2f}")


if __name__ == "__main__":
    sys.exit(main())
