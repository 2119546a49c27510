"""Monte Carlo sampling of any density; a pure library, usable from a script.

A run is: resolve the target, make a plan, walk each of the plan's groups in chunks, assemble the draws.

>>> from pxtools import sampling
>>> target = sampling.resolve_target(lambda x, y: -(x**2 + y**2) / 2)
>>> plan = sampling.make_plan(target, draws=500, chains=4, seed=1)
>>> states = sampling.start_groups(plan)                                   # one small, picklable state a group
>>> chunks = [sampling.advance(target, state, plan.n_steps) for state in states]   # here, or on engines
>>> samples = sampling.assemble(plan, [[chunk] for chunk in chunks])

or in one call, `samples = sampling.sample_here(target, plan)`. What engines need (`targets`, `plan`'s groups, `run`,
the samplers, `pxtools.kernels`) imports the standard library and NumPy only.
"""

from __future__ import annotations

import importlib
from typing import Any

#: public name -> the module it lives in; loaded on first use, so that engines load only what they run
_HOMES = {
    "Target": "targets",
    "resolve_target": "targets",
    "SamplePlan": "plan",
    "make_plan": "plan",
    "Chunk": "samplers",
    "SAMPLERS": "samplers",
    "advance": "samplers",
    "advance_all": "samplers",
    "advance_for": "samplers",
    "Box": "starts",
    "start_groups": "run",
    "assemble": "run",
    "sample_here": "run",
    "Samples": "samples",
    "load": "samples",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
