"""Engines that die and users who press Ctrl-C, on a cluster of its own."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pxtools.errors import PxEngineLost, PxInterrupted, PxTimeout
from pxtools.session import state
from pxtools.session.core import Session
from pxtools.session.mapping import map_on
from pxtools.session.run import Cell, run
from pxtools.session.sampling import sample

N = 2


@pytest.fixture(scope="module")
def module_session() -> Iterator[Session]:
    session = Session({"__name__": "__main__"}, notify=lambda line: None)
    session.start(N)
    yield session
    session.disconnect()


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


def press_ctrl_c_when_there(marker: Path) -> None:
    """Press Ctrl-C half a second after the work on the engines has made a file: never before it has begun."""

    def watch() -> None:
        deadline = time.monotonic() + 60
        while not marker.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
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


def test_an_interrupted_sampling_keeps_the_draws_that_there_are(session: Session, tmp_path: Path) -> None:
    kept: list[Any] = []
    marker = tmp_path / "begun"
    begin = f"    if x > 2.5: open({str(marker)!r}, 'w').close()\n"
    g = define(session, f"def g(x, y):\n{begin}    return -(x * x + y * y) / 2")
    press_ctrl_c_when_there(marker)
    with pytest.raises(PxInterrupted):
        sample(session, g, draws=100_000_000, chains=2, seed=1, sampler="rwm", on_partial=kept.append)
    (partial,) = kept
    assert partial.n_draws > 0
    whole = sample(session, g, draws=min(partial.n_draws, 5_000), chains=2, seed=1, sampler="rwm")
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
    session.restart(session.wire.ids[0])
    assert len(session.wire.ids) == N
    assert list(run(session, Cell("offset + px_rank")).last) == [3, 4]
    session.restart()


def test_a_result_that_cannot_be_read_here_is_described_and_never_waited_for(session: Session) -> None:
    code = "class Odd:\n    def __reduce__(self): return (eval, ('1/0',))\nodd = Odd()"
    result = run(session, Cell(code))
    assert result.error is None
    assert "cannot be read here: division by zero" in session.namespace["odd"][0].why
