"""Every row of the conversion table, through a real engine; a result that the table does not say fails."""

from __future__ import annotations

import datetime as dt
import importlib.util
import shutil
import zoneinfo
from typing import Any

import numpy as np
import pytest

from pxtools.errors import PxError
from pxtools.languages.conversions import TABLE, Row
from pxtools.results import is_equal

pd = pytest.importorskip("pandas", reason='pandas is not installed: pip install "pxtools[r]"')

_RUNS = {
    "R": (shutil.which("R") is not None and importlib.util.find_spec("rpy2") is not None, "R and rpy2"),
    "Octave": (
        shutil.which("octave") is not None and importlib.util.find_spec("oct2py") is not None,
        "Octave and oct2py",
    ),
}


def evaluate(text: str) -> Any:
    return eval(text, {"np": np, "pd": pd, "dt": dt, "zoneinfo": zoneinfo})


def is_same(back: Any, expected: Any) -> bool:
    """Whether value, type and dtype agree, also inside containers."""
    if isinstance(expected, pd.DataFrame) and isinstance(back, pd.DataFrame):
        pd.testing.assert_frame_equal(back, expected, check_index_type=False, check_column_type=False)
        return True
    if isinstance(expected, pd.Series) and isinstance(back, pd.Series):
        pd.testing.assert_series_equal(back, expected)
        return True
    if isinstance(expected, list | tuple) and type(back) is type(expected):
        return len(back) == len(expected) and all(map(is_same, back, expected))
    if isinstance(expected, dict) and isinstance(back, dict):
        return list(back) == list(expected) and all(is_same(back[k], expected[k]) for k in expected)
    return is_equal(back, expected)


def as_plain(row: Row) -> str:
    return f"{row.language}: {row.value}"


@pytest.mark.parametrize("row", TABLE, ids=as_plain)
def test_a_round_trip_gives_what_the_table_says(row: Row, session: Any, shell: Any) -> None:
    runs, what = _RUNS[row.language]
    if not runs:
        pytest.skip(f"{what} are not installed")
    import pxtools

    shell.user_ns["v"] = evaluate(row.value)
    run = pxtools.r if row.language == "R" else pxtools.octave
    code = "back <- v" if row.language == "R" else "back = v;"

    def there_and_back() -> Any:
        return run(code, inputs={"v": "v"}, outputs={"back": "back"}, targets=0)["back"][0]

    if row.back.startswith("!"):
        with pytest.raises(PxError) as caught:
            there_and_back()
        assert str(caught.value).startswith(row.back[1:])
        return
    expected = evaluate(row.value if row.back == "=" else row.back)
    back = there_and_back()
    assert is_same(back, expected), f"{back!r} ({type(back).__name__}, {getattr(back, 'dtype', '')}), not {expected!r}"


def test_every_changed_value_has_a_note() -> None:
    assert [row.value for row in TABLE if row.back != "=" and not row.note] == []


def test_no_module_of_r_or_octave_is_loaded_here() -> None:
    import sys

    assert not [name for name in sys.modules if name.partition(".")[0] in ("rpy2", "oct2py")]
