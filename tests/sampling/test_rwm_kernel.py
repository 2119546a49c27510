"""The random walk's loop, both tiers: what a step does, what a target may return, and that the tiers agree."""

import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from three_gaussians import TIERS, call_walk, gaussian

from pxtools.errors import TargetError


@pytest.fixture(params=TIERS)
def walk(request):
    return TIERS[request.param]


def log_gaussian(x, y):
    value = gaussian(x, y)
    return math.log(value) if value else -math.inf


def bowl(x):
    return -0.5 * float(x @ x)


def returning(value):
    """Make a density that is 1 at the start point (0, 0) and `value` anywhere else."""

    def strange(x, y):
        return 1.0 if x == y == 0 else value

    return strange


# --- the tiers agree -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(len(TIERS) == 1, reason="the kernels are not compiled here")
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**64),
    n_steps=st.integers(0, 1500),
    n_params=st.integers(1, 5),
    step=st.floats(1e-3, 10),
    half_box=st.floats(0.5, 5) | st.just(math.inf),
    thin=st.integers(1, 7),
    first_kept=st.integers(1, 9),
    is_density=st.booleans(),
    is_scalar=st.booleans(),
)
def test_compiled_walk_and_twin_agree_bit_for_bit(  # noqa: PLR0917
    seed, n_steps, n_params, step, half_box, thin, first_kept, is_density, is_scalar
):
    def target(*arguments):
        squares = sum(x * x for x in (arguments if is_scalar else arguments[0].tolist()))
        if squares > 9:
            return math.nan if squares > 12 else (0 if is_density else -math.inf)
        return math.exp(-squares / 2) if is_density else np.float64(-squares / 2)

    options = {"seed": seed, "step": step, "lower": -half_box, "upper": half_box, "thin": thin}
    options |= {"first_kept": first_kept, "is_density": is_density, "is_scalar": is_scalar}
    one, two = (call_walk(walk, target, np.zeros(n_params), n_steps, **options) for walk in TIERS.values())
    for mine, its in zip(one, two, strict=True):
        np.testing.assert_array_equal(mine, its)


def test_a_step_takes_the_same_numbers_whatever_happens(walk):
    """One uniform per coordinate, then one to decide: an independent walk from the same stream gives the same draws."""
    rng = np.random.default_rng(7)
    x, value, expected = np.array([0.5, 0.2]), gaussian(0.5, 0.2), []
    for _ in range(500):
        proposal = x + 0.1 * (2 * rng.random(2) - 1)
        new = gaussian(*proposal.tolist())
        if rng.random() * value < new:
            x, value = proposal, new
        expected.append(x)
    draws = call_walk(walk, gaussian, [0.5, 0.2], 500, seed=7)[0]
    np.testing.assert_array_equal(draws, expected)


# --- what a step does ------------------------------------------------------------------------------------------------


def test_target_is_called_once_per_step(walk):
    calls = []

    def counting(x, y):
        calls.append((x, y))
        return gaussian(x, y)

    counts = call_walk(walk, counting, [0.5, 0.2], 1000)[2]
    assert len(calls) == 1000 + 1  # the helper evaluates the start point
    assert counts[0] == 1000


def test_rejected_step_repeats_its_point_and_its_value(walk):
    draws, values, counts, _, last = call_walk(walk, gaussian, [0.5, 0.2], 2000)
    repeats = (draws[1:] == draws[:-1]).all(axis=1)
    assert 500 < repeats.sum() < 1500
    assert np.array_equal(values[1:][repeats], values[:-1][repeats])
    assert abs((~repeats).sum() - counts[1]) <= 1  # the first draw may itself be accepted
    assert values.tolist() == [gaussian(*point) for point in draws.tolist()]
    assert last == values[-1]


def test_proposals_fill_the_box_and_no_more(walk):
    seen = []

    def flat(x, y):
        seen.append((x, y))
        return 1.0

    draws = call_walk(walk, flat, [0.0, 0.0], 4000, step=0.25)[0]
    moves = np.diff(draws, axis=0)
    assert np.abs(moves).max() <= 0.25
    # uniform in ±1/4: variance 1/48, its standard error from the fourth moment
    assert np.abs(moves.var(axis=0) - 1 / 48).max() < 4.5 * np.sqrt((1 / 1280 - 1 / 48**2) / len(moves))


def test_target_gets_python_floats(walk):
    kinds = set()

    def kind(x, y):
        kinds.update({type(x), type(y)})
        return 1.0

    call_walk(walk, kind, [0.0, 0.0], 20)
    assert kinds == {float}


def test_scalar_target_may_keep_its_arguments(walk):
    kept = []

    def target(x, y):
        if len(kept) % 3:
            kept.append((x, float(repr(x)), [y], float(repr(y))))
        else:
            kept.append((0.0, 0.0, [0.0], 0.0))
        return gaussian(x, y)

    expected = call_walk(walk, gaussian, np.zeros(2), 200)
    assert np.array_equal(call_walk(walk, target, np.zeros(2), 200)[0], expected[0])
    assert len(kept) >= 200
    assert all((x, y[0]) == (then_x, then_y) for x, then_x, y, then_y in kept)


def test_vector_target_may_keep_or_change_its_argument(walk):
    kept, views = [], []

    def greedy(x):
        value = bowl(x)
        if len(kept) % 3 == 0:
            views.append((x[1:], x[1]))
        kept.append((x, x.copy()) if len(kept) % 2 else (None, None))
        if len(kept) % 5 == 0:
            x[:] = 99
            kept[-1] = (None, None)
            if views and views[-1][0].base is x:
                views.pop()
        return value

    options = {"is_scalar": False, "is_density": False}
    draws = call_walk(walk, greedy, [0.0, 0.0], 500, **options)[0]
    assert all(np.array_equal(argument, copy) for argument, copy in kept if argument is not None)
    assert all(view[0] == number for view, number in views)
    np.testing.assert_array_equal(draws, call_walk(walk, bowl, [0.0, 0.0], 500, **options)[0])


def test_compiled_walk_leaks_no_references():
    walk = next(iter(TIERS.values()))
    value = 1234.5

    def constant(x, y):
        return value

    def vector(x):
        return value

    before = sys.getrefcount(value)
    call_walk(walk, constant, [0.0, 0.0], 5000)
    call_walk(walk, vector, [0.0, 0.0], 5000, is_scalar=False)
    assert sys.getrefcount(value) == before


def test_nothing_outside_the_bounds_is_evaluated_or_visited(walk):
    seen = []

    def flat(x, y):
        seen.append((x, y))
        return 1.0

    draws, _, counts, _, _ = call_walk(walk, flat, [0.5, 0.5], 2000, step=0.7, lower=0.0, upper=1.0)
    seen = np.array(seen)
    assert seen.min() >= 0
    assert seen.max() <= 1
    assert counts[0] == len(seen) - 1 < 2000
    assert draws.min() >= 0
    assert draws.max() <= 1


def test_log_density_and_density_give_the_same_draws(walk):
    by_density, *_ = call_walk(walk, gaussian, [0.5, 0.2], 2000)
    by_log, *_ = call_walk(walk, log_gaussian, [0.5, 0.2], 2000, is_density=False)
    np.testing.assert_array_equal(by_density, by_log)  # a last bit could decide otherwise; with this seed none does


def test_density_next_to_underflow_walks_like_any_other(walk):
    draws = call_walk(walk, lambda x, y: 1e-310, [0.0, 0.0], 200)[0]
    assert len(np.unique(draws[:, 0])) > 190


# --- what a target may return ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [1, True, np.float64(1.0), np.float32(1.0), np.int64(1), np.bool_(True), np.array(1.0), np.array(1)],
    ids=lambda value: type(value).__name__,
)
def test_any_real_scalar_is_a_value(walk, value):
    _, values, counts, _, _ = call_walk(walk, lambda x, y: value, [0.0, 0.0], 10)
    assert counts[1] == 10
    assert (values == 1).all()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "returned None, where one real number is needed.\nIs a `return` missing?"),
        (1 + 2j, "returned (1+2j), where one real number is needed"),
        (np.complex128(1), "one real number"),
        ("1.0", "returned '1.0'"),
        (np.ones(2), "an array of shape (2,)"),
        (np.ones(1), "an array of shape (1,)"),
        (np.array(1 + 0j), "one real number"),
        ([1.0], "returned [1.0]"),
    ],
)
@pytest.mark.parametrize("is_density", [True, False])
def test_what_is_no_number_is_an_error_with_function_value_and_point(walk, value, words, is_density):
    with pytest.raises(TargetError) as caught:
        call_walk(walk, returning(value), [0.0, 0.0], 10, is_density=is_density)
    message = str(caught.value)
    assert message.startswith("strange(")
    assert words in message
    assert 2 <= len(message.splitlines()) <= 4
    x, y = (float(number) for number in message[len("strange(") : message.index(")")].split(","))
    assert 0 < max(abs(x), abs(y)) <= 0.1


def test_negative_density_is_an_error_that_says_what_to_leave_out(walk):
    with pytest.raises(
        TargetError, match=r"^strange\(.*\) returned -0.5. A density is never negative;\n.*leave out --d"
    ):
        call_walk(walk, returning(-0.5), [0.0, 0.0], 10)


@pytest.mark.parametrize("is_density", [True, False])
def test_plus_infinity_is_an_error(walk, is_density):
    with pytest.raises(TargetError, match=r"strange\(.*\) returned inf"):
        call_walk(walk, returning(math.inf), [0.0, 0.0], 10, is_density=is_density)


def test_minus_infinity_is_outside_the_support(walk):
    draws, *_ = call_walk(walk, returning(-math.inf), [0.0, 0.0], 50, is_density=False)
    assert (draws == 0).all()


@pytest.mark.parametrize("is_density", [True, False])
@pytest.mark.parametrize("nan", [math.nan, np.float64("nan"), np.array(np.nan)], ids=["float", "float64", "0-d"])
def test_nan_is_rejected_and_counted_and_its_first_point_kept(walk, is_density, nan):
    draws, _, counts, first_nan, _ = call_walk(walk, returning(nan), [0.0, 0.0], 50, is_density=is_density)
    assert counts.tolist() == [50, 0, 50]
    assert (draws == 0).all()
    u = np.random.default_rng(1).random(2)
    np.testing.assert_allclose(first_nan, 0.1 * (2 * u - 1), rtol=1e-12)


@pytest.mark.parametrize("is_scalar", [True, False])
def test_exception_keeps_its_type_and_names_the_call(walk, is_scalar):
    class OwnError(Exception):
        pass

    def failing(*arguments):
        numbers = arguments if is_scalar else arguments[0]
        if numbers[0] != 0:
            raise OwnError("mine")
        return 1.0

    with pytest.raises(OwnError, match="mine") as caught:
        call_walk(walk, failing, [0.0, 0.0], 10, is_scalar=is_scalar)
    (note,) = caught.value.__notes__
    opening = "failing(" if is_scalar else "failing(np.array(["
    assert note.startswith(f"raised by the target in {opening}")


def test_interrupt_is_passed_on_without_a_note(walk):
    def interrupted(x, y):
        if x:
            raise KeyboardInterrupt
        return 1.0

    with pytest.raises(KeyboardInterrupt) as caught:
        call_walk(walk, interrupted, [0.0, 0.0], 10)
    assert not hasattr(caught.value, "__notes__")


def test_ctrl_c_stops_a_walk_whose_target_never_looks_for_it(walk):
    """A builtin as target: only the loop itself can notice the signal."""
    import signal
    import threading
    import time

    timer = threading.Timer(0.2, signal.raise_signal, [signal.SIGINT])
    timer.start()
    began = time.perf_counter()
    try:
        with pytest.raises(KeyboardInterrupt):
            call_walk(walk, math.hypot, [1.0, 1.0], 50_000_000, first_kept=50_000_001)
    finally:
        timer.join()
    assert time.perf_counter() - began < 60  # it would take minutes
