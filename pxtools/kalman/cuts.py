"""One long series cut in time, into parts that different engines filter and smooth.

A filter forgets where it started, at the rate of its closed loop `F (I - K H)`. So a part begins a margin of steps
before the steps that are its own, with the covariance that stands still, and ends a margin after them for the pass
backwards, which forgets at the same rate. Where two parts meet, both have moments of the same state: these are
compared, and parts that do not agree to `AGREED` were cut too tightly. Nothing else is assumed: gaps in the series only
make it forget more slowly.

Reference: Anderson & Moore (1979), Optimal Filtering, section 4.4, for why a filter forgets.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from pxtools.errors import PxUsageError
from pxtools.kalman.checks import Array
from pxtools.kalman.filtering import run_form
from pxtools.kalman.model import StateSpaceModel
from pxtools.kalman.observations import Observed
from pxtools.kalman.results import FilterResult
from pxtools.kalman.system import system_of

#: parts that meet differ by no more than this, relative to a state's size and standard deviation
AGREED = 1e-13

#: a margin leaves this of what a part started with
FORGOTTEN = 2.0**-60

#: a covariance that changes by no more than this in a step stands still
STILL = 1e-14

#: a filter that has not forgotten after a margin may after so many times as long
LONGER = 8

#: a part is so many margins long, or the margins would cost more than the cut gains
MARGINS = 8

#: numbers of states in one part: arrays of it are small enough to be used again, not taken from the system anew
PART_NUMBERS = 1_000_000

#: what needs the pass backwards begins so
BACKWARD = ("smoothed", "process_dist", "observation_dist")


class NotCut(PxUsageError):
    """A series cannot be cut in time; the text says why, and reads on after the word "because"."""


@dataclass(frozen=True)
class Plan:
    """How a series is cut.

    Attributes
    ----------
    model : StateSpaceModel
        With the start of the series.
    later : StateSpaceModel
        The same with the covariance that stands still, and no mean: where a part in the middle starts.
    margin : int
        Steps before and after a part.
    n_steps : int
        Of the whole series.
    form : str
    """

    model: StateSpaceModel
    later: StateSpaceModel
    margin: int
    n_steps: int
    form: str


class Moments(NamedTuple):
    """Mean and covariance of a state."""

    mean: Array
    cov: Array


class Edge(NamedTuple):
    """What a part knows of the states where it meets its neighbours: predicted ones, and smoothed ones if there are."""

    first: Moments
    after: Moments
    smoothed_first: Moments | None
    smoothed_after: Moments | None


#: consecutive entries of an array, and how many they stand for: the last is repeated
Run = tuple[Array, int]


@dataclass
class Done:
    """What consecutive parts gave.

    Attributes
    ----------
    runs : dict
        By name, one entry for each part.
    edges : list of Edge
        One for each part.
    log_likelihood : float
    n_values : int
        Observed values.
    forms : set of str
        The forms that served.
    """

    runs: dict[str, list[Run]] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    log_likelihood: float = 0.0
    n_values: int = 0
    forms: set[str] = field(default_factory=set)

    def add(self, other: Done) -> None:
        """Take in what the next parts gave."""
        for name, runs in other.runs.items():
            self.runs.setdefault(name, []).extend(runs)
        self.edges += other.edges
        self.log_likelihood += other.log_likelihood
        self.n_values += other.n_values
        self.forms |= other.forms

    def array(self, name: str) -> Array:
        """Return a whole array."""
        runs = self.runs[name]
        whole = np.empty((sum(count for _, count in runs), *runs[0][0].shape[1:]))
        at = 0
        for part, count in runs:
            whole[at : at + len(part)] = part
            whole[at + len(part) : at + count] = part[-1:]
            at += count
        return whole


def plan_for(model: StateSpaceModel, n_steps: int, n_pieces: int, form: str) -> Plan:
    """Return how a series is cut into so many pieces.

    Raises
    ------
    NotCut
        The model changes with time, its covariances do not come to rest, or it forgets too slowly for so few steps.
    """
    if model.n_steps is not None:
        raise NotCut("its model changes with time")
    longest = n_steps // (n_pieces * MARGINS)
    cov = _still_cov(model, form, longest)
    later = model.replace(initial=None, initial_mean=np.zeros(model.n_states), initial_cov=(cov + cov.T) / 2)
    margin = _margin(model, cov)
    if margin > longest:
        raise NotCut(f"its filter needs {margin:,} steps to forget where it started")
    return Plan(model, later, margin, n_steps, form)


def _still_cov(model: StateSpaceModel, form: str, most: int) -> Array:
    """Return the predicted covariance that the model comes to from its own start, without gaps."""
    length = 64
    while length <= most:
        _, filtered = run_form(system_of(model, 1, length), np.zeros((1, length, model.n_obs)), form)
        before, P = filtered.predicted_cov[0, -2:]
        scale = np.sqrt(np.outer(np.diagonal(P), np.diagonal(P)))
        is_kept_once = filtered.filtered_cov.shape[1] < length
        if not filtered.last_diffuse_cov.any() and (is_kept_once or (np.abs(P - before) <= STILL * scale).all()):
            return np.array(P)
        length *= 4
    raise NotCut(f"its covariances do not come to rest within {max(most, 0):,} steps")


def _margin(model: StateSpaceModel, P: Array) -> int:
    """Return a number of steps, a power of two, after which a part has forgotten where it started, with some gaps."""
    F, H, _, R, _, _ = (part[0] for part in model.kernel_parts)
    gain = P @ H.T @ np.linalg.pinv(H @ P @ H.T + R, hermitian=True)
    size = np.sqrt(np.maximum(np.diagonal(P), 0.0))
    size[size == 0.0] = 1.0
    loop = (F - F @ gain @ H) * size / size[:, None]
    steps = 1
    while np.abs(loop).sum(axis=1).max() > FORGOTTEN and steps < 2**40:
        loop, steps = loop @ loop, 2 * steps
        if not np.abs(loop).max() < 1e100:
            raise NotCut("its filter does not forget where it started")
    return 2 * steps


def with_longer_margin(plan: Plan, shortest: int) -> Plan:
    """Return how to cut a series whose parts did not agree; `shortest` is the length of its shortest piece.

    Raises
    ------
    NotCut
        A margin would be longer than that.
    """
    if plan.margin * LONGER > shortest:
        raise NotCut(f"its filter does not forget where it started within {plan.margin:,} steps")
    return replace(plan, margin=plan.margin * LONGER)


def part_bounds(plan: Plan, start: int, stop: int) -> list[int]:
    """Return where the parts of a piece begin, and its end."""
    most = max(MARGINS * plan.margin, PART_NUMBERS // plan.model.n_states)
    n_parts = -(-(stop - start) // most)
    return [start + (stop - start) * k // n_parts for k in range(n_parts + 1)]


def do_part(plan: Plan, rows: Array, first: int, own: tuple[int, int], names: Sequence[str]) -> Done:
    """Filter, and smooth where that is wanted, one part.

    Parameters
    ----------
    plan
    rows : array, (n_steps, n_obs)
        The part with its margins.
    first : int
        The number of the first of these rows in the whole series.
    own : (int, int)
        The part's own steps, in the whole series: the first, and the one after the last.
    names : arrays of a FilterResult with one entry for each step

    Raises
    ------
    PxUsageError
        An infinite value.
    """
    if np.isinf(rows).any():
        row, column = np.argwhere(np.isinf(rows))[0]
        raise PxUsageError(
            f"`observations` holds an infinite value at row {first + row}, column {column}.\n"
            "If it stands for a missing value, make it NaN."
        )
    model = plan.model if first == 0 else plan.later
    used, filtered = run_form(system_of(model, 1, len(rows)), rows[None], plan.form)
    result = FilterResult(model, Observed(rows[None], None, None, False), filtered, used)
    a, b = own[0] - first, own[1] - first
    done = Done(
        edges=[_edge(result, a, b, any(name.startswith(BACKWARD) for name in names))],
        log_likelihood=float(filtered.log_likelihood[0, a:b].sum()),
        n_values=int(np.count_nonzero(~np.isnan(rows[a:b]))),
        forms={used},
    )
    is_last = own[1] == plan.n_steps
    for name in names:
        array = getattr(result, name)
        done.runs[name] = [_run(array[a : b + (is_last and name.startswith("predicted"))])]
    return done


def _run(array: Array) -> Run:
    """Leave out what a sequence of matrices repeats at its end."""
    if array.ndim < 3 or len(array) < 2:
        return array, len(array)
    moves = np.flatnonzero((array[1:] != array[:-1]).any(axis=(1, 2)))
    return array[: moves[-1] + 2 if len(moves) else 1], len(array)


def _edge(result: FilterResult, a: int, b: int, goes_back: bool) -> Edge:
    """Return the moments at the first of the part's own steps and at the first that is not."""
    filtered = result.filtered
    n_kept = filtered.predicted_cov.shape[1]
    first, after = (
        Moments(filtered.predicted_mean[0, t], filtered.predicted_cov[0, min(t, n_kept - 1)]) for t in (a, b)
    )
    if filtered.last_diffuse_cov.any() or filtered.diffuse_cov.shape[1] >= b:
        after = Moments(after.mean, np.full_like(after.cov, np.nan))  # infinite: it agrees with nothing
    if not goes_back:
        return Edge(first, after, None, None)
    mean, cov = result.smoothed.mean[0], result.smoothed.cov[0]
    behind = Moments(mean[b], cov[b]) if b < len(mean) else None
    return Edge(first, after, Moments(mean[a], cov[a]), behind)


def parts_agree(edges: Sequence[Edge]) -> bool:
    """Return whether all parts, in the order of time, have the same moments where they meet."""
    for before, behind in itertools.pairwise(edges):
        scale = np.sqrt(np.maximum(np.diagonal(before.after.cov), 0.0))
        pairs = [(before.after, behind.first), (before.smoothed_after, behind.smoothed_first)]
        if not all(one is None or other is None or _agree(one, other, scale) for one, other in pairs):
            return False
    return True


def _agree(one: Moments, other: Moments, scale: Array) -> bool:
    is_near = np.abs(one.mean - other.mean) <= AGREED * (np.abs(one.mean) + scale)
    return bool(is_near.all() and (np.abs(one.cov - other.cov) <= AGREED * np.outer(scale, scale)).all())
