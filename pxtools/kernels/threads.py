"""How many threads BLAS uses during a call: one inside an engine, what BLAS is set to elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any


def wanted_threads(threads: int | None) -> int | None:
    """Return the number to set, or None to leave BLAS alone.

    Engines share one machine's cores: several of them with several threads each are many times slower than one thread
    each. A process is an engine when ipyparallel's engine application runs in it.
    """
    if threads is not None:
        return threads
    application = sys.modules.get("ipyparallel.engine.app")
    engine = getattr(application, "IPEngine", None)
    if engine is not None and engine.initialized():
        return 1
    return None


@cache
def _pools() -> list[Any]:
    """Return the BLAS libraries of SciPy in this process that threadpoolctl can steer."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return []
    libraries = ThreadpoolController().select(user_api="blas").lib_controllers
    scipys = [lib for lib in libraries if "scipy" in str(lib.filepath)]
    return scipys or libraries


@contextmanager
def blas_threads(threads: int | None) -> Iterator[None]:
    """Set BLAS's threads inside the block and put them back, also after an error."""
    wanted = wanted_threads(threads)
    if wanted is None:
        yield
        return
    pools = _pools()
    before = [pool.num_threads for pool in pools]
    for pool in pools:
        pool.set_num_threads(wanted)
    try:
        yield
    finally:
        for pool, count in zip(pools, before, strict=True):
            pool.set_num_threads(count)
