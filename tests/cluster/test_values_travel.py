"""What goes in: the ledger, and what never travels. On a real cluster."""

from __future__ import annotations

from typing import Any

import pytest

from pxtools.errors import PxNameError, PxPickleError, PxUsageError

N_ENGINES = 4


@pytest.fixture
def sent(session: Any) -> Any:
    """Return the bytes sent since the last call."""
    before = [session.ledger.bytes_sent]

    def since() -> int:
        now = session.ledger.bytes_sent
        before.append(now)
        return int(now - before[-2])

    return since


def theirs(session: Any, **names: Any) -> None:
    """Set names on the engines behind pxtools' back, as `%px` does."""
    session.client[:].push(names, block=True)


def held(session: Any, name: str) -> list[Any]:
    """Look at the engines' names behind pxtools' back."""
    look = f"__import__('IPython').get_ipython().user_ns.get({name!r}, 'nothing')"
    return list(session.client[:].apply_sync(eval, look))


# --- the ledger


def test_a_value_changed_here_is_pushed(cell: Any, session: Any) -> None:
    cell("x = 1")
    assert list(cell("%pxrun x")) == [1] * N_ENGINES
    cell("x = 2")
    assert list(cell("%pxrun x")) == [2] * N_ENGINES
    assert session.notices == []


def test_a_value_changed_on_the_engines_only_is_kept(cell: Any, session: Any) -> None:
    cell("x = 1")
    cell("%pxrun x")
    theirs(session, x=7)
    assert list(cell("%pxrun x")) == [7] * N_ENGINES
    assert session.notices == []


@pytest.mark.parametrize(("line", "n"), [("%pxrun x", N_ENGINES), ("%pxmap --chunksize 1 with_x range(8)", 8)])
def test_changed_on_both_sides_the_notebooks_value_wins_and_one_line_says_so(
    line: str, n: int, cell: Any, session: Any
) -> None:
    cell("x = 1\ndef with_x(item): return x")
    cell("%pxrun x")
    theirs(session, x=7)
    cell("x = 2")
    assert list(cell(line)) == [2] * n
    assert session.notices == ["`x` differed here and on engines 0-3: the notebook's value was taken."]


def test_a_change_in_place_on_the_engines_counts_as_a_change(cell: Any, session: Any) -> None:
    cell("x = [1]")
    cell("%pxrun x")
    session.client[:].execute("x.append(2)", block=True)
    assert list(cell("%pxrun x")) == [[1, 2]] * N_ENGINES
    cell("x = [5]")
    assert list(cell("%pxrun x")) == [[5]] * N_ENGINES
    assert len(session.notices) == 1


def test_never_in_step_the_notebooks_value_wins_and_one_line_says_so(cell: Any, session: Any) -> None:
    theirs(session, x=7)
    cell("x = 2")
    assert list(cell("%pxrun x")) == [2] * N_ENGINES
    assert len(session.notices) == 1


def test_equal_values_on_both_sides_are_no_conflict(cell: Any, session: Any) -> None:
    session.client[:].execute("import numpy as np; x = [7]", block=True)
    cell("import numpy as np\nx = [7]")
    assert list(cell("%pxrun int(np.sum(x))")) == [7] * N_ENGINES
    assert session.notices == []


def test_a_name_set_aside_from_a_notebook_value_is_kept_until_the_notebook_rebinds_it(cell: Any) -> None:
    cell("CONSTANT = 3")
    cell("%pxpush CONSTANT=5")
    assert list(cell("%pxrun CONSTANT")) == [5] * N_ENGINES
    assert list(cell("%pxrun CONSTANT")) == [5] * N_ENGINES
    cell("CONSTANT = 4")
    assert list(cell("%pxrun CONSTANT")) == [4] * N_ENGINES


def test_unchanged_values_are_not_sent_again(cell: Any, sent: Any) -> None:
    cell("import numpy as np\nx = np.ones(100_000)\ndef f(): return x.sum()")
    cell("%pxrun f(); None")
    assert sent() >= 4 * 800_000
    cell("%pxrun f(); None")
    assert sent() == 0
    cell("y = x")
    cell("%pxrun f(); None")
    assert sent() == 0


def test_a_change_in_place_here_is_sent(cell: Any, sent: Any) -> None:
    cell("import numpy as np\nx = np.zeros(100_000)\nd = {'a': [1]}")
    cell("%pxrun x[0], d; None")
    sent()
    cell("x[0] = 3\nd['a'].append(2)")
    assert list(cell("%pxrun (float(x[0]), d['a'])")) == [(3.0, [1, 2])] * N_ENGINES
    assert sent() >= 4 * 800_000


def test_an_item_set_on_a_pushed_list_comes_back_and_is_seen_element_wise(cell: Any, shell: Any) -> None:
    cell("x = [0, 0]")
    cell("%pxrun x[0] = px_rank")
    assert list(shell.user_ns["x"]) == [[rank, 0] for rank in range(N_ENGINES)]
    assert list(cell("%pxrun x")) == [[rank, 0] for rank in range(N_ENGINES)]


def test_a_per_engine_value_is_seen_element_wise_and_never_sent_as_a_whole(cell: Any, shell: Any, sent: Any) -> None:
    cell("x = 0")
    cell("%pxrun x = x + px_rank")
    sent()
    cell("%pxrun x = x + px_rank")
    assert list(shell.user_ns["x"]) == [0, 2, 4, 6]
    assert sent() == 0
    cell("other = x")
    assert list(cell("%pxrun other")) == [0, 2, 4, 6]


def test_a_per_engine_value_of_some_engines_names_the_targets_to_use(cell: Any) -> None:
    cell("%pxrun -t 0,1 x = px_rank")
    cell("y = x")
    with pytest.raises(PxUsageError, match="-t 0,1"):
        cell("%pxrun y")
    assert list(cell("%pxrun -t 0,1 y")) == [0, 1]


def test_a_usage_error_leaves_the_ledger_as_it_was(cell: Any) -> None:
    cell("%pxrun -t 0 x = 1")
    cell("y = x\nz = [5]")
    with pytest.raises(PxUsageError):
        cell("%pxrun y, z")
    assert list(cell("%pxrun z")) == [[5]] * N_ENGINES


def test_a_large_per_engine_value_under_a_new_name_does_not_travel(cell: Any, sent: Any) -> None:
    cell("%pxrun import numpy as np; big = np.full(400_000, px_rank)")
    cell("copy = big")
    sent()
    assert list(cell("%pxrun int(copy[0])")) == [0, 1, 2, 3]
    assert sent() == 0


# --- names that go


def test_a_name_deleted_here_is_deleted_there_if_pxtools_put_it_there(cell: Any, session: Any) -> None:
    cell("x = 1")
    cell("%pxrun x")
    theirs(session, y=2)
    cell("del x")
    cell("%pxrun 0")
    assert held(session, "x") == ["nothing"] * N_ENGINES
    assert held(session, "y") == [2] * N_ENGINES


def test_a_name_deleted_by_a_cell_is_sent_again_when_it_is_needed(cell: Any, shell: Any) -> None:
    cell("x = 1")
    cell("%pxrun del x")
    assert shell.user_ns["x"] == 1
    assert list(cell("%pxrun x")) == [1] * N_ENGINES
    cell("def f(i): return i + x")
    cell("%pxrun del x")
    assert cell("%pxmap f [1]") == [2]


def test_names_that_some_engines_lost_behind_our_back_are_sent_again(cell: Any, session: Any) -> None:
    cell("x = 1\ndef f(): return x")
    cell("%pxrun f()")
    session.client[1].execute("%reset -f", block=True)
    assert list(cell("%pxrun f()")) == [1] * N_ENGINES


# --- what never travels


def test_ipythons_own_names_and_connections_never_travel(cell: Any, session: Any) -> None:
    cell("import pxtools\nrc = pxtools.client()\nview = rc[:]")
    for name in ("rc", "view", "Out", "_i", "get_ipython", "exit"):
        cell(f"%pxrun --explain {name}")
    cell("def f(): return 1 if 0 else (rc, view, Out)")
    cell("%pxpush f")
    assert held(session, "rc") == ["nothing"] * N_ENGINES
    with pytest.raises(NameError, match="`rc` was not sent: a Client belongs to this process"):
        cell("%pxrun rc")


@pytest.mark.parametrize("value", ["open('/dev/null', 'w')", "__import__('socket').socket()", "(i for i in [1])"])
def test_a_value_that_cannot_travel_is_an_error_only_when_it_is_needed(value: str, cell: Any) -> None:
    cell(f"x = {value}")
    assert list(cell("%pxrun 1 if px_rank >= 0 else x")) == [1] * N_ENGINES
    with pytest.raises(PxNameError, match="`x` was not sent"):
        cell("%pxrun x")
    with pytest.raises(PxPickleError, match="cannot travel"):
        cell("%pxpush x")
    with pytest.raises(PxPickleError, match="Nothing was sent"):
        cell("%pxrun -i x 1")
    cell("getattr(x, 'close')()")


def test_names_in_the_never_push_setting_stay_here_unless_asked_for(cell: Any, session: Any) -> None:
    session.settings.never_push = ("secret_*",)
    try:
        cell("secret_key = 1")
        with pytest.raises(PxNameError, match="never_push"):
            cell("%pxrun secret_key")
        assert list(cell("%pxrun -i secret_key secret_key")) == [1] * N_ENGINES
    finally:
        session.settings.never_push = ()


def test_a_builtin_is_pushed_only_when_it_is_no_longer_the_builtin(cell: Any, session: Any) -> None:
    assert list(cell("%pxrun max([1, 2])")) == [2] * N_ENGINES
    assert held(session, "max") == ["nothing"] * N_ENGINES
    cell("def max(x): return 'mine'\ndef open(x): return 'my open'")
    assert list(cell("%pxrun max([1, 2]), open('x')")) == [("mine", "my open")] * N_ENGINES
    cell("del max, open")
    assert list(cell("%pxrun max([1, 2])")) == [2] * N_ENGINES


def test_above_the_limit_nothing_is_sent_and_the_error_says_what_to_type(cell: Any, session: Any, sent: Any) -> None:
    cell("import numpy as np\nbig = np.zeros(200_000)\nsmall = 1")
    session.settings.push_limit = 1_000_000
    try:
        with pytest.raises(PxUsageError, match=r"`big` \(1.6 MB\)(.|\n)*`-i big`"):
            cell("%pxrun small, big")
        assert sent() == 0
        assert list(cell("%pxrun -i big len(big)")) == [200_000] * N_ENGINES
        assert list(cell("%pxrun len(big)")) == [200_000] * N_ENGINES  # there already: nothing travels
    finally:
        session.settings.push_limit = 1_000_000_000


# --- imports and random generators


def test_imported_modules_and_aliases_become_imports(cell: Any, sent: Any) -> None:
    cell("import numpy as np, os.path as osp\nfrom numpy import linalg as la\nimport xml.dom.minidom")
    expression = "(np.__name__, osp.basename('a/b'), float(la.norm([3, 4])), xml.dom.minidom.__name__)"
    assert list(cell(f"%pxrun {expression}")) == [("numpy", "b", 5.0, "xml.dom.minidom")] * N_ENGINES
    assert sent() == 0


def test_a_module_that_engines_cannot_import_is_an_error_only_when_it_is_needed(cell: Any) -> None:
    cell("import sys, types\nsys.modules['only_here'] = only_here = types.ModuleType('only_here')")
    try:
        assert list(cell("%pxrun 1 if px_rank >= 0 else only_here")) == [1] * N_ENGINES
        with pytest.raises(NameError) as caught:
            cell("%pxrun only_here")
        assert "which engines cannot import" in "\n".join(caught.value.__notes__)
    finally:
        cell("del sys.modules['only_here']")


@pytest.mark.parametrize(
    "statement",
    [
        "from numpy.random import random",
        "from numpy.random import rand as random",
        "from random import random",
        "import numpy as np\nrandom = np.random.normal",
        "from functools import partial\nfrom random import uniform\nrandom = partial(uniform, 0, 1)",
        "import random as r\ndef random(g=r.random): return g()",
    ],
)
def test_methods_of_the_global_generators_give_every_engine_its_own_numbers(statement: str, cell: Any) -> None:
    cell(statement)
    assert len(set(map(float, cell("%pxrun float(random())")))) == N_ENGINES


def test_one_generator_for_all_engines_is_pointed_out(cell: Any, session: Any) -> None:
    cell("import numpy as np\nrng = np.random.default_rng(1)")
    assert len(set(cell("%pxrun rng.random()"))) == 1
    assert "px_rng" in session.notices[0]


def test_a_seed_gives_independent_numbers_that_repeat(cell: Any) -> None:
    cell("import random, numpy as np")
    draws = "(px_rng.random(), random.random(), np.random.rand())"
    first = list(cell(f"%pxrun --seed 1 {draws}"))
    assert list(cell(f"%pxrun --seed 1 {draws}")) == first
    assert list(cell(f"%pxrun --seed 2 {draws}")) != first
    assert len({number for row in first for number in row}) == 3 * N_ENGINES


# --- where names are looked up, and when


def test_a_magic_inside_a_function_sees_its_locals_before_globals(cell: Any) -> None:
    cell("x = 'global'\ny = 'y'")
    cell("def g():\n    x = 'local'\n    ip = get_ipython()\n    return ip.run_line_magic('pxrun', '(x, y)')")
    assert list(cell("g()")) == [("local", "y")] * N_ENGINES
    assert list(cell("%pxrun (x, y)")) == [("global", "y")] * N_ENGINES


def test_inputs_are_taken_as_they_are_when_the_cell_is_submitted(cell: Any, shell: Any) -> None:
    cell("import numpy as np, time\nx = np.zeros(200_000)\nk = 1")
    cell("handle = %pxrun --noblock time.sleep(0.3); total = float(x.sum()) + k")
    cell("x[:] = 1\nk = 100")
    cell("%pxpush k")
    cell("handle.result()")
    assert list(shell.user_ns["total"]) == [1.0] * N_ENGINES
    assert list(cell("%pxrun k")) == [100] * N_ENGINES


def test_explain_lists_what_would_travel_and_sends_nothing(cell: Any, sent: Any, session: Any) -> None:
    cell("import numpy as np, threading\nK = 5\ndef f(x): return np.sum(x) + K\nlock = threading.Lock()\na = [1, 2]")
    table = cell("%pxrun --explain y = f(a), lock")
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["K"][1] == "used by f"
    assert rows["a"][1] == "read by the cell"
    assert rows["np"][0] == "import"
    assert rows["lock"][0] == "stays here"
    assert "comes back: y" in repr(table)
    assert sent() == 0
    assert held(session, "a") == ["nothing"] * N_ENGINES


def test_names_that_the_analysis_misses_are_added_with_i(cell: Any) -> None:
    cell("hidden = 5")
    with pytest.raises(NameError):
        cell("%pxrun eval('hidden')")
    assert list(cell("%pxrun -i hidden eval('hidden')")) == [5] * N_ENGINES
    assert list(cell("%pxrun -i other=hidden eval('other')")) == [5] * N_ENGINES


def test_strange_values_arrive(cell: Any) -> None:
    cell(
        "import numpy as np, datetime, decimal, collections\n"
        "values = [float('nan'), 1e400, -0.0, 10**30, 'ü\\n', b'\\x00', {1, 2}, {None: 1, 'a': 2}, range(3),\n"
        "          slice(1, 2), ..., NotImplemented, complex(1, 2), datetime.date(2020, 1, 1),\n"
        "          decimal.Decimal('1.1'),\n"
        "          collections.Counter('aab'), collections.defaultdict(list, a=[1]), np.array(['2020'], 'M8[Y]'),\n"
        "          np.asfortranarray(np.eye(3)), np.array(5), type, len, int]"
    )
    back = cell("%pxrun -t 0 values")[0]
    assert repr(back) == repr(cell("values"))
    assert back[-5].dtype == "M8[Y]" or back[17].dtype == "M8[Y]"
    assert back[18].flags.f_contiguous
