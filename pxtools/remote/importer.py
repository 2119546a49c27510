"""Import modules from sources that came over the wire.

Serves two purposes with one mechanism: engines without this version of pxtools get its files, and modules of the
user's own reach engines that cannot import them, or that hold an older text of them.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import linecache
import os
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """One module's text: what to run, and the file that tracebacks name."""

    text: str
    filename: str
    is_package: bool


class ShippedFinder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds shipped modules before any file of the same name."""

    def __init__(self) -> None:
        self.sources: dict[str, Source] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in self.sources:
            return None
        source = self.sources[name]
        spec = importlib.machinery.ModuleSpec(
            name, self, origin=source.filename, is_package=source.is_package
        )
        spec.has_location = True
        if source.is_package:  # compiled submodules and data stay where the package lies
            spec.submodule_search_locations = [os.path.dirname(source.filename)]
        return spec

    def is_package(self, fullname: str) -> bool:
        return self.sources[fullname].is_package

    def get_source(self, fullname: str) -> str:
        return self.sources[fullname].text

    def exec_module(self, module: types.ModuleType) -> None:
        source = self.sources[module.__name__]
        linecache.cache[source.filename] = (
            len(source.text),
            None,
            source.text.splitlines(keepends=True),
            source.filename,
        )
        exec(compile(source.text, source.filename, "exec", dont_inherit=True), module.__dict__)


def install(sources: dict[str, tuple[str, str, bool]]) -> list[str]:
    """Make `sources` importable and forget older texts; return the names of the modules that were replaced.

    Parameters
    ----------
    sources
        Module name to (text, file name, is it a package).
    """
    finder = next((f for f in sys.meta_path if type(f).__name__ == "ShippedFinder"), None)
    if finder is None:
        finder = ShippedFinder()
        sys.meta_path.insert(0, finder)
    replaced = []
    for name, (text, filename, is_package) in sources.items():
        new = Source(text, filename, is_package)
        held = finder.sources.get(name)  # type: ignore[attr-defined]
        if held is not None and (held.text, held.filename) == (text, filename):
            continue
        finder.sources[name] = new  # type: ignore[attr-defined]
        if sys.modules.pop(name, None) is not None:
            replaced.append(name)
    return replaced
