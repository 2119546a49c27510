"""The random walk keeps its target, and finds it when that is easy. Thresholds come from the Monte Carlo error."""

import numpy as np
import pytest
from three_gaussians import CENTRES, MASSES, MEAN, SD, TIERS, WIDTHS, call_walk, exact_draws, gaussian

from pxtools import sampling
from pxtools.sampling import diagnostics

#: for six functionals, the chance of a larger |z| is 4e-5
MAX_Z = 4.5


def functionals(points):
    """Mode masses, means, a second moment and a cross moment: (n, 6)."""
    x, y = points[..., 0], points[..., 1]
    return np.stack([y < 0.45, (y > 0.45) & (x > 0.5), x, y, (x - MEAN[0]) ** 2, (x - MEAN[0]) * (y - MEAN[1])], -1)


# P(y < .45), P(y > .45, x > .5) by the normal distribution function; the others are moments of a mixture
EXACT = np.array(
    [0.5000518362, 0.2083359113, *MEAN, SD[0] ** 2, MASSES @ (CENTRES[:, 0] * CENTRES[:, 1]) - MEAN[0] * MEAN[1]]
)


def largest_z(points):
    values = functionals(points)
    return np.abs((values.mean(0) - EXACT) / (values.std(0) / np.sqrt(len(values)))).max()


def walk_many(starts, n_steps, rng, accept):
    """Step all points at once, with an accept rule of the caller's; the proposal of the kernel."""

    def density(points):
        return np.exp(-(((points[:, None] - CENTRES) / WIDTHS) ** 2).sum(2) / 2).sum(1)

    points, old = starts, density(starts)
    for _ in range(n_steps):
        proposal = points + 0.1 * (2 * rng.random(points.shape) - 1)
        new = density(proposal)
        is_accepted = accept(rng.random(len(points)), old, new)
        points, old = np.where(is_accepted[:, None], proposal, points), np.where(is_accepted, new, old)
    return points


@pytest.fixture(scope="module")
def starts():
    return exact_draws(np.random.default_rng(11), 20_000)


def test_the_exact_values_are_those_of_exact_draws(starts):
    assert largest_z(starts) < MAX_Z


@pytest.mark.parametrize("tier", TIERS)
def test_walk_from_exact_draws_keeps_the_density(tier, starts):
    walk, n = TIERS[tier], len(starts) if tier == "compiled" else 4_000
    ends = [
        call_walk(walk, gaussian, start, 20, seed=k, first_kept=20, step=0.1)[0][0]
        for k, start in enumerate(starts[:n])
    ]
    assert largest_z(np.array(ends)) < MAX_Z


def test_the_invariance_test_sees_wrong_rules(starts):
    rng = np.random.default_rng(3)
    right = walk_many(starts, 20, rng, lambda u, old, new: u * old < new)
    assert largest_z(right) < MAX_Z
    without_metropolis = walk_many(starts, 20, rng, lambda u, old, new: u * np.sqrt(old) < np.sqrt(new))
    assert largest_z(without_metropolis) > 2 * MAX_Z
    greedy = walk_many(starts, 20, rng, lambda u, old, new: new > old * 0.5)
    assert largest_z(greedy) > 2 * MAX_Z


def test_dropping_rejected_steps_would_be_seen():
    """Without the repeats a walk is too wide; with them it has the target's moments."""
    draws, *_ = call_walk(
        next(iter(TIERS.values())), lambda x: -0.5 * x * x, [0.0], 400_000, step=6.0, is_density=False
    )
    chain = draws[:, 0]
    moved = chain[1:][chain[1:] != chain[:-1]]
    assert len(moved) < 0.6 * len(chain)
    error = diagnostics.mcse_sd(chain[None])
    assert abs(chain.std() - 1) < MAX_Z * error
    assert abs(moved.std() - 1) > 5 * MAX_Z * error


def correlated(x, y):
    return -0.5 * (x * x - 1.2 * x * y + y * y) / 0.64


def test_easy_target_gives_its_moments():
    target = sampling.resolve_target(correlated)
    plan = sampling.make_plan(target, draws=30_000, chains=4, step=2.0, seed=5)
    samples = sampling.sample_here(target, plan)
    summary = samples.summary()
    assert (summary.rhat < 1.01).all()
    assert (np.abs(summary.mean / summary.mcse) < MAX_Z).all()
    assert (np.abs((summary.sd - 1) / summary.mcse_sd) < MAX_Z).all()
    product = samples["x"] * samples["y"]
    assert abs(product.mean() - 0.6) < MAX_Z * diagnostics.mcse_mean(product)


def test_bounds_cut_the_target_off():
    """Half a normal: mean sqrt(2/pi)."""
    target = sampling.resolve_target(lambda x: -0.5 * x * x, scalar=True)
    plan = sampling.make_plan(target, draws=40_000, chains=4, step=2.0, seed=6, bounds=(0, np.inf))
    samples = sampling.sample_here(target, plan)
    assert samples.draws.min() >= 0
    summary = samples.summary()
    assert abs(summary.mean[0] - np.sqrt(2 / np.pi)) < MAX_Z * summary.mcse[0]
