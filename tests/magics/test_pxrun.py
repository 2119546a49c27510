"""`%%pxrun` through a real shell on a real cluster."""

from __future__ import annotations

from typing import Any

import pytest

from pxtools.errors import CellSyntaxError, PxClusterError, PxError, PxTimeout, PxUsageError

N_ENGINES = 4


def test_names_are_pushed_and_come_back_per_engine(cell: Any, shell: Any) -> None:
    cell("base = 10")
    cell("%pxrun x = base + px_rank")
    assert list(shell.user_ns["x"]) == [10, 11, 12, 13]


def test_running_twice_counts_to_two_on_each_engine(cell: Any, shell: Any) -> None:
    cell("x = 0")
    cell("%pxrun x = x + 1")
    cell("%pxrun x = x + 1")
    assert list(shell.user_ns["x"]) == [2, 2, 2, 2]


def test_one_message_goes_to_each_engine(cell: Any, session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cell("import numpy as np\nx = np.ones(5)\ndef f(): return x.sum()")
    messages = []
    usual = session.wire._apply
    monkeypatch.setattr(session.wire, "_apply", lambda engine, *rest: messages.append(engine) or usual(engine, *rest))
    cell("%pxrun y = f()")
    assert sorted(messages) == [0, 1, 2, 3]


# --- options


def test_an_unknown_option_is_a_usage_error_that_names_the_nearest(cell: Any) -> None:
    with pytest.raises(PxUsageError, match="--target"):
        cell("%pxrun --tragets 0 x = 1")


def test_options_of_a_cell_stand_alone_on_its_first_line(cell: Any) -> None:
    with pytest.raises(PxUsageError, match="the code goes below"):
        cell("%%pxrun x = 1\ny = 2")


def test_nothing_to_run_is_a_usage_error(cell: Any) -> None:
    with pytest.raises(PxUsageError, match="nothing to run"):
        cell("%pxrun")


@pytest.mark.parametrize(
    ("targets", "engines"),
    [
        ("0", (0,)),
        ("0,2", (0, 2)),
        ("::2", (0, 2)),
        ("-1", (3,)),
        ("1:", (1, 2, 3)),
        ("all", (0, 1, 2, 3)),
        ("even", (0, 2)),
    ],
)
def test_targets_are_numbers_slices_and_views(targets: str, engines: tuple[int, ...], cell: Any, shell: Any) -> None:
    cell("import pxtools\neven = pxtools.client()[::2]")
    cell(f"%pxrun -t {targets} x = 1")
    assert shell.user_ns["x"].engines == engines


@pytest.mark.parametrize(
    "targets", ["9", "x", "::0", "--1", "1+1", "__import__('os')", "9:", "1:2:3:4", "notaview", ":,"]
)
def test_targets_that_are_none_are_usage_errors_and_never_evaluated(targets: str, cell: Any) -> None:
    cell("notaview = 5")
    with pytest.raises(PxUsageError):
        cell(f"%pxrun -t {targets} x = 1")


def test_inputs_may_be_renamed_and_auto_may_be_off(cell: Any, shell: Any) -> None:
    cell("a = 5\nb = 6")
    assert list(cell("%pxrun -i r=a r")) == [5] * N_ENGINES
    with pytest.raises(NameError):
        cell("%pxrun --no-auto b")
    cell("%pxrun --no-auto -i b -o c c = b; d = 1")
    assert list(shell.user_ns["c"]) == [6] * N_ENGINES
    assert "d" not in shell.user_ns


@pytest.mark.parametrize("option", ["-i 1x", "-i a=b=c", "-o a.b", "-i nowhere"])
def test_inputs_and_outputs_that_are_no_names_send_nothing(option: str, cell: Any, session: Any) -> None:
    before = session.ledger.bytes_sent
    with pytest.raises(PxError):
        cell(f"%pxrun {option} x = 1")
    assert session.ledger.bytes_sent == before


def test_local_runs_here_too_and_collects_only_what_was_asked_for(cell: Any, shell: Any) -> None:
    cell("a = 1")
    cell("%%pxrun --local -o b\na = a + 1\nb = px_rank")
    assert shell.user_ns["a"] == 2
    assert list(shell.user_ns["b"]) == [0, 1, 2, 3]
    assert shell.user_ns["px_rank"] == -1


def test_a_local_failure_is_an_error_here(cell: Any, capsys: Any) -> None:
    with pytest.raises(PxError, match="failed here"):
        cell("%pxrun --local 1 / (px_rank + 1 if px_rank < 0 else 1)")


def test_noblock_returns_a_handle(cell: Any, shell: Any) -> None:
    cell("import time")
    cell("handle = %pxrun --noblock time.sleep(0.2); x = px_rank")
    assert "x" not in shell.user_ns
    assert list(cell("handle.result()")["x"]) == [0, 1, 2, 3]
    assert cell("handle.done")
    assert list(shell.user_ns["x"]) == [0, 1, 2, 3]


def test_a_timeout_interrupts_the_engines(cell: Any) -> None:
    with pytest.raises(PxTimeout, match="--timeout"):
        cell("%pxrun --timeout 0.3 import time; time.sleep(60)")
    assert list(cell("%pxrun 1")) == [1] * N_ENGINES


# --- what is read


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("x = x + 1", 2),
        ("x += 1", 2),
        ("if px_rank < 0: x = 9", 1),
        ("(y := x); x = y + 1", 2),
        ("x = [x for x in [5]][0]", 5),
        ("x = [x + z for z in [5]][0]", 6),
        ("for x in [3]: pass", None),
        ("def f(): return x\nx = f() + 1", 2),
        ("x = eval(f'{x} + 2')", 3),
        ("x, *r = [x, 2, 3]", 1),
        ("try:\n    1 / 0\n    x = 5\nexcept ZeroDivisionError:\n    pass\nx = x + 1", 2),
        ("x = (lambda: x)() + 1", 2),
        ("class A:\n    y = x\nx = A.y + 4", 5),
        ("while False: x = 5\nx = x", 1),
    ],
)
def test_a_name_that_some_path_reads_first_is_an_input(code: str, expected: int | None, cell: Any, shell: Any) -> None:
    cell("x = 1")
    cell(f"%%pxrun\n{code}\nseen = x")
    assert list(shell.user_ns["seen"]) == [3 if expected is None else expected] * N_ENGINES


def test_a_name_that_is_bound_first_does_not_travel(cell: Any, session: Any) -> None:
    cell("import numpy as np\nx = np.zeros(10_000)")
    before = session.ledger.bytes_sent
    cell("%pxrun x = 1; y = x")
    assert session.ledger.bytes_sent == before


# --- magics inside the cell


def test_magics_work_inside_the_cell(cell: Any, shell: Any, capsys: Any) -> None:
    cell("name = 'world'")
    cell("%%pxrun\nfiles = !echo hello {name}\n%time t = len(name)\nd = %pwd")
    assert list(shell.user_ns["files"][0]) == ["hello world"]
    assert list(shell.user_ns["t"]) == [5] * N_ENGINES
    capsys.readouterr()
    cell("%pxrun !echo said $name")
    assert "[0-3] said world" in capsys.readouterr().out


def test_a_cell_may_begin_with_a_cell_magic(cell: Any, shell: Any, capsys: Any) -> None:
    cell("%%pxrun\n%%bash\necho from bash")
    assert "[0-3] from bash" in capsys.readouterr().out
    cell("x = 3")
    cell("%%pxrun\n%%timeit -n 1 -r 1\nx + 1")
    assert "loop" in capsys.readouterr().out
    cell("%%pxrun\n%%capture out\nprint(x)\ny = x")
    assert list(shell.user_ns["y"]) == [3] * N_ENGINES


def test_help_with_a_question_mark_shows_the_object(cell: Any, capsys: Any) -> None:
    cell("def f():\n    'Say what f does.'")
    cell("%pxrun f?")
    assert "Say what f does." in capsys.readouterr().out


def test_top_level_await_gives_its_value(cell: Any) -> None:
    cell("import asyncio\nasync def f(): return px_rank")
    assert list(cell("%pxrun await f()")) == [0, 1, 2, 3]
    assert list(cell("%%pxrun\nr = await asyncio.gather(f(), f())\nasync with asyncio.timeout(5): pass\nr[0]")) == [
        0,
        1,
        2,
        3,
    ]


# --- errors


def test_an_exception_on_one_engine_can_be_caught_by_its_own_type(cell: Any, capsys: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        cell("%pxrun 1 / px_rank")
    assert capsys.readouterr().out.splitlines() == [
        "ZeroDivisionError: division by zero  (engine 0); 3 of 4 engines finished",
        "in line 1 of the cell: 1 / px_rank",
    ]


@pytest.mark.parametrize(
    "code", ["x = = 1", "x = (1", "def f(:\n    pass", "return 5", "    x = 1\n  y = 2", "x = '\0'"]
)
def test_a_syntax_error_is_short_and_local_and_nothing_is_sent(code: str, cell: Any, session: Any, capsys: Any) -> None:
    cell("y = 5")
    before = session.ledger.bytes_sent
    with pytest.raises(CellSyntaxError):
        cell(f"%%pxrun\ny\n{code}")
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert 1 <= len(lines) <= 4
    assert lines[0].startswith("SyntaxError: ")
    assert session.ledger.bytes_sent == before


def test_sys_exit_in_a_cell_says_so_and_leaves_the_engines_alive(cell: Any, session: Any, capsys: Any) -> None:
    with pytest.raises(PxError, match="SystemExit: 3"):
        cell("%pxrun import sys; sys.exit(3)")
    assert capsys.readouterr().err == ""
    assert len(session.client.ids) == N_ENGINES


def test_warnings_of_engines_are_shown_once(cell: Any, capsys: Any) -> None:
    cell("%pxrun import warnings; warnings.warn('careful')")
    err = capsys.readouterr().err
    assert err.count("careful") >= 1
    assert "[0-3]" in err


def test_without_engines_it_is_an_error_of_two_lines(cell: Any, no_cluster: Any, capsys: Any) -> None:
    with pytest.raises(PxClusterError, match=r"no file .*gone"):
        cell("%pxrun x = 1")
    assert len(capsys.readouterr().out.splitlines()) == 2
