"""Engines of another Python on the same controller: they compile Cython cells for themselves.

Runs only where `PXTOOLS_OTHER_PYTHON` is a Python of another minor version with ipyparallel, numpy, cython, setuptools:

    uv venv -p 3.12 build/other && uv pip install -p build/other/bin/python ipyparallel numpy cython setuptools
    PXTOOLS_OTHER_PYTHON=build/other/bin/python make test ARGS=tests/cluster/test_other_python.py
"""

from __future__ import annotations

import math
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pxtools.errors import PxMissing
from pxtools.session.core import Session
from pxtools.session.cython import BUILD, cython_on
from pxtools.session.run import Cell
from pxtools.session.run import run as run_cell
from pxtools.session.sampling import sample

OTHER = os.environ.get("PXTOOLS_OTHER_PYTHON", "")
pytestmark = pytest.mark.skipif(
    not OTHER, reason="PXTOOLS_OTHER_PYTHON names no Python of another version; the file says how to make one"
)

BELL = "from libc.math cimport exp\ndef bell(double x, double y):\n    return exp(-(x*x + y*y) / 2)\n"


def run(session: Session, code: str, targets: Any = None) -> None:
    run_cell(session, Cell(code, targets=targets))


@pytest.fixture(scope="module")
def mixed() -> Iterator[Session]:
    """One engine of this Python and two of the other."""
    session = Session({}, notify=lambda line: None)
    session.start(1)
    cluster = session.connection.cluster
    file = Path(cluster.profile_dir) / "security" / f"ipcontroller-{cluster.cluster_id}-engine.json"
    command = [OTHER, "-m", "ipyparallel.engine", f"--file={file}"]
    others = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
    try:
        deadline = time.monotonic() + 120
        while len(session.client.ids) < 3 and time.monotonic() < deadline:
            time.sleep(0.1)
        yield session
    finally:
        for process in others:
            process.terminate()
        session.disconnect()
        for process in others:
            process.wait()


@pytest.fixture
def builders(mixed: Session, monkeypatch: Any) -> list[int]:
    """Engines that were asked to compile."""
    asked: list[int] = []
    usual = mixed.wire.call

    def call(function: str, messages: Any, *rest: Any) -> Any:
        asked.extend(messages if function == BUILD else ())
        return usual(function, messages, *rest)

    monkeypatch.setattr(mixed.wire, "call", call)
    return asked


def test_they_compile_once_per_host_and_give_the_same_draws(mixed: Session, builders: list[int]) -> None:
    assert len({said["abi"] for said in mixed.wire.engines.values()}) == 2
    cython_on(mixed, BELL)
    assert len(builders) == 1
    run(mixed, "y = bell(0.0, 1.0)")
    assert list(mixed.namespace["y"]) == [math.exp(-0.5)] * 3
    bell = mixed.namespace["bell"]
    here, there = (sample(mixed, bell, density=True, draws=200, seed=1, chains=4, targets=[i]) for i in (0, 2))
    assert here.target_tier == there.target_tier == "C pointer"
    np.testing.assert_array_equal(here.draws, there.draws)


def test_without_a_compiler_there_nothing_is_bound_and_the_message_says_what_to_install(
    mixed: Session, builders: list[int]
) -> None:
    others = [i for i in mixed.wire.ids if i != 0]
    run(mixed, "import os; path = os.environ['PATH']; os.environ['PATH'] = '/nowhere'", targets=others)
    try:
        with pytest.raises(PxMissing, match=r"pip install cython setuptools[\s\S]*No name was bound"):
            cython_on(mixed, "def nowhere(double x):\n    return x\n")
    finally:
        run(mixed, "os.environ['PATH'] = path", targets=others)
    assert "nowhere" not in mixed.namespace
    assert len(builders) == 1


def test_without_a_compiler_here_the_engine_of_this_python_compiles(
    mixed: Session, builders: list[int], monkeypatch: Any
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    cython_on(mixed, "def borrowed(double x):\n    return x + 7\n")
    run(mixed, "z = borrowed(1.0)")
    assert list(mixed.namespace["z"]) == [8.0] * 3
    assert mixed.namespace["borrowed"](2.0) == 9.0
    assert builders[0] == 0
