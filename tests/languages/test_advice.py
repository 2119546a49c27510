"""What is advised for which facts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pxtools.errors import PxMissing
from pxtools.languages.advice import advise, number
from pxtools.remote.r_runner import R

WHOLE = {
    "Cython": "3.3.1",
    "setuptools": "84",
    "C compiler": "gcc 12",
    "R": "4.5.1",
    "rpy2": "3.6.7",
    "pandas": "3",
    "Octave": "7.3.0",
    "oct2py": "6",
    "gnuplot": "5",
}


def test_nothing_is_advised_where_everything_is_there() -> None:
    assert advise(WHOLE, is_engine=True) == []
    assert advise(WHOLE, is_engine=False) == []


@pytest.mark.parametrize(
    ("changed", "is_engine", "line"),
    [
        ({"Cython": ""}, False, 'pip install "pxtools[cython]"'),
        ({"setuptools": ""}, False, "pip install setuptools"),
        ({"C compiler": ""}, False, "apt-get install gcc libc6-dev"),
        ({"R": ""}, True, "apt-get install r-base-core"),
        ({"rpy2": ""}, True, 'RPY2_CFFI_MODE=ABI pip install "pxtools[r]"'),
        ({"rpy2": "", "R": "4.2.2"}, True, 'RPY2_CFFI_MODE=ABI pip install "pxtools[r]" "rpy2-rinterface<3.6.6"'),
        ({"R": "4.2.2"}, True, 'RPY2_CFFI_MODE=ABI pip install "rpy2-rinterface<3.6.6"'),
        ({"R": "4.6.0", "rpy2": "3.6.5"}, True, 'pip install "rpy2-rinterface>=3.6.7"'),
        ({"pandas": ""}, True, "pip install pandas"),
        ({"Octave": ""}, True, "apt-get install octave gnuplot-nox fonts-freefont-otf"),
        ({"oct2py": ""}, True, 'pip install "pxtools[octave]"'),
        ({"gnuplot": ""}, True, "apt-get install gnuplot-nox fonts-freefont-otf"),
    ],
)
def test_each_lack_has_its_line_to_type(changed: dict[str, str], is_engine: bool, line: str) -> None:
    (advice,) = advise({**WHOLE, **changed}, is_engine=is_engine)
    assert advice.line == line


def test_the_rpy2_of_debian_works_with_its_r() -> None:
    assert advise({**WHOLE, "R": "4.2.2", "rpy2": "3.6.5"}, is_engine=True) == []


def test_an_rpy2_that_wants_a_newer_r_is_told_with_the_line_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pip installs it beside Debian's R: cffi raises its own `error`, which is neither of the usual ones."""
    (tmp_path / "rpy2").mkdir()
    (tmp_path / "rpy2" / "__init__.py").touch()
    raising = "class error(Exception): pass\nraise error(\"symbol 'R_getVar' not found in library 'libR.so'\")\n"
    (tmp_path / "rpy2" / "rinterface.py").write_text(raising)
    for name in [name for name in sys.modules if name.partition(".")[0] == "rpy2"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("R_HOME", str(tmp_path))
    monkeypatch.setenv("RPY2_CFFI_MODE", "ABI")
    try:
        with pytest.raises(PxMissing, match=r'pip install "rpy2-rinterface<3.6.6"'):
            R()
    finally:
        for name in ("rpy2", "rpy2.rinterface"):
            sys.modules.pop(name, None)


def test_versions_compare_as_numbers() -> None:
    assert number("3.6.10") > number("3.6.9")
    assert number("4.2.2") < number("4.5")
