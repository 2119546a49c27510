"""Many independent series at once: which of them share gains, where each one starts, which must be done again.

A series that holds an infinite value is left out and named; one whose innovation variances, or smoothed variances, lose
their digits is done again by itself, in the form that keeps them. The others are not touched by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pxtools.errors import PxUsageError
from pxtools.kalman.backward import gain_at
from pxtools.kalman.checks import Array
from pxtools.kalman.factors import factors
from pxtools.kalman.filtering import run_form
from pxtools.kalman.model import StateSpaceModel
from pxtools.kalman.observations import Observed
from pxtools.kalman.results import FilterResult
from pxtools.kalman.system import system_of
from pxtools.kernels import kalman, kalman_batch
from pxtools.kernels.kalman_batch_layout import AXES, shape_of
from pxtools.kernels.kalman_results import Filtered

Numbers = NDArray[np.int_]

#: so many series of one pattern pay for gains computed once
SHARING = 16

#: values in one call of a kernel: a fraction of a second, so that Ctrl-C is heard
CHUNK_VALUES = 4_000_000

#: forms that run in lanes
LANE_FORMS = ("auto", "univariate")


@dataclass
class FleetArrays:
    """What a pass over many series gave.

    Attributes
    ----------
    arrays : dict
        By name, each with a leading axis of series; a covariance that all series share is a read-only broadcast view.
    failed : dict
        Number of a series to why it was left out; its numbers are NaN.
    empty : array of int
        Series without any value: their moments are those of the model alone.
    redone : dict
        Number of a series to the form that it was done again in.
    n_values : int
        Observed values of all series that were not left out.
    """

    arrays: dict[str, Array] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    empty: Numbers = field(default_factory=lambda: np.zeros(0, dtype=np.int_))
    redone: dict[int, str] = field(default_factory=dict)
    n_values: int = 0


class Heads(NamedTuple):
    """The exact diffuse steps at the beginning of each series."""

    start: Numbers
    """(n_series,): the first step with a proper state"""
    x: Array
    P: Array
    filtered: list[tuple[Numbers, Filtered]]
    """the moments of those steps, for series with heads of one length after another"""


Models = StateSpaceModel | Sequence[StateSpaceModel]

Tick = Callable[[float], None]


def run_fleet(
    models: Models,
    y: Array,
    wanted: Iterable[str],
    *,
    form: str = "auto",
    tick: Tick | None = None,
) -> FleetArrays:
    """Filter, and smooth where that is wanted, many independent series.

    Parameters
    ----------
    models : StateSpaceModel or sequence of them
        One for all series, or one for each.
    y : array, (n_series, n_steps, n_obs)
        NaN is missing. Not changed; may be a memory map.
    wanted : names of `kalman_batch_layout.AXES`, or "statistics"
        Only these are computed and stored.
    form : str
        "auto" and "univariate" run in lanes; any other form filters one series after another.
    tick : callable, optional
        Told now and then which fraction is done.

    Returns
    -------
    FleetArrays
        A series has the same bits whatever series are beside it.
    """
    wanted = frozenset(wanted)
    hashes, n_values, is_bad = kalman_batch.patterns(y, form in LANE_FORMS and _may_share(models, wanted))
    found = FleetArrays(empty=np.flatnonzero((n_values == 0) & ~is_bad), n_values=int(n_values[~is_bad].sum()))
    for s in np.flatnonzero(is_bad):
        where = np.argwhere(np.isinf(y[s]))[0]
        found.failed[int(s)] = f"an infinite value at row {where[0]}, column {where[1]}"
    good = np.flatnonzero(~is_bad)
    if not len(good):
        return _all(found, y, models, wanted)
    if form not in LANE_FORMS:
        return _one_by_one(models, y, wanted, form, found, good, tick)
    heads = _heads(models, y, good)
    work = _Work(models, y, wanted, heads)
    groups = work.groups(hashes, n_values == y[0].size, good)
    if len(groups) == 1 and len(groups[0][0]) == len(y) and groups[0][1]:
        work.make(shares_cov=True)
    else:
        work.make(shares_cov=False)
    done = 0
    for series, is_shared in groups:
        for part in work.run(series, is_shared):
            done += part
            if tick is not None:
                tick(done / len(good))
    work.finish()
    again = work.lost_digits(good)
    if len(again):
        arrays = {name: np.array(work.whole(name)) for name in wanted}
        for s in again:
            found.redone[int(s)] = _put_series(arrays, s, _model_of(models, s), y, "auto")
    else:
        arrays = {name: work.whole(name) for name in wanted}
    if found.failed:
        for array in arrays.values():
            array[list(found.failed)] = np.nan
    found.arrays = arrays
    return found


def _may_share(models: Models, wanted: frozenset[str]) -> bool:
    """Return whether series with one pattern of missing values have gains in common."""
    if not isinstance(models, StateSpaceModel) or "statistics" in wanted or kalman_batch.TIER != "compiled":
        return False
    R = models.parts["R"]
    return np.count_nonzero(R) == np.count_nonzero(np.einsum("tii->ti", R))


def _model_of(models: Models, s: int) -> StateSpaceModel:
    return models if isinstance(models, StateSpaceModel) else models[s]


def _one_by_one(
    models: Models, y: Array, wanted: frozenset[str], form: str, found: FleetArrays, good: Numbers, tick: Tick | None
) -> FleetArrays:
    found = _all(found, y, models, wanted)
    for done, s in enumerate(good):
        _put_series(found.arrays, s, _model_of(models, s), y, form)
        if tick is not None:
            tick(done / len(good))
    return found


def _put_series(arrays: dict[str, Array], s: int, model: StateSpaceModel, y: Array, form: str) -> str:
    """Filter one series by itself, put its part of every array in place, and return the form that served."""
    own = np.array(y[s])
    result = FilterResult(model, Observed(own[None], None, None, False), *_filtered(model, own[None], form))
    for name, array in arrays.items():
        if name.startswith("last_"):
            array[s] = getattr(result, f"predicted_{name[5:]}")[-1]
        elif name in AXES:
            array[s] = getattr(result, name)
    return result.form


def _filtered(model: StateSpaceModel, values: Array, form: str) -> tuple[Filtered, str]:
    used, filtered = run_form(system_of(model, *values.shape[:2]), values, form)
    return filtered, used


def _all(found: FleetArrays, y: Array, models: Models, wanted: frozenset[str]) -> FleetArrays:
    first = models if isinstance(models, StateSpaceModel) else models[0]
    sizes = (y.shape[1], first.n_states, first.n_obs)
    found.arrays = {name: np.full((len(y), *shape_of(name, *sizes)), np.nan) for name in wanted}
    return found


def check_models(models: Any, n_series: int) -> Models:
    """Return one model, or a tuple of one for each series, all of one size.

    Raises
    ------
    PxUsageError
    """
    if isinstance(models, StateSpaceModel):
        return models
    models = tuple(models)
    for model in models:
        if not isinstance(model, StateSpaceModel):
            raise PxUsageError(f"A list of models holds a {type(model).__name__}; each must be a StateSpaceModel.")
    if len(models) != n_series:
        raise PxUsageError(f"{len(models)} models are given for {n_series} series.\nGive one model, or one for each.")
    if len({(model.n_states, model.n_obs) for model in models}) > 1:
        raise PxUsageError("The models differ in their numbers of states or observations.\nFilter them in groups.")
    return models


def fleet_parts(models: Models, n_steps: int) -> list[Array]:
    """Return F, H, Q, R, c, d as the kernels take them: (1 or n_series, 1 or n_steps, …)."""
    every = (models,) if isinstance(models, StateSpaceModel) else models
    parts = []
    for letter in "FHQRcd":
        own = [model.state_noise if letter == "Q" else model.parts[letter] for model in every]
        own = [part[:n_steps] if len(part) > 1 else part for part in own]
        longest = max(len(part) for part in own)
        parts.append(np.stack([np.broadcast_to(part, (longest, *part.shape[1:])) for part in own]))
    return parts


def _initial(models: Models, n_series: int) -> tuple[Array, Array]:
    every = (models,) if isinstance(models, StateSpaceModel) else models
    starts = [model.initial_state for model in every]
    return np.stack([s.mean for s in starts]), np.stack([s.cov for s in starts])


def _heads(models: Models, y: Array, good: Numbers) -> Heads:
    """Run the exact diffuse steps of the series that have some, one length after another."""
    x, P = _initial(models, len(y))
    heads = Heads(np.zeros(len(y), dtype=np.int_), x, P, [])
    every = ((models, good),) if isinstance(models, StateSpaceModel) else ((models[s], good[good == s]) for s in good)
    diffuse = [(model, series) for model, series in every if model.initial_state.diffuse_cov.any()]
    if not diffuse:
        return heads
    x, P = (np.array(np.broadcast_to(part, (len(y), *part.shape[1:]))) for part in (x, P))
    heads = heads._replace(x=x, P=P)
    for model, series in diffuse:
        length = 2 * y.shape[2] * model.n_states
        while len(series):
            length = min(2 * length, y.shape[1])
            system = system_of(model, len(series), length)
            head = kalman.univariate_filter(np.ascontiguousarray(y[series, :length]), *system, False)
            n_diffuse = np.any(head.diffuse_cov, axis=(2, 3)).sum(axis=1)
            is_over = (n_diffuse < length) | (length == y.shape[1])
            over = np.flatnonzero(is_over)
            for start in np.unique(n_diffuse[over]):
                which = over[n_diffuse[over] == start]
                own = Filtered._make([*(part[which] for part in head[:9]), 0])
                heads.start[series[which]] = start
                x[series[which]], P[series[which]] = own.predicted_mean[:, start], own.predicted_cov[:, start]
                heads.filtered.append((series[which], own))
            series = series[~is_over]
    return heads


class _Work:
    """The arrays of one pass, and the series that share gains."""

    def __init__(self, models: Models, y: Array, wanted: frozenset[str], heads: Heads) -> None:
        self.models, self.y, self.wanted, self.heads = models, y, wanted, heads
        self.parts = [*fleet_parts(models, y.shape[1]), heads.x, heads.P]
        self.n, self.m = self.parts[0].shape[-1], y.shape[2]
        self.names = set(wanted)
        if heads.filtered and wanted & {"smoothed_mean", "smoothed_cov"}:
            self.names |= {"smoothed_mean", "smoothed_cov"}  # the steps of the head are smoothed from the next ones
        self.out: dict[str, Array] = {}
        self.shares_cov = False

    def make(self, shares_cov: bool) -> None:
        """Allocate the outputs; where all series share their covariances, those of one series."""
        self.shares_cov = shares_cov
        n_series = len(self.y)
        for name in self.names:
            n_own = 1 if shares_cov and name.endswith("_cov") else n_series
            self.out[name] = np.empty((n_own, *shape_of(name, self.y.shape[1], self.n, self.m)))
        self.cancelled, self.lost = (np.zeros(n_series, dtype=np.int_) for _ in range(2))

    def whole(self, name: str) -> Array:
        """Return an output for all series."""
        array = self.out[name]
        return np.broadcast_to(array, (len(self.y), *array.shape[1:])) if len(array) < len(self.y) else array

    def groups(
        self, hashes: NDArray[np.uint64], is_complete: NDArray[np.bool_], good: Numbers
    ) -> list[tuple[Numbers, bool]]:
        """Return the series with gains in common, group by group, and the rest."""
        if not _may_share(self.models, self.wanted):
            return [(good, False)]
        order = good[np.argsort(hashes[good], kind="stable")]
        bounds = [0, *(np.flatnonzero(np.diff(hashes[order])) + 1), len(order)]
        is_alone, shared = np.ones(len(hashes), dtype=bool), []
        for k in np.flatnonzero(np.diff(bounds) >= SHARING):
            series = order[bounds[k] : bounds[k + 1]]
            same = series if is_complete[series].all() else self._same_pattern(series)
            shared.append((same, True))
            is_alone[same] = False
        alone = good[is_alone[good]]
        return shared + ([(alone, False)] if len(alone) else [])

    def _same_pattern(self, series: Numbers) -> Numbers:
        """Return those that lack the same values as the first: a hash may be a coincidence."""
        first = np.isnan(self.y[series[0]])
        return np.array([s for s in series if np.array_equal(np.isnan(self.y[s]), first)], dtype=np.int_)

    def run(self, series: Numbers, is_shared: bool) -> Iterator[int]:
        """Fill the outputs of these series; yield how many are done, now and then."""
        step = max(64, CHUNK_VALUES // (self.y.shape[1] * (self.n + self.m) * self.n))
        tables = self._tables(series) if is_shared else None
        outputs: dict[str, Any] = {**self.out, "cancelled": self.cancelled, "lost": self.lost}
        if tables is not None:
            outputs = {name: array for name, array in self.out.items() if not name.endswith("_cov")}
        for at in range(0, len(series), step):
            part = series[at : at + step]
            if tables is None:
                kalman_batch.lanes_pass(self.y, self.parts, self.heads.start, part, outputs)
            else:
                start = int(self.heads.start[series[0]])
                kalman_batch.means_pass(self.y, self.parts, tables, start, part, outputs)
            yield len(part)

    def _tables(self, series: Numbers) -> dict[str, Array]:
        """Filter the first of the series by itself; copy what the others share with it."""
        first, n_steps = series[:1], self.y.shape[1]
        shapes = {"gains": (n_steps, self.m, self.n), "inverses": (n_steps, self.m), "rows": (n_steps, self.m, self.n)}
        names = {name for name in self.names if name.endswith("_cov")} | {"filtered_cov"}
        own = {name: np.empty((1, *shape_of(name, n_steps, self.n, self.m))) for name in names}
        tables = {name: np.empty(shape) for name, shape in shapes.items()} | {"constants": np.empty(n_steps + 1)}
        flags = {name: np.zeros(1, dtype=np.int_) for name in ("cancelled", "lost")}
        out: dict[str, Any] = {**own, **tables, **flags}
        parts = [*self.parts[:6], *(part[first] if len(part) > 1 else part for part in self.parts[6:])]
        start = np.ascontiguousarray(self.heads.start[first])
        y = np.ascontiguousarray(self.y[first])
        kalman_batch.lanes_pass(y, parts, start, np.zeros(1, dtype=np.int_), out)
        for name in names & self.names:
            self.out[name][0 if self.shares_cov else series] = own[name]
        self.cancelled[series], self.lost[series] = flags["cancelled"], flags["lost"]
        return {**tables, "filtered_cov": own["filtered_cov"]}

    def lost_digits(self, good: Numbers) -> Numbers:
        """Return the series that must be done again, in the form that keeps their digits."""
        goes_back = bool({"smoothed_mean", "smoothed_cov"} & self.wanted)
        again = good[(self.cancelled[good] > 0) | (goes_back & (self.lost[good] > 0))]
        return again if self.wanted & set(AXES) else again[:0]

    def finish(self) -> None:
        """Put the steps of the heads in their places, and smooth them from the steps after."""
        for series, head in self.heads.filtered:
            start = int(self.heads.start[series[0]])
            places = series[:1] * 0 if self.shares_cov else series
            for name in ("predicted_mean", "predicted_cov", "filtered_mean", "filtered_cov"):
                if name in self.out:
                    place = places if name.endswith("_cov") else series
                    more = start + (start == self.y.shape[1] and name.startswith("predicted"))
                    self.out[name][place, :more] = getattr(head, name)[: len(place), :more]
            if "log_likelihood_steps" in self.out:
                self.out["log_likelihood_steps"][series, :start] = head.log_likelihood[:, :start]
            if "log_likelihood" in self.out:
                self.out["log_likelihood"][series] += head.log_likelihood[:, :start].sum(axis=1)
            if "standardized_residuals" in self.out:
                self.out["standardized_residuals"][series, :start] = np.nan
            if start == self.y.shape[1]:
                for name in ("mean", "cov"):
                    if f"last_{name}" in self.out:
                        place = places if name == "cov" else series
                        self.out[f"last_{name}"][place] = getattr(head, f"predicted_{name}")[: len(place), start]
                lacking = head.last_diffuse_cov.any(axis=(1, 2))  # what no observation determined has no forecast
                if "last_mean" in self.out:
                    self.out["last_mean"][series[lacking]] = np.nan
            if "smoothed_mean" in self.out:
                self._smooth_head(series, head, start)

    def _smooth_head(self, series: Numbers, head: Filtered, start: int) -> None:
        """Regress each diffuse state on the next: `backward.py`. Series with one covariance have one regression."""
        mean, cov, n_steps = self.out["smoothed_mean"], self.out["smoothed_cov"], self.y.shape[1]
        for t in range(start - 1, -1, -1):
            keys = np.concatenate([head.filtered_cov[:, t], head.diffuse_filtered_cov[:, t]], axis=1)
            _, firsts, group = np.unique(keys.reshape(len(keys), -1), axis=0, return_index=True, return_inverse=True)
            for k, first in enumerate(firsts):
                which = np.flatnonzero(group.ravel() == k)
                rows = series[which]
                places = rows[:1] * 0 if self.shares_cov else rows
                if t == n_steps - 1:
                    mean[rows, t], cov[places, t] = head.filtered_mean[which, t], head.filtered_cov[first, t]
                    continue
                model = self.models if isinstance(self.models, StateSpaceModel) else self.models[rows[0]]
                system = system_of(model, len(series), n_steps)
                J, rest = gain_at(system, head, int(first), t)
                apart = mean[rows, t + 1] - head.predicted_mean[which, t + 1]
                # no product of matrices: its bits would depend on how many series there are
                mean[rows, t] = head.filtered_mean[which, t] + (apart[:, None, :] * J).sum(axis=-1)
                half = J @ factors(cov[places, t + 1])
                cov[places, t] = half @ half.swapaxes(1, 2) + rest @ rest.T
