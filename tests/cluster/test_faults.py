"""Engines that die and users who press Ctrl-C, on a cluster of its own."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from pxtools.errors import PxEngineLost, PxInterrupted, PxTimeout
from pxtools.expr import compile as compile_formula
from pxtools.magics.pxcluster import status
from pxtools.session import state
from pxtools.session.blocks import call_in_blocks
from pxtools.session.core import Session
from pxtools.session.mapping import map_on
from pxtools.session.pool import Pool
from pxtools.session.run import Cell, run
from pxtools.session.sampling import sample
from pxtools.session.scatter import gather, scatter
from tests.cluster import two_engines

N, module_session, is_running = two_engines.N, two_engines.module_session, two_engines.is_running


@pytest.fixture
def session(module_session: Session) -> Session:
    """`N` healthy engines."""
    module_session.namespace.clear()
    module_session.namespace["__name__"] = "__main__"
    module_session.notify = lambda line: None
    module_session.resize(N)
    return module_session


def define(session: Session, source: str) -> Any:
    """Define a function as a notebook cell would, and return it."""
    before = set(session.namespace)
    exec(source, session.namespace)
    (name,) = set(session.namespace) - before - {"__builtins__"}
    return session.namespace[name]


def kill_after(session: Session, engine: int, seconds: float) -> None:
    pid = session.wire.engines[engine]["pid"]
    threading.Timer(seconds, os.kill, (pid, signal.SIGKILL)).start()


@contextlib.contextmanager
def frozen(session: Session, engine: int, after_s: float = 0.0) -> Iterator[int]:
    """Stop an engine's process, and let it go on at the end; yields its process id."""
    pid = session.wire.engines[engine]["pid"]
    timer = threading.Timer(after_s, os.kill, (pid, signal.SIGSTOP))
    timer.start()
    if not after_s:
        timer.join()
        time.sleep(0.3)  # a look at the processes is good for a fifth of a second
    try:
        yield pid
    finally:
        timer.join()
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGCONT)


def press_ctrl_c_when_there(marker: Path, after_s: float = 0.5) -> None:
    """Press Ctrl-C somewhat after the work on the engines has made a file: never before it has begun."""

    def watch() -> None:
        deadline = time.monotonic() + 60
        while not marker.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(after_s)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


def test_a_dead_engine_is_named_at_once_and_the_others_work_is_kept(session: Session) -> None:
    lines: list[str] = []
    session.notify = lines.append
    first, second = session.wire.ids
    kill_after(session, second, 0.5)
    result = run(session, Cell("import time; time.sleep(3); y = px_rank + 10"))
    assert isinstance(result.error, PxEngineLost)
    assert f"engine {second} died" in str(result.error)
    assert f"engine {second} died (killed, or out of memory?); waiting for the others" in lines
    assert session.namespace["y"].dict() == {first: 10}
    assert list(run(session, Cell("px_size")).last) == [1]


def test_a_new_engine_replaces_a_dead_one_with_its_state(session: Session) -> None:
    session.namespace["offset"] = 5
    state.push(session, ["offset"])
    kill_after(session, session.wire.ids[0], 0.0)
    run(session, Cell("import time; time.sleep(1)"))
    session.resize(N)
    assert state.collect(session, "offset", how="list") == [5, 5]


def test_items_of_a_dead_engine_are_mapped_elsewhere(session: Session) -> None:
    slow = define(session, "def slow(n):\n    import time\n    time.sleep(0.05)\n    return n * n")
    kill_after(session, session.wire.ids[0], 0.5)
    assert map_on(session, slow, range(40)) == [n * n for n in range(40)]


def test_pieces_go_to_the_engine_that_has_least_to_do_and_no_more_than_it_may_have(session: Session) -> None:
    wait = define(session, "def wait(n):\n    import time\n    time.sleep(n)\n    return n")
    first, second = session.wire.ids
    task, gathering = session.gatherer().pack_value(wait)
    with Pool(session, task, gathering, [first, second]) as pool:
        pool.ahead = 2
        for key, weight in enumerate([3, 1, 1, 1, 1]):
            pool.submit(key, "call_task", {"function": "operator.call", "args": (0.2,)}, weight=weight)
        at = {piece.key: piece.engine for piece in pool._pending.values()}
        assert at == {0: first, 1: second, 2: second, 3: first}  # and the last one waits here
        assert sorted(key for key, reply in pool.completed() if reply.answer) == [0, 1, 2, 3, 4]


def test_an_engine_that_has_lost_the_function_gets_it_again(session: Session) -> None:
    forgets = (
        "def forgets(n):\n    from pxtools.remote.engine import current\n    current().tasks.clear()\n    return -n"
    )
    assert map_on(session, define(session, forgets), range(6), chunksize=1) == [-n for n in range(6)]


def test_a_function_that_cannot_be_read_on_the_engines_is_an_error_that_names_them_and_says_why(
    session: Session,
) -> None:
    unreadable = "class Unreadable:\n    def __reduce__(self): return (eval, ('1/0',))\n    def __call__(self, n): pass"
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        map_on(session, define(session, unreadable)(), range(6))
    assert list(run(session, Cell("px_rank")).last) == [0, 1]


@pytest.mark.parametrize("sampler", ["auto", "ram", "rwm"])
def test_draws_are_the_same_whether_an_engine_died_or_not(session: Session, sampler: str) -> None:
    source = "def g(x, y):\n    import time\n    time.sleep(1e-4)\n    return -(x * x + y * y) / 2"
    g = define(session, source)
    options = {"draws": 1_500, "warmup": 160, "chains": 8, "seed": 3, "sampler": sampler}
    kill_after(session, session.wire.ids[0], 0.4)
    survived = sample(session, g, **options)
    deadline = time.monotonic() + 10
    while len(session.wire.ids) == N and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(session.wire.ids) < N
    assert np.array_equal(survived.draws, sample(session, g, **options).draws)


def test_an_interrupted_map_leaves_the_engines_idle(session: Session, tmp_path: Path) -> None:
    marker = tmp_path / "begun"
    wait = define(session, f"def wait(n):\n    import time\n    open({str(marker)!r}, 'w').close()\n    time.sleep(n)")
    press_ctrl_c_when_there(marker)
    with pytest.raises(PxInterrupted, match="are idle"):
        map_on(session, wait, [30] * 6)
    assert list(run(session, Cell("px_rank")).last) == [0, 1]


def test_batches_that_lie_at_the_engines_are_taken_back_by_an_interrupt(session: Session, tmp_path: Path) -> None:
    marker = tmp_path / "begun"
    body = f"    if n > 100: open({str(marker)!r}, 'w').close()\n    time.sleep(30 if n > 100 else 0.002)\n    return n"
    wait = define(session, f"def wait(n):\n    import time\n{body}")
    press_ctrl_c_when_there(marker)
    with pytest.raises(PxInterrupted, match="are idle"):
        map_on(session, wait, range(200))
    assert list(run(session, Cell("px_rank"), timeout_s=10).last) == [0, 1]


def update_of_a_matrix_in_blocks(session: Session) -> tuple[Any, dict[str, Any]]:
    """Return a formula and its inputs, of which C lies on the engines in column blocks."""
    cell = "mean = m + C*H.T*(H*C*H.T + R).I*(y - H*m)\ncov = C - C*H.T*(H*C*H.T + R).I*H*C"
    formula = compile_formula(cell, assumptions="m, y: vector; C, R: positive_definite")
    formula.in_blocks = functools.partial(call_in_blocks, session)
    scatter(session, "C", 2 * np.eye(8), axis=1)
    held = state.collect(session, "C")
    return formula, {"m": np.zeros(8), "H": np.ones((1, 8)), "R": np.eye(1), "y": np.ones(1), "C": held}


def test_an_interrupted_update_in_blocks_leaves_the_engines_idle_and_the_matrix_as_it_was(
    session: Session, tmp_path: Path
) -> None:
    marker = tmp_path / "begun"
    formula, inputs = update_of_a_matrix_in_blocks(session)
    slow = f"""
import time, pxtools.remote.columns as columns
usual = columns.run
def run(engine, message):
    if "V" in message["sent"]:
        open({str(marker)!r}, "w").close()
        time.sleep(30)
    return usual(engine, message)
columns.run = run"""
    run(session, Cell(slow, collects=False))
    press_ctrl_c_when_there(marker)
    with pytest.raises(PxInterrupted, match="are idle"):
        formula(**inputs)
    run(session, Cell("columns.run = usual", collects=False))
    assert np.array_equal(gather(session, "C"), 2 * np.eye(8))
    assert list(run(session, Cell("'cov' in globals()")).last) == [False] * N
    cov = np.concatenate(list(formula(**inputs).cov), axis=1)
    np.testing.assert_allclose(cov, 2 * np.eye(8) - 4 / 17, atol=1e-15)


def test_an_update_in_blocks_says_whose_columns_died(session: Session) -> None:
    formula, inputs = update_of_a_matrix_in_blocks(session)
    run(session, Cell("import os, pxtools.remote.columns as columns\nif px_rank: columns.run = lambda *_: os._exit(1)"))
    with pytest.raises(PxEngineLost, match=r"(?s)engine \d+ died.*Its columns of `C` went with it.*resize -n 2"):
        formula(**inputs)
    with pytest.raises(PxEngineLost, match="went with it"):
        formula(**inputs)


def test_an_interrupted_sampling_keeps_the_draws_that_there_are(session: Session, tmp_path: Path) -> None:
    kept: list[Any] = []
    marker = tmp_path / "begun"
    begin = f"    if x > 2.5: open({str(marker)!r}, 'w').close()\n"
    g = define(session, f"def g(x, y):\n{begin}    return -(x * x + y * y) / 2")
    options: dict[str, Any] = {"chains": 2, "seed": 1, "sampler": "rwm", "tier": "python"}  # choosing calls g
    press_ctrl_c_when_there(marker, after_s=3)  # each chain has draws by then
    with pytest.raises(PxInterrupted):
        sample(session, g, draws=100_000_000, on_partial=kept.append, **options)
    (partial,) = kept
    assert partial.n_draws > 0
    whole = sample(session, g, draws=min(partial.n_draws, 5_000), **options)
    assert np.array_equal(whole.draws, partial.draws[:, : whole.n_draws])


def test_a_timeout_interrupts_and_says_what_to_type(session: Session) -> None:
    with pytest.raises(PxTimeout, match="--timeout"):
        run(session, Cell("import time; time.sleep(60)"), timeout_s=0.5)
    with pytest.raises(PxTimeout, match="--timeout"):
        map_on(session, define(session, "def wait(n):\n    import time\n    time.sleep(n)"), [30] * 3, timeout_s=0.5)
    assert list(run(session, Cell("px_rank")).last) == [0, 1]


def test_an_engine_that_cannot_be_interrupted_is_named_and_can_be_replaced(session: Session) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN)\nif px_rank == 0: time.sleep(600)"
    with pytest.raises(
        PxTimeout, match=f"engine {session.wire.ids[0]} cannot be interrupted. Replace: `%pxcluster restart -t"
    ):
        run(session, Cell(deaf), timeout_s=0.5)
    session.namespace["offset"] = 3
    stuck = session.wire.engines[session.wire.ids[0]]["pid"]
    session.restart(session.wire.ids[0])
    assert not is_running(stuck)
    assert len(session.wire.ids) == N
    assert list(run(session, Cell("offset + px_rank")).last) == [3, 4]
    session.restart()


def test_an_engine_that_dies_between_being_chosen_and_being_sent_to_is_left_out_or_named(session: Session) -> None:
    f = define(session, "def f(n): return -n")
    first, second = session.wire.ids
    pids = {i: session.wire.engines[i]["pid"] for i in (first, second)}
    usual = session.targets

    def late(spec: Any = None) -> list[int]:
        chosen = usual(spec)
        os.kill(pids[second], signal.SIGKILL)
        while second in session.wire.alive:
            time.sleep(0.01)
        return chosen

    session.targets = late  # type: ignore[method-assign]
    try:
        assert map_on(session, f, range(10)) == [-n for n in range(10)]
        session.targets = usual  # type: ignore[method-assign]
        session.resize(N)
        second = session.wire.ids[1]
        pids[second] = session.wire.engines[second]["pid"]
        session.targets = late  # type: ignore[method-assign]
        with pytest.raises(PxEngineLost, match=f"engine {second} died"):
            state.collect(session, "1")
    finally:
        session.targets = usual  # type: ignore[method-assign]


def _states(session: Session, expected: list[str]) -> list[str]:
    """Return what the engines are said to do; the hub may hear of the end of a call a moment after the client."""
    deadline = time.monotonic() + 5
    while (states := [row[5] for row in status(session).rows]) != expected and time.monotonic() < deadline:
        time.sleep(0.05)
    return states


def test_a_frozen_engine_is_named_and_left_out_until_it_goes_on(session: Session) -> None:
    lines: list[str] = []
    session.notify = lines.append
    first, second = session.wire.ids
    session.namespace["offset"] = 5
    state.push(session, ["offset"])
    with frozen(session, second):
        assert list(run(session, Cell("offset + px_rank")).last) == [5]
        assert f"engine {second} is frozen (stopped, as by SIGSTOP)" in lines[-1]
        assert f"`%pxcluster restart -t {second}` replaces it" in lines[-1]
        with pytest.raises(PxEngineLost, match=f"engine {second} is frozen"):
            run(session, Cell("1", targets=second))
        assert _states(session, ["idle", "frozen"]) == ["idle", "frozen"]
        session.namespace["offset"] = 6
        state.push(session, ["offset"])
        state.import_(session, "from math import sqrt as root")
        said = len(lines)
    time.sleep(0.3)
    assert state.collect(session, "(offset, root(4))", how="dict") == {first: (6, 2.0), second: (6, 2.0)}
    assert lines[said:] == [f"engine {second} goes on, and is used again"]


def test_a_push_to_all_counts_for_a_frozen_engine_and_one_to_those_awake_does_not(session: Session) -> None:
    first, second = session.wire.ids
    session.namespace["b"] = [1, 2, 3, 4]
    scatter(session, "b", session.namespace["b"])
    with frozen(session, second):
        state.push(session, ["b"], targets=first)
        assert "b" in session.cuts  # the other still has its piece
        state.push(session, ["b"])
        assert "b" not in session.cuts
    time.sleep(0.3)
    assert state.collect(session, "b", how="dict") == {first: [1, 2, 3, 4], second: [1, 2, 3, 4]}


def test_an_engine_that_freezes_in_a_cell_is_given_up_and_the_others_work_is_kept(session: Session) -> None:
    lines: list[str] = []
    session.notify = lines.append
    first, second = session.wire.ids
    session.namespace["a"] = 1
    code = "import time\nfor k in range(10 if px_rank == 0 else 1000): time.sleep(0.1)\ny = a + px_rank"
    with frozen(session, second, after_s=0.3):
        result = run(session, Cell(code))
        assert isinstance(result.error, PxEngineLost)
        assert f"engine {second} is frozen" in str(result.error)
        assert session.namespace["y"].dict() == {first: 1}
        assert f"engine {second} is frozen (its process is stopped); going on without it" in lines
    del session.namespace["y"]
    time.sleep(0.3)
    assert list(run(session, Cell("a + px_rank")).last) == [1, 2]  # interrupted in its loop, and idle


def test_items_of_a_frozen_engine_are_mapped_elsewhere(session: Session) -> None:
    slow = define(session, "def slow(n):\n    import time\n    time.sleep(0.05)\n    return n * n")
    with frozen(session, session.wire.ids[0], after_s=0.5):
        assert map_on(session, slow, range(60)) == [n * n for n in range(60)]
    time.sleep(0.3)
    assert list(run(session, Cell("px_rank")).last) == [0, 1]


def test_a_frozen_engine_can_be_replaced_by_one_with_the_same_state(session: Session) -> None:
    session.namespace["offset"] = 5
    state.import_(session, "from math import sqrt as root")
    state.push(session, ["offset"], {"CONSTANT": 7})
    second = session.wire.ids[1]
    with frozen(session, second) as pid:
        new = session.restart(second)
        assert not is_running(pid)
    assert len(new) == N
    assert second not in new
    assert state.collect(session, "(root(offset + 4), CONSTANT)", how="list") == [(3.0, 7)] * N


def test_an_engine_killed_in_a_collect_is_named_and_leaves_no_file(session: Session) -> None:
    first, second = session.wire.ids
    run(session, Cell("import time, numpy as np\ndef slowly():\n    time.sleep(2)\n    return np.ones(10**6)"))
    session.settings.collect_limit, usual = 10**9, session.settings.collect_limit
    try:
        kill_after(session, second, 0.5)
        with pytest.raises(PxEngineLost, match=f"engine {second} died"):
            state.collect(session, "slowly()")
    finally:
        session.settings.collect_limit = usual
    assert state.collect(session, "px_size * 0 + 1", how="dict") == {first: 1}
    assert os.listdir(session.wire.folder) == []


def test_what_an_engine_lent_and_nobody_read_goes_with_it(session: Session) -> None:
    second = session.wire.ids[1]
    pid = session.wire.engines[second]["pid"]
    left = Path(session.wire.folder) / f"of-{pid}-left.0"
    left.touch()
    kill_after(session, second, 0.0)
    run(session, Cell("import time; time.sleep(1)"))
    assert not left.exists()


def test_the_late_answer_of_an_engine_that_was_given_up_leaves_no_file(session: Session) -> None:
    lent = (
        "import numpy as np\nlent = np.zeros(60_000)"  # travels in a file: too large for a message, too small to stay
    )
    deaf = f"import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(4)\n{lent}"
    with pytest.raises(PxTimeout, match="cannot be interrupted"):
        run(session, Cell(deaf), timeout_s=0.5)
    assert list(
        run(session, Cell("import signal; signal.signal(signal.SIGINT, signal.default_int_handler); px_rank")).last
    ) == [0, 1]
    assert os.listdir(session.wire.folder) == []


def test_an_interrupted_map_keeps_what_is_done(session: Session, tmp_path: Path) -> None:
    marker = tmp_path / "begun"
    begin = f"    if n == 4: open({str(marker)!r}, 'w').close()\n"
    wait = define(session, f"def wait(n):\n    import time\n{begin}    time.sleep(30 * (n > 3))\n    return n")
    press_ctrl_c_when_there(marker)
    with pytest.raises(PxInterrupted, match=r"What is done is kept: `pxtools.last_map\(\)`"):
        map_on(session, wait, range(8), chunksize=1)
    assert session.unfinished_map == {n: n for n in range(4)}


def test_a_result_that_cannot_be_read_here_is_described_and_never_waited_for(session: Session) -> None:
    code = "class Odd:\n    def __reduce__(self): return (eval, ('1/0',))\nodd = Odd()"
    result = run(session, Cell(code))
    assert result.error is None
    assert "cannot be read here: division by zero" in session.namespace["odd"][0].why
