"""Modules of the user's own: which they are, and their texts, ready to be shipped."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path

#: module name to (text or compiled bytes, file name, is it a package)
Sources = dict[str, tuple[str | bytes, str, bool]]

_COMPILED = tuple(importlib.machinery.EXTENSION_SUFFIXES)

_OURS = ("__main__", "__mp_main__", "pxtools", "ipykernel_launcher")
_FOREIGN_FOLDERS = ("site-packages", "dist-packages")


@cache
def _library_folders() -> tuple[Path, ...]:
    return tuple({Path(sysconfig.get_path(key)).resolve() for key in ("stdlib", "platstdlib")})


def is_users_own(name: str, file: str | None) -> bool:
    """Return whether a module, Python or compiled, lies outside of the library and of installed packages."""
    if not file or not file.endswith((".py", *_COMPILED)) or name in _OURS:
        return False
    return not _is_foreign(file) and Path(file).is_file()


@lru_cache(maxsize=4096)
def _is_foreign(file: str) -> bool:
    """Return whether a file lies where libraries do: asked of each module that a user's own imports, in each call."""
    path = Path(file).resolve()
    if any(part in _FOREIGN_FOLDERS for part in path.parts):
        return True
    return any(path.is_relative_to(folder) for folder in _library_folders())


def _file_of(top: str) -> str | None:
    """Return where a top-level module lies, also one that nobody has imported here yet."""
    if top in sys.modules:
        return getattr(sys.modules[top], "__file__", None)
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):  # AttributeError: an import hook of the old kind
        return None
    return spec.origin if spec is not None else None


def users_sources(names: Iterable[str]) -> Sources:
    """Return the texts of the user's modules among `names`, of their packages, and of what these import.

    The files are read anew each time, so that an edited file is an edited module.
    """
    found: Sources = {}
    waiting = [name for name in names if name]
    seen: set[str] = set()
    while waiting:
        top = waiting.pop().partition(".")[0]
        if top in seen:
            continue
        seen.add(top)
        file = _file_of(top)
        if file is None or not is_users_own(top, file):
            continue
        new = _texts(top, Path(file).resolve())
        found.update(new)
        for text, _, _ in new.values():
            if isinstance(text, str):
                waiting.extend(_imported(text))
    return found


def _texts(top: str, file: Path) -> Sources:
    if file.name.endswith(_COMPILED):
        return {top: (file.read_bytes(), str(file), False)}
    if file.name != "__init__.py":
        return {top: (_read(file), str(file), False)}
    folder = file.parent
    texts: Sources = {}
    for part in sorted(folder.rglob("*.py")):
        parts = part.relative_to(folder).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join((top, *(parts[:-1] if is_package else parts)))
        if all(piece.isidentifier() for piece in name.split(".")):
            texts[name] = (_read(part), str(part), is_package)
    return texts


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8")


@lru_cache(maxsize=256)
def _imported(text: str) -> frozenset[str]:
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return frozenset()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return frozenset(names)
