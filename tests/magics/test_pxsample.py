"""`%pxsample` through a real shell on a real cluster."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pxtools.errors import PxClusterError, PxNameError, PxUsageError, TargetError

DENSITY = """
import numpy as np
CENTRES = ((.5, .2), (.7, .7), (.3, .7))
WIDTHS = ((.15, .04), (.05, .05), (.05, .07))
def bump(x, y, c, w):
    return np.exp(-(((c[0] - x) / w[0])**2 + ((c[1] - y) / w[1])**2) / 2)
def gaussian(x, y):
    return sum(bump(x, y, c, w) for c, w in zip(CENTRES, WIDTHS))
starts = np.random.default_rng(3).random((10, 2))
"""


@pytest.fixture
def density(cell: Any) -> None:
    cell(DENSITY)


def test_the_main_job(density: None, cell: Any, shell: Any) -> None:
    options = "--density --sampler rwm --step 0.1 --initial starts --draws 2000 --warmup 100 --seed 1"
    walk = cell(f"%pxsample gaussian {options} -o walk")
    assert shell.user_ns["walk"] is walk
    assert walk.draws.shape == (10, 2000, 2)
    assert walk.points.shape == (20_000, 2)
    assert walk.names == ("x", "y")
    assert walk.n_evaluations == 10 * (1 + 100 + 2000)
    assert "the chains disagree" in repr(walk)
    assert "the chains disagree" in walk._repr_html_()


def test_draws_are_bit_identical_for_1_2_and_4_engines(density: None, cell: Any) -> None:
    line = "%pxsample gaussian --density --sampler rwm --initial starts --draws 500 --seed 1 -t "
    one, two, four = (cell(line + targets).draws for targets in ("0", "1,3", "all"))
    assert np.array_equal(one, two)
    assert np.array_equal(one, four)


def test_a_function_compiled_by_cython_is_a_target(density: None, cell: Any, shell: Any) -> None:
    pytest.importorskip("Cython", reason="Cython comes with the cython extra")
    shell.run_line_magic("load_ext", "Cython")
    cell(
        "%%cython\nfrom libc.math cimport exp\ndef compiled(double x, double y):\n"
        "    return (exp(-(((.5 - x) / .15)**2 + ((.2 - y) / .04)**2) / 2)\n"
        "            + exp(-(((.7 - x) / .05)**2 + ((.7 - y) / .05)**2) / 2)\n"
        "            + exp(-(((.3 - x) / .05)**2 + ((.7 - y) / .07)**2) / 2))\n"
    )
    options = "--density --sampler rwm --initial starts --draws 300 --seed 1"
    compiled = cell(f"%pxsample compiled {options}")
    assert compiled.target_tier == "cython"
    assert compiled.names == ("x", "y")
    assert np.allclose(compiled.draws, cell(f"%pxsample gaussian {options}").draws)


def test_starts_in_one_mode_are_told(density: None, cell: Any) -> None:
    walk = cell("%pxsample gaussian --density --sampler rwm --initial [0.5,0.2] --chains 4 --draws 2000 --seed 1")
    assert "start" in "\n".join([*walk.notes, repr(walk)])
    assert "one place" in repr(walk)


def test_a_negative_density_names_function_value_and_point(cell: Any, capsys: Any) -> None:
    cell("def hill(x, y): return -1.0")
    with pytest.raises(TargetError, match=r"hill\(.*returned -1"):
        cell("%pxsample hill --density --seed 1")
    lines = capsys.readouterr().out.strip().splitlines()
    assert 2 <= len(lines) <= 4
    assert "--density" in "\n".join(lines)


def test_nan_is_rejected_and_counted(cell: Any) -> None:
    cell("import math\ndef half(x, y): return math.nan if x > 1 else -(x * x + y * y) / 2")
    samples = cell("%pxsample half --sampler rwm --step 1 --draws 500 --initial [0.0,0.0] --chains 4 --seed 1")
    assert samples.n_nan > 0
    assert samples.points[:, 0].max() <= 1
    assert "NaN" in repr(samples)


def test_an_exception_of_the_target_keeps_its_type_and_names_the_point(cell: Any) -> None:
    cell("def broken(x, y): return 1 / (x - x)")
    with pytest.raises(ZeroDivisionError) as caught:
        cell("%pxsample broken --seed 1")
    assert any("broken(" in note for note in caught.value.__notes__)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("%pxsample gaussian --drwas 10", "--draws"),
        ("%pxsample gaussian --sampler nuts", "rwm"),
        ("%pxsample gaussian --initial starts --chains 3", "--chains"),
        ("%pxsample gaussian gaussian", "one target"),
        ("%pxsample", "%pxsample"),
        ("%pxsample gaussian --draws 0", "--draws"),
        ("%pxsample starts", "no function"),
    ],
)
def test_usage_mistakes_say_what_to_type_and_run_nothing(line: str, words: str, density: None, cell: Any) -> None:
    with pytest.raises(PxUsageError, match=words):
        cell(line)


def test_an_unknown_target_is_named(cell: Any) -> None:
    with pytest.raises((PxNameError, NameError), match="nofunc"):
        cell("%pxsample nofunc")


def test_without_engines_it_says_why(session: Any, cell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cell("def g(x, y): return -(x * x + y * y)")
    monkeypatch.setattr(session, "_wire", None)
    monkeypatch.setenv("PXTOOLS_CLUSTER_FILE", "nowhere.json")
    with pytest.raises(PxClusterError, match=r"nowhere\.json"):
        cell("%pxsample g --seed 1")
