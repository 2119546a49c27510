"""Code made for one model: the answers of the other tiers, a private cache, and nothing lost without it."""

import os
import stat

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pxtools.kalman import filter_series, kalman
from pxtools.kalman.batch import LANE_FORMS
from pxtools.kalman.filtering import first_form
from pxtools.kalman.forms import generated
from pxtools.kalman.system import system_of
from tests.kalman.models import random_model, random_rows

NAMES = ["predicted_mean", "predicted_cov", "filtered_mean", "filtered_cov", "smoothed_mean", "log_likelihood_steps"]


def made(seed, n, m, initial="known", **options):
    """A model with zeros and ones in it."""
    model = random_model(seed, n, m, diagonal=True, initial=initial, **options)
    F, H = np.array(model.transition_matrix), np.array(model.observation_matrix)
    F[np.triu_indices(n, 2)] = 0.0
    H[:, 0], H[:, 1:] = 1.0, np.where(np.arange(n - 1) % 2, H[:, 1:], 0.0)
    return model.replace(transition_matrix=F, observation_matrix=H)


needs_compiler = pytest.mark.skipif(generated.compiler() is None, reason="there is no C compiler: cc, gcc or clang")


@needs_compiler
@settings(max_examples=12, deadline=None)
@given(st.integers(0, 3), st.sampled_from(["known", "diffuse"]), st.integers(0, 1_000))
def test_generated_code_gives_what_the_kernels_give(size, initial, seed):
    n, m = [(1, 1), (2, 1), (3, 2), (5, 3)][size]  # few structures: each is compiled once
    model, y = made(size, n, m, initial), random_rows(seed, 40, m)
    ours, kernel = (filter_series(model, y, form=form, steady=False) for form in ("generated", "univariate"))
    assert generated.library_of(generated.structure_of(system_of(model, 1, 40))) is not None
    for name in NAMES:
        exact = getattr(kernel, name)
        assert np.allclose(getattr(ours, name), exact, rtol=1e-12, atol=1e-12 * np.abs(exact).max()), name
    assert ours.log_likelihood == pytest.approx(kernel.log_likelihood, rel=1e-12)


@needs_compiler
def test_one_library_serves_all_numbers_in_the_same_places():
    models = [made(7, 2, 1), made(7, 2, 1).replace(observation_cov=[[0.7]])]
    structures = {generated.structure_of(system_of(model, 1, 5)) for model in models}
    assert len(structures) == 1
    assert len({generated.numbers_of(system_of(model, 1, 5)).tobytes() for model in models}) == 2


def test_zeros_and_ones_of_a_model_are_not_in_its_source():
    pytest.importorskip("sympy", reason="SymPy is not installed: pip install 'pxtools[expr]'")
    dense, sparse = random_model(1, 4, 1, diagonal=True), made(1, 4, 1)
    sources = [generated.source_of(generated.structure_of(system_of(model, 1, 5))) for model in (dense, sparse)]
    assert sources[1].count("*") < 0.7 * sources[0].count("*")


@needs_compiler
def test_many_series_run_in_it_too():
    model = made(2, 2, 1)
    y = np.stack([random_rows(k, 30, 1) for k in range(4)])
    assert np.allclose(kalman(model, y, form="generated").filtered_mean, kalman(model, y).filtered_mean, rtol=1e-11)


@pytest.mark.parametrize("why", ["no compiler", "no SymPy", "no place"])
def test_without_it_the_kernel_serves(why, monkeypatch):
    generated.library_of.cache_clear()
    generated._sources.clear()
    if why == "no compiler":
        monkeypatch.setattr(generated, "compiler", lambda: None)
    elif why == "no SymPy":
        monkeypatch.setitem(__import__("sys").modules, "sympy", None)
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    model, y = random_model(99, 3, 1, diagonal=True), random_rows(99, 20, 1)
    ours, kernel = (filter_series(model, y, form=form, steady=False) for form in ("generated", "univariate"))
    assert np.array_equal(ours.filtered_cov, kernel.filtered_cov)
    generated.library_of.cache_clear()
    generated._sources.clear()


def test_code_is_not_loaded_from_a_folder_that_others_can_write_to(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = generated.cache_folder()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    os.chmod(folder, 0o777)
    with pytest.raises(PermissionError, match="other users"):
        generated.cache_folder()


@pytest.mark.parametrize("model", [random_model(1, 2, 2), random_model(1, 2, 2, diagonal=True, varying=20)])
def test_models_that_it_does_not_serve_run_in_the_kernel(model):
    y = random_rows(1, 20, 2)
    ours, kernel = (filter_series(model, y, form=form) for form in ("generated", "univariate"))
    assert np.array_equal(ours.filtered_mean, kernel.filtered_mean)


def test_generated_code_is_never_chosen_for_fleets():
    assert not {first_form("auto", n, m) for n in (1, 4, 12, 50) for m in (1, 2, 20)} & {"generated"}
    assert "generated" not in LANE_FORMS
