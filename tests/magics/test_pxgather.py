"""`%pxgather`'s own errors; what it restores is tested with `%pxscatter`."""

from __future__ import annotations

from typing import Any

import pytest

from pxtools.errors import PxNameError, PxUsageError


def test_an_unknown_name_is_named(cell: Any) -> None:
    with pytest.raises(PxNameError, match="`nowhere` is on no engine"):
        cell("%pxgather nowhere")


def test_a_name_that_only_the_notebook_has_is_to_be_scattered_first(cell: Any) -> None:
    cell("steps = list(range(9))")
    with pytest.raises(PxNameError, match=r"`steps` is on no engine. Run `%pxscatter steps` first") as raised:
        cell("%pxgather steps")
    assert "pxpush" not in str(raised.value)
    cell("%pxscatter steps")
    assert cell("%pxgather steps") == list(range(9))


def test_it_wants_a_name(cell: Any) -> None:
    with pytest.raises(PxUsageError, match="%pxgather A"):
        cell("%pxgather")
    with pytest.raises(PxUsageError, match="no option"):
        cell("%pxgather --nonsense A")


def test_the_result_is_bound_when_asked(cell: Any, shell: Any) -> None:
    cell("%pxscatter a=range(9)")
    cell("%pxgather -o whole a")
    assert shell.user_ns["whole"] == list(range(9))
