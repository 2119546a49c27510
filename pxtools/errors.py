"""The words of failure: every error that pxtools raises itself.

A message is two to four lines: what happened, what was given, what to type. IPython shows just that, through
`_render_traceback_`; `%tb`, which renders the same exception a second time, shows the whole traceback.
"""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable
from typing import ClassVar


class ShortTraceback:
    """An exception that IPython prints without frames at first, and in full when asked again (`%tb`)."""

    #: `%config PxTools.short_errors`
    is_short_at_first: ClassVar[bool] = True
    #: what `%tb` shows; the local traceback when empty
    full_traceback: str = ""
    _was_shown = False

    def _render_traceback_(self) -> list[str]:
        if self._was_shown or not ShortTraceback.is_short_at_first:
            return self._full_lines()
        self._was_shown = True
        return self._short_lines()

    def _short_lines(self) -> list[str]:
        return f"{error_name(self)}: {self}".splitlines()

    def _full_lines(self) -> list[str]:
        if self.full_traceback:
            return self.full_traceback.splitlines()
        assert isinstance(self, BaseException)
        return "".join(traceback.format_exception(self)).splitlines()


class PxError(ShortTraceback, Exception):
    """Base of everything that pxtools raises by itself."""


class PxUsageError(PxError, ValueError):
    """What was typed cannot be carried out; nothing was changed."""


class CellSyntaxError(PxUsageError):
    """A cell that is no Python. No `SyntaxError`: IPython would show that with frames of its own and of pxtools."""

    shown_name = "SyntaxError"


class PxNameError(PxError, NameError):
    """A name that is neither in the notebook nor on the engines."""


class PxClusterError(PxError, RuntimeError):
    """There is no cluster, or it does not do what was asked."""


class PxEngineLost(PxClusterError):
    """An engine died, or no longer answers."""


class PxPickleError(PxError, TypeError):
    """A value that cannot travel."""


class PxRemoteError(PxError, RuntimeError):
    """Engines failed in different ways; `.failures` holds each engine's own exception."""

    def __init__(self, message: str, failures: dict[int, BaseException] | None = None) -> None:
        super().__init__(message)
        self.failures = failures or {}


class PxTimeout(PxError, TimeoutError):
    """The work did not end in the time given."""


class PxCancelled(PxError):
    """The work was cancelled through its handle."""


class PxInterrupted(ShortTraceback, KeyboardInterrupt):
    """Ctrl-C, after the engines were interrupted too: ends "run all" as any KeyboardInterrupt does."""

    shown_name = "KeyboardInterrupt"


class PxCompileError(PxError):
    """Cython or the C compiler refused a cell; nothing was changed, here or on the engines."""


class PxMissing(PxError, ImportError):
    """Something optional is not installed; the message holds the line to type."""


class PxRError(PxError):
    """R refused a cell, or a value cannot pass between Python and R."""


class PxOctaveError(PxError):
    """Octave refused a cell, or a value cannot pass between Python and Octave."""


class StaleValue(PxError, LookupError):
    """A value that stayed on its engine was changed or cleared there before it was read."""


class TargetError(PxError, ValueError):
    """A density returned something that is no density; the message names function, value and point."""


def error_name(error: object) -> str:
    """Return the class name a user would write in `except`, also for the mixed classes made here."""
    return getattr(type(error), "shown_name", type(error).__name__)


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return ` Did you mean `x`?` when a choice is close to the word, else an empty string."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f" Did you mean `{close[0]}`?" if close else ""
