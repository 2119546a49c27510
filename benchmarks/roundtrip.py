"""Round trip of one small cell: `%%pxrun` against ipyparallel's `%%px`, on one cluster, in one real shell.

    python benchmarks/roundtrip.py [-n 4] [--calls 100]

The calls are interleaved, so that a busy machine disturbs all alike; all wait for the answers. `%%px`
needs a push before and a pull after for what `%%pxrun` does by itself; both are counted.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

WARM_UP = 5


def main() -> None:
    parser = argparse.ArgumentParser(description="Round trip of one small cell.")
    parser.add_argument("-n", type=int, default=4, help="engines")
    parser.add_argument("--calls", type=int, default=100, help="calls of each kind")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["IPYTHONDIR"] = folder  # a private profile: no cluster of the user plays a part
        os.environ.pop("PXTOOLS_CLUSTER_FILE", None)
        show(measure(args.n, args.calls), args)


def measure(n: int, calls: int) -> dict[str, list[float]]:
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
            kinds = kinds_of_call(shell, view)
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
    for name, value in median.items():
        nine_tenths = statistics.quantiles(seconds[name], n=10)[-1]
        print(f"{name:36} {1e3 * value:7.2f} ms   (90 % within {1e3 * nine_tenths:.2f} ms)")
    print()
    for ours, plain in pairs.items():
        print(f"{ours} / {plain}: {median[ours] / median[plain]:.2f}")


if __name__ == "__main__":
    main()
