"""Engines that share one communicator, by the `mpiexec` of this machine."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from typing import Any

import pytest

from pxtools.engines.kinds import find_kind
from pxtools.errors import PxClusterError
from pxtools.session import state
from tests.hosts.conftest import killed_notebook

pytestmark = pytest.mark.skipif(
    shutil.which("mpiexec") is None or importlib.util.find_spec("mpi4py") is None,
    reason="needs mpiexec and mpi4py (Debian: apt-get install openmpi-bin; pip install 'pxtools[mpi]')",
)


def mpi_args() -> list[str]:
    said = subprocess.run(["mpiexec", "--version"], capture_output=True, text=True, check=False).stdout
    return ["--allow-run-as-root", "--oversubscribe"] if "Open MPI" in said or "OpenRTE" in said else []


def test_what_mpiexec_refuses_is_explained_with_its_own_words(own: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMPI_ALLOW_RUN_AS_ROOT", raising=False)
    if os.geteuid() or not mpi_args():
        pytest.skip("only root is refused by Open MPI")
    with pytest.raises(PxClusterError) as caught:
        own.start(1, engines="mpi")
    what, where, advice = str(caught.value).splitlines()
    assert what == "0 of 1 engines came up, and the rest have ended."
    assert "mpiexec has detected an attempt to run as root" in where
    assert ".log, line" in where
    assert '-O mpi_args="--allow-run-as-root"' in advice
    assert not own.is_connected


def test_engines_survive_their_notebook_share_a_communicator_and_are_replaced_as_one(
    own: Any, values: Any, supercomputer: Any, shell: Any
) -> None:
    options = f"-O mpi_args='{' '.join(mpi_args())}'"
    cluster_id = killed_notebook(f"%pxcluster start -n 1 --engines mpi {options}", "%pxpush found=[1, 2, 3]")
    assert own.connect(cluster_id=cluster_id) == [0]
    assert state.who(own)["found"][0]["text"] == "[1, 2, 3]"
    own.namespace["offset"] = 4
    state.import_(own, "from math import sqrt as root")
    state.push(own, ["offset"], {"CONSTANT": 7})
    before = own.wire.engines[0]["pid"]
    assert own.resize(2) == [0, 1]
    assert before not in [said["pid"] for said in own.wire.engines.values()]
    assert state.collect(own, "offset", how="list") == [4, 4]  # which sends nothing
    assert values(own, "MPI.COMM_WORLD.allreduce(px_rank + 1)") == [3, 3]
    assert values(own, "(root(offset), CONSTANT)") == [(2.0, 7), (2.0, 7)]
    own.namespace["offset"] = 9
    assert values(own, "root(offset)") == [3.0, 3.0]
    here, there = supercomputer(own, has_mpi=True)
    assert here == there
    heat, temperature = shell.user_ns["heat"].same(), shell.user_ns["temperature"]
    assert heat == pytest.approx(temperature.sum())
    assert temperature[0] > 0.9
    assert 0 < temperature[-1] < 0.1
    own.stop()
    with pytest.raises(PxClusterError, match="no cluster is running"):
        own.connect(cluster_id=cluster_id)


def test_mpi_listens_to_other_hosts_only_if_it_is_told_of_some(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = find_kind("mpi")
    for name in ("SLURM_JOB_ID", "PBS_NODEFILE", "LSB_HOSTS", "PE_HOSTFILE"):
        monkeypatch.delenv(name, raising=False)
    assert not kind.reaches_out({"mpi_args": ["--oversubscribe"]})
    assert kind.reaches_out({"mpi_args": ["--hostfile", "hosts.txt"]})
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert kind.reaches_out({})
