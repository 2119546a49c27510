"""What is to be done: every option checked, every default filled in, before anything runs."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import SeedSequence
from numpy.typing import ArrayLike, NDArray

from pxtools.errors import PxUsageError, nearest
from pxtools.sampling.samplers import MOST_WARMUP, SAMPLERS, Sampler
from pxtools.sampling.starts import Bounds, Initial, RandomStart, Spares, read_bounds, read_box, read_initial
from pxtools.sampling.targets import Target


@dataclass(frozen=True, eq=False)
class SamplePlan:
    """A run that can be carried out: the same plan gives the same draws, wherever its groups run.

    Attributes
    ----------
    target_name, names : str, tuple of str
        The function and its parameters.
    is_density : bool
        The target returns a density.
    sampler : str
        A key of `SAMPLERS`.
    draws, warmup, thin : int
        Kept draws per chain, discarded steps, steps per kept draw.
    n_chains, n_groups : int
        Chains, and the scheduling groups they form; see `chains_of`.
    seed : int
        The entropy of all streams; fresh when none was given.
    step : (n_params,) array
        Half-width of the proposal per parameter.
    lower, upper : (n_params,) array
        Hard bounds, infinite where there are none.
    period : (n_params,) array
        Distance of the bounds where a parameter is periodic, else 0.
    initial : (n_chains, n_params) array
        Start points; empty when they are random.
    random_start : RandomStart or None
        How start points are drawn.
    spares : Spares or None
        Further start points, where a function made them.
    transform : bool
        Chains walk in coordinates without bounds, which are mapped between `lower` and `upper`.
    notes : tuple of str
        What the user should know about the defaults that were filled in.
    """

    target_name: str
    names: tuple[str, ...]
    is_density: bool
    sampler: str
    draws: int
    warmup: int
    thin: int
    n_chains: int
    n_groups: int
    seed: int
    step: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    period: NDArray[np.float64]
    initial: NDArray[np.float64]
    random_start: RandomStart | None
    spares: Spares | None = None
    transform: bool = False
    notes: tuple[str, ...] = ()

    @property
    def n_steps(self) -> int:
        """Steps that each group takes in all, warm-up included."""
        return self.warmup + self.draws * self.thin

    def chains_of(self, group: int) -> range:
        """Return the numbers of the chains of a group; sizes differ by one at most."""
        return range(group * self.n_chains // self.n_groups, (group + 1) * self.n_chains // self.n_groups)


def make_plan(
    target: Target,
    *,
    draws: int = 1_000,
    warmup: int | None = None,
    chains: int | None = None,
    thin: int = 1,
    step: ArrayLike = 0.1,
    initial: Initial | None = None,
    bounds: Bounds | None = None,
    periodic: Sequence[str] = (),
    transform: bool = False,
    scale: float = 1.0,
    seed: int | None = None,
    sampler: str = "auto",
    n_engines: int = 1,
) -> SamplePlan:
    """Check the options of a run and fill in its defaults.

    Parameters
    ----------
    target : Target
        From `resolve_target`.
    draws, warmup, thin : int
        Kept draws per chain; discarded steps (default: the sampler's); steps per kept draw.
    chains : int, optional
        Default: the rows of `initial`, else the sampler's, or enough for `n_engines`.
    step : float or (n_params,) array
        `rwm`: half-width of the uniform box.
    initial : (n_chains, n_params) or (n_params,) array, callable, Box, dict or Samples, optional
        Start points; one point is for all chains; a callable gets a `numpy.random.Generator` and returns one point,
        and is asked again when that is outside the support; a `Box`, or a dict of name to (low, high), is drawn from;
        earlier `Samples` are gone on from.
    bounds : (low, high), (n_params, 2) array, or dict of name to (low, high), optional
        Hard bounds of the support; start points are drawn inside when `initial` is missing.
    periodic : sequence of str
        Parameters whose two bounds are the same place: angles, phases.
    transform : bool
        Walk without bounds, in the logarithm of the distance to one bound or the logit between two, and weigh with the
        Jacobian: the same target, whose chains do not bump into bounds. Draws are those of the target as ever; `step`
        is in the walking coordinates.
    scale : float
        Standard deviation of random start points where bounds are missing.
    seed : int, optional
        Default: fresh entropy, which the result keeps.
    sampler : str
        A key of `SAMPLERS`.
    n_engines : int
        Without `chains` and `initial` there are chains for so many engines: a group for each, at least two chains.

    Returns
    -------
    SamplePlan

    Raises
    ------
    PxUsageError
        An option that cannot be carried out, or two that contradict each other.

    Examples
    --------
    >>> from pxtools import sampling
    >>> target = sampling.resolve_target(lambda x, y: -(x**2 + y**2) / 2)
    >>> plan = make_plan(target, sampler="rwm", chains=3, seed=1)
    >>> plan.names, plan.n_steps
    (('x', 'y'), 1100)
    """
    if sampler not in SAMPLERS:
        raise PxUsageError(
            f"There is no sampler `{sampler}`.{nearest(sampler, SAMPLERS)}\nType --sampler {' | '.join(SAMPLERS)}."
        )
    seed = _entropy(seed)
    box = read_bounds(target, bounds)
    row = SAMPLERS[sampler]
    default_chains = max(row.default_chains, max(2, row.chains_per_group) * n_engines)
    points = spares = None
    start_box = read_box(target, initial)
    if initial is not None and start_box is None:
        points, spares = read_initial(initial, target, _count("chains", chains), default_chains, seed)
    target = target.with_size(_n_params(target, points, box if start_box is None else start_box))
    lower, upper = _full_box(target, box)
    random_start = _random_start(target, lower, upper, _positive("scale", scale), start_box)
    _check_inside(target, points, lower, upper, transform)
    n_chains = len(points) if points is not None else _count("chains", chains) or default_chains
    kept, every = _count("draws", draws) or 1, _count("thin", thin) or 1
    own_warmup = _warmup(row, len(target.names), kept * every)
    return SamplePlan(
        target_name=target.name,
        names=target.names,
        is_density=target.is_density,
        sampler=sampler,
        draws=kept,
        warmup=own_warmup if warmup is None else _count("warmup", warmup, least=0) or 0,
        thin=every,
        n_chains=n_chains,
        n_groups=max(1, n_chains // row.chains_per_group),
        seed=seed,
        step=_steps(target, step),
        lower=lower,
        upper=upper,
        period=_period(target, periodic, lower, upper),
        initial=np.empty((0, len(target.names))) if points is None else points,
        random_start=random_start if points is None else None,
        spares=spares,
        transform=_is_transformed(transform, lower, upper),
        notes=_start_notes(random_start if points is None else None),
    )


def _entropy(seed: int | None) -> int:
    if seed is None:
        fresh = SeedSequence().entropy
        assert isinstance(fresh, int)
        return fresh
    return _count("seed", seed, least=0) or 0


def _count(option: str, value: int | None, least: int = 1) -> int | None:
    """Return a whole number of at least `least`; None stays None."""
    if value is None:
        return None
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise PxUsageError(f"--{option} is {value!r}.\nGive a whole number, {least} or more.")
    return number


def _positive(option: str, value: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if not 0 < number < np.inf:
        raise PxUsageError(f"--{option} is {value!r}.\nGive a positive number.")
    return number


def _steps(target: Target, step: ArrayLike) -> NDArray[np.float64]:
    try:
        steps = np.broadcast_to(np.asarray(step, dtype=np.float64), (len(target.names),)).copy()
    except (TypeError, ValueError):
        steps = np.zeros(1)
    if not ((steps > 0) & (steps < np.inf)).all():
        raise PxUsageError(
            f"--step is {step!r}.\nGive a positive number, or one for each of the {len(target.names)} parameter(s) "
            f"({', '.join(target.names)})."
        )
    return steps


def _n_params(
    target: Target, points: NDArray[np.float64] | None, box: tuple[NDArray[np.float64], NDArray[np.float64]] | None
) -> int:
    """Return the number of parameters, from the start points, the bounds or the names."""
    if points is not None:
        return int(points.shape[1])
    if target.is_scalar:
        return len(target.names)
    if box is not None and box[0].ndim == 1:
        return len(box[0])
    if box is not None and target.names:
        return len(target.names)
    raise PxUsageError(
        f"`{target.name}` takes a vector, so how many parameters it has and where to start is open.\n"
        f"Type --initial X, X of shape (chains, parameters), or --bounds [(low, high), ...], one pair for each."
    )


def _full_box(
    target: Target, box: tuple[NDArray[np.float64], NDArray[np.float64]] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    size = len(target.names)
    if box is None:
        return np.full(size, -np.inf), np.full(size, np.inf)
    if box[0].ndim == 1 and len(box[0]) != size:
        raise PxUsageError(
            f"--bounds has {len(box[0])} pair(s), `{target.name}` {size} parameter(s) ({', '.join(target.names)}).\n"
            f"Give one (low, high) for all, or one for each."
        )
    return np.broadcast_to(box[0], (size,)).copy(), np.broadcast_to(box[1], (size,)).copy()


def _random_start(
    target: Target,
    lower: NDArray[np.float64],
    upper: NDArray[np.float64],
    scale: float,
    start_box: tuple[NDArray[np.float64], NDArray[np.float64]] | None,
) -> RandomStart:
    """Return how start points are drawn: in the box of --initial as far as --bounds go, else between the bounds."""
    if start_box is None:
        return RandomStart(lower, upper, scale)
    if len(start_box[0]) != len(lower):
        raise PxUsageError(
            f"The box of --initial has {len(start_box[0])} pair(s), `{target.name}` {len(lower)} parameter(s) "
            f"({', '.join(target.names)}).\nGive one (low, high) for all, or one for each."
        )
    low, high = np.maximum(lower, start_box[0]), np.minimum(upper, start_box[1])
    if not (low < high).all():
        k = int(np.argmin(low < high))
        raise PxUsageError(
            f"The box of --initial and --bounds share no `{target.names[k]}`.\nMove the box, or widen --bounds."
        )
    return RandomStart(low, high, scale, "in the box of --initial")


def _is_transformed(transform: bool, lower: NDArray[np.float64], upper: NDArray[np.float64]) -> bool:
    if transform and not (np.isfinite(lower) | np.isfinite(upper)).any():
        raise PxUsageError("--transform maps between bounds, and there are none.\nType --bounds, too.")
    return bool(transform)


def _period(
    target: Target, periodic: Sequence[str], lower: NDArray[np.float64], upper: NDArray[np.float64]
) -> NDArray[np.float64]:
    period = np.zeros(len(lower))
    for name in periodic:
        if name not in target.names:
            raise PxUsageError(
                f"--periodic names `{name}`, which is no parameter of `{target.name}`.{nearest(name, target.names)}\n"
                f"Its parameters: {', '.join(target.names)}."
            )
        k = target.names.index(name)
        period[k] = upper[k] - lower[k]
        if not np.isfinite(period[k]):
            raise PxUsageError(f"--periodic {name}: it goes round between which numbers?\nType --bounds, too.")
    return period


def _check_inside(
    target: Target,
    points: NDArray[np.float64] | None,
    lower: NDArray[np.float64],
    upper: NDArray[np.float64],
    transform: bool,
) -> None:
    if points is None:
        return
    outside = np.flatnonzero(((points < lower) | (points > upper)).any(axis=1))
    at_bound = np.flatnonzero(((points == lower) | (points == upper)).any(axis=1))
    if transform and at_bound.size:
        row = int(at_bound[0])
        raise PxUsageError(
            f"Row {row} of --initial, {points[row].tolist()}, is on a bound, which --transform sends to infinity.\n"
            f"Move it inside, or leave --transform out."
        )
    if outside.size:
        row = int(outside[0])
        raise PxUsageError(
            f"Row {row} of --initial, {points[row].tolist()}, is outside --bounds; so are {outside.size - 1} others.\n"
            f"Move it inside, or widen --bounds."
        )


def _warmup(row: Sampler, n_params: int, n_kept_steps: int) -> int:
    share = min(MOST_WARMUP, int(row.warmup_share * n_kept_steps))
    return max(row.warmup, row.warmup_per_parameter * n_params, share)


def _start_notes(random_start: RandomStart | None) -> tuple[str, ...]:
    if random_start is None or random_start.is_inside_box:
        return ()
    return (f"Chains started at random points {random_start}: neither --initial nor finite --bounds said where.",)
