"""What any Jupyter front end asks of the kernel: completion and help, over the kernel's own protocol."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pxtools import demo
from pxtools.magics import MAGICS

PATIENCE_S = 180


@pytest.fixture(scope="module")
def client(cluster_session: Any) -> Iterator[Any]:
    """A client of a kernel with pxtools loaded; the engines are those of the test run."""
    with demo.private_environment() as environment:
        environment["PXTOOLS_CLUSTER_FILE"] = cluster_session.connection.cluster.cluster_file
        manager = demo.kernel_manager(environment)
        manager.start_kernel(env=environment)
        client = manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=PATIENCE_S)
        try:
            reply = client.execute_interactive("%load_ext pxtools", timeout=PATIENCE_S)
            assert reply["content"]["status"] == "ok"
            yield client
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)


def completed(client: Any, code: str) -> set[str]:
    reply = client.complete(code, reply=True, timeout=PATIENCE_S)["content"]
    assert reply["status"] == "ok"
    return {code[: reply["cursor_start"]] + match for match in reply["matches"]}


def test_the_family_and_options_complete(client: Any) -> None:
    family = completed(client, "%px") | completed(client, "%%px")
    assert {f"%{name}" for name in MAGICS} <= {word.replace("%%", "%") for word in family}
    assert completed(client, "%pxsample --dr") == {"%pxsample --draws"}
    assert completed(client, "%%pxR --units p") == {"%%pxR --units px"}
    client.execute_interactive("def log_density_of_mine(x): return -x * x", timeout=PATIENCE_S)
    assert completed(client, "%pxsample log_density") == {"%pxsample log_density_of_mine"}
    assert completed(client, "%pxcollect --how con") == {"%pxcollect --how concat"}


def test_names_that_only_the_engines_have_complete(client: Any) -> None:
    reply = client.execute_interactive("%%pxrun\ndef made_over_there(): pass", timeout=PATIENCE_S)
    assert reply["content"]["status"] == "ok"
    assert completed(client, "%pxcollect made_over") == {"%pxcollect made_over_there"}
    assert completed(client, "%%pxrun -o made_over") == {"%%pxrun -o made_over_there"}


@pytest.mark.parametrize("magic", MAGICS)
def test_help_shows_what_the_magic_does_its_options_and_an_example(magic: str, client: Any) -> None:
    kind = "%%" if magic in ("pxcython", "pxexpr") else "%"
    reply = client.inspect(f"{kind}{magic}", reply=True, timeout=PATIENCE_S)["content"]
    assert reply["found"], magic
    text = reply["data"]["text/plain"]
    assert f">>> {kind}{magic}" in text or f"%{magic}" in text.partition("Examples")[2]
