"""The operations that walk over entries in tiles: compiled against the NumPy twin, around the size of a tile."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pxtools.kernels import blasplan
from pxtools.kernels.blasplan import OPS, WIDTH

pytestmark = pytest.mark.skipif(blasplan.run_plan_compiled is None, reason="the kernels are not built here")

SIDES = st.one_of(st.integers(1, 9), st.sampled_from([31, 32, 33, 40, 64, 70]))
DTYPES = st.sampled_from([np.float64, np.float32])


def run(which, op, dtype, *, sizes=(0, 0), flags=(0, 0), a=(0, 0, 1), c=(0, 0, 1), scalars=(1.0, 0.0), buffers):
    """Run one line of a table on copies of the buffers; return them and what the operation said."""
    line = np.zeros((1, WIDTH), np.int64)
    line[0, :3] = OPS[op], *sizes
    line[0, 4:6] = flags
    line[0, 8:11], line[0, 14:17], line[0, 17:19] = a, c, (0, 1)
    buffers = [buffer.astype(dtype) for buffer in buffers]
    row, info = which(line, buffers, np.array(scalars, float), np.zeros(1, np.int32), dtype is np.float32)
    return buffers, (row, info)


def both(op, dtype, **given_):
    return [run(which, op, dtype, **given_) for which in (blasplan.run_plan_compiled, blasplan.run_plan_numpy)]


@settings(max_examples=120, deadline=None)
@given(
    SIDES, SIDES, DTYPES, st.tuples(st.booleans(), st.booleans()), st.sampled_from([(1, 0), (2, 0), (-0.5, 1), (1, 2)])
)
def test_sums_of_pieces_equal_the_twin(m, n, dtype, flags, scalars):
    transposed, lower = flags
    if lower:
        m = max(m, n)  # a lower triangle is that of a matrix at least as tall as wide
    rng = np.random.default_rng(m * 100 + n)
    ld_a, ld_c = (n if transposed else m) + 3, m + 2
    source, target = rng.standard_normal((m + n + 5) * 80), rng.standard_normal(ld_c * n + 7)
    if scalars[1] == 0:
        target[::2] = np.nan  # must be overwritten, not multiplied
    found, wanted = both(
        "axpby", dtype, sizes=(m, n), flags=flags, a=(0, 5, ld_a), c=(1, 7, ld_c),
        scalars=scalars, buffers=[source, target],
    )  # fmt: skip
    np.testing.assert_array_equal(found[0][1], wanted[0][1])


@settings(max_examples=60, deadline=None)
@given(SIDES, DTYPES, st.integers(0, 3))
def test_mirror_equals_the_twin_and_keeps_what_lies_around(n, dtype, around):
    buffer = np.random.default_rng(n).standard_normal((n + around) * n + 4)
    found, wanted = both("mirror", dtype, sizes=(0, n), c=(0, 4, n + around), buffers=[buffer])
    np.testing.assert_array_equal(found[0][0], wanted[0][0])


@pytest.mark.parametrize(("n", "dtype"), [(1, np.float64), (9, np.float32), (33, np.float64), (45, np.float32)])
def test_one_unequal_entry_is_found_wherever_it_stands(n, dtype):
    root = np.random.default_rng(n).standard_normal((n, n))
    even = root + root.T
    for gap, is_enough in ((1e-3, True), (1e-5, False), (np.nan, False)):
        for place in np.ndindex(n, n):
            matrix = even.copy()
            matrix[place] += gap
            _, said = run(
                blasplan.run_plan_compiled, "check", dtype, sizes=(0, n), a=(0, 0, n), scalars=(1e-4, 0.0),
                buffers=[matrix.ravel("F")],
            )  # fmt: skip
            assert said == ((0, 1) if is_enough and place[0] != place[1] else (-1, 0)), (gap, place)
