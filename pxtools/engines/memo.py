"""What pxtools has to know again of a cluster that outlives the notebook: a file beside ipyparallel's own."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any


def write(cluster: Any, options: dict[str, Any]) -> None:
    """Note that pxtools started this cluster, and with which options of its launcher."""
    handle = os.open(_path(cluster), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        json.dump({"options": options}, file)


def read(cluster: Any) -> dict[str, Any] | None:
    """Return the options; None if pxtools did not start this cluster."""
    try:
        return dict(json.loads(_path(cluster).read_text())["options"])
    except (OSError, ValueError, KeyError):
        return None


def remove(cluster: Any) -> None:
    """Forget the cluster."""
    with contextlib.suppress(OSError):
        _path(cluster).unlink()


def _path(cluster: Any) -> Path:
    return Path(cluster.profile_dir) / "security" / f"pxtools-{cluster.cluster_id}.json"
