"""A Cython cell on all engines: compiled once, loaded here and there under one name, bound only if all went well."""

from __future__ import annotations

import itertools
import sys
import time
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pxtools.engines import Reply
from pxtools.engines.wire import raise_if_lost
from pxtools.errors import PxCompileError, PxMissing, PxUsageError
from pxtools.languages.check import Comparison, choose, compare
from pxtools.languages.cython_build import Built, CythonFlags, build, module_name
from pxtools.remote import importer
from pxtools.remote.importer import abi
from pxtools.session.core import ENGINE, Session
from pxtools.session.failures import to_exception
from pxtools.session.outgoing import Gathering, Item, content_hash, make_item

LOAD = "pxtools.remote.compiled.load"
BUILD = "pxtools.languages.cython_build.build_for"

_salts = itertools.count(1)


@dataclass(frozen=True)
class CythonResult:
    """What became of a Cython cell.

    Attributes
    ----------
    module
        Its name, here and on every engine.
    names
        Functions, classes and values that it bound.
    was_compiled
        False when the very same cell was compiled before.
    seconds_build, seconds_load
        Compiling; loading here and on the engines.
    annotation
        The coloured source as HTML, if asked for.
    check
        The comparison, if asked for.
    """

    module: str
    names: tuple[str, ...]
    engines: tuple[int, ...]
    was_compiled: bool
    seconds_build: float
    seconds_load: float
    annotation: str = ""
    warnings: str = ""
    check: Comparison | None = None
    replies: Mapping[int, Reply] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        how = f"compiled once in {self.seconds_build:.2f} s" if self.was_compiled else "compiled before"
        line = f"{', '.join(self.names) or self.module}: {how}, loaded here and on {len(self.engines)} engines"
        return line if self.check is None else f"{line}\n{self.check}"


def cython_on(
    session: Session,
    code: str,
    flags: CythonFlags | None = None,
    *,
    force: bool = False,
    check: str | None = None,
    bounds: Any = (0.0, 1.0),
    targets: Any = None,
    timeout_s: float | None = None,
) -> CythonResult:
    """Compile a cell once and bind its names here and on engines.

    Parameters
    ----------
    code
        Cython.
    flags
        What `%%cython` takes on its line.
    force
        Compile again although the same cell was compiled before.
    check
        A Python function of the notebook (``logp``, or ``logp=logp_c``) to compare the compiled one with.
    bounds
        Of the random points: (low, high), or one pair per argument.
    targets
        See `Session.targets`.

    Raises
    ------
    PxCompileError, PxMissing
        It was not compiled; nothing changed, here or there.
    Exception
        Whatever the module's top level raises; no name was bound.
    """
    flags = flags or CythonFlags()
    engines = session.targets(targets)
    name = module_name(code, flags, f"{next(_salts)} {time.time()}" if force else "")
    began = time.perf_counter()
    is_new = name not in sys.modules or (flags.annotate is not None)
    built = _build(session, name, code, flags, engines) if is_new else None
    loading = time.perf_counter()
    module = importer.load(name, built.binary, code) if built and name not in sys.modules else sys.modules[name]
    public = public_names(module)
    pair = choose(check, [n for n, v in public.items() if callable(v)], _is_function(session)) if check else None
    old = session.namespace[pair[0]] if pair else None
    replies = _load_there(session, module, code, flags, engines, timeout_s)
    _bind(session, module, public, flags.name, engines)
    loaded = time.perf_counter()
    comparison = compare(old, public[pair[1]], names=_titles(pair), bounds=bounds) if pair and old is not None else None
    return CythonResult(
        module=name,
        names=tuple(public),
        engines=tuple(engines),
        was_compiled=built is not None,
        seconds_build=loading - began,
        seconds_load=loaded - loading,
        annotation=built.annotation if built else "",
        warnings=built.warnings if built else "",
        check=comparison,
        replies=replies,
    )


def _is_function(session: Session) -> Any:
    return lambda name: callable(session.namespace.get(name))


def _titles(pair: tuple[str, str]) -> tuple[str, str]:
    return pair if pair[0] != pair[1] else (f"the former {pair[0]}", pair[1])


def public_names(module: types.ModuleType) -> dict[str, Any]:
    """Return what a cell's module gives to the notebook: its own functions and classes, and its values; no imports."""
    chosen = getattr(module, "__all__", None)
    if chosen is not None:
        return {name: getattr(module, name) for name in chosen}
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not isinstance(value, types.ModuleType)
        and (not hasattr(value, "__qualname__") or getattr(value, "__module__", None) == module.__name__)
    }


# --- compiling


def _build(session: Session, name: str, code: str, flags: CythonFlags, engines: list[int]) -> Built:
    """Compile here; where there is no compiler, on an engine of the same platform."""
    try:
        return build(name, code, flags)
    except PxMissing as error:
        mine = [i for i in engines if session.wire.engines[i]["abi"] == abi()]
        built = _build_on_one(session, mine, name, code, flags)
        if built is None:
            raise PxMissing(f"{error}\nNo engine can compile either. Nothing was changed.") from None
        return built


def _build_on_one(session: Session, engines: list[int], name: str, code: str, flags: CythonFlags) -> Built | None:
    """Compile on the first of the engines that can; None when none can."""
    asked: set[str] = set()
    for engine in engines:
        host = session.wire.engines[engine]["host"]
        if host in asked:
            continue
        asked.add(host)
        message = {"name": name, "code": code, "flags": {**asdict(flags), "annotate": None}}
        reply = session.wire.call(BUILD, {engine: message})[engine]
        raise_if_lost({engine: reply})
        if reply.failure is not None and reply.failure["type"] == PxMissing.__name__:
            continue
        if reply.failure is not None:
            raise PxCompileError(f"{reply.failure['message']}\n(on engine {engine}; nothing was changed)")
        return Built(**(reply.answer or {}))
    return None


# --- loading


def _load_there(
    session: Session,
    module: types.ModuleType,
    code: str,
    flags: CythonFlags,
    engines: list[int],
    timeout_s: float | None,
) -> dict[int, Reply]:
    """Have every engine import the module; those of another platform compile it for themselves, once per host."""
    used = {value.__name__ for value in vars(module).values() if isinstance(value, types.ModuleType)}
    used |= {getattr(value, "__module__", None) or "" for value in vars(module).values()}
    gathering = Gathering(more_modules={name for name in used if isinstance(name, str)} | {module.__name__})
    parcels = session.parcels(gathering, engines)
    message = {"module": module.__name__, "text": code, "alias": flags.name}
    foreign = [i for i in engines if session.wire.engines[i]["abi"] != abi()]
    replies = session.wire.call(
        LOAD, {i: {**message, "parcel": parcels[i]} for i in engines if i not in foreign}, timeout_s
    )
    raise_if_lost(replies)
    foreign += [
        i for i, r in replies.items() if r.failure is not None and r.failure["type"] in ("ImportError", "OSError")
    ]
    for host in dict.fromkeys(session.wire.engines[i]["host"] for i in foreign):
        there = [i for i in foreign if session.wire.engines[i]["host"] == host]
        replies |= _load_foreign(session, there, parcels, message, flags, replies)
    failures = {i: reply.failure for i, reply in replies.items() if reply.failure is not None}
    if failures:
        raise to_exception(failures, len(engines))
    return replies


def _load_foreign(
    session: Session,
    there: list[int],
    parcels: Mapping[int, Any],
    message: dict[str, Any],
    flags: CythonFlags,
    replies: Mapping[int, Reply],
) -> dict[int, Reply]:
    """Compile on one engine of a host for all of its engines of one platform."""
    done: dict[int, Reply] = {}
    for platform in dict.fromkeys(session.wire.engines[i]["abi"] for i in there):
        alike = [i for i in there if session.wire.engines[i]["abi"] == platform]
        built = _build_on_one(session, alike, message["module"], message["text"], flags)
        if built is None:
            reason = next((r.failure["message"] for i in alike if (r := replies.get(i)) and r.failure), platform)
            raise PxMissing(
                f"engine {alike[0]} cannot load what was compiled here ({reason}) and has no compiler of its own.\n"
                f"Type there: `pip install cython setuptools`, and install a C compiler. No name was bound."
            )
        text = {message["module"]: (built.binary, f"{message['module']}.so", False)}
        done |= session.wire.call(
            LOAD,
            {i: {**message, "parcel": {**parcels[i], "sources": {**parcels[i]["sources"], **text}}} for i in alike},
        )
    return done


def _bind(
    session: Session, module: types.ModuleType, public: Mapping[str, Any], alias: str | None, engines: list[int]
) -> None:
    """Bind the names here and there; engines take theirs from the module."""
    if alias:
        if not alias.isidentifier():
            raise PxUsageError(f"-n {alias}: a module's name has letters, digits and underscores only.")
        sys.modules[alias] = module
    items = {name: _item(session, module, name, value) for name, value in public.items()}
    session.namespace.update(public)
    session.good(session.deliver(ENGINE + "push", Gathering(items=items), engines, lambda parcel: {"parcel": parcel}))


def _item(session: Session, module: types.ModuleType, name: str, value: Any) -> Item:
    place = (module.__name__, name)
    try:
        own = make_item(name, value, "", session.namespace)
        stamp = content_hash(own.packed) if own.packed else own.stamp
    except Exception:
        stamp = place  # it cannot be pickled, but both sides have it from the module
    return Item(name, stamp, "compiled from the cell", imported=place, modules=frozenset([module.__name__]))
