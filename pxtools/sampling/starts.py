"""Where chains start: given points, or points drawn at random. Standard library and NumPy only: engines redraw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence
from numpy.typing import ArrayLike, NDArray

from pxtools.errors import PxUsageError, nearest
from pxtools.sampling.targets import Target

Initial = ArrayLike | Callable[[Generator], ArrayLike]
Bounds = ArrayLike | Mapping[str, ArrayLike]


@dataclass(frozen=True)
class RandomStart:
    """Draws start points: uniform between two finite bounds, else normal of the given scale on the allowed side.

    Attributes
    ----------
    lower, upper : (n_params,) array
        Bounds, infinite where there are none.
    scale : float
        Standard deviation where a bound is missing.
    """

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    scale: float

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
        return "inside --bounds" if self.is_inside_box else f"around 0 (normal, --scale {self.scale:g})"


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


def _bounds_by_name(target: Target, bounds: Mapping[str, ArrayLike]) -> NDArray[np.float64]:
    for name in bounds:
        if name not in target.names:
            raise PxUsageError(
                f"--bounds names `{name}`, which is no parameter of `{target.name}`.{nearest(name, target.names)}\n"
                f"Its parameters: {', '.join(target.names) or 'unnamed (a vector): give --names, or bounds in order'}."
            )
    return np.array([np.asarray(bounds.get(name, (-np.inf, np.inf)), dtype=np.float64) for name in target.names])


def read_initial(
    initial: Initial, target: Target, chains: int | None, default_chains: int, seed: int
) -> NDArray[np.float64]:
    """Return the start points as (n_chains, n_params).

    Raises
    ------
    PxUsageError
        Not numeric, not finite, a shape that does not fit, or rows that contradict `chains`.
    """
    if callable(initial):
        count = chains or default_chains
        return _points(target, [initial(_start_generator(seed, chain)) for chain in range(count)], is_list=True)
    points = _points(target, initial)
    if points.ndim == 1:
        return np.tile(points, (chains or default_chains, 1))
    if chains is not None and chains != len(points):
        raise PxUsageError(
            f"--chains {chains} contradicts the {len(points)} row(s) of --initial, one start point per chain.\n"
            f"Leave --chains out, or give {chains} row(s)."
        )
    return points


def _start_generator(seed: int, chain: int) -> Generator:
    """Return a stream for the user's own start function, apart from the chain's own."""
    return Generator(PCG64(SeedSequence(seed, spawn_key=(chain, 0))))


def _points(target: Target, initial: object, is_list: bool = False) -> NDArray[np.float64]:
    try:
        points = np.array(initial, dtype=np.float64)
    except (TypeError, ValueError):
        raise PxUsageError(
            f"--initial is no array of numbers, but {type(initial).__name__}.\n"
            f"Give one point, or an array of shape (chains, parameters)."
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
