"""Runs from plan to samples: pieces, seeds, and what the summary says."""

import json
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest
from three_gaussians import exact_draws, gaussian

from pxtools import sampling
from pxtools.errors import PxUsageError, TargetError
from pxtools.sampling.regions import lies_in_one_mode, regions

TARGET = sampling.resolve_target(gaussian, density=True)
STARTS = np.random.default_rng(0).random((10, 2))


def make_plan(target, **options):
    """Make a plan for the random walk unless told otherwise."""
    return sampling.make_plan(target, **{"sampler": "rwm", **options})


def run(initial=STARTS, **options):
    return sampling.sample_here(TARGET, make_plan(TARGET, initial=initial, **{"seed": 1, **options}))


@pytest.fixture(scope="module")
def ten_walkers():
    return run(draws=10_000, warmup=100, step=0.1)


def in_pieces(plan, sizes):
    chunks = []
    for state in sampling.start_groups(plan):
        group, turn = [], 0
        while state.n_done < plan.n_steps:
            n_steps = min(sizes[turn % len(sizes)], plan.n_steps - state.n_done)
            chunk = pickle.loads(pickle.dumps(sampling.advance(TARGET, pickle.loads(pickle.dumps(state)), n_steps)))
            group.append(chunk)
            state, turn = chunk.state, turn + 1
        chunks.append(group)
    return sampling.assemble(plan, chunks)


# --- pieces and seeds ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[1], [7, 100, 3], [150], [10_000]])
@pytest.mark.parametrize("thin", [1, 4])
@pytest.mark.parametrize("sampler", sampling.SAMPLERS)
def test_how_a_run_is_cut_never_changes_it(sampler, sizes, thin):
    plan = make_plan(TARGET, sampler=sampler, initial=STARTS[:3], draws=60, warmup=133, thin=thin, seed=4)
    whole, pieces = sampling.sample_here(TARGET, plan), in_pieces(plan, sizes)
    np.testing.assert_array_equal(pieces.draws, whole.draws)
    np.testing.assert_array_equal(pieces.values, whole.values)
    np.testing.assert_array_equal(pieces.acceptance_rate, whole.acceptance_rate)
    assert pieces.n_evaluations == whole.n_evaluations
    most = 3 * (133 + 60 * thin + 1)  # a snooker move away from the very point has no direction: nothing to evaluate
    assert most - (3 if sampler == "auto" else 0) <= whole.n_evaluations <= most


def test_thinning_and_warmup_only_leave_draws_out():
    every = run(draws=300, warmup=0).draws
    np.testing.assert_array_equal(run(draws=66, warmup=102, thin=3).draws, every[:, 104::3])


@pytest.mark.parametrize("sampler", sampling.SAMPLERS)
def test_state_is_left_alone_so_that_a_lost_chunk_can_be_run_again(sampler):
    state = sampling.start_groups(make_plan(TARGET, sampler=sampler, initial=STARTS, seed=3))[1]
    before = pickle.dumps(state)
    first, second = sampling.advance(TARGET, state, 200), sampling.advance(TARGET, state, 200)
    np.testing.assert_array_equal(first.draws, second.draws)
    assert pickle.dumps(state) == before
    assert len(before) < 4000


def test_chains_depend_on_their_number_and_the_seed_only():
    many, few = run(draws=50).draws, run(STARTS[:4], draws=50).draws
    np.testing.assert_array_equal(many[:4], few)
    assert not np.array_equal(many, run(draws=50, seed=2).draws)


def test_groups_that_got_less_far_cut_the_result_and_a_note_says_so():
    plan = make_plan(TARGET, initial=STARTS[:2], draws=100, warmup=10, seed=1)
    one, two = sampling.start_groups(plan)
    samples = sampling.assemble(plan, [[sampling.advance(TARGET, one, 110)], [sampling.advance(TARGET, two, 50)]])
    assert samples.n_draws == 40
    assert "Stopped early: 40 of 100 draws per chain." in samples.notes
    with pytest.raises(PxUsageError, match="warm-up"):
        sampling.assemble(plan, [[sampling.advance(TARGET, one, 110)], []])


def test_progress_is_told():
    seen = []
    plan = make_plan(TARGET, initial=STARTS[:2], draws=500, seed=1)
    sampling.sample_here(TARGET, plan, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (1200, 1200)
    assert seen == sorted(seen)


def test_chain_that_cannot_start_says_which_and_what_to_type():
    with pytest.raises(TargetError, match=r"Chain 1 cannot start: gaussian\(90.0, 90.0\) is 0.0"):
        run([[0.5, 0.2], [90.0, 90.0]])


def test_what_engines_run_imports_the_standard_library_and_numpy_only():
    code = (
        "import sys, json; before = set(sys.modules); from pxtools import sampling\n"
        "target = sampling.resolve_target(lambda x, y: -x * x - y * y)\n"
        "state = sampling.start_groups(sampling.make_plan(target, seed=1))[0]\n"
        "sampling.advance(target, state, 10)\n"
        "tops = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(json.dumps(sorted(tops - sys.stdlib_module_names)))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert {name for name in json.loads(output) if not name.startswith("_")} <= {"numpy", "pxtools", "cython_runtime"}


# --- what the summary says -------------------------------------------------------------------------------------------


def test_ten_walkers_disagree_and_the_summary_says_who_stays_where(ten_walkers):
    summary = ten_walkers.summary()
    assert summary.rhat.max() > 1.1
    (warning,) = summary.warnings
    assert warning.startswith("the chains disagree (R-hat above 1.01: y 1.6")
    low = [k for k, chain in enumerate(ten_walkers["y"]) if chain.mean() < 0.45]
    assert f"chains {', '.join(map(str, low))} stay near (x = 0.5, y = 0.2)" in warning
    for text in (repr(ten_walkers), ten_walkers._repr_html_()):
        assert "the chains disagree" in text


def test_three_modes_are_told_apart():
    samples = run(draws=200)
    found, travellers = regions(samples.draws)
    assert sorted(tuple(np.round(centre, 1)) for _, centre in found) == [(0.3, 0.7), (0.5, 0.2), (0.7, 0.7)]
    assert sorted(travellers + [chain for members, _ in found for chain in members]) == list(range(10))


@pytest.mark.parametrize("seed", range(5))
def test_starts_in_one_mode_are_said_though_the_chains_agree(seed):
    starts = [0.7, 0.7] + 0.05 * np.random.default_rng(seed).standard_normal((10, 2))
    samples = run(starts, draws=1000, seed=seed)
    assert samples.draws[..., 1].min() > 0.4
    said = [text for text in (*samples.summary().warnings, *samples.summary().notes) if text.startswith("all 10")]
    assert len(said) == 1
    assert "in one mode" in said[0] or "in one place" in said[0]
    assert said[0] in samples.summary().notes or said[0] in samples.summary().warnings


@pytest.mark.parametrize("spread", [0, 1e-3, 0.01])
def test_starts_in_one_place_are_a_warning(spread):
    starts = [0.5, 0.2] + spread * np.random.default_rng(0).standard_normal((6, 2))
    (warning,) = [text for text in run(starts, draws=2000).summary().warnings if "one place" in text]
    assert "all 6 chains started in one place, (x = 0.5, y = 0.2)" in warning


def test_spread_starts_that_meet_are_no_finding():
    target = sampling.resolve_target(lambda x, y: -0.5 * (x * x + y * y), names=["x", "y"])
    starts = [[-6, 6], [6, -6], [6, 6], [-6, -6]]
    plan = make_plan(target, initial=starts, draws=20_000, step=2.5, seed=1)
    summary = sampling.sample_here(target, plan).summary()
    assert (summary.warnings, summary.notes) == ((), ())


def test_one_mode_is_not_claimed_of_starts_on_both_sides_of_a_valley():
    points = exact_draws(np.random.default_rng(0), 20_000)
    assert lies_in_one_mode(np.array([[0.5, 0.2], [0.45, 0.22]]), points)
    assert not lies_in_one_mode(np.array([[0.5, 0.2], [0.7, 0.7]]), points)
    assert not lies_in_one_mode(np.array([[0.5, 0.2], [3.0, 0.2]]), points)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"step": 1e-4, "draws": 500}, "take a larger --step"),
        ({"step": 50.0, "draws": 2000}, "take a smaller --step"),
        ({"draws": 30, "initial": STARTS[:1]}, "few effective draws"),
    ],
)
def test_walking_badly_is_said_with_what_to_type(options, words):
    assert any(words in text for text in run(**options).summary().warnings)


def test_chain_that_never_moves_is_named():
    samples = run(STARTS[:3], step=1e9, draws=100)
    assert any(text.startswith("chains 0, 1, 2 never move: every step") for text in samples.summary().warnings)


def test_nan_is_counted_and_its_first_point_shown():
    target = sampling.resolve_target(lambda x, y: float("nan") if x > 1 else -x * x - y * y)
    samples = sampling.sample_here(target, make_plan(target, initial=np.zeros((4, 2)), step=1.0, seed=1))
    (warning,) = [text for text in samples.summary().warnings if "NaN" in text]
    assert f"was NaN {samples.n_nan:,} times" in warning
    assert samples.first_nan[0] > 1
    assert samples.draws[..., 0].max() <= 1


def test_log_density_that_is_never_negative_may_be_a_density():
    target = sampling.resolve_target(gaussian)
    samples = sampling.sample_here(target, make_plan(target, initial=STARTS, step=0.01, seed=1))
    assert any("add --density" in text for text in samples.summary().warnings)


def test_log_density_with_a_large_constant_is_not_taken_for_a_density():
    """The likelihood of precise data is above 1 everywhere that matters."""
    target = sampling.resolve_target(lambda x, y: 100.0 - x * x - y * y)
    samples = sampling.sample_here(target, make_plan(target, seed=1))
    assert samples.values.min() > 0
    assert not any("add --density" in text for text in samples.summary().warnings)


def test_one_chain_says_that_there_is_no_rhat():
    assert any("no R-hat" in text for text in run(STARTS[:1]).summary().notes)


@pytest.mark.parametrize(
    ("sampler", "kernel", "n_groups"), [("auto", "demcz", 2), ("ram", "ram", 4), ("rwm", "rwm", 4)]
)
def test_run_without_the_compiled_loop_gives_the_same_draws_and_says_so(sampler, kernel, n_groups):
    code = (
        f"import sys; sys.modules['pxtools.kernels._{kernel}'] = None\n"
        "from pxtools import sampling\n"
        "target = sampling.resolve_target(lambda x, y: -x * x - y * y)\n"
        f"plan = sampling.make_plan(target, seed=1, sampler={sampler!r})\n"
        "samples = sampling.sample_here(target, plan)\n"
        "print(samples.draws.tobytes().hex()[:4000]); print(samples.notes[-1])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    target = sampling.resolve_target(lambda x, y: -x * x - y * y)
    draws = sampling.sample_here(target, sampling.make_plan(target, seed=1, sampler=sampler)).draws
    assert output.splitlines()[0] == draws.tobytes().hex()[:4000]
    assert f"ran uncompiled for {n_groups} of {n_groups}" in output.splitlines()[1]


def test_piece_that_is_cut_by_time_is_the_way_of_one_that_is_not():
    target = sampling.resolve_target(lambda x, y: -x * x - y * y)
    plan = sampling.make_plan(target, draws=300, warmup=200, seed=1, thin=2)
    states, pieces, n_calls = sampling.start_groups(plan), [[], []], 0
    while states[0].n_done < plan.n_steps:
        found = sampling.advance_for(target, states, plan.n_steps - states[0].n_done, 0.002)
        pieces = [before + new for before, new in zip(pieces, found, strict=True)]
        states, n_calls = [group[-1].state for group in pieces], n_calls + 1
    assert n_calls > 1
    whole = sampling.assemble(
        plan, [[chunk] for chunk in sampling.advance_all(target, sampling.start_groups(plan), plan.n_steps)]
    )
    cut = sampling.assemble(plan, pieces)
    np.testing.assert_array_equal(cut.draws, whole.draws)
    np.testing.assert_array_equal(cut.values, whole.values)


def test_slow_target_is_asked_for_one_step_before_the_chunk_ends():
    calls = []

    def slow(x, y):
        time.sleep(0.01)
        calls.append(x)
        return -x * x - y * y

    target = sampling.resolve_target(slow)
    plan = sampling.make_plan(target, draws=300, seed=1)
    chunk = sampling.advance_for(target, sampling.start_groups(plan)[:1], plan.n_steps, 0.01)[0][-1]
    assert chunk.state.n_done == 1
    assert len(calls) == 8  # four start points, four chains


def test_long_run_has_a_long_warmup_unless_told():
    target = sampling.resolve_target(lambda x, y: -x * x - y * y)
    found = [sampling.make_plan(target, draws=draws, thin=2).warmup for draws in (1_000, 10_000, 1_000_000)]
    assert found == [1_000, 4_000, 20_000]
    assert sampling.make_plan(target, draws=10_000, warmup=7).warmup == 7
    assert sampling.make_plan(target, draws=10_000, sampler="rwm").warmup == 100
