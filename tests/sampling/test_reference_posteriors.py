"""Posteriors with known means and deviations are met, from start points three deviations wide."""

import numpy as np
import pytest
from reference_targets import load, references

from pxtools import sampling
from pxtools.sampling import diagnostics
from pxtools.sampling.numba_tier import choose_tier

pytest.importorskip("numba")

MAX_Z, LEAST_ESS = 4.5, 5_000
CENTERED = "eight_schools-eight_schools_centered"
#: posteriors that need more than the defaults; the differential equation's chains start far out on a ridge
OPTIONS = {
    "eight_schools-eight_schools_noncentered": {"draws": 25_000},
    "hudson_lynx_hare-lotka_volterra": {"draws": 50_000, "warmup": 10_000},
    "logistic_1000_20": {"draws": 30_000},
}


def run(name, seed, **options):
    reference = load(name)
    target = sampling.resolve_target(reference.log_density)
    bounds = [(0, np.inf) if is_positive else (-np.inf, np.inf) for is_positive in reference.is_positive]
    starts = reference.starts(np.random.default_rng(seed))
    plan = sampling.make_plan(target, initial=starts, bounds=bounds, seed=seed, **options)
    target, _ = choose_tier(target.with_size(len(plan.names)), plan, "numba")
    return reference, sampling.sample_here(target, plan)


@pytest.mark.parametrize("name", [name for name in references() if name != CENTERED])
def test_means_and_deviations_are_the_published_ones(name):
    reference, samples = run(name, 1, **{"draws": 8_000, **OPTIONS.get(name, {})})
    values = reference.of(samples.draws)
    assert min(diagnostics.ess_bulk(values).min(), diagnostics.ess_tail(values).min()) >= LEAST_ESS
    assert diagnostics.rhat(values).max() < 1.01
    mean_error = np.hypot(diagnostics.mcse_mean(values), reference.mean_error)
    sd_error = np.hypot(diagnostics.mcse_sd(values), reference.sd_error)
    assert np.abs((values.mean(axis=(0, 1)) - reference.mean) / mean_error).max() < MAX_Z
    assert np.abs((values.std(axis=(0, 1)) - reference.sd) / sd_error).max() < MAX_Z


def test_the_centered_eight_schools_are_flagged_as_the_funnel_that_they_are():
    _, samples = run(CENTERED, 1, draws=8_000)
    assert any("disagree" in text or "funnel" in text for text in samples.summary().warnings)
