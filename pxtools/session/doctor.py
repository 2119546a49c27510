"""`%pxdoctor`: the facts of this process and of every engine, side by side, and what to type where something lacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pxtools.engines.wire import name_engines
from pxtools.languages.advice import Advice, advise
from pxtools.remote.doctor import Facts, facts
from pxtools.session.core import Session

LOOK = "pxtools.remote.doctor.look"

#: what only matters where it is used
_HERE_ONLY = ("Cython", "setuptools", "C compiler")
_ENGINES_ONLY = ("R", "rpy2", "RPY2_CFFI_MODE", "Octave", "oct2py", "gnuplot", "BLAS threads", "pandas")


@dataclass(frozen=True)
class Findings:
    """What `examine` found.

    Attributes
    ----------
    rows
        Fact to the groups that agree on it: (``here`` or ``engines 0-3``, value).
    advice
        (Where, what does not work, why, the line to type).
    """

    rows: dict[str, list[tuple[str, str]]]
    advice: list[tuple[str, Advice]]

    def different(self, fact: str) -> bool:
        """Return whether the processes that the fact matters for disagree."""
        return len({value for _, value in self.rows[fact]}) > 1

    def lines(self) -> list[str]:
        """Return the advice as text."""
        return [f"{a.what} does not work ({where}): {a.why}.  Type: {a.line}" for where, a in self.advice]


def examine(session: Session, *, targets: Any = None) -> Findings:
    """Ask this process and the engines what they have, and work out what does not work.

    Parameters
    ----------
    targets
        See `Session.targets`.
    """
    engines = session.targets(targets)
    there: dict[int, Facts] = session.good(session.wire.call(LOOK, {i: {} for i in engines}))
    here = facts()
    rows = {fact: _groups(fact, here, there) for fact in here}
    advice = [("here", a) for a in advise(here, is_engine=False)]
    lacking: dict[Advice, list[int]] = {}
    for engine, its in there.items():
        for found in advise(its, is_engine=True):
            lacking.setdefault(found, []).append(engine)
    advice += [(name_engines(those), found) for found, those in lacking.items()]
    return Findings(rows, advice)


def _groups(fact: str, here: Facts, there: dict[int, Facts]) -> list[tuple[str, str]]:
    values: dict[str, list[int]] = {}
    for engine, its in there.items():
        values.setdefault(its.get(fact, ""), []).append(engine)
    groups = [(name_engines(engines), value) for value, engines in values.items()]
    if fact in _HERE_ONLY:
        groups = []
    return groups if fact in _ENGINES_ONLY else [("here", here[fact]), *groups]
