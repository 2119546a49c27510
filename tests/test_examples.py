"""Each example runs in a real kernel on the session's cluster, and shows what its text says it shows."""

from __future__ import annotations

import base64
import importlib.util
import math
import re
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat
import pytest

from pxtools import __main__ as command
from pxtools import demo
from pxtools.magics import MAGICS

EXAMPLES = sorted((Path(__file__).resolve().parent.parent / "examples").glob("*.ipynb"))
EXACT = {"x": 0.48333, "y": 0.45}  # weight of a bump: product of its widths
ABSOLUTE = re.compile(r"(?:^|[\s'\"(=])(?:/[A-Za-z_.]|[A-Z]:\\)[\w.-]*[/\\]")


def text_of(output: Any) -> str:
    if output.output_type == "error":
        return "\n".join(output.traceback)
    return str(output.get("text") or output.get("data", {}).get("text/plain", ""))


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(notebook: Any, part: str) -> str:
    """What the cell `part`, or the first with `part` in its source, shows as text."""
    cells = [cell for cell in code_cells(notebook) if part in cell.source]
    cell = next((cell for cell in cells if cell.source == part), cells[0])
    return "\n".join(map(text_of, cell.outputs))


def pictures(notebook: Any) -> list[bytes]:
    bundles = [output.get("data", {}) for cell in code_cells(notebook) for output in cell.outputs]
    return [base64.b64decode(bundle["image/png"]) for bundle in bundles if "image/png" in bundle]


@pytest.fixture(scope="module")
def executed(cluster_session: Any, tmp_path_factory: Any) -> Callable[[str], tuple[Any, Path]]:
    """Execute an example in a kernel of its own, once; return the notebook and its working directory."""
    file = cluster_session.connection.cluster.cluster_file
    done: dict[str, tuple[Any, Path]] = {}

    def execute(name: str) -> tuple[Any, Path]:
        if name not in done:
            notebook: Any = nbformat.read(demo.find_example(name), as_version=4)
            folder = tmp_path_factory.mktemp(name)
            with demo.private_environment() as environment:
                environment["PXTOOLS_CLUSTER_FILE"] = file
                demo.run_cells(notebook, demo.kernel_manager(environment), folder, environment)
            done[name] = notebook, folder
        return done[name]

    return execute


def test_the_warning_of_the_three_gaussians_says_that_the_chains_disagree(executed: Any) -> None:
    notebook, _ = executed("three_gaussians")
    summary = " ".join(demo.summary_of(notebook).split())
    assert "10 chains of 10,000 draws" in summary
    assert "the chains disagree" in summary
    assert "stay near" in summary


def test_with_a_larger_step_the_means_are_the_exact_ones_within_the_monte_carlo_error(executed: Any) -> None:
    notebook, _ = executed("three_gaussians")
    assert "disagree" not in shown(notebook, "-o far")
    lines = re.findall(r"(\w): exact ([\d.]+), sampled ([\d.]+) ± ([\d.]+)", shown(notebook, "exact ="))
    assert [name for name, *_ in lines] == ["x", "y"]
    for name, exact, mean, mcse in lines:
        assert float(exact) == pytest.approx(EXACT[name], abs=1e-4)
        assert abs(float(mean) - EXACT[name]) < 4 * float(mcse)


def test_the_pictures_are_there(executed: Any) -> None:
    notebook, folder = executed("three_gaussians")
    drawn = [*pictures(notebook), (folder / "three_gaussians.png").read_bytes()]
    assert len(drawn) == 3
    assert all(picture.startswith(b"\x89PNG") and len(picture) > 10_000 for picture in drawn)


def test_the_walkers_by_hand_return_different_points_from_each_engine(executed: Any) -> None:
    notebook, _ = executed("three_gaussians")
    first_points = re.findall(r"^  \d+: array\(\[\[([^\]]+)\]", shown(notebook, "points"), re.MULTILINE)
    assert len(first_points) == len(set(first_points)) == 4
    assert "(20000, 2)" in shown(notebook, "points.concat()")


def test_first_steps_show_what_their_text_says(executed: Any) -> None:
    notebook, _ = executed("first_steps")
    assert "[10, 11, 12, 13]" in shown(notebook, "x.stack()")
    assert "0: 11" in shown(notebook, "%pxrun x = x + 1")
    assert "(5, 7)" in shown(notebook, "the_one, CONSTANT")
    assert "[0, 5, 10, 15, 20, 25, 30, 35, 40, 45]" in shown(notebook, "%pxmap times_constant")
    assert "81." in shown(notebook, "%pxgather numbers")
    assert "(8, True)" in shown(notebook, "by_random.map")
    assert "(True," in shown(notebook, "first == second")
    assert "used by scaled" in shown(notebook, "--explain")
    assert "caught: division by zero" in shown(notebook, "except ZeroDivisionError")
    assert "Did you mean `--targets`?" in shown(notebook, "--tragets")
    assert "CONSTANT" not in shown(notebook, "%pxclear")


needs_all_languages = pytest.mark.skipif(
    not (all(map(shutil.which, ("R", "octave"))) and all(map(find_spec, ("rpy2", "oct2py", "Cython")))),
    reason="needs R, Octave, rpy2, oct2py and Cython",
)


@needs_all_languages
def test_the_walkers_show_what_their_text_says(executed: Any) -> None:
    notebook, _ = executed("walkers")
    one, ten = map(float, re.findall(r"walkers?: ([\d.]+) of the points", shown(notebook, "low = np.mean")))
    assert one == 1  # in one bump, of which nothing tells
    assert abs(ten - 0.6) < 0.01  # six of ten starts
    compared = re.findall(r"sd of y ([\d.]+) ± ([\d.]+)", shown(notebook, "%pxmap spread"))
    (right, _), (wrong, error), (sampled, sampled_error) = [(float(sd), float(error)) for sd, error in compared]
    assert abs(right - 0.04) < 0.001
    assert abs(sampled - 0.04) < 4 * sampled_error + 0.0001  # as printed
    assert wrong - sampled > 5 * (error + sampled_error)
    assert "the same points: True" in shown(notebook, "timed(gaussian_c)")
    assert "DIFFERENT" not in shown(notebook, "%%pxcython --check gaussian")
    assert "DIFFERENT at 200 of 200 points" in shown(notebook, "gaussian_typed_in_haste")
    assert "(True, (200000, 2))" in shown(notebook, "job.result()")
    assert "one chain cannot be compared with others" in " ".join(shown(notebook, "--chains 1").split())
    assert "the chains disagree" in shown(notebook, "-o walkers")
    answer = shown(notebook, "-o answer")
    assert "Warning" not in answer
    shares = re.findall(r"([\d.]+) ± ([\d.]+) near", answer)
    for (share, error), mass in zip(shares, (0.5, 0.2917, 0.2083), strict=True):
        assert abs(float(share) - mass) < 4.5 * float(error) + 0.001
    assert len(pictures(notebook)) == 6  # four of matplotlib, one of R, one of Octave


def test_what_the_walkers_count_is_what_is_typed() -> None:
    spec = importlib.util.spec_from_file_location("bootcamp", EXAMPLES[0].parents[1] / "benchmarks" / "bootcamp.py")
    assert spec is not None
    assert spec.loader is not None
    bootcamp = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bootcamp)
    text = nbformat.read(demo.find_example("walkers"), as_version=4).cells[-1].source
    for name, typed in (("plain ipyparallel", bootcamp.PLAIN), ("pxtools", bootcamp.PXTOOLS)):
        cells, lines, characters = bootcamp.counted(typed)
        assert f"| {name} | {cells} | {lines} | {characters:,} |" in text


@pytest.mark.skipif(
    not (shutil.which("R") and all(map(find_spec, ("rpy2", "Cython")))), reason="needs R, rpy2 and Cython"
)
def test_the_introduction_shows_what_its_text_says(executed: Any) -> None:
    notebook, _ = executed("introduction")
    assert "[0, 5, 10, 15, 20, 25, 30, 35, 40, 45]" in shown(notebook, "CONSTANT = 5")
    assert "[0, 100, 200]" in shown(notebook, "%pxpush CONSTANT=100")
    assert "(True, np.float64(2.0))" in shown(notebook, "by_random")
    assert shown(notebook, "len(set(draws))") == "8"
    assert "[20, 40, 60]" in shown(notebook, "importlib.reload")
    assert shown(notebook, "as_they_came") == "(True, True)"
    assert "[1] 12.5" in shown(notebook, "%%R")
    assert "compiled once" in shown(notebook, "%%cython")
    assert "[40, 42, 44, 46]" in shown(notebook, "my_var * 2")
    assert "NameError: name 'fibonacci' is not defined" in shown(notebook, "%pxrun fibonacci(3)")


def test_the_direct_view_shows_what_its_text_says(executed: Any) -> None:
    notebook, _ = executed("directview")
    assert shown(notebook, "even.apply_sync") == "True"
    assert "(1, 2)" in shown(notebook, "%pxrun -t even")
    assert str(list(range(16))) in shown(notebook, "%pxgather a")
    assert shown(notebook, "C = A @ B") == "((16, 16), np.True_)"
    assert shown(notebook, "serial == parallel") == "True"
    for cell in ("pi = 4", "shares = "):
        value, error = map(float, re.findall(r"[\d.]+", shown(notebook, cell)))
        assert abs(value - math.pi) < 4.5 * error
    assert len(pictures(notebook)) == 5


@needs_all_languages
def test_the_languages_show_what_their_text_says(executed: Any) -> None:
    notebook, _ = executed("languages")
    assert "DIFFERENT at 200 of 200 points" in shown(notebook, "bell_c")
    assert "undeclared name not builtin: wrong" in shown(notebook, "return wrong * x")
    assert "(80000, 2)" in shown(notebook, "pooled.shape")
    assert "20000 points" in shown(notebook, "%%pxR -i points")
    assert "object 'unknown' not found" in shown(notebook, "mean(x) + unknown")
    assert "[0.0, 1.0, 8.0, 27.0, 64.0, 125.0]" in shown(notebook, "%pxmap r:cube")
    assert "3 x 1,000" in shown(notebook, "%%timeit")
    assert len(pictures(notebook)) == 2  # one of R, one of Octave


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_committed_outputs_are_whole_and_hold_no_absolute_path(path: Path) -> None:
    notebook: Any = nbformat.read(path, as_version=4)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    texts = [text_of(output) for cell in cells for output in cell.outputs]
    texts += [output.get("data", {}).get("text/html", "") for cell in cells for output in cell.outputs]
    assert [found[0] for text in texts if (found := ABSOLUTE.search(text))] == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_no_line_of_a_cell_is_longer_than_what_shows_on_half_a_screen(path: Path) -> None:
    """At 800 pixels a saved file shows 86 letters of code in a line, and 87 of text."""
    cells = code_cells(nbformat.read(path, as_version=4))
    assert [line for cell in cells for line in cell.source.splitlines() if len(line) > 79] == []
    for output in (output for cell in cells for output in cell.outputs):
        if not {"text/html", "image/png", "image/svg+xml"} & set(output.get("data", {})):
            assert [line for line in text_of(output).splitlines() if len(line) > 87] == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_cell_fails_only_where_it_is_meant_to(path: Path) -> None:
    for cell in code_cells(nbformat.read(path, as_version=4)):
        has_failed = any(output.output_type == "error" for output in cell.outputs)
        assert has_failed == ("raises-exception" in cell.metadata.get("tags", []))


def test_every_magic_is_in_some_example() -> None:
    notebooks = [nbformat.read(path, as_version=4) for path in EXAMPLES]
    sources = "\n".join(cell.source for notebook in notebooks for cell in code_cells(notebook))
    assert [name for name in MAGICS if not re.search(rf"%{name}\b", sources)] == []


def test_a_failing_cell_fails_the_demo_names_it_and_keeps_the_notebook(tmp_path: Path) -> None:
    source, target = tmp_path / "source.ipynb", tmp_path / "out.ipynb"
    cells = [nbformat.v4.new_code_cell("print('before')"), nbformat.v4.new_code_cell("1 / 0")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), source)
    with pytest.raises(demo.DemoFailed, match="a cell raised ZeroDivisionError: division by zero"):
        demo.execute(source, target)
    assert "before" in text_of(nbformat.read(target, as_version=4).cells[0].outputs[0])


def test_as_many_engines_start_as_the_demo_is_told(tmp_path: Path) -> None:
    source = tmp_path / "source.ipynb"
    cells = [nbformat.v4.new_code_cell(line) for line in ("%load_ext pxtools", "%config PxTools")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), source)
    executed = demo.execute(source, tmp_path / "out.ipynb", n_engines=17)  # the setting; it is tested where it belongs
    assert re.search(r"PxTools.engines=.*\n.*\n +Current: 17\n", shown(executed, "%config PxTools"))


def test_without_examples_the_demo_says_where_they_are(monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "__file__", str(tmp_path / "pxtools" / "demo.py"))
    assert command.main(["demo", "--out", str(tmp_path / "out")]) == 1
    assert "in the source of pxtools" in capsys.readouterr().err


def test_what_the_demo_needs_is_named_with_the_line_to_type(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(demo, "NEEDED", ("nbformat", "no_such_package"))
    assert command.main(["demo"]) == 1
    assert "pip install no_such_package" in capsys.readouterr().err


def test_a_number_of_engines_that_makes_no_sense_is_a_usage_error(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        command.main(["demo", "-n", "0"])
    assert "give one or more" in capsys.readouterr().err


def test_the_engine_room_multiplies_and_estimates_pi(executed: Any) -> None:
    notebook, _ = executed("engine_room")
    assert shown(notebook, "product = C.concat()").strip() == "same as here: True"
    assert shown(notebook, "again = %pxgather").strip() == "gathered as it was cut: True"
    estimate, error = map(float, re.match(r"([\d.]+) ± ([\d.]+),", shown(notebook, "estimate =").strip()).groups())
    assert abs(estimate - 3.14159265) < 4 * error < 0.01
    assert "the same numbers: True" in shown(notebook, "alone = %pxmap")
    assert shown(notebook, "stream = %pxmap").strip().startswith("3.14 after 2,")
    assert "the same counts: True" in shown(notebook, "later.result")
    assert "Try it here: `inverse(numbers[2])`." in shown(notebook, "inverse numbers")
    assert "kept: {0: 0.25, 1: 0.5}" in shown(notebook, "inverse numbers")
    first, second, third, of = map(int, re.findall(r"\d+", shown(notebook, "sent = []"))[:4])
    assert (first, second) == (0, 0)
    assert 4 * of <= third < 4 * of + 10_000


@pytest.mark.skipif(not find_spec("sympy"), reason="needs SymPy")
def test_the_formulas_show_what_their_text_says(executed: Any) -> None:
    notebook, _ = executed("formulas")
    assert "potrf" in shown(notebook, "%%pxexpr update")
    assert "the same as above: True" in shown(notebook, "from sympy import")
    timed = shown(notebook, "numpy_literal = ")
    assert max(map(float, re.findall(r"[\d.]+e-\d+", timed))) < 1e-12
    assert "symmetric to the last bit: True" in timed
    blocks, *plans = map(float, re.findall(r": ([\d.]+e-\d+)$", shown(notebook, "block_inverse("), re.MULTILINE))
    assert len(plans) == 3
    assert all(plan < blocks / 100 for plan in plans)  # the post's round-off, and ours
    gathered = shown(notebook, "gathered = %pxgather")
    assert "symmetric to the last bit: True" in gathered
    assert max(map(float, re.findall(r"[\d.]+e-\d+", gathered)), default=0) < 1e-12
    assert "`Sigma` is said to be symmetric, and it is not" in shown(notebook, "rng.random((8, 8))")
    before, wrong, right = map(float, re.findall(r"[\d.]+", shown(notebook, "misfit = "))[:3])
    assert right < before / 10 < before < wrong  # the post's sign moves the mean away from the data
    off, ours = map(float, re.search(r"the post's ([\d.]+), ours (\S+)", shown(notebook, "misfit = ")).groups())
    assert off > 0.1
    assert ours < 1e-11
    assert "Cannot add" in shown(notebook, "%%pxexpr wrong")
    assert "not positive" in shown(notebook, "precise(**extreme)")


def test_kalman_and_formulas_show_what_their_text_says(executed: Any) -> None:
    notebook, _ = executed("kalman_and_formulas")
    fitted = shown(notebook, "%%pxkalman series")
    assert "converged" in fitted
    for name, truth in (("Q", 0.25), ("R", 4.0)):
        value, error = map(float, re.search(rf"  {name} +([\d.]+) +([\d.]+)", fitted).groups())
        assert abs(math.log(value / truth)) < 4 * error / value
    assert float(re.search(r"gap: ([\d.]+)", shown(notebook, "inside ="))[1]) < 1
    assert "(20, 200, 1)" in shown(notebook, "batch =")
    assert "filtered here" not in shown(notebook, "batch =")  # the text says: on the engines
    moved = [
        float(value) for value in re.findall(r"^\[(?:[1-9])\] array\(\[([\d.]+)", shown(notebook, "new_mu.round"), re.M)
    ]
    assert moved == [pytest.approx(engine * 6 / 37, abs=1e-3) for engine in range(1, len(moved) + 1)]
    assert moved


def test_the_fleet_shows_what_its_text_says(executed: Any) -> None:
    notebook, _ = executed("fleet")
    variances = shown(notebook, "fitted = fleet.fit.model")
    process, observation = (
        float(re.search(rf"{name} variance +([\d.]+)", variances)[1]) for name in ("process", "observation")
    )
    assert abs(process - 0.05) < 0.02
    assert abs(observation - 1) < 0.05
    moved = int(re.search(r"iteration: ([\d,]+)", variances)[1].replace(",", ""))
    assert moved < 20_000  # of 16 MB of readings
    assert "40 of them are found" in shown(notebook, "found = set")
    assert "{9999: 'an infinite value at row 50, column 0'}" in shown(notebook, "fleet.failed")
    assert len(pictures(notebook)) == 2


def test_the_supercomputer_was_run_on_mpi() -> None:
    """The cells themselves are run on MPI, in a queue and here by tests/hosts, which compare the numbers."""
    notebook: Any = nbformat.read(demo.find_example("supercomputer"), as_version=4)
    assert "4 engines ready" in shown(notebook, "--engines mpi")
    assert "((600, 50), np.True_)" in shown(notebook, "C = A @ B")
    assert "it falls all the way: True" in shown(notebook, "np.diff(temperature)")
    value, error = map(float, re.search(r"π is ([\d.]+) ± ([\d.]+)", shown(notebook, "share_in_circle [")).groups())
    assert abs(value - math.pi) < 4.5 * error
    assert re.search(r"product: [0-9a-f]{16}", shown(notebook, "fingerprint"))
