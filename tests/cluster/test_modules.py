"""Modules of the user's own: found, shipped, shipped again. On a real cluster."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

N_ENGINES = 4


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, session: Any) -> Iterator[Callable[[str, str], Path]]:
    """Write a file into a folder where the notebook finds modules, and engines do not."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("pxtools.session.core.same_host_path", lambda: ())
    before = set(sys.modules)

    def to_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    yield to_file
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_a_plain_module_is_shipped(cell: Any, write: Any) -> None:
    write("plain_mod.py", "K = 3\ndef f(x): return K * x\nclass A:\n    def g(self): return 'g'\n")
    cell("import plain_mod\nfrom plain_mod import f, A\na = A()")
    assert list(cell("%pxrun (plain_mod.f(2), f(1), a.g(), isinstance(a, plain_mod.A))")) == [(6, 3, "g", True)] * 4


def test_a_module_that_a_module_imports_is_shipped_too(cell: Any, write: Any) -> None:
    write("base_mod.py", "def g(): return 'base'\n")
    write("upper_mod.py", "import base_mod\ndef f(): return base_mod.g()\n")
    cell("from upper_mod import f")
    assert list(cell("%pxrun f()")) == ["base"] * N_ENGINES


def test_a_package_with_relative_imports_is_shipped(cell: Any, write: Any) -> None:
    write("pack_a/__init__.py", "from .inner import f\nfrom . import other\n")
    write("pack_a/inner.py", "from .deep.leaf import K\ndef f(): return K\n")
    write("pack_a/other.py", "name = __name__\n")
    write("pack_a/deep/__init__.py", "")
    write("pack_a/deep/leaf.py", "K = 'leaf'\n")
    cell("import pack_a\nimport pack_a.deep.leaf as leaf")
    assert (
        list(cell("%pxrun (pack_a.f(), pack_a.other.name, leaf.K)")) == [("leaf", "pack_a.other", "leaf")] * N_ENGINES
    )


def test_a_cells_own_import_of_a_users_module_finds_it(cell: Any, write: Any) -> None:
    write("own_mod.py", "K = 11\n")
    assert list(cell("%%pxrun\nimport own_mod\nown_mod.K")) == [11] * N_ENGINES


def test_an_import_inside_a_function_finds_a_users_module(cell: Any, write: Any) -> None:
    write("late_mod.py", "K = 12\n")
    cell("def f():\n    from late_mod import K\n    return K")
    assert list(cell("%pxrun f()")) == [12] * N_ENGINES
    write("map_mod.py", "K = 13\n")
    cell("def g(i):\n    import map_mod\n    return map_mod.K")
    assert cell("%pxmap g [1]") == [13]


def test_an_edited_module_is_shipped_again_and_seen(cell: Any, write: Any) -> None:
    write("edited_mod.py", "def f(): return 'old'\n")
    cell("import edited_mod\nfrom edited_mod import f\nimport importlib")
    assert list(cell("%pxrun (edited_mod.f(), f())")) == [("old", "old")] * N_ENGINES
    write("edited_mod.py", "def f(): return 'new and longer'\n")
    cell("importlib.reload(edited_mod)\nfrom edited_mod import f")
    assert list(cell("%pxrun (edited_mod.f(), f())")) == [("new and longer",) * 2] * N_ENGINES


def test_an_edited_part_of_a_package_is_seen_through_the_package(cell: Any, write: Any, session: Any) -> None:
    write("pack_b/__init__.py", "from .inner import f\n")
    write("pack_b/inner.py", "def f(): return 'old'\n")
    write("user_b.py", "from pack_b import f\ndef g(): return f()\n")
    cell("import pack_b, user_b")
    assert list(cell("%pxrun (pack_b.f(), user_b.g())")) == [("old", "old")] * N_ENGINES
    write("pack_b/inner.py", "def f(): return 'new and longer'\n")
    assert list(cell("%pxrun (pack_b.f(), user_b.g())")) == [("new and longer",) * 2] * N_ENGINES
    assert session.notices == []


def test_an_unchanged_module_is_not_shipped_again(cell: Any, write: Any, session: Any) -> None:
    write("steady_mod.py", "calls = []\ndef f():\n    calls.append(1)\n    return len(calls)\n")
    cell("import steady_mod")
    assert list(cell("%pxrun steady_mod.f()")) == [1] * N_ENGINES
    assert list(cell("%pxrun steady_mod.f()")) == [2] * N_ENGINES


def test_an_older_text_of_the_same_name_on_an_engine_is_replaced(cell: Any, write: Any, session: Any) -> None:
    session.client[:].execute(
        "import sys, types; twin_mod = sys.modules['twin_mod'] = types.ModuleType('twin_mod'); twin_mod.K = 'older'",
        block=True,
    )
    write("twin_mod.py", "K = 'mine'\n")
    cell("import twin_mod")
    assert list(cell("%pxrun twin_mod.K")) == ["mine"] * N_ENGINES


def test_instances_of_a_modules_class_travel_both_ways(cell: Any, write: Any, shell: Any) -> None:
    write("class_mod.py", "class A:\n    def __init__(self, x): self.x = x\n")
    cell("import class_mod\na = class_mod.A([1])")
    cell("%pxrun b = class_mod.A(a.x + [px_rank])")
    assert all(isinstance(b, shell.user_ns["class_mod"].A) for b in shell.user_ns["b"])
    assert shell.user_ns["b"][3].x == [1, 3]
    cell("%pxpush direct=class_mod.A(5)")
    assert list(cell("%pxcollect direct.x")) == [5] * N_ENGINES


def test_items_of_a_map_may_be_instances_of_a_modules_class(cell: Any, write: Any) -> None:
    write("item_mod.py", "class A:\n    def __init__(self, x): self.x = x\n")
    cell("import item_mod\nitems = [item_mod.A(i) for i in range(5)]\ndef f(a): return a.x * 2")
    assert cell("%pxmap f items") == [0, 2, 4, 6, 8]


def test_functions_made_inside_a_module_find_their_globals(cell: Any, write: Any) -> None:
    write("maker_mod.py", "K = 4\ndef make():\n    return lambda x: x * K\n")
    cell("import maker_mod\nf = maker_mod.make()")
    assert list(cell("%pxrun f(2)")) == [8] * N_ENGINES


def test_functions_of_two_run_files_do_not_collide(cell: Any, tmp_path: Path) -> None:
    for name, scale in (("one", 2), ("two", 3)):
        (tmp_path / f"{name}.py").write_text(
            f"scale = {scale}\ndef h(x): return scale * x\ndef {name}(x): return h(x)\n"
        )
        cell(f"%run {tmp_path}/{name}.py")
    cell("scale = 100")
    assert list(cell("%pxrun (one(10), two(10))")) == [(20, 30)] * N_ENGINES


def test_a_file_that_was_run_again_is_seen(cell: Any, tmp_path: Path) -> None:
    file = tmp_path / "again.py"
    for scale in (2, 7):
        file.write_text(f"scale = {scale}\ndef again(x): return scale * x\n")
        cell(f"%run {file}")
        assert list(cell("%pxrun again(1)")) == [scale] * N_ENGINES


def test_modules_of_the_notebooks_folder_are_found_where_the_engines_follow_it(
    cell: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data.txt").write_text("here")
    monkeypatch.chdir(tmp_path)
    assert list(cell("%pxrun open('data.txt').read()")) == ["here"] * N_ENGINES
