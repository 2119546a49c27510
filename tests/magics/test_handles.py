"""`--timeout` and `--noblock`: every magic that waits for engines has them, and they mean the same everywhere."""

from __future__ import annotations

import importlib
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pxtools
from pxtools.errors import PxCancelled, PxTimeout
from pxtools.magics import MAGICS
from pxtools.session.handle import Handle

#: a cell that the engines would go on with for a minute
LONG = "import time; time.sleep(60)"


def parser_of(name: str) -> Any:
    module = importlib.import_module(f"pxtools.magics.{name}")
    classes = [value for value in vars(module).values() if name in getattr(value, "__dict__", {})]
    return getattr(classes[0], name).parser


@pytest.mark.parametrize("name", [name for name in MAGICS if name != "pxcluster"])
def test_every_magic_that_waits_for_engines_has_a_time_limit_and_can_go_to_the_background(name: str) -> None:
    options = {option for action in parser_of(name)._actions for option in action.option_strings}
    assert {"--timeout", "--noblock"} <= options


@pytest.fixture
def busy(session: Any, cell: Any) -> Any:
    """Engines that are at work for long; idle again at the end."""
    handle = cell(f"%pxrun --noblock {LONG}")
    yield session
    assert not handle.done  # it is not the one whose time was over
    handle.cancel()
    with pytest.raises(PxCancelled):
        handle.result(30)


@pytest.mark.parametrize(
    "line",
    [
        "%pximport --timeout 0.3 json",
        "%pxpush --timeout 0.3 a",
        "%pxcollect --timeout 0.3 1 + 1",
        "%pxscatter --timeout 0.3 b=range(8)",
        "%pxgather --timeout 0.3 b",
        "%pxwho --timeout 0.3",
        "%pxclear --timeout 0.3",
        "%pxrun --timeout 0.3 x = 1",
        "%pxmap --timeout 0.3 abs range(100)",
        "%pxdoctor --timeout 0.3",
        "%%pxexpr --timeout 0.3 twice\ny = 2*x",
    ],
)
def test_a_time_limit_ends_the_wait_for_engines_that_do_something_else(line: str, busy: Any, cell: Any) -> None:
    cell("a = 1")
    with pytest.raises(PxTimeout, match="engines 0-3: still at earlier work; this work was taken back"):
        cell(line)


@pytest.mark.parametrize("line", ["%pxpush --timeout 0.3 a", "%pxmap --timeout 0.3 with_a range(100)"])
def test_a_value_whose_sending_was_taken_back_is_sent_again(line: str, cell: Any) -> None:
    cell("a = 1\ndef with_a(x): return a + x\n%pxpush a")
    handle = cell(f"%pxrun --noblock {LONG}")
    with pytest.raises(PxTimeout):
        cell(f"a = 2\n{line}")
    handle.cancel()
    assert list(cell("%pxrun a + px_rank")) == [2, 3, 4, 5]


def test_after_a_time_limit_the_next_call_works(cell: Any) -> None:
    with pytest.raises(PxTimeout):
        cell(f"%pxrun --timeout 0.3 {LONG}")
    assert list(cell("%pxrun px_rank")) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("line", "result"),
    [
        ("%pxpush --noblock a", None),
        ("%pxcollect --noblock --how list 1 + 1", [2] * 4),
        ("%pxscatter --noblock b=range(8)", None),
        ("%pxclear --noblock", None),
        ("%pximport --noblock json", None),
        ("%pxmap --noblock abs [-1, -2]", [1, 2]),
        ("%pxmap --noblock --unordered abs [-1, -1]", [1, 1]),
    ],
)
def test_in_the_background_a_handle_comes_at_once_and_the_result_later(line: str, result: Any, cell: Any) -> None:
    cell("a = 1\n%pxrun 0")
    handle = cell(line)
    assert isinstance(handle, Handle)
    assert handle.result(timeout=60) == result
    assert handle.done
    assert handle.result() == result
    assert repr(handle).endswith(", done>")


def test_a_cell_in_the_background_binds_and_prints_when_its_result_is_asked_for(
    cell: Any, shell: Any, capsys: Any
) -> None:
    cell("handle = %pxrun --noblock print('hello'); x = px_rank")
    handle = shell.user_ns["handle"]
    while not handle.done:
        time.sleep(0.01)
    assert "x" not in shell.user_ns
    assert capsys.readouterr().out == ""
    assert list(handle.result()["x"]) == list(shell.user_ns["x"]) == [0, 1, 2, 3]
    assert capsys.readouterr().out == "[0-3] hello\n"


def test_what_was_sent_to_the_background_does_not_see_later_changes(cell: Any, shell: Any) -> None:
    shell.user_ns["a"] = a = np.zeros(1_000_000)
    handle = cell("%pxpush --noblock a")
    a[:] = 7
    handle.result(60)
    assert cell("%pxcollect --how same float(a.max())") == 0


def test_a_cancelled_handle_leaves_its_engines_idle_and_says_so(cell: Any) -> None:
    handle = cell(f"%pxrun --noblock {LONG}")
    assert not handle.done
    assert handle.progress == "0/4 engines done"
    with pytest.raises(PxTimeout, match="goes on"):
        handle.result(timeout=0.2)
    handle.cancel()
    with pytest.raises(PxCancelled, match="engines 0-3 were interrupted and are idle"):
        handle.result(30)
    assert list(cell("%pxrun px_rank")) == [0, 1, 2, 3]


def test_errors_of_work_in_the_background_are_raised_by_its_result(cell: Any) -> None:
    cell("def f(x): return 1 / x")
    with pytest.raises(ZeroDivisionError):
        cell("%pxmap --noblock f [0]").result(60)
    with pytest.raises(ZeroDivisionError):
        cell("%pxrun --noblock 1 / 0").result(60)


def test_a_map_in_the_background_tells_how_far_it_is_and_keeps_what_is_done(cell: Any, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    cell(
        "import os, time\ndef f(n):\n"
        f"    while n == 5 and not os.path.exists({str(gate)!r}): time.sleep(0.01)\n    return n * n"
    )
    handle = cell("%pxmap --noblock --chunksize 1 f range(20)")
    deadline = time.monotonic() + 60
    while len(handle.partial) < 15 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert handle.partial == {n: n * n for n in handle.partial}
    assert 5 not in handle.partial
    assert "/20 items" in handle.progress
    assert "/s" in handle.progress
    assert "left" in handle.progress
    gate.touch()
    assert handle.result(60) == [n * n for n in range(20)]


def test_background_work_and_the_notebook_share_the_engines(cell: Any) -> None:
    cell("def f(n):\n    import time\n    time.sleep(0.002)\n    return n")
    handle = cell("%pxmap --noblock f range(200)")
    for k in range(5):
        cell(f"k = {k}")
        assert list(cell("%pxrun k + px_rank")) == [k, k + 1, k + 2, k + 3]
    assert handle.result(60) == list(range(200))


def test_python_has_the_same_words(session: Any, cell: Any) -> None:
    cell("%pxrun x = px_rank")
    handle = pxtools.background(pxtools.collect, "x", how="list")
    assert handle.result(60) == [0, 1, 2, 3]
    with pytest.raises(PxTimeout), pxtools.within(0.3):
        pxtools.run("import time; time.sleep(60)")
    assert pxtools.map(abs, [-1, -2], block=False).result(60) == [1, 2]
    assert not [t for t in threading.enumerate() if t.name.startswith("pxtools:") and t.is_alive()]
