"""Start of local engines until all have answered: pxtools, ipyparallel, joblib and dask, alternating in one run.

    python benchmarks/start.py [-n 4] [--starts 5] [--stall 5] [--rivals ipyparallel joblib dask]

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
import time
from typing import Any

from measuring import private_profile, table
from rivals import dask_client, joblib_workers


def main() -> int:
    parser = argparse.ArgumentParser(description="Start of local engines.")
    parser.add_argument("-n", type=int, default=4, help="engines")
    parser.add_argument("--starts", type=int, default=5, help="starts of each kind")
    parser.add_argument("--stall", type=float, default=5.0, help="seconds for which one engine is stopped")
    parser.add_argument("--rivals", nargs="*", default=["ipyparallel", "joblib", "dask"], help="which of the rivals")
    args = parser.parse_args()
    with private_profile():
        seconds: dict[str, list[float]] = {name: [] for name in ["pxtools", *args.rivals]}
        for _ in range(args.starts):
            for name in list(seconds):
                try:
                    seconds[name].append(STARTS[name](args.n))
                except ImportError as error:
                    print(f"{name} is left out: {error}")
                    del seconds[name]
        show(seconds, args)
        answered = answers_after_stall(args.n, args.stall)
    print(f"after one engine stood still for {args.stall:g} s: {answered} of {args.n} answer")
    return 0 if answered == args.n else 1


def plain_start(n: int) -> float:
    """Return the seconds until the engines of ipyparallel's own start have answered; they are stopped again."""
    import ipyparallel as ipp

    logging.getLogger("ipyparallel.cluster").setLevel(logging.ERROR)
    cluster: Any = ipp.Cluster(n=n)
    began = time.perf_counter()
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            client = cluster.start_and_connect_sync()
        assert len(client[:].apply_sync(os.getpid)) == n, "some engine does not answer"
        seconds = time.perf_counter() - began
        client.close()
    finally:
        cluster.stop_cluster_sync()
    return seconds


def pxtools_start(n: int) -> float:
    """Return the seconds until the engines of `pxtools.engines.start` have answered; they are stopped again."""
    from pxtools.engines import start

    began = time.perf_counter()
    connection = start(n)
    try:
        assert len(connection.client[:].apply_sync(os.getpid)) == n, "some engine does not answer"
        seconds = time.perf_counter() - began
    finally:
        connection.close()
    return seconds


def joblib_start(n: int) -> float:
    """Return the seconds until joblib's processes have answered; they are stopped again."""
    from joblib import delayed

    began = time.perf_counter()
    with joblib_workers(n) as parallel:
        parallel(delayed(os.getpid)() for _ in range(n))
        return time.perf_counter() - began


def dask_start(n: int) -> float:
    """Return the seconds until dask's processes have answered; they are stopped again."""
    began = time.perf_counter()
    with dask_client(n) as client:
        assert len(client.run(os.getpid)) == n, "some worker does not answer"
        return time.perf_counter() - began


STARTS = {"pxtools": pxtools_start, "ipyparallel": plain_start, "joblib": joblib_start, "dask": dask_start}


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


def show(seconds: dict[str, list[float]], args: argparse.Namespace) -> None:
    print(f"start of {args.n} local engines until all have answered, {args.starts} alternating starts of each\n")
    median = {name: statistics.median(each) for name, each in seconds.items()}
    rows = [
        (name, f"{median[name]:.2f}", f"{min(each):.2f} to {max(each):.2f}", f"{median[name] / median['pxtools']:.2f}")
        for name, each in seconds.items()
    ]
    print(table(("start", "median, s", "all", "× pxtools"), rows) + "\n")


if __name__ == "__main__":
    sys.exit(main())
