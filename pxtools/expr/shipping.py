"""Formulas on machines without pxtools: the pure Python modules that a pickled formula needs, as text.

A compiled formula pickles as its problem and plans. To unpickle and run it a process needs NumPy, SciPy and these
modules; where the compiled loop is missing the NumPy twin runs the same table.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("pxtools", "pxtools.kernels", "pxtools.expr")
MODULES = ("pxtools._version", "pxtools.errors", "pxtools.kernels.blasplan")


def module_sources() -> dict[str, str]:
    """Return module names and source texts; packages end in `.__init__`.

    Examples
    --------
    >>> "pxtools.expr.compiled" in module_sources()
    True
    """
    sources = {f"{name}.__init__": "" for name in PACKAGES}
    for name in (*MODULES, *_members("pxtools.expr")):
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        sources[name] = Path(spec.origin).read_text(encoding="utf-8")
    sources["pxtools.expr.__init__"] = sources.pop("pxtools.expr")
    return sources


def _members(package: str) -> list[str]:
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(next(iter(spec.submodule_search_locations)))
    return [package, *sorted(f"{package}.{path.stem}" for path in folder.glob("[!_]*.py"))]


def install_modules(sources: Mapping[str, str]) -> bool:
    """Make shipped modules importable in this process, unless pxtools is there; says whether it did.

    Needs the standard library only, so that it can be sent by value.
    """
    import importlib.abc
    import importlib.machinery
    import importlib.util
    import sys

    if importlib.util.find_spec("pxtools") is not None:
        return False

    class Shipped(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
        def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
            is_package = f"{name}.__init__" in sources
            if not is_package and name not in sources:
                return None
            return importlib.machinery.ModuleSpec(name, self, origin="shipped by pxtools", is_package=is_package)

        def get_source(self, fullname):  # type: ignore[no-untyped-def]
            return sources.get(f"{fullname}.__init__", sources.get(fullname))

        def is_package(self, fullname):  # type: ignore[no-untyped-def]
            return f"{fullname}.__init__" in sources

    sys.meta_path.append(Shipped())
    return True
