"""A series cut in time against the uncut one, over random models, lengths of parts and gaps."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pxtools.kalman import StateSpaceModel, cuts, filter_series, local_level, simulate, there
from pxtools.kalman.cuts import Done, NotCut, Plan, parts_agree, plan_for, with_longer_margin
from pxtools.kalman.pieces import Piece
from tests.kalman.models import random_model

NAMES = (
    *("filtered_mean", "filtered_cov", "predicted_mean", "predicted_cov", "smoothed_mean", "smoothed_cov"),
    *("log_likelihood_steps", "standardized_residuals", "smoothed_lag_one_cov", "process_disturbance"),
)


def done_in_pieces(plan: Plan, y: Any, bounds: list[int], names: tuple[str, ...] = NAMES) -> Done:
    """What engines with a piece each would give, one after another."""
    whole = Done()
    for a, b in itertools.pairwise(bounds):
        engine = SimpleNamespace(tasks={"y": y[a:b]}, engine_id=0)
        margins = y[max(0, a - plan.margin) : a], y[b : b + plan.margin]
        whole.add(there.compute_steps(engine, Piece("kept", "y", a, b), plan, names, margins, None))
    return whole


@settings(max_examples=15, deadline=None, phases=[Phase.reuse, Phase.generate])  # long series take long to shrink
@given(st.data())
def test_parts_have_the_numbers_of_the_uncut_series(data: Any) -> None:
    n, m = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    kind = data.draw(st.sampled_from(["known", "stationary", "diffuse"]))
    seed = data.draw(st.integers(0, 10_000))
    model = random_model(seed, n, m, initial=kind, diagonal=data.draw(st.booleans()))
    n_steps, n_pieces = data.draw(st.integers(9_000, 12_000)), data.draw(st.integers(2, 3))
    known = model.replace(initial_mean=np.zeros(n), initial_cov=np.eye(n))
    y = simulate(known, n_steps, seed=seed).observations[0] + data.draw(st.sampled_from([0.0, 1e3]))
    rng = np.random.default_rng(seed)
    y[rng.random(y.shape) < data.draw(st.sampled_from([0.0, 0.01, 0.3]))] = np.nan
    try:
        plan = plan_for(model, n_steps, n_pieces, "auto")
    except NotCut:
        return
    most = data.draw(st.sampled_from([1, 1_000_000]))
    before, cuts.PART_NUMBERS = cuts.PART_NUMBERS, most
    bounds = [n_steps * k // n_pieces for k in range(n_pieces + 1)]
    try:
        done = done_in_pieces(plan, y, bounds)
        while not parts_agree(done.edges):  # a gap at a cut
            plan = with_longer_margin(plan, n_steps // n_pieces)
            done = done_in_pieces(plan, y, bounds)
    finally:
        cuts.PART_NUMBERS = before
    here = filter_series(model, y)
    assert done.log_likelihood == pytest.approx(here.log_likelihood, rel=1e-12)
    assert done.n_values == np.count_nonzero(~np.isnan(y))
    for name in NAMES:
        exact = getattr(here, name)
        assert np.allclose(
            done.array(name), exact, rtol=1e-12, atol=1e-12 * np.nanmax(np.abs(exact)), equal_nan=True
        ), name


def test_random_models_are_cut() -> None:
    for seed in range(20):
        plan_for(random_model(seed, 3, 2, initial="stationary"), 40_000, 2, "auto")


def test_a_margin_is_as_long_as_the_filter_remembers() -> None:
    quick, slow = (plan_for(local_level(q, observation_var=1.0), 10**7, 2, "auto") for q in (1.0, 1e-4))
    assert quick.margin == 128  # the closed loop is 0.382: 2^-60 after 43 steps; twice that for gaps
    assert slow.margin == 16_384  # 0.99005: 4,158 steps


def test_parts_that_were_cut_too_tightly_do_not_agree() -> None:
    model = local_level(0.01, observation_var=1.0)
    y = simulate(model.replace(initial_mean=[100.0], initial_cov=[[1.0]]), 20_000, seed=1).observations[0]
    plan = plan_for(model, 20_000, 2, "auto")
    assert parts_agree(done_in_pieces(plan, y, [0, 10_000, 20_000]).edges)
    tight = Plan(model, plan.later, 64, 20_000, "auto")
    assert not parts_agree(done_in_pieces(tight, y, [0, 10_000, 20_000], ("filtered_mean",)).edges)
    first, second = done_in_pieces(plan, y, [0, 10_000, 20_000], ("smoothed_mean",)).edges
    assert second.smoothed_first is not None
    moved = second._replace(smoothed_first=second.smoothed_first._replace(mean=second.smoothed_first.mean + 1e-9))
    assert not parts_agree([first, moved])


def test_a_diffuse_start_that_reaches_the_cut_agrees_with_nothing() -> None:
    model = local_level(0.3, observation_var=1.0)
    y = np.random.default_rng(1).normal(size=(8_000, 1))
    y[:5_000] = np.nan
    plan = plan_for(model, 8_000, 2, "auto")
    edges = done_in_pieces(plan, y, [0, 4_000, 8_000], ()).edges
    assert np.isnan(edges[0].after.cov).all()
    assert not parts_agree(edges)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (StateSpaceModel([[1.0]], [[1.0]], np.ones((9_000, 1, 1)), [[1.0]], initial="diffuse"), "changes with time"),
        (StateSpaceModel(np.eye(2), [[1.0, 0.0]], np.eye(2), [[1.0]]), "do not come to rest within 562 steps"),
        (local_level(0.0, observation_var=1.0), "do not come to rest"),
        (local_level(1e-4, observation_var=1.0), "steps"),
    ],
)
def test_what_cannot_be_cut_says_why(model: StateSpaceModel, why: str) -> None:
    with pytest.raises(NotCut, match=why):
        plan_for(model, 9_000, 2, "auto")
