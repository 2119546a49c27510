"""An engine's exception as plain data, so that it can be read wherever it arrives."""

from __future__ import annotations

import linecache
import pickle
import traceback
import types
from typing import Any

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
        "pickled": _pickled(error),
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


def _pickled(error: BaseException) -> bytes | None:
    """Return the exception pickled, or None if it would not come back the same."""
    try:
        data = pickle.dumps(error)
        return data if type(pickle.loads(data)) is type(error) else None
    except Exception:
        return None


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
