"""Take pictures of the examples saved as HTML, to be looked at: `python tools/screenshots.py [NAME...]`.

Each in both themes, in a wide window and on half of a screen, cut into pieces that can be read:
`build/screenshots/NAME-dark-800-0.png`. Needs nbconvert, playwright and Chromium.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from nbconvert import HTMLExporter
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "screenshots"
THEMES = ("light", "dark")
WIDTHS = (1280, 800)
#: pixels of one piece
HEIGHT = 1600


def take(page: Any, notebook: Path, folder: Path) -> int:
    """Leave the pictures of one notebook in `OUT`; return how many."""
    n_taken = 0
    for theme in THEMES:
        file = folder / "saved.html"
        file.write_text(HTMLExporter(theme=theme).from_filename(str(notebook))[0])
        page.goto(file.as_uri(), wait_until="domcontentloaded")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            length = page.evaluate("document.scrollingElement.scrollHeight")
            for k, top in enumerate(range(0, length, HEIGHT)):
                clip = {"x": 0, "y": top, "width": width, "height": min(HEIGHT, length - top)}
                page.screenshot(path=OUT / f"{notebook.stem}-{theme}-{width}-{k}.png", full_page=True, clip=clip)
                n_taken += 1
    return n_taken


def main(names: list[str]) -> None:
    """Take the pictures of the named examples, or of all."""
    examples = ROOT / "examples"
    notebooks = [examples / f"{name}.ipynb" for name in names] or sorted(examples.glob("*.ipynb"))
    OUT.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=options)
        page = browser.new_page()
        page.route(re.compile("^https?:"), lambda route: route.abort())  # asks nobody for anything
        for notebook in notebooks:
            print(f"{notebook.stem}: {take(page, notebook, Path(folder))} pictures in build/screenshots", flush=True)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
