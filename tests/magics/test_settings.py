"""`%config PxTools` through a real shell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pxtools.errors import PxUsageError


@pytest.fixture(autouse=True)
def restored(session: Any, shell: Any) -> Iterator[None]:
    (config,) = [c for c in shell.configurables if type(c).__name__ == "PxTools"]
    before = {name: getattr(config, name) for name in config.class_own_traits(config=True)}
    yield
    for name, value in before.items():
        setattr(config, name, value)


def test_config_lists_and_sets_the_session_s_settings(session: Any, cell: Any, capsys: Any) -> None:
    cell("%config PxTools")
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("engines", "push_limit", "collect_limit", "never_push", "progress"))
    cell("%config PxTools.push_limit = 1000")
    assert session.settings.push_limit == 1000
    cell("import numpy as np\nbig = np.zeros(1000)")
    with pytest.raises(PxUsageError, match="push_limit"):
        cell("%pxrun big.sum()")


def test_names_that_match_never_push_stay_here(cell: Any, capsys: Any) -> None:
    cell("%config PxTools.never_push = ('secret_*',)")
    cell("secret_key = 5")
    with pytest.raises(NameError, match="secret_key"):
        cell("%pxrun secret_key + 1")
    assert "never_push" in capsys.readouterr().out


@pytest.mark.parametrize("line", ["push_limit = -1", "engines = 'two'", "never_push = (1,)"])
def test_wrong_values_are_refused_and_nothing_changes(line: str, session: Any, cell: Any) -> None:
    before = session.settings.push_limit, session.settings.engines, session.settings.never_push
    cell(f"%config PxTools.{line}")  # IPython says it in one line
    assert (session.settings.push_limit, session.settings.engines, session.settings.never_push) == before
