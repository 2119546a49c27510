"""Load, unload, reload: nothing of pxtools stays behind."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = '''
import atexit, gc, os, signal, sys, threading, warnings
from IPython.core.interactiveshell import InteractiveShell

at_exit = []
register, unregister = atexit.register, atexit.unregister
atexit.register = lambda f, *a, **k: (at_exit.append(f), register(f, *a, **k))[1]
atexit.unregister = lambda f: (at_exit.remove(f) if f in at_exit else None, unregister(f))[1]
shell = InteractiveShell.instance()

def name(thing):
    kind = type(thing)
    return f"{getattr(thing, '__module__', kind.__module__)}.{getattr(thing, '__qualname__', kind.__name__)}"

def traces():
    """What an extension may change, of the shell and of the process."""
    transformers = shell.input_transformer_manager
    formatters = shell.display_formatter
    return {
        "magics": {(kind, n) for kind, table in shell.magics_manager.magics.items() for n in table},
        "registry": set(shell.magics_manager.registry),
        "configurables": [type(c).__name__ for c in shell.configurables],
        "config": repr(shell.config),
        "events": {event: list(map(name, calls)) for event, calls in shell.events.callbacks.items()},
        "matchers": list(shell.Completer.custom_matchers),
        "completers": [name(m) for m in shell.Completer.matchers],
        "hooks": {key: repr(hook) for key, hook in shell.hooks.items() if not key.startswith("_")},
        "transformers": [
            list(map(name, some))
            for some in (
                transformers.cleanup_transforms, transformers.line_transforms, transformers.token_transformers,
                shell.input_transformers_post, shell.ast_transformers,
            )
        ],
        "formatters": {
            kind: (list(f.type_printers), list(f.deferred_printers), list(f.singleton_printers))
            for kind, f in formatters.formatters.items()
        } | {"ipython": list(formatters.ipython_display_formatter.type_printers)},
        "custom exceptions": (shell.custom_exceptions, name(shell.CustomTB) if shell.custom_exceptions else None),
        "names": set(shell.user_ns),
        "builtins": set(vars(__import__("builtins"))),
        "meta path": list(map(name, sys.meta_path)),
        "hooks of sys": (sys.excepthook, sys.displayhook, sys.unraisablehook, threading.excepthook),
        "signals": signal.getsignal(signal.SIGINT),
        "environment": {k: v for k, v in os.environ.items() if k != "COLUMNS"},
        "our atexit": [name(f) for f in at_exit if str(getattr(f, "__module__", "")).startswith("pxtools")],
        "our threads": [t.name for t in threading.enumerate() if "pxtools" in t.name.lower()],
    }

def changed(before, ipyparallels=()):
    now = traces()
    found = {}
    for key, value in now.items():
        if isinstance(value, set):
            value = value - set(ipyparallels)
        elif isinstance(value, list):
            value = [v for v in value if str(v) not in ipyparallels]
        if value != before[key]:
            found[key] = (value, before[key])
    return found

shell.run_line_magic("load_ext", "IPython.extensions.storemagic")
shell.run_cell("0")  # IPython makes its own magics on first use
shell.run_line_magic("config", "IPCompleter")
import IPython.core.completerlib
before = traces()
for _ in range(3):
    shell.run_line_magic("load_ext", "pxtools")
    assert ("cell", "pxrun") in traces()["magics"]
    shell.run_line_magic("reload_ext", "pxtools")
    shell.run_line_magic("unload_ext", "pxtools")
    assert not changed(before), changed(before)
shell.run_line_magic("load_ext", "pxtools")
shell.run_line_magic("load_ext", "pxtools")
import psutil
assert psutil.Process().children() == []

import pxtools.errors
shell.run_line_magic("config", "PxTools.short_errors = False")
shell.run_line_magic("config", "PxTools.engines = 1")
for line in (
    "%pximport numpy as np", "%pxrun a = np.zeros(2)", "_m = %pxmap abs [-1]", "%pxrun 1 / 0", "%pxrun --nope",
    "_h = %pxrun --noblock 1 + 1", "_h.result(20);",
):
    shell.run_cell(line)
shell.Completer.completions("%pxcollect ", 11)
engines = psutil.Process().children(recursive=True)
assert len(engines) >= 3
shell.run_line_magic("unload_ext", "pxtools")
for left in ("np", "a", "_m", "_h"):  # the user's own names
    del shell.user_ns[left]
ipyparallels = {(kind, n) for kind in ("line", "cell") for n in ("px", "pxconfig", "autopx", "pxresult", "result")}
ipyparallels.add("ParallelMagics")
assert not changed(before, ipyparallels), changed(before, ipyparallels)
assert pxtools.errors.ShortTraceback.is_short_at_first
assert psutil.wait_procs(engines, timeout=20)[1] == []
print("clean")
'''


def test_three_rounds_and_one_with_work_leave_no_trace_and_no_process() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines()[-1:] == ["clean"], done.stdout + done.stderr
