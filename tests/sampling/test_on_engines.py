"""Runs on a real cluster: the same draws for any number of engines, goals, files, and what an interrupt leaves."""

import math
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from pxtools.errors import PxTimeout, PxUsageError
from pxtools.sampling import Samples
from pxtools.sampling.checkpoint import Checkpoint, read, write
from pxtools.session.sampling import sample

SOURCE = """
import math
width = 0.04
def density(x, y):
    one = math.exp(-(((0.5 - x) / 0.15) ** 2 + ((0.2 - y) / width) ** 2) / 2)
    return one + math.exp(-(((0.7 - x) / 0.05) ** 2 + ((0.7 - y) / 0.05) ** 2) / 2)
def slow(x, y):
    import time
    time.sleep(0.001)
    return -(x * x + y * y) / 2
"""


@pytest.fixture
def run(session):
    exec(SOURCE, session.namespace)

    def call(name="density", **options):
        defaults = {
            "density": name == "density",
            "bounds": (0, 1),
            "draws": 400,
            "warmup": 200,
            "chains": 12,
            "seed": 5,
            "tier": "python",  # compiling is not what these tests wait for
        }
        return sample(session, session.namespace[name], **{**defaults, **options})

    return call


@pytest.mark.parametrize("sampler", ["auto", "ram", "rwm"])
def test_draws_are_the_same_bits_on_one_two_and_four_engines_and_here(sampler, run, session):
    from pxtools import sampling

    runs = [run(sampler=sampler, targets=targets) for targets in (session.wire.ids[:1], session.wire.ids[:2], None)]
    target = sampling.resolve_target(session.namespace["density"], density=True)
    options = {"bounds": (0, 1), "draws": 400, "warmup": 200, "chains": 12, "seed": 5}
    here = sampling.sample_here(target, sampling.make_plan(target, sampler=sampler, **options))
    for there in runs:
        np.testing.assert_array_equal(there.draws, here.draws)
        np.testing.assert_array_equal(there.values, here.values)
        assert there.n_evaluations == here.n_evaluations


def test_until_stops_at_a_goal_and_at_the_same_draw_on_any_number_of_engines(run, session):
    goal = {"until": "rhat<1.02 ess>400", "draws": None}
    samples = run(**goal)
    summary = samples.summary()
    assert summary.rhat.max() < 1.02
    assert min(summary.ess_bulk.min(), summary.ess_tail.min()) > 400
    assert any("rhat<1.02 ess>400 was met" in note for note in samples.notes)
    assert not any("early" in note for note in samples.notes)
    np.testing.assert_array_equal(run(**goal, targets=session.wire.ids[:1]).draws, samples.draws)


def test_goal_that_is_not_met_is_said(run):
    samples = run(until="ess>1e9")
    assert samples.n_draws == 400
    assert any("ess>1e9 is not met" in note for note in samples.notes)


@pytest.mark.parametrize("text", ["rhat>1.01", "esss>3", "nonsense", "", "ess>1e", "rhat<1.01 and more"])
def test_goal_that_cannot_be_read_is_a_usage_error(text, run):
    with pytest.raises(PxUsageError, match="--until"):
        run(until=text)


def test_timeout_keeps_what_there_is_or_says_that_there_is_nothing(run):
    samples = run("slow", draws=100_000, warmup=8, timeout_s=1.5)
    assert 0 < samples.n_draws < 100_000
    assert any("--timeout 1.5" in note for note in samples.notes)
    with pytest.raises(PxTimeout):
        run("slow", warmup=100_000, timeout_s=0.7)


def test_run_that_is_resumed_gives_the_draws_of_one_that_was_not_stopped(run, tmp_path):
    path = tmp_path / "run.px"
    run(draws=100, checkpoint=path)
    longer = run(draws=400, checkpoint=path, resume=True)
    np.testing.assert_array_equal(longer.draws, run(draws=400).draws)
    assert [p.name for p in tmp_path.iterdir()] == ["run.px"]


def test_timeout_in_the_warmup_leaves_a_checkpoint_from_which_the_run_goes_on(run, tmp_path):
    path = tmp_path / "run.px"
    options = {"draws": 50, "warmup": 600, "chains": 8, "checkpoint": path}
    with pytest.raises(PxTimeout):
        run("slow", timeout_s=1.2, **options)
    stored = read(path)
    assert any(group[-1].state.n_done for group in stored.chunks if group)
    resumed = run("slow", resume=True, **options)
    del options["checkpoint"]
    np.testing.assert_array_equal(resumed.draws, run("slow", **options).draws)


def test_resume_refuses_another_run_and_names_what_differs(run, tmp_path):
    path = tmp_path / "run.px"
    run(draws=10, checkpoint=path)
    with pytest.raises(PxUsageError, match=r"holds another run; different: warmup, n_chains, n_groups, seed"):
        run(draws=10, warmup=300, chains=4, seed=6, checkpoint=path, resume=True)
    with pytest.raises(PxUsageError, match="--checkpoint FILE --resume"):
        run(resume=True)
    path.write_text("something else")
    with pytest.raises(PxUsageError, match="no checkpoint"):
        run(checkpoint=path, resume=True)


def test_checkpoint_is_never_torn_by_a_kill(tmp_path):
    """Killed at random moments while it writes as fast as it can, a file is always whole."""
    path = tmp_path / "run.px"
    program = (
        "import sys, numpy as np\n"
        "from pxtools import sampling\nfrom pxtools.sampling.checkpoint import Checkpoint, write\n"
        "target = sampling.resolve_target(lambda x, y: -x * x - y * y)\n"
        "plan = sampling.make_plan(target, draws=20_000, warmup=1_000, seed=1)\n"
        "chunks = [[sampling.advance(target, s, 15_000)] for s in sampling.start_groups(plan)]\n"
        "print('ready', flush=True)\n"
        f"while True: write({str(path)!r}, Checkpoint(plan, 'python', chunks))\n"
    )
    for wait in (0.05, 0.12, 0.2):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
            process.stdout.readline()
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
        if path.exists():
            assert read(path).chunks[0][0].draws.shape == (4, 14_000, 2)
    assert path.exists()


def test_noblock_gives_a_handle_that_can_be_asked_and_cancelled(run):
    handle = run("slow", draws=100_000, warmup=8, block=False)
    assert not handle.done
    deadline = time.monotonic() + 20
    while handle.samples is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "sampling slow" in repr(handle)
    handle.cancel()
    samples = handle.result(20)
    assert handle.done
    assert 0 < samples.n_draws < 100_000


def press_ctrl_c_when(is_time):
    """Press Ctrl-C once the work has come as far as asked, however long that takes."""

    def watch():
        deadline = time.monotonic() + 120
        while not is_time() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


def test_ctrl_c_keeps_what_there_is_and_leaves_the_engines_idle(run, tmp_path):
    kept, path = [], tmp_path / "run.px"
    press_ctrl_c_when(lambda: path.exists() and all(sum(c.draws.shape[1] for c in g) for g in read(path).chunks))
    with pytest.raises(KeyboardInterrupt):
        run("slow", draws=100_000, warmup=8, checkpoint=path, on_partial=kept.append)
    assert kept[0].n_draws > 0
    assert run(draws=10).n_draws == 10


def test_ctrl_c_in_the_warmup_is_a_keyboard_interrupt_and_nothing_else(run, tmp_path):
    kept, path = [], tmp_path / "run.px"
    press_ctrl_c_when(path.exists)
    with pytest.raises(KeyboardInterrupt):
        run("slow", warmup=100_000, checkpoint=path, on_partial=kept.append)
    assert kept == []


KILLED = """
import sys
from pxtools.session.core import Session
from pxtools.session.sampling import sample
import pxtools.session.sampling as module
module._CHECKPOINT_S = 0.0
session = Session({"__name__": "__main__"}, notify=lambda line: None)
session.connect(file=sys.argv[1])
exec(open(sys.argv[2]).read(), session.namespace)
options = {"draws": 400, "warmup": 100, "chains": 8, "seed": 5, "sampler": sys.argv[4], "checkpoint": sys.argv[3]}
sample(session, session.namespace["slow"], **options)
"""


@pytest.mark.parametrize("sampler", ["auto", "rwm"])
def test_client_that_is_killed_leaves_a_file_to_go_on_from_bit_for_bit(sampler, run, session, tmp_path):
    path, source = tmp_path / "run.px", tmp_path / "source.py"
    source.write_text(SOURCE)
    client = [sys.executable, "-c", KILLED, session.connection.cluster.cluster_file, str(source), str(path), sampler]
    with subprocess.Popen(client) as process:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if path.exists() and min(sum(c.draws.shape[1] for c in g) for g in read(path).chunks) > 0:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    options = {"draws": 400, "warmup": 100, "chains": 8, "sampler": sampler, "bounds": None}
    assert min(sum(c.draws.shape[1] for c in g) for g in read(path).chunks) < 400
    resumed = run("slow", checkpoint=path, resume=True, **options)
    np.testing.assert_array_equal(resumed.draws, run("slow", **options).draws)


def test_resume_refuses_another_target_and_another_tier(run, session, tmp_path):
    path = tmp_path / "run.px"
    run(draws=10, checkpoint=path)
    exec(SOURCE, session.namespace)  # defined again, the same
    assert run(draws=20, checkpoint=path, resume=True).n_draws == 20
    session.namespace["width"] = 0.05
    with pytest.raises(PxUsageError, match=r"different: `density` itself \(its code, or a value that it uses\)"):
        run(draws=20, checkpoint=path, resume=True)
    session.namespace["width"] = 0.04
    pytest.importorskip("numba")
    with pytest.raises(PxUsageError, match=r"target tier \(python then, numba now\)"):
        run(draws=20, checkpoint=path, resume=True, tier="numba")


def test_target_and_its_data_travel_once_however_many_chunks_there_are(run, session):
    session.namespace["data"] = np.random.default_rng(0).standard_normal(20_000)
    exec("def with_data(x, y):\n    return -((data[:9] - x) ** 2).sum() - y * y", session.namespace)
    options = {"bounds": None, "warmup": 300, "chains": 8}
    before = session.ledger.bytes_sent
    run("with_data", draws=20, **options)
    once = session.ledger.bytes_sent - before
    assert once >= session.namespace["data"].nbytes
    before = session.ledger.bytes_sent
    run("with_data", draws=4_000, **options)
    assert session.ledger.bytes_sent - before < session.namespace["data"].nbytes / 10


def test_magic_takes_the_options(cell, session, tmp_path):
    exec(SOURCE, session.namespace)
    session.namespace["box"] = [(0, 1), (0, 1)]
    line = "%pxsample density --density --bounds box --chains 8 --seed 2 --until 'ess>300 rhat<1.05' -o walk"
    samples = cell(f"{line} --checkpoint {tmp_path / 'a.px'}")
    assert isinstance(samples, Samples)
    assert session.namespace["walk"] is samples
    assert (samples.sampler, samples.warmup) == ("auto", 1000)
    handle = cell("%pxsample density --density --bounds box --draws 50 --noblock")
    assert handle.result(30).n_draws == 50


def test_mode_weights_come_out_right_with_default_options(cell, session):
    exec(SOURCE, session.namespace)
    samples = cell('%pxsample density --density --bounds "(0, 1)" --draws 12000 --seed 3')
    exact = 0.15 * 0.04 / (0.15 * 0.04 + 0.05 * 0.05)
    assert abs((samples["y"] < 0.45).mean() - exact) < 4.5 * math.sqrt(exact * (1 - exact) / 5_000)
    assert samples.summary().rhat.max() < 1.01


def test_checkpoint_round_trip_keeps_states(tmp_path):
    from pxtools import sampling

    target = sampling.resolve_target(lambda x, y: -x * x - y * y)
    plan = sampling.make_plan(target, draws=50, warmup=40, seed=1)
    chunks = [[sampling.advance(target, state, 60)] for state in sampling.start_groups(plan)]
    write(tmp_path / "c.px", Checkpoint(plan, "python", chunks))
    back = read(tmp_path / "c.px")
    ends = [sampling.advance(target, group[-1].state, 30).draws for group in back.chunks]
    expected = [sampling.advance(target, group[-1].state, 30).draws for group in chunks]
    np.testing.assert_array_equal(ends, expected)
