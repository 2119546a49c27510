"""Engines in the queue of a batch system: Slurm itself, with this host as its one node."""

from __future__ import annotations

import re
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from pxtools.errors import PxClusterError
from pxtools.session import state
from tests.hosts.conftest import killed_notebook, run


def queue() -> list[str]:
    return run("squeue", "--noheader", "--states=PENDING,RUNNING", "--format=%i %T").splitlines()


def until_the_queue_is_empty() -> list[str]:
    deadline = time.monotonic() + 30
    while queue() and time.monotonic() < deadline:
        time.sleep(0.1)
    return queue()


def test_a_start_does_not_wait_for_the_queue(slurm: Path, own: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    later = {"engines": "slurm", "launcher_options": ["options=--begin=now+1hour"]}
    with pytest.raises(PxClusterError, match=r"0 of 1 engines came up within 0\.5 s"):  # which does not end the job
        own.start(2, **later, min_engines=1, timeout_s=0.5)
    assert re.search(r"0 of 2 engines are here \(job \d+ PENDING \(BeginTime\)\); the others join", own.notices[0])
    with pytest.raises(PxClusterError, match=r"no engine has come yet.*PENDING(.|\n)*%pxcluster wait -n 1"):
        own.targets()
    assert len(queue()) == 1
    own.stop()
    assert until_the_queue_is_empty() == []
    assert list(tmp_path.iterdir()) == []  # no batch script is left in the notebook's folder


def test_a_job_that_is_refused_is_explained_with_slurms_own_words(slurm: Path, own: Any) -> None:
    with pytest.raises(PxClusterError) as caught:
        own.start(1, engines="slurm", launcher_options=["queue=nowhere"])
    what, where, advice = str(caught.value).splitlines()
    assert what == "engines could not be started: `sbatch` ended with exit code 1."
    assert re.search(r"pxtools-failed-\S+\.log, line \d+: sbatch: error: invalid partition specified: nowhere", where)
    assert "-O queue=NAME" in advice
    file, _, number = where.partition(": ")[0].partition(", line ")
    assert "invalid partition" in Path(file).expanduser().read_text().splitlines()[int(number) - 1]


def test_a_cluster_in_a_queue_survives_its_notebook_and_is_found_again(
    slurm: Path,
    own: Any,
    values: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    supercomputer: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    cluster_id = killed_notebook("%pxcluster start -n 1 --engines slurm --min-engines 1", "%pxpush found=[1, 2, 3]")
    assert own.connect(cluster_id=cluster_id) == [0]
    assert state.who(own)["found"][0]["text"] == "[1, 2, 3]"
    memo = Path(own.connection.cluster.profile_dir) / "security" / f"pxtools-{cluster_id}.json"
    assert stat.S_IMODE(memo.stat().st_mode) == 0o600

    assert list(tmp_path.iterdir()) == []

    own.namespace["offset"] = 4
    assert values(own, "offset + px_rank") == [4]
    own.resize(2)  # a second job, with the options of the first
    own.wait(timeout_s=200)
    assert values(own, "offset + px_rank") == [4, 5]
    here, there = supercomputer(own)
    assert here == there
    own.disconnect()
    assert len(queue()) == 2  # leaving is not stopping
    own.connect(cluster_id=cluster_id)
    own.stop()
    assert until_the_queue_is_empty() == []
    assert not memo.exists()
    with pytest.raises(PxClusterError, match="no cluster is running"):
        own.connect(cluster_id=cluster_id)
