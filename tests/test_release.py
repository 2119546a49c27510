"""What a release says of itself agrees with what it is: version, citation, Pythons, Binder."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import yaml

import pxtools

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PYTHONS = [c.rpartition(" ")[2] for c in PYPROJECT["project"]["classifiers"] if re.search(r":: 3\.\d+$", c)]


def test_the_citation_is_complete_and_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # what the schema asks for
    assert citation["cff-version"] == "1.2.0"
    assert all("name" in author for author in citation["authors"])
    assert citation["version"] == pxtools.__version__
    assert citation["license"] == PYPROJECT["project"]["license"]


def test_wheels_are_made_for_the_pythons_of_the_classifiers() -> None:
    wheels = PYPROJECT["tool"]["cibuildwheel"]["build"].split()
    assert wheels == [f"cp{python.replace('.', '')}-*" for python in PYTHONS]
    assert PYPROJECT["project"]["requires-python"] == f">={PYTHONS[0]}"
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in PYTHONS


def test_binder_installs_what_the_project_asks_for() -> None:
    folder = ROOT / ".binder"
    install = (folder / "postBuild").read_text()
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", install)
    assert set(extras.split(",")) <= set(PYPROJECT["project"]["optional-dependencies"])
    assert PYPROJECT["tool"]["uv"]["constraint-dependencies"] == re.findall(r"'(rpy2-rinterface<[\d.]+)'", install)
    assert (folder / "runtime.txt").read_text().strip() in [f"python-{python}" for python in PYTHONS]
    known = (ROOT / "tools" / "setup_env.py").read_text()
    assert [name for name in (folder / "apt.txt").read_text().split() if f'"{name}"' not in known] == []
    assert (folder / "postBuild").stat().st_mode & 0o100, "postBuild is not executable"
