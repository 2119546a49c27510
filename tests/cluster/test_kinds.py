"""Launchers and their options: what is typed after `--engines` and `-O`; and why engines did not come."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from pxtools.engines import hosts, trouble
from pxtools.engines.kinds import find_kind, known_kinds, read_options
from pxtools.errors import PxClusterError, PxUsageError
from pxtools.remote import pickling
from pxtools.session.core import Session
from pxtools.session.hosts import differences
from pxtools.session.run import Cell, run


def test_every_launcher_of_ipyparallel_is_known() -> None:
    assert {"local", "mpi", "ssh", "sshproxy", "slurm", "pbs", "sge", "lsf", "htcondor"} <= set(known_kinds())
    assert all(find_kind(name).launcher for name in known_kinds())
    path = "ipyparallel.cluster.launcher.SlurmEngineSetLauncher"
    assert find_kind(path).launcher is find_kind("Slurm").launcher
    assert [name for name in known_kinds() if find_kind(name).is_batch] == "batch htcondor lsf pbs sge slurm".split()


@pytest.mark.parametrize(
    ("kind", "typed", "read"),
    [
        ("mpi", ["mpi_args=-x A --oversubscribe"], {"mpi_args": ["-x", "A", "--oversubscribe"]}),
        ("mpi", ["mpi_args='--tag a b'", "mpi_args=c"], {"mpi_args": ["--tag", "a", "b", "c"]}),
        ("mpi", ["mpi_cmd=['my mpiexec', '-q']"], {"mpi_cmd": ["my mpiexec", "-q"]}),
        ("mpi", ["environment=A=1,B=x=y"], {"environment": {"A": "1", "B": "x=y"}}),
        ("mpi", ["environment={'A': '1'}"], {"environment": {"A": "1"}}),
        ("slurm", ["queue=short", "stop_timeout=5"], {"queue": "short", "stop_timeout": 5}),
        ("slurm", ["options=--mem=4G --gres=gpu:1"], {"submit_command": ["sbatch", "--mem=4G", "--gres=gpu:1"]}),
        ("ssh", ["hosts=a=1,me@b:2222=2"], {"engines": {"a": "1", "me@b:2222": "2"}, "scp_args": []}),
        (
            "ssh",
            ["ssh_args=-p 2222 -i key"],
            {"ssh_args": "-p 2222 -i key".split(), "scp_args": "-P 2222 -i key".split()},
        ),
        ("ssh", {"engines": {"a": 3}}, {"engines": {"a": 3}, "scp_args": []}),
    ],
)
def test_options_are_read_as_their_launcher_wants_them(kind: str, typed: Any, read: dict[str, Any]) -> None:
    assert read_options(find_kind(kind), typed) == read


@pytest.mark.parametrize(
    ("kind", "typed", "words"),
    [
        ("mpi", "mpi_arg=x", "mpi engines have no option `mpi_arg`. Did you mean `mpi_args`"),
        ("mpi", "mpi_args", "`-O mpi_args` gives no value"),
        ("mpi", "mpi_cmd=['a", r"`-O mpi_cmd=\['a` cannot be read"),
        ("slurm", "stop_timeout=soon", "`-O stop_timeout=soon` cannot be read"),
        ("slurm", "hosts=a=1", "slurm engines have no option `hosts`"),
    ],
)
def test_options_that_do_not_exist_or_cannot_be_read_are_named(kind: str, typed: str, words: str) -> None:
    with pytest.raises(PxUsageError, match=words):
        read_options(find_kind(kind), [typed])


def test_hosts_are_filled_evenly_up_to_their_numbers() -> None:
    def counts(n: int, places: dict[str, Any], taken: dict[str, int]) -> dict[str, int]:
        return {host: said["n"] for host, said in hosts.share_out(n, places, taken).items()}

    assert counts(4, {"a": "1", "b": "9"}, {}) == {"a": 1, "b": 3}
    assert counts(3, {"a": "", "b": ""}, {}) == {"a": 2, "b": 1}
    assert counts(2, {"a": 2, "b": 2}, {"a": 2}) == {"b": 2}
    assert hosts.n_slots({"a": "1", "b": 4}) == 5
    assert hosts.n_slots({"a": "", "b": 4}) is None
    with pytest.raises(PxUsageError, match="2 more engines are wanted, and the hosts have 1 places left"):
        counts(2, {"a": 1}, {})
    with pytest.raises(PxUsageError, match="how many engines"):
        hosts.slots({"a": "many"})


def test_the_line_that_tells_most_is_known_else_suspicious_else_last() -> None:
    known = "ModuleNotFoundError: No module named 'mpi4py'"
    assert trouble.telling_line(["start", known, "KeyError: 1", "end"]) == (2, known)
    assert trouble.telling_line(["start", "KeyError: 1", "goodbye", ""]) == (2, "KeyError: 1")
    assert trouble.telling_line(["start", "goodbye", ""]) == (2, "goodbye")
    assert trouble.telling_line([]) is None
    assert "pip install 'pxtools[mpi]'" in trouble.advice(known)[0]


def test_a_missing_program_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    session = Session({}, notify=lambda line: None)
    with pytest.raises(
        PxClusterError, match=r"no program `mpiexec` on this machine. Debian: `apt-get install openmpi-bin"
    ):
        session.start(1, engines="mpi")
    assert not session.is_connected


def test_engines_that_end_at_once_are_not_waited_for_and_their_log_is_kept() -> None:
    session = Session({}, notify=lambda line: None)
    with pytest.raises(PxClusterError, match="the rest have ended") as caught:
        session.start(1, launcher_options={"engine_cmd": [sys.executable, "-c", "raise SystemExit('error: no disk')"]})
    file, number = re.findall(r"(\S+pxtools-failed-\S+\.log), line (\d+): error: no disk", str(caught.value))[0]
    assert Path(file).expanduser().read_text().splitlines()[int(number) - 1] == "error: no disk"


#: stands in for the commands of a batch system: runs what it is given at once, as often as the script asks
QSUB = """#!{python}
import re, subprocess, sys, pathlib
script = pathlib.Path(sys.argv[1]).read_text() if len(sys.argv) > 1 else sys.stdin.read()
n = int((re.search(r"-t 1-(\\d+)", script) or re.search(r"ipengine\\[1-(\\d+)\\]", script))[1])
here = pathlib.Path(__file__).parent
(here / "script").write_text(script)
log = open(here / "log", "w")
jobs = [subprocess.Popen(["sh", here / "script"], stdout=log, stderr=log, start_new_session=True) for _ in range(n)]
(here / "pids").write_text(" ".join(str(job.pid) for job in jobs))
print("Job <17.head> is submitted")
"""

QDEL = """#!{python}
import os, pathlib, signal, sys
assert sys.argv[1] in ("17", "17.head"), sys.argv
for pid in (pathlib.Path(__file__).parent / "pids").read_text().split():
    os.killpg(int(pid), signal.SIGKILL)
"""


@pytest.mark.parametrize(("kind", "commands"), [("pbs", ("qsub", "qdel")), ("lsf", ("bsub", "bkill"))])
def test_other_batch_systems_get_their_script_and_are_told_to_end(
    kind: str, commands: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in zip(commands, (QSUB, QDEL), strict=True):
        (tmp_path / name).write_text(text.format(python=sys.executable))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    lines: list[str] = []
    session = Session({}, notify=lines.append)
    options = {"launcher_options": ["queue=night"], "controller_ip": "127.0.0.1"}
    session.start(1, engines=kind, **options, min_engines=1, timeout_s=60)
    assert session.wire.ids == [0]
    assert "night" in (tmp_path / "script").read_text()
    pid = session.wire.engines[0]["pid"]
    session.stop()
    assert (tmp_path / "pids").read_text()
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(timeout=20)  # raises if it is still there


def engine(**said: str) -> dict[str, str]:
    import platform

    import numpy

    here = {"python": platform.python_version(), "numpy": numpy.__version__}
    return {**here, "machine": f"{platform.system()} {platform.machine()}", **said}


def test_engines_with_other_versions_are_told_of_in_one_line() -> None:
    assert differences({0: engine(), 1: engine()}) == ""
    line = differences({0: engine(), 1: engine(numpy="1.26.4"), 2: engine(numpy="1.26.4")})
    assert line.startswith("versions differ (engines 1-2: NumPy 1.26.4; here: NumPy ")
    assert "Functions" not in line
    line = differences({0: engine(python="3.99.1", machine="Linux aarch64")})
    assert "engine 0: Python 3.99.1 and platform Linux aarch64; here: Python 3." in line
    assert line.endswith("Functions cannot go there, cells can.")
    assert "\n" not in line


def test_a_function_of_another_python_is_refused_before_its_code_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec("def f(x): return x", namespace)
    with monkeypatch.context() as patch:
        patch.setattr(pickling._Python, "__reduce__", lambda self: (pickling.same_python, ((3, 99),)))
        packed = pickling.pack(namespace["f"], namespace)
    with pytest.raises(TypeError, match=r"functions of Python 3\.99 cannot run in Python 3"):
        pickling.unpack(packed, namespace, {})


OTHER = os.environ.get("PXTOOLS_TEST_PYTHON", "")


@pytest.mark.skipif(not OTHER, reason="PXTOOLS_TEST_PYTHON names no other Python (with ipyparallel and NumPy)")
def test_an_engine_of_another_python_runs_cells_and_refuses_functions() -> None:
    lines: list[str] = []
    session = Session({"__name__": "__main__", "offset": 4}, notify=lines.append)
    session.start(1, launcher_options={"engine_cmd": [OTHER, "-m", "ipyparallel.engine"]})
    try:
        assert any(line.startswith("versions differ (engine 0: Python ") for line in lines)
        assert list(run(session, Cell("def g(x): return x + offset\ng(px_rank)")).last) == [4]
        exec("def f(x): return x + offset", session.namespace)
        error = run(session, Cell("f(1)")).error
        assert isinstance(error, TypeError)
        assert "functions of Python" in str(error)
        assert list(run(session, Cell("px_size")).last) == [1]
    finally:
        session.stop()
