"""Extra outputs: kept for each draw, in every sampler, file and container."""

import collections
import dataclasses
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from pxtools import sampling
from pxtools.errors import TargetError
from pxtools.kernels import calls_numpy, demcz_numpy, ram_numpy, rwm_numpy
from pxtools.sampling.numba_tier import choose_tier

SAMPLERS = list(sampling.SAMPLERS)
TWINS = {"demcz": demcz_numpy, "ram": ram_numpy, "rwm": rwm_numpy}


def bowl(x, y):
    return -0.5 * (x * x + y * y)


def with_blobs(x, y):
    return bowl(x, y), x + y, {"model": np.array([[x, y], [x * y, 1.0]]), "side": "left" if x < 0 else "right"}


def run(function, sampler="auto", blobs=None, **options):
    target = sampling.resolve_target(function, blobs=blobs)
    options = {"draws": 80, "warmup": 60, "thin": 2, "seed": 3, "sampler": sampler, "step": 1.0} | options
    return sampling.sample_here(target, sampling.make_plan(target, **options))


@pytest.fixture(scope="module")
def samples():
    return run(with_blobs)


@pytest.mark.parametrize("options", [{}, {"bounds": (-3, 3), "transform": True}], ids=["plain", "transform"])
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("tier", ["compiled", "twin"])
def test_blobs_are_those_of_each_draw_and_change_nothing_else(tier, sampler, options, monkeypatch):
    plain = run(bowl, sampler, **options)
    if tier == "twin":
        for name, module in TWINS.items():
            twin = SimpleNamespace(Walk=module.Walk, drive=calls_numpy.drive, COMPILED=False)
            monkeypatch.setattr(f"pxtools.sampling.{name}.kernel", twin)
    samples = run(with_blobs, sampler, **options)
    np.testing.assert_array_equal(samples.draws, plain.draws)
    np.testing.assert_array_equal(samples["blob_0"], samples["x"] + samples["y"])
    np.testing.assert_array_equal(samples["model"][..., 1, 0], samples["x"] * samples["y"])
    np.testing.assert_array_equal(samples["side"] == "left", samples["x"] < 0)
    repeated = (np.diff(samples["x"]) == 0).sum()
    assert repeated > 0  # rejected steps repeat their point, and the blob is that of the point
    assert samples["model"].shape == (samples.n_chains, 80, 2, 2)


def test_array_that_the_target_uses_again_is_copied():
    buffer = np.zeros(2)

    def lazy(x, y):
        buffer[:] = x, y
        return bowl(x, y), buffer

    samples = run(lazy)
    np.testing.assert_array_equal(samples["blob_0"], samples.draws)


def test_names_come_from_the_option_a_dictionary_or_a_named_tuple():
    Fit = collections.namedtuple("Fit", "log_density chi2 scale")
    assert set(run(lambda x, y: (bowl(x, y), 1.0, 2), blobs=["chi2", "n"]).blobs) == {"chi2", "n"}
    assert set(run(lambda x, y: {"log_density": bowl(x, y), "chi2": x}).blobs) == {"chi2"}
    assert set(run(lambda x, y: Fit(bowl(x, y), x, y)).blobs) == {"chi2", "scale"}
    assert set(run(lambda x, y: (bowl(x, y), x, y)).blobs) == {"blob_0", "blob_1"}


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x, y: (bowl(x, y), np.zeros(2 + (x > 0))), r"the blob `blob_0` with shape \(.,\), the first call"),
        (lambda x, y: (bowl(x, y), object()), "`blob_0`, a object, where a number, a text, or an array"),
        (lambda x, y: (bowl(x, y), [[1], [1, 2]]), "`blob_0`, a list, where"),
        (lambda x, y: {"lp": 1.0, "chi2": 2.0}, r"a dictionary without `log_density` \(its keys: lp, chi2\)"),
        (lambda x, y: (bowl(x, y),), "where one real number is needed"),
        (lambda x, y: (None, 1.0), "returned None, where one real number is needed"),
        (lambda x, y: (np.inf if x > 0 else bowl(x, y), 1.0), "returned inf"),
        (
            lambda x, y: (bowl(x, y), 1.0) if x > 0 else bowl(x, y),
            "the blobs none, the first call blob_0|one real number",
        ),
        (lambda x, y: (bowl(x, y), {"a" if x > 0 else "b": 1}), "returned the blobs ., the first call .\\."),
        (lambda x, y: {"log_density": bowl(x, y), "x": 1}, "a blob named `x`, a name that is taken"),
    ],
)
@pytest.mark.parametrize("tier", ["compiled", "twin"])
def test_bad_blob_is_an_error_with_the_point_and_what_to_do(function, words, tier, monkeypatch):
    if tier == "twin":
        twin = SimpleNamespace(Walk=demcz_numpy.Walk, drive=calls_numpy.drive, COMPILED=False)
        monkeypatch.setattr("pxtools.sampling.demcz.kernel", twin)
    with pytest.raises(TargetError, match=words) as caught:
        run(function)
    assert 2 <= len(str(caught.value).splitlines()) <= 4


@pytest.mark.parametrize("ending", ["npz", "nc"])
def test_file_holds_blobs_and_everything_else(samples, ending, tmp_path):
    if ending == "nc":
        pytest.importorskip("xarray")
    path = samples.save(tmp_path / f"walk.{ending}")
    again = sampling.load(path)
    for field in dataclasses.fields(samples):
        np.testing.assert_equal(getattr(again, field.name), getattr(samples, field.name), err_msg=field.name)
    assert str(again) == str(samples)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("engine", ["h5netcdf", "scipy"])
def test_netcdf_of_either_kind_is_read_and_has_the_draws_by_name(samples, engine, tmp_path, monkeypatch):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip(engine)
    monkeypatch.setattr("pxtools.sampling.files._engine", lambda: engine)
    path = samples.save(tmp_path / "walk.nc")
    np.testing.assert_equal(dict(sampling.load(path).blobs), dict(samples.blobs))
    with xarray.open_dataset(path, engine=engine) as dataset:
        np.testing.assert_array_equal(dataset["x"], samples["x"])
        assert dataset["model"].dims[:2] == ("chain", "draw")


def test_containers_have_the_blobs(samples):
    pytest.importorskip("pandas")
    frame = samples.to_dataframe()
    assert list(frame.columns[4:]) == [
        "log_density",
        "blob_0",
        "model[0,0]",
        "model[0,1]",
        "model[1,0]",
        "model[1,1]",
        "side",
    ]
    np.testing.assert_array_equal(frame["model[1,0]"], frame["x"] * frame["y"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("arviz")
        converted = samples.to_arviz()
    np.testing.assert_array_equal(converted["posterior"]["model"].values, samples["model"])
    np.testing.assert_array_equal(samples.to_xarray()["blob_0"].values, samples["blob_0"])


def test_blobs_cannot_be_changed(samples):
    with pytest.raises(TypeError, match="cannot be changed"):
        samples.blobs["new"] = np.zeros(3)
    with pytest.raises(ValueError, match="read-only"):
        samples["model"][...] = 0


def test_numba_is_not_tried_on_a_function_with_blobs():
    pytest.importorskip("numba")
    target = sampling.resolve_target(with_blobs)
    plan = sampling.make_plan(target, draws=1_000_000, seed=1)
    chosen, notes = choose_tier(target, plan)
    assert chosen.tier == "python"
    assert "returns extra outputs" in notes[0]


def test_blobs_come_from_engines_and_out_of_a_resumed_run(session, cell, tmp_path):
    from pxtools.session.sampling import sample

    cell("def f(x, y):\n    return -0.5 * (x * x + y * y), {'sum': x + y}")
    f, path = session.namespace["f"], tmp_path / "run.px"
    options = {"warmup": 50, "seed": 2, "chains": 8}
    sample(session, f, draws=30, checkpoint=path, **options)
    resumed = sample(session, f, draws=90, checkpoint=path, resume=True, **options)
    whole = sample(session, f, draws=90, targets=session.wire.ids[:1], **options)
    np.testing.assert_array_equal(resumed["sum"], resumed["x"] + resumed["y"])
    np.testing.assert_array_equal(resumed["sum"], whole["sum"])
    named = cell("def g(x, y):\n    return f(x, y)[0], x\n") or cell("%pxsample g --blobs first --draws 20 --seed 1")
    np.testing.assert_array_equal(named["first"], named["x"])
