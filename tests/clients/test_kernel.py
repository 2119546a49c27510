"""What any Jupyter front end asks of the kernel: completion and help, over the kernel's own protocol."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pxtools import demo
from pxtools.magics import MAGICS

PATIENCE_S = 180


@pytest.fixture(scope="module")
def kernel(cluster_session: Any) -> Iterator[tuple[Any, Any]]:
    """A kernel with pxtools loaded, as its manager and a client; the engines are those of the test run."""
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
            yield manager, client
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)


@pytest.fixture
def client(kernel: tuple[Any, Any]) -> Any:
    return kernel[1]


@pytest.fixture
def last_progress(kernel: tuple[Any, Any]) -> Callable[..., str]:
    """Run a cell, interrupt it if asked when its progress is first seen; return the progress that a file would save."""
    manager, client = kernel

    def run(source: str, *, interrupt: bool) -> str:
        seen: list[str] = []

        def look(message: Any) -> None:
            html = message["content"].get("data", {}).get("text/html", "")
            if "<progress" in html:
                seen.append(html)
                if interrupt and len(seen) == 1:
                    manager.interrupt_kernel()

        client.execute_interactive(source, timeout=PATIENCE_S, output_hook=look)
        return seen[-1]

    return run


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


SLOW = "import time\ndef slow(x, y=0): time.sleep(0.1); return -x * x"
LONG_WORK = [
    ("%pxrun time.sleep(300)", r"engines at work: 0/4 engines done"),
    ("%%pxR\nSys.sleep(300)", r"engines at work: 0/4 engines done"),
    ("%pxmap --chunksize 1 slow range(3000)", r"map slow: \d{1,3}/3,000 items · \d+/s"),
    ("%pxsample slow --initial 0 --scalar --seed 1", r"sampling slow: [\d,]+/[\d,]+ steps · [\d,]+/s"),
]


@pytest.mark.parametrize(("source", "words"), LONG_WORK, ids=["run", "R", "map", "sample"])
def test_the_progress_of_interrupted_work_says_so_and_is_not_at_its_end(
    source: str, words: str, last_progress: Callable[..., str], client: Any
) -> None:
    if source.startswith("%%pxR"):
        pytest.importorskip("rpy2", reason="needs R and rpy2")
    client.execute_interactive(SLOW, timeout=PATIENCE_S)
    shown = last_progress(source, interrupt=True)
    assert re.search(words + r" · interrupted after [\d.]+ s</div>", shown), shown
    assert float(re.search(r'value="([\d.]+)"', shown)[1]) < 0.5, shown


def test_the_progress_of_work_says_when_the_time_was_up_and_nothing_but_the_time_at_its_end(
    last_progress: Callable[..., str],
) -> None:
    shown = last_progress("%pxrun --timeout 1.5 import time; time.sleep(300)", interrupt=False)
    assert re.search(r"0/4 engines done · out of time after [\d.]+ s</div>", shown), shown
    shown = last_progress("try:\n    1 / 0\nexcept ZeroDivisionError:\n    %pxrun time.sleep(1.5)", interrupt=False)
    assert re.search(r"4/4 engines done · [\d.]+ s</div>", shown), shown
    assert 'value="1.0000"' in shown
