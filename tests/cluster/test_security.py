"""Who gets in: docs/safety.md says it, these tests try it."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipyparallel as ipp
import pytest
import zmq

from pxtools.session.core import Session
from pxtools.session.run import Cell, run

#: how long somebody who is not let in waits for an answer
_KNOCK_S = 2


@pytest.fixture(scope="module")
def encrypted() -> Iterator[Session]:
    """One engine of this host behind CurveZMQ."""
    session = Session({"__name__": "__main__"}, notify=lambda line: None)
    session.start(1, encrypt=True)
    yield session
    session.stop()


def security_file(session: Session, who: str) -> Path:
    cluster = session.connection.cluster
    return Path(cluster.profile_dir) / "security" / f"ipcontroller-{cluster.cluster_id}-{who}.json"


def knock(info: dict[str, Any]) -> list[int]:
    """Return the engines that a client with this connection information gets to see."""
    client = ipp.Client(info, timeout=_KNOCK_S)
    try:
        return list(client.ids)
    finally:
        client.close(linger=0)


@pytest.mark.parametrize("who", ["client", "engine"])
def test_only_the_user_can_read_the_keys(who: str, session: Any, encrypted: Session) -> None:
    for one in (session, encrypted):
        file = security_file(one, who)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert file.stat().st_uid == os.getuid()


def test_only_the_user_can_look_into_shared_memory(session: Any) -> None:
    folder = Path(session.wire.folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    call = session.wire.submit("pxtools.remote.engine.leave", {0: {"client": None, "x": memoryview(b"1" * 10**6).obj}})
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in folder.rglob("*") if file.is_file())
    call.wait()


def test_the_right_key_opens_an_encrypted_cluster(encrypted: Session) -> None:
    assert knock(json.loads(security_file(encrypted, "client").read_text())) == [0]


def test_a_client_without_the_key_of_an_encrypted_cluster_is_refused(encrypted: Session) -> None:
    info = json.loads(security_file(encrypted, "client").read_text())
    with pytest.raises(TimeoutError):
        knock({**info, "curve_serverkey": None})
    assert list(run(encrypted, Cell("px_size")).last) == [1]


def test_a_client_with_another_key_of_an_encrypted_cluster_is_refused(encrypted: Session) -> None:
    info = json.loads(security_file(encrypted, "client").read_text())
    other, _ = zmq.curve_keypair()
    with pytest.raises(TimeoutError):
        knock({**info, "curve_serverkey": other.decode()})
    assert list(run(encrypted, Cell("px_size")).last) == [1]


@pytest.mark.parametrize("key", ["", "not-the-key"])
def test_a_client_with_another_key_is_refused_without_encryption_too(key: str, session: Any) -> None:
    info = json.loads(security_file(session, "client").read_text())
    assert knock(info) == session.wire.ids
    with pytest.raises((TimeoutError, ValueError)):
        knock({**info, "key": key})
    assert list(run(session, Cell("px_size")).last) == [4] * 4


def overheard(session: Session) -> bytes:
    """Return what a stranger hears at the port of the engines' output while they print."""
    info = json.loads(security_file(session, "client").read_text())
    context = zmq.Context()
    ear = context.socket(zmq.SUB)
    try:
        ear.setsockopt(zmq.LINGER, 0)
        ear.subscribe(b"")
        ear.connect(f"{info['interface']}:{info['iopub']}")
        time.sleep(0.3)  # to be connected
        run(session, Cell("print('a' + 'secret')"))
        heard = b""
        while ear.poll(500):
            heard += b"".join(ear.recv_multipart())
        return heard
    finally:
        context.destroy(linger=0)


def test_encryption_keeps_output_from_other_users_of_the_host(session: Any, encrypted: Session) -> None:
    assert b"asecret" in overheard(session)  # which docs/safety.md admits
    assert overheard(encrypted) == b""
