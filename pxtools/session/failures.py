"""Engines' failures as one exception here: short to read, of the original type, with everything behind `%tb`."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from pxtools.engines.wire import name_engines
from pxtools.errors import PxError, PxNameError, PxRemoteError, ShortTraceback
from pxtools.remote.pickling import Namespace, unpack

Failure = dict[str, Any]

#: what differs in tracebacks of the same failure: execution counts, process ids
_COUNTERS = re.compile(r"In\[\d+\]|ipykernel_\d+")

#: never raised here under their own name: they would end the loop, the generator or the process around the call
_NEVER = (SystemExit, StopIteration, StopAsyncIteration, KeyboardInterrupt, GeneratorExit)


def to_exception(
    failures: Mapping[int, Failure],
    n_engines: int,
    problems: Mapping[str, str] | None = None,
    *,
    namespace: Namespace | None = None,
    hints: Sequence[str] = (),
) -> BaseException:
    """Return the exception to raise for what engines reported.

    If every engine that failed raised the same type, that type is returned, so that ``except`` finds it.

    Parameters
    ----------
    failures
        Engine to failure.
    n_engines
        How many engines took part.
    problems
        Names that could not be sent, with the reason: explains a NameError.
    namespace
        The notebook: an exception class of its own is found again.
    hints
        More lines for the user.
    """
    lines = [*_short(failures, n_engines, problems or {}), *hints]
    full = _full(failures)
    error = _original(failures, {} if namespace is None else namespace)
    has_reason = any((problems or {}).get(failure.get("name") or "") for failure in failures.values())
    if error is None or (isinstance(error, NameError) and has_reason):
        kind: type[PxError] = PxNameError if isinstance(error, NameError) else PxRemoteError
        error = kind("\n".join(lines))
    _attach(error, lines, full, failures)
    return error


def _attach(error: BaseException, lines: list[str], full: str, failures: Mapping[int, Failure]) -> None:
    """Let IPython show `lines` first and `full` on `%tb`, also for an exception class that is not ours."""
    error.engine_tracebacks = {i: "\n".join(f["traceback"]) for i, f in failures.items()}  # type: ignore[attr-defined]
    if isinstance(error, ShortTraceback):
        error.full_traceback = full
        error._short_lines = lambda: lines  # type: ignore[method-assign]
        return
    show_short(error, lines, full)


def show_short(error: BaseException, lines: list[str], full: str = "") -> None:
    """Let IPython show `lines` for an exception of any class, and `full` (its traceback if empty) on `%tb`."""
    shown = []

    def render() -> list[str]:
        shown.append(True)
        is_short = len(shown) == 1 and ShortTraceback.is_short_at_first
        return lines if is_short else (full or "".join(traceback.format_exception(error))).splitlines()

    error._render_traceback_ = render  # type: ignore[attr-defined]
    for note in lines[1:]:
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)


def _original(failures: Mapping[int, Failure], namespace: Namespace) -> BaseException | None:
    """Return the exception itself if all engines raised one type that can be made here."""
    kinds = {failure["type"] for failure in failures.values()}
    data = next(iter(failures.values())).get("pickled")
    if len(kinds) != 1 or data is None:
        return None
    try:
        error = unpack(data, namespace, {}, keeps_classes=True)
    except Exception:
        return None
    return error if isinstance(error, Exception) and not isinstance(error, _NEVER) else None


def _short(failures: Mapping[int, Failure], n_engines: int, problems: Mapping[str, str]) -> list[str]:
    groups: dict[tuple[str, str], list[int]] = {}
    for engine, failure in failures.items():
        groups.setdefault((failure["type"], failure["message"]), []).append(engine)
    lines = []
    for (kind, message), engines in list(groups.items())[:3]:
        shown = f"{kind}: {message}" if message else kind
        *before, last = shown.splitlines()[:3]
        lines += [*before, f"{last}  ({name_engines(engines)})"]
    if len(groups) > 3:
        lines.append(f"… and {len(groups) - 3} different failures more")
    failure = next(iter(failures.values()))
    lines += failure.get("notes", [])[:2]
    if failure.get("line"):
        lines.append(f"in line {failure['line']} of the cell: {failure['source']}")
    reason = problems.get(failure.get("name") or "")
    if reason:
        lines.append(f"`{failure['name']}` was not sent: {reason}.")
    finished = n_engines - len(failures)
    if finished:
        where = next(k for k, line in enumerate(lines) if line.endswith(")"))
        lines[where] += f"; {finished} of {n_engines} engines finished"
    return lines


def _full(failures: Mapping[int, Failure]) -> str:
    """Return all tracebacks, identical ones once."""
    groups: dict[str, tuple[str, list[int]]] = {}
    for engine, failure in failures.items():
        text = "\n".join(failure["traceback"])
        groups.setdefault(_COUNTERS.sub("", text), (text, []))[1].append(engine)
    return "\n".join(f"--- {name_engines(engines)} ---\n{text}" for text, engines in groups.values())
