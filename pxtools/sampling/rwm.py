"""Random-walk Metropolis with a uniform box: the walker of the notebooks. One chain is one group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pxtools.kernels import rwm as kernel
from pxtools.sampling.group import GroupState, WalkElsewhere, begin, stream
from pxtools.sampling.targets import Target

if TYPE_CHECKING:
    from pxtools.sampling.plan import SamplePlan


@dataclass(frozen=True, kw_only=True)
class RwmState(GroupState):
    """Where one chain stands.

    Attributes
    ----------
    step : (n_params,) array
        Half-width of the proposal, in walking coordinates.
    """

    step: NDArray[np.float64]

    def walk(self, target: Target, common: dict[str, Any], accepted: NDArray[np.int64]) -> Any:
        """Return the kernel's walk, or that of a function of another language, whose loop runs there."""
        box = np.vstack([self.step, self.space.lower, self.space.upper, self.space.period])
        if target.walks_by_itself and self.space.mapping is None:
            return WalkElsewhere(target.function.walk, box=box, **common)  # type: ignore[attr-defined]
        slope = float(self.space.outward(self.positions)[1][0])
        return kernel.Walk(target.caller, box=box, slope=slope, **common)


def start(plan: SamplePlan, group: int) -> RwmState:
    """Return the state of chain `group` before its first step; the target is not called yet."""
    generator = stream(plan.seed, group)
    common = begin(plan, group, generator)
    return RwmState(step=plan.step, bits=dict(generator.bit_generator.state), **common)
