"""Every option of `%%cython` is one of `%%pxcython`, and does what it does there."""

from __future__ import annotations

import ctypes.util
import subprocess
import types
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("Cython", reason="Cython is not installed")

from pxtools.errors import PxMissing
from pxtools.languages import cython_build
from pxtools.languages.cython_build import CythonFlags, build, module_name
from pxtools.remote import importer


def load(code: str, **flags: Any) -> types.ModuleType:
    chosen = CythonFlags(**flags)
    name = module_name(code, chosen)
    try:
        return importer.load(name, build(name, code, chosen).binary, code)
    except PxMissing as error:
        pytest.skip(str(error))


def options(parser: Any) -> dict[str, str]:
    """Return option to the kind of its action: whether it takes a value, and whether it may be repeated."""
    return {
        option: f"{type(action).__name__} {action.nargs}"
        for action in parser._actions
        for option in action.option_strings
    }


def test_every_option_of_cythons_own_magic_is_taken_in_the_same_way() -> None:
    from Cython.Build.IpythonMagic import CythonMagics

    from pxtools.magics.pxcython import PxCython

    theirs, ours = options(CythonMagics.cython.parser), options(PxCython.pxcython.parser)
    assert len(theirs) > 15
    assert {option: kind for option, kind in ours.items() if option in theirs} == theirs


def test_headers_sources_and_libraries_are_found_relative_to_the_notebooks_folder(
    tmp_path: Path, monkeypatch: Any
) -> None:
    compiler = ctypes.util.find_library("m") and cython_build.has_compiler()
    if not compiler:
        pytest.skip("there is no C compiler here")
    monkeypatch.chdir(tmp_path)
    for folder in ("headers", "libs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "headers" / "parts.h").write_text("int from_source(void); int from_library(void);\n")
    (tmp_path / "part.c").write_text("int from_source(void) { return 40 + EXTRA; }\n")
    (tmp_path / "lib.c").write_text("int from_library(void) { return 7; }\n")
    subprocess.run(["gcc", "-fPIC", "-c", "lib.c", "-o", "lib.o"], check=True)
    subprocess.run(["ar", "rcs", "libs/libparts.a", "lib.o"], check=True)
    module = load(
        "cdef extern from 'parts.h':\n    int from_source()\n    int from_library()\n"
        "def both():\n    return from_source(), from_library()\n",
        include=("headers",),
        src=("part.c",),
        library_dirs=("libs",),
        lib=("parts",),
        compile_args=("-DEXTRA=2",),
        link_args=("-Wl,--as-needed",),
    )
    assert module.both() == (42, 7)


@pytest.mark.parametrize(("level", "half"), [(2, 0), (3, 0.5)])
def test_the_language_level_is_that_of_the_flag(level: int, half: float) -> None:
    assert load("def half():\n    return 1 / 2\n", language_level=level).half() == half


def test_pgo_compiles_with_the_profile_of_an_import_and_verbose_shows_the_commands() -> None:
    code = (
        "def total(double x):\n    cdef double s = 0\n    for i in range(9):\n        s += x\n    return s\ntotal(2)\n"
    )
    flags = CythonFlags(pgo=True, quiet=False)
    try:
        built = build("with_profile", code, flags)
    except PxMissing as error:
        pytest.skip(str(error))
    assert "-fprofile-use" in built.warnings
    assert "-fprofile-generate" not in built.warnings
    assert "profile count data file not found" not in built.warnings
    assert build("quiet", "x = 1\n", CythonFlags()).warnings == ""


@pytest.mark.parametrize("kind", ["default", "fullc"])
def test_the_annotation_is_that_of_the_cell_alone(kind: str) -> None:
    code = "def typed(double x, double y):\n    return x * y\n"
    html = build("annotated", code, CythonFlags(annotate=kind)).annotation
    assert "typed" in html
    assert "__px_" not in html
