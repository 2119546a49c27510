"""One array to all engines and one from each: time, and peak memory, against ipyparallel, joblib and dask, in one run.

    python benchmarks/transfer.py [-n 4] [--mb 1 100 1000] [--times 5] [--rivals ipyparallel joblib dask]

Every transfer is of changed content, and ends when every page has been read where it arrived. The unit is a plain
copy of the same bytes in the same run (`memcpy`). Memory is the peak of all processes together, above what they had
before, files in shared memory counted once. A rival that is not installed is left out with a line.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from measuring import PeakMemory, median_s, memcpy_s, private_profile, table
from rivals import dask_client, joblib_workers

#: a float64 in each page
PAGE = 512

Transfer = Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description="Transfer of arrays.")
    parser.add_argument("-n", type=int, default=4, help="engines")
    parser.add_argument("--mb", type=float, nargs="+", default=[1, 100, 1000], help="sizes in MB")
    parser.add_argument("--times", type=int, default=5, help="transfers of each kind; the median counts")
    parser.add_argument("--rivals", nargs="*", default=list(RIVALS), help="which of the rivals")
    args = parser.parse_args()
    with private_profile():
        for mb in args.mb:
            show(mb, args)


def show(mb: float, args: argparse.Namespace) -> None:
    array = np.random.default_rng(0).random(int(mb * 1e6 / 8))
    unit = memcpy_s(array)
    rows = []
    for name in ["pxtools", *args.rivals]:
        try:
            with SETUPS[name](array, args.n) as kinds:
                for kind, (transfer, n_bytes) in kinds.items():
                    rows.append(measured(f"{name}: {kind}", transfer, array, n_bytes, unit, args.times))
        except ImportError as error:
            print(f"{name} is left out: {error}")
    print(f"\n{mb:g} MB, {args.n} engines, memcpy {1e3 * unit:.2f} ms\n")
    print(table(("what", "seconds", "× memcpy of all bytes", "peak MB", "× data"), rows), flush=True)


def measured(
    what: str, transfer: Transfer, array: np.ndarray[Any, Any], n_bytes: int, unit: float, times: int
) -> tuple[str, ...]:
    def changed() -> None:
        array[0] += 1  # else nothing would have to travel
        transfer()

    changed()
    if times > 1:
        seconds = median_s(changed, times)
    with PeakMemory() as peak:
        last_s = median_s(changed, 1)
    if times == 1:  # then it is timed and watched at once
        seconds = last_s
    print(f"{what}: {seconds:.3g} s, {peak.mb:.0f} MB", file=sys.stderr, flush=True)  # the rest may take minutes
    ratio = seconds / (unit * n_bytes / array.nbytes)
    return what, f"{seconds:.3g}", f"{ratio:.1f}", f"{peak.mb:.0f}", f"{peak.mb * 1e6 / n_bytes:.2f}"


def touch(array: np.ndarray[Any, Any]) -> float:
    """Read something of every page."""
    return float(array[::PAGE].sum())


@contextlib.contextmanager
def with_pxtools(array: np.ndarray[Any, Any], n: int) -> Iterator[dict[str, tuple[Transfer, int]]]:
    from pxtools.session import state
    from pxtools.session.core import Session
    from pxtools.session.run import Cell, run

    session = Session({"__name__": "__main__", "array": array}, notify=lambda line: None)
    session.start(n)
    session.settings.push_limit = 10**12
    try:
        run(session, Cell(f"import numpy as np; own = np.random.default_rng(px_rank).random({array.size})"))

        def to_engines() -> None:
            result = run(session, Cell(f"t = float(array[::{PAGE}].sum())"))
            assert result.error is None
            assert session.namespace["t"][0] == touch(array)

        def from_engines() -> None:
            assert len([touch(value) for value in state.collect(session, "own")]) == n

        yield {"to all": (to_engines, array.nbytes), "from each": (from_engines, n * array.nbytes)}
    finally:
        session.disconnect()


@contextlib.contextmanager
def with_ipyparallel(array: np.ndarray[Any, Any], n: int) -> Iterator[dict[str, tuple[Transfer, int]]]:
    from pxtools.engines import start

    connection = start(n)  # its own push and pull; only the start is ours
    view = connection.client[:]
    try:
        view.execute(f"import numpy as np; own = np.random.default_rng(1).random({array.size})", block=True)

        def to_engines() -> None:
            view.push({"array": array}, block=True)
            view.execute(f"assert float(array[::{PAGE}].sum()) == {touch(array)!r}", block=True)

        def from_engines() -> None:
            assert len([touch(value) for value in view.pull("own", block=True)]) == n
            connection.client.purge_everything()

        yield {"push": (to_engines, array.nbytes), "pull": (from_engines, n * array.nbytes)}
    finally:
        connection.close()


@contextlib.contextmanager
def with_joblib(array: np.ndarray[Any, Any], n: int) -> Iterator[dict[str, tuple[Transfer, int]]]:
    from joblib import delayed

    with joblib_workers(n, max_nbytes="1M") as parallel:

        def to_workers() -> None:
            copied = array.copy()  # of an array that it has seen it sends what was in it then
            assert parallel(delayed(touch)(copied) for _ in range(n)) == n * [touch(array)]

        def from_workers() -> None:
            size = array.size
            assert len([touch(value) for value in parallel(delayed(made)(size) for _ in range(n))]) == n

        yield {"argument": (to_workers, array.nbytes), "results": (from_workers, n * array.nbytes)}


@contextlib.contextmanager
def with_dask(array: np.ndarray[Any, Any], n: int) -> Iterator[dict[str, tuple[Transfer, int]]]:
    with dask_client(n) as client:
        workers = list(client.scheduler_info()["workers"])

        def to_workers() -> None:
            future = client.scatter(array, broadcast=True, hash=False)
            read = [client.submit(touch, future, workers=[w], pure=False) for w in workers]
            assert np.allclose(client.gather(read), touch(array), rtol=1e-12)  # the order of the sum may differ there

        def from_workers() -> None:
            futures = [client.submit(made, array.size, workers=[w], pure=False) for w in workers]
            assert len([touch(value) for value in client.gather(futures)]) == n

        yield {"scatter": (to_workers, array.nbytes), "gather": (from_workers, n * array.nbytes)}


def made(size: int) -> np.ndarray[Any, Any]:
    """Return an array that is cheap to make."""
    return np.ones(size)


RIVALS = ("ipyparallel", "joblib", "dask")
SETUPS = {"pxtools": with_pxtools, "ipyparallel": with_ipyparallel, "joblib": with_joblib, "dask": with_dask}

if __name__ == "__main__":
    main()
