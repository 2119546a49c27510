"""`%%pxrun` followed by another cell magic."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest

from pxtools.errors import PxRError, PxUsageError

has_r = pytest.mark.skipif(
    shutil.which("R") is None or importlib.util.find_spec("rpy2") is None, reason="R and rpy2 are not installed"
)
has_octave = pytest.mark.skipif(
    shutil.which("octave") is None or importlib.util.find_spec("oct2py") is None,
    reason="Octave and oct2py are not installed",
)


@has_r
def test_an_r_cell_goes_to_the_r_runner_with_the_options_of_both_lines(cell: Any, shell: Any) -> None:
    cell("x = 2")
    cell("%%pxrun -t 1,2 --seed 3\n%%R -i x -o y\ny <- x + runif(1)")
    assert shell.user_ns["y"].engines == (1, 2)
    assert all(2 < value < 3 for value in shell.user_ns["y"])
    with pytest.raises(PxRError, match="object 'zzz' not found"):
        cell("%%pxrun\n%%R\nzzz")


def test_a_cython_cell_is_compiled_once_and_bound_everywhere(cell: Any, shell: Any) -> None:
    pytest.importorskip("Cython", reason="Cython is not installed")
    cell("%%pxrun\n%%cython\ndef nested_twice(double x):\n    return 2 * x\n")
    assert shell.user_ns["nested_twice"](4) == 8
    assert cell("%pxrun nested_twice(5)").same() == 10


@has_octave
def test_an_octave_cell_goes_to_the_octave_runner(cell: Any, shell: Any) -> None:
    cell("%%pxrun -t 0\n%%octave -o z\nz = 3 + 4;")
    assert list(shell.user_ns["z"]) == [7.0]


def test_a_bash_cell_runs_on_each_engine(cell: Any, capsys: Any) -> None:
    cell("%%pxrun\n%%bash\necho $((6 * 7))")
    assert capsys.readouterr().out.split() == ["[0-3]", "42"]


def test_times_come_as_one_table_and_what_is_timed_is_pushed(cell: Any) -> None:
    cell("def job(n):\n    return sum(range(n))")
    cell("size = 10")
    for source in ("%%pxrun\n%%timeit -n 10 -r 2\njob(size)", "%pxrun %timeit -n 10 -r 2 job(size)"):
        table = cell(source)
        assert table.header == ("engine", "mean", "std", "best", "runs x loops")
        assert [row[0] for row in table.rows] == ["0", "1", "2", "3"]
        assert table.rows[0][-1] == "2 x 10"


def test_a_file_is_written_once_per_host(cell: Any, capsys: Any, tmp_path: Path) -> None:
    file = tmp_path / "written.txt"
    cell(f"%%pxrun\n%%writefile {file}\nhello\n")
    assert file.read_text() == "hello\n"
    assert capsys.readouterr().out.startswith("[0] Writing")


def test_captured_output_stays_on_the_engine_and_names_come_back(cell: Any, shell: Any, capsys: Any) -> None:
    cell("%%pxrun\n%%capture kept\nprint('secret')\nw = px_rank")
    assert capsys.readouterr().out == ""
    assert list(shell.user_ns["w"]) == [0, 1, 2, 3]
    assert cell("%pxrun kept.stdout").same() == "secret\n"


@pytest.mark.parametrize(("old", "new"), [("cythonmagic", "%%pxcython"), ("rmagic", "%%pxR")])
def test_the_names_of_old_extensions_get_a_hint(cell: Any, old: str, new: str) -> None:
    with pytest.raises(PxUsageError, match=new):
        cell(f"%pxrun %load_ext {old}")
    with pytest.raises(PxUsageError, match=new):
        cell(f"%%pxrun\n%reload_ext {old}\n")
