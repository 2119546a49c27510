"""Workers of the rivals, started and stopped; a rival that is not installed raises ImportError."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def joblib_workers(n: int, **options: Any) -> Iterator[Any]:
    """Yield joblib's `Parallel`, whose processes start with its first call."""
    from joblib import Parallel
    from joblib.externals.loky import get_reusable_executor

    try:
        with Parallel(n_jobs=n, **options) as parallel:
            yield parallel
    finally:
        get_reusable_executor().shutdown(wait=True)


@contextlib.contextmanager
def dask_client(n: int) -> Iterator[Any]:
    """Yield a client of dask.distributed with processes of one thread each."""
    from distributed import Client, LocalCluster

    warnings.filterwarnings("ignore")
    options: dict[str, Any] = {"dashboard_address": None, "silence_logs": 50}
    with LocalCluster(n_workers=n, threads_per_worker=1, **options) as cluster, Client(cluster) as client:
        client.wait_for_workers(n)
        yield client
