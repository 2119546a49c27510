"""Robust adaptive Metropolis, both tiers: the update, the twins, the frozen walk, and what it learns."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_rwm_statistics import MAX_Z, largest_z
from three_gaussians import exact_draws, gaussian

from pxtools import sampling
from pxtools.kernels import ram_numpy

try:
    from pxtools.kernels import _ram
except ImportError:
    TIERS = {"twin": ram_numpy.walk}
else:
    TIERS = {"compiled": _ram.walk, "twin": ram_numpy.walk}


def call(walk, target, start, n_steps, *, seed=1, factor=None, n_rates=0, is_scalar=True, **changes):
    x = np.array(start, dtype=float)
    options = {"is_density": True, "first_kept": 1, "thin": 1, "goal": 0.234}
    options["box"] = np.array([np.full(x.size, -np.inf), np.full(x.size, np.inf), np.zeros(x.size)])
    options |= changes
    factor = 0.1 * np.eye(x.size) if factor is None else factor.copy()
    draws, values = np.empty((max(0, n_steps - options["first_kept"] + 1), x.size)), np.empty(n_steps)
    counts = np.zeros(3, dtype=np.int64)
    value = float(target(*x.tolist()) if is_scalar else target(x.copy()))
    walk(
        target,
        x,
        value,
        n_steps,
        np.random.default_rng(seed),
        factor=factor,
        rates=np.minimum(0.99, 2 * np.arange(1.0, n_rates + 1) ** -0.66),
        draws=draws,
        values=values[: len(draws)],
        counts=counts,
        first_nan=np.full(x.size, np.nan),
        is_scalar=is_scalar,
        **options,
    )
    return draws, values[: len(draws)], counts, factor, x


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), n=st.integers(1, 5), change=st.floats(-0.9, 5))
def test_update_is_the_one_of_the_paper(seed, n, change):
    rng = np.random.default_rng(seed)
    factor = np.tril(rng.standard_normal((n, n))) + 3 * np.eye(n)
    u = rng.standard_normal(n)
    expected = factor @ (np.eye(n) + change * np.outer(u, u) / (u @ u)) @ factor.T
    rows = factor.tolist()
    ram_numpy.update(rows, u.tolist(), change)
    np.testing.assert_allclose(np.array(rows) @ np.array(rows).T, expected, rtol=1e-9, atol=1e-9)
    assert (np.triu(rows, 1) == 0).all()


@pytest.mark.skipif(len(TIERS) == 1, reason="the kernels are not compiled here")
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    n_steps=st.integers(0, 400),
    n_params=st.integers(1, 4),
    n_rates=st.integers(0, 500),
    is_density=st.booleans(),
)
def test_compiled_walk_and_twin_agree_bit_for_bit(seed, n_steps, n_params, n_rates, is_density):
    def target(point):
        squares = sum(x * x for x in point.tolist())
        if squares > 9:
            return math.nan if squares > 12 else (0 if is_density else -math.inf)
        return math.exp(-squares / 2) if is_density else -squares / 2

    options = {"seed": seed, "n_rates": n_rates, "is_scalar": False, "is_density": is_density}
    one, two = (call(walk, target, np.zeros(n_params), n_steps, **options) for walk in TIERS.values())
    for mine, its in zip(one, two, strict=True):
        np.testing.assert_array_equal(mine, its)


@pytest.mark.parametrize("tier", TIERS)
def test_frozen_walk_from_exact_draws_keeps_the_density(tier):
    starts = exact_draws(np.random.default_rng(11), 8_000 if tier == "compiled" else 1_500)
    factor = np.array([[0.1, 0.0], [0.05, 0.2]])
    ends = [
        call(TIERS[tier], gaussian, start, 10, seed=k, first_kept=11, factor=factor)[-1]
        for k, start in enumerate(starts)
    ]
    assert largest_z(np.array(ends)) < MAX_Z


def test_it_learns_scales_and_correlation_and_reaches_its_acceptance_rate():
    def log_density(x, y):
        u, v = x / 100.0, y / 0.01
        return -(u * u - 1.8 * u * v + v * v) / (2 * (1 - 0.81))

    target = sampling.resolve_target(log_density)
    starts = np.random.default_rng(0).standard_normal((4, 2)) * [300, 0.03]
    plan = sampling.make_plan(target, sampler="ram", initial=starts, draws=20_000, warmup=4_000, seed=1)
    samples = sampling.sample_here(target, plan)
    assert np.abs(samples.acceptance_rate - 0.234).max() < 0.05
    summary = samples.summary()
    assert summary.rhat.max() < 1.01
    assert (np.abs(summary.mean) < MAX_Z * summary.mcse).all()
    assert (np.abs(summary.sd - [100, 0.01]) < MAX_Z * summary.mcse_sd).all()
    assert abs(np.corrcoef(samples.points.T)[0, 1] - 0.9) < 0.02
