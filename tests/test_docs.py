"""The documentation names what exists: links lead somewhere, and a magic's section has all its options."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from pxtools.magics import MAGICS

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
PROMPT = re.compile(r"^(?:In|Out) ?\[\d+\]: ?", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def section(name: str) -> str:
    """The text of docs/magics.md from the heading with `%name` to the next heading."""
    parts = re.split(r"^## ", (ROOT / "docs/magics.md").read_text(), flags=re.MULTILINE)
    return next(part for part in parts if re.search(rf"%{name}\b", part.splitlines()[0]))


def options(name: str) -> list[list[str]]:
    """The spellings of each option that a magic's parser knows."""
    module = importlib.import_module(f"pxtools.magics.{name}")
    classes = [value for value in vars(module).values() if name in getattr(value, "__dict__", {})]
    parser: Any = getattr(vars(classes[0])[name], "parser", None)
    return [action.option_strings for action in parser._actions if action.option_strings] if parser else []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text()):
        file = page.parent / target if target else page
        assert file.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(file), f"{page.name}: #{anchor}"


@pytest.mark.parametrize("name", MAGICS)
def test_the_section_of_a_magic_has_its_options_and_no_others(name: str) -> None:
    text = section(name)
    first_cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    documented = set(re.findall(r"(?<![\w-])--?[A-Za-z0-9+][\w-]*", " ".join(first_cells)))
    assert [spellings for spellings in options(name) if not documented & set(spellings)] == []
    sharing = [other for other in MAGICS if f"%{other}`" in text.splitlines()[0]]  # `%pxscatter`, `%pxgather`
    known = {option for other in sharing for spellings in options(other) for option in spellings}
    assert documented <= known


@pytest.mark.parametrize("package", ["pxtools", "pxtools.expr", "pxtools.kalman", "pxtools.sampling"])
def test_every_public_name_stands_on_a_page_of_the_reference(package: str) -> None:
    pages = "".join(page.read_text() for page in (ROOT / "docs/api").glob("*.md"))
    listed = set(re.findall(r"^\.\. auto\w+:: (?:[\w.]+\.)?(\w+)$", pages, re.MULTILINE))
    assert [name for name in importlib.import_module(package).__all__ if name not in listed | {"__version__"}] == []


def test_the_session_of_the_readme_prints_what_it_says(cell: Any, session: Any, capsys: Any) -> None:
    (transcript,) = re.findall(
        r"^## Start\n.*?^```\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE
    )
    for entry in re.split(r"^(?=In \[)", transcript, flags=re.MULTILINE)[1:]:
        source, *shown = PROMPT.sub("", entry).strip().splitlines()
        capsys.readouterr()
        cell(source)
        printed = PROMPT.sub("", capsys.readouterr().out).strip()
        if not source.startswith(("%load_ext", "%pximport")):  # which find engines here, and pxtools loaded
            clock = re.compile(r"in [\d.]+ m?s .*")
            assert clock.sub("", printed).split() == clock.sub("", "\n".join(shown)).split()


def test_the_readme_lists_every_magic() -> None:
    table = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| [`%")]
    assert [name for name in MAGICS if not any(re.search(rf"%{name}\b", line) for line in table)] == []
