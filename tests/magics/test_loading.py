"""Load, unload, reload: nothing of pxtools stays behind."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()

def traces():
    magics = {(kind, name) for kind, table in shell.magics_manager.magics.items() for name in table}
    return (
        magics,
        set(shell.magics_manager.registry),
        [type(c).__name__ for c in shell.configurables],
        {event: list(calls) for event, calls in shell.events.callbacks.items()},
        list(shell.Completer.custom_matchers) if shell.Completer else [],
        set(shell.user_ns),
    )

shell.run_line_magic("load_ext", "IPython.extensions.storemagic")  # IPython makes its extension magics on first use
before = traces()
for _ in range(3):
    shell.run_line_magic("load_ext", "pxtools")
    assert ("cell", "pxrun") in traces()[0]
    shell.run_line_magic("reload_ext", "pxtools")
    shell.run_line_magic("unload_ext", "pxtools")
    assert traces() == before, [a for a, b in zip(traces(), before) if a != b]
shell.run_line_magic("load_ext", "pxtools")
shell.run_line_magic("load_ext", "pxtools")
import psutil
assert psutil.Process().children() == []
print("clean")
"""


def test_three_rounds_leave_no_trace_and_start_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines()[-1:] == ["clean"], done.stdout + done.stderr
