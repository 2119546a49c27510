"""What R and Octave hold reaches engines that are new: after a resize, and in place of engines that are replaced."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

N = 4


def kill(session: Any, shell: Any, cell: Any, folders: str) -> None:
    """Kill the last engine; wait until it, and the folders that an expression gives there, are gone."""
    last = session.wire.ids[-1]
    cell(f"%pxrun -t {last} left = [str(folder) for folder in {folders}]")
    left = shell.user_ns["left"][0]
    assert all(map(os.path.isdir, left))
    os.kill(session.wire.engines[last]["pid"], signal.SIGKILL)
    deadline = time.monotonic() + 10
    while (last in session.wire.alive or any(map(os.path.exists, left))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [folder for folder in left if os.path.exists(folder)] == []


@pytest.fixture
def four(session: Any) -> Iterator[Any]:
    """The session; afterwards it has the same four engines as before."""
    assert session.wire.ids == list(range(N))
    yield session
    session.resize(N)
    assert session.wire.ids == list(range(N))


@pytest.mark.skipif(
    shutil.which("R") is None or importlib.util.find_spec("rpy2") is None, reason="R and rpy2 are not installed"
)
def test_functions_values_and_packages_of_r_reach_new_engines(cell: Any, shell: Any, four: Any) -> None:
    cell("%pxrun part = px_rank")
    cell(
        "%%pxR -i part\nlibrary(tools)\nmu <- 3\nbig <- numeric(3e5)\n"
        "shift <- function(x) {\n  x - mu  # from the cell\n}\n"
    )
    for bring_new in (lambda: four.resize(N + 1), lambda: four.restart([four.wire.ids[-1]])):
        four.notices.clear()
        bring_new()
        new = four.wire.ids[-1]
        assert new >= N
        asked = "shift(10), 'package:tools' %in% search(), exists('part'), exists('big')"
        cell(f"%%pxR --targets {new} -o y\ny <- c({asked})")
        assert list(shell.user_ns["y"][0]) == [7.0, 1.0, 0.0, 0.0]
        (told,) = [line for line in four.notices if line.startswith("R on new engines lacks part, big")]
        assert "larger than 1 MB, or not the same on all engines" in told
    cell(f"%%pxR --targets {four.wire.ids[-1]} -o rs_own\nrs_own <- tempdir()")
    kill(four, shell, cell, "(get_ipython().pxtools_r.folder, rs_own)")


@pytest.mark.skipif(
    shutil.which("octave") is None or importlib.util.find_spec("oct2py") is None,
    reason="Octave and oct2py are not installed",
)
def test_functions_and_values_of_octave_reach_new_engines(cell: Any, shell: Any, four: Any) -> None:
    cell("%pxrun part = px_rank")
    cell(
        "%%pxoctave -i part\nmu = 3; names = {'a', 2};\nfunction y = shift_it(x)\n  y = x - 1;\nend\n"
        "add = @(x) shift_it(x) + mu;\n"
    )
    four.resize(N + 1)
    cell(
        f"%%pxoctave --targets {four.wire.ids[-1]} -o y\ny = [shift_it(10), mu, add(10), numel(names), exist('part')];"
    )
    assert list(shell.user_ns["y"][0].ravel()) == [9.0, 3.0, 12.0, 2.0, 0.0]
    assert any(line.startswith("Octave on new engines lacks part") for line in four.notices)
    held = "get_ipython().pxtools_octave"
    kill(four, shell, cell, f"({held}.folder, {held}.session._settings.temp_dir, {held}.session._engine.tmp_dir)")
