"""IPython in a terminal, typed at through tmux: what a person sees, presses and waits for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.skipif(
    shutil.which("tmux") is None, reason="needs tmux (as root on Debian: apt-get install tmux)"
)

#: what stood on it at the end, to be looked at
SCREEN = Path(__file__).resolve().parents[2] / "build" / "clients" / "terminal.txt"
#: a terminal that shows nothing new for so long hangs
PATIENCE_S = 180
IPYTHON = (
    "-m IPython --no-banner --no-confirm-exit --colors=nocolor --TerminalInteractiveShell.term_title=False "
    "--TerminalInteractiveShell.autosuggestions_provider=None --TerminalInteractiveShell.auto_match=False"
)


class Terminal:
    """A terminal of 120 columns with IPython in it, in a directory and profile of its own."""

    def __init__(self, folder: Path) -> None:
        self.last_seen = ""
        self._tmux = ["tmux", "-L", f"pxtools-{os.getpid()}", "-f", os.devnull]
        start = [*self._tmux, "new-session", "-d", "-x", "120", "-y", "50", "-c", str(folder)]
        environment = {**os.environ, "IPYTHONDIR": str(folder / "ipython"), "TERM": "xterm"}
        subprocess.run([*start, f"exec {sys.executable} {IPYTHON}"], check=True, env=environment)

    def screen(self) -> str:
        """Return what has been written, from the beginning."""
        done = subprocess.run(
            [*self._tmux, "capture-pane", "-p", "-J", "-S", "-"], capture_output=True, text=True, check=False
        )
        return done.stdout.rstrip()

    def press(self, *keys: str) -> None:
        """Press keys by tmux's names."""
        subprocess.run([*self._tmux, "send-keys", *keys], check=True)

    def type(self, text: str) -> None:
        """Type text as it is."""
        subprocess.run([*self._tmux, "send-keys", "-l", text], check=True)

    def wait_for(self, pattern: str) -> str:
        """Return the screen as soon as the pattern is on it."""
        deadline = time.monotonic() + PATIENCE_S
        while not re.search(pattern, screen := self.screen(), re.MULTILINE):
            assert time.monotonic() < deadline, f"waited for {pattern} in\n{screen}"
            time.sleep(0.1)
        self.last_seen = screen
        return screen

    def run(self, source: str) -> str:
        """Type a line or a cell, run it, return what is on the screen from there on, once the next prompt is there."""
        number = self.begin(source)
        self.wait_for(rf"^In \[{number + 1}\]:")
        return self.since(number)

    def begin(self, source: str) -> int:
        """Type a line or a cell and run it; return its number."""
        number = int(re.findall(r"^In \[(\d+)\]:", self.wait_for(r"^In \[\d+\]:\s*\Z"), re.MULTILINE)[-1])
        self.type(source)
        self.press(*(["Escape", "Enter"] if "\n" in source else ["Enter"]))
        return number

    def since(self, number: int) -> str:
        """Return the screen from a prompt on."""
        screen = self.screen()
        return screen[screen.index(f"In [{number}]:") :]

    def close(self) -> None:
        """End the terminal, and IPython with it."""
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True)


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """A terminal with pxtools loaded and two engines."""
    terminal = Terminal(tmp_path_factory.mktemp("terminal"))
    try:
        terminal.run("%load_ext pxtools")
        assert "2 engines" in terminal.run("%pxcluster start -n 2")
        yield terminal
    finally:
        SCREEN.parent.mkdir(parents=True, exist_ok=True)
        SCREEN.write_text(terminal.last_seen + "\n")
        terminal.close()


def test_line_magics_show_their_values(terminal: Terminal) -> None:
    shown = terminal.run("%pxrun px_rank * 10")
    assert re.search(r"^\[0\] 0$", shown, re.MULTILINE)
    assert re.search(r"^\[1\] 10$", shown, re.MULTILINE)
    assert "[0, 1, 4]" in terminal.run("%pxmap (lambda x: x * x) range(3)")


def test_cell_magics_are_typed_over_several_lines(terminal: Terminal) -> None:
    shown = terminal.run("%%pxrun\nk = px_rank + 1\nprint('rank', px_rank)")
    assert re.search(r"^\[0\] rank 0$\s^\[1\] rank 1$", shown, re.MULTILINE), shown
    assert re.search(r"0: 1\s+1: 2", terminal.run("k"))


def test_progress_is_one_line_that_goes_when_the_work_is_done(terminal: Terminal) -> None:
    number = terminal.begin("%pxmap --chunksize 1 (lambda x: __import__('time').sleep(.1)) range(60)")
    seen = terminal.wait_for(r"^.*\d+ ?/ ?60.*$")
    assert len(re.findall(r"\d+ ?/ ?60", seen)) == 1, seen
    terminal.wait_for(rf"^In \[{number + 1}\]:")
    assert not re.search(r"\d+ ?/ ?60", terminal.since(number))


def test_ctrl_c_stops_the_engines_and_the_next_line_works(terminal: Terminal) -> None:
    number = terminal.begin("%pxrun import time; time.sleep(300)")
    terminal.wait_for(r"engines at work|0/2")
    terminal.press("C-c")
    terminal.wait_for(rf"^In \[{number + 1}\]:")
    shown = terminal.since(number)
    assert "KeyboardInterrupt" in shown
    assert len(shown.splitlines()) < 12, shown
    assert terminal.run("%pxrun 1 + 1").splitlines()[1] == f"Out[{number + 1}]: [0-1] 2"


def test_an_error_is_four_lines_at_most(terminal: Terminal) -> None:
    shown = terminal.run("%pxrun 1 / 0")
    lines = [line for line in shown.splitlines()[1:] if line.strip() and not line.startswith("In [")]
    assert "ZeroDivisionError" in shown
    assert 1 <= len(lines) <= 4, shown


def test_the_tab_key_completes_options_choices_functions_and_names_on_the_engines(terminal: Terminal) -> None:
    terminal.run("def density_of_mine(x): return -x * x")
    terminal.run("%%pxrun\ndef made_over_there(): pass")
    for typed, made in [
        ("%pxrun --time", "%pxrun --timeout"),
        ("%pxcollect --how con", "%pxcollect --how concat"),
        ("%pxsample density_of", "%pxsample density_of_mine"),
        ("%pxcollect made_over", "%pxcollect made_over_there"),
    ]:
        terminal.wait_for(r"^In \[\d+\]:\s*\Z")
        terminal.type(typed)
        terminal.press("Tab")
        terminal.wait_for(re.escape(made) + r"\s*\Z")
        terminal.press("C-c")


def test_the_family_is_listed_by_the_tab_key(terminal: Terminal) -> None:
    terminal.wait_for(r"^In \[\d+\]:\s*\Z")
    terminal.type("%px")
    terminal.press("Tab")
    terminal.wait_for(r"%pxcluster(.|\n)*%pxsample")
    terminal.press("C-c", "C-c")


def test_engines_end_with_the_terminal(terminal: Terminal) -> None:
    terminal.run("import psutil")
    shown = terminal.run("print('children', *[p.pid for p in psutil.Process().children(recursive=True)])")
    found = re.search(r"^children ([\d ]+)$", shown, re.MULTILINE)
    assert found is not None
    processes = [psutil.Process(int(pid)) for pid in found[1].split()]
    assert len(processes) >= 4  # a controller, two engines, the reaper
    terminal.begin("exit")
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive
