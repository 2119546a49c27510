"""An engine's exception as plain data, so that it can be read wherever it arrives."""

from __future__ import annotations

import linecache
import traceback
import types
from typing import Any

from pxtools.remote.pickling import Packed, pack, unpack

Failure = dict[str, Any]


def describe(error: BaseException, namespace: dict[str, Any], rendered: list[str] | None = None) -> Failure:
    """Return what the client needs to raise this error again and to show it in two lines or in full.

    Parameters
    ----------
    error
        The exception, with its traceback.
    namespace
        The globals of cells: the last frame that runs in them at top level is the cell's line.
    rendered
        The traceback as the engine's IPython shows it, if that was made.
    """
    line, text = _line_of_cell(error.__traceback__, namespace)
    return {
        "type": type(error).__name__,
        "message": _text(error),
        "notes": list(getattr(error, "__notes__", [])),
        "pickled": _packed(error, namespace),
        "line": line,
        "source": text,
        "name": getattr(error, "name", None) if isinstance(error, NameError) else None,
        "traceback": rendered or traceback.format_exception(error),
    }


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as failure:
        return f"<no text: str() of the exception raised {type(failure).__name__}>"


def _packed(error: BaseException, namespace: dict[str, Any]) -> Packed | None:
    """Return the exception packed, or None if it would not come back the same."""
    for candidate in (error, _Bare(error, vars(error)), _Bare(error, {})):
        try:
            packed = pack(candidate, namespace)
            if type(unpack(packed, namespace, {}, keeps_classes=True)) is type(error):
                return packed
        except Exception:  # its own pickling is at fault: the next way
            continue
    return None


class _Bare:
    """Pickles as its exception, to be made again without calling `__init__`."""

    def __init__(self, error: BaseException, attributes: dict[str, Any]) -> None:
        self.error = error
        self.attributes = attributes

    def __reduce__(self) -> Any:
        return make_again, (type(self.error), self.error.args, self.attributes)


def make_again(kind: type[BaseException], args: tuple[Any, ...], attributes: dict[str, Any]) -> BaseException:
    """Return an exception whose own pickling does not work: `__init__` is not called."""
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(attributes)
    return error


def _line_of_cell(trace: types.TracebackType | None, namespace: dict[str, Any]) -> tuple[int | None, str]:
    line, text = None, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        if trace.tb_frame.f_globals is namespace and code.co_name == "<module>":
            source = linecache.getline(code.co_filename, trace.tb_lineno).strip()
            if source:
                line, text = trace.tb_lineno, source
        trace = trace.tb_next
    return line, text
