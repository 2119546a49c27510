"""One message to each engine and one back; whatever goes wrong on the way becomes a plain error.

ipyparallel unpickles results inside its receiving thread, where an exception means waiting for ever. So only bytes
cross: the engine pickles its answer, and it is read here, guarded.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import inspect
import os
import platform
import shutil
import signal
import time
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import cloudpickle
import ipyparallel as ipp
import psutil

import pxtools
from pxtools.engines.calls import Call, Message, Reply, frozen_message, name_engines, raise_if_lost
from pxtools.engines.cluster import Connection
from pxtools.engines.neighbours import Neighbours
from pxtools.errors import PxClusterError
from pxtools.remote import sharing
from pxtools.remote.health import is_stopped

__all__ = ["Call", "Message", "Reply", "Wire", "frozen_message", "name_engines", "raise_if_lost"]

#: from so many bytes to so many engines on, one message through the controller's tree is faster than one to each
TREE_BYTES, TREE_ENGINES = 4_000_000, 3

#: seconds for which a look at the engines' processes is good
_LOOK_S = 0.2
#: seconds to wait for word that a signal was sent
_SIGNAL_S = 1.0
#: seconds to wait for word of frozen engines of another host
_ANSWER_S = 0.5


class Wire:
    """The messages of one connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.client = connection.client
        #: engine id to what it said of itself when it was first spoken to
        self.engines: dict[int, Message] = {}
        #: what engines know this client by
        self.name = (platform.node(), os.getpid(), uuid.uuid4().hex)
        #: large arrays go to engines of this host through files in here
        self.folder = sharing.make_folder()
        self._calls: weakref.WeakSet[Call] = weakref.WeakSet()
        #: called with a line for the user when an engine dies, freezes or comes back
        self.say: Callable[[str], None] = lambda line: None
        self._frozen: set[int] = set()
        self._looked_at = 0.0
        self._left_out: set[int] = set()
        self._neighbours = Neighbours(self)
        connection.remove_at_end(self.folder, sharing.disk_path(self.folder))

    @property
    def alive(self) -> list[int]:
        """Engine numbers that exist now, frozen ones too."""
        return sorted(self.client.ids)

    @property
    def ids(self) -> list[int]:
        """Engine numbers that can be used now."""
        frozen = self.frozen()
        return [i for i in self.alive if i not in frozen]

    def local_pids(self) -> dict[int, int]:
        """Return the process id of each engine that is known to run on this host."""
        here = platform.node()
        return {i: said["pid"] for i, said in list(self.engines.items()) if said["host"] == here}

    def frozen(self) -> set[int]:
        """Return the engines whose process is stopped (SIGSTOP, a debugger); of other hosts those that are known."""
        now = time.monotonic()
        if now - self._looked_at > _LOOK_S:
            self._frozen = {i for i, pid in self.local_pids().items() if is_stopped(pid)}
            self._looked_at = now
        return self._frozen | self._neighbours.stopped

    def look_elsewhere(self) -> None:
        """Ask engines of other hosts about each other; `frozen` has their answers later."""
        self._neighbours.ask()

    def prepare(self) -> list[int]:
        """Bring the code that runs on engines to those that are new here.

        Returns
        -------
        list of int
            Engines that are new, and those that were frozen and go on: what happened meanwhile they do not know.
        """
        alive = self.alive
        for engine_id in self.engines.keys() - set(alive):
            self.sweep(engine_id)
        self.engines = {i: said for i, said in self.engines.items() if i in alive}
        new = [i for i in alive if i not in self.engines]
        if new:
            self._bring_code(new)
            self.engines.update(self.describe(new))
        return [*new, *self._returned()]

    def _returned(self) -> list[int]:
        """Return engines that go on after they were frozen; say who comes and goes."""
        if self._neighbours.stopped:
            self._neighbours.ask(_ANSWER_S)
        frozen = self.frozen().intersection(self.engines)
        back = sorted((self._left_out - frozen).intersection(self.engines))
        if frozen - self._left_out:
            self.say(frozen_message(frozen - self._left_out))
        if back:
            self.say(f"{name_engines(back)} {'goes' if len(back) == 1 else 'go'} on, and is used again")
        self._left_out = frozen
        return back

    def sweep(self, engine_id: int) -> None:
        """Remove the files that a dead engine left for this client."""
        pid = self.local_pids().get(engine_id)
        if pid is not None:
            sharing.sweep(self.folder, pid)

    def describe(self, engines: list[int]) -> dict[int, Message]:
        """Ask engines what they are: process, host, versions, memory, directory."""
        messages = {i: {"engine_id": i, "folder": self.folder, "client": self.name} for i in engines}
        said = {}
        for i, reply in self.call("pxtools.remote.engine.describe", messages).items():
            if reply.answer is None:
                why = reply.lost or "{type}: {message}".format_map(reply.failure or {})
                raise PxClusterError(f"engine {i} cannot be used ({why}).\nReplace it: `%pxcluster restart`.")
            said[i] = reply.answer
        return said

    def other_clients(self) -> list[str]:
        """Return the other notebooks that seem to use these engines, in words."""
        others = {said["other_client"] for said in self.engines.values()} - {None}
        here = platform.node()
        return [
            f"process {pid} of {'this host' if host == here else host}"
            for host, pid, _ in sorted(others)
            if host != here or (pid != os.getpid() and psutil.pid_exists(pid))
        ]

    def _bring_code(self, engines: list[int]) -> None:
        mine, _ = _installed()
        asked = {i: self._apply(i, *_as_text(_installed)) for i in engines}
        sources: dict[str, tuple[str, str, bool]] = {}
        for i, result in asked.items():
            theirs, has_cloudpickle = result.get(timeout=60)
            if theirs == mine and has_cloudpickle:
                continue
            sources = sources or own_sources()
            needed = {n: s for n, s in sources.items() if not (has_cloudpickle and n.startswith("cloudpickle"))}
            self._apply(i, *_as_text(_install, needed)).get(timeout=60)

    def _apply(self, engine_id: int, function: Callable[..., Any], *args: Any) -> Any:
        view = self.client.direct_view(engine_id)
        return view.apply_async(function, *args)

    def _apply_to_all(self, engines: list[int], function: Callable[..., Any], *args: Any) -> dict[int, Any]:
        """Send one message that the controller's tree of schedulers multiplies; return a result per engine."""
        together = self.client.broadcast_view(engines).apply_async(function, *args)
        each = {i: self.client.get_result(key, owner=False) for i, key in zip(engines, together.msg_ids, strict=True)}
        # ipyparallel waits for the message itself, too, and nobody answers that: `client.wait()` would never end
        self.client.outstanding.difference_update(key.rpartition("_")[0] for key in together.msg_ids)
        return each

    def submit(self, function: str, messages: Mapping[int, Message]) -> Call:
        """Send each engine its message for `module.function`; equal message objects are pickled once."""
        equal: dict[tuple[int, bool], list[int]] = {}
        alive = self.alive
        for engine_id, message in messages.items():
            if engine_id in alive:
                equal.setdefault((id(message), self._shares_memory(engine_id)), []).append(engine_id)
        results: dict[int, Any] = {}
        for (_, is_shared), engines in equal.items():
            folder = self.folder if is_shared else None
            data, lents = sharing.encode(messages[engines[0]], folder, len(engines))
            if folder is None and len(engines) >= TREE_ENGINES and len(data) >= TREE_BYTES:
                results |= self._apply_to_all(engines, *_call(function, data, None, None))
                continue
            for engine_id, lent in zip(engines, lents, strict=True):
                try:
                    results[engine_id] = self._apply(engine_id, *_call(function, data, lent, folder))
                except (LookupError, ipp.error.NoEnginesRegistered):  # it has just left
                    sharing.give_back(lent)
                else:
                    results[engine_id].pxtools_lent = lent
        call = Call(self, {i: results.get(i) for i in messages})
        self._calls.add(call)
        return call

    def _shares_memory(self, engine_id: int) -> bool:
        return bool(self.engines.get(engine_id, {}).get("shares_memory"))

    def call(
        self,
        function: str,
        messages: Mapping[int, Message],
        timeout_s: float | None = None,
        tick: Callable[[Call], None] | None = None,
    ) -> dict[int, Reply]:
        """Send, wait, return the replies by engine."""
        return self.submit(function, messages).wait(timeout_s, tick)

    def submit_one(self, function: str, engine_id: int, message: Message) -> Any:
        """Send one engine its message, for somebody who does the waiting; return ipyparallel's result, or None."""
        return self.submit(function, {engine_id: message}).results.get(engine_id)

    def close(self) -> None:
        """Leave the cluster; what is still lent goes."""
        if not self.connection.stops_at_close and not self.client._closed and self.ids:
            farewell = self.submit("pxtools.remote.engine.leave", {i: {"client": self.name} for i in self.ids})
            farewell.poll(timeout_s=1.0)
        for folder in (self.folder, sharing.disk_path(self.folder)):
            shutil.rmtree(folder, ignore_errors=True)
        self.connection.close()

    def busy(self, engines: list[int]) -> list[int]:
        """Return those of the engines that have work under way: ours, or others' by what the hub knows."""
        ours = {i for call in list(self._calls) for i, result in call.pending.items() if not result.done()}
        queues = self.client.queue_status(verbose=False)
        return [i for i in engines if i in ours or queues.get(i, {}).get("queue") or queues.get(i, {}).get("tasks")]

    def abandon(self, results: list[Any], engines: Iterable[int]) -> None:
        """Have engines drop work, what they are at and what waits; frozen ones will when they go on."""
        self.abort(results, engines)
        self.interrupt(sorted(engines))

    def abort(self, results: list[Any], engines: Iterable[int]) -> None:
        """Have engines pass over work that they have not begun."""
        if results:
            with contextlib.suppress(Exception):  # some are done already
                self.client.abort(results, targets=sorted(engines), block=False)

    def not_begun(self, results: Mapping[int, Any]) -> list[int]:
        """Return the engines that have work of somebody else before this."""
        queues = self._queues(results)
        return [i for i, result in results.items() if result.msg_ids[0] in queues[i][1:]]

    def at_other_work(self, results: Mapping[Any, int]) -> list[int]:
        """Return those of the engines, by result, that are at work to which none of these results belongs."""
        own = {result.msg_ids[0] for result in results}
        return [i for i, queue in self._queues(results.values()).items() if queue and queue[0] not in own]

    def _queues(self, engines: Iterable[int]) -> dict[int, list[str]]:
        """Return the numbers of the messages that each engine has to answer, in its order."""
        engines = sorted(set(engines))
        found = self.client.queue_status(engines, verbose=True) if engines else {}
        return {i: found.get(i, {}).get("queue", []) for i in engines}

    def interrupt(self, engines: list[int]) -> None:
        """Send SIGINT to engines through the process that watches over each.

        Its word that the signal was sent is waited for: a late one would hit the next cell.
        """
        alive = [i for i in engines if i in self.client.ids]
        if alive:
            with contextlib.suppress(Exception):
                sent = self.client.send_signal(signal.SIGINT, targets=alive, block=False)
                concurrent.futures.wait([sent], timeout=_SIGNAL_S)


def own_sources() -> dict[str, tuple[str, str, bool]]:
    """Return the text of everything of pxtools that may run on engines, and of cloudpickle."""
    root = Path(pxtools.__file__).parent
    found = {}
    for base, top in ((root, "pxtools"), (Path(cloudpickle.__file__).parent, "cloudpickle")):
        for file in sorted(base.rglob("*.py")):
            parts = file.relative_to(base).with_suffix("").parts
            if top == "pxtools" and parts[0] in ("magics", "session", "engines"):
                continue
            is_package = parts[-1] == "__init__"
            name = ".".join((top, *(parts[:-1] if is_package else parts)))
            found[name] = (file.read_text(encoding="utf-8"), str(file), is_package)
    return found


# What is called there travels as text: ipyparallel would send compiled code, which another Python cannot run.


def _call(function: str, data: bytes, lent: Any, folder: str | None) -> tuple[Any, ...]:
    """Return what ipyparallel is to apply so that the engine calls `function` of pxtools."""
    where = "__import__('pxtools.remote.engine', fromlist=['call'])"
    names = {"function": function, "data": data, "lent": lent, "folder": folder}
    return eval, f"{where}.call(function, data, lent, folder)", names


def _as_text(function: Callable[..., Any], *args: Any) -> tuple[Any, ...]:
    """Return what ipyparallel is to apply so that an engine, which may have no pxtools, runs one of these functions."""
    names = {"source": inspect.getsource(function), "args": args}
    return eval, f"(exec(source, globals()), {function.__name__}(*args))[1]", names


def _installed() -> tuple[str, bool]:
    """Return the hash of the pxtools files in this process's reach, and whether cloudpickle is there."""
    import hashlib
    import importlib.util
    from pathlib import Path

    spec = importlib.util.find_spec("pxtools")
    has_cloudpickle = importlib.util.find_spec("cloudpickle") is not None
    if spec is None or not spec.origin or not Path(spec.origin).is_file():
        return "", has_cloudpickle
    root = Path(spec.origin).parent
    state = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        if file.relative_to(root).parts[0] not in ("magics", "session", "engines"):
            state.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return state.hexdigest(), has_cloudpickle


def _install(sources: dict[str, tuple[str, str, bool]]) -> None:
    """Make shipped sources importable as `pxtools` on an engine that has no such pxtools."""
    import sys
    import types

    name = "pxtools.remote.importer"
    for old in [m for m in sys.modules if m == "pxtools" or m.startswith("pxtools.")]:
        del sys.modules[old]
    module = sys.modules[name] = types.ModuleType(name)
    text, filename, _ = sources[name]
    exec(compile(text, filename, "exec"), module.__dict__)
    del sys.modules[name]
    module.install(sources)
