"""`%pximport` and `%%pximport` through a real shell on a real cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pxtools.errors import PxClusterError, PxUsageError

N_ENGINES = 4


@pytest.mark.parametrize(
    ("line", "expression", "expected"),
    [
        ("numpy as np", "np.__name__", "numpy"),
        ("json", "json.__name__", "json"),
        ("os.path", "os.path.basename('a/b')", "b"),
        ("xml.dom.minidom", "xml.dom.minidom.__name__", "xml.dom.minidom"),
        ("xml.dom.minidom as md", "md.__name__", "xml.dom.minidom"),
        ("numpy as np, scipy.linalg as la", "(np.__name__, la.__name__)", ("numpy", "scipy.linalg")),
        ("from numpy import linalg as la", "la.__name__", "numpy.linalg"),
        ("from math import floor, ceil as up", "(floor(1.5), up(1.5))", (1, 2)),
        ("from math import *", "cosh(0)", 1.0),
        ("import json as j; import math as m", "(j.__name__, m.__name__)", ("json", "math")),
    ],
)
def test_every_form_binds_the_same_names_here_and_there(line: str, expression: str, expected: Any, cell: Any) -> None:
    cell(f"%pximport {line}")
    assert cell(expression) == expected
    assert list(cell(f"%pxcollect {expression}")) == [expected] * N_ENGINES


def test_several_statements_and_fallbacks_in_a_cell(cell: Any, shell: Any) -> None:
    cell(
        "%%pximport\n# comment\nimport json as j\n"
        "try:\n    import no_such_module as fast\nexcept ImportError:\n    import math as fast\n"
        "from collections import (\n    Counter,\n    deque as dq,\n)"
    )
    assert shell.user_ns["fast"].__name__ == "math"
    assert (
        list(cell("%pxcollect (j.__name__, fast.__name__, Counter.__name__, dq.__name__)"))
        == [("json", "math", "Counter", "deque")] * N_ENGINES
    )


def test_what_is_imported_here_already_is_imported_there(cell: Any) -> None:
    cell("import json as j")
    cell("%pximport json as j")
    assert list(cell("%pxcollect j.__name__")) == ["json"] * N_ENGINES
    cell("%pximport json as j")


def test_imported_names_are_in_step(cell: Any, session: Any) -> None:
    cell("%pximport numpy as np")
    before = session.ledger.bytes_sent
    cell("%pxrun np.zeros(1); None")
    assert session.ledger.bytes_sent == before
    cell("np = 5")
    assert list(cell("%pxrun np")) == [5] * N_ENGINES
    assert session.notices == []


def test_a_module_of_ones_own_is_shipped_and_shipped_again(
    cell: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("pxtools.session.core.same_host_path", lambda: ())
    (tmp_path / "imp_pack").mkdir()
    (tmp_path / "imp_pack" / "__init__.py").write_text("from . import part\n")
    (tmp_path / "imp_pack" / "part.py").write_text("K = 1\n")
    cell("%pximport imp_pack.part as part, imp_pack")
    assert list(cell("%pxcollect (part.K, imp_pack.part.K)")) == [(1, 1)] * N_ENGINES
    (tmp_path / "imp_pack" / "part.py").write_text("K = 1000\n")
    cell("%pximport imp_pack.part as part, imp_pack")
    assert list(cell("%pxcollect (part.K, imp_pack.part.K)")) == [(1000, 1000)] * N_ENGINES


def test_missing_here_is_an_import_error_of_two_lines_and_nothing_is_imported_there(cell: Any, capsys: Any) -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        cell("%pximport no_such_module")
    assert capsys.readouterr().out.splitlines() == [
        "ModuleNotFoundError: No module named 'no_such_module'  (here)",
        "Nothing was imported on the engines.",
    ]


def test_missing_on_one_engine_names_it(cell: Any, capsys: Any) -> None:
    blocker = (
        "import sys\nclass Blocker:\n    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'colorsys': raise ImportError('No colorsys')\n"
    )
    cell(f"%%pxrun -t 2\n{blocker}\nsys.modules.pop('colorsys', None)\nsys.meta_path.insert(0, Blocker()); None")
    try:
        with pytest.raises(ImportError, match="colorsys"):
            cell("%pximport colorsys")
        assert "(engine 2); 3 of 4 engines finished" in capsys.readouterr().out
        assert list(cell("%pxcollect -t 0,1,3 colorsys.__name__")) == ["colorsys"] * 3
    finally:
        cell("%pxrun -t 2 del sys.meta_path[0]")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("%pximport", "nothing to import"),
        ("%pximport numpy as", "no import statement"),
        ("%pximport 1x", "no import statement"),
        ("%%pximport\nx = 1", "nothing is imported"),
        ("%%pximport\nimport json\nx = 1", "`x = 1` is no import"),
        ("%%pximport --targets 0\nimport json", "no option `--targets`"),
    ],
)
def test_what_is_no_import_is_a_usage_error(source: str, message: str, cell: Any, shell: Any) -> None:
    with pytest.raises(PxUsageError, match=message):
        cell(source)
    assert "x" not in shell.user_ns


def test_without_engines_it_is_an_error_of_two_lines(cell: Any, no_cluster: Any, capsys: Any) -> None:
    with pytest.raises(PxClusterError, match=r"no file .*gone"):
        cell("%pximport json")
    assert len(capsys.readouterr().out.splitlines()) == 2
