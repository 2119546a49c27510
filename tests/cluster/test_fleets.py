"""Many series on real engines: in order, with the bits of the work done here, whatever dies or is full."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pxtools.errors import PxEngineLost, PxInterrupted, PxUsageError
from pxtools.kalman import FleetResult, FreeModel, StateSpaceModel, free, kalman, local_level, simulate, writing
from pxtools.kalman.forms import generated
from pxtools.kalman.system import system_of
from pxtools.session.core import NoProgress, Session
from pxtools.session.kalman import filter_on
from pxtools.session.run import Cell, run
from pxtools.session.scatter import scatter
from tests.cluster import two_engines

N, module_session, lines, session = two_engines.N, two_engines.module_session, two_engines.lines, two_engines.session
MODEL = StateSpaceModel([[1.0]], [[1.0]], [[0.5]], [[2.0]], initial_mean=[0.0], initial_cov=[[4.0]])


@pytest.fixture
def series() -> Any:
    y = np.ascontiguousarray(simulate(MODEL, 80, n_draws=70, seed=1).observations)
    y[np.random.default_rng(2).random(y.shape) < 0.2] = np.nan
    return y


def scattered(session: Session, y: Any, **options: Any) -> FleetResult:
    """Scatter the series under a name and filter them where they are."""
    session.namespace["y"] = y
    scatter(session, "y", y)
    result = filter_on(session, options.pop("model", MODEL), y, name="y", **options)
    assert isinstance(result, FleetResult)
    return result


def kill(session: Session, engine: int) -> None:
    os.kill(session.wire.engines[engine]["pid"], signal.SIGKILL)


def test_scattered_series_are_filtered_where_they_are_and_come_back_in_order(session: Session, series: Any) -> None:
    there, here = scattered(session, series), kalman(MODEL, series)
    moved = there.source.bytes_moved  # type: ignore[attr-defined]
    assert moved < 10_000
    for name in ("log_likelihood", "smoothed_mean", "filtered_cov", "standardized_residuals"):
        assert np.array_equal(getattr(there, name), getattr(here, name), equal_nan=True), name
    assert there[69].log_likelihood == here[69].log_likelihood
    assert np.array_equal(there.forecast(3).upper, here.forecast(3).upper)


def test_a_value_that_changed_here_is_not_the_scattered_one(session: Session, series: Any) -> None:
    scattered(session, series)
    changed = filter_on(session, MODEL, series + 1, name="y")
    assert not np.allclose(changed.log_likelihood, kalman(MODEL, series).log_likelihood)


def test_series_that_engines_made_are_filtered_there(session: Session) -> None:
    made = run(session, Cell("import numpy as np\nz = np.full((px_rank + 2, 30, 1), 1.0 + px_rank)"))
    result = filter_on(session, MODEL, made.outputs["z"])
    assert len(result) == 5
    values = np.concatenate([np.full((2, 30, 1), 1.0), np.full((3, 30, 1), 2.0)])
    assert np.array_equal(result.filtered_mean, kalman(MODEL, values).filtered_mean)


def test_each_series_keeps_its_model(session: Session, series: Any) -> None:
    models = [MODEL.replace(process_cov=[[0.1 + 0.01 * k]]) for k in range(len(series))]
    there = filter_on(session, models, series, targets="all", where="engines")
    assert np.array_equal(there.filtered_mean, kalman(models, series).filtered_mean)


def test_work_that_is_cheaper_than_its_transport_is_done_here_and_says_so(
    session: Session, series: Any, lines: list[str]
) -> None:
    result = filter_on(session, MODEL, series, targets="all")
    assert any("filtered here: about" in line and "%pxscatter" in line for line in lines)
    lines.clear()
    sent = filter_on(session, MODEL, series, targets="all", where="engines")
    assert not lines
    assert np.array_equal(sent.log_likelihood, result.log_likelihood)


def test_bad_series_are_named_by_their_number_in_the_whole(session: Session, series: Any) -> None:
    series[50, 3] = np.inf
    series[60] = np.nan
    result = scattered(session, series)
    assert list(result.failed) == [50]
    assert result.empty == [60]
    good = np.setdiff1d(np.arange(70), [50])
    assert np.array_equal(result.smoothed_mean[good], kalman(MODEL, series).smoothed_mean[good])


def test_em_and_ml_over_resident_series_move_a_few_kilobytes_an_iteration(session: Session, series: Any) -> None:
    start = MODEL.replace(process_cov=[[2.0]], observation_cov=[[0.5]])
    there = scattered(session, series, model=start, fit="em", until="iterations>10")
    here = kalman(start, series, fit="em", until="iterations>10")
    assert there.fit is not None
    assert here.fit is not None
    assert np.allclose(there.fit.path, here.fit.path, rtol=1e-12)
    assert np.allclose(there.models.process_cov, here.models.process_cov, rtol=1e-10)  # type: ignore[union-attr]
    assert there.source.bytes_moved / 11 < 8_000  # type: ignore[attr-defined]
    free_model = FreeModel(
        lambda q, r: MODEL.replace(process_cov=[[q]], observation_cov=[[r]]),
        {"q": free(positive=True), "r": free(positive=True)},
    )
    fitted = scattered(session, series, model=free_model, starts=2).fit
    alone = kalman(free_model, series).fit
    assert fitted is not None
    assert alone is not None
    assert fitted.log_likelihood == pytest.approx(alone.log_likelihood, rel=1e-9)
    assert fitted.log_likelihood > there.fit.path[0]


def test_an_engine_that_is_dead_has_its_series_run_elsewhere(session: Session, series: Any, lines: list[str]) -> None:
    result = scattered(session, series)
    kill(session, session.wire.ids[0])
    assert np.array_equal(result.smoothed_mean, kalman(MODEL, series).smoothed_mean)
    assert any("series 0 to 34 are run again on engine" in line for line in lines)
    assert np.array_equal(result.filtered_cov, kalman(MODEL, series).filtered_cov)


def test_an_engine_killed_in_the_middle_of_a_fit_loses_nothing(
    session: Session, series: Any, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    doomed = session.wire.ids[1]

    class Killer(NoProgress):
        def update(self, text: str, fraction: float | None) -> None:
            if text.startswith("iteration 3 "):
                kill(session, doomed)

    monkeypatch.setattr(session, "progress", lambda title: Killer())
    start = MODEL.replace(process_cov=[[2.0]])
    result = scattered(session, series, model=start, fit="em", until="iterations>8 gain<1e-12")
    here = kalman(start, series, fit="em", until="iterations>8 gain<1e-12")
    assert result.fit is not None
    assert here.fit is not None
    assert np.allclose(result.fit.path, here.fit.path, rtol=1e-12)
    assert any("series 35 to 69 are run again on engine" in line for line in lines)


def test_an_engine_killed_while_it_writes_has_its_part_written_by_another(
    session: Session, series: Any, lines: list[str], tmp_path: Path
) -> None:
    np.save(tmp_path / "series.npy", series)
    doomed = session.wire.ids[0]
    pid = session.wire.engines[doomed]["pid"]
    os.kill(pid, signal.SIGSTOP)  # it has the question, and dies over it
    threading.Timer(1.0, os.kill, (pid, signal.SIGKILL)).start()
    out = tmp_path / "results"
    result = filter_on(session, MODEL, tmp_path / "series.npy", targets="all", write=str(out), smooth=True)
    assert np.array_equal(np.load(out / "smoothed_mean.npy"), kalman(MODEL, series).smoothed_mean)
    assert any("series 0 to 34 are run again on engine" in line for line in lines)
    assert len(result) == 70


def test_series_that_were_sent_are_forgotten_with_their_result(session: Session, series: Any) -> None:
    count = Cell("from pxtools.remote.engine import current\nn = sum(t.startswith('series-') for t in current().tasks)")
    for _ in range(3):
        result = filter_on(session, MODEL, series, targets="all", where="engines")
        assert isinstance(result, FleetResult)
        del result
    gc.collect()
    result = filter_on(session, MODEL, series, targets="all", where="engines")
    assert list(run(session, count).outputs["n"]) == [1, 1]
    assert len(result) == 70


def test_an_engine_without_sympy_or_compiler_runs_the_code_that_it_is_sent(session: Session, series: Any) -> None:
    if generated.compiler() is None:
        pytest.skip("there is no C compiler: cc, gcc or clang")
    model = StateSpaceModel(
        [[1.0, 1.0], [0.0, 1.0]], [[1.0, 0.0]], 0.1 * np.eye(2), [[2.0]], initial_mean=[0.0, 0.0], initial_cov=np.eye(2)
    )
    structure = generated.structure_of(system_of(model, 1, 80))
    bare = """
import os, sys, tempfile
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()
sys.modules["sympy"] = None
from pxtools.kalman.forms import generated
generated.compiler = lambda: None
generated._sources.clear()
generated.library_of.cache_clear()
"""
    run(session, Cell(bare))
    there = filter_on(session, model, series, targets="all", where="engines", form="generated")
    session.namespace["structure"] = structure
    run(session, Cell("is_loaded = generated.library_of(structure) is not None"))
    assert list(session.namespace["is_loaded"]) == [True, True]
    for name in ("filtered_mean", "smoothed_cov", "log_likelihood"):
        exact = getattr(kalman(model, series), name)
        assert np.allclose(getattr(there, name), exact, rtol=1e-12, atol=1e-12 * np.abs(exact).max()), name


def test_an_engine_that_was_given_no_series_is_left_out(session: Session) -> None:
    made = run(session, Cell("import numpy as np\nz = np.full((3 * px_rank, 30, 1), 1.0)"))
    result = filter_on(session, [MODEL] * 3, made.outputs["z"])
    assert np.array_equal(result.filtered_mean, kalman(MODEL, np.ones((3, 30, 1))).filtered_mean)


def test_series_that_were_only_on_a_dead_engine_are_named(session: Session) -> None:
    made = run(session, Cell("import numpy as np\nz = np.ones((3, 30, 1))"))
    result = filter_on(session, MODEL, made.outputs["z"])
    kill(session, session.wire.ids[1])
    with pytest.raises(PxEngineLost, match="died with series 3 to 5 of `z`, which are nowhere else"):
        result.filtered_mean  # noqa: B018


@pytest.mark.parametrize("ending", ["npy", "zarr", "parquet"])
def test_engines_read_files_for_themselves(ending: str, session: Session, series: Any, tmp_path: Path) -> None:
    path = str(tmp_path / f"series.{ending}")
    if ending == "npy":
        np.save(path, series)
    elif ending == "zarr":
        zarr = pytest.importorskip("zarr", reason="zarr is not installed: pip install zarr")
        zarr.create_array(path, data=series, chunks=(16, *series.shape[1:]))
    else:
        parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: pip install pyarrow")
        import pyarrow

        names = [f"s{k}" for k in range(len(series))]
        parquet.write_table(pyarrow.table(dict(zip(names, series[:, :, 0], strict=True))), path)
    here = kalman(MODEL, series)
    there = filter_on(session, MODEL, path, targets="all")
    assert np.array_equal(there.smoothed_mean, here.smoothed_mean)
    assert np.array_equal(there[40].filtered_mean, here[40].filtered_mean)
    assert np.array_equal(filter_on(session, MODEL, path).log_likelihood, here.log_likelihood)


@pytest.mark.parametrize("ending", ["", ".zarr", ".parquet"])
def test_results_are_written_by_the_engines_and_mapped(
    ending: str, session: Session, series: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_package(ending)
    np.save(tmp_path / "series.npy", series[:64])
    monkeypatch.chdir(tmp_path)  # where the engines are not
    result = filter_on(session, MODEL, "series.npy", targets="all", write=f"results{ending}", smooth=True)
    here = kalman(MODEL, series[:64])
    assert np.array_equal(np.asarray(result.smoothed_mean), here.smoothed_mean)
    assert not isinstance(result.smoothed_cov, np.ndarray) or isinstance(result.smoothed_cov, np.memmap)
    assert np.array_equal(result.log_likelihood, here.log_likelihood)
    assert np.array_equal(np.asarray(result.standardized_residuals), here.standardized_residuals, equal_nan=True)
    assert np.array_equal(result.smoothed_mean[33, 5:], here.smoothed_mean[33, 5:])  # still there beside the new one
    assert np.array_equal(result.smoothed_cov[30:40], here.smoothed_cov[30:40])
    assert result.to_frame("log_likelihood_steps").shape == (80, 64)
    assert not list(tmp_path.rglob("*.part"))


def needs_package(ending: str) -> None:
    package = {".zarr": "zarr", ".parquet": "pyarrow"}.get(ending)
    if package is not None:
        pytest.importorskip(package, reason=f"{package} is not installed: pip install {package}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "small"
    place.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root can make a file system that is full")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("this container may not mount file systems")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("ending", ["", ".zarr", ".parquet"])
def test_a_full_disk_is_an_error_before_the_work_and_leaves_no_file(
    ending: str, session: Session, small_disk: Path, tmp_path: Path
) -> None:
    needs_package(ending)
    np.save(tmp_path / "series.npy", np.ones((100, 1_000, 1)))
    where = {"targets": "all", "smooth": True}
    with pytest.raises(PxUsageError, match=r"cannot take the results, 0\.0016 GB .*free.*\n.*Nothing was written"):
        filter_on(session, MODEL, tmp_path / "series.npy", write=str(small_disk / f"results{ending}"), **where)
    assert not [path for path in small_disk.rglob("*") if path.is_file()]


@pytest.mark.parametrize("ending", [".zarr", ".parquet"])
def test_a_disk_that_fills_up_during_the_work_is_an_error_and_leaves_no_file(
    ending: str, session: Session, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_package(ending)
    np.save(tmp_path / "series.npy", np.random.default_rng(1).normal(size=(100, 2_000, 1)))
    monkeypatch.setattr(writing, "_check_room", lambda *_: None)  # somebody else fills it afterwards
    with pytest.raises(PxUsageError, match=r"could not be written: No space left.*\n.*that has room"):
        filter_on(
            session, MODEL, tmp_path / "series.npy", targets="all", smooth=True, write=str(small_disk / f"out{ending}")
        )
    assert not [path for path in small_disk.rglob("*") if path.is_file()]


def test_files_of_work_that_failed_are_not_left_behind(session: Session, tmp_path: Path) -> None:
    np.save(tmp_path / "series.npy", np.full((4, 10, 1), np.inf))
    out = tmp_path / "results"
    with pytest.raises(PxUsageError, match="infinite"):
        filter_on(session, MODEL, tmp_path / "series.npy", targets="all", write=str(out))
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    ("observations", "options", "words"),
    [
        ("nowhere.npy", {}, r"no file .*nowhere\.npy"),
        (np.ones((3, 20, 2)), {"targets": "all", "where": "engines"}, "observes 1 value"),
        (np.ones((3, 20, 1)), {"where": "there"}, "auto, here, engines"),
        (np.ones((20, 1)), {"write": "out"}, "many series"),
        (np.ones((3, 20, 1)), {"targets": "all", "until": "gain<1"}, "nothing is fitted"),
    ],
)
def test_usage_mistakes_say_what_to_type(session: Session, observations: Any, options: Any, words: str) -> None:
    with pytest.raises(PxUsageError, match=words):
        filter_on(session, MODEL, observations, **options)


def test_an_interrupted_fit_leaves_the_engines_idle(session: Session) -> None:
    y = np.random.default_rng(3).normal(size=(20_000, 200, 1))
    session.namespace["y"] = y
    scatter(session, "y", y)
    threading.Timer(3.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(PxInterrupted, match="idle"):
        filter_on(
            session, MODEL.replace(process_cov=[[9.0]]), y, name="y", fit="em", until="iterations>99999 gain<-1e9"
        )
    assert list(run(session, Cell("px_rank")).last) == [0, 1]


def test_em_with_a_diffuse_start_is_done_in_one_place_and_says_so(
    session: Session, series: Any, lines: list[str]
) -> None:
    model = local_level(1.0, observation_var=1.0)
    there = scattered(session, series, model=model, fit="em", until="iterations>3")
    assert any("one place" in line for line in lines)
    assert there.fit is not None
    assert there.fit.n_iterations == 3
