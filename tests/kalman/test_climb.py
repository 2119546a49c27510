"""The climb of a log-likelihood: the compiled one against its twin, and what is found out by building a few models."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pxtools.kalman import (
    FreeModel,
    StateSpaceModel,
    arima,
    cycle,
    filter_series,
    fit_model,
    free,
    local_level,
    seasonal,
    simulate,
)
from pxtools.kalman.fitting import ml, problem
from pxtools.kalman.fitting.ml import start_of
from pxtools.kernels import kalman_climb, kalman_climb_numpy, kalman_free_numpy
from pxtools.kernels.kalman_climb import Place
from tests.kalman.data import NILE
from tests.kalman.test_free import CASES, problem_of
from tests.kalman.test_kernels import compiled

VARIANCE = free(positive=True)


class Seen:
    def __init__(self, height, slope):
        self.height, self.slope = float(height), slope

    def gradient(self):
        return self.slope


class Mountain:
    """One top, other curvatures along each axis, higher orders, and nothing beyond a cliff."""

    def __init__(self, seed, size, has_cliff):
        rng = np.random.default_rng(seed)
        axes, _ = np.linalg.qr(rng.normal(size=(size, size)))
        self.curvature = axes * 10 ** rng.uniform(-1, 1, size) @ axes.T
        self.top = rng.normal(size=size)
        self.cliff = self.top[0] + 0.2 if has_cliff else np.inf

    def look(self, point):
        away = point - self.top
        if point[0] > self.cliff:
            return Seen(-np.inf, 0 * point)
        return Seen(-0.5 * away @ self.curvature @ away - 0.1 * (away**4).sum(), -self.slope(away))

    def slope(self, away):
        return self.curvature @ away + 0.4 * away**3

    def bends(self, place):
        return self.curvature + np.diag(1.2 * (place.at - self.top) ** 2)


def climbed(kernel, hill, at, goal=1e-6, after_step=lambda place: False):
    path, look = [], hill.look(at)

    def seen(place):
        path.append(place.height)
        return after_step(place)

    end, how = kernel.ascend(hill, Place(at, look.height, look.gradient()), goal, seen)
    return end, how, path


@compiled
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), size=st.integers(1, 6), has_cliff=st.booleans())
def test_compiled_climb_takes_the_steps_of_its_twin(seed, size, has_cliff):
    hill = Mountain(seed, size, has_cliff)
    at = hill.top - np.abs(np.random.default_rng(seed + 1).normal(size=size))
    got, how, path = climbed(kalman_climb, hill, at)
    wanted, wanted_how, wanted_path = climbed(kalman_climb_numpy, hill, at)
    assert how == wanted_how
    assert got.height == pytest.approx(wanted.height, rel=1e-9, abs=1e-12)
    assert (np.diff(path) >= 0).all()
    if not has_cliff:  # at a cliff, steps that gain no more than round-off may be left out
        assert how == "flat"
        np.testing.assert_allclose(path, wanted_path, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(got.at, hill.top, atol=2e-5)


@pytest.mark.parametrize("kernel", [kalman_climb, kalman_climb_numpy])
def test_a_climb_ends_where_it_is_told_to_or_where_no_step_gains(kernel):
    hill = Mountain(1, 3, False)
    _, how, path = climbed(kernel, hill, hill.top - 1, after_step=lambda place: True)
    assert (how, len(path)) == ("stopped", 1)
    hill.slope = lambda away: -hill.curvature @ away  # promises a gain where there is none
    end, how, _ = climbed(kernel, hill, hill.top - 1)
    assert how == "stuck"
    np.testing.assert_allclose(end.at, hill.top - 1, atol=1e-9)


@compiled
@pytest.mark.parametrize("name", CASES)
def test_the_compiled_hill_is_that_of_the_problem(name):
    one, place = problem_of(name, 3)
    one, place = one.ready(), place + 0.05
    hill, look = one.hill(), one.look(place)
    assert (hill is one) == bool(one.template.correlated)
    assert hill.look(place).height == pytest.approx(look.height, rel=1e-13)
    np.testing.assert_allclose(hill.look(place).gradient(), look.gradient(), rtol=1e-12)
    here = Place(place, look.height, look.gradient())
    np.testing.assert_allclose(hill.bends(here), one.bends(here), rtol=1e-6, atol=1e-6)


@compiled
def test_the_compiled_hill_leaves_special_places_to_the_problem():
    model = FreeModel(lambda a, b: local_level(a, observation_var=b), {"a": VARIANCE, "b": VARIANCE})
    one = start_of(model, NILE)[0].ready()
    assert np.isneginf(one.hill().look(np.zeros(2)).height)
    assert one.hill().look(np.array([0.0, 1.0])).height == one.look(np.array([0.0, 1.0])).height


@compiled
def test_fits_are_the_same_without_compiled_kernels(monkeypatch):
    y = simulate(arima([0.6], [0.3]), 80, seed=3).observations[0]
    marks = {"a": free(0.1, lower=-1, upper=1), "b": free(0.0), "v": VARIANCE}
    model = FreeModel(lambda a, b, v: arima([a], [b], v), marks)
    fast = fit_model(model, y)
    monkeypatch.setattr(ml, "ascend", kalman_climb_numpy.ascend)
    monkeypatch.setattr(problem, "LineHill", None)
    monkeypatch.setattr(problem, "Likelihood", kalman_free_numpy.Likelihood)
    for name in ("from_line", "seen_from_line"):
        monkeypatch.setattr(problem, name, getattr(kalman_climb_numpy, name))
    slow = fit_model(model, y)
    assert fast.log_likelihood == pytest.approx(slow.log_likelihood, rel=1e-11)
    for name in marks:
        assert fast.values[name] == pytest.approx(slow.values[name], rel=1e-5)
        assert fast.standard_errors[name] == pytest.approx(slow.standard_errors[name], rel=1e-4)


def shared(a, v):
    """Two states that move with the same parameter, and a product of a parameter with itself."""
    return StateSpaceModel(np.diag([a, a]), [[1.0, a * a]], np.diag([v, 0.5 * v]), [[1.0]], initial="stationary")


def shifted(a, v):
    return local_level(v, observation_var=1 + a * a).replace(observation_matrix=[[1 - a]])


def curved(a, v):
    return local_level(v, observation_var=1 + a**3)


#: builds until the template is known
BUILDS = {
    "builder": (lambda a, v: arima([a], var=v), 1),
    "product": (lambda a, v: arima([a], var=v, period=4, seasonal_ar=[a]), 1),
    "sum": (lambda a, v: local_level(v) + arima([a], var=1.0), 1),
    "multiples": (shared, 2),
    "polynomial": (shifted, 8),
    "none": (curved, None),
}


@pytest.mark.parametrize("name", BUILDS)
def test_a_few_builds_tell_how_a_model_moves(name):
    build, n_builds = BUILDS[name]
    built = []

    def counted(a, v):
        built.append((a, v))
        return build(a, v)

    y = np.cumsum(np.random.default_rng(2).normal(size=40))
    one, place = start_of(FreeModel(counted, {"a": free(0.3, lower=-1, upper=1), "v": VARIANCE}), y)
    if n_builds is None:
        assert one.template is None
        return
    assert len(built) == n_builds
    for at in (place, place + 0.3, place - 0.2):
        model = build(**one.named(at))
        assert one.look(at).total == pytest.approx(filter_series(model, y).log_likelihood, rel=1e-11)


def test_a_model_that_is_another_one_at_its_maximum_is_built_at_every_point():
    def build(v, r):
        return local_level(min(v, 1000.0), observation_var=r)

    fit = fit_model(FreeModel(build, {"v": free(500.0, positive=True), "r": VARIANCE}), NILE)
    best = fit_model(FreeModel(lambda r: local_level(1000.0, observation_var=r), {"r": VARIANCE}), NILE)
    assert fit.log_likelihood == pytest.approx(best.log_likelihood, abs=1e-6)


def test_a_sum_of_components_starts_as_they_do():
    parts = local_level(2.0), cycle(12.0, 0.5, damping=0.8), arima([0.5], var=3.0), seasonal(4, 1.0)
    whole = parts[0] + parts[1] + parts[2] + parts[3]
    at = 0
    for part in parts:
        own = slice(at, at + part.n_states)
        np.testing.assert_allclose(whole.initial_state.cov[own, own], part.initial_state.cov, rtol=1e-13)
        np.testing.assert_array_equal(whole.initial_state.diffuse_cov[own, own], part.initial_state.diffuse_cov)
        assert whole.initial[own] == part.initial
        at += part.n_states
    assert np.count_nonzero(whole.initial_state.cov) == sum(np.count_nonzero(p.initial_state.cov) for p in parts)


def test_one_row_of_several_values_is_read_by_the_model():
    def build(v):
        return StateSpaceModel(0.5 * np.eye(3), np.eye(3), v * np.eye(3), np.eye(3), initial="stationary")

    one, _ = start_of(FreeModel(build, {"v": VARIANCE}), [1.0, 7.0, 2.0])
    assert one.values.shape == (1, 1, 3)
    assert one.bounds[2] == 1.0  # no differences in time to take a scale from
