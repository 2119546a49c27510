"""A notebook in which no engines can be had."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def no_cluster(session: Any, shell: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give the shell's magics a session of their own whose cluster file is missing."""
    from pxtools.magics.common import PxMagics
    from pxtools.session.core import Session

    monkeypatch.setenv("PXTOOLS_CLUSTER_FILE", str(tmp_path / "gone.json"))
    alone = Session(shell.user_ns, notify=session.notices.append)
    magics = [m for m in shell.magics_manager.registry.values() if isinstance(m, PxMagics)]
    for magic in magics:
        magic.session = alone
    yield alone
    for magic in magics:
        magic.session = session
