"""Imports, push, collect, who, clear: the names that engines hold."""

from __future__ import annotations

import ast
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any

from pxtools.engines.wire import name_engines, raise_if_lost
from pxtools.errors import PxNameError, PxUsageError, nearest
from pxtools.results import check_how, combine
from pxtools.session.core import ENGINE, Session
from pxtools.session.failures import show_short, to_exception
from pxtools.session.joining import keep_until_rebound
from pxtools.session.outgoing import Gathering, make_item


def push(
    session: Session,
    names: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
    *,
    targets: Any = None,
    local: Mapping[str, Any] | None = None,
) -> int:
    """Send names of the notebook, and values under a name of their own, with all that they use.

    Parameters
    ----------
    names
        Names of the notebook.
    values
        Name there to value. Engines keep such a value until the notebook rebinds a name of its own like it.
    targets
        See `Session.targets`.

    Returns
    -------
    int
        Bytes that travelled: unchanged values are not sent again.

    Raises
    ------
    PxNameError, PxPickleError
        Nothing was sent.
    """
    engines = session.targets(targets)
    gatherer = session.gatherer(local)
    gathering = gatherer.gather((), {name: name for name in names})
    packed = {}
    for name, value in (values or {}).items():
        packed[name], used = gatherer.pack_value(value)
        gathering.items.update({k: v for k, v in used.items.items() if k not in gathering.items})
        gathering.more_modules |= used.more_modules
    before = session.ledger.bytes_sent
    set_apart = [name for name in names if name in session.overrides or name in session.cuts]
    is_for_all = session.is_everyone(targets)
    for engine in session.wire.alive if is_for_all else engines:  # frozen ones get it when they go on
        session.ledger.forget(engine, set_apart)
    replies = session.deliver(
        ENGINE + "push",
        gathering,
        engines,
        lambda parcel: {"parcel": {**parcel, "values": {**parcel["values"], **packed}}, "on_purpose": list(names)},
    )
    answers = session.good(replies)
    if is_for_all:
        for name in set_apart:
            session.overrides.pop(name, None)
            session.cuts.pop(name, None)
    expected = set(packed)
    session.tell(
        gathering, {i: [n for n in a["conflicts"] if n not in expected and n not in names] for i, a in answers.items()}
    )
    for name, value in packed.items():
        session.overrides[name] = value
        session.ledger.bytes_sent += value.nbytes * len(engines)
        keep_until_rebound(session, name, engines)
    return session.ledger.bytes_sent - before


def collect(
    session: Session, expression: str, *, how: str | None = None, targets: Any = None, advice: str = "%pxpush"
) -> Any:
    """Return the value of a name or expression on every engine.

    Parameters
    ----------
    expression
        Evaluated in the engines' namespace.
    how
        ``list``, ``concat``, ``stack``, ``dict``, ``first`` or ``same``; a `PerEngine` when left out.
    advice
        The magic that brings a name to the engines as they should have it.

    Raises
    ------
    PxNameError
        No engine knows the name, or only some do.
    """
    if how is not None:
        check_how(how)
    try:
        ast.parse(expression, mode="eval")
    except SyntaxError as error:
        raise PxUsageError(f"`{expression}` is no expression: {error.msg}.") from None
    engines = session.targets(targets)
    message = {"expression": expression, "limit": session.settings.collect_limit}
    replies = session.send(
        ENGINE + "collect", Gathering(), engines, lambda parcel: {"parcel": parcel, **message}
    ).wait()
    raise_if_lost(replies)
    failures = {i: reply.failure for i, reply in replies.items() if reply.failure is not None}
    if failures:
        raise _unknown_name(session, failures, engines, advice) or to_exception(
            failures, len(engines), namespace=session.namespace
        )
    held = session.per_engine(expression, {i: reply.answer or {} for i, reply in replies.items()})
    return combine(held, how, engines, expression) if how is not None else held


def _unknown_name(session: Session, failures: Mapping[int, Any], engines: list[int], advice: str) -> PxNameError | None:
    missing = {failure.get("name") for failure in failures.values()}
    name = missing.pop()
    if missing or name is None:
        return None
    there = sorted(set().union(*(session.ledger.stamps.get(i, {}) for i in engines)))
    listed = ", ".join(there[:6]) + (" and more" if len(there) > 6 else "") or "nothing"
    where = "is on no engine" if len(failures) == len(engines) else f"is not on {name_engines(failures)}"
    if name in session.namespace:
        return PxNameError(f"`{name}` {where}. Run `{advice} {name}` first (pushed so far: {listed}).")
    return PxNameError(f"`{name}` {where}.{nearest(name, there)}\nPushed so far: {listed}.")


def who(session: Session, *, targets: Any = None) -> dict[str, dict[int, dict[str, Any]]]:
    """Return what each engine holds: name to engine to type, shape, dtype, size, content hash and short text."""
    engines = session.targets(targets)
    answers = session.good(session.send(ENGINE + "who", Gathering(), engines, lambda parcel: {"parcel": parcel}).wait())
    table: dict[str, dict[int, dict[str, Any]]] = {}
    for engine, rows in answers.items():
        for name, row in rows.items():
            table.setdefault(name, {})[engine] = row
    return dict(sorted(table.items()))


def names_there(session: Session, *, timeout_s: float = 0.3) -> list[str]:
    """Return the names that engines hold; what the notebook knows of them if they do not answer at once."""
    engines = session.wire.ids
    idle = [i for i in engines if i not in session.wire.busy(engines)]
    call = session.wire.submit(ENGINE + "names", {i: {} for i in idle})
    call.poll(timeout_s)
    told = {name for reply in call.replies.values() for name in (reply.answer or {}).get("names", ())}
    known = {name for engine in set(engines) - call.replies.keys() for name in session.ledger.stamps.get(engine, ())}
    return sorted(told | known)


def clear(session: Session, names: Sequence[str] = (), *, targets: Any = None) -> dict[int, list[str]]:
    """Delete names on engines, all of the user's when none are given; return what was deleted by engine.

    Raises
    ------
    PxNameError
        A name is on no engine; the others were deleted.
    """
    engines = session.targets(targets)
    message = {"names": list(names) or None}
    answers = session.good(session.wire.call(ENGINE + "clear", dict.fromkeys(engines, message)))
    for engine in engines:
        session.ledger.forget(engine, names or None)
    for name in names or list(session.overrides):
        session.overrides.pop(name, None)
    if not names:
        session.imports.clear()
    unknown = [name for name in names if not any(name in answer["gone"] for answer in answers.values())]
    if unknown:
        raise PxNameError(f"`{unknown[0]}` is on no engine. `%pxwho` lists what is there.")
    return {i: answer["gone"] for i, answer in answers.items()}


def import_(session: Session, source: str, *, targets: Any = None) -> list[str]:
    """Run import statements here and on engines; return the names that they bind.

    Parameters
    ----------
    source
        Any import statements, also inside ``try``/``except``.

    Raises
    ------
    ImportError
        Of the module that is missing here, or on the engines that the message names.
    """
    _check_only_imports(source)
    engines = session.targets(targets)
    names = _import_here(session, source)
    gathering = Gathering(more_modules=_modules_of(source, [session.namespace[name] for name in names]))
    replies = session.send(
        ENGINE + "execute_imports", gathering, engines, lambda parcel: {"parcel": parcel, "source": source}
    ).wait()
    raise_if_lost(replies)
    failures = {i: reply.failure for i, reply in replies.items() if reply.failure is not None}
    _note_imports(session, [i for i in engines if i not in failures], names)
    if failures:
        raise to_exception(failures, len(engines), namespace=session.namespace)
    if source not in session.imports:
        session.imports.append(source)
    return names


def _import_here(session: Session, source: str) -> list[str]:
    """Run the statements in the notebook; return the names that they bind."""
    before = dict(session.namespace)
    try:
        exec(compile(source, "<pximport>", "exec"), session.namespace)
    except ImportError as error:
        show_short(error, [f"{type(error).__name__}: {error}  (here)", "Nothing was imported on the engines."])
        raise
    changed = {n for n, v in session.namespace.items() if n not in before or before[n] is not v}
    asked = _bound_by(source)
    return [n for n in session.namespace if n in asked or (n in changed and n != "__builtins__")]


def _note_imports(session: Session, engines: list[int], names: list[str]) -> None:
    for name in names:
        try:
            stamp = make_item(name, session.namespace[name], "", session.namespace).stamp
        except Exception:
            continue  # what was imported cannot travel by itself
        for engine in engines:
            session.ledger.record(engine, name, stamp, from_notebook=True)


def _check_only_imports(source: str) -> None:
    """Accept imports, also in ``try``, ``if`` and ``with``; else say what does not belong."""
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise PxUsageError(f"`{source.strip()}` is no import statement: {error.msg}.") from None
    if not any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(tree)):
        raise PxUsageError("nothing is imported here. Write `%pximport numpy as np`, or import statements below it.")
    for node in tree.body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not is_docstring and not isinstance(node, ast.Import | ast.ImportFrom | ast.Try | ast.If | ast.With):
            line = ast.unparse(node).splitlines()[0]
            raise PxUsageError(f"`{line}` is no import. Other code goes into `%%pxrun`.\nNothing was imported.")


def _bound_by(statements: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(statements)):
        if isinstance(node, ast.Import):
            names.update(alias.asname or alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
    return names


def _modules_of(statements: str, values: Sequence[Any]) -> set[str]:
    """Return every loaded module that the statements name, or that the values they bound come from."""
    names: set[str] = set()
    for value in values:
        home = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
        names.add(str(home))
    for node in ast.walk(ast.parse(statements)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name for name in names if name in sys.modules}
