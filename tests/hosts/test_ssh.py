"""Engines on two other hosts, through ssh: each host has its own network, name and sshd on this machine."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pxtools.errors import PxClusterError, PxEngineLost, PxUsageError
from pxtools.session import state
from pxtools.session.core import Session
from pxtools.session.mapping import map_on
from tests.cluster.two_engines import is_running
from tests.hosts.conftest import Network

PLACES = {"engines": {"alpha": 1, "beta": 2}, "remote_python": sys.executable}


@pytest.fixture(scope="module")
def cluster(network: Network) -> Iterator[Session]:
    """One engine on each of two hosts."""
    notices: list[str] = []
    session = Session({"__name__": "__main__"}, notify=notices.append)
    session.notices = notices  # type: ignore[attr-defined]
    session.start(2, engines="ssh", launcher_options={**PLACES, **network.options}, controller_ip=network.address)
    yield session
    session.stop()


def test_hosts_get_equal_shares_and_are_known_by_their_names(cluster: Session, values: Any) -> None:
    assert sorted(values(cluster, "import platform; platform.node()")) == ["alpha", "beta"]
    assert sorted(said["host"] for said in cluster.wire.engines.values()) == ["alpha", "beta"]


def test_large_arrays_reach_other_hosts_over_the_wire(cluster: Session, values: Any) -> None:
    # both hosts see this host's /dev/shm: it is by their names that they are known as others
    assert [said["shares_memory"] for said in cluster.wire.engines.values()] == [False, False]
    array = cluster.namespace["array"] = np.arange(200_000.0)
    assert values(cluster, "array.sum()") == [array.sum()] * 2
    back = state.collect(cluster, "array * (1 + px_rank)", how="list")
    np.testing.assert_array_equal(back[1], 2 * array)
    assert list(Path(cluster.wire.folder).iterdir()) == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a module `lengths`, where only the notebook looks for modules."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "lengths.py").write_text("def double(x):\n    return 2 * x\n")
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    sys.modules.pop("lengths", None)


def test_imports_and_modules_of_ones_own_reach_other_hosts(cluster: Session, values: Any, folder: Path) -> None:
    state.import_(cluster, "import lengths as le, numpy as np")
    cluster.namespace["folder"] = str(folder)
    assert values(cluster, "import sys; (le.double(4), folder in sys.path)") == [(8, False), (8, False)]


def test_other_hosts_stay_in_their_own_directory(
    cluster: Session, values: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = values(cluster, "import os; os.getcwd()")
    monkeypatch.chdir(tmp_path)
    assert values(cluster, "import os; os.getcwd()") == before


def test_what_crosses_the_network_is_encrypted_and_the_key_is_private(cluster: Session) -> None:
    folder = Path(cluster.connection.cluster.profile_dir) / "security"
    files = sorted(folder.glob(f"ipcontroller-{cluster.connection.cluster.cluster_id}-*.json"))
    assert len(files) == 2
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert len(json.loads(file.read_text())["curve_serverkey"]) == 40


def test_another_notebook_finds_the_state_and_leaves_the_cluster(cluster: Session, own: Any) -> None:
    state.push(cluster, values={"found": [1, 2]})
    own.connect(cluster_id=cluster.connection.cluster.cluster_id)
    assert state.who(own)["found"][1]["text"] == "[1, 2]"
    own.disconnect()
    assert state.collect(cluster, "found[0]", how="list") == [1, 1]


def test_a_new_engine_goes_where_there_is_room_and_gets_the_state(cluster: Session, values: Any) -> None:
    cluster.namespace["offset"] = 5
    assert values(cluster, "offset") == [5, 5]
    with pytest.raises(PxUsageError, match="3 more engines are wanted, and the hosts have 1 places left"):
        cluster.resize(5)
    assert len(cluster.resize(3)) == 3
    assert values(cluster, "(offset, px_rank)") == [(5, 0), (5, 1), (5, 2)]
    if "le" in cluster.namespace:  # of the test above
        assert values(cluster, "le.double(px_rank)") == [0, 2, 4]
    assert [said["host"] for said in cluster.wire.engines.values()].count("beta") == 2
    assert len(cluster.resize(2)) == 2


def test_a_frozen_engine_is_found_out_by_another_of_its_host(cluster: Session, values: Any) -> None:
    cluster.resize(3)
    state.push(cluster, values={"found": 3})
    engine = max(i for i, said in cluster.wire.engines.items() if said["host"] == "beta")
    pid = cluster.wire.engines[engine]["pid"]  # processes of these hosts are numbered as ours
    try:
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(PxEngineLost, match=f"engine {engine} is frozen"):
            values(cluster, "7")
        assert values(cluster, "7") == [7, 7]  # it is left out
        os.kill(pid, signal.SIGCONT)
        deadline = time.monotonic() + 20
        while len(values(cluster, "7")) < 3:  # a host is asked once a second
            assert time.monotonic() < deadline
            time.sleep(0.2)
        os.kill(pid, signal.SIGSTOP)
        assert map_on(cluster, abs, range(50)) == list(range(50))
        cluster.restart(engine)
        assert not is_running(pid)
        assert values(cluster, "found") == [3, 3, 3]
    finally:
        if is_running(pid):
            os.kill(pid, signal.SIGCONT)
        cluster.resize(2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"engines": {"alpha": 1}, "remote_python": "/nowhere/python"}, r"on alpha: .*\n.*-O remote_python=PATH"),
        ({"engines": {"10.231.77.99": 1}}, r"10\.231\.77\.99.*\nNobody answers there"),
        ({"engines": {"alpha": 1}, "user": "nobody"}, r"Permission denied(.|\n)*ssh-copy-id"),
        ({}, "ssh engines need hosts.*-O hosts=alpha=2,beta=2"),
    ],
)
def test_a_host_that_cannot_take_engines_is_named_before_anything_starts(
    options: dict[str, Any], words: str, network: Network, own: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeout = ["-o", "ConnectTimeout=2"]
    given = {**PLACES, "engines": {}, **options, "ssh_args": network.options["ssh_args"] + timeout}
    with pytest.raises((PxClusterError, PxUsageError), match=words):
        own.start(1, engines="ssh", launcher_options=given)
    assert not own.is_connected
    assert os.environ.get("IPP_CONNECTION_INFO") is None
