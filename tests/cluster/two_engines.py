"""Two engines that the tests of a module share, though some of them kill one; import the three fixtures."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psutil
import pytest

from pxtools.session.core import Session

N = 2


@pytest.fixture(scope="module")
def module_session() -> Iterator[Session]:
    session = Session({"__name__": "__main__"}, notify=lambda line: None)
    session.start(N)
    yield session
    session.disconnect()


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def session(module_session: Session, lines: list[str]) -> Session:
    """`N` healthy engines; what is notified is in `lines`."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not all(
        is_running(module_session.wire.engines[i]["pid"]) for i in module_session.wire.ids
    ):
        time.sleep(0.1)  # the cluster has yet to see that one was killed
    module_session.namespace.clear()
    module_session.namespace["__name__"] = "__main__"
    module_session.notify = lambda line: None
    module_session.resize(N)
    module_session.notify = lines.append
    return module_session


def is_running(pid: int) -> bool:
    """Return whether a process is there that has not ended: the dead stay listed until their parent has looked."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
