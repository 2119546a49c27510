"""A `%%pxrun` cell that begins with another magic: sent to the language's own runner, or prepared for the engines."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from pxtools.errors import PxUsageError
from pxtools.magics.display import Table
from pxtools.results import PerEngine
from pxtools.session.core import Session

#: languages with a runner of their own: the engines' extensions race, hang or print forty lines
ROUTES = {"R": "pxR", "cython": "pxcython", "octave": "pxoctave"}
#: magics whose body is Python that runs on the engines
PYTHON_BODIES = ("timeit", "time", "capture", "prun")

_RENAMED = {"cythonmagic": "%%pxcython", "rmagic": "%%pxR", "octavemagic": "%%pxoctave"}
_OLD_EXTENSION = re.compile(r"^\s*%?(?:re)?load_ext\s+(\w+)\s*$")
_OPTIONS = re.compile(r"^((?:-[nr]\s*\d+|-[tcpqov]\S*|-p\s*\d+)\s*)*")


class Nested(NamedTuple):
    """A cell's first magic, its line and its body."""

    magic: str
    line: str
    body: str


def split(code: str) -> Nested | None:
    """Return the cell magic that a cell begins with, or the `%timeit` that is all of it."""
    first, _, body = code.partition("\n")
    name, _, line = first.strip().partition(" ")
    if name.startswith("%%"):
        return Nested(name[2:], line.strip(), body)
    if name == "%timeit" and not body.strip():
        return Nested("timeit", line.strip(), "")
    return None


def refuse_old_names(code: str) -> None:
    """Tell what to type in place of the extensions that tutorials of 2013 load.

    Raises
    ------
    PxUsageError
    """
    for line in code.splitlines():
        found = _OLD_EXTENSION.match(line)
        if found and found[1] in _RENAMED:
            raise PxUsageError(
                f"`{found[1]}` is long gone, and pxtools needs no extension for it.\n"
                f"Begin the cell with `{_RENAMED[found[1]]}`."
            )


def options_for(magic: str, args: Any) -> str:
    """Return `%%pxrun`'s options in the words of a language's magic."""
    words = {"--targets": args.targets, "--timeout": args.timeout}
    if magic != "pxcython":
        words |= {
            "--how": args.how,
            "--seed": args.seed,
            "-i": ",".join(args.input or ()),
            "-o": ",".join(args.output or ()),
        }
    text = "".join(f" {option} {value}" for option, value in words.items() if value not in (None, ""))
    return text + (" --noblock" if args.noblock and magic != "pxcython" else "")


def python_of(shell: Any, nested: Nested) -> str:
    """Return the Python that a magic like `%%timeit` runs, to find the names that it reads."""
    line = _OPTIONS.sub("", nested.line) if nested.magic == "timeit" else ""
    return "\n".join(part for part in (_if_python(line), shell.transform_cell(nested.body)) if part)


def _if_python(text: str) -> str:
    try:
        ast.parse(text)
    except SyntaxError:
        return ""
    return text


def timed(nested: Nested) -> str:
    """Return a `%%timeit` cell that gives its result instead of printing it."""
    if not nested.body.strip():
        return f"%timeit -o -q {nested.line}"
    return f"%%timeit -o -q {nested.line}\n{nested.body}"


def times_table(values: PerEngine) -> Table:
    """Return `%timeit`'s results of all engines."""
    from pxtools.languages.check import human_seconds

    rows = [
        (
            str(engine),
            human_seconds(t.average),
            human_seconds(t.stdev),
            human_seconds(t.best),
            f"{t.repeat} x {t.loops:,}",
        )
        for engine, t in zip(values.engines, values, strict=True)
    ]
    return Table(("engine", "mean", "std", "best", "runs x loops"), rows, caption="%timeit")


def one_per_host(session: Session, targets: Any) -> str:
    """Return targets with one engine for each host: a file is written once."""
    engines = session.targets(targets)
    hosts: Mapping[str, int] = {session.wire.engines[i]["host"]: i for i in reversed(engines)}
    return ",".join(map(str, sorted(hosts.values())))
