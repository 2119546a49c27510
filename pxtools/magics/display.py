"""How things look: engines' output in engine order, equal output once, progress that survives saving."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from IPython.display import DisplayHandle, publish_display_data

from pxtools.engines import Reply
from pxtools.errors import PxTimeout
from pxtools.results import PerEngine

#: seconds that work lasts before progress is shown, and between two updates
_DELAY_S, _EVERY_S = 1.0, 0.2
#: letters up to which a cell of a table is not broken into lines
_SHORT = 12


def label(engines: Sequence[int]) -> str:
    """Return ``[0]`` or ``[0-2,5]``."""
    from pxtools.engines.wire import name_engines

    return "[" + name_engines(engines).partition(" ")[2].replace(" ", "") + "]"


def grouped(values: Mapping[int, Any]) -> list[tuple[list[int], Any]]:
    """Return (engines, value) for each distinct value, in the order of their first engine."""
    groups: list[tuple[list[int], Any]] = []
    for engine, value in sorted(values.items()):
        for engines, other in groups:
            if other == value:
                engines.append(engine)
                break
        else:
            groups.append(([engine], value))
    return groups


def show_replies(replies: Mapping[int, Reply]) -> None:
    """Print and display what engines printed and displayed."""
    for engines, text in grouped({i: r.stdout for i, r in replies.items() if r.stdout}):
        _print(engines, text, sys.stdout)
    for engines, text in grouped({i: r.stderr for i, r in replies.items() if r.stderr}):
        _print(engines, text, sys.stderr)
    depth = max((len(r.outputs) for r in replies.values()), default=0)
    for k in range(depth):
        nth = {i: r.outputs[k] for i, r in replies.items() if len(r.outputs) > k}
        for engines, output in grouped({i: (o.get("data"), o.get("metadata")) for i, o in nth.items()}):
            show_bundle(engines, output)


def _print(engines: list[int], text: str, file: Any) -> None:
    body = text.rstrip("\n")
    separator = "\n" if "\n" in body else " "
    print(f"{label(engines)}{separator}{body}", file=file)


def show_bundle(engines: list[int], bundle: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Display one MIME bundle under its engines; plain text on one line with them."""
    data, metadata = bundle
    if not data:
        return
    if set(data) == {"text/plain"}:
        _print(engines, data["text/plain"], sys.stdout)
        return
    print(label(engines))
    publish_display_data(data=data, metadata={**(metadata or {}), "engine": engines[0]})


class LastValues(PerEngine):
    """The values of a cell's last expression: shown once per distinct value, as the engines format them."""

    __slots__ = ("_shown",)
    _shown: dict[int, Any]

    @classmethod
    def of(cls, held: PerEngine, shown: Mapping[int, Any]) -> LastValues:
        """Return the values with the bundles that the engines made of them."""
        made = cls(held.name, held.engines, [held.slot(engine) for engine in held.engines])
        object.__setattr__(made, "_shown", dict(shown))
        return made

    def _ipython_display_(self) -> None:
        groups = grouped(self._shown)
        if len(groups) > 1 and sys.stdout.isatty():
            print()  # a terminal has written `Out[3]: ` already
        for engines, bundle in groups:
            show_bundle(engines, bundle)


class Table:
    """Rows under a header, for a terminal and for a notebook; without rows, the caption alone."""

    def __init__(self, header: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> None:
        self.header = tuple(header)
        self.rows = [tuple(map(str, row)) for row in rows]
        self.caption = caption

    def __repr__(self) -> str:
        widths = [max(len(row[k]) for row in [self.header, *self.rows]) for k in range(len(self.header))]
        if not self.rows and self.caption:
            return self.caption
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in [self.header, *self.rows]
        ]
        return "\n".join([*lines, *([self.caption] if self.caption else [])])

    def _repr_html_(self) -> str:
        def cells(row: Sequence[str], tag: str) -> str:
            short = ("", ";white-space:nowrap")  # a size such as `158 B` in one line
            return "".join(
                f'<{tag} style="text-align:left{short[len(cell) < _SHORT]}">{html.escape(cell)}</{tag}>' for cell in row
            )

        if not self.rows and self.caption:
            return html.escape(self.caption)

        body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in self.rows)
        caption = f"<caption>{html.escape(self.caption)}</caption>" if self.caption else ""
        return f"<table>{caption}<thead><tr>{cells(self.header, 'th')}</tr></thead><tbody>{body}</tbody></table>"


def _ended_by(error: BaseException | None) -> str:
    """Return what stands before the seconds that work took until this exception, or until its end."""
    if error is None:
        return ""
    if isinstance(error, PxTimeout):
        return "out of time after "
    return "interrupted after " if isinstance(error, KeyboardInterrupt) else "stopped after "


class Progress:
    """Progress of long work: a bundle updated in place in a notebook, one line in a terminal, else nothing."""

    def __init__(self, shell: Any, title: str) -> None:
        self.title = title
        self._handled = sys.exception()  # a cell may run in somebody's `except`; that is not what ends this work
        self._is_kernel = type(shell).__name__ == "ZMQInteractiveShell"
        self._is_terminal = not self._is_kernel and sys.stderr.isatty()
        self._began = time.monotonic()
        self._last = 0.0
        self._handle: Any = None
        self._width = 0
        self._text = ""
        self._fraction: float | None = None

    def update(self, text: str, fraction: float | None = None) -> None:
        """Show how far it is, at most five times a second, and not in the first second."""
        self._text, self._fraction = text, fraction
        now = time.monotonic()
        if now - self._began >= _DELAY_S and now - self._last >= _EVERY_S:
            self._last = now
            self._show()

    def close(self, text: str | None = None, fraction: float | None = None) -> None:
        """Leave the final state, `text` if given, in a notebook; take the line back in a terminal.

        Called in a `finally`: the exception that passes there says whether the work came to its end.
        """
        if text is not None:
            self._text, self._fraction = text, fraction
        if self._handle is not None:
            error = sys.exception()
            how = _ended_by(None if error is self._handled else error)
            self._text = f"{self._text} · {how}{time.monotonic() - self._began:.1f} s"
            self._show()
        elif self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()

    def _show(self) -> None:
        if self._is_kernel:
            if self._handle is not None:
                self._handle.update(self)
                return
            self._handle = DisplayHandle()  # before it is seen: an interrupt at that moment has to be told, too
            self._handle.display(self)
        elif self._is_terminal:
            line = repr(self)[:100]
            sys.stderr.write("\r" + line.ljust(self._width))
            sys.stderr.flush()
            self._width = len(line)

    def __repr__(self) -> str:
        return f"{self.title}: {self._text}"

    def _repr_html_(self) -> str:
        bar = ""
        if self._fraction is not None:
            bar = f'<progress value="{self._fraction:.4f}" max="1" style="width:14em"></progress> '
        return f"<div>{bar}{html.escape(repr(self))}</div>"
