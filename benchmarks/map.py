"""A map of many items: pxtools against ipyparallel, joblib and dask, on warm workers, in one run.

    python benchmarks/map.py [-n 4] [--times 3] [--rivals ipyparallel joblib dask]

Three loads: 10,000 items that take no time, 1,000 of a millisecond, 100 of 100 ms. All by default settings, as a user
would type it; ipyparallel also with a hand-picked chunk size. Items sleep, so that a machine with few cores does not
decide. `ideal` is the sum of all items divided by the engines. A rival that is not installed is left out with a line.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator

from measuring import median_s, private_profile, table
from rivals import dask_client, joblib_workers

#: items, seconds each
LOADS = ((10_000, 0.0), (1_000, 0.001), (100, 0.1))

Map = Callable[[Callable[[int], int], range], list[int]]


def nothing(x: int) -> int:
    """Take no time."""
    return x * x


def millisecond(x: int) -> int:
    """Take a millisecond."""
    time.sleep(0.001)
    return x * x


def tenth(x: int) -> int:
    """Take a tenth of a second."""
    time.sleep(0.1)
    return x * x


FUNCTIONS = {0.0: nothing, 0.001: millisecond, 0.1: tenth}


def main() -> None:
    parser = argparse.ArgumentParser(description="Maps.")
    parser.add_argument("-n", type=int, default=4, help="engines")
    parser.add_argument("--times", type=int, default=3, help="maps of each kind; the median counts")
    parser.add_argument("--rivals", nargs="*", default=["ipyparallel", "joblib", "dask"], help="which of the rivals")
    args = parser.parse_args()
    seconds: dict[str, list[float]] = {"ideal": [items * each / args.n for items, each in LOADS]}
    with private_profile():
        for name in ["pxtools", *args.rivals]:
            try:
                with SETUPS[name](args.n) as maps:
                    for kind, do in maps.items():
                        seconds[kind] = [measured(do, items, each, args.times) for items, each in LOADS]
            except ImportError as error:
                print(f"{name} is left out: {error}")
    header = ("seconds", *(f"{items:,} × {1e3 * each:g} ms" for items, each in LOADS))
    print(table(header, [(kind, *(f"{s:.3f}" for s in row)) for kind, row in seconds.items()]))


def measured(do: Map, n_items: int, each_s: float, times: int) -> float:
    function, items = FUNCTIONS[each_s], range(n_items)
    expected = [x * x for x in items]

    def call() -> None:
        assert do(function, items) == expected

    began = time.perf_counter()
    call()
    return median_s(call, times if time.perf_counter() - began < 5 else 1)  # slow ones need no median


@contextlib.contextmanager
def with_pxtools(n: int) -> Iterator[dict[str, Map]]:
    from pxtools.session.core import Session
    from pxtools.session.mapping import map_on

    session = Session({"__name__": "__main__"}, notify=lambda line: None)
    session.start(n)
    try:
        yield {"pxtools": lambda function, items: map_on(session, function, items)}
    finally:
        session.disconnect()


@contextlib.contextmanager
def with_ipyparallel(n: int) -> Iterator[dict[str, Map]]:
    from pxtools.engines import start

    connection = start(n)  # its own maps; only the start is ours
    connection.client[:].execute("import time", block=True)
    view = connection.client.load_balanced_view()

    def default(function: Callable[[int], int], items: range) -> list[int]:
        return list(view.map_sync(function, items))

    def chunked(function: Callable[[int], int], items: range) -> list[int]:
        return list(view.map_sync(function, items, chunksize=max(1, len(items) // (8 * n))))

    try:
        yield {"ipyparallel": default, "ipyparallel, chunks of 1/8 of an engine's share": chunked}
    finally:
        connection.close()


@contextlib.contextmanager
def with_joblib(n: int) -> Iterator[dict[str, Map]]:
    from joblib import delayed

    with joblib_workers(n) as parallel:
        yield {"joblib": lambda function, items: parallel(delayed(function)(x) for x in items)}


@contextlib.contextmanager
def with_dask(n: int) -> Iterator[dict[str, Map]]:
    with dask_client(n) as client:
        yield {"dask": lambda function, items: client.gather(client.map(function, items, pure=False))}


SETUPS = {"pxtools": with_pxtools, "ipyparallel": with_ipyparallel, "joblib": with_joblib, "dask": with_dask}

if __name__ == "__main__":
    main()
