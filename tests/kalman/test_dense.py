"""Long rows with independent noise run as compiled plans: same numbers as the kernel, and only where that pays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pxtools.kalman import StateSpaceModel, filter_series
from pxtools.kalman.forms import dense
from pxtools.kernels import kalman


def system(n: int, k: int, n_steps: int, *, varies: bool = False, seed: int = 0) -> tuple[Any, ...]:
    """Return observations, some missing, and the arguments of the kernel for one random model."""
    rng = np.random.default_rng(seed)
    count = n_steps if varies else 1
    F = rng.standard_normal((count, n, n)) / np.sqrt(n) / 1.5
    H = rng.standard_normal((count, k, n)) / np.sqrt(n)
    Q = np.tile(np.eye(n), (count, 1, 1))
    R = np.stack([np.diag(rng.uniform(0.5, 2.0, k)) for _ in range(count)])
    y = rng.standard_normal((2, n_steps, k))
    y[0, 1, :3], y[1, 2], y[1, 5, k - 1] = np.nan, np.nan, np.nan
    x, P = rng.standard_normal((2, n)), np.tile(3 * np.eye(n), (2, 1, 1))
    P[:, 0] = P[:, :, 0] = 0.0  # one element of the state is known for certain
    return y, F, H, Q, R, rng.random((count, n)), rng.random((count, k)), x, P, np.zeros((2, n, n))


@pytest.mark.parametrize("steady", [True, False])
@pytest.mark.parametrize(("n", "k", "n_steps", "varies"), [(5, 40, 8, True), (5, 40, 90, False), (3, 1, 9, False)])
def test_plans_give_what_the_kernel_gives(n: int, k: int, n_steps: int, varies: bool, steady: bool) -> None:
    arguments = system(n, k, n_steps, varies=varies)
    found = dense.filter_rows(*arguments, steady=steady)
    wanted = kalman.cholesky_filter(*arguments, steady=steady)
    wanted = wanted.complete() if hasattr(wanted, "complete") else wanted
    for name in wanted._fields:
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-9, atol=1e-11, err_msg=name)
    assert np.array_equal(found.filtered_cov, found.filtered_cov.swapaxes(2, 3))


def test_a_long_row_of_the_user_goes_through_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    y, F, H, Q, R, _, _, x, P, _ = system(16, 600, 40)
    model = StateSpaceModel(F[0], H[0], Q[0], R[0], initial_mean=x[0], initial_cov=P[0] + np.eye(16))
    calls = []
    plans = dense.filter_rows

    def counting(*args: Any, **options: Any) -> Any:
        calls.append(args)
        return plans(*args, **options)

    monkeypatch.setattr(dense, "filter_rows", counting)
    found = filter_series(model, y[0])
    assert len(calls) == 1
    wanted = filter_series(model, y[0], form="univariate")
    np.testing.assert_allclose(found.filtered_mean, wanted.filtered_mean, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(found.filtered_cov, wanted.filtered_cov, rtol=1e-9, atol=1e-11)
    assert found.log_likelihood == pytest.approx(wanted.log_likelihood, rel=1e-12)


def test_plans_are_taken_only_for_long_rows_of_independent_noise_and_enough_steps() -> None:
    y, F, _, _, R, *_ = system(16, 500, 50)
    assert dense.pays(y, F, R, is_constant=False)
    assert not dense.pays(y[:1, :10], F, R, is_constant=False)
    assert not dense.pays(y[..., :20], F, R[:, :20, :20], is_constant=False)
    correlated, exact = R.copy(), R.copy()
    correlated[0, 0, 1] = correlated[0, 1, 0] = 0.1
    exact[0, 7, 7] = 0.0
    assert not dense.pays(y, F, correlated, is_constant=False)
    assert not dense.pays(y, F, exact, is_constant=False)
    settles_soon = np.broadcast_to(y[:1, :1], (1, 100_000, 500))
    assert dense.pays(settles_soon, F, R, is_constant=False)
    assert not dense.pays(settles_soon, F, R, is_constant=True)


def test_a_covariance_that_is_none_is_the_error_of_the_kernel() -> None:
    arguments = list(system(16, 500, 50))
    arguments[8] = arguments[8] - 1e4 * np.eye(16)
    with pytest.raises(np.linalg.LinAlgError, match="the innovation covariance at step 0 is not positive definite"):
        dense.filter_rows(*arguments)
