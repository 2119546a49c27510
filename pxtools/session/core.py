"""The session: the one object with state. It knows the cluster, what each engine holds, and the settings."""

from __future__ import annotations

import os
import platform
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pxtools.engines import Call, Connection, Reply, Wire, connect, find, start, waiting
from pxtools.engines.wire import frozen_message, name_engines, raise_if_lost
from pxtools.errors import PxClusterError, PxEngineLost, StaleValue
from pxtools.remote.pickling import Namespace, Packed, unpack
from pxtools.results import Described, PerEngine, Remote
from pxtools.session import hosts, joining
from pxtools.session.failures import to_exception
from pxtools.session.ledger import Ledger, check_limit
from pxtools.session.outgoing import Gatherer, Gathering, Parcel, same_host_path
from pxtools.session.settings import Settings
from pxtools.session.targets import parse_targets

ENGINE = "pxtools.remote.engine."

#: Called with a title; returns an object with `update(text, fraction)` and `close()`.
ProgressFactory = Callable[[str], Any]


class NoProgress:
    """The progress display of those who want none."""

    def update(self, text: str, fraction: float | None = None) -> None:
        """Show nothing."""

    def close(self, text: str | None = None, fraction: float | None = None) -> None:
        """Leave nothing."""


class Session:
    """One notebook and its engines.

    Parameters
    ----------
    namespace
        The notebook's names.
    notify
        Shows a line to the user; `print` by default.
    progress
        Makes a progress display for long work; None shows nothing.

    Attributes
    ----------
    settings
        See `Settings`.
    ledger
        What each engine was last sent.
    """

    def __init__(
        self,
        namespace: Namespace,
        *,
        settings: Settings | None = None,
        notify: Callable[[str], None] = print,
        progress: ProgressFactory | None = None,
    ) -> None:
        self.namespace = namespace
        self.settings = settings or Settings()
        self.notify = notify
        self._progress = progress
        self.ledger = Ledger()
        self.files: dict[str, Namespace] = {}
        #: import statements and expression values that new engines get too
        self.imports: list[str] = []
        self.overrides: dict[str, Packed] = {}
        #: name -> how it was scattered (`pxtools.session.scatter.Cut`)
        self.cuts: dict[str, Any] = {}
        #: what R and Octave hold, for new engines (`pxtools.session.languages.Memory`); None before their first cell
        self.memory: Any = None
        self._wire: Wire | None = None
        #: results by item number of a map that did not come to its end
        self.unfinished_map: dict[int, Any] = {}
        self._released: dict[int, list[str]] = {}
        #: engine -> tokens of series that a `FleetResult` kept there, which is gone
        self.unused_series: dict[int, list[str]] = {}
        #: what the ledger takes for sent has to be on its way before another thread looks
        self._lock = threading.RLock()

    def progress(self, title: str) -> Any:
        """Return what shows progress: the screen, the handle of work in the background, or nothing."""
        handle = waiting.current().display
        if handle is not None:
            return handle
        return self._progress(title) if self._progress is not None and self.settings.progress else NoProgress()

    # --- the cluster

    @property
    def is_connected(self) -> bool:
        """Whether there are engines in use."""
        return self._wire is not None

    @property
    def wire(self) -> Wire:
        """The connection to engines: found or started on first use, with new engines made ready."""
        with self._lock:
            if self._wire is None:
                self._find_or_start()
            assert self._wire is not None
            joining.welcome(self, self._wire)
            return self._wire

    @property
    def is_ours(self) -> bool:
        """Whether the cluster in use was started by pxtools, which then also stops it."""
        return self._wire is not None and self._wire.connection.is_ours

    @property
    def connection(self) -> Connection:
        """The client on the cluster, and whether the cluster is ours to stop."""
        return self.wire.connection

    @property
    def client(self) -> Any:
        """The real ipyparallel client."""
        return self.wire.client

    def _find_or_start(self) -> None:
        connection = find(self.namespace)
        if connection is not None:
            self._use(connection)
        elif self.settings.autostart:
            self.start(self.settings.engines or None)
        else:
            raise PxClusterError(
                "no engines are running, and `PxTools.autostart` is off.\n"
                "Type `%pxcluster start -n 4`, or `%pxcluster connect`."
            )

    def start(self, n: int | None = None, **options: Any) -> list[int]:
        """Start a cluster (see `pxtools.engines.start`) in place of the one in use; return its engines."""
        n = hosts.n_or_cores(n, options)
        options, min_engines, timeout_s = hosts.without_waiting(options)
        display = self.progress(f"starting {n or ''} engines")
        try:
            self._use(start(n, **options))
            if min_engines:
                self.wait(min_engines, timeout_s)
        finally:
            display.close()
        return self.wire.ids

    def connect(self, **where: Any) -> list[int]:
        """Connect to a running cluster (see `pxtools.engines.connect`); return its engines."""
        self._use(connect(**where))
        return self.wire.ids

    def _use(self, connection: Connection) -> None:
        self.disconnect()
        if not connection.client.ids and not connection.pending:
            origin = connection.origin
            connection.close()
            raise PxClusterError(f"{origin} has no engines.\nStart some: `ipcluster engines -n 4`.")
        self._wire = Wire(connection)
        self._wire.say = self._say
        joining.welcome(self, self._wire)
        for line in hosts.greet(self._wire):
            self.notify(line)
        for other in self._wire.other_clients():
            self.notify(f"{other} uses these engines, too: names and random streams will get in each other's way.")
        if not all(said["compiled"] for said in self._wire.engines.values()):
            self.notify("compiled kernels are missing on some engines: their NumPy twins serve, slower.")

    def _say(self, line: str) -> None:
        self.notify(line)

    def stop(self) -> None:
        """Stop the cluster if pxtools started it, now or for an earlier notebook; leave any other."""
        if self._wire is not None:
            self._wire.connection.stops_at_close = self._wire.connection.is_ours
        self.disconnect()

    def disconnect(self) -> None:
        """Leave the cluster; stop it if it is to end with the notebook."""
        wire, self._wire = self._wire, None
        self.ledger, self.memory = Ledger(), None
        for remembered in (self.imports, self.overrides, self.cuts, self._released, self.unused_series):
            remembered.clear()
        if wire is not None:
            wire.close()

    def resize(self, n: int) -> list[int]:
        """Make the cluster have `n` engines; new ones get the imports and names that the others hold."""
        wire = self._startable()
        have = wire.alive
        if hosts.is_one_job(wire):
            return joining.replace_all(self, wire, n)
        if n > len(have):
            joining.remember(self, wire)
            hosts.add(wire, n)
        elif n < len(have):
            frozen = wire.frozen()
            self._end(wire, sorted(have, key=lambda i: (i in frozen, i))[n:])
        joining.welcome(self, wire)
        return wire.ids

    def restart(self, targets: Any = None) -> list[int]:
        """Replace engines, all or some, by new ones with the same imports and pushed names; return all numbers.

        Works also on engines that do not answer any more.
        """
        wire = self._startable()
        if hosts.is_one_job(wire):
            return joining.replace_all(self, wire, len(wire.alive) or wire.connection.asked)
        old = parse_targets(targets, wire.alive, self.namespace)
        joining.remember(self, wire)
        if wire.connection.has_places:  # the new ones may need those of the old
            self._end(wire, old)
            wire.connection.start_more(len(old))
        else:
            wire.connection.start_more(len(old))
            self._end(wire, old)
        joining.welcome(self, wire)
        return wire.ids

    def wait(self, n: int | None = None, timeout_s: float | None = None) -> list[int]:
        """Wait for engines that were asked for, all or `n` (see `pxtools.session.hosts.wait`); return those here."""
        wire = self._wire or self.wire
        hosts.wait(wire, n, timeout_s)
        return self.wire.ids

    def _startable(self) -> Wire:
        """Return the connection, without a word to its engines, if it can start and stop some."""
        wire = self._wire or self.wire
        if wire.connection.cluster is None:
            raise PxClusterError(
                "this cluster is known by its connection file only, which cannot start or stop engines.\n"
                "Connect with its cluster-*.json, or start engines where it was started."
            )
        return wire

    def _end(self, wire: Wire, engines: list[int]) -> None:
        pids = {i: pid for i, pid in wire.local_pids().items() if i in engines}
        wire.connection.stop_engines(engines, pids, wire.frozen())

    # --- what travels

    def targets(self, spec: str | int | Iterable[int] | None = None) -> list[int]:
        """Return engine numbers for what a user writes after `-t`.

        Parameters
        ----------
        spec
            ``0``, ``0,2``, ``::2``, ``all``, or the name of an ipyparallel view in the notebook; None for the setting
            `targets`.

        Raises
        ------
        PxUsageError
            There is no such engine.
        PxEngineLost
            All of these are frozen; of several, frozen ones are left out.
        """
        wire = self.wire
        if not wire.alive and wire.connection.pending:
            raise hosts.none_yet(wire.connection)
        chosen = parse_targets(self.settings.targets if spec is None else spec, wire.alive, self.namespace)
        awake = [i for i in chosen if i not in wire.frozen()]
        if chosen and not awake:
            raise PxEngineLost(frozen_message(chosen))
        return awake

    def is_everyone(self, spec: str | int | Iterable[int] | None) -> bool:
        """Return whether these are all engines, frozen ones too: what they get is what those get when they go on."""
        alive = self.wire.alive
        return set(parse_targets(spec, alive, self.namespace)) >= set(alive)

    def gatherer(self, local: Mapping[str, Any] | None = None) -> Gatherer:
        """Return what finds the values that a piece of work needs; `local` names go first."""
        return Gatherer(self.namespace, self.settings, local)

    def parcels(self, gathering: Gathering, engines: list[int]) -> dict[int, Parcel]:
        """Return what each engine must be sent so that it holds what was gathered."""
        here = platform.node()
        wire = self._wire
        assert wire is not None
        n_hosts = len({said["host"] for said in wire.engines.values()})
        check_limit(gathering, self.settings.push_limit * n_hosts, self.ledger, engines)
        for name, item in gathering.items.items():
            if not all(self.ledger.is_in_step(engine, item) for engine in engines):
                self.overrides.pop(name, None)
        path, cwd = same_host_path(), os.getcwd()
        common: dict[int, Parcel] = {}
        for engine in engines:
            is_local = wire.engines.get(engine, {}).get("host") == here  # it may have died just now
            common[engine] = {
                "cwd": cwd if is_local and self.settings.follow_cwd else None,
                "path": path if is_local else (),
                "forget": tuple(self._released.pop(engine, ())),
            }
        return self.ledger.parcels(gathering, engines, self.namespace, common)

    def deliver(
        self, function: str, gathering: Gathering, engines: list[int], build: Callable[[Parcel], dict[str, Any]]
    ) -> dict[int, Reply]:
        """Send a parcel and what `build` puts around it; once more where names were gone that should be there."""
        replies: dict[int, Reply] = {}
        asked = engines
        while asked:
            replies |= self.send(function, gathering, asked, build).wait()
            asked = self.lacking(replies) if asked is engines else []
        return {i: replies[i] for i in engines}

    def send(
        self, function: str, gathering: Gathering, engines: list[int], build: Callable[[Parcel], dict[str, Any]]
    ) -> Call:
        """Send a parcel and what `build` puts around it, without waiting."""
        with self._lock:
            parcels = self.parcels(gathering, engines)
            made = {id(parcel): build(parcel) for parcel in parcels.values()}  # one object where parcels are equal
            call = self.wire.submit(function, {i: made[id(parcels[i])] for i in engines})

        def doubt(lost: list[int]) -> None:
            for engine in lost:
                self.ledger.doubt(engine, parcels[engine])

        call.on_unanswered = doubt
        return call

    def lacking(self, replies: Mapping[int, Reply]) -> list[int]:
        """Return engines that lack names which they should hold, and forget these in the ledger."""
        found = {
            i: reply.answer["lacking"] for i, reply in replies.items() if reply.answer and "lacking" in reply.answer
        }
        for engine, names in found.items():
            self.ledger.forget(engine, names)
        return list(found)

    def release(self, engines: Iterable[int], token: str) -> None:
        """Have engines forget what they keep under a token, with the next message to each."""
        for engine in engines:
            _release(self._released, engine, token)

    def tell(self, gathering: Gathering, conflicts: Mapping[int, list[str]]) -> None:
        """Show the one-line notices of a transfer."""
        for notice in gathering.notices:
            self.notify(notice)
        overwritten: dict[str, list[int]] = {}
        for engine, names in conflicts.items():
            for name in names:
                overwritten.setdefault(name, []).append(engine)
        for name, engines in overwritten.items():
            self.notify(f"`{name}` differed here and on {name_engines(engines)}: the notebook's value was taken.")

    # --- what comes back

    def value_of(self, answer: Mapping[str, Any], engine: int) -> Any:
        """Turn one engine's answer into a value, or into something that stands for it."""
        if answer["kind"] == "value":
            return self.unpack(answer["packed"], engine)
        if answer["kind"] == "described":
            return Described(engine, answer["type"], answer["text"], answer["why"])
        keys = ("token", "nbytes", "type", "shape", "dtype")
        remote = Remote(engine=engine, fetch=self._fetch, **{k: answer[k] for k in keys})
        weakref.finalize(remote, _release, self._released, engine, remote.token)
        return remote

    def unpack(self, packed: Packed, engine: int) -> Any:
        """Read a value; one that cannot be read here is described, never waited for."""
        try:
            return unpack(packed, self.namespace, self.files, keeps_classes=True)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # reading can run anything, `sys.exit()` too
            return Described(engine, "value", f"{packed.nbytes} bytes", f"cannot be read here: {error}")

    def _fetch(self, remotes: Sequence[Remote]) -> list[Any]:
        """Return values that stayed on their engines, one of each engine, all at once."""
        wire = self.wire
        for remote in remotes:
            if remote.engine not in wire.alive:
                raise StaleValue(f"engine {remote.engine} is gone, and its value with it.")
            if remote.engine in wire.frozen():
                raise PxEngineLost(frozen_message([remote.engine]))
        answers = self.good(wire.call(ENGINE + "fetch", {r.engine: {"token": r.token} for r in remotes}))
        for engine, answer in answers.items():
            if "stale" in answer:
                raise StaleValue(
                    f"the value on engine {engine} {answer['stale']} since it was collected.\n"
                    f"Collect it again: `%pxcollect NAME`."
                )
        return [self.unpack(answers[r.engine]["packed"], r.engine) for r in remotes]

    def good(self, replies: Mapping[int, Reply], problems: Mapping[str, str] | None = None) -> dict[int, Any]:
        """Return the answers by engine, or raise what went wrong."""
        self._all_well(replies, problems)
        return {i: reply.answer for i, reply in replies.items()}

    def _all_well(self, replies: Mapping[int, Reply], problems: Mapping[str, str] | None = None) -> None:
        raise_if_lost(replies)
        failures = {i: reply.failure for i, reply in replies.items() if reply.failure is not None}
        if failures:
            for engine in failures:
                self.ledger.forget(engine)
            raise to_exception(failures, len(replies), problems, namespace=self.namespace)

    def per_engine(self, name: str, answers: Mapping[int, Mapping[str, Any]]) -> PerEngine:
        """Return the answers of engines as one `PerEngine`."""
        return PerEngine(name, list(answers), [self.value_of(answer, i) for i, answer in answers.items()])


def _release(released: dict[int, list[str]], engine: int, token: str) -> None:
    """Have an engine forget what it keeps under a token with the next message to it."""
    released.setdefault(engine, []).append(token)
