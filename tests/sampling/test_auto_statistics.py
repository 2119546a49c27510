"""The default sampler is right with default options, or says that it is not. `benchmarks/bias.py` has more seeds."""

import numpy as np
import pytest

pytest.importorskip("numba")

import bias

MAX_Z = 4.5


@pytest.mark.parametrize("mass", bias.MASSES, ids=lambda mass: mass.name)
def test_masses_of_the_modes_are_right_after_100_000_evaluations(mass):
    assert mass.rmse(range(8)) < mass.limit


@pytest.mark.parametrize("flag", [flag for flag in bias.FLAGS if flag.is_hard], ids=lambda flag: flag.name)
def test_a_banana_or_funnel_that_is_off_is_flagged(flag):
    for seed in range(3):
        is_off, is_flagged, _ = flag.look(seed)
        assert is_flagged or not is_off


@pytest.mark.parametrize("flag", [flag for flag in bias.FLAGS if not flag.is_hard], ids=lambda flag: flag.name)
def test_easy_targets_are_met_and_not_flagged(flag):
    looks = [flag.look(seed) for seed in range(3)]
    assert [look[:2] for look in looks] == [(False, False)] * 3
    assert np.median([ess for *_, ess in looks]) > 5_000


def test_modes_are_found_with_their_shares():
    samples = bias.run(bias.three_gaussians, 1, density=True)
    modes = samples.modes()
    assert len(modes) == 3
    for mode, mass in zip(modes, (0.5, 0.2916667, 0.2083333), strict=True):
        assert abs(mode.weight - mass) < MAX_Z * mode.error + 0.003  # tails of one mode count for its neighbour
    assert "3 modes, with their shares" in repr(samples)


def test_chains_that_run_away_from_a_flattened_target_are_put_back():
    """Flattened, this density has no finite mass: its draws are those of a run that never left."""

    def heavy(x, y):
        return -6.0 * np.log1p(x * x + y * y)  # a t distribution, with 10 degrees of freedom

    samples = bias.run(heavy, 1, initial=bias.wide(2))
    summary = samples.summary()
    assert summary.warnings == ()
    np.testing.assert_allclose(summary.sd, np.sqrt(1 / 8), atol=MAX_Z * summary.mcse_sd.max())
