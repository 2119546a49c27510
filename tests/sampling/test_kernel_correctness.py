"""Each sampler keeps its target, judged from exact draws and by calibration; and both judges catch deliberate bugs.

A bug is a change of one expression in a kernel's NumPy twin, whose text is compiled anew with it. The loops of right
samplers run as they are installed.

References
----------
J. Geweke (2004), Getting it right, J. Am. Stat. Assoc. 99, 799.
S. Talts et al. (2018), Validating Bayesian inference algorithms with simulation-based calibration, arXiv:1804.06788.
"""

import inspect
import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.stats import chisquare
from test_rwm_statistics import MAX_Z, largest_z
from three_gaussians import exact_draws, gaussian

from pxtools import sampling
from pxtools.kernels import demcz_numpy, ram_numpy, rwm_numpy
from pxtools.sampling import demcz, ram, rwm
from pxtools.sampling.mixture import fit_mixture
from pxtools.sampling.space import Space

MODULES = {"auto": demcz, "ram": ram, "rwm": rwm}
TWINS = {"auto": demcz_numpy, "ram": ram_numpy, "rwm": rwm_numpy}

#: name: sampler, expression, what a careless hand might have written
BUGS = {
    "rwm, wrong accept": ("rwm", "uniform * old < new", "uniform * math.sqrt(old) < math.sqrt(new)"),
    "rwm, drifting proposal": ("rwm", "(2.0 * u - 1.0)", "(2.0 * u - 0.8)"),
    "rwm, a step that grows with x": ("rwm", "(2.0 * u - 1.0)", "(2.0 * u - 1.0) * 4 * p * p"),
    "ram, wrong accept": ("ram", "u < chance", "u * u < chance"),
    "ram, drifting proposal": ("ram", "p + _dot(row, normals, i)", "p + _dot(row, normals, i) + 0.03"),
    "ram, a step that grows with x": ("ram", "p + _dot(row, normals, i)", "p + 4 * p * p * _dot(row, normals, i)"),
    "auto, wrong accept": ("auto", "log(u) < power", "0.5 * log(u) < power"),
    "auto, drifting proposal": ("auto", "p + gamma * (a - b)", "p + gamma * (a - b) + 0.03"),
    "auto, snooker without Jacobian": ("auto", "0.5 * (len(x) - 1) * (log(new) - log(old))", "0.0"),
    "auto, mixture without Hastings' term": ("auto", "correction = q[c] - new_q", "correction = 0.0"),
    "auto, Hastings' term reversed": ("auto", "correction = q[c] - new_q", "correction = new_q - q[c]"),
}
#: the moves of `auto` that show a bug: chances of mixture and snooker moves; differences alone for the others
MOVES = {"snooker": (0.0, 1.0), "mixture": (1.0, 0.0), "Hastings": (1.0, 0.0)}


def flawed(bug):
    """Return the sampler's name and its twin's `Walk` with the bug."""
    sampler, right, wrong = BUGS[bug]
    text = inspect.getsource(TWINS[sampler])
    assert right in text
    module = {"__name__": "flawed", "__file__": ""}
    exec(compile(text.replace(right, wrong), "flawed", "exec"), module)
    return sampler, module["Walk"]


# --- from exact draws ------------------------------------------------------------------------------------------------


@cache
def frozen(sampler):
    """Return a state after its warm-up: archive, mixture and steps are what a user's run has."""
    plan = sampling.make_plan(target(), sampler=sampler, seed=3, chains=4, draws=1, bounds=(0, 1), warmup=800)
    state = sampling.start_groups(plan)[0]
    state = sampling.advance(target(), state, 800).state
    if sampler == "auto":  # rough on purpose, for Metropolis to mend
        mixture = fit_mixture(exact_draws(np.random.default_rng(1), 60), np.random.default_rng(0))
        state = replace(state, mixture=mixture)
    return state


@cache
def target():
    return sampling.resolve_target(gaussian, density=True)


def ends_of_walks(sampler, n_walks, n_steps=12, chances=(0.4, 0.3)):
    """Start at independent exact draws, walk, and return where the walks end."""
    state, starts = frozen(sampler), exact_draws(np.random.default_rng(11), n_walks)
    space = Space(np.full(2, -np.inf), np.full(2, np.inf), np.zeros(2))
    values = np.array([gaussian(*start) for start in starts.tolist()])
    begun = replace(state, space=space, warmup=0, n_done=0)
    if sampler == "auto":
        stats = replace(state.stats, n_accepted=np.zeros(n_walks, dtype=np.int64))
        moves = {"chances": np.array(chances), "jitter": np.full(2, 1e-6)}
        many = replace(begun, positions=starts, shown=starts, values=values, stats=stats, **moves)
        return sampling.advance(target(), many, n_steps).state.positions
    ends = []
    for k in range(n_walks):
        here = {"positions": starts[k : k + 1], "shown": starts[k : k + 1], "values": values[k : k + 1]}
        one = replace(begun, bits=np.random.PCG64(k).state, **here)
        ends.append(sampling.advance(target(), one, n_steps).state.positions[0])
    return np.array(ends)


@pytest.mark.parametrize("sampler", MODULES)
def test_sampler_keeps_its_target(sampler):
    assert largest_z(ends_of_walks(sampler, 3_000)) < MAX_Z


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_shows_when_walks_begin_at_exact_draws(bug, monkeypatch):
    sampler, walk = flawed(bug)
    frozen(sampler)
    monkeypatch.setattr(MODULES[sampler].kernel, "Walk", walk)
    chances = next((chances for word, chances in MOVES.items() if word in bug), (0.0, 0.0))
    assert largest_z(ends_of_walks(sampler, 4_000, 15, chances)) > 1.2 * MAX_Z


# --- calibration -----------------------------------------------------------------------------------------------------


def calibration_ranks(sampler, n_simulations):
    """Return the ranks of true parameters among 63 posterior draws each, (n_simulations, 2)."""
    rng = np.random.default_rng(7)
    ranks = []
    for k in range(n_simulations):
        mean, log_sd = rng.standard_normal(), 0.5 * rng.standard_normal()
        data = mean + math.exp(log_sd) * rng.standard_normal(8)
        total, squares = float(data.sum()), float((data**2).sum())

        def log_posterior(m, s, total=total, squares=squares):
            misfit = squares - 2 * m * total + 8 * m * m
            return -0.5 * m * m - 2 * s * s - 8 * s - 0.5 * misfit * math.exp(-2 * s)

        here = sampling.resolve_target(log_posterior)
        plan = sampling.make_plan(
            here, sampler=sampler, seed=k, draws=63, thin=12, chains=1, warmup=240, step=1.0, bounds=(-6, 6)
        )
        samples = sampling.sample_here(here, plan)
        ranks.append([(samples["m"] < mean).sum(), (samples["s"] < log_sd).sum()])
    return np.array(ranks)


def uniformity(ranks):
    return min(chisquare(np.bincount(column // 8, minlength=8)).pvalue for column in ranks.T)


@pytest.mark.parametrize("sampler", MODULES)
def test_posteriors_are_calibrated(sampler):
    assert uniformity(calibration_ranks(sampler, 120)) > 1e-4


#: one for each sampler: calibration is dearer, and sees less of what single moves do wrong
SEEN_BY_CALIBRATION = (
    "rwm, drifting proposal",
    "ram, wrong accept",
    "auto, wrong accept",
)
STRONGER = {"(2.0 * u - 0.8)": "(2.0 * u - 0.6)"}


@pytest.mark.parametrize("bug", SEEN_BY_CALIBRATION)
def test_a_bug_shows_in_calibration(bug, monkeypatch):
    """The posteriors are wider than the three Gaussians, and so is a drift that matters."""
    sampler, right, wrong = BUGS[bug]
    for weak, strong in STRONGER.items():
        wrong = wrong.replace(weak, strong)
    monkeypatch.setitem(BUGS, bug, (sampler, right, wrong))
    monkeypatch.setattr(MODULES[sampler].kernel, "Walk", flawed(bug)[1])
    assert uniformity(calibration_ranks(sampler, 150)) < 1e-4
