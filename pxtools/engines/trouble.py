"""Why engines did not come: which log says so, in which line, and what to type."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from pxtools.engines.kinds import kind_of
from pxtools.errors import PxClusterError

#: what a log says -> what to do about it; the first that is found is the line to show
_KNOWN = (
    (r"run as root", 'Root has to say that it means it: `-O mpi_args="--allow-run-as-root"`.'),
    (r"not enough slots", 'More engines than cores: `-O mpi_args="--oversubscribe"`, or fewer with `-n`.'),
    (r"No module named '?mpi4py", "MPI engines need mpi4py: `pip install 'pxtools[mpi]'` where they run."),
    (r"cannot load MPI library", "There is no MPI library. Debian: `apt-get install openmpi-bin`."),
    (
        r"No module named '?ipyparallel",
        "Install ipyparallel there, or name the Python that has it: `-O remote_python=PATH`.",
    ),
    (r"python\S*: ((command )?not found|No such file)", "Name the Python there: `-O remote_python=PATH`."),
    (r"Permission denied \(", "`ssh HOST true` has to work without a password: `ssh-copy-id HOST`."),
    (r"Host key verification failed", "ssh does not know the host yet: say yes to `ssh HOST` in a terminal once."),
    (r"Could not resolve hostname", "No such host: spell it as for `ssh`."),
    (r"[Ii]nvalid partition", "`sinfo` lists the partitions: `-O queue=NAME`."),
    (r"[Ii]nvalid account|[Aa]ccount/partition combination", "Name your account: `-O account=NAME`."),
    (r"[Rr]equested node configuration is not available|More processors requested", "Ask for fewer: `-n`."),
    (
        r"[Rr]egistration timed out",
        "Engines cannot reach the controller: name its address as they see it, `--controller-ip ADDRESS`.",
    ),
    (r"Connection refused|No route to host|Connection timed out", "Nobody answers there: host up, port right?"),
)

_SUSPICIOUS = re.compile(r"\b(\w*Error|error|fatal|FATAL|CRITICAL|denied|refused|failed|cannot)\b")

_PROGRAMS = {"mpiexec": "openmpi-bin", "ssh": "openssh-client", "sbatch": "slurm-client"}


def failure(cluster: Any, what: str, error: BaseException | None = None) -> PxClusterError:
    """Return the exception for engines that did not come, and keep the logs that ipyparallel would remove.

    Parameters
    ----------
    what
        What happened, in words.
    error
        What ipyparallel raised.
    """
    if isinstance(error, FileNotFoundError):
        program = os.path.basename(str(error.filename))
        package = _PROGRAMS.get(program)
        hint = f" Debian: `apt-get install {package}`." if package else ""
        return PxClusterError(f"{what}: there is no program `{error.filename}` on this machine.{hint}")
    if error is not None and not isinstance(error, subprocess.CalledProcessError):
        what = f"{what}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    elif error is not None:
        what = f"{what}: {_command(error)} ended with exit code {error.returncode}"
    file, lines = _keep_logs(cluster)
    found = telling_line(lines)
    if found is None:
        return PxClusterError(f"{what}.\nNo log says why; they would be in {file.parent}.")
    number, line = found
    return PxClusterError("\n".join((f"{what}.", f"{_short(file)}, line {number}: {line[:200]}", *advice(line))))


def advice(line: str) -> list[str]:
    """Return what to do about a line of a log, as at most one line."""
    return [words for pattern, words in _KNOWN if re.search(pattern, line)][:1]


def telling_line(lines: list[str]) -> tuple[int, str] | None:
    """Return (number from 1, text) of the line that tells most: known, else suspicious, else last."""
    for pattern, _ in _KNOWN:
        for number, line in enumerate(lines, 1):
            if re.search(pattern, line):
                return number, line.strip()
    for wanted in (_SUSPICIOUS.search, str.strip):
        for number in range(len(lines), 0, -1):
            line = lines[number - 1]
            if wanted(line) and not line.startswith(_HEADING):
                return number, line.strip()
    return None


_HEADING = "==== "


def _keep_logs(cluster: Any) -> tuple[Path, list[str]]:
    """Write all logs of a cluster into one file of its profile; return it and its lines."""
    folder = Path(cluster.profile_dir) / "log"
    kept = folder / f"pxtools-failed-{cluster.cluster_id}.log"
    lines: list[str] = []
    for name, text in _logs(cluster, folder):
        own = [line for line in text.splitlines() if line.strip()]
        lines += [f"{_HEADING}{name}", *own] if own else []
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        kept.write_text("\n".join(lines) + "\n")
    return kept, lines


def _logs(cluster: Any, folder: Path) -> list[tuple[str, str]]:
    files = [
        f for f in folder.glob(f"*{cluster.cluster_id}*") if f.is_file() and not f.name.startswith("pxtools-failed")
    ]
    # what engines said first, then the controller
    files.sort(key=lambda file: ("controller" in file.name, file.stat().st_mtime))
    found = [(file.name, file.read_text(errors="replace")) for file in files]
    is_ssh = kind_of(cluster).is_ssh
    for engine_set in cluster.engines.values():
        for name, one in list(getattr(engine_set, "launchers", {}).items())[:3]:
            if is_ssh:
                with contextlib.suppress(Exception):  # the host may not answer at all
                    found.insert(0, (name, one.get_output()))
        for name, text in getattr(engine_set, "outputs", {}).items():
            found.insert(0, (f"engine {name}", text))
        if not is_ssh and getattr(engine_set, "_output", None):  # ipyparallel has read the file and removed it
            found.insert(0, ("engines", engine_set._output))
    return found


def _command(error: Any) -> str:
    words = error.cmd if isinstance(error.cmd, list) else str(error.cmd).split()
    # the shell around it only keeps what it says (see `recorded`)
    words = words[words.index(_RECORDER) + 2 :] if _RECORDER in words else words
    return f"`{words[0]}`"


_RECORDER = "pxtools-recorder"


def recorded(command: list[str], log: Path) -> list[str]:
    """Return a command that writes what it complains of into a log: ipyparallel lets that pass."""
    return ["sh", "-c", 'log=$1; shift; exec "$@" 2>>"$log"', _RECORDER, str(log), *command]


def _short(path: Path) -> str:
    home = str(Path.home())
    return "~" + str(path)[len(home) :] if str(path).startswith(home + "/") else str(path)
