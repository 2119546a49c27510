"""`%%pxoctave` through a real shell on a real cluster."""

from __future__ import annotations

import base64
import importlib.util
import shutil
import struct
from typing import Any

import numpy as np
import pytest

from pxtools.errors import PxClusterError, PxNameError, PxOctaveError, PxTimeout, PxUsageError

pytestmark = [
    pytest.mark.skipif(shutil.which("octave") is None, reason="Octave is not installed: apt-get install octave"),
    pytest.mark.skipif(
        importlib.util.find_spec("oct2py") is None, reason='oct2py is not installed: pip install "pxtools[octave]"'
    ),
]


def test_names_go_in_and_come_back_as_plain_values_per_engine(cell: Any, shell: Any) -> None:
    cell("import numpy as np\nxs = np.arange(4.0)")
    cell("%pxrun part = px_rank * 10.0")
    cell("%%pxoctave -i xs,p=part -o centre,twice=doubled\ncentre = mean(xs) + p;\ndoubled = 2 * xs;")
    assert list(shell.user_ns["centre"]) == [1.5, 11.5, 21.5, 31.5]
    assert type(shell.user_ns["centre"][0]) is float
    assert np.array_equal(shell.user_ns["twice"][3], [[0.0, 2.0, 4.0, 6.0]])


def test_output_is_shown_once_when_equal(cell: Any, capsys: Any) -> None:
    cell("%%pxoctave\ndisp(7)\nz = 3")
    assert capsys.readouterr().out.splitlines() == ["[0-3]", "7", "z = 3"]


def test_an_error_is_two_lines_with_the_engines_and_the_line_of_the_cell(cell: Any, capsys: Any) -> None:
    with pytest.raises(PxOctaveError):
        cell("%%pxoctave\na = 1;\nb = a + zzz;\n")
    assert capsys.readouterr().out.splitlines() == [
        "PxOctaveError: 'zzz' undefined  (engines 0-3)",
        "in line 2 of the cell: b = a + zzz;",
    ]
    with pytest.raises(PxOctaveError, match="boom"):
        cell("%%pxoctave --targets 0\nerror('boom')")
    with pytest.raises(PxOctaveError, match="parse error"):
        cell("%%pxoctave --targets 0\nx = (1")


def test_functions_defined_in_a_cell_stay(cell: Any, shell: Any) -> None:
    cell("%%pxoctave\nfunction r = cube(x)\n  r = x^3;\nend\n")
    cell("%pxoctave -o c c = cube(3);")
    assert list(shell.user_ns["c"]) == [27.0] * 4


def test_figures_are_shown(cell: Any, monkeypatch: Any) -> None:
    from pxtools.magics import display

    bundles: list[dict[str, Any]] = []
    monkeypatch.setattr(display, "publish_display_data", lambda data, metadata=None, **_: bundles.append(data))
    cell("%%pxoctave --targets 0,1 -s 300,200\nplot([1 2 3]);\nfigure; plot([3 1 2]);")
    assert sum("image/svg+xml" in data for data in bundles) >= 2
    assert all("<svg" in data["image/svg+xml"] for data in bundles)


def test_figures_come_as_png_or_jpg_without_ghostscript_in_the_size_asked_for(cell: Any, monkeypatch: Any) -> None:
    from pxtools.magics import display

    bundles: list[dict[str, Any]] = []
    monkeypatch.setattr(display, "publish_display_data", lambda data, metadata=None, **_: bundles.append(data))
    cell("%%pxoctave --targets 0 -f png -s 300,200\nplot([1 2 3]);\nfigure; plot([3 1 2]);")
    pictures = [base64.b64decode(data["image/png"]) for data in bundles if "image/png" in data]
    assert [picture[:8] for picture in pictures] == [b"\x89PNG\r\n\x1a\n"] * 2
    assert [struct.unpack(">II", picture[16:24]) for picture in pictures] == [(300, 200)] * 2
    assert pictures[0] != pictures[1]
    cell("%%pxoctave --targets 0 -f jpg -s 300,200\nplot([1 2 3]);")
    assert base64.b64decode(bundles[-1]["image/jpeg"])[:2] == b"\xff\xd8"


def test_seeds_give_independent_reproducible_streams(cell: Any, shell: Any) -> None:
    draws = []
    for _ in range(2):
        cell("%%pxoctave --seed 7 -o u\nu = rand(1, 3);")
        draws.append([tuple(u.ravel()) for u in shell.user_ns["u"]])
    assert draws[0] == draws[1]
    assert len(set(draws[0])) == 4


def test_text_that_would_arrive_cut_off_is_an_error(cell: Any) -> None:
    with pytest.raises(PxOctaveError, match="`s` is text beyond ASCII"):
        cell("%%pxoctave --targets 0 -o s\ns = char([195 164 98]);")
    cell("%%pxoctave --targets 0 -o s\ns = 'plain';")
    assert cell("s")[0] == "plain"


def test_unknown_names_formats_and_options_are_errors(cell: Any) -> None:
    with pytest.raises(PxNameError, match="did not set `never`"):
        cell("%%pxoctave -o never\n1;")
    with pytest.raises(PxNameError, match="nowhere_at_all"):
        cell("%%pxoctave -i nowhere_at_all\n1;")
    with pytest.raises(PxUsageError, match="svg"):
        cell("%%pxoctave -f gif\n1;")
    with pytest.raises(PxUsageError, match="--targets"):
        cell("%%pxoctave --tragets 0\n1;")


def test_the_plain_twin_does_the_same(cell: Any, shell: Any) -> None:
    import pxtools

    shell.user_ns["base"] = 4
    outputs = pxtools.octave("y = base + 1;", inputs={"base": "base"}, outputs={"y": "y"})
    assert list(outputs["y"]) == [5.0] * 4


def test_a_cell_that_takes_too_long_is_interrupted_and_octave_works_on(cell: Any, shell: Any) -> None:
    with pytest.raises(PxTimeout):
        cell("%%pxoctave --timeout 2\nwhile true\n  x = 1;\nend")
    cell("%%pxoctave -o y\ny = 2;")
    assert shell.user_ns["y"].same() == 2.0


def test_an_error_on_one_engine_names_it(cell: Any, capsys: Any) -> None:
    cell("%pxrun n = px_rank")
    with pytest.raises(PxOctaveError, match="only here"):
        cell("%%pxoctave -i n\nif n == 2\n  error('only here');\nend")
    assert "(engine 2); 3 of 4 engines finished" in capsys.readouterr().out


def test_without_a_cluster_the_error_says_so(cell: Any, no_cluster: Any) -> None:
    with pytest.raises(PxClusterError):
        cell("%%pxoctave\n1;")
