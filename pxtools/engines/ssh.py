"""ipyparallel's engines through ssh, but silent about connections that end."""

from __future__ import annotations

import contextlib
import subprocess
from typing import Any

from ipyparallel.cluster import launcher as launchers


class SSHEngine(launchers.SSHEngineLauncher):
    """One engine through ssh.

    A thread of ipyparallel's waits for its end over a connection of its own. When the network goes, that must not end
    in a traceback in the notebook.
    """

    def _wait(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError, RuntimeError):
            super()._wait()


class SSHEngines(launchers.SSHEngineSetLauncher):
    """Engines through ssh, host by host."""

    launcher_class = SSHEngine
    #: what ipyparallel writes into its cluster file, to find this class again
    entrypoint_name = f"{__name__}.SSHEngines"

    @launchers.default("engine_cmd")
    def _usual_command(self) -> list[Any]:
        return [self.remote_python, "-m", "ipyparallel.engine"]
