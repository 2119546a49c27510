"""The result: shapes, immutability, files, pictures, and other libraries' containers."""

import dataclasses
import sys
import warnings

import numpy as np
import pytest
from three_gaussians import gaussian

from pxtools import sampling
from pxtools.errors import PxUsageError

TARGET = sampling.resolve_target(gaussian, density=True)


@pytest.fixture(scope="module")
def samples():
    starts = np.random.default_rng(0).random((4, 2))
    plan = sampling.make_plan(TARGET, sampler="rwm", initial=starts, draws=2000, thin=2, seed=3)
    return sampling.sample_here(TARGET, plan)


def test_shapes_and_names(samples):
    assert samples.draws.shape == (4, 2000, 2)
    assert samples.points.shape == (8000, 2)
    assert samples.values.shape == samples.log_density.shape == (4, 2000)
    assert samples.names == ("x", "y")
    np.testing.assert_array_equal(samples["y"], samples.draws[:, :, 1])
    np.testing.assert_array_equal(samples.points[2000], samples.draws[1, 0])
    np.testing.assert_allclose(np.exp(samples.log_density[2, 7]), gaussian(*samples.draws[2, 7]), rtol=1e-12)


def test_array_protocol_honours_dtype_and_copy(samples):
    assert np.asarray(samples).shape == (4, 2000, 2)
    assert np.shares_memory(np.asarray(samples), samples.draws)
    assert np.asarray(samples, dtype=np.float32).dtype == np.float32
    copy = np.array(samples)
    copy[0, 0, 0] = 99
    assert samples.draws[0, 0, 0] != 99
    with pytest.raises(ValueError, match="copy"):
        samples.__array__(np.float32, copy=False)


def test_nothing_in_it_can_be_changed(samples):
    for array in (samples.draws, samples.points, samples["x"], samples.initial, samples.acceptance_rate):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        samples.draws = 0


def test_unknown_parameter_names_the_nearest(samples):
    with pytest.raises(PxUsageError, match="There is no parameter `X`"):
        samples["X"]


def test_file_holds_everything(samples, tmp_path):
    path = samples.save(tmp_path / "walk.npz")
    again = sampling.Samples.load(path)
    for field in dataclasses.fields(samples):
        np.testing.assert_equal(getattr(again, field.name), getattr(samples, field.name), err_msg=field.name)
    assert str(again) == str(samples)
    assert [file.name for file in tmp_path.iterdir()] == ["walk.npz"]


def test_file_with_something_else_is_a_usage_error(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    (tmp_path / "text.npz").write_text("no")
    for name in ("other.npz", "text.npz"):
        with pytest.raises(PxUsageError, match="holds no samples"):
            sampling.load(tmp_path / name)


def test_summary_is_a_table_of_known_numbers(samples):
    summary = samples.summary()
    np.testing.assert_allclose(summary.mean, samples.points.mean(axis=0))
    np.testing.assert_allclose(summary.q50, np.median(samples.points, axis=0))
    lines = str(summary).splitlines()
    assert lines[0].startswith(
        "gaussian: 4 chains of 2,000 draws (one in 2 steps), after 100 warm-up steps; sampler rwm"
    )
    (head,) = [line.split() for line in lines if "rhat" in line]
    assert head == ["mean", "sd", "mcse", "5%", "50%", "95%", "ess_bulk", "ess_tail", "rhat"]
    assert max(map(len, lines[2:])) <= 100
    assert repr(samples) == str(summary)


def test_html_is_a_plain_table_that_escapes_what_users_named(samples):
    html = dataclasses.replace(samples, names=("<b>", "y & z"))._repr_html_()
    assert "&lt;b&gt;" in html
    assert "y &amp; z" in html
    assert "<script" not in html
    assert html.count("<tr>") == 3


def test_html_breaks_no_option_behind_its_dashes(samples):
    remarks = {"warnings": ("take a larger --step, or --sampler auto\nand <more>",), "notes": ()}
    html = dataclasses.replace(samples.summary(), **remarks)._repr_html_()
    for option in ("--step", "--sampler"):
        assert f'<span style="white-space:nowrap">{option}</span>' in html
    assert "auto<br>and &lt;more&gt;" in html


def test_many_parameters_are_shown_in_part():
    draws = np.random.default_rng(0).standard_normal((4, 50, 40))
    many = sampling.Samples(
        draws=draws,
        values=-np.ones((4, 50)),
        names=tuple(f"p{k}" for k in range(40)),
        target_name="f",
        is_density=False,
        sampler="rwm",
        warmup=0,
        thin=1,
        step=np.ones(40),
        bounds=np.tile([-np.inf, np.inf], (40, 1)),
        seed=1,
        initial=draws[:, 0] * 9,
        acceptance_rate=np.full(4, 0.3),
        n_evaluations=200,
    )
    assert "10 more parameters" in str(many)
    assert "10 more parameters" in many._repr_html_()


def test_dataframes_have_the_draws(samples):
    pytest.importorskip("pandas")
    frame = samples.to_dataframe()
    assert list(frame.columns) == ["chain", "draw", "x", "y", "log_density"]
    row = frame.iloc[2 * 2000 + 5]
    assert (row["chain"], row["draw"], row["x"]) == (2, 5, samples.draws[2, 5, 0])
    assert list(samples.summary().to_dataframe().index) == ["x", "y"]


def test_xarray_and_arviz_have_the_draws(samples):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("arviz")
        converted = samples.to_arviz()
    np.testing.assert_array_equal(converted["posterior"]["y"].values, samples["y"])
    np.testing.assert_array_equal(converted["sample_stats"]["lp"].values, samples.log_density)
    dataset = samples.to_xarray()
    assert dataset["x"].dims == ("chain", "draw")
    np.testing.assert_array_equal(dataset["x"].values, samples["x"])


@pytest.mark.parametrize("kind", ["overview", "pairs", "trace"])
def test_plot_writes_a_picture(samples, tmp_path, kind):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure = samples.plot(kind)
    figure.savefig(tmp_path / "plot.png", dpi=60)
    pyplot.close(figure)
    picture = pyplot.imread(tmp_path / "plot.png")
    assert picture.shape[0] > 100
    assert picture[..., :3].std() > 0.05


def test_plot_of_an_unknown_kind_names_the_nearest(samples):
    pytest.importorskip("matplotlib")
    with pytest.raises(PxUsageError, match=r"Did you mean `trace`\?"):
        samples.plot("traces")


def test_missing_matplotlib_is_said_with_the_line_to_type(samples, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PxUsageError, match=r"pip install 'pxtools\[plot\]'"):
        samples.plot()


@pytest.mark.parametrize("kind", ["rank", "ess"])
def test_rank_and_ess_pictures_have_an_axis_per_parameter(samples, kind):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    figure = samples.plot(kind)
    assert [axis.get_ylabel() for axis in figure.axes] == ["x", "y"]
    pyplot.close(figure)


def test_earlier_samples_are_start_points(samples):
    plan = sampling.make_plan(TARGET, initial=samples, seed=1)
    np.testing.assert_array_equal(plan.initial, samples.draws[:, -1])
    more = sampling.make_plan(TARGET, initial=samples, chains=9, seed=1).initial
    assert more.shape == (9, 2)
    assert {tuple(row) for row in more} <= {tuple(point) for point in samples.points}
