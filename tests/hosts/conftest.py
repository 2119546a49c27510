"""Other hosts, made here: network namespaces with a host name and an sshd of their own; a queue with one node."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pxtools.session.core import Session

#: addresses of a network that ends at this machine
NETWORK = "10.231.77"
HOSTS = {"alpha": f"{NETWORK}.11", "beta": f"{NETWORK}.12"}
PORT = 2222


def run(*command: str, check: bool = True) -> str:
    """Run a command; return what it said."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def lacking(*programs: str) -> str:
    """Return why tests that need root and some programs are skipped; empty if they are not."""
    if os.geteuid():
        return "needs root, to make other hosts on this machine"
    missing = [program for program in programs if shutil.which(program) is None]
    return (
        f"needs {', '.join(missing)} (Debian as root: make setup installs it where no services run)" if missing else ""
    )


@dataclass(frozen=True)
class Network:
    """Two hosts that are reached by ssh."""

    folder: Path
    #: what `%pxcluster start --engines ssh` needs to reach them
    options: dict[str, Any]
    #: where they reach this host
    address: str


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Two hosts, `alpha` and `beta`, each with its own network, host name and sshd."""
    reason = lacking("ip", "unshare", "sshd", "ssh", "ssh-keygen")
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("ssh")
    with contextlib.ExitStack() as at_end:
        try:
            made = _make_network(folder, at_end)
        except RuntimeError as error:
            pytest.skip(f"this machine cannot make network namespaces: {error}")
        yield made


def _make_network(folder: Path, at_end: contextlib.ExitStack) -> Network:
    mark = f"px{os.getpid() % 100000}"
    for key in ("user", "host"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key))
    run("ip", "link", "add", mark, "type", "bridge")
    at_end.callback(run, "ip", "link", "del", mark, check=False)
    run("ip", "address", "add", f"{NETWORK}.1/24", "dev", mark)
    run("ip", "link", "set", mark, "up")
    Path("/run/sshd").mkdir(exist_ok=True)  # where sshd goes to be without rights
    (folder / "sshd_config").write_text(_SSHD.format(folder=folder, port=PORT))
    host_key = (folder / "host.pub").read_text().split()[:2]
    known, config = [], []
    for name, address in HOSTS.items():
        at_end.callback(_unplug, f"{mark}{name}")
        _plug_in(f"{mark}{name}", mark, name, address)
        _serve(f"{mark}{name}", name, folder, at_end)
        known.append(f"[{address}]:{PORT} {' '.join(host_key)}")
        config.append(f"Host {name}\n  HostName {address}\n")
    (folder / "known_hosts").write_text("\n".join(known) + "\n")
    (folder / "ssh_config").write_text("".join(config) + _SSH.format(folder=folder, port=PORT))
    shutil.copy(folder / "user.pub", folder / "authorized_keys")
    return Network(folder, {"ssh_args": ["-F", str(folder / "ssh_config")]}, f"{NETWORK}.1")


_SSHD = """Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
MaxStartups 100
"""

_SSH = """Host *
  Port {port}
  IdentityFile {folder}/user
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
  LogLevel ERROR
"""


def _plug_in(namespace: str, bridge: str, name: str, address: str) -> None:
    inside = ("ip", "-n", namespace)
    cable = f"{bridge}{name[0]}"
    run("ip", "netns", "add", namespace)
    run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", namespace)
    run("ip", "link", "set", cable, "master", bridge, "up")
    run(*inside, "address", "add", f"{address}/24", "dev", "eth0")
    run(*inside, "link", "set", "eth0", "up")
    run(*inside, "link", "set", "lo", "up")


def _unplug(namespace: str) -> None:
    for pid in run("ip", "netns", "pids", namespace, check=False).split():  # engines that a failed test left
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), 9)
    run("ip", "netns", "del", namespace, check=False)


def _serve(namespace: str, name: str, folder: Path, at_end: contextlib.ExitStack) -> None:
    sshd = shutil.which("sshd")
    command = f"hostname {name} && exec {sshd} -D -e -f {folder}/sshd_config"
    with (folder / f"sshd-{name}.log").open("w") as log:
        process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, "unshare", "--uts", "sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    at_end.callback(process.wait)
    at_end.callback(process.terminate)
    deadline = time.monotonic() + 20
    while "Server listening" not in (folder / f"sshd-{name}.log").read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError((folder / f"sshd-{name}.log").read_text())
        time.sleep(0.05)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Slurm of our own, with this host as its one node of 4 processors; gives its folder."""
    reason = lacking("slurmctld", "slurmd", "munged", "sbatch", "srun")
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("slurm")
    with contextlib.ExitStack() as at_end:
        try:
            _start_slurm(folder, at_end)
        except RuntimeError as error:
            pytest.skip(f"Slurm does not run on this machine: {error}")
        yield folder


def _start_slurm(folder: Path, at_end: contextlib.ExitStack) -> None:
    for name in ("state", "spool", "run"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o600)
    host, *ports = run("hostname", "-s").strip(), *(str(_free_port()) for _ in range(2))
    (folder / "slurm.conf").write_text(_SLURM.format(folder=folder, host=host, ports=ports))
    files = {"key-file": "munge.key", "socket": "run/munge", "pid-file": "run/munged.pid"}
    files |= {"log-file": "munged.log", "seed-file": "munge.seed"}
    daemons = {
        "munged": ["--foreground", "--force", *(f"--{option}={folder / file}" for option, file in files.items())],
        "slurmctld": ["-D", "-i", "-f", str(folder / "slurm.conf")],
        "slurmd": ["-D", "-f", str(folder / "slurm.conf")],
    }
    patch = pytest.MonkeyPatch()
    at_end.callback(patch.undo)
    patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    for name, arguments in daemons.items():
        with (folder / f"{name}.out").open("w") as log:
            process = subprocess.Popen([str(shutil.which(name)), *arguments], stdout=log, stderr=log)
        at_end.callback(process.wait)
        at_end.callback(process.terminate)
        if name == "munged":
            _until((folder / "run" / "munge").exists, folder / "munged.out")
    at_end.callback(run, "scancel", "--user=root", check=False)  # jobs that a failed test left
    _until(lambda: "idle" in run("sinfo", "-h", "-o", "%T", check=False), folder / "slurmctld.out")


def _until(is_so: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        if time.monotonic() > deadline:
            raise RuntimeError(log.read_text()[-500:])
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


_SLURM = """ClusterName=px
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
KillWait=2
SchedulerParameters=batch_sched_delay=0,sched_interval=1
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=1000 State=UNKNOWN
PartitionName=px Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def killed_notebook(*lines: str) -> str:
    """Run lines in a notebook that is then killed; return the id of the cluster that it started."""
    cells = "\n".join(f"shell.run_cell({line!r})" for line in lines)
    done = subprocess.run(
        [sys.executable, "-c", _NOTEBOOK.format(cells=cells)], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    (cluster_id,) = re.findall(r"`%pxcluster connect --cluster-id (\S+)` finds it", done.stdout)
    return str(cluster_id)


_NOTEBOOK = """
import os, signal
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "pxtools")
{cells}
print(flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def own() -> Iterator[Session]:
    """A session without a cluster, whose lines are in `.notices`; whatever it starts is stopped."""
    notices: list[str] = []
    session = Session({"__name__": "__main__"}, notify=notices.append)
    session.notices = notices  # type: ignore[attr-defined]
    yield session
    session.stop()


@pytest.fixture
def values() -> Callable[[Session, str], list[Any]]:
    """Run code on the engines of a session; return the last value of each."""
    from pxtools.session.run import Cell
    from pxtools.session.run import run as run_cell

    def run_it(session: Session, code: str) -> list[Any]:
        result = run_cell(session, Cell(code))
        if result.error is not None:
            raise result.error
        return list(result.last)

    return run_it


@pytest.fixture
def supercomputer(shell: Any, cell: Callable[[str], Any], capsys: Any) -> Iterator[Callable[..., tuple[str, str]]]:
    """Run the cells of `examples/supercomputer.ipynb` on local engines and on those of a session.

    Returns the numbers with which it ends. Cells that start, stop, or need MPI are tagged; the first two are left out.
    """
    import nbformat

    from pxtools.magics.common import PxMagics

    notebook: Any = nbformat.read(Path(__file__).parents[2] / "examples" / "supercomputer.ipynb", as_version=4)
    cells = [(part.source, set(part.metadata.get("tags", ()))) for part in notebook.cells if part.cell_type == "code"]
    magics = [m for m in shell.magics_manager.registry.values() if isinstance(m, PxMagics)]
    usual = magics[0].session

    def run_on(session: Session, left_out: set[str]) -> str:
        session.namespace = shell.user_ns
        for magic in magics:
            magic.session = session
        capsys.readouterr()
        for source, tags in cells:
            if not tags & left_out and "load_ext" not in source:
                cell(source)
        (fingerprint,) = re.findall(r"draws, shares and product: (\w{16})", capsys.readouterr().out)
        return str(fingerprint)

    def run_on_both(session: Session, *, has_mpi: bool = False) -> tuple[str, str]:
        here = run_on(usual, {"start", "stop", "mpi"})
        return here, run_on(session, {"start", "stop"} if has_mpi else {"start", "stop", "mpi"})

    yield run_on_both
    for magic in magics:
        magic.session = usual
