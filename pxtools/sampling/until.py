"""When a run is good enough: `rhat<1.01 ess>1000`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pxtools.errors import PxUsageError, nearest
from pxtools.sampling import diagnostics

Floats = NDArray[np.float64]

#: draws per chain at the first look, and how much further each next one is
FIRST_LOOK = 250
LOOK_GROWTH = 1.5
#: draws per chain when only a goal was given
MOST_DRAWS = 1_000_000

_GOAL = re.compile(r"\s*([A-Za-z_]+)\s*(<=?|>=?)\s*([0-9.eE+-]+)[\s,;]*")


def _least_ess(draws: Floats) -> float:
    return float(min(np.min(diagnostics.ess_bulk(draws)), np.min(diagnostics.ess_tail(draws))))


#: what can be asked for: over all parameters, the worst
MEASURES: dict[str, tuple[str, Callable[[Floats], float]]] = {
    "rhat": ("<", lambda draws: float(np.max(diagnostics.rhat(draws)))),
    "ess": (">", _least_ess),
    "ess_bulk": (">", lambda draws: float(np.min(diagnostics.ess_bulk(draws)))),
    "ess_tail": (">", lambda draws: float(np.min(diagnostics.ess_tail(draws)))),
    "mcse": ("<", lambda draws: float(np.max(diagnostics.mcse_mean(draws)))),
}


@dataclass(frozen=True)
class Until:
    """Goals, all of which have to be met.

    Attributes
    ----------
    text : str
        As typed.
    goals : tuple of (measure, limit)
        A measure whose good side is below is met below its limit, any other above.
    """

    text: str
    goals: tuple[tuple[str, float], ...]

    def is_met(self, draws: Floats) -> bool:
        """Tell whether (n_chains, n_draws, n_params) draws are good enough; NaN never is."""
        for name, limit in self.goals:
            side, measure = MEASURES[name]
            value = measure(draws)
            if not (value < limit if side == "<" else value > limit):
                return False
        return True


def read_until(text: str) -> Until:
    """Read goals.

    Raises
    ------
    PxUsageError
        An unknown measure, no number, or a comparison that points to the bad side.
    """
    goals, position = [], 0
    while position < len(text.rstrip()):
        match = _GOAL.match(text, position)
        if match is None:
            raise PxUsageError(f'--until {text!r} cannot be read.\nType --until "rhat<1.01 ess>1000".')
        name, side, number = match.groups()
        if name not in MEASURES:
            raise PxUsageError(f"--until knows no `{name}`.{nearest(name, MEASURES)}\nMeasures: {', '.join(MEASURES)}.")
        if side[0] != MEASURES[name][0]:
            raise PxUsageError(f"--until {name}{side}{number}: good is {MEASURES[name][0]}.\nTurn it round.")
        goals.append((name, _number(text, number)))
        position = match.end()
    if not goals:
        raise PxUsageError('--until is empty.\nType --until "rhat<1.01 ess>1000".')
    return Until(text, tuple(goals))


def _number(text: str, number: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise PxUsageError(f'--until {text!r}: `{number}` is no number.\nType --until "rhat<1.01 ess>1000".')
    return value


def next_look(n_draws: int) -> int:
    """Return the draws per chain at which to look next: by the draws alone, so that runs can be repeated."""
    return max(FIRST_LOOK, math.ceil(n_draws * LOOK_GROWTH))
