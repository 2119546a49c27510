"""Start, find, connect, resize and stop clusters, by ipyparallel's own launchers."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ipyparallel as ipp
import psutil

from pxtools.engines.health import is_stopped
from pxtools.engines.reaper import Reaper
from pxtools.errors import PxClusterError

#: The hub admits an engine when it has answered one ping: short pings make a fast start. It drops an engine
#: that misses too many: at ten pings a second that must be hours, not a second, or a busy engine is lost.
FAST_START = ["--ping=100", "--HeartMonitor.max_heartmonitor_misses=100000"]

#: The hub keeps every result that came over the wire, up to a gigabyte. Nobody asks it for them.
SMALL_HUB = ["--DictDB.size_limit=67108864"]

#: environment variables by which BLAS and OpenMP libraries are told their number of threads
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")

CLUSTER_FILE_VARIABLE = "PXTOOLS_CLUSTER_FILE"

_START_TIMEOUT_S = 60
#: how long engines may take to shut down when asked
_SHUTDOWN_S = 5.0


@dataclass
class Connection:
    """A client on a cluster, and whether it is ours to stop.

    Attributes
    ----------
    client
        The real ipyparallel client.
    cluster
        ipyparallel's cluster object: None where only a connection file or a ready-made client is known.
    is_ours
        pxtools started this cluster, so it also stops it.
    origin
        Where it came from, in words for the user.
    """

    client: Any
    cluster: Any = None
    is_ours: bool = False
    origin: str = ""
    owns_client: bool = True
    reaper: Reaper | None = None

    def start_more(self, n: int) -> None:
        """Start `n` more engines and wait until they are there."""
        before = len(self.client.ids)
        self.cluster.start_engines_sync(n, **_engine_settings(self.cluster, before + n))
        self._watch()
        _wait_for(self.client, before + n)

    def stop_engines(self, engine_ids: list[int], pids: Mapping[int, int]) -> None:
        """Stop some engines: ask them to shut down, then end those that do not.

        Parameters
        ----------
        pids
            Process ids of the engines that run on this host.
        """
        for engine_id in engine_ids:
            if engine_id in pids and is_stopped(pids[engine_id]):  # it would not hear
                os.kill(pids[engine_id], signal.SIGKILL)
        self.client.shutdown(targets=engine_ids, block=False)
        is_gone = self._wait_until_gone(engine_ids, _SHUTDOWN_S)
        _kill_what_stays([pids[i] for i in engine_ids if i in pids], grace_s=1.0 if is_gone else 0.0)
        self._wait_until_gone(engine_ids, _SHUTDOWN_S)

    def _wait_until_gone(self, engine_ids: list[int], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while set(engine_ids) & set(self.client.ids) and time.monotonic() < deadline:
            time.sleep(0.02)
        return not set(engine_ids) & set(self.client.ids)

    def close(self) -> None:
        """Leave the cluster; stop it if it is ours."""
        try:
            if self.owns_client:
                self.client.close(linger=0)
            if self.is_ours and self.cluster is not None:
                _stop_quickly(self.cluster)
        finally:
            if self.reaper is not None:
                self.reaper.dismiss()
                self.reaper = None

    def remove_at_end(self, *folders: str) -> None:
        """Have folders removed if this process dies without a word."""
        self.reaper = self.reaper or Reaper()
        self.reaper.watch((), folders)

    def _watch(self) -> None:
        if self.reaper is not None:
            self.reaper.watch(_processes(self.cluster), [self.cluster.cluster_file])


def _kill_what_stays(pids: list[int], grace_s: float) -> None:
    """End processes that do not end: the hub forgets an engine that was told to stop, whether it heard or not."""
    processes = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            processes.append(psutil.Process(pid))
    _, alive = psutil.wait_procs(processes, timeout=grace_s)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def start(
    n: int | None = None,
    *,
    engines: str = "local",
    profile: str | None = None,
    cluster_id: str | None = None,
    timeout_s: float = _START_TIMEOUT_S,
) -> Connection:
    """Start a controller and engines; return when all engines are registered.

    Parameters
    ----------
    n
        Number of engines; one per core by default.
    engines
        The name of any ipyparallel engine launcher: local, mpi, ssh, slurm, pbs, ….

    Raises
    ------
    PxClusterError
        The launcher is unknown, a program is missing, or engines did not come up in `timeout_s` seconds.
    """
    n = n or os.cpu_count() or 1
    settings: dict[str, Any] = {"n": n, "delay": 0, "log": _quiet_log(), "shutdown_atexit": False}
    if engines != "local":
        settings["engines"] = engines
    if profile is not None:
        settings["profile"] = profile
    if cluster_id is not None:
        settings["cluster_id"] = cluster_id
    try:
        cluster = ipp.Cluster(controller_args=[*FAST_START, *SMALL_HUB], **settings)
    except Exception as error:
        raise PxClusterError(f"no engines of the kind `{engines}`: {error}") from error
    return _bring_up(cluster, n, timeout_s)


def _bring_up(cluster: Any, n: int, timeout_s: float) -> Connection:
    connection = Connection(None, cluster, is_ours=True, origin="started here", owns_client=True)
    is_local = cluster.engine_launcher_class.__name__.startswith("Local")
    try:
        cluster.start_controller_sync()
        if is_local:
            connection.reaper = Reaper()
            connection._watch()
        cluster.start_engines_sync(n, **_engine_settings(cluster, n))
        connection._watch()
        connection.client = cluster.connect_client_sync()
        _wait_for(connection.client, n, timeout_s)
    except BaseException as error:
        log = _last_log_line(cluster)
        if connection.client is None:
            _stop_quickly(cluster)
        else:
            connection.close()
        if isinstance(error, Exception) and not isinstance(error, PxClusterError):
            raise PxClusterError(f"engines did not start: {error}{log}") from error
        raise
    return connection


def _engine_settings(cluster: Any, n: int) -> dict[str, Any]:
    """Give each local engine its share of the cores for BLAS threads, unless the user has set a number."""
    if not cluster.engine_launcher_class.__name__.startswith("Local"):
        return {}
    share = str(max(1, (os.cpu_count() or 1) // n))
    environment = {name: share for name in THREAD_VARIABLES if name not in os.environ}
    return {"environment": environment, "delay": 0}


def _wait_for(client: Any, n: int, timeout_s: float = _START_TIMEOUT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while len(client.ids) < n:
        if time.monotonic() > deadline:
            raise PxClusterError(f"{len(client.ids)} of {n} engines came up within {timeout_s:g} s.")
        time.sleep(0.01)


def _quiet_log() -> logging.Logger:
    """Return a logger that keeps ipyparallel's start and stop lines out of the notebook."""
    log = logging.getLogger("pxtools.cluster")
    log.setLevel(logging.CRITICAL)
    log.propagate = False
    if not log.handlers:
        log.addHandler(logging.NullHandler())
    return log


def _last_log_line(cluster: Any) -> str:
    folder = Path(cluster.profile_dir) / "log"
    logs = sorted(folder.glob(f"*{cluster.cluster_id}*.log"), key=lambda file: file.stat().st_mtime)
    for file in reversed(logs):
        lines = [line for line in file.read_text(errors="replace").splitlines() if line.strip()]
        if lines:
            return f"\nlast line of its log: {lines[-1][:160]}"
    return ""


def _processes(cluster: Any) -> list[int]:
    """Return the process ids of the controller and the local engines."""
    pids = [cluster.controller.pid] if cluster.controller is not None else []
    for engine_set in cluster.engines.values():
        pids += [launcher.pid for launcher in getattr(engine_set, "launchers", {}).values()]
    return pids


def _stop_quickly(cluster: Any) -> None:
    """Stop a cluster at once and without words.

    Local engines are ended with SIGKILL first: their orderly end takes half a second each and prints a page of
    "event loop stopped" into their logs, which ipyparallel then shows.
    """
    for pid in _processes(cluster)[1:]:
        try:
            family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
            for process in family:
                process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    cluster.stop_cluster_sync()


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
        cluster = ipp.Cluster.from_file(log=_quiet_log())
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
        cluster = ipp.Cluster.from_file(str(path), log=_quiet_log())
        return _with_client(cluster, str(file))
    try:
        cluster = ipp.Cluster.from_file(profile=profile, cluster_id=cluster_id or "", log=_quiet_log())
    except OSError as error:
        where = f"profile {profile or 'default'}, cluster id {cluster_id or 'default'}"
        raise PxClusterError(
            f"no cluster is running ({where}).\nStart one with `%pxcluster start -n 4`, or give `--file`."
        ) from error
    return _with_client(cluster, f"profile {profile or 'default'}")


def _with_client(cluster: Any, origin: str) -> Connection:
    if cluster.controller is None:
        raise PxClusterError(f"the controller of {origin} is not running any more.\nStart one: `%pxcluster start`.")
    return Connection(cluster.connect_client_sync(), cluster, origin=origin)


def _with_connection_file(path: Path) -> Connection:
    try:
        client = ipp.Client(str(path), timeout=5)
    except Exception as error:
        raise PxClusterError(f"no controller answers at {path.name}: {error}") from error
    return Connection(client, None, origin=str(path))
