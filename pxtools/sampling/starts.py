"""Where chains start: given points, or points drawn at random. Standard library and NumPy only: engines redraw."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence
from numpy.typing import ArrayLike, NDArray

from pxtools.errors import PxUsageError, nearest
from pxtools.sampling.targets import Target

Bounds = ArrayLike | Mapping[str, ArrayLike]

#: further points that a start function is asked for, for each chain
N_SPARES = 50


class Box:
    """Start points anywhere in a box: `--initial "Box((-1, 1), (0, 5))"`, one (low, high) per parameter or one for all.

    Parameters
    ----------
    *pairs
        (low, high), finite.

    Examples
    --------
    >>> from pxtools.sampling import Box
    >>> Box((-1, 1), (0, 5))
    Box((-1, 1), (0, 5))
    """

    def __init__(self, *pairs: ArrayLike) -> None:
        self.pairs = pairs

    def __repr__(self) -> str:
        return f"Box({', '.join(map(repr, self.pairs))})"


Initial = ArrayLike | Callable[[Generator], ArrayLike] | Mapping[str, ArrayLike] | Box


class Redraw(Protocol):
    """Where other start points come from when the first one is outside the support."""

    def points(self, generator: Generator, chain: int) -> Iterator[NDArray[np.float64]]:
        """Yield start points of a chain, (n_params,)."""
        ...


@dataclass(frozen=True)
class RandomStart:
    """Draws start points: uniform between two finite bounds, else normal of the given scale on the allowed side.

    Attributes
    ----------
    lower, upper : (n_params,) array
        Bounds, infinite where there are none.
    scale : float
        Standard deviation where a bound is missing.
    where : str
        What the bounds are, for messages.
    """

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    scale: float
    where: str = "inside --bounds"

    def points(self, generator: Generator, chain: int) -> Iterator[NDArray[np.float64]]:
        """Yield start points without end; the chain makes no difference."""
        while True:
            yield self.draw(generator)

    def draw(self, generator: Generator) -> NDArray[np.float64]:
        """Return one start point, (n_params,); takes one number per coordinate from the stream."""
        return np.array(
            [self._coordinate(generator, low, high) for low, high in zip(self.lower, self.upper, strict=True)]
        )

    def _coordinate(self, generator: Generator, low: float, high: float) -> float:
        if np.isfinite(low) and np.isfinite(high):
            return float(low + (high - low) * generator.random())
        shift = self.scale * float(generator.standard_normal())
        if np.isfinite(low):
            return float(low + abs(shift))
        return float(high - abs(shift)) if np.isfinite(high) else shift

    @property
    def is_inside_box(self) -> bool:
        """Every parameter has two finite bounds."""
        return bool(np.isfinite(self.lower).all() and np.isfinite(self.upper).all())

    def __str__(self) -> str:
        return self.where if self.is_inside_box else f"around 0 (normal, --scale {self.scale:g})"


@dataclass(frozen=True, eq=False)
class Spares:
    """Further points that the user's start function gave.

    Attributes
    ----------
    spares : (n_chains, n_spares, n_params) array
        By chain.
    first_chain : int
        The number of the first one.
    """

    spares: NDArray[np.float64]
    first_chain: int = 0

    def of(self, chains: range) -> Spares:
        """Return those of a group."""
        return Spares(self.spares[chains.start : chains.stop], chains.start)

    def points(self, generator: Generator, chain: int) -> Iterator[NDArray[np.float64]]:
        """Yield the chain's further points."""
        yield from self.spares[chain - self.first_chain]

    def __str__(self) -> str:
        return "that the start function of --initial gave"


def read_box(target: Target, initial: object) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return lower and upper ends of a box to start in; None when `initial` is something else.

    Raises
    ------
    PxUsageError
        A name is unknown or missing, a pair is no pair of finite numbers in order, or there are too few pairs.
    """
    if isinstance(initial, Mapping):
        missing = [name for name in target.names if name not in initial]
        if missing:
            raise PxUsageError(
                f"--initial gives no (low, high) for {', '.join(missing)}.\nGive one for each parameter of "
                f"`{target.name}`: {', '.join(target.names)}."
            )
        initial = Box(*_bounds_by_name(target, initial, "--initial"))
    if not isinstance(initial, Box):
        return None
    try:
        pairs = np.array(initial.pairs, dtype=np.float64)
    except (TypeError, ValueError):
        pairs = np.empty(0)
    is_box = pairs.ndim == 2 and pairs.shape[-1] == 2 and pairs.size > 0
    if not is_box or not np.isfinite(pairs).all() or not (pairs[:, 0] < pairs[:, 1]).all():
        raise PxUsageError(f"--initial is {initial!r}.\nGive pairs of finite numbers in order: Box((-1, 1), (0, 5)).")
    if len(pairs) == 1 and target.names:
        pairs = np.repeat(pairs, len(target.names), axis=0)
    return pairs[:, 0], pairs[:, 1]


def read_bounds(target: Target, bounds: Bounds | None) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return lower and upper bounds as given: two numbers, or two (n_params,) arrays; None when there are none.

    Raises
    ------
    PxUsageError
        An unknown name, a wrong shape, or a lower bound that is not below the upper one.
    """
    if bounds is None:
        return None
    if isinstance(bounds, Mapping):
        bounds = _bounds_by_name(target, bounds)
    try:
        pairs = np.asarray(bounds, dtype=np.float64)
    except (TypeError, ValueError):
        pairs = np.empty(0)
    if pairs.ndim not in (1, 2) or pairs.shape[-1] != 2 or pairs.size == 0:
        raise PxUsageError(
            f"--bounds has the shape {pairs.shape}, not one (low, high) for all parameters or one for each.\n"
            f"Type --bounds [(0, 1), (0, 1)]."
        )
    if not (pairs[..., 0] < pairs[..., 1]).all():
        raise PxUsageError(
            f"--bounds has a lower bound that is not below its upper one: {pairs.tolist()}.\nType (low, high) pairs."
        )
    return pairs[..., 0], pairs[..., 1]


def _bounds_by_name(target: Target, bounds: Mapping[str, ArrayLike], option: str = "--bounds") -> NDArray[np.float64]:
    for name in bounds:
        if name not in target.names:
            raise PxUsageError(
                f"{option} names `{name}`, which is no parameter of `{target.name}`.{nearest(name, target.names)}\n"
                f"Its parameters: {', '.join(target.names) or 'unnamed (a vector): give --names, or pairs in order'}."
            )
    return np.array([np.asarray(bounds.get(name, (-np.inf, np.inf)), dtype=np.float64) for name in target.names])


def read_initial(
    initial: Initial, target: Target, chains: int | None, default_chains: int, seed: int
) -> tuple[NDArray[np.float64], Spares | None]:
    """Return the start points as (n_chains, n_params), and further ones if a function makes them.

    Raises
    ------
    PxUsageError
        Not numeric, not finite, a shape that does not fit, or rows that contradict `chains`.
    """
    if hasattr(initial, "draws") and hasattr(initial, "points"):
        initial = _ends_of(initial, chains, seed)
    if callable(initial):
        count = chains or default_chains
        return _called(initial, target, count, seed)
    points = _points(target, initial)
    if points.ndim == 1:
        return np.tile(points, (chains or default_chains, 1)), None
    if chains is not None and chains != len(points):
        raise PxUsageError(
            f"--chains {chains} contradicts the {len(points)} row(s) of --initial, one start point per chain.\n"
            f"Leave --chains out, or give {chains} row(s)."
        )
    return points, None


def _called(
    initial: Callable[[Generator], ArrayLike], target: Target, count: int, seed: int
) -> tuple[NDArray[np.float64], Spares]:
    """Ask a start function for each chain's first point, and for more in case that one is outside the support."""
    generators = [_start_generator(seed, chain) for chain in range(count)]
    rounds = [
        _points(target, [initial(generator) for generator in generators], is_list=True) for _ in range(1 + N_SPARES)
    ]
    return rounds[0], Spares(np.stack(rounds[1:], axis=1))


def _ends_of(samples: Any, chains: int | None, seed: int) -> NDArray[np.float64]:
    """Return the last point of each chain of an earlier run, or as many of its points as there are chains now."""
    if chains is None or chains == samples.n_chains:
        return np.array(samples.draws[:, -1])
    picks = _start_generator(seed, 0).integers(len(samples.points), size=chains)
    return np.array(samples.points[picks])


def _start_generator(seed: int, chain: int) -> Generator:
    """Return a stream for the user's own start function, apart from the chain's own."""
    return Generator(PCG64(SeedSequence(seed, spawn_key=(chain, 0))))


def _points(target: Target, initial: object, is_list: bool = False) -> NDArray[np.float64]:
    try:
        points = np.array(initial, dtype=np.float64)
    except (TypeError, ValueError):
        raise PxUsageError(
            f"--initial is no array of numbers, but {type(initial).__name__}.\n"
            f"Give one point, an array of shape (chains, parameters), or Box((low, high), ...)."
        ) from None
    if len(target.names) == 1 and (points.ndim == 0 or (points.ndim == 1 and (is_list or points.size > 1))):
        points = points.reshape(-1, 1)  # one parameter: a list of numbers is a list of points
        points = points[0] if len(points) == 1 and not is_list else points
    if points.ndim not in (1, 2) or points.size == 0:
        raise PxUsageError(
            f"--initial has the shape {points.shape}.\nGive one point, or an array of shape (chains, parameters)."
        )
    if not np.isfinite(points).all():
        raise PxUsageError("--initial has a coordinate that is not finite.\nGive start points of finite numbers.")
    return points
