"""`%pxcluster` through a real shell; what it does to clusters is tested in `tests/cluster/test_lifecycle.py`."""

from __future__ import annotations

from typing import Any

import pytest

from pxtools.errors import PxClusterError, PxUsageError


def test_alone_it_tells_how_the_engines_stand(cell: Any) -> None:
    table = cell("%pxcluster")
    assert table.header[:3] == ("engine", "host", "pid")
    assert [row[0] for row in table.rows] == ["0", "1", "2", "3"]
    assert {row[5] for row in table.rows} == {"idle"}
    assert "<table" in table._repr_html_()


def test_a_busy_engine_is_shown_as_busy(cell: Any, shell: Any) -> None:
    cell("handle = %pxrun --noblock -t 1 __import__('time').sleep(3)")
    states = {row[0]: row[5] for row in cell("%pxcluster status").rows}
    assert states == {"0": "idle", "1": "busy", "2": "idle", "3": "idle"}
    shell.user_ns["handle"].cancel()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("%pxcluster strat", "Did you mean `start`"),
        ("%pxcluster --porfile x", "--profile"),
        ("%pxcluster resize", "%pxcluster resize -n 4"),
        ("%pxcluster resize -n 0", "%pxcluster resize -n 4"),
        ("%pxcluster start -n many", "-n"),
        ("%pxcluster start 2", r"unrecognized arguments: 2\. Did you mean `-n 2`\?"),
        ("%pxcluster start --engines mpi -O mpi_arg=x", "no option `mpi_arg`. Did you mean `mpi_args`"),
        ("%pxcluster start --engines ssh", "-O hosts=alpha=2,beta=2"),
        ("%pxcluster start --noblock --min-engines 2", "give one of them"),
    ],
)
def test_usage_mistakes_say_what_to_type(line: str, words: str, cell: Any) -> None:
    with pytest.raises(PxUsageError, match=words):
        cell(line)


def test_a_missing_file_is_named_and_the_cluster_in_use_stays(cell: Any) -> None:
    with pytest.raises(PxClusterError, match=r"nowhere\.json"):
        cell("%pxcluster connect --file nowhere.json")
    assert list(cell("%pxrun px_rank")) == [0, 1, 2, 3]


def test_nothing_is_waited_for_when_all_engines_are_here(cell: Any, capsys: Any) -> None:
    cell("%pxcluster wait")
    assert capsys.readouterr().out == "4 engines\n"
    with pytest.raises(PxClusterError, match=r"4 of 5 engines came up within 0\.1 s"):
        cell("%pxcluster wait -n 5 --timeout 0.1")
    assert list(cell("%pxrun px_rank")) == [0, 1, 2, 3]


def test_an_exception_on_one_engine_leaves_the_cluster_as_it_was(cell: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        cell("%pxrun 1 / px_rank")
    assert {row[5] for row in cell("%pxcluster").rows} == {"idle"}


def test_without_engines_it_says_how_to_get_some(
    session: Any, cell: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(session, "_wire", None)
    cell("%pxcluster")
    assert "%pxcluster start -n 4" in capsys.readouterr().out
    cell("%pxcluster stop")
    assert "no engines" in capsys.readouterr().out
