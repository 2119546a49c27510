"""What comes back: which names, in which form, and what an error leaves behind. On a real cluster."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pxtools.errors import PxNameError, PxRemoteError, PxUsageError, StaleValue
from pxtools.results import Described, PerEngine, Remote

N_ENGINES = 4


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("a = 1", "a"),
        ("a, (b, *c) = 1, (2, 3)", "a b c"),
        ("a = b = 1", "a b"),
        ("a: int = 1", "a"),
        ("t += 1", "t"),
        ("d['k'] = 1", "d"),
        ("o.x = 1", "o"),
        ("if px_rank >= 0: a = 1", "a"),
        ("print(a := 1)", "a"),
        ("for i in range(2): s = i", "s"),
        ("with open('/dev/null') as f: s = 1", "s"),
        ("[i for i in range(3)];", ""),
        ("def f(): pass", ""),
        ("class A: pass", ""),
        ("import json", ""),
        ("f = len; g = lambda: 1; h = type; import math as m; n = m", ""),
        ("_hidden = 1", ""),
        ("a = 1; del a", ""),
        ("lst.append(1)", ""),
        ("np.seterr(all='warn'); o.__class__.y = 1", "o"),
        ("# nothing", ""),
        ("größe = 1", "größe"),
    ],
)
def test_names_bound_by_assignment_come_back(code: str, names: str, cell: Any, shell: Any) -> None:
    cell("t = 0\nd = {}\nlst = []\nclass O: pass\no = O()\nimport numpy as np")
    before = dict(shell.user_ns)
    cell(f"%%pxrun\n{code}")
    changed = {n for n, v in shell.user_ns.items() if n not in before or before[n] is not v}
    assert {n for n in changed if isinstance(shell.user_ns[n], PerEngine) and not n.startswith("_")} == set(
        names.split()
    )
    assert {n for n in changed if not n.startswith("_")} == set(names.split())


def test_a_module_whose_attribute_was_set_stays_the_module(cell: Any, shell: Any) -> None:
    cell("import json")
    cell("%pxrun json.mine = 1")
    assert shell.user_ns["json"].__name__ == "json"


def test_changes_by_methods_come_back_when_asked_for(cell: Any, shell: Any) -> None:
    cell("lst = [0]")
    cell("%pxrun -o lst lst.append(px_rank)")
    assert list(shell.user_ns["lst"]) == [[0, rank] for rank in range(N_ENGINES)]


def test_outputs_may_be_renamed(cell: Any, shell: Any) -> None:
    cell("%pxrun -o here=there,two=there there = px_rank; x = 1")
    assert list(shell.user_ns["here"]) == list(shell.user_ns["two"]) == [0, 1, 2, 3]
    assert "there" not in shell.user_ns
    cell("%pxrun -o x=y y = 'y'; x = 'x'")
    assert list(shell.user_ns["x"]) == ["y"] * N_ENGINES


def test_an_output_that_the_cell_does_not_set_is_an_error_and_binds_nothing(cell: Any, shell: Any) -> None:
    with pytest.raises(PxNameError, match="-o missing"):
        cell("%pxrun -o missing a = 1")
    assert "a" not in shell.user_ns


def test_a_name_that_only_some_engines_set_comes_from_these(cell: Any, shell: Any) -> None:
    cell("%%pxrun\nif px_rank > 1:\n    a = px_rank")
    assert shell.user_ns["a"].engines == (2, 3)
    assert list(shell.user_ns["a"]) == [2, 3]


# --- the last expression


def test_the_last_value_is_shown_once_per_distinct_value_with_its_engines(cell: Any, capsys: Any) -> None:
    cell("%pxrun px_rank // 3")
    assert capsys.readouterr().out.splitlines() == ["Out[0]: [0-2] 0", "[3] 1"]


def test_the_last_value_is_returned_and_bound_by_out(cell: Any, shell: Any) -> None:
    cell("y = %pxrun --out z px_rank + 1")
    assert list(shell.user_ns["y"]) == list(shell.user_ns["z"]) == [1, 2, 3, 4]


def test_a_cell_without_a_last_value_returns_none(cell: Any) -> None:
    assert cell("%pxrun a = 1") is None
    assert cell("%%pxrun\n# only a comment") is None
    assert cell("%pxrun None") is None


def test_a_semicolon_hides_the_value_but_does_not_lose_it(cell: Any, shell: Any, capsys: Any) -> None:
    cell("y = %pxrun 1 + 1;")
    cell("%pxrun 17 + 4;")
    assert list(shell.user_ns["y"]) == [2] * N_ENGINES
    assert "21" not in capsys.readouterr().out


def test_engines_do_not_hoard_what_they_showed(cell: Any, session: Any) -> None:
    cell("%pxrun 123456")
    look = "__import__('IPython').get_ipython().user_ns.get('_')"
    assert 123456 not in session.client[:].apply_sync(eval, look)
    assert session.client[:].apply_sync(eval, "len(__import__('IPython').get_ipython().user_ns['Out'])") == [0] * 4


# --- PerEngine


def test_values_are_in_target_order_and_rank_follows_it(cell: Any, shell: Any) -> None:
    cell("%pxrun -t 2,0 a = (px_rank, px_size)")
    assert shell.user_ns["a"].engines == (2, 0)
    assert list(shell.user_ns["a"]) == [(0, 2), (1, 2)]
    cell("%pxrun -t 0 b = px_size")
    assert len(shell.user_ns["b"]) == 1


def test_nothing_is_combined_unless_how_says_so(cell: Any, shell: Any) -> None:
    cell("import numpy as np")
    cell("%pxrun a = np.full(2, px_rank)")
    a = shell.user_ns["a"]
    assert a.concat().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert a.stack().shape == (4, 2)
    assert a.first().tolist() == [0, 0]
    with pytest.raises(PxUsageError, match="engines 1, 2, 3 differ"):
        a.same()
    cell("%pxrun --how concat b = [px_rank]")
    assert shell.user_ns["b"] == [0, 1, 2, 3]


def test_a_way_to_combine_that_does_not_fit_binds_nothing(cell: Any, shell: Any) -> None:
    with pytest.raises(PxUsageError, match="--how list"):
        cell("%pxrun --how concat fits, a = [1], 2")
    assert not {"fits", "a"} & set(shell.user_ns)
    with pytest.raises(PxUsageError, match="Did you mean `stack`"):
        cell("%pxrun --how stak a = 1")


# --- values that stay


def test_a_large_value_stays_on_its_engine_until_it_is_read(cell: Any, shell: Any) -> None:
    cell("%pxrun import numpy as np; big = np.full(300_000, px_rank * 1.0)")
    big = shell.user_ns["big"]
    assert all(isinstance(big.slot(engine), Remote) for engine in big.engines)
    assert "2.4 MB on engine 3" in repr(big)
    assert big[3][0] == 3.0
    assert isinstance(big.slot(2), Remote)
    assert big[3].flags.writeable


def test_a_large_value_that_changed_before_it_was_read_is_stale(cell: Any, shell: Any) -> None:
    cell("%pxrun import numpy as np; big = np.zeros(300_000)")
    big = shell.user_ns["big"]
    cell("%pxrun --no-auto big[0] = 1")
    with pytest.raises(StaleValue, match=r"changed in place there(.|\n)*Collect it again"):
        big[0]


def test_a_large_value_whose_name_was_bound_anew_is_never_newer_data(cell: Any, shell: Any) -> None:
    cell("%pxrun import numpy as np; big = np.zeros(300_000)")
    big = shell.user_ns["big"]
    cell("%pxrun big = big + 1")
    assert big[0][0] == 0
    assert shell.user_ns["big"][0][0] == 1


def test_a_large_value_that_was_cleared_is_stale(cell: Any, shell: Any) -> None:
    cell("%pxrun import numpy as np; big = np.zeros(300_000)")
    big = shell.user_ns["big"]
    cell("%pxclear")
    with pytest.raises(StaleValue, match="cleared"):
        big[0]


def test_an_engine_forgets_a_large_value_when_the_notebook_does(cell: Any, shell: Any, session: Any) -> None:
    pinned = "len(__import__('IPython').get_ipython().pxtools_engine.pinned)"
    cell("%pxrun import numpy as np; big = np.zeros(300_000)")
    assert session.client[:].apply_sync(eval, pinned) == [1] * N_ENGINES
    cell("%pxclear big\ndel big")
    cell("%pxrun 0")
    cell("%pxrun 0")
    assert session.client[:].apply_sync(eval, pinned) == [0] * N_ENGINES


def test_a_value_that_cannot_be_pickled_comes_back_described(cell: Any, shell: Any) -> None:
    cell("%%pxrun\nimport threading\nlock = threading.Lock()\nlock")
    assert all(isinstance(value, Described) for value in shell.user_ns["lock"])
    assert "lock on engine 0: <unlocked" in repr(shell.user_ns["lock"][0])
    assert list(cell("%pxrun lock.locked()")) == [False] * N_ENGINES


def test_a_value_that_cannot_be_read_here_comes_back_described(cell: Any, shell: Any) -> None:
    cell("%%pxrun\nclass Bad:\n    def __reduce__(self): return (int, ('no number',))\nbad = Bad()")
    assert isinstance(shell.user_ns["bad"][0], Described)
    assert "cannot be read here" in shell.user_ns["bad"][0].why


# --- errors


def test_a_failing_cell_binds_nothing_here(cell: Any, shell: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        cell("%%pxrun\na = 1\n1 / (px_rank - 2)")
    assert "a" not in shell.user_ns


def test_one_type_raised_by_all_that_failed_can_be_caught_and_has_every_traceback(cell: Any) -> None:
    with pytest.raises(KeyError) as caught:
        cell("%%pxrun\nif px_rank:\n    {}['lost']")
    assert sorted(caught.value.engine_tracebacks) == [1, 2, 3]  # type: ignore[attr-defined]
    assert "lost" in caught.value.engine_tracebacks[2]  # type: ignore[attr-defined]


def test_different_types_are_a_remote_error_that_names_each(cell: Any, capsys: Any) -> None:
    with pytest.raises(PxRemoteError):
        cell("%%pxrun\nif px_rank == 0: int('x')\nif px_rank == 1: [][0]")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ValueError: invalid literal for int() with base 10: 'x'  (engine 0); 2 of 4 engines finished"
    assert lines[1] == "IndexError: list index out of range  (engine 1)"


def test_the_full_traceback_is_behind_tb(cell: Any, shell: Any, capsys: Any) -> None:
    cell("def f(x):\n    return 1 / x")
    with pytest.raises(ZeroDivisionError):
        cell("%pxrun f(0)")
    assert len(capsys.readouterr().out.splitlines()) <= 4
    cell("%tb")
    out = capsys.readouterr().out
    assert "--- engines 0-3 ---" in out
    assert "return" in out  # the line of the function that was sent


def test_what_engines_print_comes_in_engine_order_and_equal_output_once(cell: Any, capsys: Any) -> None:
    cell("%%pxrun\nimport time\ntime.sleep(0.05 * (3 - px_rank))\nprint('rank', px_rank)")
    assert capsys.readouterr().out.splitlines() == [f"[{rank}] rank {rank}" for rank in range(N_ENGINES)]
    cell("%pxrun print('same')")
    assert capsys.readouterr().out.splitlines() == ["[0-3] same"]


def test_output_before_an_error_is_shown(cell: Any, capsys: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        cell("%pxrun print('before'); 1/0")
    assert capsys.readouterr().out.splitlines()[0] == "[0-3] before"


def test_many_kinds_of_values_come_back_as_they_were(cell: Any, shell: Any) -> None:
    cell("%%pxrun\nimport numpy as np\na = [np.arange(3), {'b': np.asfortranarray(np.eye(2))}, (None, 'ü')]")
    back = shell.user_ns["a"][0]
    assert back[0].tolist() == [0, 1, 2]
    assert back[1]["b"].flags.f_contiguous
    assert back[2] == (None, "ü")
    assert isinstance(back[0], np.ndarray)
    back[0][0] = 5
