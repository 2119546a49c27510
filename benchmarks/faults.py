"""Faults, each done for real several times, against the state that is expected afterwards.

    python benchmarks/faults.py [--times 5] [--only NAME ...]

For each fault: the exception's type, whether it names the engines, what became of the work, whether nothing is left in
shared memory, and whether the next call on all engines succeeds. Ends with status 1 if anything was otherwise.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from measuring import private_profile, table

from pxtools.engines import start
from pxtools.errors import PxCancelled, PxEngineLost, PxInterrupted, PxTimeout
from pxtools.session import state
from pxtools.session.core import Session
from pxtools.session.mapping import map_on
from pxtools.session.run import Cell, run
from pxtools.session.sampling import sample

N = 3
ITEMS = 60
HERE = Path(__file__).resolve().parent


@dataclass
class Seen:
    """What one trial showed: the exception, and for each expectation whether it was met (None: does not apply)."""

    error: BaseException | None = None
    is_named: bool | None = None
    is_work_right: bool = False
    #: what to show where the work is not right
    detail: str = ""


Fault = Callable[[Session, Path], Seen]
FAULTS: dict[str, tuple[Fault, str, str]] = {}


def fault(name: str, expected: type[BaseException] | None, work: str) -> Callable[[Fault], Fault]:
    """Add a fault to the table: its name, the exception, what should have become of the work."""

    def add(trial: Fault) -> Fault:
        FAULTS[name] = trial, expected.__name__ if expected else "none", work
        return trial

    return add


def caught(call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """Return a call's value and its exception."""
    try:
        return call(), None
    except BaseException as error:
        return None, error


@contextmanager
def signalled(session: Session, engine: int, number: int, marker: Path) -> Iterator[None]:
    """Send an engine a signal soon after the work has made a file; a stopped one goes on at the end."""
    pid = session.wire.engines[engine]["pid"]
    thread = threading.Thread(target=when_there, args=(marker, lambda: os.kill(pid, number)))
    thread.start()
    try:
        yield
    finally:
        thread.join()
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGCONT)


def when_there(marker: Path, do: Callable[[], None]) -> None:
    deadline = time.monotonic() + 60
    while not marker.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    do()


def pressing_ctrl_c(marker: Path, after_s: float = 0.0) -> None:
    """Press Ctrl-C soon after the work has made a file, or somewhat later."""

    def press() -> None:
        time.sleep(after_s)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=when_there, args=(marker, press), daemon=True).start()


def names(error: BaseException | None, engine: int) -> bool:
    return f"engine {engine} " in str(error)


def function(session: Session, source: str) -> Any:
    """Define `f` as a notebook cell would."""
    exec(source, session.namespace)
    return session.namespace["f"]


def cell_hit(session: Session, folder: Path, number: int) -> Seen:
    first, second, third = session.wire.ids
    marker = folder / "begun"
    code = f"open({str(marker)!r}, 'w').close()\nfor k in range(15): time.sleep(0.1)\ny = px_rank"
    with signalled(session, second, number, marker):
        result = run(session, Cell(f"import time\n{code}"))
    held = session.namespace.get("y")
    kept = held is not None and held.dict() == {first: 0, third: 2}
    return Seen(result.error, names(result.error, second), kept)


def map_hit(session: Session, folder: Path, number: int) -> Seen:
    """Each item writes a line when it is done; a line twice is an item that was run twice."""
    marker, log = folder / "begun", folder / "log"
    f = function(
        session,
        f"def f(n):\n    import os, time\n    time.sleep(0.05)\n    if n == 20: open({str(marker)!r}, 'w').close()\n"
        f"    with open({str(log)!r}, 'a') as file: file.write(f'{{n}}\\n')\n    return n * n",
    )
    with signalled(session, session.wire.ids[0], number, marker):
        values, error = caught(lambda: map_on(session, f, range(ITEMS)))
    done = [int(line) for line in log.read_text().split()]
    again = len(done) - ITEMS
    return Seen(error, None, values == [n * n for n in range(ITEMS)] and set(done) == set(range(ITEMS)) and again < 10)


@fault("SIGKILL of an engine in a cell", PxEngineLost, "the others' values are kept")
def cell_killed(session: Session, folder: Path) -> Seen:
    return cell_hit(session, folder, signal.SIGKILL)


@fault(
    "SIGKILL of an engine in a map", None, "every item's result; items at least once, all but the lost batch exactly"
)
def map_killed(session: Session, folder: Path) -> Seen:
    return map_hit(session, folder, signal.SIGKILL)


@fault("SIGKILL of an engine in a sampling", None, "the draws are those of an undisturbed run, to the bit")
def sampling_killed(session: Session, folder: Path) -> Seen:
    marker = folder / "begun"
    f = function(
        session,
        f"def f(x, y):\n    import time\n    time.sleep(1e-4)\n    if x > 1: open({str(marker)!r}, 'w').close()\n"
        "    return -(x * x + y * y) / 2",
    )
    options: dict[str, Any] = {"draws": 3000, "chains": 6, "seed": 3, "sampler": "rwm", "step": 1.0}
    with signalled(session, session.wire.ids[0], signal.SIGKILL, marker):
        samples, error = caught(lambda: sample(session, f, **options))
    again = sample(session, f, **options)
    return Seen(error, None, samples is not None and np.array_equal(samples.draws, again.draws))


@fault("SIGKILL of an engine in a collect", PxEngineLost, "nothing")
def collect_killed(session: Session, folder: Path) -> Seen:
    marker, second = folder / "begun", session.wire.ids[1]
    run(
        session,
        Cell(f"import time\ndef g():\n    open({str(marker)!r}, 'w').close()\n    time.sleep(2)\n    return px_rank"),
    )
    with signalled(session, second, signal.SIGKILL, marker):
        _, error = caught(lambda: state.collect(session, "g()"))
    return Seen(error, names(error, second), True)


@fault("SIGSTOP of an engine in a cell", PxEngineLost, "the others' values are kept; it is used again when it goes on")
def cell_stopped(session: Session, folder: Path) -> Seen:
    return cell_hit(session, folder, signal.SIGSTOP)


@fault("SIGSTOP of an engine in a map", None, "every item's result; items at least once, all but the stranded exactly")
def map_stopped(session: Session, folder: Path) -> Seen:
    return map_hit(session, folder, signal.SIGSTOP)


@fault("SIGSTOP of an idle engine, then `restart -t`", None, "a new engine with its imports and names")
def stopped_and_replaced(session: Session, folder: Path) -> Seen:
    session.namespace["offset"] = 5
    state.push(session, ["offset"])
    state.import_(session, "from math import sqrt as root")
    second = session.wire.ids[1]
    pid = session.wire.engines[second]["pid"]
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.5)
    _, error = caught(lambda: session.restart(second))
    if psutil.pid_exists(pid):
        os.kill(pid, signal.SIGCONT)
    return Seen(error, None, state.collect(session, "root(offset + 4)", how="list") == [3.0] * N)


@fault("Ctrl-C in a cell", PxInterrupted, "engines idle")
def cell_interrupted(session: Session, folder: Path) -> Seen:
    marker = folder / "begun"
    pressing_ctrl_c(marker)
    _, error = caught(lambda: run(session, Cell(f"import time; open({str(marker)!r}, 'w').close(); time.sleep(60)")))
    return Seen(error, names_all(error, session), is_idle(session))


@fault("Ctrl-C in a map", PxInterrupted, "what is done is kept, engines idle")
def map_interrupted(session: Session, folder: Path) -> Seen:
    marker = folder / "begun"
    f = function(
        session,
        f"def f(n):\n    import time\n    if n == 20: open({str(marker)!r}, 'w').close()\n"
        "    time.sleep(60 * (n >= 20))\n    return n",
    )
    pressing_ctrl_c(marker)
    _, error = caught(lambda: map_on(session, f, range(ITEMS), chunksize=1))
    kept, is_calm = session.unfinished_map, is_idle(session)
    detail = f"kept {sorted(kept)}, {'idle' if is_calm else 'busy'}"
    return Seen(error, names_all(error, session), set(range(18)) <= kept.keys() and is_calm, detail)


@fault("Ctrl-C in a compiled loop (a sampling)", PxInterrupted, "the draws so far are kept, engines idle")
def sampling_interrupted(session: Session, folder: Path) -> Seen:
    marker, kept = folder / "begun", []
    f = function(
        session, f"def f(x, y):\n    if x > 2: open({str(marker)!r}, 'w').close()\n    return -(x * x + y * y) / 2"
    )
    pressing_ctrl_c(marker, after_s=3)  # every chain has draws by then
    options: dict[str, Any] = {
        "draws": 10**8,
        "chains": 6,
        "seed": 1,
        "sampler": "rwm",
        "tier": "python",
        "on_partial": kept.append,
    }
    _, error = caught(lambda: sample(session, f, **options))
    return Seen(error, names_all(error, session), bool(kept) and kept[0].n_draws > 0)


@fault("`--timeout` in a cell", PxTimeout, "engines idle")
def cell_out_of_time(session: Session, folder: Path) -> Seen:
    _, error = caught(lambda: run(session, Cell("import time; time.sleep(60)"), timeout_s=0.5))
    return Seen(error, names_all(error, session), is_idle(session))


@fault("`.cancel()` of a map in the background", PxCancelled, "what is done is kept, engines idle")
def map_cancelled(session: Session, folder: Path) -> Seen:
    f = function(session, "def f(n):\n    import time\n    time.sleep(60 * (n >= 20))\n    return n")
    handle = map_on(session, f, range(ITEMS), chunksize=1, block=False)
    while len(handle.partial) < 18:
        time.sleep(0.01)
    handle.cancel()
    _, error = caught(lambda: handle.result(30))
    return Seen(error, names_all(error, session), handle.partial == {n: n for n in handle.partial})


@fault("an engine that ignores Ctrl-C", PxTimeout, "named; replaced by `restart -t`")
def deaf(session: Session, folder: Path) -> Seen:
    first = session.wire.ids[0]
    code = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN)\nif px_rank == 0: time.sleep(600)"
    _, error = caught(lambda: run(session, Cell(code), timeout_s=0.5))
    is_named = f"engine {first} cannot be interrupted" in str(error)
    session.restart()  # the others ignore it, too
    return Seen(error, is_named, True)


@fault("a result that cannot be read here", None, "described in its place")
def unreadable(session: Session, folder: Path) -> Seen:
    result = run(session, Cell("class Odd:\n    def __reduce__(self): return (eval, ('1/0',))\nodd = Odd()"))
    return Seen(result.error, None, "cannot be read here" in session.namespace["odd"][0].why)


def said_when_ready(client: subprocess.Popen[str]) -> list[str]:
    """Wait until a client is connected; return its folder, and the processes that it has started."""
    assert client.stdout is not None
    for line in client.stdout:
        word, *said = line.split()
        if word == "ready":
            return said
    raise RuntimeError("the client ended")


def client_ended(number: int) -> Seen:
    """Start a client with a cluster of its own, end it, and see what is left."""
    with subprocess.Popen([sys.executable, "-c", CLIENT, "own"], stdout=subprocess.PIPE, text=True) as client:
        folder, *pids = said_when_ready(client)
        client.send_signal(number)
    deadline = time.monotonic() + 10
    while any(map(psutil.pid_exists, map(int, pids))) and time.monotonic() < deadline:
        time.sleep(0.1)
    alive = [pid for pid in pids if psutil.pid_exists(int(pid))]
    return Seen(None, None, len(pids) > N and not alive and not os.path.exists(folder))


@fault("SIGKILL of the client", None, "no process and no file of its cluster after ten seconds")
def client_killed(session: Session, folder: Path) -> Seen:
    return client_ended(signal.SIGKILL)


@fault("SIGTERM of the client", None, "no process and no file of its cluster after ten seconds")
def client_terminated(session: Session, folder: Path) -> Seen:
    return client_ended(signal.SIGTERM)


@fault("SIGKILL of the client of somebody else's cluster", None, "the cluster goes on; a new client finds the names")
def guest_killed(session: Session, folder: Path) -> Seen:
    connection = start(1)
    again = Session({"__name__": "__main__"}, notify=lambda line: None)
    try:
        file = connection.cluster.cluster_file
        with subprocess.Popen([sys.executable, "-c", CLIENT, file], stdout=subprocess.PIPE, text=True) as client:
            said_when_ready(client)
            client.kill()
        again.connect(file=file)
        return Seen(None, None, "kept" in state.who(again) and state.collect(again, "kept", how="list") == [41])
    finally:
        again.disconnect()
        connection.close()


CLIENT = """
import sys, psutil, pxtools
if sys.argv[1] == "own":
    pxtools.cluster(3)
else:
    pxtools.connect(file=sys.argv[1])
pxtools.push(kept=41)
session = pxtools.current_session()
print("ready", session.wire.folder, *(p.pid for p in psutil.Process().children(recursive=True)), flush=True)
__import__("time").sleep(600)
"""


def names_all(error: BaseException | None, session: Session) -> bool:
    from pxtools.engines.wire import name_engines

    return name_engines(session.wire.ids) in str(error)


def is_idle(session: Session) -> bool:
    """Return whether the engines have nothing to do; the hub hears of it a moment later than the client."""
    deadline = time.monotonic() + 2
    while is_busy := bool(session.wire.busy(session.wire.ids)):
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return not is_busy  # asked once more, the hub may have heard of the message that ends a map


def is_soon_empty(folder: str) -> bool:
    """Return whether a folder is empty, or soon will be: late answers of work that was given up are removed."""
    deadline = time.monotonic() + 5
    while os.listdir(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not os.listdir(folder)


def is_next_call_fine(session: Session) -> bool:
    """Return whether all engines, as many as at first, do the next cell."""
    time.sleep(0.3)  # a look at the processes is good for a fifth of a second
    session.resize(N)
    return list(run(session, Cell("px_rank")).last) == list(range(N))


def main() -> int:
    parser = argparse.ArgumentParser(description="Faults.")
    parser.add_argument("--times", type=int, default=5, help="trials of each")
    parser.add_argument("--only", nargs="+", help="faults whose names hold one of these")
    args = parser.parse_args()
    chosen = [name for name in FAULTS if not args.only or any(part in name for part in args.only)]
    session = Session({"__name__": "__main__"}, notify=lambda line: None)
    rows, is_all_right = [], True
    with private_profile():
        session.start(N)
        try:
            for name in chosen:
                row, is_right = tried(session, name, args.times)
                rows.append(row)
                is_all_right = is_all_right and is_right
                print(*row, sep=" | ", file=sys.stderr, flush=True)
        finally:
            session.disconnect()
    header = ("fault", "exception", "engines named", "the work", "nothing left in shared memory", "next call succeeds")
    print(table(header, rows))
    return 0 if is_all_right else 1


def tried(session: Session, name: str, times: int) -> tuple[tuple[str, ...], bool]:
    """Do a fault several times; return its row of the table, and whether all was as expected."""
    trial, expected, work = FAULTS[name]
    right = {"error": 0, "named": 0, "work": 0, "left": 0, "next": 0}
    has_names = True
    for _ in range(times):
        state.clear(session)
        session.namespace.pop("y", None)
        with tempfile.TemporaryDirectory() as folder:
            seen = trial(session, Path(folder))
        has_names = seen.is_named is not None
        if (type(seen.error).__name__ if seen.error else "none") != expected:
            print(f"{name}: {seen.error!r}", file=sys.stderr)
        if not seen.is_work_right:
            print(f"{name}: {seen.detail}", file=sys.stderr)
        right["error"] += (type(seen.error).__name__ if seen.error else "none") == expected
        right["named"] += bool(seen.is_named)
        right["work"] += seen.is_work_right
        right["next"] += is_next_call_fine(session)
        right["left"] += is_soon_empty(session.wire.folder)

    def of(key: str) -> str:
        return f"{right[key]}/{times}"

    named = of("named") if has_names else "–"
    row = (name, f"{expected} {of('error')}", named, f"{work} {of('work')}", of("left"), of("next"))
    return row, all(count == times for key, count in right.items() if key != "named" or has_names)


if __name__ == "__main__":
    sys.exit(main())
