"""`%pxmap` through a real shell on a real cluster."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import pxtools
from pxtools.errors import PxClusterError, PxPickleError, PxUsageError


def test_results_are_in_the_order_of_the_items(cell: Any, shell: Any) -> None:
    cell("K = 2\ndef f(x): return x * K")
    assert cell("%pxmap f range(100)") == [x * 2 for x in range(100)]
    cell("%pxmap -o a f [1, 2]\n%pxmap f [1, 2] -o b")
    assert shell.user_ns["a"] == shell.user_ns["b"] == [2, 4]


def test_several_iterables_and_a_lambda(cell: Any) -> None:
    cell("xs = [1, 2, 3]")
    assert cell("%pxmap lambda x, y: x + y xs range(10)") == [1, 3, 5]
    assert cell("%pxmap max xs [2, 2, 2]") == [2, 2, 3]


def test_what_an_engine_has_no_time_for_is_done_all_the_same(cell: Any) -> None:
    cell("import time\ndef f(n):\n    time.sleep(0.02)\n    return -n")
    assert cell("%pxmap f range(100)") == [-n for n in range(100)]
    assert sorted(cell("%pxmap --unordered f range(100)")) == [-n for n in range(99, -1, -1)]


def test_unordered_results_stream_in_as_they_are_ready(cell: Any, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    cell(
        "import os, time\ndef f(n):\n"
        f"    while n == 0 and not os.path.exists({str(gate)!r}): time.sleep(0.01)\n    return n * n"
    )
    stream = cell("%pxmap --unordered --chunksize 1 f range(9)")
    first = [next(stream) for _ in range(8)]
    assert sorted(first) == [n * n for n in range(1, 9)]
    gate.touch()
    assert list(stream) == [0]


def test_an_endless_iterator_is_read_as_engines_become_free(cell: Any, shell: Any) -> None:
    cell("import itertools\nread = 0\ndef numbers():\n    global read\n    for read in itertools.count(): yield read")
    stream = cell("%pxmap --unordered --chunksize 1 abs numbers()")
    assert {next(stream) for _ in range(10)} <= set(range(30))
    assert shell.user_ns["read"] < 30
    stream.close()
    assert list(stream) == []
    assert list(cell("%pxrun px_rank")) == [0, 1, 2, 3]


def test_as_many_items_as_engines_go_one_to_each(cell: Any) -> None:
    cell("import os, time\ndef slow(x): time.sleep(0.5); return os.getpid()")
    assert len(set(cell("%pxmap slow range(4)"))) == 4


def test_items_that_raise_are_tried_again(cell: Any, tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    tries.mkdir()
    cell(
        f"import os\nfolder = {str(tries)!r}\n"
        "def f(n):\n"
        "    open(f'{folder}/{n}-{os.getpid()}-{len(os.listdir(folder))}', 'w').close()\n"
        "    if n % 3 == 0 and len([t for t in os.listdir(folder) if t.startswith(f'{n}-')]) < 3: raise OSError(n)\n"
        "    return -n"
    )
    assert cell("%pxmap --retries 2 --chunksize 4 f range(12)") == [-n for n in range(12)]
    of_three = [name.split("-")[1] for name in os.listdir(tries) if name.startswith("3-")]
    assert len(of_three) == 3
    assert len(set(of_three)) > 1  # not on the same engine again
    shutil.rmtree(tries)
    tries.mkdir()
    with pytest.raises(OSError, match="tried 2 times"):
        cell("%pxmap --retries 1 --chunksize 12 f range(12)")


def test_an_item_that_always_raises_is_named_with_its_tries(cell: Any, capsys: Any) -> None:
    cell("def f(x): return 1 / x")
    with pytest.raises(ZeroDivisionError):
        cell("%pxmap --retries 2 f (x for x in [1, 0])")
    assert capsys.readouterr().out.splitlines()[-1] == "Try it here: `f(0)`. It was tried 3 times."
    first, second = cell("%pxmap --retries 2 --return-exceptions --chunksize 2 f [1, 0]")
    assert (first, type(second)) == (1, ZeroDivisionError)


def test_what_was_done_before_an_error_is_kept(cell: Any, capsys: Any) -> None:
    cell("def f(x): return 10 // x")
    with pytest.raises(ZeroDivisionError):
        cell("%pxmap -t 0 --chunksize 1 f [1, 2, 5, 0, 7]")
    assert pxtools.last_map() == {0: 10, 1: 5, 2: 2}
    assert "What is done is kept: `pxtools.last_map()` (3)." in capsys.readouterr().out
    cell("%pxmap f [1]")
    assert pxtools.last_map() == {}


def test_no_items_give_an_empty_list(cell: Any) -> None:
    assert cell("%pxmap len []") == []


def test_a_seed_gives_each_item_its_own_numbers_that_do_not_depend_on_the_engines(cell: Any) -> None:
    cell("def f(i): return px_rng.random()")
    first = cell("%pxmap --seed 1 f range(12)")
    assert cell("%pxmap --seed 1 -t 0 --chunksize 5 f range(12)") == first
    assert len(set(first)) == 12


def test_functions_among_the_items_bring_what_they_use(cell: Any) -> None:
    cell("K = 3\ndef g(): return K\ndef f(h): return h()")
    assert cell("%pxmap f [g, lambda: K + 1]") == [3, 4]


def test_an_exception_of_one_item_keeps_its_type_and_is_printed_as_the_call_to_rerun(cell: Any, capsys: Any) -> None:
    cell("xs = [1, 2, 0, 4]\ndef f(x): return 1 / x\ndef g(x, y): return 1 / x")
    with pytest.raises(ZeroDivisionError):
        cell("%pxmap f xs")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ZeroDivisionError: division by zero  (engine ")
    assert lines[-1] == "Try it here: `f(xs[2])`."
    with pytest.raises(ZeroDivisionError):
        cell("%pxmap --chunksize 4 g xs range(4)")
    assert "`g(xs[2], range(4)[2])`" in capsys.readouterr().out


def test_exceptions_may_be_returned(cell: Any) -> None:
    cell("class Mine(Exception): pass\ndef f(x):\n    if x: raise Mine(x)\n    return 'fine'")
    first, second = cell("%pxmap --return-exceptions f [0, 1]")
    assert first == "fine"
    assert type(second) is cell("Mine")


def test_a_result_that_cannot_travel_is_described_and_the_others_arrive(cell: Any) -> None:
    cell("import threading\ndef f(x): return threading.Lock() if x else 'fine'")
    first, second = cell("%pxmap --chunksize 2 f [0, 1]")
    assert first == "fine"
    assert "lock" in str(second)


@pytest.mark.parametrize("spoiler", ["eval, ('1/0',)", "sys.exit, (3,)"])
def test_a_result_that_cannot_be_read_here_is_an_error_that_names_its_items(spoiler: str, cell: Any) -> None:
    cell(f"import sys\nclass Odd:\n    def __reduce__(self): return {spoiler}\ndef f(x): return Odd() if x else 'fine'")
    with pytest.raises(PxPickleError, match=r"a result of item 1 cannot be read here(.|\n)*kept.*\(1\)"):
        cell("%pxmap -t 0 --chunksize 1 f [0, 1]")
    assert pxtools.last_map() == {0: "fine"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "give a function and its items"),
        ("f", "give a function and its items"),
        ("5 [1]", "cannot be called"),
        ("--chunksize 0 f [1]", "positive"),
        ("--chunksize x f [1]", "positive"),
        ("--retries -1 f [1]", "give 0, 1, 2"),
        ("--unorderd f [1]", "--unordered"),
        ("f [1", "not whole"),
        ("-t 9 f [1]", "no engine 9"),
    ],
)
def test_a_bad_line_is_a_usage_error(line: str, message: str, cell: Any) -> None:
    cell("def f(x): return x")
    with pytest.raises(PxUsageError, match=message):
        cell(f"%pxmap {line}")


def test_without_engines_it_is_an_error_of_two_lines(cell: Any, no_cluster: Any, capsys: Any) -> None:
    with pytest.raises(PxClusterError, match=r"no file .*gone"):
        cell("%pxmap len ['a']")
    assert len(capsys.readouterr().out.splitlines()) == 2
