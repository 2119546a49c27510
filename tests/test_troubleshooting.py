"""The page of troubles is true: each cell that it shows ends in the message that stands below it."""

from __future__ import annotations

import contextlib
import fnmatch
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parent.parent / "docs" / "troubleshooting.md"
BLOCK = re.compile(r"^```(ipython|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: colours, and the prompt of a value, whose number is not the reader's
PROMPT = re.compile(r"\x1b\[[0-9;]*m|^Out\[\d+\]: ?\n?", re.MULTILINE)
NEEDS = {
    "%%pxcython": find_spec("Cython"),
    "%%pxR": shutil.which("R") and find_spec("rpy2"),
    "%pxoctave": shutil.which("octave") and find_spec("oct2py"),
}


def troubles() -> list[Any]:
    """The cells before each message, and the message."""
    found, cells = [], []
    for kind, text in BLOCK.findall(PAGE.read_text()):
        if kind == "ipython":
            cells.append(text)
        else:
            title = cells[-1].strip().splitlines()[-1]
            found.append(pytest.param(cells, text, id=title))
            cells = []
    assert not cells, "a cell without a message"
    return found


@pytest.fixture
def own_settings(session: Any) -> Iterator[None]:
    """Settings that the cells may change."""
    before = asdict(session.settings)
    yield
    for name, value in before.items():
        setattr(session.settings, name, value)


@pytest.mark.parametrize(("cells", "message"), troubles())
def test_the_message_is_what_the_page_says(
    cells: list[str], message: str, cell: Any, session: Any, own_settings: None, capsys: Any
) -> None:
    for start, found in NEEDS.items():
        if cells[-1].startswith(start) and not found:
            pytest.skip(f"{start} needs what is not installed here")
    capsys.readouterr()
    with contextlib.suppress(Exception):  # the shell has shown it
        for source in cells:
            cell(source)
    text = PROMPT.sub("", "\n".join([*session.notices, capsys.readouterr().out])).strip()
    pattern = re.sub(r"([\[\]?*])", r"[\1]", message.strip()).replace("…", "*")
    assert fnmatch.fnmatchcase(text, pattern), text
