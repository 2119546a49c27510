"""The loop of differential evolution, both tiers: every move keeps the target, and the tiers agree."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_rwm_statistics import MAX_Z, largest_z
from three_gaussians import exact_draws, gaussian

from pxtools.kernels import demcz_numpy
from pxtools.sampling.mixture import cholesky, fit_mixture, no_mixture

try:
    from pxtools.kernels import _demcz
except ImportError:
    TIERS = {"twin": demcz_numpy.walk}
else:
    TIERS = {"compiled": _demcz.walk, "twin": demcz_numpy.walk}

DIFFERENCE, SNOOKER, MIXTURE = (0.0, 0.0), (0.0, 1.0), (1.0, 0.0)
ALL = (0.4, 0.1)


@pytest.fixture(params=TIERS)
def walk(request):
    return TIERS[request.param]


def box_of(n_params, lower=-np.inf, upper=np.inf, period=0.0, jitter=1e-6):
    return np.array([np.full(n_params, value) for value in (lower, upper, period, jitter)])


def call(walk, target, starts, n_steps, *, seed=1, chances=ALL, archive=None, mixture=None, keep=True, **changes):
    """Call a kernel with its outputs allocated; returns draws, values, counts, moves, archive and the last points."""
    x = np.array(starts, dtype=float)
    n_chains, n_params = x.shape
    options = {"is_density": True, "is_scalar": True, "power": 1.0, "box": box_of(n_params)}
    options |= {"first_kept": 1, "thin": 1, "first_stored": n_steps + 1, "store_every": 1}
    options |= changes
    rng = np.random.default_rng(seed + 1000)
    archive = rng.standard_normal((20, n_params)) if archive is None else archive
    n_stored = len(range(options["first_stored"], n_steps + 1, options["store_every"])) * n_chains
    buffer = np.concatenate([archive, np.full((n_stored, n_params), np.nan)])
    mixture = mixture or no_mixture(n_params)
    n_kept = len(range(options["first_kept"], n_steps + 1, options["thin"]))
    draws, values = np.empty((n_chains, n_kept, n_params)), np.empty((n_chains, n_kept))
    counts, moves = np.zeros(3, dtype=np.int64), np.zeros((2, 3), dtype=np.int64)
    value = np.array([target(*p) if options["is_scalar"] else target(np.array(p)) for p in x.tolist()], dtype=float)
    walk(
        target,
        x,
        value,
        n_steps,
        np.random.default_rng(seed),
        archive=buffer,
        n_archive=len(archive),
        chances=np.array(chances),
        weights=mixture.weights,
        means=mixture.means,
        factors=mixture.factors,
        draws=draws,
        values=values,
        counts=counts,
        accepted=np.zeros(n_chains, dtype=np.int64),
        moves=moves,
        first_nan=np.full(n_params, np.nan),
        **options,
    )
    return draws, values, counts, moves, buffer, x


# --- the tiers agree -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(len(TIERS) == 1, reason="the kernels are not compiled here")
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**63),
    n_steps=st.integers(0, 300),
    n_chains=st.integers(1, 5),
    n_params=st.integers(1, 4),
    half_box=st.floats(2.0, 5.0) | st.just(math.inf),
    is_periodic=st.booleans(),
    power=st.sampled_from([1.0, 0.3]),
    store_every=st.integers(1, 5),
    is_density=st.booleans(),
)
def test_compiled_walk_and_twin_agree_bit_for_bit(  # noqa: PLR0917
    seed, n_steps, n_chains, n_params, half_box, is_periodic, power, store_every, is_density
):
    def target(point):
        squares = sum(x * x for x in point.tolist())
        if squares > 9:
            return math.nan if squares > 12 else (0 if is_density else -math.inf)
        return math.exp(-squares / 2) if is_density else np.float64(-squares / 2)

    rng = np.random.default_rng(seed)
    mixture = fit_mixture(rng.standard_normal((400, n_params)) * 1.1, rng)
    period = 2 * half_box if is_periodic and half_box < math.inf else 0.0
    options = {"seed": seed % 2**32, "is_scalar": False, "is_density": is_density, "power": power, "mixture": mixture}
    options |= {"first_stored": 1 + seed % store_every, "store_every": store_every}
    options |= {"box": box_of(n_params, -half_box, half_box, period)}
    one, two = (call(walk, target, np.zeros((n_chains, n_params)), n_steps, **options) for walk in TIERS.values())
    for mine, its in zip(one, two, strict=True):
        np.testing.assert_array_equal(mine, its)


# --- every move keeps the target -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def starts():
    return exact_draws(np.random.default_rng(11), 10_000)


@pytest.fixture(scope="module")
def archive():
    return exact_draws(np.random.default_rng(12), 300)


@pytest.fixture(scope="module")
def mixture(archive):
    return fit_mixture(archive[:200], np.random.default_rng(0))  # rough on purpose: Metropolis has to mend it


@pytest.mark.parametrize(
    ("chances", "is_density"),
    [(DIFFERENCE, True), (SNOOKER, True), (MIXTURE, True), (ALL, False)],
    ids=["difference", "snooker", "mixture", "all of a log-density"],
)
@pytest.mark.parametrize("tier", TIERS)
def test_every_move_from_exact_draws_keeps_the_density(tier, is_density, chances, starts, archive, mixture):
    def log_gaussian(x, y):
        value = gaussian(x, y)
        return math.log(value) if value else -math.inf

    n = len(starts) if tier == "compiled" else 1_000
    target = gaussian if is_density else log_gaussian
    options = {"chances": chances, "archive": archive, "mixture": mixture, "is_density": is_density}
    ends = call(TIERS[tier], target, starts[:n], 10, first_kept=10, **options)[-1]
    assert largest_z(ends) < MAX_Z


def test_periodic_walk_keeps_a_density_on_the_circle(walk):
    """Von Mises, cut where it is high: a walk that did not go round would pile up or thin out there."""
    rng = np.random.default_rng(5)
    n = 20_000 if walk is not demcz_numpy.walk else 2_000
    starts = rng.vonmises(0.0, 1.0, (n, 1)) % (2 * math.pi)
    box = box_of(1, 0.0, 2 * math.pi, 2 * math.pi)
    options = {"is_density": False, "box": box, "chances": (0.0, 0.1), "archive": rng.uniform(0, 2 * math.pi, (200, 1))}
    ends = call(walk, math.cos, starts, 10, first_kept=10, **options)[-1]
    expected = np.array([0.44638997, 0.0])  # E cos = I1(1)/I0(1), E sin
    found = np.column_stack([np.cos(ends), np.sin(ends)])
    assert (np.abs(found.mean(0) - expected) < MAX_Z * found.std(0) / math.sqrt(n)).all()
    assert (np.abs(ends - starts) > math.pi).any()  # some went across the cut


def flawed(source, old, new):
    """Return the twin's `walk` with one deliberate bug."""
    import inspect

    text = inspect.getsource(demcz_numpy)
    assert old in text
    module = {"__name__": "flawed", "__file__": ""}
    exec(compile(text.replace(old, new), "flawed", "exec"), module)
    return module["walk"]


@pytest.mark.parametrize(
    ("chances", "old", "new"),
    [
        (SNOOKER, "0.5 * (len(x) - 1) * (log(new) - log(old))", "0.0"),
        (MIXTURE, "correction = q[c] - new_q", "correction = 0.0"),
        (MIXTURE, "correction = q[c] - new_q", "correction = new_q - q[c]"),
        (DIFFERENCE, "log(u) < power", "0.5 * log(u) < power"),
    ],
    ids=["snooker without Jacobian", "no Hastings term", "Hastings term reversed", "wrong accept"],
)
def test_the_invariance_test_sees_deliberate_bugs(chances, old, new, starts, archive, mixture):
    options = {"chances": chances, "archive": archive, "mixture": mixture, "first_kept": 15}
    ends = call(flawed(demcz_numpy, old, new), gaussian, starts[:4000], 15, **options)[-1]
    assert largest_z(ends) > 1.3 * MAX_Z


# --- what a step does ------------------------------------------------------------------------------------------------


def test_target_gets_python_floats_and_is_called_once_per_step(walk):
    kinds, calls = set(), []

    def kind(x, y):
        kinds.update({type(x), type(y)})
        calls.append(1)
        return 1.0

    counts = call(walk, kind, [[0.0, 0.0]] * 3, 50)[2]
    assert kinds == {float}
    assert counts[0] == len(calls) - 3 == 150


def test_archive_grows_by_all_chains_at_the_steps_asked_for(walk):
    draws, *_, archive, _ = call(walk, gaussian, [[0.5, 0.2], [0.3, 0.7]], 10, first_stored=3, store_every=4)
    np.testing.assert_array_equal(archive[20:], np.concatenate([draws[:, 2], draws[:, 6]]))


def test_exception_is_raised_or_handed_to_the_policy(walk):
    def failing(x, y):
        if x != 0:
            raise ArithmeticError("mine")
        return 1.0

    with pytest.raises(ArithmeticError) as caught:
        call(walk, failing, [[0.0, 0.0]], 10)
    assert caught.value.__notes__[0].startswith("raised by the target in failing(")
    seen = []
    draws = call(walk, failing, [[0.0, 0.0]], 10, on_error=lambda error, point, calls: seen.append((point, calls)))[0]
    assert [calls for _, calls in seen] == list(range(1, 11))
    assert (draws == 0).all()


def test_mixture_density_is_that_of_t_distributions():
    from scipy.stats import multivariate_t

    rng = np.random.default_rng(3)
    points = np.concatenate([rng.standard_normal((300, 2)), rng.standard_normal((300, 2)) * [1, 3] + 9])
    mixture = fit_mixture(points, rng)
    twin = demcz_numpy._Mixture(mixture.weights, mixture.means, mixture.factors)
    shapes = mixture.factors[0] @ mixture.factors[0].transpose(0, 2, 1)
    weights = np.diff(mixture.weights[0], prepend=0)
    at = points[::50] + 1
    exact = sum(
        w * multivariate_t(m, s, df=demcz_numpy.DOF).pdf(at)
        for w, m, s in zip(weights, mixture.means, shapes, strict=True)
    )
    ours = np.array([twin.log_density(point) for point in at.tolist()])
    np.testing.assert_allclose(ours - ours[0], np.log(exact) - np.log(exact[0]), rtol=1e-10, atol=1e-10)
    assert mixture.n_components == 3


def test_cholesky_is_numpys():
    rng = np.random.default_rng(0)
    roots = rng.standard_normal((5, 6, 6))
    covs = roots @ roots.transpose(0, 2, 1) + np.eye(6)
    np.testing.assert_allclose(cholesky(covs), np.linalg.cholesky(covs), rtol=1e-12, atol=1e-12)
