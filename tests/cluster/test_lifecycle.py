"""Clusters that come, change and go: each test starts its own small one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipyparallel as ipp
import psutil
import pytest

from pxtools.engines import start
from pxtools.errors import PxClusterError, PxInterrupted
from pxtools.session import state
from pxtools.session.core import Session
from pxtools.session.run import Cell, run


@pytest.fixture
def own() -> Iterator[Session]:
    """A session without a cluster; whatever it starts is stopped."""
    session = Session({"__name__": "__main__"}, notify=lambda line: None)
    yield session
    session.disconnect()


@pytest.fixture(scope="module")
def pair() -> Iterator[Session]:
    """Two engines of its own, for tests that leave them as they were."""
    session = Session({"__name__": "__main__"}, notify=lambda line: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OMP_NUM_THREADS", raising=False)
        session.start(2)
    yield session
    session.disconnect()


@pytest.fixture(scope="module")
def foreign() -> Iterator[Any]:
    """A cluster that somebody else started."""
    connection = start(1)
    yield connection
    connection.close()


def values(session: Session, code: str) -> list[Any]:
    result = run(session, Cell(code))
    if result.error is not None:
        raise result.error
    return list(result.last)


def test_new_engines_get_the_imports_and_names_that_the_old_ones_hold(own: Session) -> None:
    own.start(1)
    own.namespace.update(offset=4, CONSTANT=1)
    state.import_(own, "from math import sqrt as root")
    state.push(own, ["offset", "CONSTANT"])
    state.push(own, (), {"CONSTANT": 7})
    assert own.resize(2) == [0, 1]
    assert state.collect(own, "(root(offset), CONSTANT)", how="list") == [(2.0, 7), (2.0, 7)]
    assert own.resize(1) == [0]
    new = own.restart()
    assert len(new) == 1
    assert new != [0]
    assert own.restart(new[0]) != new
    assert state.collect(own, "(root(offset), CONSTANT)", how="list") == [(2.0, 7)]


def test_an_engine_that_stalls_for_five_seconds_is_not_lost(pair: Session) -> None:
    pid = pair.wire.engines[1]["pid"]
    os.kill(pid, signal.SIGSTOP)
    time.sleep(5)
    os.kill(pid, signal.SIGCONT)
    time.sleep(0.3)  # a look at the processes is good for a fifth of a second
    assert values(pair, "px_rank") == [0, 1]


def test_local_engines_share_the_cores_among_their_blas_threads(pair: Session) -> None:
    share = str(max(1, (os.cpu_count() or 1) // 2))
    assert values(pair, "import os; os.environ['OMP_NUM_THREADS']") == [share, share]


def test_an_interrupt_leaves_the_engines_idle_and_is_raised_here(pair: Session) -> None:
    def press_ctrl_c(call: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(PxInterrupted, match="engines 0-1 were interrupted") as caught:
        run(pair, Cell("import time; time.sleep(60)"), tick=press_ctrl_c)
    assert isinstance(caught.value, KeyboardInterrupt)
    assert len(caught.value._render_traceback_()) == 1
    assert values(pair, "px_rank") == [0, 1]


def test_a_stop_that_is_interrupted_leaves_no_process(pair: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = pair.connection.cluster
    pids = [cluster.controller.pid, *(said["pid"] for said in pair.wire.engines.values())]

    def press_ctrl_c() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cluster, "stop_engines_sync", press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        pair.disconnect()
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=10)
    assert alive == []


def test_a_cluster_of_somebody_else_is_never_stopped(own: Session, foreign: Any) -> None:
    own.connect(file=foreign.cluster.cluster_file)
    assert values(own, "px_size") == [1]
    own.disconnect()
    assert foreign.client[:].apply_sync(lambda: 5) == [5]


def test_a_connection_file_serves_but_cannot_resize(own: Session, foreign: Any) -> None:
    folder = Path(foreign.cluster.profile_dir) / "security"
    (file,) = folder.glob(f"ipcontroller-{foreign.cluster.cluster_id}-client.json")
    own.connect(file=str(file))
    assert values(own, "px_size") == [1]
    with pytest.raises(PxClusterError, match=r"cluster-\*\.json"):
        own.resize(2)


def test_the_cluster_file_variable_is_found_before_a_client_of_the_notebook(
    own: Session, foreign: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PXTOOLS_CLUSTER_FILE", foreign.cluster.cluster_file)
    assert values(own, "px_size") == [1]
    assert own.connection.origin == foreign.cluster.cluster_file


def test_a_client_that_the_notebook_made_is_used(own: Session, foreign: Any) -> None:
    own.namespace["rc"] = foreign.client
    assert values(own, "px_size") == [1]
    assert own.client is foreign.client
    own.disconnect()
    assert foreign.client[:].apply_sync(lambda: 5) == [5]


def test_a_cluster_of_the_default_profile_is_found(own: Session) -> None:
    cluster = ipp.Cluster(n=1, cluster_id="", controller_args=["--ping=100"], delay=0, log_level=50)
    cluster.start_cluster_sync()
    try:
        client = cluster.connect_client_sync()
        client.wait_for_engines(1, interactive=False)
        client.close()
        assert values(own, "px_size") == [1]
        assert "default profile" in own.connection.origin
        own.disconnect()
        assert cluster.controller.running
    finally:
        own.disconnect()
        cluster.stop_cluster_sync()


def test_a_missing_file_is_an_error_that_says_which_files_are_meant(own: Session) -> None:
    with pytest.raises(PxClusterError, match=r"no file nowhere\.json"):
        own.connect(file="nowhere.json")


def test_an_unknown_launcher_is_an_error(own: Session) -> None:
    with pytest.raises(PxClusterError, match="no engines of the kind `nonsense`"):
        own.start(1, engines="nonsense")


def test_engines_without_pxtools_get_its_code_over_the_wire(own: Session, foreign: Any) -> None:
    foreign.client[:].apply_sync(_hide_pxtools)
    own.namespace["factor"] = 3
    own.connect(file=foreign.cluster.cluster_file)
    assert values(own, "import sys; sys.modules['pxtools.remote.engine'].__spec__.loader.__class__.__name__") == [
        "ShippedFinder"
    ]
    own.namespace["triple"] = eval("lambda x: factor * x", own.namespace)
    assert values(own, "triple(5)") == [15]


def test_when_a_guest_is_killed_the_cluster_lives_and_the_next_one_finds_its_names(own: Session, foreign: Any) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", GUEST, foreign.cluster.cluster_file], stdout=subprocess.PIPE, text=True
    ) as guest:
        assert guest.stdout is not None
        while "pushed" not in guest.stdout.readline():
            assert guest.poll() is None
        guest.kill()
    lines: list[str] = []
    own.notify = lines.append
    own.connect(file=foreign.cluster.cluster_file)
    assert [line for line in lines if "uses these engines" in line] == []
    assert state.who(own)["left_behind"][0]["type"] == "int"
    assert state.collect(own, "left_behind", how="list") == [41]


GUEST = """
import sys, time, pxtools
pxtools.connect(file=sys.argv[1])
pxtools.push(left_behind=41)
print("pushed", flush=True)
time.sleep(600)
"""


def _hide_pxtools() -> None:
    import os
    import sys

    for name in [n for n in sys.modules if n.partition(".")[0] in ("pxtools", "cloudpickle")]:
        del sys.modules[name]
    os.chdir("/")

    class Blindfold:
        """Finds nothing of pxtools, as on an engine where it was never installed."""

        def __init__(self, finder):
            self.finder = finder

        def find_spec(self, name, *rest):
            return None if name.partition(".")[0] == "pxtools" else self.finder.find_spec(name, *rest)

        def __getattr__(self, name):
            return getattr(self.finder, name)

    sys.meta_path[:] = [Blindfold(finder) for finder in sys.meta_path]


_hide_pxtools.__module__ = "__main__"  # ipyparallel then sends it whole


SCRIPT = """
import os, signal, sys
from IPython.core.interactiveshell import InteractiveShell
import psutil
shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "pxtools")
shell.run_cell("%pxcluster start -n 1")
shell.run_cell("%pxrun x = 1")
shell.run_cell("%pxrun from pxtools.remote.leftovers import vanishing_folder as f; folder = str(f('pxtools test-'))")
shell.run_cell("import pxtools; print('folders', folder[0], pxtools.api.current_session().wire.folder, sep='|')")
print("started", *[p.pid for p in psutil.Process().children(recursive=True)], flush=True)
if sys.argv[1] != "exit":
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))
"""


def until_gone(folders: list[str], deadline: float) -> list[str]:
    """Wait until the folders are gone; return those that stay."""
    while any(map(os.path.exists, folders)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [folder for folder in folders if os.path.exists(folder)]


@pytest.mark.parametrize("end", ["exit", "SIGTERM", "SIGKILL"])
def test_nothing_survives_the_interpreter(end: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script), end], capture_output=True, text=True, timeout=120, check=False)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("started")]
    pids = [int(word) for word in line.split()[1:]]
    assert len(pids) >= 3
    deadline = time.monotonic() + 10
    while any(map(psutil.pid_exists, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [pid for pid in pids if psutil.pid_exists(pid)] == []
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("folders")]
    assert until_gone(line.split("|")[1:], deadline) == []
    assert "Traceback" not in done.stderr
    assert "Stopping" not in done.stderr


def test_two_clients_on_one_cluster_are_told_of_each_other(own: Session, foreign: Any) -> None:
    there = subprocess.Popen(
        [sys.executable, "-c", OTHER, foreign.cluster.cluster_file],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert there.stdout is not None
    assert there.stdin is not None
    while "ready" not in there.stdout.readline():
        assert there.poll() is None
    lines: list[str] = []
    own.notify = lines.append
    own.connect(file=foreign.cluster.cluster_file)
    there.stdin.close()
    there.wait(timeout=30)
    there.stdout.close()
    assert [line for line in lines if f"process {there.pid} of this host uses these engines, too" in line]
    own.disconnect()
    lines.clear()
    own.connect(file=foreign.cluster.cluster_file)
    assert [line for line in lines if "uses these engines" in line] == []


OTHER = """
import sys, pxtools
pxtools.connect(file=sys.argv[1])
print("ready", flush=True)
sys.stdin.read()
"""
