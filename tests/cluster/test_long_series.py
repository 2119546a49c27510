"""One long series cut in time over real engines: the numbers of the uncut one, whatever dies or cannot be cut."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pxtools.errors import PxEngineLost, PxUsageError
from pxtools.kalman import FilterResult, LongResult, StateSpaceModel, cuts, kalman, local_level
from pxtools.kalman.fleet import OTHERS
from pxtools.session import kalman_long
from pxtools.session.core import Session
from pxtools.session.kalman import filter_on
from pxtools.session.run import Cell, run
from pxtools.session.scatter import scatter
from tests.cluster import two_engines
from tests.cluster.test_fleets import small_disk  # noqa: F401
from tests.kalman.models import random_model

N, module_session, lines, session = two_engines.N, two_engines.module_session, two_engines.lines, two_engines.session
MODEL = random_model(7, 3, 2, initial="diffuse")
N_STEPS = 6_000
ALL = (
    *("filtered_mean", "filtered_cov", "predicted_mean", "predicted_cov", "smoothed_mean", "smoothed_cov"),
    *("log_likelihood_steps", "standardized_residuals", *OTHERS),
)


@pytest.fixture
def y() -> Any:
    """A level far from zero, where a part starts; gaps beside and at the cut."""
    rng = np.random.default_rng(1)
    y = 50.0 + rng.normal(size=(N_STEPS, 2))
    y[rng.random(y.shape) < 0.1] = np.nan
    y[2_995:3_010] = np.nan
    return y


def cut(session: Session, y: Any, model: StateSpaceModel = MODEL, **options: Any) -> LongResult:
    result = filter_on(session, model, y, **{"targets": "all", "where": "engines", **options})
    assert isinstance(result, LongResult), result
    return result


def differ(there: Any, here: Any, names: Any = ALL) -> dict[str, float]:
    """The arrays that are further apart than 1e-12 of their largest number."""
    assert there.log_likelihood == pytest.approx(here.log_likelihood, rel=1e-12)
    apart = {}
    for name in names:
        one, other = np.asarray(getattr(there, name)), getattr(here, name)
        assert one.shape == other.shape, name
        is_number = np.isfinite(other)
        assert np.array_equal(one[~is_number], other[~is_number], equal_nan=True), name
        apart[name] = float(np.abs(one[is_number] - other[is_number]).max() / np.abs(other[is_number]).max())
    return {name: size for name, size in apart.items() if size > 1e-12}


def test_a_series_cut_in_time_has_the_numbers_of_the_whole(session: Session, y: Any, lines: list[str]) -> None:
    there, here = cut(session, y), kalman(MODEL, y)
    assert differ(there, here) == {}
    assert np.allclose(there.forecast(4).upper, here.forecast(4).upper, rtol=1e-12)
    assert there.to_frame("smoothed_mean").shape == (N_STEPS, 3)
    assert "cut in time over engines 0, 1" in repr(there)
    assert lines == []


def test_only_what_is_asked_comes_back(session: Session, y: Any) -> None:
    whole = np.nan_to_num(y, nan=50.0)
    there = cut(session, whole)
    before = there.source.bytes_moved  # type: ignore[attr-defined]
    assert before < 1_000
    there.filtered_cov  # noqa: B018 - what repeats itself is sent once
    assert there.source.bytes_moved < before + 8 * 9 * N_STEPS / 20  # type: ignore[attr-defined]
    assert differ(there, kalman(MODEL, whole), ["filtered_cov", "smoothed_cov"]) == {}


@pytest.mark.parametrize("form", ["cholesky", "sqrt", "generated"])
def test_other_forms_are_cut_too(form: str, session: Session, y: Any) -> None:
    y = y[:5_000]
    assert differ(cut(session, y, form=form), kalman(MODEL, y, form=form), ["filtered_mean", "smoothed_cov"]) == {}


def test_scattered_steps_stay_where_they_are(session: Session, y: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kalman_long, "STEP_S", 1.0)  # or so few steps would not pay
    session.namespace["y"] = y
    scatter(session, "y", y)
    there = filter_on(session, MODEL, y, name="y")
    assert isinstance(there, LongResult)
    assert there.source.bytes_moved < 30_000  # type: ignore[attr-defined]
    assert differ(there, kalman(MODEL, y), ["smoothed_mean"]) == {}
    changed = filter_on(session, MODEL, y + 1, name="y")
    assert isinstance(changed, FilterResult)


def test_steps_that_engines_made_are_filtered_there(session: Session) -> None:
    made = run(session, Cell("import numpy as np\nz = np.random.default_rng(px_rank).normal(size=3_000 + px_rank)"))
    model = local_level(0.3, observation_var=1.0)
    there = filter_on(session, model, made.outputs["z"], where="engines")
    assert isinstance(there, LongResult)
    assert differ(there, kalman(model, made.outputs["z"].concat()), ["filtered_mean", "smoothed_cov"]) == {}
    assert differ(there, there.whole, ["smoothed_mean"]) == {}


@pytest.fixture
def short_parts(session: Session) -> Iterator[None]:
    """Engines that do several parts one after another."""
    run(session, Cell("from pxtools.kalman import cuts\n_usual, cuts.PART_NUMBERS = cuts.PART_NUMBERS, 1"))
    yield
    run(session, Cell("cuts.PART_NUMBERS = _usual"))


@pytest.mark.parametrize("n_obs", [1, 2])
def test_each_engine_reads_its_part_of_a_file_and_writes_its_part_of_the_results(
    n_obs: int, session: Session, y: Any, tmp_path: Path, short_parts: None
) -> None:
    model = MODEL if n_obs == 2 else local_level(0.3, observation_var=1.0)
    np.save(tmp_path / "y.npy", y if n_obs == 2 else y[:, 0])
    here = kalman(model, y[:, :n_obs])
    there = cut(session, tmp_path / "y.npy", model, write=str(tmp_path / "out"), smooth=True, where="auto")
    assert isinstance(there.smoothed_cov, np.memmap)
    assert np.array_equal(np.load(tmp_path / "out" / "smoothed_mean.npy"), there.smoothed_mean)
    assert differ(there, here, ["smoothed_mean", "smoothed_cov", "predicted_cov"]) == {}
    assert (tmp_path / "out" / "predicted_cov.npy").exists()
    assert not list(tmp_path.rglob("*.part"))
    alone = filter_on(session, model, tmp_path / "y.npy")
    assert isinstance(alone, FilterResult)
    assert alone.log_likelihood == here.log_likelihood


@pytest.mark.parametrize("ending", ["zarr", "parquet"])
def test_results_of_one_series_are_written_as_npy_only(ending: str, session: Session, y: Any, tmp_path: Path) -> None:
    with pytest.raises(
        PxUsageError, match=r"one series: its results are written as \.npy files\.\nType `--write FOLDER`"
    ):
        cut(session, y, write=str(tmp_path / f"out.{ending}"))
    assert not list(tmp_path.iterdir())


def test_a_table_keeps_its_dates_and_columns(session: Session, y: Any) -> None:
    import pandas as pd

    table = pd.DataFrame(y[:5_000], index=pd.date_range("2020", periods=5_000), columns=["a", "b"])
    there = cut(session, table, forecast=2)
    frame = there.to_frame("standardized_residuals")
    assert list(frame.columns) == ["a", "b"]
    assert frame.index.equals(table.index)
    assert there.forecasts is not None
    assert there.forecasts.index[0] == table.index[-1] + pd.Timedelta(days=1)
    assert there.whole.to_frame("predicted_mean").equals(kalman(MODEL, table).to_frame("predicted_mean"))


def test_what_does_not_pay_is_done_here_and_said(session: Session, y: Any, lines: list[str]) -> None:
    result = filter_on(session, MODEL, y, name="flow", targets="all")
    assert isinstance(result, FilterResult)
    assert result.log_likelihood == kalman(MODEL, y).log_likelihood  # type: ignore[union-attr]
    (line,) = lines
    assert line.startswith("`flow` is filtered here: about")
    assert "cut in time over 2 engines" in line


VARYING = MODEL.replace(process_cov=np.stack([np.eye(3) * (1 + t % 3) for t in range(N_STEPS)]))
UNSEEN = StateSpaceModel(np.eye(2), [[1.0, 0.0]], np.eye(2), [[1.0]], initial_mean=[0, 0], initial_cov=np.eye(2))
SLOW = local_level(1e-9, observation_var=1.0)


@pytest.mark.parametrize(
    ("model", "why"),
    [(VARYING, "its model changes with time"), (UNSEEN, "do not come to rest"), (SLOW, "steps")],
    ids=["varying", "unseen", "slow"],
)
def test_a_series_that_cannot_be_cut_is_filtered_whole_and_said(
    model: StateSpaceModel, why: str, session: Session, y: Any, lines: list[str], tmp_path: Path
) -> None:
    y = y[:, : model.n_obs]
    result = filter_on(session, model, y, targets="all", where="engines")
    assert isinstance(result, FilterResult)
    assert any("the series is filtered whole, here: " in line and why in line for line in lines)
    with pytest.raises(PxUsageError, match=r"cannot be cut in time: .*\nLeave out `--write`"):
        filter_on(session, model, y, targets="all", write=str(tmp_path / "out"))


def test_parts_that_do_not_agree_are_cut_with_longer_margins_or_not_at_all(
    session: Session, y: Any, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuts, "FORGOTTEN", 0.5)
    there = cut(session, y)
    tight = there.source.plan.margin  # type: ignore[attr-defined]
    assert differ(there, kalman(MODEL, y), ["filtered_mean", "smoothed_mean"]) == {}
    assert there.source.plan.margin > tight  # type: ignore[attr-defined]
    assert lines == []
    y[500:3_500] = np.nan  # the state at the cut is known by nothing but the steps long before
    walk = local_level(0.3, observation_var=1.0)
    alone = cut(session, y[:, 0], walk)
    assert differ(alone, kalman(walk, y[:, 0]), ["filtered_mean", "smoothed_cov"]) == {}
    assert any("does not forget" in line for line in lines)
    assert alone.forecast(2).mean == pytest.approx(kalman(walk, y[:, 0]).forecast(2).mean)


def test_bad_values_are_named_by_their_row_in_the_whole(session: Session, y: Any, tmp_path: Path) -> None:
    y[4_000, 1] = np.inf
    np.save(tmp_path / "y.npy", y)
    for given in (y, tmp_path / "y.npy"):
        with pytest.raises(PxUsageError, match="row 4000, column 1"):
            cut(session, given).log_likelihood  # noqa: B018
    np.save(tmp_path / "y.npy", np.full((N_STEPS, 2), np.nan))
    with pytest.raises(PxUsageError, match="no number at all"):
        cut(session, tmp_path / "y.npy", write=str(tmp_path / "out"))
    assert not list((tmp_path / "out").iterdir())


def test_a_full_disk_is_an_error_before_the_work_and_leaves_no_file(
    session: Session,
    small_disk: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    np.save(tmp_path / "y.npy", np.ones((100_000, 2)))
    with pytest.raises(PxUsageError, match=r"cannot take the results, .*free.*\n.*Nothing was written"):
        cut(session, tmp_path / "y.npy", write=str(small_disk / "out"))
    assert not [path for path in small_disk.rglob("*") if path.is_file()]


# Last, so that no other test meets the cluster while the engine is being replaced.
def test_the_part_of_an_engine_that_dies_is_done_by_another_if_it_is_anywhere_else(
    session: Session, y: Any, lines: list[str]
) -> None:
    made = run(session, Cell("import numpy as np\nz = np.ones(3_000)"))
    only_there = filter_on(session, local_level(0.3, observation_var=1.0), made.outputs["z"], where="engines")
    there = cut(session, y)
    pid = session.wire.engines[session.wire.ids[1]]["pid"]
    os.kill(pid, signal.SIGSTOP)  # it has the question, and dies over it
    threading.Timer(0.5, os.kill, (pid, signal.SIGKILL)).start()
    assert differ(there, kalman(MODEL, y), ["smoothed_mean"]) == {}
    assert any("steps 3,000 to 5,999 are run again on engine 0" in line for line in lines)
    with pytest.raises(PxEngineLost, match="died with steps 3,000 to 5,999 of `z`, which are nowhere else"):
        only_there.filtered_mean  # noqa: B018
