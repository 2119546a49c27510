"""The session in use and its engines."""

from __future__ import annotations

import atexit
import functools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from pxtools.engines import waiting
from pxtools.session.core import Session
from pxtools.session.doctor import Findings, examine
from pxtools.session.handle import Handle

#: the one reference to the session in use; `%load_ext pxtools` puts the notebook's here
_in_use: list[Session] = []


def current_session() -> Session:
    """Return the session in use: the notebook's, or a new one over `__main__` in a plain script.

    Returns
    -------
    Session
        It starts or finds engines when they are first needed. `.settings` are what `%config PxTools` sets.

    Examples
    --------
    >>> import pxtools
    >>> pxtools.current_session().settings.collect_limit    # bytes
    2000000
    """
    if not _in_use:
        use(Session(sys.modules["__main__"].__dict__))
    return _in_use[0]


def use(new: Session) -> Session:
    """Make `new` the session in use and return it; it leaves its cluster when the interpreter ends."""
    leave()
    _in_use.append(new)
    atexit.register(new.disconnect)
    return new


def leave() -> None:
    """Leave the session in use; a cluster that it started is stopped."""
    while _in_use:
        old = _in_use.pop()
        atexit.unregister(old.disconnect)
        old.disconnect()


def client() -> Any:
    """Return the real `ipyparallel.Client` of the cluster in use; `%pxcluster` tells the rest.

    Returns
    -------
    ipyparallel.Client
        For all that pxtools does not do: views of your own, dependencies, the hub's history.

    Raises
    ------
    PxClusterError
        No cluster was found, and none could be started.

    Examples
    --------
    >>> import pxtools
    >>> pxtools.client().ids
    [0, 1, 2, 3]
    """
    return current_session().client


def cluster(n: int | None = None, **options: Any) -> list[int]:
    """Start engines in place of those in use, as `%pxcluster start`.

    Parameters
    ----------
    n : int, optional
        Number of engines: one per core by default, with ssh one for every place on its hosts.
    **options
        engines : str
            ipyparallel's launcher: ``"local"`` (default), ``"mpi"``, ``"ssh"``, ``"slurm"``, ``"pbs"``, ….
        launcher_options : dict, or sequence of ``"name=value"``
            Settings of that launcher, such as ``{"queue": "short"}``.
        profile, cluster_id : str
            IPython profile and id of the new cluster.
        controller_ip : str
            Address at which engines reach the controller.
        encrypt : bool
            CurveZMQ; by default where engines may be on other hosts.
        min_engines : int
            How many to wait for: all by default, none in a queue.
        timeout_s : float
            Seconds to wait for them: 60 by default, in a queue as long as it takes.

    Returns
    -------
    list of int
        The engines that are here, by number.

    Raises
    ------
    PxClusterError
        The launcher is unknown, a program is missing, or engines did not come up; the message has the line of the log
        that says why.

    Examples
    --------
    >>> import pxtools
    >>> pxtools.cluster(2)      # doctest: +SKIP
    [0, 1]
    >>> pxtools.cluster(16, engines="slurm", launcher_options={"queue": "short"})      # doctest: +SKIP
    []
    """
    return current_session().start(n, **options)


def connect(**where: Any) -> list[int]:
    """Connect to a running cluster, as `%pxcluster connect`; pxtools never stops one that it did not start.

    Parameters
    ----------
    **where
        file : str or path
            A ``cluster-*.json`` or ``ipcontroller-client.json``; or instead
        profile, cluster_id : str
            of the cluster, the default ones when left out.

    Returns
    -------
    list of int
        Its engines, by number.

    Raises
    ------
    PxClusterError
        There is no such file, nobody answers, or the cluster has no engines.

    Examples
    --------
    >>> import pxtools
    >>> pxtools.connect(file="nowhere.json")
    Traceback (most recent call last):
    pxtools.errors.PxClusterError: no file nowhere.json.
    Give the path of cluster-*.json or ipcontroller-client.json.
    """
    return current_session().connect(**where)


def doctor(*, targets: Any = None) -> Findings:
    """Look at what this process and the engines have, as `%pxdoctor`.

    Parameters
    ----------
    targets
        Engines: a number, a list of numbers, or what follows ``-t``.

    Returns
    -------
    Findings
        `rows`, facts side by side; `advice`, and `lines()`, what does not work and the line to type.

    Examples
    --------
    >>> import pxtools
    >>> pxtools.doctor().different("Python")    # do the engines run another Python than this process?
    False
    """
    return examine(current_session(), targets=targets)


def background(work: Callable[..., Any], *args: Any, **options: Any) -> Handle:
    """Call a function that waits for engines in the background, as ``--noblock`` does.

    Parameters
    ----------
    work : callable
        Such as `pxtools.collect` or `pxtools.run`.
    *args, **options
        Its arguments. What it sends is copied before this returns.

    Returns
    -------
    Handle
        With `.done`, `.progress`, `.result(timeout)` (seconds), `.partial`, `.cancel()`. What the work raises,
        `.result()` raises.

    Examples
    --------
    >>> import pxtools
    >>> handle = pxtools.background(pxtools.run, "square = px_rank**2", how="list")
    >>> handle.result(timeout=60)
    {'square': [0, 1, 4, 9]}
    """
    _ = current_session().wire
    return Handle(getattr(work, "__name__", "work"), functools.partial(work, *args, **options))


def within(seconds: float) -> AbstractContextManager[Any]:
    """Wait at most so many seconds for engines in all that a block does; then interrupt them.

    Parameters
    ----------
    seconds : float
        For the whole block.

    Raises
    ------
    PxTimeout
        Inside the block, when the time is over.

    Examples
    --------
    >>> import pxtools
    >>> with pxtools.within(0.5):
    ...     pxtools.run("import time; time.sleep(60)")    # doctest: +ELLIPSIS
    Traceback (most recent call last):
    pxtools.errors.PxTimeout: ...
    """
    return waiting.within(seconds)
