"""When a fit stops: `gain<1e-8 iterations>200`, read as a tree, never evaluated."""

from __future__ import annotations

import ast
import time
from dataclasses import dataclass, field

from pxtools.errors import PxUsageError, nearest

#: reached from above: the search has settled
SETTLED = ("gain", "gradient")
#: reached from below: the search has taken long enough
LIMITS = ("iterations", "seconds")


@dataclass
class Until:
    """The goals, all of which must be reached, and the limits, any of which ends a search.

    Attributes
    ----------
    goals : dict
        Greatest `gain` in log-likelihood of an iteration, greatest `gradient` (per observed value).
    limits : dict
        Greatest number of `iterations`, of `seconds`.
    """

    goals: dict[str, float] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def parse(cls, text: str | None) -> Until:
        """Read conditions such as `gain<1e-8 iterations>200`."""
        goals: dict[str, float] = {}
        limits: dict[str, float] = {}
        for word in (text or "").replace(",", " ").split():
            name, is_below, value = _condition(word)
            known = SETTLED if is_below else LIMITS
            if name not in known:
                sign = "<" if is_below else ">"
                raise PxUsageError(
                    f"`until`: there is no condition `{word}`; with `{sign}` use {' or '.join(known)}."
                    f"{nearest(name, SETTLED + LIMITS)}\nFor example: gain<1e-8 iterations>200"
                )
            (goals if is_below else limits)[name] = value
        return cls(goals, limits)

    def goal(self, name: str, default: float) -> float:
        """Return the goal of this name, or the default."""
        return self.goals.get(name, default)

    def limit_reached(self, iterations: int, default: int) -> str:
        """Return which limit is reached, an empty string if none."""
        if iterations >= self.limits.get("iterations", default):
            return f"stopped after {iterations} iterations"
        if time.monotonic() - self.started >= self.limits.get("seconds", float("inf")):
            return f"stopped after {self.limits['seconds']:g} seconds"
        return ""


def _condition(word: str) -> tuple[str, bool, float]:
    try:
        tree = ast.parse(word, mode="eval").body
        assert isinstance(tree, ast.Compare)
        assert len(tree.ops) == 1
        assert isinstance(tree.left, ast.Name)
        assert isinstance(tree.ops[0], (ast.Lt, ast.Gt, ast.LtE, ast.GtE))
        return (
            tree.left.id,
            isinstance(tree.ops[0], (ast.Lt, ast.LtE)),
            float(ast.literal_eval(tree.comparators[0])),
        )
    except (SyntaxError, AssertionError, ValueError):
        raise PxUsageError(
            f"`until`: {word!r} is no condition.\nFor example: gain<1e-8 iterations>200 (no spaces inside a condition)"
        ) from None
