"""Jobs of batch systems: what has become of them."""

from __future__ import annotations

import subprocess
from typing import Any

_ASK_S = 5

#: states of a Slurm job that has not ended
_ALIVE = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED", "RESIZING")


def jobs(cluster: Any) -> dict[str, str]:
    """Return job id to its state in words; an empty state where the batch system has not been asked.

    Slurm is asked; of other batch systems only the number of the job is known.
    """
    ids = [str(s.job_id) for s in cluster.engines.values() if getattr(s, "job_id", "")]
    states = dict.fromkeys(ids, "")
    if ids and _is_slurm(cluster):
        said = _run(["squeue", "--noheader", "--states=all", "--format=%i|%T|%r", f"--jobs={','.join(ids)}"])
        if said is None:
            return states
        states = dict.fromkeys(ids, "ENDED")  # Slurm forgets jobs some minutes after their end
        for line in said.splitlines():
            job, _, rest = line.strip().partition("|")
            state, _, reason = rest.partition("|")
            states[job] = state + (f" ({reason})" if reason not in ("", "None") else "")
    return states


def in_words(cluster: Any) -> str:
    """Return `job 17 PENDING (Resources)`, or nothing where there are no jobs."""
    return ", ".join(f"job {job} {state}".strip() for job, state in jobs(cluster).items())


def have_ended(cluster: Any) -> bool:
    """Return whether the batch system says that every job has ended."""
    if not _is_slurm(cluster):
        return False
    states = jobs(cluster).values()
    return bool(states) and all(state and not state.startswith(_ALIVE) for state in states)


def _is_slurm(cluster: Any) -> bool:
    return "slurm" in cluster.engine_launcher_class.__name__.lower()


def _run(command: list[str]) -> str | None:
    """Return what a command said; None if it did not work. A job that Slurm has forgotten is an answer, too."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 or "Invalid job id" in done.stderr else None
