"""Examples saved as HTML: in a browser nothing scrolls sideways or is faint in the dark, and figures have captions."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat
import pytest

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.ipynb"))
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
MISSING = [name for name in ("nbconvert", "playwright") if find_spec(name) is None]
in_a_browser = [
    pytest.mark.skipif(bool(MISSING), reason=f"needs {' and '.join(MISSING)} (pip install nbconvert playwright)"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (as root on Debian: apt-get install chromium)"),
]

#: a wide window, and half of a screen
WIDTHS = (1280, 800)
#: least contrast of text, for readers with ordinary sight (WCAG 2, level AA of large text)
CONTRAST = 3.0
#: what scrolls in a cell or below an output, the page included
SCROLLING = """() => [document.scrollingElement, ...document.querySelectorAll(
        '.jp-InputArea *, .jp-OutputArea-output, .jp-OutputArea-output *')]
    .filter(e => e.clientWidth && e.scrollWidth > e.clientWidth + 1)
    .map(e => `${e.tagName} ${e.scrollWidth} > ${e.clientWidth}: ${e.innerText?.slice(0, 80)}`)"""
#: texts of outputs whose colour is too near to that of what is behind them
FAINT = """(least) => {
    const numbers = text => (text.match(/[\\d.]+/g) || []).map(Number);
    const light = text => {
        const linear = v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        const [r, g, b] = numbers(text).map(v => linear(v / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = e => {
        for (; e; e = e.parentElement) {
            const colour = getComputedStyle(e).backgroundColor;
            if (numbers(colour).length < 4 || numbers(colour)[3] > 0.5) return colour;
        }
        return 'rgb(255, 255, 255)';
    };
    const own = e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    return [...document.querySelectorAll('.jp-OutputArea-output *')].filter(own).flatMap(e => {
        const [a, b] = [light(getComputedStyle(e).color), light(behind(e))];
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        return contrast < least ? [`${contrast.toFixed(1)}: ${e.textContent.trim().slice(0, 60)}`] : [];
    });
}"""


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    """A page of a browser that asks nobody for anything."""
    from playwright.sync_api import sync_playwright

    options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=options)
        page = browser.new_page()
        page.route(re.compile("^https?:"), lambda route: route.abort())
        try:
            yield page
        finally:
            browser.close()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
class TestInABrowser:
    pytestmark = in_a_browser

    def test_nothing_scrolls_sideways_and_nothing_is_faint(self, path: Path, page: Any, tmp_path: Path) -> None:
        from nbconvert import HTMLExporter

        html, _ = HTMLExporter(theme="dark").from_filename(str(path))
        file = tmp_path / "saved.html"
        file.write_text(html)
        page.goto(file.as_uri(), wait_until="domcontentloaded")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate(SCROLLING) == [], width
        assert page.evaluate(FAINT, CONTRAST) == []
        expected = sum("raises-exception" in c.metadata.get("tags", []) for c in nbformat.read(path, 4).cells)
        assert page.locator('[data-mime-type="application/vnd.jupyter.stderr"]').count() == expected


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_figure_has_a_caption(path: Path) -> None:
    """The number of its engine above it, or a line in italics at the top of the text below it."""
    cells = nbformat.read(path, as_version=4).cells
    for cell, below in zip(cells, [*cells[1:], None], strict=True):
        if cell.cell_type != "code":
            continue
        for k, output in enumerate(cell.outputs):
            if not {"image/png", "image/svg+xml", "image/jpeg"} & set(output.get("data", {})):
                continue
            above = str(cell.outputs[k - 1].get("text", "")) if k else ""
            is_of_an_engine = re.search(r"^\[[\d,-]+\]\s*\Z", above, re.MULTILINE)
            text = below.source if below is not None and below.cell_type == "markdown" else ""
            assert is_of_an_engine or re.match(r"\*[^*\s][^*]*\*(\n\n|\Z)", text), cell.source


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_outputs_are_small(path: Path) -> None:
    for cell in code_cells(nbformat.read(path, as_version=4)):
        for output in cell.outputs:
            assert max((len(str(data)) for data in output.get("data", {}).values()), default=0) < 250_000, cell.source
            assert len(str(output.get("text", "")).splitlines()) < 60, cell.source


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_progress_was_saved_at_its_end_and_nothing_needs_a_widget(path: Path) -> None:
    bundles = [
        output.get("data", {}) for cell in code_cells(nbformat.read(path, as_version=4)) for output in cell.outputs
    ]
    assert not any("widget" in kind for bundle in bundles for kind in bundle)
    shares = re.findall(r'<progress value="([\d.]+)"', "".join(bundle.get("text/html", "") for bundle in bundles))
    assert [share for share in shares if float(share) < 1] == []
