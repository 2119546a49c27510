"""Help pages and completion, for every magic and every option: what is shown, what is offered, and that it runs."""

from __future__ import annotations

import re
import shutil
from importlib.util import find_spec
from typing import Any

import pytest
from IPython.core.completer import provisionalcompleter

from pxtools.errors import PxUsageError
from pxtools.magics import MAGICS
from pxtools.magics.common import read_line

#: magics that pass arrays; the others pass names or nothing
WITHOUT_SHAPES = {"pxcluster", "pximport", "pxpush", "pxclear", "pxdoctor"}
SHAPE = re.compile(r"\((?:\d+, )?n(?:_\w+)?[,)]|of length px_size|list of n_items|float64\[\d+, \d+\]")
#: these would take the shared cluster away, and need hosts and queues: tests/cluster and tests/hosts do all that
READ_ONLY = re.compile(r"%pxcluster (start|resize|restart)")
#: a value that each converter takes
VALUES = {int: "3", float: "1.5", None: "a"}


def function(shell: Any, magic: str) -> Any:
    tables = shell.magics_manager.magics
    return tables["line"].get(magic) or tables["cell"][magic]


def options(shell: Any, magic: str) -> list[Any]:
    return [a for a in function(shell, magic).parser._actions if a.option_strings]


def page(shell: Any, magic: str) -> str:
    return str(function(shell, magic).__doc__)


def examples(shell: Any, magic: str) -> list[str]:
    """The cells of a help page: lines after `>>>`, each with the `...` lines below it."""
    found = re.findall(r"^ *>>> (.*(?:\n *\.\.\.(?: .*)?$)*)", page(shell, magic), re.MULTILINE)
    return [re.sub(r"\n *\.\.\. ?", "\n", cell) for cell in found]


def needed(magic: str) -> str:
    """Why the examples of a magic cannot run on this machine; empty if they can."""
    lacking = {
        "pxcython": not find_spec("Cython"),
        "pxR": not (shutil.which("R") and find_spec("rpy2")),
        "pxoctave": not (shutil.which("octave") and find_spec("oct2py")),
    }
    return f"needs what {magic} needs" if lacking.get(magic) else ""


@pytest.mark.parametrize("magic", MAGICS)
def test_the_examples_of_every_help_page_run(magic: str, shell: Any, cell: Any) -> None:
    if needed(magic):
        pytest.skip(needed(magic))
    cells = examples(shell, magic)
    assert any(f"%{magic}" in source for source in cells)
    cell("import pxtools\n%pximport numpy as np")
    for source in cells:
        if READ_ONLY.match(source):
            read_line(function(shell, magic), source.partition(" ")[2])
        else:
            cell(source)


@pytest.mark.parametrize("magic", MAGICS)
def test_every_help_page_has_options_with_defaults_and_shapes_where_there_are_arrays(magic: str, shell: Any) -> None:
    text = page(shell, magic)
    for action in options(shell, magic):
        assert all(spelling in text for spelling in action.option_strings)
        assert action.help, action.option_strings
        takes_value = action.nargs != 0
        assert not takes_value or "default" in action.help, action.option_strings
        if takes_value and action.default not in (None, []):
            shown = f"{action.default:g}" if isinstance(action.default, float) else str(action.default)
            assert shown in action.help, (action.option_strings, action.default)
    told = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith((">>>", "...")))
    assert magic in WITHOUT_SHAPES or SHAPE.search(told), text


@pytest.mark.parametrize("magic", MAGICS)
def test_every_option_is_offered_by_the_tab_key_and_named_when_mistyped(magic: str, shell: Any, cell: Any) -> None:
    tables = shell.magics_manager.magics
    for kind, percent in (("line", "%"), ("cell", "%%")):
        if magic not in tables[kind]:
            continue
        for action in options(shell, magic):
            for spelling in action.option_strings:
                typed = f"{percent}{magic} {spelling[:-1]}"
                with provisionalcompleter():
                    offered = {typed[: c.start] + c.text for c in shell.Completer.completions(typed, len(typed))}
                assert f"{percent}{magic} {spelling}" in offered, (typed, offered)
    for spelling in (s for action in options(shell, magic) for s in action.option_strings if s.startswith("--")):
        wrong = spelling[:3] + spelling[4:3:-1] + spelling[5:] + "x"  # a letter too many, two in the wrong order
        with pytest.raises(PxUsageError) as caught:
            read_line(function(shell, magic), wrong)
        message = str(caught.value)
        assert message.startswith(f"%{magic} has no option `{wrong}`. Did you mean `{spelling}`?"), message


@pytest.mark.parametrize("magic", MAGICS)
def test_every_option_is_read(magic: str, shell: Any) -> None:
    """Each spelling of each option, with a value of its kind, changes what the magic is told, and nothing else."""
    magic_function = function(shell, magic)
    operands = ["name"] if any(a.nargs is None and not a.option_strings for a in magic_function.parser._actions) else []
    usual = vars(read_line(magic_function, " ".join(operands)))
    for action in options(shell, magic):
        for spelling in action.option_strings:
            value = [] if action.nargs == 0 else [str(action.choices[-1]) if action.choices else VALUES[action.type]]
            told = vars(read_line(magic_function, " ".join([spelling, *value, *operands])))
            changed = {key for key in usual if told[key] != usual[key]} - {"magic"}
            assert changed == {action.dest}, (spelling, changed)
