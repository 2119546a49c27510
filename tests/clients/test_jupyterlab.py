"""JupyterLab in a real browser: progress seen while it runs, pictures, the interrupt button, a restarted kernel.

The screenshots go to `build/clients/`, to be looked at.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
MISSING = [name for name in ("jupyterlab", "playwright") if find_spec(name) is None]
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"needs {' and '.join(MISSING)} (pip install jupyterlab playwright)"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (as root on Debian: apt-get install chromium)"),
]

PICTURES = Path(__file__).resolve().parents[2] / "build" / "clients"
PATIENCE_S = 180
CELLS = [
    "%load_ext pxtools",
    "%pxcluster start -n 2",
    "import psutil\nprint('children', *[p.pid for p in psutil.Process().children(recursive=True)])",
    "%pximport numpy as np, time",
    "def log_density(x, y):\n    time.sleep(1e-4)\n    return -(x * x + 4 * y * y) / 2",
    "walk = %pxsample log_density --draws 1500 --seed 1\nwalk",
    "walk.plot()",
    "%pxrun time.sleep(300)",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A JupyterLab of its own, in a directory that holds one notebook; its address and token."""
    folder = tmp_path_factory.mktemp("lab")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "walk.ipynb")
    settings = folder / "settings"
    settings.mkdir()
    quiet = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}
    (settings / "overrides.json").write_text(json.dumps(quiet))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    options = {
        "ip": "127.0.0.1",
        "port": port,
        "IdentityProvider.token": token,
        "ServerApp.root_dir": folder,
        "LabApp.app_settings_dir": settings,
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    own = {"JUPYTER_CONFIG_DIR": f"{folder}/config", "JUPYTER_RUNTIME_DIR": f"{folder}/runtime", "HOME": str(folder)}
    log = (folder / "server.log").open("w")
    process = subprocess.Popen(
        [*command, *(f"--{name}={value}" for name, value in options.items())],
        env={**os.environ, **own, "MPLBACKEND": "module://matplotlib_inline.backend_inline"},
        stdout=log,
        stderr=log,
    )
    try:
        _wait_until_it_answers(f"http://127.0.0.1:{port}/api/status?token={token}", folder / "server.log")
        yield f"http://127.0.0.1:{port}", token
    finally:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        process.terminate()
        _, alive = psutil.wait_procs(family, timeout=30)
        for one in alive:  # on a busy machine the server was once seen to wait for a kernel for ever
            one.kill()
        process.wait(timeout=PATIENCE_S)
        log.close()


def _wait_until_it_answers(address: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)


@pytest.fixture(scope="module")
def page(server: tuple[str, str]) -> Iterator[Any]:
    """The notebook's page, its kernel idle, nothing run yet."""
    from playwright.sync_api import sync_playwright

    address, token = server
    options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=options)
        page = browser.new_page(viewport={"width": 1200, "height": 1900})
        page.set_default_timeout(PATIENCE_S * 1000)
        page.goto(f"{address}/lab/tree/walk.ipynb?token={token}&reset")
        page.locator(".jp-NotebookPanel .jp-Cell").first.wait_for()
        page.get_by_text(re.compile(r"\| Idle$")).wait_for()  # run earlier, Lab would ask for a kernel
        try:
            yield page
        finally:
            keep_picture(page, "jupyterlab-last-seen")
            browser.close()


def cell(page: Any, number: int) -> Any:
    return page.locator(".jp-CodeCell").nth(number - 1)


def wait_until_done(page: Any, number: int) -> None:
    """Wait until a cell has its number; it has a star while it runs."""
    prompt = cell(page, number).locator(".jp-InputArea-prompt")
    deadline = time.monotonic() + PATIENCE_S
    while f"[{number}]" not in prompt.inner_text():
        assert time.monotonic() < deadline, page.locator(".jp-Notebook").inner_text()
        time.sleep(0.05)


def menu(page: Any, title: str, entry: str) -> None:
    page.locator(".lm-MenuBar-item", has_text=re.compile(f"^{title}$")).click()
    page.locator(".lm-Menu-item", has_text=re.compile(entry)).first.click()


def keep_picture(page: Any, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    path = PICTURES / f"{name}.png"
    page.screenshot(path=path)
    assert path.stat().st_size > 20_000


def test_progress_is_seen_while_a_cell_runs_and_its_end_stays(page: Any) -> None:
    menu(page, "Run", "Run All Cells")
    bar = cell(page, 6).locator("progress")
    bar.wait_for()
    share = float(bar.get_attribute("value"))
    keep_picture(page, "jupyterlab-sampling")
    assert 0 <= share < 1
    wait_until_done(page, 6)
    assert float(bar.get_attribute("value")) == 1.0
    assert "chains" in cell(page, 6).inner_text()


def test_the_picture_is_drawn(page: Any) -> None:
    wait_until_done(page, 7)
    picture = cell(page, 7).locator("img")
    picture.wait_for()
    assert picture.bounding_box()["width"] > 200


def test_the_interrupt_button_stops_the_engines(page: Any) -> None:
    cell(page, 8).locator("progress").wait_for()
    page.locator('[data-command="notebook:interrupt-kernel"], button[title^="Interrupt the kernel"]').first.click()
    wait_until_done(page, 8)
    shown = cell(page, 8).locator(".jp-OutputArea").inner_text()
    assert "KeyboardInterrupt" in shown
    assert len(shown.splitlines()) < 8, shown
    assert "0/2 engines done · interrupted after" in shown
    keep_picture(page, "jupyterlab-final")


def test_restarting_the_kernel_leaves_no_engine(page: Any) -> None:
    found = re.search(r"children ([\d ]+)", cell(page, 3).locator(".jp-OutputArea").inner_text())
    assert found is not None
    processes = [psutil.Process(int(pid)) for pid in found[1].split()]
    assert len(processes) >= 4  # a controller, two engines, the reaper
    menu(page, "Kernel", "Restart Kernel…")
    page.locator(".jp-Dialog button.jp-mod-accept").click()
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive
