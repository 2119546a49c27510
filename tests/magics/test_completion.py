"""Tab completion in the lines of the magics, through IPython's own completer and through a kernel."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from IPython.core.completer import provisionalcompleter

from pxtools.magics import MAGICS

Complete = Callable[[str], list[str]]


@pytest.fixture
def complete(shell: Any) -> Complete:
    """Return the words that the Tab key would make of the last one of a text."""

    def complete(text: str) -> list[str]:
        with provisionalcompleter():
            lines = [text[: c.start] + c.text for c in shell.Completer.completions(text, len(text))]
        return sorted({re.split(r"[\s,=(]", line)[-1] for line in lines})

    return complete


def test_the_family_is_offered(complete: Complete) -> None:
    offered = {word.lstrip("%") for word in complete("%px")}
    assert set(MAGICS) - {"pxcython", "pxexpr"} <= offered  # those two are cell magics only
    assert set(MAGICS) - offered <= {word.lstrip("%") for word in complete("%%px")}


def options(shell: Any, magic: str) -> set[str]:
    tables = shell.magics_manager.magics
    parser = getattr(tables["line"].get(magic) or tables["cell"][magic], "parser", None)
    return {o for action in getattr(parser, "_actions", ()) for o in action.option_strings if o.startswith("--")}


@pytest.mark.parametrize("magic", MAGICS)
def test_every_option_of_every_magic_is_offered(magic: str, shell: Any, complete: Complete) -> None:
    tables = shell.magics_manager.magics
    for kind, percent in (("line", "%"), ("cell", "%%")):
        if magic in tables[kind]:
            offered = complete(f"{percent}{magic} --")
            assert options(shell, magic) <= set(offered), (magic, offered)


@pytest.mark.parametrize(
    ("text", "offered"),
    [
        ("%pxcollect --how st", ["stack"]),
        ("%pxcollect --how=con", ["concat"]),
        ("y = %pxcollect --how fi", ["first"]),
        ("%pxsample --sampler r", ["ram", "rwm"]),
        ("%pxkalman --fit ", ["em", "ml"]),
        ("%pxkalman --form sq", ["sqrt"]),
        ("%%pxexpr f --form seq", ["sequential"]),
        ("%%pxR --units c", ["cm"]),
        ("%pxcluster res", ["resize", "restart"]),
        ("%pxcluster start --engines slu", ["slurm"]),
        ("%pximport tomll", ["tomllib"]),
        ("%pximport json, tomll", ["tomllib"]),
    ],
)
def test_choices_are_offered(text: str, offered: list[str], complete: Complete) -> None:
    assert complete(text) == offered


def test_names_of_the_notebook_are_offered_where_they_are_read(cell: Any, complete: Complete) -> None:
    cell("walk_data = [1, 2]\ndef walk_far(x): return x\nclass walk_class: pass")
    assert complete("%pxpush walk_") == ["walk_class", "walk_data", "walk_far"]
    assert complete("%%pxrun -i walk_d") == ["walk_data"]
    assert complete("%%pxR -i b,walk_d") == ["walk_data"]
    assert complete("%%pxR -i there=walk_d") == ["walk_data"]
    assert complete("%pxmap walk_") == ["walk_far"]
    assert complete("%pxsample --draws 100 walk_") == ["walk_far"]
    assert complete("%pxmap walk_far walk_d") == ["walk_data"]
    assert complete("%pxmap walk_far sorted(walk_d") == ["walk_data"]
    assert "walk_data" not in complete("%pxsample --draws ")


def test_names_on_the_engines_are_offered_where_they_are_read_there(cell: Any, complete: Complete) -> None:
    cell("%%pxrun\ndef only_there(): pass\nthere_too = 1")
    cell("del there_too")
    assert complete("%pxcollect only_") == ["only_there"]
    assert complete("%pxcollect -o x there_") == ["there_too"]
    assert complete("%pxclear only_") == ["only_there"]
    assert complete("%%pxrun -o there_") == ["there_too"]


def test_engines_and_views_are_offered_as_targets(session: Any, cell: Any, complete: Complete) -> None:
    cell("import pxtools\neven = pxtools.client()[::2]")
    assert complete("%%pxrun -t ") == ["0", "1", "2", "3", "all", "even"]
    assert complete("%pxcollect --targets ev") == ["even"]


@pytest.mark.parametrize("text", ["pxcollect = 3\npx", "'%pxrun --' --", "x = 5 %pxs --"])
def test_other_lines_are_left_to_ipython(text: str, complete: Complete) -> None:
    assert "--targets" not in complete(text)


def test_the_body_of_a_cell_is_left_to_ipython(cell: Any, complete: Complete) -> None:
    cell("body_data = 1")
    assert "--seed" not in complete("%%pxrun --seed 3\n--se")
    assert "body_data" in complete("%%pxrun --seed 3\nbody_d")


def test_attributes_are_ipythons(cell: Any, complete: Complete) -> None:
    cell("import numpy as np")
    assert any(word.endswith("linalg") for word in complete("%pxrun np.lin"))
