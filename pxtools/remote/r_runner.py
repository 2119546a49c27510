"""Run an R cell inside this engine: inputs in, code, output as it comes, pictures, outputs back as plain Python."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pxtools.errors import PxMissing, PxNameError, PxRError, PxUsageError
from pxtools.remote import failures
from pxtools.remote.engine import Engine, Message, receive, send_back
from pxtools.remote.leftovers import vanish_at_end, vanishing_folder
from pxtools.remote.r_frames import attribute
from pxtools.remote.r_values import Converter

#: a list of R functions; every error becomes a value, with the line of the cell that it comes from
_HELPERS = r"""
local({
  where <- function(calls, otherwise) {
    for (call in rev(calls)) {
      ref <- attr(call, "srcref")
      if (!is.null(ref) && identical(attr(ref, "srcfile")$filename, "<cell>")) return(as.integer(ref)[1])
    }
    otherwise
  }
  guarded <- function(action) {
    line <- NA_integer_
    at <- function(l) line <<- l
    tryCatch(
      withCallingHandlers(action(at), error = function(e) line <<- where(sys.calls(), line)),
      error = function(e) list(ok = FALSE, message = conditionMessage(e), line = line, interrupted = FALSE),
      interrupt = function(e) list(ok = FALSE, message = "interrupted", line = line, interrupted = TRUE))
  }
  list(
    run = function(code, show) guarded(function(at) {
      file <- srcfilecopy("<cell>", strsplit(code, "\n", fixed = TRUE)[[1]])
      expressions <- parse(text = code, keep.source = TRUE, srcfile = file)
      refs <- attr(expressions, "srcref")
      last <- list(value = NULL, visible = FALSE)
      for (k in seq_along(expressions)) {
        at(as.integer(refs[[k]])[1])
        one <- expressions[[k]]  # R compiles loops, with the lines of their bodies only if they have a srcref
        if (is.call(one) && is.null(attr(one, "srcref"))) attr(one, "srcref") <- refs[[k]]
        last <- withVisible(eval(one, globalenv()))
      }
      if (show && last$visible) print(last$value)
      list(ok = TRUE, value = last$value, visible = last$visible)
    }),
    seed = function(seed, rank) {
      RNGkind("L'Ecuyer-CMRG")
      set.seed(seed)
      state <- get(".Random.seed", globalenv())
      for (i in seq_len(rank)) state <- parallel::nextRNGStream(state)
      assign(".Random.seed", state, globalenv())
      TRUE
    },
    open = function(device, arguments) guarded(function(at) {
      do.call(getExportedValue("grDevices", device), arguments)
      list(ok = TRUE, number = as.integer(grDevices::dev.cur()))
    }),
    close = function(before) {
      for (number in setdiff(grDevices::dev.list(), before)) grDevices::dev.off(number)
      invisible(NULL)
    },
    devices = function() as.integer(grDevices::dev.list())
  )
})
"""

_MIME = {"png": "image/png", "jpeg": "image/jpeg", "svg": "image/svg+xml"}
#: pixels of one unit, at 72 to the inch
_PIXELS = {"px": 1.0, "in": 72.0, "cm": 72.0 / 2.54, "mm": 7.2 / 2.54}


class R:
    """The R of this process: started once, never in the notebook's process."""

    def __init__(self) -> None:
        _check_r()
        os.environ["RPY2_CFFI_MODE"] = "ABI"
        try:
            import rpy2.rinterface
            from rpy2.rinterface_lib import callbacks

            rpy2.rinterface.initr()
        except Exception as error:  # the one of cffi, for a symbol that R lacks, inherits from nothing else
            raise PxMissing(_why_not(error)) from error
        callbacks.consolewrite_print = _writer("stdout")
        callbacks.consolewrite_warnerror = _writer("stderr")
        self.ri: Any = rpy2.rinterface
        vanish_at_end(str(self.ri.evalr("tempdir()")[0]))  # R removes it only if it may end in good order
        self.folder = vanishing_folder("pxtools-r-")
        self.ri.evalr("options(warn = 1, device = function(...) grDevices::pdf(NULL))")
        functions = self.ri.evalr(_HELPERS)
        self.helpers = dict(zip(functions.names, functions, strict=True))

    def call(self, helper: str, *arguments: Any) -> dict[str, Any]:
        """Call one of the helpers; return its named list."""
        answer = self.helpers[helper](*arguments)
        names = attribute(answer, "names")
        return {} if names is None else dict(zip(names, answer, strict=True))

    def text(self, *words: str) -> Any:
        return self.ri.StrSexpVector(words)

    def integers(self, *numbers: int) -> Any:
        return self.ri.IntSexpVector(numbers)


def _writer(stream: str) -> Any:
    def write(text: str) -> None:
        file = getattr(sys, stream)
        file.write(text)
        if "\n" in text:
            file.flush()

    return write


def _check_r() -> None:
    if shutil.which("R") is None and not os.environ.get("R_HOME"):
        raise PxMissing(
            "R is not installed here.\nInstall it: `apt-get install r-base-core`, or `conda install r-base`."
        )
    import importlib.util

    if importlib.util.find_spec("rpy2") is None:
        raise PxMissing(
            'rpy2 is not installed here.\nType: `%pip install "pxtools[r]"`, and `%pxcluster restart`; '
            "for an R older than 4.5 the line that `%pxdoctor` shows."
        )


def _why_not(error: BaseException) -> str:
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if "R_getVar" in text or "R_ParentEnv" in text:
        return (
            "this rpy2 needs R 4.5 or newer, and R here is older.\n"
            'Type: `RPY2_CFFI_MODE=ABI pip install "rpy2-rinterface<3.6.6"`, and `%pxcluster restart`.'
        )
    return f"R does not start: {text}\n`%pxdoctor` says more."


def current(engine: Engine) -> R:
    """Return the engine's R, started on first use."""
    held = getattr(engine.shell, "pxtools_r", None)
    if held is None:
        held = engine.shell.pxtools_r = R()
    return held


def run(engine: Engine, message: Message) -> Message:
    """Run an R cell.

    Parameters
    ----------
    message
        ``parcel``, ``code``, ``rank`` (engine id to rank), ``seed`` (or None), ``arguments`` (pairs of R name and
        Python name), ``outputs`` (pairs of R name and name there), ``plot`` (see `_device`), ``shows``, ``converter``,
        ``display``, ``limit``.

    Returns
    -------
    dict
        As `pxtools.remote.execute.run`, with ``notes``.
    """
    conflicts = receive(engine, message["parcel"])
    r, converter = current(engine), Converter()
    for name, source in message["arguments"]:
        r.ri.globalenv[name] = _given(engine, converter, message, name, source)
    if message["seed"] is not None:
        r.call("seed", r.integers(message["seed"] % (2**31 - 1)), r.integers(message["rank"][engine.engine_id]))
    answer: Message = {"conflicts": conflicts, "outputs": {}, "missing": [], "last": None, "shown": None}
    done = _run_with_pictures(engine, r, message)
    if not bool(done["ok"][0]):
        if bool(done["interrupted"][0]):
            raise KeyboardInterrupt
        answer["failure"] = _failure(engine, done, message["code"])
        return {**answer, "notes": converter.notes}
    _take_out(engine, r, converter, message, answer)
    return {**answer, "notes": converter.notes}


def _given(engine: Engine, converter: Converter, message: Message, name: str, source: str) -> Any:
    first, *attributes = source.split(".")
    if first not in engine.namespace:
        raise PxNameError(f"`-i {source}`: `{first}` is neither in the notebook nor on engine {engine.engine_id}.")
    value = engine.namespace[first]
    for part in attributes:
        value = getattr(value, part)
    if message["converter"]:
        return engine.namespace[message["converter"]].py2rpy(value)
    return converter.to_r(value, name)


def _run_with_pictures(engine: Engine, r: R, message: Message) -> dict[str, Any]:
    """Run the code with a graphics device open; show the pictures it drew, in order."""
    folder = Path(tempfile.mkdtemp(dir=r.folder))
    before = r.helpers["devices"]()
    try:
        opened = r.call("open", *_device(r, message["plot"], folder))
        if not bool(opened["ok"][0]):
            raise PxRError(f"the graphics device does not open: {opened['message'][0]}")
        shows = message["shows"] and not message["display"]
        with interruptible(r):
            done = r.call("run", r.text(message["code"]), r.ri.BoolSexpVector([shows]))
        if message["display"] and bool(done["ok"][0]) and bool(done["visible"][0]):
            engine.namespace[message["display"]](done["value"], message["plot"])
        r.helpers["close"](before)
        _show_pictures(folder, message["plot"])
        return done
    finally:
        r.helpers["close"](before)
        shutil.rmtree(folder, ignore_errors=True)
        sys.stdout.flush()
        sys.stderr.flush()


@contextlib.contextmanager
def interruptible(r: R) -> Iterator[None]:
    """Pass SIGINT on to R: Python's own handler has to wait until R returns, which may be never.

    The signal's number arrives on a file that a thread reads; Python runs threads while R works.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    from rpy2.rinterface_lib import openrlib

    ours, theirs = socket.socketpair()
    theirs.setblocking(False)

    def watch() -> None:
        while received := ours.recv(64):
            if signal.SIGINT in received:
                openrlib.rlib.R_interrupts_pending = 1

    watcher = threading.Thread(target=watch, daemon=True)
    handler = signal.signal(signal.SIGINT, lambda *_: None)  # R reports it, in its own way
    usual = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(usual)
        signal.signal(signal.SIGINT, handler)
        theirs.close()
        watcher.join()
        ours.close()
        openrlib.rlib.R_interrupts_pending = 0


def _device(r: R, plot: Message, folder: Path) -> tuple[Any, Any]:
    """Return the device's name and arguments.

    Parameters
    ----------
    plot
        ``device`` (png, jpeg or svg), ``width``, ``height``, ``units``, ``res``, ``pointsize``, ``bg``.
    """
    device = plot["device"]
    if device not in _MIME:
        raise PxUsageError(f"--graphics-device {device}: pictures come as {', '.join(_MIME)}.")
    units = plot["units"] or "px"
    pixels = {key: plot[key] * _PIXELS[units] for key in ("width", "height") if plot[key] is not None}
    arguments: dict[str, Any] = {"filename": r.text(f"{folder}/%04d.{device}")}
    if device == "svg":
        arguments |= {key: r.ri.FloatSexpVector([value / 72.0]) for key, value in pixels.items()}
        arguments["onefile"] = r.ri.BoolSexpVector([False])
    else:
        res = plot["res"] or 72
        arguments |= {
            key: r.ri.FloatSexpVector([value * (1 if units == "px" else res / 72)]) for key, value in pixels.items()
        }
        arguments |= {"res": r.integers(res), "type": r.text("cairo")}
    if plot["pointsize"] is not None:
        arguments["pointsize"] = r.ri.FloatSexpVector([float(plot["pointsize"])])
    if plot["bg"] is not None:
        arguments["bg"] = r.text(plot["bg"])
    listed = r.ri.ListSexpVector(list(arguments.values()))
    listed.do_slot_assign("names", r.text(*arguments))
    return r.text(device), listed


def _show_pictures(folder: Path, plot: Message) -> None:
    from IPython.display import publish_display_data

    for picture in sorted(folder.iterdir()):
        data: Any = picture.read_bytes()
        if not data:
            continue
        metadata: dict[str, Any] = {}
        if plot["device"] == "svg":
            data = data.decode()
            metadata = {"image/svg+xml": {"isolated": plot["isolate"]}}
        publish_display_data({_MIME[plot["device"]]: data}, metadata)


def _failure(engine: Engine, done: dict[str, Any], code: str) -> failures.Failure:
    text, line = str(done["message"][0]), done["line"][0]
    if text.startswith("<cell>:"):  # a syntax error: `<cell>:2:0: unexpected end of input`
        _, row, _, said = text.split(":", 3)
        text, line = said.strip().splitlines()[0], int(row)
    failure = failures.describe(PxRError(text), engine.namespace, [f"R: {done['message'][0]}"])
    rows = code.splitlines()
    if isinstance(line, int) and 0 < line <= len(rows) + 1:
        line = min(line, len(rows))
        failure |= {"line": line, "source": rows[line - 1].strip()}
    return failure


def _take_out(engine: Engine, r: R, converter: Converter, message: Message, answer: Message) -> None:
    values = {}
    for name, there in message["outputs"]:
        try:
            found = r.ri.globalenv.find(name)
        except KeyError:
            answer["missing"].append(name)
            continue
        if message["converter"]:
            values[there] = engine.namespace[message["converter"]].rpy2py(found)
        else:
            values[there] = converter.from_r(found, name)
        engine.namespace[there] = values[there]
        engine.in_step(there)
    answer["outputs"] = send_back(engine, values, message["limit"])
