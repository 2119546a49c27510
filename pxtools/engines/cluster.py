"""Start, find, connect, resize and stop clusters, by ipyparallel's own launchers."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ipyparallel as ipp

from pxtools.engines import hosts, memo, trouble
from pxtools.engines.connection import Connection, wait_for
from pxtools.engines.kinds import find_kind, read_options
from pxtools.engines.reaper import Reaper
from pxtools.errors import PxClusterError

__all__ = ["Connection", "connect", "find", "start"]

#: The hub admits an engine when it has answered one ping: short pings make a fast start. It drops an engine
#: that misses too many: at ten pings a second that must be hours, not a second, or a busy engine is lost.
FAST_START = ["--HeartMonitor.max_heartmonitor_misses=100000"]

#: The hub keeps every result that came over the wire, up to a gigabyte. Nobody asks it for them.
SMALL_HUB = ["--DictDB.size_limit=67108864"]

CLUSTER_FILE_VARIABLE = "PXTOOLS_CLUSTER_FILE"


def start(
    n: int | None = None,
    *,
    engines: str = "local",
    profile: str | None = None,
    cluster_id: str | None = None,
    launcher_options: Iterable[str] | Mapping[str, Any] = (),
    controller_ip: str | None = None,
    encrypt: bool | None = None,
    min_engines: int | None = None,
    timeout_s: float | None = None,
) -> Connection:
    """Start a controller and engines; return when engines are registered.

    Parameters
    ----------
    n
        Number of engines; one per core by default, with ssh one for every place on its hosts.
    engines
        The name of any ipyparallel engine launcher: local, mpi, ssh, slurm, pbs, ….
    launcher_options
        Settings of that launcher: see `pxtools.engines.kinds.read_options`.
    controller_ip
        Address at which engines reach the controller; loopback for engines of this host, else every address it has.
    encrypt
        CurveZMQ; by default where engines may be on other hosts.
    min_engines
        How many engines to wait for: all by default, none for batch systems.
    timeout_s
        How long to wait for them, in seconds: 60 by default, for batch systems as long as it takes.

    Raises
    ------
    PxClusterError
        The launcher is unknown, a program is missing, or engines did not come up in time: with the line of the
        log that says why.
    """
    kind = find_kind(engines)
    options = read_options(kind, launcher_options)
    if kind.is_ssh:
        hosts.check({"engines": {}, **options})
        n = n or hosts.n_slots(options["engines"])
    n = n or os.cpu_count() or 1
    is_open = kind.reaches_out(options)
    address = controller_ip or ("*" if is_open else "")
    is_loopback = not address or address.startswith("127.") or address == "localhost"
    arguments = [f"--ping={max(100, n)}", *FAST_START, *SMALL_HUB]  # at most a thousand answers a second
    if (not is_loopback) if encrypt is None else encrypt:
        arguments.append("--IPController.enable_curve=True")
    named = {"engines": kind.launcher, "profile": profile, "cluster_id": cluster_id, "controller_ip": address or None}
    settings = {name: value for name, value in named.items() if value is not None}
    cluster = ipp.Cluster(n=n, delay=0, log=_quiet_log(), shutdown_atexit=False, controller_args=arguments, **settings)
    connection = Connection(None, cluster, is_ours=True, origin="started here", options=options)
    connection.stops_at_close = kind.is_local
    wanted = (0 if kind.is_batch else n) if min_engines is None else min(min_engines, n)
    return _bring_up(connection, n, wanted, timeout_s)


def _bring_up(connection: Connection, n: int, wanted: int, timeout_s: float | None) -> Connection:
    cluster = connection.cluster
    try:
        _start_controller(connection)
        connection.launch(n)
        connection.client = cluster.connect_client_sync()
        wait_for(connection, wanted, timeout_s)
    except BaseException:
        connection.stops_at_close = True
        connection.close()
        raise
    return connection


def _start_controller(connection: Connection) -> None:
    cluster = connection.cluster
    try:
        cluster.start_controller_sync()
    except Exception as error:
        raise trouble.failure(cluster, "the controller did not start", error) from error
    if connection.stops_at_close:
        connection.reaper = Reaper()
        connection.watch()
    else:
        memo.write(cluster, connection.options)


def _quiet_log() -> logging.Logger:
    """Return a logger that keeps ipyparallel's start and stop lines out of the notebook."""
    log = logging.getLogger("pxtools.cluster")
    log.setLevel(logging.CRITICAL)
    log.propagate = False
    if not log.handlers:
        log.addHandler(logging.NullHandler())
    return log


def find(namespace: dict[str, Any]) -> Connection | None:
    """Return the cluster that is already there, in the order that SEMANTICS gives, or None.

    Parameters
    ----------
    namespace
        The notebook's names: a `Client` or view among them is taken as it is.
    """
    file = os.environ.get(CLUSTER_FILE_VARIABLE)
    if file:
        return connect(file=file)
    for name, value in list(namespace.items()):
        if name.startswith("_"):
            continue
        client = value if isinstance(value, ipp.Client) else getattr(value, "client", None)
        if isinstance(client, ipp.Client) and not client._closed and client.ids:
            return Connection(client, client.cluster, origin=f"`{name}` of the notebook", owns_client=False)
    return _running_default()


def _running_default() -> Connection | None:
    """Return the live cluster that `ipcluster start` made under the default profile, if there is one."""
    try:
        cluster = _from_file()
    except (OSError, ValueError, KeyError):
        return None
    if cluster.controller is None:
        return None
    return _with_client(cluster, "a cluster of the default profile")


def connect(*, file: str | None = None, profile: str | None = None, cluster_id: str | None = None) -> Connection:
    """Connect to an existing cluster, which pxtools will never stop.

    Parameters
    ----------
    file
        Either kind of file that ipyparallel writes: ``cluster-*.json`` or ``ipcontroller-client.json``.
    profile, cluster_id
        Name the cluster instead; the default profile and the default id when left out.

    Raises
    ------
    PxClusterError
        There is no such file, or nobody answers.
    """
    if file is not None:
        path = Path(file).expanduser()
        if not path.is_file():
            raise PxClusterError(f"no file {file}.\nGive the path of cluster-*.json or ipcontroller-client.json.")
        if "cluster" not in json.loads(path.read_text()):
            return _with_connection_file(path)
        cluster = _from_file(str(path))
        return _with_client(cluster, str(file))
    try:
        cluster = _from_file(profile=profile, cluster_id=cluster_id or "")
    except OSError as error:
        where = f"profile {profile or 'default'}, cluster id {cluster_id or 'default'}"
        raise PxClusterError(
            f"no cluster is running ({where}).\nStart one with `%pxcluster start -n 4`, or give `--file`."
        ) from error
    return _with_client(cluster, f"profile {profile or 'default'}")


def _from_file(*file: str, **where: Any) -> Any:
    had_folder = os.path.isdir("log")
    try:
        return ipp.Cluster.from_file(*file, **where, log=_quiet_log())
    finally:
        if not had_folder:  # ipyparallel makes one where it stands when it loads a batch cluster
            with contextlib.suppress(OSError):
                os.rmdir("log")


def _with_client(cluster: Any, origin: str) -> Connection:
    if cluster.controller is None:
        raise PxClusterError(f"the controller of {origin} is not running any more.\nStart one: `%pxcluster start`.")
    connection = Connection(cluster.connect_client_sync(), cluster, origin=origin)
    connection.asked = sum(engine_set.n for engine_set in cluster.engines.values())
    options = memo.read(cluster)
    if options is not None:
        connection.is_ours, connection.options = True, options
    return connection


def _with_connection_file(path: Path) -> Connection:
    try:
        client = ipp.Client(str(path), timeout=5)
    except Exception as error:
        raise PxClusterError(f"no controller answers at {path.name}: {error}") from error
    return Connection(client, None, origin=str(path))
