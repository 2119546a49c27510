"""One real cluster for the whole session, in private directories, and nothing left behind."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_PRIVATE = tempfile.mkdtemp(prefix="pxtools-tests-")
os.environ["IPYTHONDIR"] = str(Path(_PRIVATE) / "ipython")
os.environ["XDG_CACHE_HOME"] = str(Path(_PRIVATE) / "cache")
os.environ["MPLBACKEND"] = "agg"
os.environ.pop("PXTOOLS_CLUSTER_FILE", None)

N_ENGINES = 4

#: The suite in two halves of about equal time, which `make test` runs beside each other. They are fixed, not xdist's
#: choice of the moment: each test always runs after the same tests, so that what fails once fails again.
_FIRST_HALF = ("tests/clients/", "tests/cluster/", "tests/hosts/")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each half to a process of its own."""
    from xdist.scheduler import LoadScopeScheduling

    class Halves(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "first" if nodeid.startswith(_FIRST_HALF) else "second"

    return Halves(config, log)


@pytest.fixture(scope="session")
def shell() -> Iterator[Any]:
    """A real IPython shell with pxtools loaded."""
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "pxtools")
    yield shell
    shell.run_line_magic("unload_ext", "pxtools")
    InteractiveShell.clear_instance()


@pytest.fixture(scope="session")
def cluster_session(shell: Any) -> Any:
    """The shell's session on `N_ENGINES` local engines."""
    import pxtools

    session = pxtools.current_session()
    session.start(N_ENGINES)
    return session


@pytest.fixture
def session(cluster_session: Any, shell: Any) -> Iterator[Any]:
    """The session with an empty notebook and empty engines; lines that it notifies are in `session.notices`."""
    from pxtools.session.state import clear

    before = set(shell.user_ns)
    clear(cluster_session)
    cluster_session.notices = []
    usual, cluster_session.notify = cluster_session.notify, cluster_session.notices.append
    yield cluster_session
    cluster_session.notify = usual
    for name in set(shell.user_ns) - before:
        del shell.user_ns[name]


@pytest.fixture
def cell(session: Any, shell: Any) -> Callable[[str], Any]:
    """Run a cell as a user would type it; return its value, or raise what it raised."""

    def run(source: str) -> Any:
        result = shell.run_cell(source, store_history=False)
        if result.error_before_exec or result.error_in_exec:
            raise result.error_before_exec or result.error_in_exec
        return result.result

    return run
