"""Run one cell in the engine's shell: take in what it needs, run it, send back what it made."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import types
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from pxtools.remote import failures
from pxtools.remote.engine import Engine, Message, digest, receive, send_back

#: what is not collected unless it is asked for: after `plt.rcParams["x"] = 1` the notebook's `plt` stays what it is
_DEFINITIONS = (types.ModuleType, type, types.FunctionType, types.BuiltinFunctionType)

#: magics that live in an extension which engines have not loaded
EXTENSIONS = {
    "R": "rpy2.ipython",
    "cython": "Cython",
    "octave": "oct2py.ipython",
    "memit": "memory_profiler",
    "lprun": "line_profiler",
}

#: first part of the stream keys of cells; those of map items begin otherwise
_CELLS = 0


def run(engine: Engine, message: Message) -> Message:
    """Run a cell.

    Parameters
    ----------
    message
        ``parcel`` (see `receive`), ``code``, ``rank`` (engine id to rank), ``seed`` (or None), ``outputs`` (list of
        (name here, name there)), ``optional`` (outputs that may stay unset), ``limit`` (bytes).

    Returns
    -------
    dict
        ``conflicts``, ``outputs`` (name there to answer), ``missing``, ``last`` (answer or None), ``shown`` (MIME
        bundle), ``failure``.
    """
    conflicts = receive(engine, message["parcel"])
    _set_rank(engine, message)
    for name in message.get("extensions", ()):
        _load_extension(engine.shell, name)
    hook = LastValue(engine.shell)
    error, rendered = run_cell(engine.shell, message["code"], hook)
    answer: Message = {"conflicts": conflicts, "outputs": {}, "missing": [], "last": None, "shown": None}
    if error is not None:
        _explain(engine, error)
        answer["failure"] = failures.describe(error, engine.namespace, rendered)
        return answer
    held = {there: engine.namespace[here] for here, there in message["outputs"] if here in engine.namespace}
    present = {n: v for n, v in held.items() if n not in message["optional"] or not isinstance(v, _DEFINITIONS)}
    missing = [here for here, there in message["outputs"] if there not in held]
    answer["missing"] = [name for name in missing if name not in message["optional"]]
    answer["outputs"] = send_back(engine, present, message["limit"])
    for here, there in message["outputs"]:
        if there in present:  # from now on both sides hold it
            packed = answer["outputs"][there].get("packed")
            engine.in_step(here, digest(packed) if packed is not None else None)
    if hook.has_value:
        answer["last"] = send_back(engine, {"last": hook.value}, message["limit"])["last"]
        answer["shown"] = hook.shown
    return answer


def _explain(engine: Engine, error: BaseException) -> None:
    """Say why a name is missing, if it stands for a module that is not installed here."""
    reason = engine.absent.get(str(error.name)) if isinstance(error, NameError) else None
    if reason is not None:
        error.add_note(reason)


def _set_rank(engine: Engine, message: Message) -> None:
    rank, size = message["rank"][engine.engine_id], len(message["rank"])
    engine.namespace.update(px_rank=rank, px_size=size)
    if message["seed"] is None:
        return
    engine.seed(message["seed"], _CELLS, rank)


def _load_extension(shell: Any, magic: str) -> None:
    known = shell.magics_manager.magics
    if magic in known["cell"] or magic in known["line"] or magic not in EXTENSIONS:
        return
    shell.run_line_magic("load_ext", EXTENSIONS[magic])


class LastValue:
    """A display hook that keeps the last expression's value and its MIME bundle, and shows nothing."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.has_value = False
        self.value: Any = None
        self.shown: tuple[dict[str, Any], dict[str, Any]] | None = None
        self.is_quiet = False

    def __call__(self, value: Any = None) -> None:
        if value is None:
            return
        self.has_value = True
        self.value = value
        if not self.is_quiet:
            self.shown = self.shell.display_formatter.format(value)


def run_cell(shell: Any, code: str, hook: LastValue) -> tuple[BaseException | None, list[str] | None]:
    """Run a cell without history; return its exception, if any, and the traceback as IPython renders it.

    No result enters `Out`: engines must not hoard values.
    """
    hook.is_quiet = shell.displayhook.semicolon_at_end_of_expression(code)
    rendered: list[list[str]] = []
    with _borrowed(shell, hook, rendered):
        result = shell.run_cell(code, store_history=False, silent=False)
    error = result.error_before_exec or result.error_in_exec
    sys.stdout.flush()
    sys.stderr.flush()
    return error, rendered[-1] if rendered else None


@contextmanager
def _borrowed(shell: Any, hook: LastValue, rendered: list[list[str]]) -> Iterator[None]:
    """Send the shell's display, tracebacks and coroutines our way for one cell."""

    def keep(kind: type, value: BaseException, lines: list[str]) -> None:
        rendered.append(lines)

    def keep_usage_error(error: BaseException) -> None:
        rendered.append([f"UsageError: {error}"])

    trap, runner, compiler = shell.display_trap, shell.loop_runner, shell.compile
    usual = trap.hook
    compiler.get_code_name = _cell_name
    shell._showtraceback, shell.show_usage_error = keep, keep_usage_error
    trap.hook, shell.loop_runner = hook, run_in_own_loop
    try:
        yield
    finally:
        trap.hook, shell.loop_runner = usual, runner
        del shell._showtraceback, shell.show_usage_error, compiler.get_code_name


def _cell_name(raw_code: str, transformed_code: str, number: int) -> str:
    """Return a file name for the cell that is the same on every engine: warnings and tracebacks are shown once."""
    return f"<cell-{hashlib.sha256(raw_code.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}>"


def run_in_own_loop(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a cell with top-level `await` to its end.

    The kernel's loop is running already, underneath us: waiting for it would wait for ever (ipykernel 7). The cell
    gets a loop of its own, in this same thread so that an interrupt reaches it.
    """
    kernel_loop = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    kernel_task = _leave_task(kernel_loop)
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        _finish(loop)
        asyncio._set_running_loop(kernel_loop)
        if kernel_task is not None:
            asyncio.tasks._enter_task(kernel_loop, kernel_task)  # type: ignore[arg-type]


def _leave_task(loop: Any) -> Any:
    task = asyncio.tasks.current_task(loop) if loop is not None else None
    if task is not None:
        asyncio.tasks._leave_task(loop, task)
    return task


def _finish(loop: asyncio.AbstractEventLoop) -> None:
    pending = asyncio.all_tasks(loop)
    for task in pending:
        task.cancel()
    if pending:
        loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
