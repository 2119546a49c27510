"""Bounds mapped away: the same target, exact moments, and start points drawn from boxes and functions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_rwm_statistics import MAX_Z

from pxtools import sampling
from pxtools.errors import PxUsageError, TargetError
from pxtools.kernels import calls_numpy
from pxtools.sampling.diagnostics import mcse_mean
from pxtools.sampling.space import space_of

SAMPLERS = list(sampling.SAMPLERS)
ANY = sampling.resolve_target(lambda a, b, c, angle: 0.0)
BOUNDS = {"a": (2.0, np.inf), "b": (-np.inf, -1.0), "c": (-3.0, 5.0), "angle": (0.0, 1.0)}


def product(a, b):
    """Gamma(3) in a, Beta(2, 4) in b; both pile up near a bound."""
    return 2 * math.log(a) - a + math.log(b) + 3 * math.log(1 - b)


def run(target, **options):
    return sampling.sample_here(target, sampling.make_plan(target, **options))


@settings(max_examples=50, deadline=None)
@given(y=st.lists(st.floats(-30, 30), min_size=4, max_size=4))
def test_way_out_and_back_is_none_and_the_jacobian_is_the_derivative(y):
    plan = sampling.make_plan(ANY, bounds=BOUNDS, periodic=["angle"], transform=True, seed=1)
    space = space_of(plan)
    y[3] = abs(y[3]) % 1.0
    (x,), (slope,) = space.outward(np.array([y]))
    assert ((plan.lower <= x) & (x <= plan.upper)).all()
    h = 1e-6
    moved = [space.outward(np.array([y]) + h * np.eye(4)[k])[0][0] for k in range(4)]
    back = [space.outward(np.array([y]) - h * np.eye(4)[k])[0][0] for k in range(4)]
    if max(map(abs, y)) < 8:
        np.testing.assert_allclose(space.inward(x[np.newaxis])[0], y, rtol=1e-6, atol=1e-6)
        widths = np.log([abs(m[k] - b[k]) / (2 * h) for k, (m, b) in enumerate(zip(moved, back, strict=True))])
        assert abs(widths.sum() - math.log(8.0) - slope) < 1e-4  # the constant width of c is left out
    assert x[3] == y[3]  # a periodic parameter goes round instead


@pytest.mark.parametrize("density", [False, True], ids=["log-density", "density"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_moments_are_exact(sampler, density):
    target = sampling.resolve_target((lambda a, b: math.exp(product(a, b))) if density else product, density=density)
    options = {"bounds": {"a": (0, np.inf), "b": (0, 1)}, "draws": 20_000, "seed": 1, "step": 1.5, "warmup": 1_000}
    samples = run(target, sampler=sampler, transform=True, **options)
    for name, mean, square in (("a", 3.0, 12.0), ("b", 1 / 3, 1 / 7)):
        for power, exact in ((1, mean), (2, square)):
            found = samples[name] ** power
            assert abs(found.mean() - exact) < MAX_Z * mcse_mean(found[..., np.newaxis])[0]
    np.testing.assert_allclose(
        samples.log_density[3, ::5000], [product(*p) for p in samples.draws[3, ::5000]], rtol=1e-9
    )
    assert (samples.draws > 0).all()


def test_the_moments_see_a_missing_jacobian(monkeypatch):
    right = calls_numpy.map_point

    def without(mapping, point):
        mapped = right(mapping, point)
        return None if mapped is None else (mapped[0], 0.0)

    from types import SimpleNamespace

    from pxtools.kernels import rwm_numpy

    monkeypatch.setattr(calls_numpy, "map_point", without)
    twin = SimpleNamespace(Walk=rwm_numpy.Walk, drive=calls_numpy.drive, COMPILED=False)
    monkeypatch.setattr("pxtools.sampling.rwm.kernel", twin)
    monkeypatch.setattr("pxtools.sampling.space.map_point", without)
    target = sampling.resolve_target(product)
    options = {"bounds": {"a": (0, np.inf), "b": (0, 1)}, "draws": 5_000, "seed": 1, "step": 1.5, "sampler": "rwm"}
    samples = run(target, transform=True, **options)
    assert abs(samples["a"].mean() - 3.0) > 2 * MAX_Z * mcse_mean(samples["a"][..., np.newaxis])[0]


def test_transform_needs_bounds_and_starts_strictly_inside():
    target = sampling.resolve_target(product)
    with pytest.raises(PxUsageError, match="--transform maps between bounds, and there are none"):
        sampling.make_plan(target, transform=True)
    with pytest.raises(PxUsageError, match=r"Row 1 of --initial, \[0.0, 0.5\], is on a bound"):
        sampling.make_plan(target, initial=[[1, 0.5], [0, 0.5]], bounds={"a": (0, 9)}, transform=True)


# --- boxes and functions as starts -----------------------------------------------------------------------------------


def bowl(x, y):
    return -0.5 * (x * x + y * y)


@pytest.mark.parametrize(
    "initial", [sampling.Box((-2, -1), (3, 4)), {"y": (3, 4), "x": (-2, -1)}], ids=["a Box", "a dictionary"]
)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_chains_start_anywhere_in_a_box(sampler, initial):
    initial = run(
        sampling.resolve_target(bowl), initial=initial, sampler=sampler, chains=40, draws=5, warmup=16, seed=1
    ).initial
    assert initial.shape == (40, 2)
    assert ((initial > [-2, 3]) & (initial < [-1, 4])).all()
    assert np.ptp(initial, axis=0).min() > 0.8


def test_one_pair_is_for_every_parameter_and_a_vector_target_learns_its_length():
    vector = sampling.resolve_target(lambda v: -0.5 * float(v @ v))
    assert sampling.make_plan(vector, initial=sampling.Box((0, 1), (0, 1), (2, 3)), seed=1).names == (
        "v[0]",
        "v[1]",
        "v[2]",
    )
    plan = sampling.make_plan(sampling.resolve_target(bowl), initial=sampling.Box((0, 1)), seed=1)
    np.testing.assert_array_equal(plan.random_start.upper, [1, 1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"initial": sampling.Box((1, 0), (0, 1))}, r"--initial is Box\(\(1, 0\), \(0, 1\)\).\nGive pairs"),
        ({"initial": sampling.Box((0, np.inf))}, "pairs of finite numbers"),
        ({"initial": sampling.Box((0, 1), (0, 1), (0, 1))}, r"has 3 pair\(s\), `bowl` 2 parameter"),
        ({"initial": {"x": (0, 1)}}, r"no \(low, high\) for y"),
        ({"initial": {"x": (0, 1), "y": (0, 1), "z": (0, 1)}}, "--initial names `z`"),
        ({"initial": sampling.Box((0, 1)), "bounds": (2, 3)}, "share no `x`"),
    ],
)
def test_box_that_cannot_be_is_a_usage_error(options, words):
    with pytest.raises(PxUsageError, match=words):
        sampling.make_plan(sampling.resolve_target(bowl), **options)


def half(x, y):
    return bowl(x, y) if x > 0 else -math.inf


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_start_outside_the_support_is_drawn_again_from_a_box_or_a_function(sampler):
    target, few = sampling.resolve_target(half), {"chains": 12, "draws": 5, "warmup": 16, "seed": 1}
    for initial in (sampling.Box((-1, 1)), lambda rng: rng.uniform(-1, 1, 2)):
        samples = run(target, initial=initial, sampler=sampler, **few)
        assert (samples.initial[:, 0] > 0).all()
        assert len(np.unique(samples.initial[:, 0])) == 12
        np.testing.assert_array_equal(samples.draws, run(target, initial=initial, sampler=sampler, **few).draws)


def test_starts_that_are_all_outside_are_explained():
    target = sampling.resolve_target(half)
    with pytest.raises(TargetError, match=r"`half` has no support at 51 random points that the start function"):
        run(target, initial=lambda rng: rng.uniform(-2, -1, 2), seed=1)
    with pytest.raises(TargetError, match=r"no support at 1,000 random points in the box of --initial"):
        run(target, initial=sampling.Box((-2, -1)), seed=1)


def test_box_is_known_to_the_magic(cell, session):
    cell("def bowl(x, y):\n    return -0.5 * (x * x + y * y)")
    samples = cell('%pxsample bowl --initial "Box((5, 6), (-6, -5))" --draws 5 --seed 1')
    assert (samples.initial[:, 0] > 5).all()
    transformed = cell("%pxsample bowl --bounds \"{'x': (0, 9)}\" --transform --draws 50 --seed 1")
    assert transformed["x"].min() > 0 > transformed["y"].min()
