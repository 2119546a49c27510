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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cloudpickle
import ipyparallel as ipp
import psutil

import pxtools
from pxtools.engines.cluster import Connection
from pxtools.errors import PxClusterError, PxEngineLost, PxInterrupted, PxTimeout
from pxtools.remote import sharing

Message = dict[str, Any]

#: seconds between two looks at running work, for progress and interrupts
TICK_S = 0.05
#: seconds that interrupted engines get to become idle
INTERRUPT_GRACE_S = 2.0


@dataclass
class Reply:
    """What one engine answered, and what it printed and displayed on the way."""

    engine_id: int
    answer: Message | None = None
    failure: Message | None = None
    lost: str | None = None
    stdout: str = ""
    stderr: str = ""
    outputs: list[Message] = field(default_factory=list)


class Call:
    """Work that has been sent to engines.

    Attributes
    ----------
    pending
        Engine id to ipyparallel's result, for engines that have not answered.
    replies
        Engine id to answer.
    """

    def __init__(self, wire: Wire, results: dict[int, Any]) -> None:
        self.wire = wire
        self.pending = dict(results)
        self.results = dict(results)
        self.replies: dict[int, Reply] = {}

    def poll(self, timeout_s: float = 0.0) -> bool:
        """Wait at most so long; return whether every engine has answered."""
        if self.pending:
            concurrent.futures.wait(self.pending.values(), timeout=timeout_s)
        for engine_id, result in list(self.pending.items()):
            if result.done():
                reply = self.replies[engine_id] = _reply(engine_id, result)
                del self.pending[engine_id]
                if reply.lost and self.pending:
                    self.wire.on_loss(f"engine {engine_id} died ({reply.lost}); waiting for the others")
        return not self.pending

    def printed(self) -> dict[int, str]:
        """Return what each engine has printed so far."""
        return {i: _text(result, "stdout") for i, result in self.results.items()}

    def wait(self, timeout_s: float | None = None, tick: Callable[[Call], None] | None = None) -> dict[int, Reply]:
        """Wait for all engines.

        Parameters
        ----------
        timeout_s
            After so many seconds the engines are interrupted and `PxTimeout` is raised.
        tick
            Called about twenty times a second with this call, for progress.

        Raises
        ------
        KeyboardInterrupt
            After the engines were interrupted.
        """
        started = time.monotonic()
        try:
            while not self.poll(TICK_S):
                if tick is not None:
                    tick(self)
                if timeout_s is not None and time.monotonic() - started > timeout_s:
                    stuck = self.interrupt()
                    raise PxTimeout(_timeout_message(timeout_s, sorted(self.results), stuck))
        except KeyboardInterrupt:
            raise interrupted(self.results, self.interrupt()) from None
        return {i: self.replies[i] for i in self.results}

    def interrupt(self) -> list[int]:
        """Interrupt the engines that still work; return those that did not stop in time."""
        busy = list(self.pending)
        if busy:
            self.wire.interrupt(busy)
            self.poll(INTERRUPT_GRACE_S)
        return sorted(self.pending)


def interrupted(engines: Iterable[int], stuck: list[int]) -> PxInterrupted:
    """Return the exception for a Ctrl-C that the engines were told of."""
    if stuck:
        return PxInterrupted(_stuck_message(stuck))
    return PxInterrupted(f"{name_engines(engines)} were interrupted and are idle.")


def _timeout_message(timeout_s: float, engines: list[int], stuck: list[int]) -> str:
    text = f"no end after {timeout_s:g} s on {name_engines(engines)}; they were interrupted."
    return text + ("\n" + _stuck_message(stuck) if stuck else "\nGive more time with `--timeout S`.")


def _stuck_message(stuck: list[int]) -> str:
    return f"{name_engines(stuck)} cannot be interrupted. Replace: `%pxcluster restart -t {','.join(map(str, stuck))}`."


def name_engines(engine_ids: Iterable[int]) -> str:
    """Return `engine 3`, or `engines 0-2, 5`: runs of numbers are folded."""
    ids = sorted(engine_ids)
    runs: list[list[int]] = []
    for i in ids:
        if runs and i == runs[-1][-1] + 1:
            runs[-1].append(i)
        else:
            runs.append([i])
    words = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return ("engine " if len(ids) == 1 else "engines ") + ", ".join(words)


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
        #: called with a line when an engine is lost while others still work
        self.on_loss: Callable[[str], None] = lambda line: None
        connection.remove_at_end(self.folder, sharing.disk_path(self.folder))

    @property
    def ids(self) -> list[int]:
        """Engine numbers that are alive now."""
        return sorted(self.client.ids)

    def prepare(self) -> list[int]:
        """Bring the code that runs on engines to those that are new here; return their numbers."""
        alive = self.ids
        self.engines = {i: said for i, said in self.engines.items() if i in alive}
        new = [i for i in alive if i not in self.engines]
        if new:
            self._bring_code(new)
            self.engines.update(self.describe(new))
        return new

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

    def submit(self, function: str, messages: Mapping[int, Message]) -> Call:
        """Send each engine its message for `module.function`; equal message objects are pickled once."""
        equal: dict[tuple[int, bool], list[int]] = {}
        for engine_id, message in messages.items():
            equal.setdefault((id(message), self._shares_memory(engine_id)), []).append(engine_id)
        results = {}
        for (_, is_shared), engines in equal.items():
            folder = self.folder if is_shared else None
            data, lents = sharing.encode(messages[engines[0]], folder, len(engines))
            for engine_id, lent in zip(engines, lents, strict=True):
                results[engine_id] = self._apply(engine_id, *_call(function, data, lent, folder))
                results[engine_id].pxtools_lent = lent
        call = Call(self, {engine_id: results[engine_id] for engine_id in messages})
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

    def submit_balanced(self, function: str, message: Message, targets: list[int]) -> Any:
        """Send one message to whichever of the engines is free first; return ipyparallel's result."""
        folder = self.folder if all(map(self._shares_memory, targets)) else None
        data, lents = sharing.encode(message, folder)
        result = self.client.load_balanced_view(targets).apply_async(*_call(function, data, lents[0], folder))
        result.pxtools_lent = lents[0]
        return result

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

    def interrupt(self, engines: list[int]) -> None:
        """Send SIGINT to engines through the process that watches over each."""
        alive = [i for i in engines if i in self.client.ids]
        if alive:
            with contextlib.suppress(Exception):
                self.client.send_signal(signal.SIGINT, targets=alive, block=False)


def read_reply(result: Any, engine_id: int = -1) -> Reply:
    """Return the reply of a finished result, whatever it is."""
    return _reply(engine_id, result)


def _reply(engine_id: int, result: Any) -> Reply:
    reply = Reply(engine_id)
    sharing.give_back(getattr(result, "pxtools_lent", None))
    try:
        data, lent = result.get(timeout=0)
    except ipp.error.RemoteError as error:
        died = error.ename == "EngineError"
        reply.lost = "killed, or out of memory?" if died else f"{error.ename}: {error.evalue}"
        return reply
    except Exception as error:
        reply.lost = f"{type(error).__name__}: {error}"
        return reply
    result.wait_for_output(timeout=1.0)
    reply.stdout, reply.stderr = _text(result, "stdout"), _text(result, "stderr")
    outputs = result.outputs
    reply.outputs = list(outputs[0] if outputs and isinstance(outputs[0], list) else outputs)
    try:
        content = sharing.decode(data, lent)
    except Exception as error:
        reply.failure = {"type": type(error).__name__, "message": f"its answer cannot be read here: {error}"}
        return reply
    reply.answer, reply.failure = content.get("ok"), content.get("failure")
    return reply


def _text(result: Any, stream: str) -> str:
    value = getattr(result, stream)
    return value if isinstance(value, str) else "".join(value)


def raise_if_lost(replies: Mapping[int, Reply]) -> None:
    """Raise `PxEngineLost` naming the engines that died."""
    lost = [i for i, reply in replies.items() if reply.lost]
    if lost:
        raise PxEngineLost(
            f"{name_engines(lost)} died during this work ({replies[lost[0]].lost}); what the others did is kept.\n"
            f"`%pxcluster resize -n {len(replies)}` brings new ones up, with the same imports and names."
        )


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
