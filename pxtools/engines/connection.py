"""A client on a cluster: engines are added to it, awaited and stopped here."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from ipyparallel.cluster import launcher as launchers

from pxtools.engines import hosts, memo, queue, trouble
from pxtools.engines.kinds import Kind, kind_of
from pxtools.engines.reaper import Reaper

#: environment variables by which BLAS and OpenMP libraries are told their number of threads
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")

_START_TIMEOUT_S = 60
#: how often to look whether engines that are awaited have ended
_LOOK_EVERY_S = 0.5
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
        pxtools started this cluster, so it may also stop it.
    origin
        Where it came from, in words for the user.
    options
        Settings of the engines' launcher, for engines that are started later.
    asked
        Engines that were asked for in all: in a queue they may come much later, or never.
    """

    client: Any
    cluster: Any = None
    is_ours: bool = False
    origin: str = ""
    owns_client: bool = True
    reaper: Reaper | None = None
    options: dict[str, Any] = field(default_factory=dict)
    asked: int = 0
    #: local engines end with the notebook, all others when they are told to
    stops_at_close: bool = False
    _arrived: set[int] = field(default_factory=set)

    @property
    def kind(self) -> Kind | None:
        """What kind of engines these are; None where only a connection file is known."""
        return None if self.cluster is None else kind_of(self.cluster)

    @property
    def pending(self) -> int:
        """How many engines were asked for and have not come yet."""
        self.count()
        return max(0, self.asked - len(self._arrived))

    @property
    def reconnect_line(self) -> str:
        """What to type in another notebook to use this cluster."""
        folder = Path(self.cluster.profile_dir).name
        profile = "" if folder == "profile_default" else f" --profile {folder.removeprefix('profile_')}"
        return f"%pxcluster connect{profile} --cluster-id {self.cluster.cluster_id}"

    def in_words(self) -> str:
        """Return how many engines have come, and what the queue says of the others."""
        self.count()
        words = f"{len(self.client.ids)} of {self.asked} engines are here"
        queued = queue.in_words(self.cluster) if self.cluster is not None else ""
        return f"{words} ({queued})" if queued else words

    def count(self) -> None:
        """Take note of who is here: engines that come and go are not awaited any more."""
        self._arrived.update(self.client.ids)

    @property
    def has_places(self) -> bool:
        """Whether engines go to hosts that each take so many."""
        return self.kind is not None and self.kind.is_ssh

    def launch(self, n: int) -> None:
        """Ask for `n` more engines, and wait for none.

        Raises
        ------
        PxClusterError
            They could not even be asked for.
        """
        settings = _launch_settings(self.cluster, self.kind, n + len(self._arrived), self.options)
        if self.has_places:
            settings["engines"] = hosts.share_out(n, self.options.get("engines", {}), hosts.running_on(self.cluster))
        try:
            self.cluster.start_engines_sync(n, **settings)
        except Exception as error:
            raise trouble.failure(self.cluster, "engines could not be started", error) from error
        self.asked += n
        self.watch()

    def start_more(self, n: int) -> None:
        """Start `n` more engines and wait until they are there; those of a queue come when they come."""
        before = len(self.client.ids)
        if self.has_places:
            hosts.wait_for_places(self.cluster, before)
        self.launch(n)
        if self.kind is None or not self.kind.is_batch:
            wait_for(self, before + n)

    def start_anew(self, n: int) -> None:
        """Start engines in place of all that there are: one communicator cannot grow or shrink."""
        with contextlib.suppress(Exception):  # a job that has ended already cannot be stopped
            self.cluster.stop_engines_sync()
        self._wait_until_gone(list(self.client.ids), _SHUTDOWN_S)
        self.asked = 0
        self._arrived.clear()
        self.launch(n)
        wait_for(self, n)

    def stop_engines(self, engine_ids: list[int], pids: Mapping[int, int], frozen: Collection[int]) -> None:
        """Stop some engines: ask them to shut down, then end those that do not.

        Parameters
        ----------
        pids
            Process ids of the engines that run on this host.
        frozen
            Engines that would not hear.
        """
        self.count()
        self._arrived.difference_update(engine_ids)
        self.asked = max(self.asked - len(engine_ids), 0)
        for engine_id in engine_ids:
            if engine_id in frozen:
                self._kill(engine_id, pids)
            with contextlib.suppress(KeyError):  # it may end just now, and leave the client's tables
                self.client.shutdown(targets=[engine_id], block=False)
        is_gone = self._wait_until_gone(engine_ids, _SHUTDOWN_S)
        _kill_what_stays([pids[i] for i in engine_ids if i in pids], grace_s=1.0 if is_gone else 0.0)
        for engine_id in set(engine_ids).intersection(self.client.ids).difference(pids):
            self._kill(engine_id, pids)
        self._wait_until_gone(engine_ids, _SHUTDOWN_S)

    def _kill(self, engine_id: int, pids: Mapping[int, int]) -> None:
        """Kill an engine; on another host the process that watches over it there does."""
        with contextlib.suppress(Exception):  # it may be gone
            if engine_id in pids:
                os.kill(pids[engine_id], signal.SIGKILL)
            else:
                self.client.send_signal(signal.SIGKILL, targets=[engine_id], block=False)

    def _wait_until_gone(self, engine_ids: list[int], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while set(engine_ids) & set(self.client.ids) and time.monotonic() < deadline:
            time.sleep(0.02)
        return not set(engine_ids) & set(self.client.ids)

    def close(self) -> None:
        """Leave the cluster; stop it if it is to end with us, also when this is interrupted."""
        is_done = False
        try:
            if self.stops_at_close and self.client is not None and self.kind is not None and self.kind.is_ssh:
                self._end_from_inside()
            if self.owns_client and self.client is not None:
                self.client.close(linger=0)
            if self.stops_at_close and self.cluster is not None:
                stop_quickly(self.cluster)
                memo.remove(self.cluster)
            is_done = True
        finally:
            for one in _launchers(self.cluster):
                if isinstance(one, launchers.SSHLauncher) and hasattr(one, "_stop_waiting"):  # it would log in for ever
                    one._stop_waiting.set()
            if self.reaper is not None:
                self.reaper.dismiss(is_done=is_done)
                self.reaper = None

    def _end_from_inside(self) -> None:
        """Have all engines end by themselves: ipyparallel would log in three times for each."""
        with contextlib.suppress(Exception):  # a dead controller: then it is done from outside
            self.client.shutdown(targets="all", block=False)
            if self._wait_until_gone(list(self.client.ids), _SHUTDOWN_S):
                self.cluster.engines.clear()

    def remove_at_end(self, *folders: str) -> None:
        """Have folders removed if this process dies without a word."""
        self.reaper = self.reaper or Reaper()
        self.reaper.watch((), folders)

    def watch(self) -> None:
        """Have what runs on this host ended if this process dies without a word, where it is to end with us."""
        if self.stops_at_close and self.reaper is not None:
            self.reaper.watch(_processes(self.cluster), [self.cluster.cluster_file])


def _launch_settings(cluster: Any, kind: Kind | None, n: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the launcher of `n` engines is given."""
    settings = {name: value for name, value in options.items() if name != "engines"}
    if kind is None:
        return settings
    log = Path(cluster.profile_dir) / "log" / f"{kind.name}-{cluster.cluster_id}.log"
    if kind.is_local:
        # each local engine has its share of the cores for BLAS threads, unless the user has set a number
        share = str(max(1, (os.cpu_count() or 1) // n))
        environment = {name: share for name in THREAD_VARIABLES if name not in os.environ}
        settings["environment"] = {**environment, **settings.get("environment", {})}
        settings.setdefault("delay", 0)
    elif kind.is_ssh:
        settings["ssh_cmd"] = trouble.recorded(settings.get("ssh_cmd", ["ssh"]), log)
        settings["scp_cmd"] = trouble.recorded(settings.get("scp_cmd", ["scp"]), log)
        settings.setdefault("delay", 0)
    elif kind.is_batch:
        # not into the notebook's folder, where ipyparallel would leave it
        settings.setdefault("batch_file_name", str(log.with_suffix(".sh")))
        if issubclass(kind.launcher, launchers.LSFLauncher):
            # ipyparallel gives no environment to LSF: engines find the connection file through the shared home
            place = [f"--profile-dir={cluster.profile_dir}", f"--cluster-id={cluster.cluster_id}"]
            settings.setdefault("engine_args", place)
        else:
            for name in ("submit_command", "delete_command"):
                usual = kind.launcher.class_traits()[name].default()
                settings[name] = trouble.recorded(settings.get(name, usual), log)
    return settings


def wait_for(connection: Connection, n: int, timeout_s: float | None = None) -> None:
    """Wait until `n` engines are registered.

    Parameters
    ----------
    timeout_s
        None is a minute, and for engines that wait in a queue no limit at all.

    Raises
    ------
    PxClusterError
        Time is up, or no engine can come any more.
    """
    cluster, kind = connection.cluster, connection.kind
    if timeout_s is None:
        timeout_s = float("inf") if kind is not None and kind.is_batch else _START_TIMEOUT_S
    started = looked = time.monotonic()
    while len(connection.client.ids) < n:
        now = time.monotonic()
        here = len(connection.client.ids)
        if now - started > timeout_s:
            raise trouble.failure(cluster, f"{here} of {n} engines came up within {timeout_s:g} s")
        if now - looked > _LOOK_EVERY_S:
            looked = now
            if _have_ended(cluster):
                raise trouble.failure(cluster, f"{here} of {n} engines came up, and the rest have ended")
        time.sleep(0.01)


def _have_ended(cluster: Any) -> bool:
    """Return whether all processes or jobs that were to become engines have ended."""
    threads = [getattr(one, "_wait_thread", None) for one in _launchers(cluster)]  # one that waits for its end
    if None not in threads:
        return not any(thread is not None and thread.is_alive() for thread in threads)
    return queue.have_ended(cluster)


def _launchers(cluster: Any) -> list[Any]:
    """Return the launchers of single engines, and of sets that start theirs all at once."""
    found = []
    for engine_set in [] if cluster is None else cluster.engines.values():
        found += list(engine_set.launchers.values()) if hasattr(engine_set, "launchers") else [engine_set]
    return found


def _processes(cluster: Any) -> list[int]:
    """Return the process ids of the controller and of engines that are processes of this host."""
    pids = [cluster.controller.pid] if cluster.controller is not None else []
    return pids + ([one.pid for one in _launchers(cluster)] if kind_of(cluster).is_local else [])


def stop_quickly(cluster: Any) -> None:
    """Stop a cluster at once and without words.

    Local engines are ended with SIGKILL first: their orderly end takes half a second each and prints a page of
    "event loop stopped" into their logs, which ipyparallel then shows.
    """
    controller = cluster.controller
    for pid in _processes(cluster)[1:]:
        _kill(pid)
    with contextlib.suppress(Exception):  # a job that has ended already cannot be stopped; the controller can
        cluster.stop_engines_sync()
    cluster.stop_controller_sync()
    if isinstance(controller, launchers.LocalControllerLauncher):
        with contextlib.suppress(ProcessLookupError):  # one that is slow to end is killed, and leaves its helpers
            os.killpg(controller.pid, signal.SIGKILL)
    cluster.engines.clear()
    cluster.update_cluster_file()


def _kill(pid: int) -> None:
    """Kill a process and all that it has started."""
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


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
