"""Import modules from sources that came over the wire.

Serves two purposes with one mechanism: engines without this version of pxtools get its files, and modules of the
user's own reach engines that cannot import them, or that hold an older text of them.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import linecache
import os
import platform
import sys
import sysconfig
import tempfile
import types
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """One module: its text, or its compiled bytes, and the file that tracebacks name."""

    text: str | bytes
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
        if isinstance(source.text, bytes):
            return self._compiled_spec(name, source)
        spec = importlib.machinery.ModuleSpec(name, self, origin=source.filename, is_package=source.is_package)
        spec.has_location = True
        if source.is_package:  # compiled submodules and data stay where the package lies
            spec.submodule_search_locations = [os.path.dirname(source.filename)]
        return spec

    def _compiled_spec(self, name: str, source: Source) -> importlib.machinery.ModuleSpec:
        """Write the library below a name of its own: a loaded file must never change under its process."""
        content = source.text
        assert isinstance(content, bytes)
        path = os.path.join(_folder(), hashlib.sha256(content).hexdigest()[:16], os.path.basename(source.filename))
        if not os.path.exists(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            handle, partial = tempfile.mkstemp(dir=os.path.dirname(path))
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.replace(partial, path)
        loader = importlib.machinery.ExtensionFileLoader(name, path)
        return importlib.machinery.ModuleSpec(name, loader, origin=path)

    def is_package(self, fullname: str) -> bool:
        return self.sources[fullname].is_package

    def get_source(self, fullname: str) -> str:
        text = self.sources[fullname].text
        assert isinstance(text, str)
        return text

    def exec_module(self, module: types.ModuleType) -> None:
        source, text = self.sources[module.__name__], self.get_source(module.__name__)
        linecache.cache[source.filename] = (
            len(text),
            None,
            text.splitlines(keepends=True),
            source.filename,
        )
        exec(compile(text, source.filename, "exec", dont_inherit=True), module.__dict__)


def abi() -> str:
    """Return what a compiled module must fit: processes that say the same can load the same library."""
    return f"{sysconfig.get_config_var('EXT_SUFFIX')} {platform.machine()} {sys.platform}"


def load(name: str, binary: bytes, text: str) -> types.ModuleType:
    """Import a compiled module from its bytes; its tracebacks show the lines of `text`.

    Raises
    ------
    Exception
        Whatever running the module's top level raises; nothing of it is left.
    """
    install({name: (binary, f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}", False)})
    remember_text(name, text)
    return importlib.import_module(name)


def remember_text(name: str, text: str) -> None:
    """Let tracebacks through a module compiled by Cython show its lines."""
    file = f"{name}.pyx"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)


def _folder() -> str:
    """Return this process's private folder for compiled modules; it goes when the process ends."""
    for finder in sys.meta_path:
        if type(finder).__name__ == "ShippedFinder":
            if not hasattr(finder, "folder"):
                from pxtools.remote.leftovers import vanishing_folder  # which this module is there to bring

                finder.folder = str(vanishing_folder("pxtools-"))  # type: ignore[attr-defined]
            return str(vars(finder)["folder"])
    raise RuntimeError("no finder is installed")


def install(sources: dict[str, tuple[str | bytes, str, bool]]) -> list[str]:
    """Make `sources` importable and forget older texts; return the names of the modules that were replaced.

    Parameters
    ----------
    sources
        Module name to (text or compiled bytes, file name, is it a package).
    """
    finder = next((f for f in sys.meta_path if type(f).__name__ == "ShippedFinder"), None)
    if finder is None:
        finder = ShippedFinder()
        sys.meta_path.insert(0, finder)
    changed = []
    for name, (text, filename, is_package) in sources.items():
        new = Source(text, filename, is_package)
        held = finder.sources.get(name)  # type: ignore[attr-defined]
        if held is None or (held.text, held.filename) != (text, filename):
            finder.sources[name] = new  # type: ignore[attr-defined]
            changed.append(name)
    return [name for name in _with_users(changed, finder.sources) if sys.modules.pop(name, None) is not None]  # type: ignore[attr-defined]


def _with_users(changed: list[str], sources: dict[str, Source]) -> list[str]:
    """Return the changed modules, the rest of their packages, and the shipped modules that import these."""
    stale = {name.partition(".")[0] for name in changed}
    imports = {name: _imported(source.text) for name, source in sources.items()} if changed else {}
    while True:
        more = {name.partition(".")[0] for name, used in imports.items() if used & stale} - stale
        if not more:
            return [name for name in sources if name.partition(".")[0] in stale]
        stale |= more


def _imported(text: str | bytes) -> set[str]:
    """Return the top names of what a module imports."""
    names: set[str] = set()
    try:
        tree = ast.parse(text if isinstance(text, str) else "")
    except SyntaxError:  # a template, or of another Python
        return names
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names
