"""What is wrong with a run, in plain words, with what to type.

A check is one function that takes a `Run` and returns texts; it stands in `WARNINGS` or in `NOTES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pxtools.sampling.regions import lies_in_one_mode, regions
from pxtools.sampling.shapes import has_many_parameters, has_raised, is_a_funnel, piles_up

if TYPE_CHECKING:
    from pxtools.sampling.samples import Samples

Floats = NDArray[np.float64]

#: Vehtari et al. (2021), section 4: below it chains agree; and the least effective sample size for R-hat to be reliable
RHAT_GOOD = 1.01
ESS_GOOD = 400
#: outside of this range a random walk wastes its steps
ACCEPTANCE_GOOD = (0.1, 0.9)
#: parameters named in one message
MAX_NAMED = 4


@dataclass(frozen=True)
class Run:
    """A run with its diagnostics, (n_params,) arrays."""

    samples: Samples
    rhat: Floats
    ess_bulk: Floats
    ess_tail: Floats

    @property
    def has_disagreement(self) -> bool:
        """Some R-hat is above the limit."""
        return bool((self.rhat > RHAT_GOOD).any())

    @cached_property
    def regions(self) -> tuple[list[tuple[list[int], Floats]], list[int]]:
        """The regions that chains do not leave, and the chains that do."""
        return regions(self.samples.draws)


def findings(samples: Samples, *, rhat: Floats, ess_bulk: Floats, ess_tail: Floats) -> tuple[list[str], list[str]]:
    """Return warnings and notes, the most important first."""
    run = Run(samples, rhat, ess_bulk, ess_tail)
    return [text for check in WARNINGS for text in check(run)], [text for check in NOTES for text in check(run)]


def chains_disagree(run: Run) -> list[str]:
    """R-hat is above 1.01: say for which parameters, and which chains stay where."""
    if not run.has_disagreement:
        return []
    samples, worst = run.samples, np.argsort(-np.nan_to_num(run.rhat, posinf=np.inf), kind="stable")
    bad = [int(k) for k in worst if run.rhat[k] > RHAT_GOOD]
    named = ", ".join(f"{samples.names[k]} {run.rhat[k]:.3f}" for k in bad[:MAX_NAMED]) + _and_more(len(bad))
    text = f"the chains disagree (R-hat above {RHAT_GOOD}: {named}), so the numbers above are not yet the target's."
    return [text + "\n" + _who_stays_where(run, sorted(bad[:MAX_NAMED]))]


def _who_stays_where(run: Run, shown: Sequence[int]) -> str:
    samples, (found, travellers) = run.samples, run.regions
    if len(found) < 2:
        return (
            f"They visit the same places, but too slowly for their length: ten times as many --draws"
            f"{_or_step(samples)}. If that does not help, the shape is the trouble (a bent ridge, a funnel): write the "
            f"target with parameters that depend less on each other."
        )
    advice = (
        f"How many chains are where depends on where they started: {_get_across(samples)}, so that chains get across."
    )
    if len(found) == samples.n_chains > 3:
        return f"Each of the {samples.n_chains} chains stays in a region of its own. {advice}"
    lines = [f"{_chains(members)} near ({_place(samples, centre, shown)})" for members, centre in found]
    if travellers:
        lines.append(f"{_chains(travellers, 'moves', 'move')} between these regions")
    return "\n".join([*lines, advice])


def _or_step(samples: Samples) -> str:
    return ", or another --step" if samples.sampler == "rwm" else " and --warmup"


def _get_across(samples: Samples) -> str:
    if samples.sampler == "auto":
        return "take a longer --warmup, and start points or --bounds that cover all modes"
    return "take a larger --step, or --sampler auto" if samples.sampler == "rwm" else "take --sampler auto"


def _chains(members: Sequence[int], one: str = "stays", many: str = "stay") -> str:
    if len(members) == 1:
        return f"chain {members[0]} {one}"
    return f"chains {', '.join(map(str, members))} {many}"


def _place(samples: Samples, centre: Floats, shown: Sequence[int]) -> str:
    return ", ".join(f"{samples.names[k]} = {centre[k]:.3g}" for k in shown)


def started_in_one_place(run: Run) -> list[str]:
    """All start points are (nearly) one point: R-hat cannot notice what no chain has visited."""
    samples = run.samples
    if not _is_one_place(samples):
        return []
    where = _place(samples, samples.initial.mean(axis=0), range(min(MAX_NAMED, samples.n_params)))
    return [
        f"all {samples.n_chains} chains started in one place, ({where}). "
        f"R-hat compares the chains with each other: a mode that none of them reached goes unnoticed.\n"
        f"Start from points spread wider than the answer: --initial X of shape (chains, parameters), or --bounds."
    ]


def started_in_one_mode(run: Run) -> list[str]:
    """Chains stay in one region, and every start point lies in it, in the one mode that it has."""
    samples = run.samples
    if samples.n_chains < 2 or len(run.regions[0]) > 1 or _is_one_place(samples) or _covers_the_bounds(samples):
        return []
    if not lies_in_one_mode(samples.initial, samples.points):
        return []
    ends = zip(samples.initial.min(axis=0), samples.initial.max(axis=0), strict=True)
    ranges = [f"{name} {low:.3g} to {high:.3g}" for name, (low, high) in zip(samples.names, ends, strict=True)]
    return [
        f"all {samples.n_chains} start points lie in one mode, the one that the draws describe "
        f"({', '.join(ranges[:MAX_NAMED])}{_and_more(len(ranges))}). "
        f"If the target has another mode, no chain has looked there, and R-hat does not notice.\n"
        f"To look further: --initial with points spread wider, or --bounds."
    ]


def _is_one_place(samples: Samples) -> bool:
    """Start points differ by no more than one step, or by little next to the draws."""
    if samples.n_chains < 2:
        return False
    spread = np.ptp(samples.initial, axis=0)
    return bool((spread <= np.maximum(samples.step, 0.2 * samples.points.std(axis=0))).all())


def _covers_the_bounds(samples: Samples) -> bool:
    """The chains started all over a bounded support: nobody can start wider."""
    width = samples.bounds[:, 1] - samples.bounds[:, 0]
    return bool((np.ptp(samples.initial, axis=0) > 0.5 * width).all())


def few_effective_draws(run: Run) -> list[str]:
    """Chains agree, but their draws are worth too few independent ones."""
    least = np.fmin(run.ess_bulk, run.ess_tail)
    bad = np.flatnonzero(least < ESS_GOOD)
    if run.has_disagreement or not bad.size:
        return []
    named = ", ".join(f"{run.samples.names[k]} {least[k]:.0f}" for k in bad[:MAX_NAMED]) + _and_more(bad.size)
    wanted = int(np.ceil(run.samples.n_draws * ESS_GOOD / least[bad].min() * 1.2))
    step = ", or another --step" if run.samples.sampler == "rwm" else ""
    advice = f"--draws {float(f'{wanted:.1g}'):.0f}{step}"
    return [
        f"few effective draws ({named}; {ESS_GOOD} is advised), so the errors above are uncertain too. Try {advice}."
    ]


def walks_badly(run: Run) -> list[str]:
    """Chains that never moved; steps too long or too short."""
    samples, (low, high) = run.samples, ACCEPTANCE_GOOD
    rate = samples.acceptance_rate
    stuck = [int(k) for k in np.flatnonzero(rate == 0)]
    texts = (
        [f"{_chains(stuck, 'never moves', 'never move')}: every step was rejected. Take a smaller --step."]
        if stuck
        else []
    )
    mean = rate.mean()
    if samples.sampler != "rwm":
        return texts
    if len(stuck) < samples.n_chains and mean < low:
        texts.append(f"only {100 * mean:.1f} % of the steps are accepted: take a smaller --step.")
    if mean > high:
        texts.append(f"{100 * mean:.0f} % of the steps are accepted, so the chains creep: take a larger --step.")
    return texts


def was_nan(run: Run) -> list[str]:
    """The target was NaN somewhere."""
    samples = run.samples
    if not samples.n_nan or samples.first_nan is None:
        return []
    share = 100 * samples.n_nan / samples.n_evaluations
    point = ", ".join(f"{name} = {x:.6g}" for name, x in zip(samples.names, samples.first_nan, strict=True))
    return [
        f"`{samples.target_name}` was NaN {samples.n_nan:,} times ({share:.2g} % of its calls), first at ({point}). "
        f"Such steps are rejected: right where the density is 0, wrong elsewhere."
    ]


def looks_like_a_density(run: Run) -> list[str]:
    """A log-density that is never negative, and near 0 somewhere, may be a density."""
    samples = run.samples
    if samples.is_density or samples.values.min() < 0 or samples.values.min() > np.ptp(samples.values) > 0:
        return []
    return [
        f"`{samples.target_name}` is never negative, but taken for a log-density. If it is a density, add --density."
    ]


def has_one_chain(run: Run) -> list[str]:
    """R-hat needs two chains."""
    if run.samples.n_chains > 1:
        return []
    return ["one chain cannot be compared with others, so there is no R-hat. Use --chains 4 or more."]


def _and_more(count: int) -> str:
    return f" and {count - MAX_NAMED} more" if count > MAX_NAMED else ""


Check = Callable[[Run], list[str]]


def _of_samples(check: Callable[[Samples], list[str]]) -> Check:
    return lambda run: check(run.samples)


WARNINGS: tuple[Check, ...] = (
    _of_samples(is_a_funnel),  # it explains why chains disagree
    chains_disagree,
    started_in_one_place,
    few_effective_draws,
    walks_badly,
    was_nan,
    _of_samples(has_raised),
    looks_like_a_density,
)
NOTES: tuple[Check, ...] = (
    started_in_one_mode,
    has_one_chain,
    _of_samples(piles_up),
    _of_samples(has_many_parameters),
)
