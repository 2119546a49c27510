"""Round trip of one small cell: `%%pxrun` against `%%px` on one cluster in one real shell, and against joblib and dask.

    python benchmarks/roundtrip.py [-n 4] [--calls 100] [--rivals joblib dask]

The calls are interleaved, so that a busy machine disturbs all alike; all wait for the answers. `%%px`
needs a push before and a pull after for what `%%pxrun` does by itself; both are counted. joblib and dask have no cells:
their call runs a function that does nothing on each worker.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import time
from collections.abc import Callable
from typing import Any

from measuring import private_profile, table
from rivals import dask_client, joblib_workers

WARM_UP = 5


def main() -> None:
    parser = argparse.ArgumentParser(description="Round trip of one small cell.")
    parser.add_argument("-n", type=int, default=4, help="engines")
    parser.add_argument("--calls", type=int, default=100, help="calls of each kind")
    parser.add_argument("--rivals", nargs="*", default=["joblib", "dask"], help="which of the rivals")
    args = parser.parse_args()
    with private_profile(), contextlib.ExitStack() as at_end:
        others = {}
        for name in args.rivals:
            try:
                others[name] = RIVALS[name](args.n, at_end)
            except ImportError as error:
                print(f"{name} is left out: {error}")
        show(measure(args.n, args.calls, others), args)


def with_joblib(n: int, at_end: contextlib.ExitStack) -> Callable[[int], Any]:
    """Return a call of a function that does nothing on as many workers."""
    from joblib import delayed

    parallel = at_end.enter_context(joblib_workers(n))
    return lambda k: parallel(delayed(nothing)() for _ in range(n))


def with_dask(n: int, at_end: contextlib.ExitStack) -> Callable[[int], Any]:
    """Return a call of a function that does nothing on each worker."""
    client = at_end.enter_context(dask_client(n))
    return lambda k: client.run(nothing)


def nothing() -> None:
    """Do nothing."""


RIVALS = {"joblib": with_joblib, "dask": with_dask}


def measure(n: int, calls: int, others: dict[str, Callable[[int], Any]]) -> dict[str, list[float]]:
    """Return seconds per call of each kind."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    import pxtools

    shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    shell.run_line_magic("load_ext", "pxtools")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            shell.run_line_magic("pxcluster", f"start -n {n}")
            view = pxtools.client()[:]
            view.block = True  # else %px returns before the engines have begun
            view.activate()  # registers %px and %%px
            kinds = {**kinds_of_call(shell, view), **others}
            seconds = interleaved(kinds, calls)
        check(shell, n)
        return seconds
    finally:
        shell.run_line_magic("unload_ext", "pxtools")


def kinds_of_call(shell: Any, view: Any) -> dict[str, Callable[[int], Any]]:
    """Return what is measured; each gets the number of the call, so that a new value travels each time."""

    def pxrun_with_names(k: int) -> None:
        shell.user_ns["sent"] = k
        shell.run_cell_magic("pxrun", "", "back = sent + px_rank")

    def px_with_names(k: int) -> None:
        view.push({"plain_sent": k}, block=True)
        shell.run_cell_magic("px", "--no-stream", "plain_back = plain_sent + 1")
        shell.user_ns["plain_back"] = view.pull("plain_back", block=True)

    return {
        "%%pxrun pass": lambda k: shell.run_cell_magic("pxrun", "", "pass"),
        "%%px --no-stream pass": lambda k: shell.run_cell_magic("px", "--no-stream", "pass"),
        "%px pass": lambda k: shell.run_line_magic("px", "pass"),
        "%%pxrun, one name there, one back": pxrun_with_names,
        "push, %%px --no-stream, pull": px_with_names,
    }


def interleaved(kinds: dict[str, Callable[[int], Any]], calls: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for k in range(WARM_UP + calls):
        for name, call in kinds.items():
            began = time.perf_counter()
            call(k)
            if k >= WARM_UP:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def check(shell: Any, n: int) -> None:
    """Stop if the last calls did not do their work."""
    last = shell.user_ns["sent"]
    assert list(shell.user_ns["back"]) == [last + rank for rank in range(n)], "wrong values collected"
    assert list(shell.user_ns["plain_back"]) == [last + 1] * n, "wrong values pulled"


def show(seconds: dict[str, list[float]], args: argparse.Namespace) -> None:
    median = {name: statistics.median(values) for name, values in seconds.items()}
    pairs = {
        "%%pxrun pass": "%%px --no-stream pass",
        "%%pxrun, one name there, one back": "push, %%px --no-stream, pull",
    }
    print(f"median round trip, {args.n} engines, {args.calls} calls of each kind, interleaved\n")
    nine_tenths = {name: statistics.quantiles(each, n=10)[-1] for name, each in seconds.items()}
    rows = [(f"`{name}`", f"{1e3 * value:.1f}", f"{1e3 * nine_tenths[name]:.1f}") for name, value in median.items()]
    print(table(("round trip", "median, ms", "90 % within, ms"), rows))
    print()
    for ours, plain in pairs.items():
        print(f"{ours} / {plain}: {median[ours] / median[plain]:.2f}")


if __name__ == "__main__":
    main()
