"""What does not work with the facts of a machine, why, and the line to type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Facts = Mapping[str, str]

#: rpy2-rinterface from the left version on needs R from the right one on; newer R needs newer rpy2
RPY2_NEEDS = (("3.6.6", "4.5"),)
R_NEEDS = (("4.6", "3.6.7"),)


@dataclass(frozen=True)
class Advice:
    """One thing that does not work.

    Attributes
    ----------
    what, why, line
        For instance ``%%pxR``, ``R is not installed``, ``apt-get install r-base-core``.
    """

    what: str
    why: str
    line: str


def number(text: str) -> tuple[int, ...]:
    """Return a version as numbers to compare.

    Examples
    --------
    >>> number("3.6.10") > number("3.6.9")
    True
    """
    parts = []
    for part in text.split("."):
        digits = "".join(ch for ch in part if ch.isdigit())
        if not digits:
            break
        parts.append(int(digits))
    return tuple(parts)


def advise(facts: Facts, *, is_engine: bool) -> list[Advice]:
    """Return what does not work in a process with these facts.

    Parameters
    ----------
    facts
        From `pxtools.remote.doctor.facts`.
    is_engine
        R and Octave matter on engines only; compiling matters here.
    """
    found = _cython(facts) if not is_engine else [*_r(facts), *_octave(facts)]
    return [Advice(*row) for row in found]


def _cython(facts: Facts) -> list[tuple[str, str, str]]:
    if not facts["Cython"]:
        return [("%%pxcython", "Cython is not installed", 'pip install "pxtools[cython]"')]
    if not facts["setuptools"]:
        why = "setuptools is not installed, and Python has no distutils of its own since 3.12"
        return [("%%pxcython", why, "pip install setuptools")]
    if not facts["C compiler"]:
        return [("%%pxcython", "there is no C compiler", "apt-get install gcc libc6-dev")]
    return []


def _r(facts: Facts) -> list[tuple[str, str, str]]:
    if not facts["R"]:
        return [("%%pxR", "R is not installed", "apt-get install r-base-core")]
    if not facts["rpy2"]:
        line = 'RPY2_CFFI_MODE=ABI pip install "pxtools[r]"'
        needed = RPY2_NEEDS[0]
        if number(facts["R"]) < number(needed[1]):
            line += f' "rpy2-rinterface<{needed[0]}"'
        return [("%%pxR", "rpy2 is not installed", line)]
    for rpy2, r in RPY2_NEEDS:
        if number(facts["rpy2"]) >= number(rpy2) and number(facts["R"]) < number(r):
            why = f"rpy2-rinterface {facts['rpy2']} needs R {r} or newer, R is {facts['R']}"
            return [("%%pxR", why, f'RPY2_CFFI_MODE=ABI pip install "rpy2-rinterface<{rpy2}"')]
    for r, rpy2 in R_NEEDS:
        if number(facts["R"]) >= number(r) and number(facts["rpy2"]) < number(rpy2):
            why = f"R {facts['R']} needs rpy2-rinterface {rpy2} or newer, it is {facts['rpy2']}"
            return [("%%pxR", why, f'pip install "rpy2-rinterface>={rpy2}"')]
    if not facts["pandas"]:
        return [("%%pxR with data frames", "pandas is not installed", "pip install pandas")]
    return []


def _octave(facts: Facts) -> list[tuple[str, str, str]]:
    if not facts["Octave"]:
        return [("%%pxoctave", "Octave is not installed", "apt-get install octave gnuplot-nox fonts-freefont-otf")]
    if not facts["oct2py"]:
        return [("%%pxoctave", "oct2py is not installed", 'pip install "pxtools[octave]"')]
    if not facts["gnuplot"]:
        return [
            ("pictures of %%pxoctave", "gnuplot is not installed", "apt-get install gnuplot-nox fonts-freefont-otf")
        ]
    return []
