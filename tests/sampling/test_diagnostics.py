"""R-hat, effective sample sizes and Monte Carlo errors: ArviZ' numbers, and what theory says of autoregressions."""

import logging
import warnings

import numpy as np
import pytest
from three_gaussians import TIERS, call_walk, gaussian

from pxtools.sampling import diagnostics

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    arviz = pytest.importorskip("arviz")


def autoregression(n_chains, n_draws, correlation, seed=0):
    """Stationary AR(1) chains of variance 1."""
    noise = np.random.default_rng(seed).standard_normal((n_chains, n_draws))
    chains = np.empty_like(noise)
    chains[:, 0] = noise[:, 0]
    for t in range(1, n_draws):
        chains[:, t] = correlation * chains[:, t - 1] + np.sqrt(1 - correlation**2) * noise[:, t]
    return chains


def walked(n_chains):
    walk = next(iter(TIERS.values()))
    return np.array([call_walk(walk, gaussian, [0.5, 0.2], 800, seed=k)[0] for k in range(n_chains)])


SETS = {
    f"AR({correlation}), {n_chains} x {n_draws}": autoregression(n_chains, n_draws, correlation)
    for n_chains in (1, 2, 4, 7)
    for n_draws in (4, 5, 6, 7, 8, 9, 11, 50, 101, 1000)
    for correlation in (-0.9, -0.5, 0.0, 0.5, 0.99)
}
SETS |= {
    "constant": np.ones((4, 100)),
    "each chain constant": np.repeat(np.arange(4.0)[:, None], 100, axis=1),
    "two values": np.sign(autoregression(4, 100, 0.5)),
    "repeats": np.repeat(autoregression(4, 200, 0.9), 3, axis=1),
    "a walk": walked(4)[..., 0],
    "far from zero": 1e6 + autoregression(4, 300, 0.5),
}

RIVALS = {
    "rhat": lambda draws: arviz.rhat(draws, method="rank"),
    "ess_bulk": lambda draws: arviz.ess(draws, method="bulk"),
    "ess_tail": lambda draws: arviz.ess(draws, method="tail"),
    "mcse_mean": lambda draws: arviz.mcse(draws, method="mean"),
    "mcse_sd": lambda draws: arviz.mcse(draws, method="sd"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("statistic", RIVALS)
def test_statistic_equals_arviz(statistic):
    logging.getLogger("arviz").setLevel(logging.ERROR)
    for name, draws in SETS.items():
        ours, theirs = getattr(diagnostics, statistic)(draws), RIVALS[statistic](draws)
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("statistic", RIVALS)
def test_statistic_is_nan_where_it_cannot_be_had(statistic):
    function = getattr(diagnostics, statistic)
    assert np.isnan(function(np.zeros((4, 3))))
    with_nan = autoregression(4, 100, 0.5)
    with_nan[2, 17] = np.nan
    assert np.isnan(function(with_nan))
    assert np.isnan(function(np.stack([with_nan, autoregression(4, 100, 0.5)], axis=2))).tolist() == [True, False]


def test_rhat_of_one_chain_is_nan():
    assert np.isnan(diagnostics.rhat(autoregression(1, 100, 0.5)))


@pytest.mark.parametrize("statistic", RIVALS)
def test_parameters_are_treated_one_by_one(statistic):
    function = getattr(diagnostics, statistic)
    columns = [autoregression(4, 200, correlation, seed) for seed, correlation in enumerate((0.0, 0.5, 0.9))]
    together = function(np.stack(columns, axis=2))
    assert together.tolist() == [function(column) for column in columns]


def test_ess_of_an_autoregression_is_what_theory_says():
    """n (1 - r) / (1 + r): 40,000 / 3 at r = 1/2. The estimate's relative error is about 3 %."""
    assert diagnostics.ess_bulk(autoregression(4, 10_000, 0.5)) == pytest.approx(40_000 / 3, rel=0.12)
    assert diagnostics.ess_bulk(autoregression(4, 10_000, 0.0)) == pytest.approx(40_000, rel=0.12)


def test_rhat_sees_another_place_and_another_spread():
    same = autoregression(4, 1000, 0.3)
    elsewhere, wider = same.copy(), same.copy()
    elsewhere[2] += 0.5
    wider[2] *= 2
    assert diagnostics.rhat(same) < 1.01
    assert diagnostics.rhat(elsewhere) > 1.02
    assert diagnostics.rhat(wider) > 1.02


def test_draws_of_another_shape_are_an_error():
    with pytest.raises(ValueError, match="n_chains, n_draws"):
        diagnostics.rhat(np.zeros(10))
