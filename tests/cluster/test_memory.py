"""Nothing grows with every call: client, engines, controller, shared memory, the lists that ipyparallel keeps."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from pxtools.remote import sharing
from pxtools.session import state
from pxtools.session.core import Session
from pxtools.session.run import Cell, run

MB_5 = 625_000  # float64


@pytest.fixture(scope="module")
def module_session() -> Iterator[Session]:
    session = Session({"__name__": "__main__"}, notify=lambda line: None)
    session.start(2)
    run(session, Cell(f"import numpy as np; big = np.random.default_rng(px_rank).random({MB_5})"))
    yield session
    session.disconnect()


@pytest.fixture
def session(module_session: Session) -> Session:
    return module_session


def private_mb(pids: list[int]) -> float:
    """What belongs to processes alone; a mapped file does not."""
    total = 0
    for pid in pids:
        status = Path(f"/proc/{pid}/status").read_text()
        total += int(status.partition("RssAnon:")[2].split()[0])
    return total / 1000


def growth_mb(session: Session, step: Any, times: int) -> dict[str, float]:
    """Grown private memory of client, engines and controller after so many steps, with some before to warm up."""
    engines = [said["pid"] for said in session.wire.engines.values()]
    me = psutil.Process()
    rest = [child.pid for child in me.children(recursive=True) if child.pid not in engines]
    families = {"client": [me.pid], "engines": engines, "controller": rest}
    for _ in range(4):
        step()
    before = {name: private_mb(pids) for name, pids in families.items()}
    for _ in range(times):
        step()
    return {name: private_mb(pids) - before[name] for name, pids in families.items()}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_collects_of_five_megabytes_leave_nothing(session: Session) -> None:
    def collect() -> None:
        assert len([value[0] for value in state.collect(session, "big")]) == 2

    grown = growth_mb(session, collect, 40)  # 400 MB pass
    assert max(grown.values()) < 30, grown


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_values_of_cells_are_not_hoarded(session: Session) -> None:
    grown = growth_mb(session, lambda: run(session, Cell("big * 2")), 12)
    assert max(grown.values()) < 30, grown
    assert run(session, Cell("len(Out)")).last[0] <= 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_hub_keeps_little_of_what_came_over_the_wire(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.wire, "_shares_memory", lambda engine_id: False)

    def collect() -> None:
        assert len([value[0] for value in state.collect(session, "big")]) == 2

    grown = growth_mb(session, collect, 20)  # 200 MB; the hub may hold 64 MB
    assert max(grown.values()) < 130, grown


def test_ipyparallel_has_nothing_outstanding_afterwards(session: Session) -> None:
    run(session, Cell("px_rank"))
    client = session.client
    assert client.wait(timeout=10)
    assert not client.outstanding
    assert not client.results


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[str]:
    """A shared-memory filesystem with room for one megabyte."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=False)
    if mounted.returncode:
        pytest.skip("only root may mount a filesystem")
    folder = tmp_path / "pxtools-tiny"
    folder.mkdir(mode=0o700)
    yield str(folder)
    subprocess.run(["umount", "-l", tmp_path], check=True)


def test_full_shared_memory_gives_the_same_result_through_files(
    session: Session, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session.wire, "folder", tiny)
    places: list[str] = []
    usual = sharing.lend

    def lend(buffers: Any, folder: str, n_readers: int) -> Any:
        lent = usual(buffers, folder, n_readers)
        places.append(folder)
        return lent

    monkeypatch.setattr(sharing, "lend", lend)
    session.namespace["a"] = a = np.random.default_rng(3).random(MB_5)
    run(session, Cell("b = a + px_rank"))
    assert [np.array_equal(b, a + k) for k, b in enumerate(session.namespace["b"])] == [True, True]
    assert places == [sharing.disk_path(tiny)]
    assert list(Path(tiny).iterdir()) == list(Path(sharing.disk_path(tiny)).iterdir()) == []
