"""Sample on engines: groups of chains walk in chunks, wherever an engine is free."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pxtools.errors import PxUsageError
from pxtools.sampling import Samples, assemble, make_plan, resolve_target, start_groups
from pxtools.sampling.run import CHUNK_S, next_chunk_size
from pxtools.session.core import Session
from pxtools.session.failures import to_exception
from pxtools.session.pool import Pool

ADVANCE = "pxtools.sampling.samplers.advance"

_FIRST_CHUNK = 200


def sample(
    session: Session,
    function: Callable[..., Any],
    *,
    density: bool = False,
    scalar: bool | None = None,
    vectorized: bool = False,
    names: Sequence[str] | None = None,
    targets: Any = None,
    timeout_s: float | None = None,
    local: Mapping[str, Any] | None = None,
    on_partial: Callable[[Samples], None] | None = None,
    **options: Any,
) -> Samples:
    """Sample a density on the engines.

    Parameters
    ----------
    function
        A Python or Cython callable of one vector or of one float per parameter.
    density, scalar, vectorized, names
        See `pxtools.sampling.resolve_target`: a density in place of a log-density, how it is called, parameter names.
    targets
        Engines to use; the draws are the same for any number of them.
    on_partial
        Called with the draws that there are when the run is interrupted.
    **options
        Of `pxtools.sampling.make_plan`: draws, warmup, chains, thin, step, initial, bounds, scale, seed, sampler.

    Returns
    -------
    Samples
        Draws are bit-identical for any number of engines, on one platform and target tier.

    Raises
    ------
    PxUsageError
        Before anything runs.
    TargetError
        The function returned something that is no density; the message names the point.
    """
    target = resolve_target(function, density=density, scalar=scalar, vectorized=vectorized, names=names)
    engines = session.targets(targets)
    plan = make_plan(target, default_chains=max(4, 2 * len(engines)), **options)
    target = target.with_size(len(plan.names))
    packed, gathering = session.gatherer(local).pack_value(target)
    gathering.more_modules |= packed.modules
    run = _Run(session, plan, target.tier)
    with Pool(session, packed, gathering, engines, timeout_s) as pool:
        try:
            run.walk(pool)
        except KeyboardInterrupt:
            partial = run.samples_so_far()
            if on_partial is not None and partial is not None:
                on_partial(partial)
            raise
    return run.samples()


class _Run:
    """The chunks of one run as they come in."""

    def __init__(self, session: Session, plan: Any, tier: str) -> None:
        self.session = session
        self.plan = plan
        self.tier = tier
        self.chunks: list[list[Any]] = [[] for _ in range(plan.n_groups)]
        self.sizes = [_FIRST_CHUNK] * plan.n_groups
        self.began = time.perf_counter()
        self.display = session.progress(f"sampling {plan.target_name}") if session.progress else None

    def walk(self, pool: Pool) -> None:
        """Send each group's next chunk as soon as the one before is back."""
        try:
            for group, state in enumerate(start_groups(self.plan)):
                self._submit(pool, group, state)
            for group, reply in pool.completed(self._show):
                if reply.failure is not None:
                    raise to_exception({reply.engine_id: reply.failure}, 1)
                answer = reply.answer or {}
                chunk = answer["value"]
                self.chunks[group].append(chunk)
                self.sizes[group] = next_chunk_size(self.sizes[group], answer["seconds"], CHUNK_S)
                if chunk.state.n_done < self.plan.n_steps:
                    self._submit(pool, group, chunk.state)
        finally:
            if self.display is not None:
                self._show()
                self.display.close()

    def _submit(self, pool: Pool, group: int, state: Any) -> None:
        n_steps = min(self.sizes[group], self.plan.n_steps - state.n_done)
        pool.submit(group, "call_task", {"function": ADVANCE, "args": (state, n_steps)})

    def _show(self) -> None:
        if self.display is None:
            return
        total = self.plan.n_groups * self.plan.n_steps
        done = sum(chunks[-1].state.n_done for chunks in self.chunks if chunks)
        rate = done / max(time.perf_counter() - self.began, 1e-9)
        left = (total - done) / max(rate, 1e-9)
        self.display.update(f"{done:,}/{total:,} steps · {rate:,.0f}/s · {left:.0f} s left", done / total)

    def samples_so_far(self) -> Samples | None:
        """Return the draws of an interrupted run; None if some chain has not got through its warm-up."""
        try:
            return self.samples()
        except PxUsageError:
            return None

    def samples(self) -> Samples:
        """Put together what has come in."""
        return assemble(self.plan, self.chunks, seconds=time.perf_counter() - self.began, target_tier=self.tier)
