"""What the target may do wrong: exceptions, NaN, bounds, and what the summary says of it."""

import math

import numpy as np
import pytest

from pxtools import sampling
from pxtools.errors import PxUsageError, TargetError
from pxtools.sampling.diagnostics import mcse_mean

SAMPLERS = list(sampling.SAMPLERS)


def sampled(function, density=False, **options):
    target = sampling.resolve_target(function, density=density)
    plan = sampling.make_plan(target, **{"seed": 1, "draws": 500, **options})
    return sampling.sample_here(target.with_size(len(plan.names)), plan)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_exceptions_reject_are_counted_and_the_first_one_is_shown(sampler):
    def domain(x, y):
        return -x * x - y * y + 0.01 * math.log(x + 1.5)

    starts = np.random.default_rng(0).uniform(-0.5, 0.5, (8, 2))
    samples = sampled(domain, initial=starts, sampler=sampler, step=0.5)
    assert samples.n_errors > 0
    assert "math domain error" in samples.first_error
    assert samples["x"].min() > -1.5
    (warning,) = [text for text in samples.summary().warnings if "raised" in text]
    assert f"raised {samples.n_errors:,} times" in warning
    assert "ValueError: math domain error in domain(" in warning


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_too_many_exceptions_stop_the_run_with_the_call_and_what_to_do(sampler):
    def narrow(x, y):
        if x != 0:
            raise ArithmeticError("outside")
        return -x * x - y * y

    with pytest.raises(ArithmeticError, match="outside") as caught:
        sampled(narrow, initial=np.zeros((8, 2)), sampler=sampler, draws=5_000)
    notes = "\n".join(caught.value.__notes__)
    assert "raised by the target in narrow(" in notes
    assert "return -inf" in notes


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_mistake_in_the_program_is_raised_at_once(sampler):
    def mistaken(x, y):
        return -x * x - (y * y if x < 1 else undefined)  # noqa: F821

    with pytest.raises(NameError, match="undefined"):
        sampled(mistaken, initial=np.zeros((8, 2)), sampler=sampler, step=1.0, draws=5_000)


@pytest.mark.parametrize("value", [math.inf, 1j, None, np.ones(2)], ids=["inf", "complex", "None", "array"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_no_log_density_can_be_is_an_error_with_the_point(value, sampler):
    def strange(x, y):
        return -x * x - y * y if x < 1 else value

    with pytest.raises(TargetError, match=r"^strange\("):
        sampled(strange, initial=np.zeros((8, 2)), sampler=sampler, step=1.0, draws=5_000)


def test_exceptions_at_random_starts_are_drawn_again():
    def half(x, y):
        return math.log(x) - x * x - y * y

    samples = sampled(half)
    assert (samples.initial[:, 0] > 0).all()


def test_start_at_zero_by_zero_is_explained():
    def ratio(x, y):
        return math.nan if x == 0 else -x * x

    with pytest.raises(TargetError, match=r"Chain 0 cannot start: ratio\(0.0, 0.0\) is nan"):
        sampled(ratio, initial=np.zeros((8, 2)))


def test_mass_at_a_bound_is_said():
    samples = sampled(lambda x, y: 40 * x - y * y, bounds={"x": (0, 1), "y": (-5, 5)}, draws=2000)
    assert any("`x` piles up at its upper bound 1" in note for note in samples.summary().notes)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_periodic_parameter_goes_round(sampler):
    def circle(angle, y):
        return 2 * math.cos(angle) - y * y

    bounds = {"angle": (0, 2 * math.pi), "y": (-5, 5)}
    samples = sampled(circle, bounds=bounds, periodic=["angle"], sampler=sampler, draws=8000, chains=8, step=1.0)
    cosine = np.cos(samples["angle"])
    assert abs(cosine.mean() - 0.697774658) < 4.5 * mcse_mean(cosine)  # I1(2) / I0(2)
    assert (np.abs(np.diff(samples["angle"])) > math.pi).sum() > 100
    with pytest.raises(PxUsageError, match="between which numbers"):
        sampled(circle, periodic=["angle"])
    with pytest.raises(PxUsageError, match="Did you mean `angle`"):
        sampled(circle, bounds=bounds, periodic=["angel"])


def test_many_parameters_point_to_gradients():
    samples = sampled(lambda p: -0.5 * float(p @ p), bounds=[(-5, 5)] * 20, draws=50, warmup=100)
    assert any("nutpie or numpyro" in note for note in samples.summary().notes)
