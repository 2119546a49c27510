"""Adding a sampler is one file and one row: this file adds one, and the shared checks hold for it."""

import sys
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_rwm_statistics import MAX_Z, largest_z
from three_gaussians import exact_draws, gaussian

from pxtools import sampling
from pxtools.kernels import calls_numpy
from pxtools.sampling.group import GroupState, begin, stream
from pxtools.sampling.samplers import SAMPLERS, Sampler


class Jump(calls_numpy.Walk):
    """Propose a point anywhere in the unit square, whatever the current one is."""

    @staticmethod
    def steps(walk):
        for _ in range(walk.n_steps):
            proposals = [walk.generator.random(2).tolist() for _ in walk.x]
            u = walk.generator.random(len(walk.x))
            for c, answer in enumerate((yield proposals)):
                if u[c] * walk.value[c] < answer.value:
                    walk.accept(c, answer)
            walk.end_step()


kernel = SimpleNamespace(Walk=Jump, drive=calls_numpy.drive, COMPILED=False)


@dataclass(frozen=True, kw_only=True)
class JumpState(GroupState):
    """No more than every group has."""

    def walk(self, target, common, accepted) -> Any:
        return Jump(target.caller, **common)


def start(plan, group):
    generator = stream(plan.seed, group)
    common = begin(plan, group, generator)
    return JumpState(bits=dict(generator.bit_generator.state), **common)


@pytest.fixture(params=["jump", *SAMPLERS])
def sampler(request, monkeypatch):
    monkeypatch.setitem(SAMPLERS, "jump", Sampler(__name__, warmup=0, chains_per_group=4))
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    return request.param


def test_every_sampler_keeps_the_density_from_exact_starts(sampler):
    target = sampling.resolve_target(gaussian, density=True)
    starts = exact_draws(np.random.default_rng(3), 800)
    starts = starts[((starts > 0) & (starts < 1)).all(axis=1)][:720]
    options = {"draws": 15, "warmup": 0, "seed": 1, "sampler": sampler, "bounds": None if sampler != "jump" else (0, 1)}
    plan = sampling.make_plan(target, initial=starts, **options)
    assert largest_z(sampling.sample_here(target, plan).draws[:, -1]) < MAX_Z


def test_every_sampler_takes_blobs_batches_and_cuts(sampler):
    def target_of(x, y):
        return gaussian(x, y), x - y

    target = sampling.resolve_target(target_of, density=True)
    plan = sampling.make_plan(target, bounds=(0, 1), chains=9, draws=40, warmup=16, seed=2, sampler=sampler)
    states = sampling.start_groups(plan)
    first = sampling.advance_all(target, states, 23)
    second = sampling.advance_all(target, [chunk.state for chunk in first], plan.n_steps - 23)
    samples = sampling.assemble(plan, list(map(list, zip(first, second, strict=True))))
    np.testing.assert_array_equal(samples.draws, sampling.sample_here(target, plan).draws)
    np.testing.assert_array_equal(samples["blob_0"], samples["x"] - samples["y"])
