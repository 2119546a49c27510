"""`%%pxR` through a real shell on a real cluster."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from typing import Any

import numpy as np
import pytest

from pxtools.errors import PxClusterError, PxNameError, PxRError, PxTimeout, PxUsageError

pytestmark = [
    pytest.mark.skipif(shutil.which("R") is None, reason="R is not installed: apt-get install r-base-core"),
    pytest.mark.skipif(
        importlib.util.find_spec("rpy2") is None, reason='rpy2 is not installed: pip install "pxtools[r]"'
    ),
]


@pytest.fixture
def shown(monkeypatch: Any) -> list[dict[str, Any]]:
    """MIME bundles that were displayed."""
    from pxtools.magics import display

    bundles: list[dict[str, Any]] = []
    monkeypatch.setattr(display, "publish_display_data", lambda data, metadata=None, **_: bundles.append(data))
    return bundles


def test_names_go_in_and_come_back_as_plain_values_per_engine(cell: Any, shell: Any) -> None:
    cell("import numpy as np\nxs = np.arange(4.0)\nk = 10")
    cell("%%pxR -i xs,scale=k -o centre,all=doubled\ncentre <- mean(xs) * scale\ndoubled <- 2 * xs")
    assert list(shell.user_ns["centre"]) == [15.0] * 4
    assert type(shell.user_ns["centre"][0]) is float
    assert np.array_equal(shell.user_ns["all"][3], [0.0, 2.0, 4.0, 6.0])


def test_values_that_differ_by_engine_are_seen_element_wise(cell: Any, shell: Any) -> None:
    cell("%pxrun part = [px_rank, px_rank + 1]")
    cell("%%pxR -i part -o total\ntotal <- sum(part)")
    assert list(shell.user_ns["total"]) == [1, 3, 5, 7]


def test_attributes_and_inline_code_work(cell: Any, shell: Any) -> None:
    cell("import math")
    cell("%pxR -i p=math.pi -o q q <- p * 2")
    assert shell.user_ns["q"].same() == math_pi_twice()


def math_pi_twice() -> float:
    import math

    return math.pi * 2


def test_output_is_shown_once_when_equal_and_the_last_value_is_printed(cell: Any, capsys: Any) -> None:
    cell("%%pxR\ncat('hello\\n')\n1 + 1")
    assert capsys.readouterr().out.splitlines() == ["[0-3]", "hello", "[1] 2"]
    cell("%%pxR -n\n1 + 1")
    assert capsys.readouterr().out == ""


def test_an_r_error_is_two_lines_with_the_engines_and_the_line_of_the_cell(cell: Any, capsys: Any) -> None:
    with pytest.raises(PxRError):
        cell("%%pxR\nx <- 1\nf <- function(a) {\n  stop('boom')\n}\nf(1)")
    assert capsys.readouterr().out.splitlines() == [
        "PxRError: boom  (engines 0-3)",
        "in line 3 of the cell: stop('boom')",
    ]
    with pytest.raises(PxRError, match="object 'zzz' not found"):
        cell("%%pxR\nmean(zzz)")


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("for (i in 1:3) {\n  y <- 2\n  stop('a')\n}", "line 3 of the cell: stop('a')"),
        (
            "for (i in 1:3) {\n  y <- 2\n  if (i > 1) {\n    y <- 3\n    log('a')\n  }\n}",
            "line 5 of the cell: log('a')",
        ),
        ("x <- 1\nwhile (TRUE) {\n  zzz + 1\n}", "line 3 of the cell: zzz + 1"),
        ("repeat {\n  y <- list(1)[[5]]\n}", "line 2 of the cell: y <- list(1)[[5]]"),
        ("f <- function(a) {\n  log(a)\n}\nfor (i in 1) {\n  f('a')\n}", "line 2 of the cell: log(a)"),
        ("y <- sapply(1:3, function(i) {\n  x <- 1\n  x + 'b'\n})", "line 3 of the cell: x + 'b'"),
        ("y <- c(1,\n  stop('b'))", "line 1 of the cell: y <- c(1,"),
    ],
)
def test_an_error_in_a_loop_at_the_top_names_its_own_line(cell: Any, capsys: Any, code: str, line: str) -> None:
    with pytest.raises(PxRError):
        cell(f"%%pxR --targets 0\n{code}")
    assert capsys.readouterr().out.splitlines()[-1] == f"in {line}"


def test_a_syntax_error_names_its_line(cell: Any, capsys: Any) -> None:
    with pytest.raises(PxRError, match="unexpected"):
        cell("%%pxR\nx <- 1\ny <- (2 +* 3)\n")
    assert capsys.readouterr().out.splitlines()[1] == "in line 2 of the cell: y <- (2 +* 3)"


def test_inputs_and_outputs_that_are_nowhere_are_name_errors(cell: Any) -> None:
    with pytest.raises(PxNameError, match=r"-i nowhere_at_all"):
        cell("%%pxR -i nowhere_at_all\n1")
    with pytest.raises(PxNameError, match=r"did not set `never`"):
        cell("%%pxR -o never\n1")


def test_a_model_cannot_leave_r_and_the_error_says_how_to_take_numbers_out(cell: Any) -> None:
    with pytest.raises(PxRError, match=r"class lm[\s\S]*coef"):
        cell("%%pxR -o fit\nfit <- lm(y ~ x, data.frame(x = 1:4, y = c(1, 2, 4, 3)))")


def test_pictures_come_in_engine_order_as_png_or_svg(cell: Any, shown: Any) -> None:
    cell("%pxrun n = px_rank + 3")
    cell("%%pxR -i n -w 300 -h 240\nplot(seq_len(n))")
    pictures = [data["image/png"] for data in shown]
    assert len(pictures) == 4
    assert len(set(map(bytes, map(_bytes, pictures)))) == 4
    shown.clear()
    cell("%%pxR --targets 0 --graphics-device svg -w 4 -h 3 -u in\nhist(c(1, 2, 2))\nplot(1)")
    assert [list(data) for data in shown] == [["image/svg+xml"], ["image/svg+xml"]]
    assert 'width="288' in shown[0]["image/svg+xml"]


def _bytes(data: Any) -> bytes:
    return data.encode() if isinstance(data, str) else data


def test_an_unknown_device_is_a_usage_error(cell: Any) -> None:
    with pytest.raises(PxUsageError, match="svg"):
        cell("%%pxR --graphics-device tiff\nplot(1)")


def test_seeds_give_independent_reproducible_streams(cell: Any, shell: Any) -> None:
    draws = []
    for _ in range(2):
        cell("%%pxR --seed 7 -o u\nu <- runif(3)")
        draws.append([tuple(u) for u in shell.user_ns["u"]])
    assert draws[0] == draws[1]
    assert len(set(draws[0])) == 4


def test_r_keeps_its_variables_and_functions_between_cells(cell: Any, shell: Any) -> None:
    cell("%%pxR\nkept <- 5\nsquare <- function(x) x^2")
    cell("%%pxR -o s\ns <- square(kept)")
    assert list(shell.user_ns["s"]) == [25.0] * 4


def test_r_is_never_loaded_in_the_notebooks_process(cell: Any) -> None:
    cell("%%pxR -o d\nd <- data.frame(a = 1:2, b = c('x', 'y'))")
    cell("%pxrun fit = __import__('rpy2.robjects').robjects.r('lm(y ~ x, data.frame(x = 1:3, y = c(1, 2, 4)))')")
    cell("fit")
    assert not [name for name in sys.modules if name.startswith("rpy2")]


def test_output_of_long_cells_is_live(cell: Any, capsys: Any, monkeypatch: Any) -> None:
    from pxtools.magics import language

    monkeypatch.setattr(language, "_LIVE_AFTER_S", 0.0)
    seen: list[str] = []
    usual = language.LiveOutput.tick

    def tick(self: Any, printed: Any) -> None:
        usual(self, printed)
        seen.extend(text for text in printed.values() if text)

    monkeypatch.setattr(language.LiveOutput, "tick", tick)
    cell("%%pxR --targets 0\nfor (i in 1:3) { cat('step', i, '\\n'); Sys.sleep(0.4) }")
    assert "step 1 \n" in seen
    assert capsys.readouterr().out.splitlines() == ["[0] step 1 ", "[0] step 2 ", "[0] step 3 "]


def test_a_cell_that_takes_too_long_is_interrupted_and_r_works_on(cell: Any, shell: Any) -> None:
    with pytest.raises(PxTimeout):
        cell("%%pxR --timeout 1\nrepeat { x <- 1 }")
    cell("%%pxR -o y\ny <- 2")
    assert shell.user_ns["y"].same() == 2.0


def test_an_unknown_option_is_a_usage_error(cell: Any) -> None:
    with pytest.raises(PxUsageError, match="--graphics-device"):
        cell("%%pxR --graphic-devise png\n1")


def test_the_plain_twin_does_the_same(cell: Any, shell: Any) -> None:
    import pxtools

    shell.user_ns["base"] = 4
    outputs = pxtools.r("y <- base + 1", inputs={"base": "base"}, outputs={"y": "y"})
    assert list(outputs["y"]) == [5] * 4


def test_an_error_on_one_engine_names_it(cell: Any, capsys: Any) -> None:
    cell("%pxrun n = px_rank")
    with pytest.raises(PxRError, match="only here"):
        cell("%%pxR -i n\nif (n == 2) stop('only here')")
    assert "(engine 2); 3 of 4 engines finished" in capsys.readouterr().out


def test_without_a_cluster_the_error_says_so(cell: Any, no_cluster: Any) -> None:
    with pytest.raises(PxClusterError):
        cell("%%pxR\n1")


def test_a_converter_and_a_display_function_of_the_engines_are_used(cell: Any, shell: Any, capsys: Any) -> None:
    cell("import numpy as np\nxs = np.arange(3.0)")
    cell("""%%pxrun
from rpy2.robjects import default_converter, numpy2ri
rules = default_converter + numpy2ri.converter
def show_it(value, settings):
    print("shown", value[0])
""")
    cell("%%pxR -c rules -d show_it -i xs -o ys\nys <- xs + 1\n42")
    assert capsys.readouterr().out.splitlines()[-1] == "[0-3] shown 42.0"
    assert np.array_equal(np.ravel(shell.user_ns["ys"][0]), [1.0, 2.0, 3.0])
