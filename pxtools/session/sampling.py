"""Sample on engines: groups of chains walk in chunks, wherever an engine is free."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pxtools.errors import PxCancelled, PxTimeout, PxUsageError
from pxtools.sampling import Samples, assemble, make_plan, resolve_target, start_groups
from pxtools.sampling.checkpoint import Checkpoint, check_same, read, write
from pxtools.sampling.diagnostics import ess_bulk, rhat
from pxtools.sampling.fingerprint import fingerprint
from pxtools.sampling.numba_tier import choose_tier
from pxtools.sampling.run import CHUNK_S
from pxtools.sampling.until import MOST_DRAWS, Until, next_look, read_until
from pxtools.session.core import NoProgress, Session
from pxtools.session.failures import to_exception
from pxtools.session.handle import Handle
from pxtools.session.pool import Pool

ADVANCE = "pxtools.sampling.samplers.advance_for"

#: between two checkpoints, at least; and between two live diagnostics
_CHECKPOINT_S = 2.0
_LIVE_S = 1.0
#: what live diagnostics look at
_LIVE_DRAWS, _LIVE_PARAMS = 500, 10


@dataclass(frozen=True)
class Ending:
    """When a run ends, and what it leaves on disk.

    Attributes
    ----------
    until : Until or None
        Goals, looked at every so many draws.
    timeout_s : float or None
        Seconds after which the draws so far are returned.
    checkpoint : path or None
        File with the run's state, written every few seconds and at the end.
    resume : bool
        Go on from `checkpoint` if it is there.
    """

    until: Until | None = None
    timeout_s: float | None = None
    checkpoint: str | os.PathLike[str] | None = None
    resume: bool = False


def sample(
    session: Session,
    function: Callable[..., Any],
    *,
    density: bool = False,
    scalar: bool | None = None,
    vectorized: bool = False,
    names: Sequence[str] | None = None,
    blobs: Sequence[str] | None = None,
    targets: Any = None,
    tier: str = "auto",
    timeout_s: float | None = None,
    until: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    block: bool = True,
    local: Mapping[str, Any] | None = None,
    on_partial: Callable[[Samples], None] | None = None,
    **options: Any,
) -> Any:
    """Sample a density on the engines.

    Parameters
    ----------
    function
        A Python or Cython callable of one vector or of one float per parameter.
    density, scalar, vectorized, names, blobs
        See `pxtools.sampling.resolve_target`: a density in place of a log-density, how it is called, names of its
        parameters and extra outputs.
    targets
        Engines to use; the draws are the same for any number of them.
    tier
        `auto`, `python` or `numba`: what a Python function is made into.
    timeout_s
        Seconds after which the draws so far are returned.
    until
        Stop when this is met: ``"rhat<1.01 ess>1000"``; `draws` is then the most, one million unless told.
    checkpoint, resume
        A file to keep the run's state in; go on from it.
    block
        Wait for the end; otherwise a `Sampling` is returned at once.
    on_partial
        Called with the draws that there are when the run is interrupted.
    **options
        Of `pxtools.sampling.make_plan`: draws, warmup, chains, thin, step, initial, bounds, periodic, transform,
        scale, seed, sampler.

    Returns
    -------
    Samples or Sampling
        Draws are bit-identical for any number of engines, on one platform and target tier.

    Raises
    ------
    PxUsageError
        Before anything runs.
    TargetError
        The function returned something that is no density; the message names the point.
    PxTimeout
        The time was over before there were draws.
    """
    ending = Ending(None if until is None else read_until(until), timeout_s, checkpoint, resume)
    if resume and checkpoint is None:
        raise PxUsageError("--resume needs the file to go on from.\nType --checkpoint FILE --resume.")
    target = resolve_target(function, density=density, scalar=scalar, vectorized=vectorized, names=names, blobs=blobs)
    stored = read(checkpoint) if resume and checkpoint is not None and os.path.exists(checkpoint) else None
    options = {name: value for name, value in options.items() if value is not None}
    if stored is not None:
        options = {"seed": stored.plan.seed, "warmup": stored.plan.warmup} | options
    if (seed := session.settings.seed_for(options.get("seed"))) is not None:
        options["seed"] = seed
    engines = session.targets(targets)
    plan = make_plan(target, n_engines=len(engines), **options)
    if until is not None and "draws" not in options:
        plan = replace(plan, draws=MOST_DRAWS)  # the warm-up is that of a run of usual length
    target, tier_notes = choose_tier(target.with_size(len(plan.names)), plan, tier)
    packed, gathering = session.gatherer(local).pack_value(target)
    gathering.more_modules |= packed.modules
    run = _Run(session, plan, target.tier, ending, len(engines), goes_together=target.rows is not None)
    run.fingerprint = fingerprint(function)
    run.notes += tier_notes
    if stored is not None:
        check_same(stored, plan, target.tier, run.fingerprint, checkpoint)
        run.chunks = [list(group) for group in stored.chunks]

    def start() -> Pool:
        run.display = session.progress(f"sampling {plan.target_name}")
        return Pool(session, packed, gathering, engines)

    if not block:
        return Sampling(run, start)
    try:
        return carry_out(run, start())
    except KeyboardInterrupt:
        partial = run.samples_so_far()
        if on_partial is not None and partial is not None:
            on_partial(partial)
        raise


class Sampling(Handle):
    """A run under way, for notebooks that go on meanwhile.

    `cancel` ends it with the chunks that are under way; `result` then returns the draws so far.
    """

    def __init__(self, run: _Run, start: Callable[[], Pool]) -> None:
        super().__init__(
            f"sampling {run.plan.target_name}", lambda: carry_out(run, start()), partial=run.samples_so_far
        )

    @property
    def samples(self) -> Samples | None:
        """The draws so far; None while some chain is in its warm-up."""
        samples: Samples | None = self.partial
        return samples


def carry_out(run: _Run, pool: Pool) -> Samples:
    """Walk all groups to the end and return the samples; those so far when the time is over."""
    try:
        with pool:
            run.walk(pool)
    except (PxTimeout, PxCancelled):
        partial = run.samples_so_far()
        if partial is None:
            raise
        return partial
    finally:
        run.store(is_last=True)
    return run.samples()


def _bundles(steps_done: Sequence[int], n_bundles: int) -> list[tuple[int, ...]]:
    """Return which groups go together: as even as can be, and only those that have come equally far."""
    bundles = []
    for done in sorted(set(steps_done)):
        groups = [group for group, own in enumerate(steps_done) if own == done]
        count = min(n_bundles, len(groups))
        bundles += [tuple(groups[k * len(groups) // count : (k + 1) * len(groups) // count]) for k in range(count)]
    return bundles


class _Run:
    """The chunks of one run as they come in."""

    def __init__(
        self, session: Session, plan: Any, tier: str, ending: Ending, n_engines: int, *, goes_together: bool
    ) -> None:
        self.plan = plan
        self.n_engines = n_engines
        self.goes_together = goes_together
        self.tier = tier
        self.ending = ending
        self.chunks: list[list[Any]] = [[] for _ in range(plan.n_groups)]
        self.began = time.perf_counter()
        self.engine_seconds = 0.0
        self.fingerprint = ""
        self.notes: list[str] = []
        self.is_met = False
        self.stored_at = self.began
        self.live_at, self.live = self.began, ""
        self.display: Any = NoProgress()

    def walk(self, pool: Pool) -> None:
        """Bring all groups to the next look, until the goals are met or all steps are done.

        Each engine first gets its share of the groups in one message, which is all that a short run needs. Then groups
        go one by one, so that no engine waits for another; but for a target that takes many points in one call, which
        is quicker the more groups an engine has. Draws do not depend on it.
        """
        try:
            first = start_groups(self.plan)
            while True:
                goal = self._goal()
                states = [chunks[-1].state if chunks else first[group] for group, chunks in enumerate(self.chunks)]
                for bundle in _bundles([state.n_done for state in states], self.n_engines):
                    self._submit(pool, bundle, [states[group] for group in bundle], goal)
                for bundle, reply in pool.completed(self._tick):
                    if reply.failure is not None:
                        raise to_exception({reply.engine_id: reply.failure}, 1)
                    self._take(bundle, reply.answer or {})
                    for part in [bundle] if self.goes_together else [(group,) for group in bundle]:
                        self._submit(pool, part, [self.chunks[group][-1].state for group in part], goal)
                if self._is_enough():
                    return
        finally:
            self.close_display()

    def close_display(self) -> None:
        """Show the last state, then nothing more."""
        self.display.close(self.progress_text(is_over=True), self._share())

    def _steps(self, n_draws: int) -> int:
        return int(min(self.plan.n_steps, self.plan.warmup + n_draws * self.plan.thin))

    def _n_draws(self) -> int:
        """Return the draws that every chain has."""
        return min(sum(chunk.draws.shape[1] for chunk in chunks) for chunks in self.chunks)

    def _goal(self) -> int:
        """Return the steps at which all groups meet: the looks depend on the draws alone, so runs can be repeated."""
        return self.plan.n_steps if self.ending.until is None else self._steps(next_look(self._n_draws()))

    def _is_enough(self) -> bool:
        if all(chunks and chunks[-1].state.n_done >= self.plan.n_steps for chunks in self.chunks):
            if self.ending.until is not None and not self.ending.until.is_met(self._draws()):
                self.notes.append(f"--until {self.ending.until.text} is not met: more --draws.")
            return True
        if self.ending.until is None or not self.ending.until.is_met(self._draws()):
            return False
        self.notes.append(f"Ended when {self.ending.until.text} was met.")
        self.is_met = True
        return True

    def _draws(self) -> Any:
        n_draws = self._n_draws()
        return np.concatenate(
            [np.concatenate([chunk.draws for chunk in chunks], axis=1)[:, :n_draws] for chunks in self.chunks]
        )

    def _submit(self, pool: Pool, bundle: tuple[int, ...], states: Sequence[Any], goal: int) -> None:
        n_steps = goal - states[0].n_done
        if n_steps > 0:
            pool.submit(bundle, "call_task", {"function": ADVANCE, "args": (states, n_steps, CHUNK_S)})

    def _take(self, bundle: tuple[int, ...], answer: Mapping[str, Any]) -> None:
        for group, pieces in zip(bundle, answer["value"], strict=True):
            self.chunks[group] += pieces
        self.engine_seconds += answer["seconds"]
        self.store()

    def store(self, is_last: bool = False) -> None:
        """Write the checkpoint when it is time; writing takes a twentieth of the time at most."""
        now = time.perf_counter()
        if self.ending.checkpoint is None or not (is_last or now > self.stored_at):
            return
        write(self.ending.checkpoint, Checkpoint(self.plan, self.tier, self.chunks, self.fingerprint))
        took = time.perf_counter() - now
        self.stored_at = now + max(_CHECKPOINT_S, 20 * took)

    def _tick(self) -> None:
        timeout = self.ending.timeout_s
        if timeout is not None and time.perf_counter() - self.began > timeout:
            self.notes.append(f"Stopped by --timeout {timeout:g}.")
            raise PxTimeout(f"no draws after {timeout:g} s; the engines were interrupted.\nGive `--timeout S`.")
        self._show()

    def _show(self) -> None:
        self.display.update(self.progress_text(), self._share())

    def _share(self) -> float:
        return self._n_done() / (self.plan.n_groups * self.plan.n_steps)

    def _n_done(self) -> int:
        return sum(chunks[-1].state.n_done for chunks in self.chunks if chunks)

    def progress_text(self, *, is_over: bool = False) -> str:
        """Return steps and rate; while it runs also the time that is left, and what the draws are worth so far."""
        total, done = self.plan.n_groups * self.plan.n_steps, self._n_done()
        rate = done / max(time.perf_counter() - self.began, 1e-9)
        so_far = f"{done:,}/{total:,} steps · {rate:,.0f}/s"
        if is_over:
            return so_far
        left = "" if self.ending.until is not None else f" · {(total - done) / max(rate, 1e-9):.0f} s left"
        return f"{so_far}{left}{self._live_text()}"

    def _live_text(self) -> str:
        now = time.perf_counter()
        if now - self.live_at > _LIVE_S and all(self.chunks) and self._n_draws() >= 8:
            draws = self._draws()
            thinned = draws[:, :: max(1, draws.shape[1] // _LIVE_DRAWS), :_LIVE_PARAMS]
            stats = [chunks[-1].state.stats for chunks in self.chunks]
            rate = sum(s.n_accepted.mean() for s in stats) / max(1, sum(s.n_kept_steps for s in stats))
            worst = np.nanmax(rhat(thinned)) if len(draws) > 1 else np.nan
            self.live = f" · acceptance {rate:.2f} · R-hat {worst:.3f} · ESS {ess_bulk(thinned).min():,.0f}"
            self.live_at = time.perf_counter()
        return self.live

    def samples_so_far(self) -> Samples | None:
        """Return the draws of an interrupted run; None if some chain has not got through its warm-up."""
        try:
            return self.samples()
        except PxUsageError:
            return None

    def samples(self) -> Samples:
        """Put together what has come in. A run that has met its goal has all the draws that it was to have."""
        return assemble(
            replace(self.plan, draws=self._n_draws()) if self.is_met else self.plan,
            self.chunks,
            seconds=time.perf_counter() - self.began,
            engine_seconds=self.engine_seconds,
            target_tier=self.tier,
            notes=self.notes,
        )
