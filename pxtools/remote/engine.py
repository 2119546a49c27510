"""What an engine holds for its client, and the calls that change it.

Every public function here takes one dictionary of plain values and returns one: `call` turns bytes into such a
dictionary and back, and an exception into plain data, so that nothing the client cannot read ever leaves here.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib
import os
import pickle
import platform
import random
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from pxtools.remote import failures, health, importer
from pxtools.remote.pickling import Namespace, Packed, pack, raw, unpack
from pxtools.remote.sharing import Lent, decode, encode

Message = dict[str, Any]

#: values at most this large are compared by content when the client overwrites them
_COMPARED_BYTES = 1_000_000

#: reading an object of these libraries would start R or Octave in the notebook's process
_STAYING = ("rpy2", "oct2py")


class Engine:
    """The engine's side of a session: where names live, what was put there, what is pinned."""

    def __init__(self, namespace: Namespace, shell: Any = None) -> None:
        self.namespace = namespace
        self.shell = shell
        self.engine_id: int | None = None
        #: (host, process id, token) of the client that spoke last
        self.client: tuple[str, int, str] | None = None
        #: globals of functions that came from files which cannot be imported
        self.files: dict[str, Namespace] = {}
        #: name -> (the object that the client put, digest of its content or None)
        self.put: dict[str, tuple[Any, bytes | None]] = {}
        #: token -> (object, digest): values that stay here until the client asks or forgets
        self.pinned: dict[str, tuple[Any, bytes]] = {}
        #: token -> object: functions and arguments that tasks refer to
        self.tasks: dict[str, Any] = {}
        #: name -> why the module that the notebook has under it cannot be imported here
        self.absent: dict[str, str] = {}

    def pack(self, value: Any) -> Packed:
        return pack(value, self.namespace)

    def unpack(self, packed: Packed) -> Any:
        return unpack(packed, self.namespace, self.files)

    def has_changed(self, name: str) -> bool:
        """Return whether the engine's own code changed or made the name since the client last put it."""
        if name not in self.namespace:
            return False
        if name not in self.put:
            return True
        value, held = self.put[name]
        if self.namespace[name] is not value:
            return True
        return held is not None and held != self._digest_if_small(value)

    def set(self, name: str, value: Any, nbytes: int) -> None:
        """Bind a name that the client sent."""
        self.namespace[name] = value
        self.absent.pop(name, None)
        self.in_step(name, self._digest_if_small(value) if nbytes <= _COMPARED_BYTES else None)

    def in_step(self, name: str, content: bytes | None = None) -> None:
        """Note that the client knows the value that the name has now."""
        self.put[name] = (self.namespace[name], content)

    def differs(self, name: str, value: Any, nbytes: int) -> bool:
        """Return whether a value of the engine's own making is lost when the client's takes its place."""
        if not self.has_changed(name):
            return False
        if nbytes > _COMPARED_BYTES:
            return True
        content = self._digest_if_small(value)
        return content is None or content != self._digest_if_small(self.namespace[name])

    def seed(self, seed: int, *key: int) -> None:
        """Start the streams of the piece of work `key`: `px_rng`, `random`, and NumPy's global generator."""
        import numpy as np

        own, legacy, plain = np.random.SeedSequence(seed, spawn_key=key).spawn(3)
        self.namespace["px_rng"] = np.random.default_rng(own)
        np.random.seed(legacy.generate_state(8))  # noqa: NPY002 - the notebook's own code may use it
        random.seed(int.from_bytes(plain.generate_state(8).tobytes(), "little"))

    @contextlib.contextmanager
    def own_streams(self) -> Iterator[None]:
        """Leave the generators as they were: seeds of single items must not become the engine's."""
        import numpy as np

        legacy, plain = np.random.get_state(), random.getstate()  # noqa: NPY002
        had, px_rng = "px_rng" in self.namespace, self.namespace.get("px_rng")
        try:
            yield
        finally:
            np.random.set_state(legacy)  # noqa: NPY002
            random.setstate(plain)
            self.namespace.pop("px_rng", None)
            if had:
                self.namespace["px_rng"] = px_rng

    def _digest_if_small(self, value: Any) -> bytes | None:
        try:
            return digest(self.pack(value))
        except Exception:
            return None


class Lacking(Exception):
    """Names are gone that the client takes for granted: it has to send them again."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(names)
        self.names = names


def digest(packed: Packed) -> bytes:
    """Return a hash of the content; compared on this engine only."""
    try:
        import xxhash

        state: Any = xxhash.xxh3_128()
    except ImportError:
        state = hashlib.blake2b(digest_size=16)
    state.update(packed.data)
    for buffer in packed.buffers:
        state.update(raw(buffer))
    result: bytes = state.digest()
    return result


def current() -> Engine:
    """Return this process's `Engine`, kept on the IPython shell that lives as long as the process."""
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        raise RuntimeError("pxtools.remote runs inside an IPython engine")
    engine: Engine | None = getattr(shell, "pxtools_engine", None)
    if not isinstance(engine, Engine):  # none yet, or one made by another version of this code
        engine, old = Engine(shell.user_ns, shell), engine
        engine.__dict__.update(vars(old) if old is not None else {})
        shell.pxtools_engine = engine
        warnings.filterwarnings("ignore", "To exit: use", UserWarning)  # IPython's words to a cell that calls `exit`
    return engine


def call(function: str, data: bytes, lent: Lent | None, folder: str | None) -> tuple[bytes, Lent | None]:
    """Run `module.function(engine, message)`; return its answer, or its failure, as bytes of plain data.

    Parameters
    ----------
    data, lent
        The message, as `sharing.encode` made it.
    folder
        Where large buffers of the answer may be shared with the client.
    """
    engine = current()
    try:
        module, _, name = function.rpartition(".")
        run: Callable[[Engine, Message], Message] = getattr(importlib.import_module(module), name)
        answer, lents = encode({"ok": run(engine, decode(data, lent))}, folder)
        return answer, lents[0]
    except Lacking as error:
        return pickle.dumps({"ok": {"lacking": error.names}}), None
    except BaseException as error:
        return pickle.dumps({"failure": failures.describe(error, engine.namespace)}, protocol=5), None


def describe(engine: Engine, message: Message) -> Message:
    """Take the number that the client knows this engine by; tell what this process is and has."""
    import numpy

    engine.engine_id = message["engine_id"]
    before, engine.client = engine.client, message["client"]
    return {
        "other_client": before if before != message["client"] else None,
        "pid": os.getpid(),
        "processes": health.processes_seen(),
        "host": platform.node(),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "platform": platform.platform(),
        "machine": f"{platform.system()} {platform.machine()}",
        "abi": importer.abi(),
        "cores": os.cpu_count(),
        "cwd": os.getcwd(),
        "memory": _resident_bytes(),
        "compiled": _has_compiled_kernels(),
        # the folder may be seen from another host, too, where /dev/shm is missing and /tmp is on the network
        "shares_memory": os.path.isdir(message["folder"]) and message["client"][0] == platform.node(),
    }


def leave(engine: Engine, message: Message) -> Message:
    """Take note that a client is gone; what it put here stays."""
    if engine.client == message["client"]:
        engine.client = None
    return {}


def _has_compiled_kernels() -> bool:
    return importlib.import_module("pxtools.kernels.rwm").COMPILED


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def receive(engine: Engine, parcel: Message) -> list[str]:
    """Take in what a message carries: directory, modules, imports, deletions, values.

    Returns
    -------
    list of str
        Names whose value here had been changed by the engine and was overwritten.

    Raises
    ------
    Lacking
        Nothing was taken in.
    """
    lacking = [name for name in parcel.get("expects", ()) if name not in engine.namespace]
    if lacking:
        raise Lacking(lacking)
    for token in parcel.get("forget", ()):
        engine.pinned.pop(token, None)
        engine.tasks.pop(token, None)
    _follow(parcel.get("cwd"), parcel.get("path", ()))
    _replace_modules(engine, parcel.get("sources", {}))
    for name in parcel.get("delete", ()):
        engine.namespace.pop(name, None)
        engine.put.pop(name, None)
    _bind_imports(engine, parcel)
    conflicts = []
    for name, packed in parcel.get("values", {}).items():
        value = engine.unpack(packed)
        if engine.differs(name, value, packed.nbytes):
            conflicts.append(name)
        engine.set(name, value, packed.nbytes)
    for name, token in parcel.get("references", {}).items():
        engine.set(name, engine.pinned[token][0], _COMPARED_BYTES + 1)
    return conflicts


def _bind_imports(engine: Engine, parcel: Message) -> None:
    """Import what the notebook has imported; what is missing here is an error only if the code uses it."""
    for name, (module, attribute) in parcel.get("imports", {}).items():
        try:
            value = importlib.import_module(module)
            engine.set(name, getattr(value, attribute) if attribute else value, _COMPARED_BYTES + 1)
        except ImportError as error:
            engine.namespace.pop(name, None)
            engine.absent[name] = f"`{name}` is the module {module}, which engines cannot import: {error}"
    for module in parcel.get("submodules", ()):
        with contextlib.suppress(ImportError):
            importlib.import_module(module)


def _follow(cwd: str | None, path: tuple[str, ...]) -> None:
    """Go where the notebook is, and look for modules where it looks."""
    if cwd and cwd != os.getcwd() and os.path.isdir(cwd):
        os.chdir(cwd)
    for entry in path:
        if entry not in sys.path:
            sys.path.append(entry)


def _replace_modules(engine: Engine, sources: dict[str, Any]) -> None:
    """Take in module texts; point the names that held replaced modules, or their contents, at the new ones."""
    replaced = importer.install(sources)
    if not replaced:
        return
    for name, value in list(engine.namespace.items()):
        if isinstance(value, types.ModuleType):
            home, path = value.__name__, ""
        else:
            home, path = getattr(value, "__module__", None) or "", getattr(value, "__qualname__", "")
            if not path:
                continue
        if home not in replaced:
            continue
        with contextlib.suppress(ImportError):
            module = importlib.import_module(home)
            engine.namespace[name] = getattr(module, path, value) if path else module
            if name in engine.put:
                engine.in_step(name)


def push(engine: Engine, message: Message) -> Message:
    """Take in a parcel and do nothing else; names pushed on purpose take the place of what became of them here."""
    changed = [n for n in message.get("on_purpose", ()) if n in message["parcel"]["expects"] and engine.has_changed(n)]
    if changed:
        raise Lacking(changed)
    return {"conflicts": receive(engine, message["parcel"])}


def execute_imports(engine: Engine, message: Message) -> Message:
    """Run import statements in the notebook's namespace here."""
    receive(engine, message["parcel"])
    before = dict(engine.namespace)
    exec(compile(message["source"], "<pximport>", "exec"), engine.namespace)
    for name, value in list(engine.namespace.items()):
        if name != "__builtins__" and (name not in before or before[name] is not value):
            engine.in_step(name)
    return {}


def send_back(engine: Engine, names: dict[str, Any], limit: int) -> dict[str, Message]:
    """Pack values for the client: small ones whole, large ones as pinned references.

    Parameters
    ----------
    names
        Label to value.
    limit
        Values of more bytes stay here, under a token.
    """
    return {label: _answer(engine, value, limit) for label, value in names.items()}


def _answer(engine: Engine, value: Any, limit: int) -> Message:
    try:
        packed = engine.pack(value)
        own = digest(packed) if packed.nbytes > limit else b""
    except Exception as error:
        return {"kind": "described", "type": type(value).__name__, "text": _short_repr(value), "why": str(error)}
    if any(module.partition(".")[0] in _STAYING for module in packed.modules):
        why = "it belongs to R or Octave, which never start in the notebook; `%%pxR -o` takes numbers out of it"
        return {"kind": "described", "type": type(value).__name__, "text": _short_repr(value), "why": why}
    if packed.nbytes <= limit:
        return {"kind": "value", "packed": packed}
    token = f"{engine.engine_id}-{time.monotonic_ns()}-{id(value)}"
    engine.pinned[token] = (value, own)
    return {"kind": "pinned", "token": token, "nbytes": packed.nbytes, **_shape(value)}


def _shape(value: Any) -> Message:
    return {
        "type": type(value).__name__,
        "shape": tuple(getattr(value, "shape", ()) or ()),
        "dtype": str(getattr(value, "dtype", "")),
    }


def _short_repr(value: Any, width: int = 80) -> str:
    try:
        text = " ".join(repr(value).split())
    except Exception as error:
        text = f"<repr raised {type(error).__name__}>"
    return text if len(text) <= width else text[: width - 1] + "…"


def fetch(engine: Engine, message: Message) -> Message:
    """Return a pinned value, if it is still what it was."""
    held = engine.pinned.get(message["token"])
    if held is None:
        return {"stale": "was cleared there"}
    value, was = held
    packed = engine.pack(value)
    if digest(packed) != was:
        return {"stale": "was changed in place there"}
    return {"packed": packed}


def collect(engine: Engine, message: Message) -> Message:
    """Evaluate an expression in the namespace here and return its value."""
    receive(engine, message["parcel"])
    code = compile(message["expression"], "<pxcollect>", "eval")
    value = eval(code, engine.namespace)
    return send_back(engine, {"value": value}, message["limit"])["value"]


def who(engine: Engine, message: Message) -> Message:
    """List the user's names: type, shape, size, content hash."""
    return {name: _row(engine, engine.namespace[name]) for name in names(engine, message)["names"]}


def names(engine: Engine, message: Message) -> Message:
    """List the user's names alone."""
    hidden = {*(getattr(engine.shell, "user_ns_hidden", ()) or ()), "px_rank", "px_size", "px_rng"}
    return {"names": [n for n in sorted(engine.namespace) if not n.startswith("_") and n not in hidden]}


def _row(engine: Engine, value: Any) -> Message:
    if isinstance(value, types.ModuleType):
        return {"type": "module", "shape": (), "dtype": "", "nbytes": 0, "text": value.__name__, "hash": value.__name__}
    try:
        packed = engine.pack(value)
        size, own = packed.nbytes, digest(packed).hex()
    except Exception:
        size, own = sys.getsizeof(value, 0), ""
    return {**_shape(value), "nbytes": size, "text": _short_repr(value, 40), "hash": own}


def clear(engine: Engine, message: Message) -> Message:
    """Forget some names, or everything that is not IPython's own."""
    names = message["names"]
    if names is None:
        hidden = set(getattr(engine.shell, "user_ns_hidden", ()) or ())
        names = [n for n in engine.namespace if not n.startswith("_") and n not in hidden]
        engine.files.clear()
        engine.pinned.clear()
        engine.tasks.clear()
    gone = [name for name in names if name in engine.namespace]
    for name in names:
        engine.namespace.pop(name, None)
        engine.put.pop(name, None)
    gc.collect()
    return {"gone": gone}
