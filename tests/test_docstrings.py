"""Every public name says what it takes, returns and raises, and its example runs."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
import shutil
from importlib.util import find_spec
from typing import Any

import pytest

import pxtools
from pxtools import api

#: what the example cannot do without
NEEDS = {
    "cython": bool(find_spec("Cython")),
    "r": bool(shutil.which("R") and find_spec("rpy2")),
    "octave": bool(shutil.which("octave") and find_spec("oct2py")),
}
NAMES = sorted(set(pxtools.__all__) - {"__version__"})


#: libraries that need no engines; the examples of the Kalman filters have a test of their own
LIBRARIES = ["pxtools.expr", "pxtools.kalman", "pxtools.sampling"]
LIBRARY_FUNCTIONS = [
    pytest.param(function, id=f"{library}.{name}")
    for library in LIBRARIES
    for name in importlib.import_module(library).__all__
    if inspect.isfunction(function := getattr(importlib.import_module(library), name))
]


def section(text: str, title: str) -> str:
    """The text below a numpydoc heading, up to the next one."""
    found = re.search(rf"^{title}\n-+\n(.*?)(?=^\S[^\n]*\n-+$|\Z)", text, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def untold(function: Any, text: str) -> list[str]:
    """The parameters that the docstring does not name."""
    taken = section(text, "Parameters")
    parameters = inspect.signature(function).parameters
    return [p for p in parameters if not re.search(rf"^(?!\s).*?\b{p}\b|\*{p}\b", taken, re.MULTILINE)]


def test_the_package_offers_what_its_api_has() -> None:
    assert set(NAMES) == set(api.__all__) - {"use", "leave"}


@pytest.mark.parametrize("name", NAMES)
def test_a_public_function_tells_its_parameters_its_result_and_an_example(name: str) -> None:
    function: Any = getattr(pxtools, name)
    text = inspect.getdoc(function) or ""
    assert untold(function, text) == []
    assert section(text, "Examples")
    assert section(text, "Returns") or name in {"Box", "within"}  # a class, and a block that returns nothing


@pytest.mark.parametrize("function", LIBRARY_FUNCTIONS)
def test_a_library_s_function_tells_its_parameters_and_its_result(function: Any) -> None:
    text = inspect.getdoc(function) or ""
    assert untold(function, text) == []
    assert section(text, "Returns")


@pytest.mark.parametrize(
    "module", [f"sampling.{name}" for name in "plan run samplers starts targets".split()] + ["expr.api", "expr.parse"]
)
def test_the_examples_of_a_library_run(module: str) -> None:
    assert doctest.testmod(importlib.import_module(f"pxtools.{module}")).failed == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_a_public_function_runs(name: str, session: Any, shell: Any) -> None:
    if not NEEDS.get(name, True):
        pytest.skip(f"the example of `{name}` needs what is not installed here")
    (example,) = doctest.DocTestFinder(recurse=False).find(getattr(pxtools, name), name)
    example.globs = shell.user_ns  # the names that the functions look at are the notebook's
    found: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL).run(example, out=found.append, clear_globs=False)
    assert found == []
