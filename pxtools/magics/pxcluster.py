"""`%pxcluster`: start, connect, resize, restart, stop, and how things stand."""

from __future__ import annotations

import platform
from typing import Any

from IPython.core.magic import line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments

from pxtools.errors import PxUsageError, nearest
from pxtools.magics.common import PxMagics, read_line
from pxtools.magics.display import Table
from pxtools.results import human_bytes

VERBS = ("start", "connect", "wait", "resize", "restart", "stop", "status")


@magics_class
class PxCluster(PxMagics):
    """The cluster of this notebook."""

    @no_var_expand
    @line_magic
    @magic_arguments()
    @argument(
        "verb", nargs="?", default="status", help="start, connect, wait, resize, restart, stop or status (default)."
    )
    @argument("-n", type=int, help="Number of engines (default: one per core).")
    @argument(
        "--engines",
        default="local",
        help="Launcher: local (default), mpi, ssh, slurm, pbs, … as ipyparallel knows them.",
    )
    @argument(
        "-O",
        "--launcher-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="start: a setting of the launcher, as hosts=alpha=2,beta=2 or queue=short; repeatable (default: none).",
    )
    @argument(
        "--controller-ip",
        metavar="ADDRESS",
        help="start: where engines of other hosts reach the controller (default: every address).",
    )
    @argument("--encrypt", action="store_true", help="start: encrypt also what stays on this host.")
    @argument(
        "--min-engines",
        type=int,
        metavar="N",
        help="start: go on when so many are there (default: all); others may come later.",
    )
    @argument("--noblock", action="store_true", help="start: wait for no engine; the rule for batch systems.")
    @argument(
        "--timeout",
        type=float,
        metavar="S",
        help="start, wait: seconds to wait (default: 60; no limit for batch systems).",
    )
    @argument("--profile", help="IPython profile of the cluster (default: default).")
    @argument("--cluster-id", help="Id of the cluster (start: a new one by default; connect: the only one).")
    @argument("--file", help="connect: cluster-*.json or ipcontroller-client.json (default: of the profile).")
    @argument("-t", "--targets", help="restart: these engines only, as 0 or 0,2 (default: all).")
    @argument("--no-cwd", action="store_true", help="Engines of this host do not follow the notebook's directory.")
    def pxcluster(self, line: str) -> Any:
        """Start, connect to, resize, restart or stop the engines; alone, tell how they stand.

        The first magic that needs engines does this by itself: it takes the cluster that is there, else starts one.

        Examples
        --------
        >>> %pxcluster start -n 4
        >>> %pxcluster start --engines ssh -O hosts=alpha=8,beta=8
        >>> %pxcluster start -n 64 --engines slurm -O queue=short --min-engines 8
        >>> %pxcluster resize -n 2
        >>> %pxcluster restart -t 0
        >>> %pxcluster
        """
        args = read_line(self.pxcluster, line)
        if args.verb not in VERBS:
            raise PxUsageError(f"`%pxcluster {args.verb}`: {', '.join(VERBS)} are known.{nearest(args.verb, VERBS)}")
        if args.no_cwd:
            self.session.settings.follow_cwd = False
        return getattr(self, f"_{args.verb}")(args)

    def _start(self, args: Any) -> None:
        if args.noblock and args.min_engines:
            raise PxUsageError("`--noblock` waits for no engine, `--min-engines` for some: give one of them.")
        self.session.start(
            args.n,
            engines=args.engines,
            profile=args.profile,
            cluster_id=args.cluster_id,
            launcher_options=args.launcher_option,
            controller_ip=args.controller_ip,
            encrypt=args.encrypt or None,
            min_engines=0 if args.noblock else args.min_engines,
            timeout_s=args.timeout,
        )

    def _connect(self, args: Any) -> None:
        self.session.connect(file=args.file, profile=args.profile, cluster_id=args.cluster_id)

    def _wait(self, args: Any) -> None:
        print(f"{len(self.session.wait(args.n, args.timeout))} engines")

    def _resize(self, args: Any) -> None:
        if args.n is None or args.n < 1:
            raise PxUsageError("say how many engines: `%pxcluster resize -n 4`.")
        print(f"{len(self.session.resize(args.n))} engines" + self._still_to_come())

    def _restart(self, args: Any) -> None:
        print(f"{len(self.session.restart(args.targets))} engines; names that cells made there are gone")

    def _stop(self, args: Any) -> None:
        if not self.session.is_connected:
            print("no engines are in use")
            return
        was_ours = self.session.is_ours  # asks no engine: this must work when they do not
        self.session.stop()
        print("engines stopped" if was_ours else "left the cluster; it goes on, pxtools did not start it")

    def _still_to_come(self) -> str:
        connection = self.session.connection
        return f"; {connection.in_words()}" if connection.pending else ""

    def _status(self, args: Any) -> Any:
        if not self.session.is_connected:
            print("no engines yet: the first magic that needs some finds or starts them")
            print("or by hand: `%pxcluster start -n 4`")
            return None
        return status(self.session)


def status(session: Any) -> Table:
    """Return a table of the engines: host, pid, cores, memory, directory, and idle, busy or frozen."""
    wire = session.wire
    states = dict.fromkeys(wire.alive, "idle")
    states |= dict.fromkeys(wire.busy(wire.alive), "busy")
    states |= dict.fromkeys(wire.frozen() & states.keys(), "frozen")
    fresh = wire.describe([i for i, state in states.items() if state == "idle"])
    rows = []
    for i, state in states.items():
        said = fresh.get(i, wire.engines[i])
        host = "this host" if said["host"] == platform.node() else said["host"]
        rows.append((i, host, said["pid"], said["cores"], human_bytes(said["memory"]), state, said["cwd"]))
    header = ("engine", "host", "pid", "cores", "memory", "state", "directory")
    connection = session.connection
    words = [connection.origin, connection.in_words() if connection.pending else ""]
    return Table(header, [tuple(map(str, row)) for row in rows], caption="; ".join(filter(None, words)))
