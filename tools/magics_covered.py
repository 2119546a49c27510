"""Count what tab completion and help cover: `python tools/magics_covered.py`. Starts no engines.

For each magic: spellings of its options, how many of them Tab offers, how many are named when they are misspelt, and
examples of the `?` page. That these examples run, and that each option is read, are tests: tests/magics/test_help.py.
"""

from __future__ import annotations

import re
from typing import Any

from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

from pxtools.errors import PxUsageError
from pxtools.magics import MAGICS
from pxtools.magics.common import read_line


def is_offered(shell: Any, typed: str, wanted: str) -> bool:
    """Return whether Tab behind `typed` offers `wanted`."""
    with provisionalcompleter():
        return wanted in {typed[: c.start] + c.text for c in shell.Completer.completions(typed, len(typed))}


def is_named(magic: Any, spelling: str) -> bool:
    """Return whether a long option with a letter too many and two in the wrong order is answered with the right one."""
    wrong = spelling[:3] + spelling[4:3:-1] + spelling[5:] + "x"
    try:
        read_line(magic, wrong)
    except PxUsageError as error:
        return f"Did you mean `{spelling}`?" in str(error)
    return False


def counts(shell: Any, name: str) -> tuple[int, int, int, int, int]:
    """Return spellings, those offered, long ones, those named when misspelt, examples of the help page."""
    tables = shell.magics_manager.magics
    kinds = {kind: tables[kind][name] for kind in ("line", "cell") if name in tables[kind]}
    magic = next(iter(kinds.values()))
    spellings = [s for action in magic.parser._actions for s in action.option_strings]
    percents = ["%" if kind == "line" else "%%" for kind in kinds]
    offered = sum(all(is_offered(shell, f"{p}{name} {s[:-1]}", f"{p}{name} {s}") for p in percents) for s in spellings)
    long = [s for s in spellings if s.startswith("--")]
    examples = len(re.findall(r"^ *>>> ", magic.__doc__, re.MULTILINE))
    return len(spellings), offered, len(long), sum(is_named(magic, s) for s in long), examples


def main() -> None:
    """Print the table, with its sums."""
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "pxtools")
    shell.run_line_magic("config", "PxTools.autostart = False")
    rows = [(name, *counts(shell, name)) for name in MAGICS]
    sums: list[Any] = [sum(column) for column in list(zip(*rows, strict=True))[1:]]
    print(f"{'':12}{'options':>9}{'Tab':>6}{'long':>7}{'named':>7}{'examples':>10}")
    for name, n, offered, long, named, examples in [*rows, ("in all", *sums)]:
        print(f"{name:12}{n:9}{offered:6}{long:7}{named:7}{examples:10}")
    family = sum(is_offered(shell, "%px", f"%{name}") or is_offered(shell, "%%px", f"%%{name}") for name in MAGICS)
    print(f"%px<Tab> and %%px<Tab> offer {family} of {len(MAGICS)} magics")


if __name__ == "__main__":
    main()
