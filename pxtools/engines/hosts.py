"""Engines through ssh: which host takes how many, and whether it can at all."""

from __future__ import annotations

import concurrent.futures
import itertools
import shlex
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from pxtools.engines.trouble import advice
from pxtools.errors import PxClusterError, PxUsageError

#: seconds in which word of an engine that has ended comes from its host
_NOTICED_S = 10
#: how long one host may take to answer
_LOOK_S = 30

#: engines that a host takes when no number is given
_UNLIMITED = 10**6


def slots(hosts: Mapping[str, Any]) -> dict[str, int]:
    """Return how many engines each host takes, for ``{"alpha": 2, "beta": ""}``; no number means no limit.

    Raises
    ------
    PxUsageError
    """
    counts = {}
    for host, said in hosts.items():
        text = str(said.get("n", 1) if isinstance(said, Mapping) else said)
        if text and not text.isdigit():
            raise PxUsageError(f"`{host}={text}`: how many engines? Write `-O hosts={host}=2`.")
        counts[host] = int(text) if text else _UNLIMITED
    if not counts:
        raise PxUsageError("ssh engines need hosts: `%pxcluster start --engines ssh -O hosts=alpha=2,beta=2`.")
    return counts


def n_slots(hosts: Mapping[str, Any]) -> int | None:
    """Return how many engines the hosts take together; None without a limit."""
    total = sum(slots(hosts).values())
    return total if total < _UNLIMITED else None


def share_out(n: int, hosts: Mapping[str, Any], taken: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """Return what ipyparallel's launcher is to start on each host, so that hosts are filled evenly.

    Parameters
    ----------
    taken
        Host to engines that it runs already.

    Raises
    ------
    PxUsageError
        There are not so many places.
    """
    room = {host: limit - taken.get(host, 0) for host, limit in slots(hosts).items()}
    free = sum(max(0, places) for places in room.values())
    if n > free:
        raise PxUsageError(
            f"{n} more engines are wanted, and the hosts have {free} places left.\n"
            f"Give each its number: `-O hosts={','.join(f'{host}={n}' for host in room)}`."
        )
    given: Counter[str] = Counter()
    for host in itertools.cycle(room):
        if given.total() == n:
            break
        if given[host] < room[host]:
            given[host] += 1
    # the key goes through the connection, not as a file that stays there (or is copied onto itself by NFS)
    return {
        host: {**(said if isinstance(said, Mapping) else {}), "n": given[host], "to_send": []}
        for host, said in hosts.items()
        if given[host]
    }


def running_on(cluster: Any) -> dict[str, int]:
    """Return host to the number of its engines that have not ended."""
    launchers = [item for engine_set in cluster.engines.values() for item in engine_set.launchers.items()]
    return Counter(key.rpartition("/")[0] for key, launcher in launchers if not _has_ended(launcher))


def _has_ended(launcher: Any) -> bool:
    """Return whether the thread that waits for an engine is done; ipyparallel itself hears of it in its next call."""
    thread = getattr(launcher, "_wait_thread", None)
    return thread is not None and not thread.is_alive()


def wait_for_places(cluster: Any, n_engines: int) -> None:
    """Wait for word of the engines that have ended, so that no more than `n_engines` take a place."""
    deadline = time.monotonic() + _NOTICED_S
    while sum(running_on(cluster).values()) > n_engines and time.monotonic() < deadline:
        time.sleep(0.1)


def check(options: Mapping[str, Any]) -> None:
    """Ask every host for its Python and its ipyparallel before anything is started.

    Raises
    ------
    PxClusterError
        With the line that ssh said, and what to type.
    """
    hosts = list(slots(options["engines"]))
    with concurrent.futures.ThreadPoolExecutor(min(16, len(hosts))) as pool:
        said = dict(zip(hosts, pool.map(lambda host: _look(host, options), hosts), strict=True))
    for host, line in said.items():
        if line:
            others = [h for h in hosts if h != host and said[h] == line]
            raise PxClusterError("\n".join((f"no engines on {', '.join([host, *others])}: {line}", *advice(line))))


def _look(host: str, options: Mapping[str, Any]) -> str:
    """Return why a host cannot run engines, or nothing."""
    own = options["engines"][host] if isinstance(options["engines"][host], Mapping) else {}
    settings = {**options, **own}
    name, _, port = host.rpartition(":") if host.rpartition(":")[2].isdigit() else (host, "", "")
    python = settings.get("remote_python", "python3")
    user = ["-l", settings["user"]] if settings.get("user") else []
    command = [*settings.get("ssh_cmd", ["ssh"]), "-o", "BatchMode=yes", *settings.get("ssh_args", ()), *user]
    command += [*(["-p", port] if port else []), name or host, f"{shlex.quote(python)} -c 'import ipyparallel'"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_LOOK_S, check=False
        )
    except FileNotFoundError:
        return f"`{command[0]}` is not on this machine."
    except subprocess.TimeoutExpired:
        return f"ssh had no answer within {_LOOK_S} s."
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return "" if done.returncode == 0 else (lines or [f"ssh ended with exit code {done.returncode}"])[-1]
