"""How a function is called, what its parameters are named, and which options make a run."""

import functools
import math

import numpy as np
import pytest
from three_gaussians import gaussian

from pxtools import sampling
from pxtools.errors import PxUsageError, TargetError


def posterior(theta):
    return -0.5 * float(theta @ theta)


def with_option(x, y, data=None):
    return 0.0


def needs_keyword(x, y, *, data):
    return 0.0


# --- targets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "options", "is_scalar", "names"),
    [
        (gaussian, {}, True, ("x", "y")),
        (posterior, {}, False, ()),
        (with_option, {}, True, ("x", "y")),
        (with_option, {"names": ["x", "y", "data"]}, True, ("x", "y", "data")),
        (functools.partial(needs_keyword, data=3), {}, True, ("x", "y")),
        (posterior, {"scalar": True}, True, ("theta",)),
        (gaussian, {"names": ["a", "b"]}, True, ("a", "b")),
        (posterior, {"names": ["a", "b"]}, False, ("a", "b")),
        (lambda *p: 0.0, {"scalar": True, "names": ["a", "b", "c"]}, True, ("a", "b", "c")),
        (math.hypot, {"scalar": True, "names": ["a", "b"]}, True, ("a", "b")),
        (posterior, {"vectorized": True}, False, ()),
    ],
)
def test_signature_says_how_a_target_is_called(function, options, is_scalar, names):
    target = sampling.resolve_target(function, **options)
    assert (target.is_scalar, target.names) == (is_scalar, names)


@pytest.mark.parametrize(
    ("function", "options", "words"),
    [
        (3.5, {}, "no function but float"),
        (lambda: 0.0, {}, "no required parameter"),
        (lambda a=1, b=2: 0.0, {}, "--scalar --names a,b"),
        (needs_keyword, {}, "functools.partial(needs_keyword, data=...)"),
        (max, {}, "Type --scalar --names x,y"),
        (max, {"scalar": True}, "--names x,y"),
        (gaussian, {"names": ["a", "b", "c"]}, "takes 2 (x, y)"),
        (gaussian, {"names": ["a", "a"]}, "repeats a name"),
        (gaussian, {"scalar": True, "vectorized": True}, "contradict"),
    ],
)
def test_target_that_cannot_be_called_is_a_usage_error_of_two_lines(function, options, words):
    with pytest.raises(PxUsageError) as caught:
        sampling.resolve_target(function, **options)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


def test_vector_parameters_are_named_after_the_argument():
    assert sampling.resolve_target(posterior).with_size(3).names == ("theta[0]", "theta[1]", "theta[2]")


def test_vectorised_target_is_called_with_rows():
    shapes = []

    def rows(points):
        shapes.append(points.shape)
        return -0.5 * (points**2).sum(axis=1)

    target = sampling.resolve_target(rows, vectorized=True)
    plan = sampling.make_plan(target, draws=10, initial=np.zeros((2, 3)), seed=1)
    plain = sampling.resolve_target(posterior)
    np.testing.assert_allclose(
        sampling.sample_here(target, plan).draws, sampling.sample_here(plain, plan).draws, rtol=0, atol=1e-12
    )
    assert set(shapes) == {(1, 3), (2, 3)}  # a start point alone, then all that is to be asked in a step


def test_check_gives_the_value_or_says_why_no_chain_can_start_there():
    target = sampling.resolve_target(gaussian, density=True)
    assert target.check([0.5, 0.2]) == gaussian(0.5, 0.2)
    with pytest.raises(TargetError, match=r"Chain 3 cannot start: gaussian\(50.0, 50.0\) is 0.0") as caught:
        target.check([50, 50], chain=3)
    assert "--initial" in str(caught.value)


# --- plans -----------------------------------------------------------------------------------------------------------

SCALAR = sampling.resolve_target(gaussian, density=True)
VECTOR = sampling.resolve_target(posterior)


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        (SCALAR, {"chains": 4, "initial": np.zeros((10, 2))}, "--chains 4 contradicts the 10 row(s) of --initial"),
        (SCALAR, {"initial": np.zeros((4, 3))}, "has 2 parameter(s) (x, y), a start point 3"),
        (SCALAR, {"initial": [[0.0, np.nan]]}, "not finite"),
        (SCALAR, {"initial": "here"}, "--initial is no array of numbers"),
        (SCALAR, {"initial": np.zeros((1, 1, 2))}, "shape (1, 1, 2)"),
        (SCALAR, {"initial": [[0.5, 2.0]], "bounds": (0, 1)}, "Row 0 of --initial"),
        (SCALAR, {"bounds": [(0, 1)] * 3}, "--bounds has 3 pair(s)"),
        (SCALAR, {"bounds": (1, 0)}, "not below"),
        (SCALAR, {"bounds": 3}, "--bounds has the shape"),
        (SCALAR, {"bounds": {"z": (0, 1)}}, "names `z`"),
        (SCALAR, {"step": 0}, "--step is 0"),
        (SCALAR, {"step": [1, 2, 3]}, "one for each of the 2"),
        (SCALAR, {"draws": 0}, "--draws is 0"),
        (SCALAR, {"draws": 1.5}, "--draws is 1.5"),
        (SCALAR, {"warmup": -1}, "--warmup is -1"),
        (SCALAR, {"thin": 0}, "--thin is 0"),
        (SCALAR, {"chains": 0}, "--chains is 0"),
        (SCALAR, {"seed": -1}, "--seed is -1"),
        (SCALAR, {"scale": 0}, "--scale is 0"),
        (SCALAR, {"sampler": "rmw"}, "Did you mean `rwm`?"),
        (VECTOR, {}, "Type --initial X"),
        (VECTOR, {"bounds": (0, 1)}, "Type --initial X"),
    ],
)
def test_option_that_cannot_be_carried_out_is_a_usage_error_of_two_lines(target, options, words):
    with pytest.raises(PxUsageError) as caught:
        sampling.make_plan(target, **options)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


def test_defaults_are_those_of_the_documentation():
    plan = sampling.make_plan(SCALAR, sampler="rwm")
    assert (plan.draws, plan.warmup, plan.thin, plan.n_chains, plan.n_groups) == (1000, 100, 1, 4, 4)
    auto = sampling.make_plan(SCALAR)
    assert (auto.sampler, auto.draws, auto.warmup, auto.n_chains, auto.n_groups) == ("auto", 1000, 1000, 8, 2)
    assert sampling.make_plan(VECTOR, bounds=[(0, 1)] * 10).warmup == 3000
    assert plan.step.tolist() == [0.1, 0.1]
    assert "normal, --scale 1" in plan.notes[0]
    assert sampling.make_plan(SCALAR, n_engines=4).n_chains == 16
    assert sampling.make_plan(SCALAR, sampler="rwm", n_engines=4).n_chains == 8
    assert sampling.make_plan(SCALAR, initial=np.zeros((7, 2)), n_engines=4).n_chains == 7


def test_missing_seed_is_fresh_and_kept():
    one, two = sampling.make_plan(SCALAR), sampling.make_plan(SCALAR)
    assert one.seed != two.seed
    again = sampling.make_plan(SCALAR, seed=one.seed)
    np.testing.assert_array_equal(sampling.sample_here(SCALAR, one).draws, sampling.sample_here(SCALAR, again).draws)


@pytest.mark.parametrize(
    ("target", "initial", "chains", "expected"),
    [
        (SCALAR, [0.5, 0.2], 3, [[0.5, 0.2]] * 3),
        (SCALAR, [[0.5, 0.2], [0.3, 0.7]], None, [[0.5, 0.2], [0.3, 0.7]]),
        (SCALAR, [[0.5, 0.2], [0.3, 0.7]], 2, [[0.5, 0.2], [0.3, 0.7]]),
        (sampling.resolve_target(posterior, scalar=True), [1, 2, 3], None, [[1], [2], [3]]),
        (sampling.resolve_target(posterior, scalar=True), 5, 2, [[5], [5]]),
        (VECTOR, [1, 2, 3], 1, [[1, 2, 3]]),
    ],
)
def test_start_points_are_read_as_they_were_meant(target, initial, chains, expected):
    plan = sampling.make_plan(target, initial=initial, chains=chains, sampler="rwm")
    np.testing.assert_array_equal(plan.initial, expected)
    assert [state.positions[0].tolist() for state in sampling.start_groups(plan)] == expected


def test_start_function_gets_an_independent_generator_per_chain():
    def start(rng):
        return rng.normal(size=2)

    plan = sampling.make_plan(SCALAR, initial=start, chains=3, seed=1)
    assert len(np.unique(plan.initial)) == 6
    np.testing.assert_array_equal(plan.initial, sampling.make_plan(SCALAR, initial=start, chains=3, seed=1).initial)


def test_start_points_are_drawn_inside_the_bounds():
    plan = sampling.make_plan(SCALAR, bounds={"x": (0, 1), "y": (5, np.inf)}, chains=50, seed=1)
    points = np.concatenate([state.positions for state in sampling.start_groups(plan)])
    assert len(points) == 50
    assert (points[:, 0] > 0).all()
    assert (points[:, 0] < 1).all()
    assert (points[:, 1] > 5).all()
    assert sampling.make_plan(VECTOR, bounds=[(0, 1)] * 3).names == ("theta[0]", "theta[1]", "theta[2]")


def test_random_start_outside_the_support_is_drawn_again():
    def log_density(mu, sigma):
        return -math.inf if sigma <= 0 else -math.log(sigma) - mu * mu - sigma

    target = sampling.resolve_target(log_density)
    samples = sampling.sample_here(target, sampling.make_plan(target, chains=20, draws=50, seed=2))
    assert (samples.initial[:, 1] > 0).all()
    assert samples.n_evaluations > 20 * 151


def test_hopeless_random_start_says_what_to_type():
    target = sampling.resolve_target(lambda x, y: -math.inf, names=["x", "y"])
    with pytest.raises(TargetError, match=r"Chain 0 cannot start.*1,000 random points"):
        sampling.sample_here(target, sampling.make_plan(target))
