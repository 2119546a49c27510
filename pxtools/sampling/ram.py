"""Robust adaptive Metropolis: a random walk that learns its steps during warm-up. One chain is one group.

References
----------
M. Vihola (2012), Robust adaptive Metropolis algorithm with coerced acceptance rate, Stat. Comput. 22, 997-1008.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pxtools.kernels import ram as kernel
from pxtools.sampling.group import GroupState, begin, stream
from pxtools.sampling.space import space_of
from pxtools.sampling.targets import Target

if TYPE_CHECKING:
    from pxtools.sampling.plan import SamplePlan

Floats = NDArray[np.float64]

#: the acceptance rate to reach, and how fast steps forget: rate = min(1, n_params * n ** -FORGET)
GOAL = 0.234
FORGET = 0.66


@dataclass(frozen=True, kw_only=True)
class RamState(GroupState):
    """Where one chain stands.

    Attributes
    ----------
    factor : (n_params, n_params) array
        Lower triangular: a proposal adds its product with standard normal deviates.
    """

    factor: Floats

    def walk(self, target: Target, common: dict[str, Any], accepted: NDArray[np.int64]) -> Any:
        """Return the kernel's walk, which adapts its steps during the warm-up."""
        is_kept, n_params = self.n_done >= self.warmup, len(self.factor)
        return kernel.Walk(
            target.caller,
            box=np.vstack([self.space.lower, self.space.upper, self.space.period]),
            factor=self.factor.copy(),
            rates=np.empty(0) if is_kept else _rates(self.n_done, common["n_steps"], n_params),
            goal=GOAL,
            slope=float(self.space.outward(self.positions)[1][0]),
            **common,
        )

    def after(self, walk: Any, generator: Generator) -> Self:
        """Return the state with the steps that were learned."""
        return replace(self, factor=np.array(walk.factor))


def start(plan: SamplePlan, group: int) -> RamState:
    """Return the state of chain `group` before its first step; the target is not called yet."""
    generator = stream(plan.seed, group)
    common = begin(plan, group, generator)
    factor = np.diag(2.38 / np.sqrt(len(plan.names)) * _spread(plan))
    return RamState(factor=factor, bits=dict(generator.bit_generator.state), **common)


def _spread(plan: SamplePlan) -> Floats:
    """Return a guess of the target's scales: those of the start points, or the step where they are all one."""
    points = plan.initial
    if plan.random_start is not None:
        points = np.array([plan.random_start.draw(stream(plan.seed, 2**31 + k)) for k in range(20)])
    points = space_of(plan).inward(points)
    return np.where(np.ptp(points, axis=0) > 0, points.std(axis=0), plan.step)


def _rates(n_done: int, n_steps: int, n_params: int) -> Floats:
    """Return how fast to adapt; always below 1, so that the factor stays one."""
    steps = np.arange(n_done + 1, n_done + n_steps + 1, dtype=np.float64)
    return np.asarray(np.minimum(0.99, n_params * steps**-FORGET))
