"""Targets that take many points in one call: the chains of all groups at once, and the draws of one by one."""

from types import SimpleNamespace

import numpy as np
import pytest

from pxtools import sampling
from pxtools.errors import PxUsageError, TargetError
from pxtools.kernels import calls_numpy, demcz_numpy, ram_numpy, rwm_numpy
from pxtools.session.sampling import _bundles

SAMPLERS = list(sampling.SAMPLERS)
STARTS = np.random.default_rng(0).standard_normal((10, 2))
TWINS = {"demcz": demcz_numpy, "ram": ram_numpy, "rwm": rwm_numpy}


def one_by_one(x, y):
    return -0.5 * (x * x + y * y * 4.0)


class Rows:
    """The same for an array of points; remembers how many it was given."""

    __name__ = "rows"

    def __init__(self):
        self.sizes = []

    def __call__(self, points):
        self.sizes.append(len(points))
        return -0.5 * (points[:, 0] * points[:, 0] + points[:, 1] * points[:, 1] * 4.0)


def make_plan(target, sampler, **options):
    return sampling.make_plan(
        target, **{"initial": STARTS, "draws": 60, "warmup": 40, "seed": 2, "sampler": sampler, "step": 0.8, **options}
    )


def together(target, plan):
    """Carry a plan out with all groups in step."""
    chunks = sampling.advance_all(target, sampling.start_groups(plan), plan.n_steps)
    return sampling.assemble(plan, [[chunk] for chunk in chunks])


@pytest.fixture(params=["compiled", "twin"])
def tier(request, monkeypatch):
    if request.param == "twin":
        for name, module in TWINS.items():
            twin = SimpleNamespace(Walk=module.Walk, drive=calls_numpy.drive, COMPILED=False)
            monkeypatch.setattr(f"pxtools.sampling.{name}.kernel", twin)
    return request.param


@pytest.mark.parametrize("options", [{}, {"bounds": (-2, 2)}, {"bounds": (-4, 4), "transform": True}], ids=str)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_batches_give_the_draws_of_one_by_one(sampler, options, tier):
    if options:
        options = {**options, "initial": STARTS.clip(-1.9, 1.9)}
    rows = Rows()
    target = sampling.resolve_target(rows, vectorized=True)
    plan = make_plan(target, sampler, **options)
    alone = sampling.sample_here(sampling.resolve_target(one_by_one), plan)
    rows.sizes.clear()
    samples = together(target, plan)
    np.testing.assert_array_equal(samples.draws, alone.draws)
    np.testing.assert_array_equal(samples.values, alone.values)
    np.testing.assert_array_equal(samples.acceptance_rate, alone.acceptance_rate)
    assert samples.n_evaluations == alone.n_evaluations
    assert len(rows.sizes) == 10 + plan.n_steps  # each start by itself, then all chains at once
    assert max(rows.sizes) == 10


def test_group_alone_sends_the_proposals_of_its_chains_together():
    rows = Rows()
    target = sampling.resolve_target(rows, vectorized=True)
    sampling.sample_here(target, make_plan(target, "auto"))
    assert max(rows.sizes) == 5  # ten chains are two groups


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_point_that_raises_or_is_nan_counts_as_it_does_alone(sampler, tier):
    def rows(points):
        if (points[:, 0] > 1.2).any():
            raise ArithmeticError("far")
        with np.errstate(invalid="ignore"):
            return np.where(points[:, 1] > 1.0, np.nan, -0.5 * (points**2).sum(axis=1))

    def alone(x, y):
        if x > 1.2:
            raise ArithmeticError("far")
        return np.nan if y > 1.0 else -0.5 * (x * x + y * y)

    starts = STARTS.clip(-1, 0.9)
    target = sampling.resolve_target(rows, vectorized=True)
    plan = make_plan(target, sampler, initial=starts)
    samples, expected = together(target, plan), sampling.sample_here(sampling.resolve_target(alone), plan)
    np.testing.assert_array_equal(samples.draws, expected.draws)
    counts = (samples.n_errors, samples.n_nan, samples.n_evaluations)
    assert counts == (expected.n_errors, expected.n_nan, expected.n_evaluations)
    assert samples.n_errors > 0 < samples.n_nan
    assert "ArithmeticError: far" in samples.first_error


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda points: points, r"shape \(10, 2\) and type float64, where shape \(10,\)"),
        (lambda points: points.sum(), r"shape \(\)"),
        (lambda points: points.sum(axis=1) + 0j, "type complex128"),
        (lambda points: (points.sum(axis=1), 1), "extra outputs are for functions of one point"),
    ],
    ids=["a matrix", "one number", "complex", "blobs"],
)
def test_wrong_answer_is_an_error_with_its_shape_and_what_to_return(answer, words, tier):
    def rows(points):
        return -(points**2).sum(axis=1) if len(points) == 1 else answer(points)

    target = sampling.resolve_target(rows, vectorized=True)
    with pytest.raises(TargetError, match=words):
        together(target, make_plan(target, "rwm"))


def test_plus_infinity_in_a_batch_names_its_point(tier):
    def rows(points):
        return np.where(points[:, 0] > 1, np.inf, -(points**2).sum(axis=1))

    target = sampling.resolve_target(rows, vectorized=True)
    with pytest.raises(TargetError, match=r"rows\(np.array\(\[1\..*\]\)\) returned inf"):
        together(target, make_plan(target, "rwm", initial=STARTS.clip(-1, 0.9), draws=300))


def test_bundles_are_even_and_of_groups_that_have_come_equally_far():
    assert _bundles([0] * 5, 2) == [(0, 1), (2, 3, 4)]
    assert _bundles([0] * 3, 8) == [(0,), (1,), (2,)]
    assert _bundles([7, 0, 7, 0], 1) == [(1, 3), (0, 2)]


def test_vectorised_target_on_engines_gives_the_same_draws_for_any_number(session, cell):
    from pxtools.session.sampling import sample

    cell("def rows(p):\n    return -0.5 * (p[:, 0] * p[:, 0] + p[:, 1] * p[:, 1] * 4.0)")
    cell("def alone(x, y):\n    return -0.5 * (x * x + y * y * 4.0)")
    options = {"draws": 80, "warmup": 60, "seed": 4, "initial": np.tile(STARTS, (3, 1)), "until": "ess>1e9"}
    names = session.namespace
    runs = [
        sample(session, names["rows"], vectorized=True, targets=targets, **options)
        for targets in (session.wire.ids[:1], session.wire.ids[:3])
    ]
    expected = sample(session, names["alone"], **options)
    for samples in runs:
        np.testing.assert_array_equal(samples.draws, expected.draws)
    with pytest.raises(PxUsageError, match="contradict each other"):
        sample(session, names["rows"], vectorized=True, scalar=True, **options)
