"""Run an Octave cell beside this engine, over oct2py: inputs in, code, output as it comes, pictures, outputs back."""

from __future__ import annotations

import importlib.util
import io
import itertools
import os
import re
import shutil
import sys
import tempfile
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from pxtools.errors import PxMissing, PxNameError, PxOctaveError, PxUsageError
from pxtools.remote import failures
from pxtools.remote.engine import Engine, Message, receive, send_back
from pxtools.remote.leftovers import vanish_at_end, vanishing_folder
from pxtools.remote.octave_values import Converter

_MIME = {"svg": "image/svg+xml", "png": "image/png", "jpg": "image/jpeg"}

#: where a cell may define a function; whether it did, Octave knows
_FUNCTION = re.compile(r"^\s*function\s+(?:[^=\n(]*=\s*)?([A-Za-z_]\w*)", re.MULTILINE)

#: functions that the runner calls, one file each; an error is written to a file, with the line of the cell
_HELPERS = {
    "pxtools_run": r"""
function pxtools_run (cell_file, error_file)
  try
    evalin ("base", ["source (\"" cell_file "\")"]);
  catch err
    line = 0;
    for k = 1:numel (err.stack)
      if (strcmp (err.stack(k).file, cell_file))
        line = err.stack(k).line;
        break
      endif
    endfor
    [~, own] = fileparts (cell_file);
    if (line == 0)
      for k = 1:numel (err.stack)
        if (strcmp (err.stack(k).name, own))
          line = err.stack(k).line;
          break
        endif
      endfor
    endif
    file = fopen (error_file, "w");
    fprintf (file, "%d\n%s", line, err.message);
    fclose (file);
  end_try_catch
endfunction
""",
    "pxtools_figures": r"""
function pxtools_figures (folder, format, width, height, res)
  handles = sort (get (0, "children"));
  for k = 1:numel (handles)
    file = fullfile (folder, sprintf ("%04d.%s", k, format));
    terminal = struct ("png", "pngcairo", "jpg", "jpeg", "svg", "").(format);
    if (! isempty (terminal) && strcmp (get (handles(k), "__graphics_toolkit__"), "gnuplot"))
      % print would want ghostscript for these; gnuplot itself does not
      set (handles(k), "position", [0 0 width height]);
      set (0, "currentfigure", handles(k));
      drawnow (sprintf ("%s size %d,%d fontscale %g", terminal, width, height, 0.8 * res / 150), file);
      close (handles(k));
      continue
    endif
    print (handles(k), file, ["-d" format], sprintf ("-S%d,%d", width, height), sprintf ("-r%d", res));
    close (handles(k));
  endfor
endfunction
""",
}


class Octave:
    """The Octave of this process: a program beside it, started once."""

    def __init__(self) -> None:
        _check_octave()
        os.environ.pop("DISPLAY", None)
        if shutil.which("octave-cli"):  # `octave` itself complains that there is no display
            os.environ.setdefault("OCTAVE_EXECUTABLE", str(shutil.which("octave-cli")))
        with redirect_stderr(io.StringIO()):
            from oct2py import Oct2Py

            self.folder = vanishing_folder("pxtools-octave-", in_memory=True)
            self.session = Oct2Py(temp_dir=tempfile.mkdtemp(dir=self.folder))
        vanish_at_end(getattr(getattr(self.session, "_engine", None), "tmp_dir", None))
        for name, text in _HELPERS.items():
            (self.folder / f"{name}.m").write_text(text)
        self._cells = itertools.count(1)
        #: functions that cells have defined, perhaps
        self.defined: list[str] = []
        self.quietly(f"addpath ('{self.folder}'); set (0, 'defaultfigurevisible', 'off');")
        self.quietly("warning ('off', 'Octave:gnuplot-graphics');")
        for event in ("crash", "sighup", "sigterm"):  # no file `octave-workspace` in the user's folder at the end
            self.quietly(f"{event}_dumps_octave_core (false);")

    def quietly(self, code: str) -> None:
        """Run code of our own; what it prints is dropped."""
        self.session.eval(code, nout=0, stream_handler=lambda _: None)

    def run(self, code: str) -> tuple[int, str] | None:
        """Run a cell, with its output as it comes; return (line, message) of its error, if any."""
        file = self.folder / f"pxtools_cell_{next(self._cells)}.m"
        problem = self.folder / "problem"
        problem.unlink(missing_ok=True)
        file.write_text("1;" + code if code.lstrip().startswith("function") else code, encoding="utf-8")
        try:
            self.session.eval(f"pxtools_run ('{file}', '{problem}')", nout=0, stream_handler=_print)
        finally:
            file.unlink()
        if not problem.exists():
            return None
        line, _, message = problem.read_text().partition("\n")
        return int(line), message

    def figures(self, plot: Message) -> list[Path]:
        """Return the pictures of all open figures and close them."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        size = plot["width"] or 640, plot["height"] or 480
        arguments = f"'{folder}', '{plot['device']}', {size[0]:g}, {size[1]:g}, {plot['res'] or 150:g}"
        self.quietly(f"pxtools_figures ({arguments})")
        return sorted(folder.iterdir())


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _check_octave() -> None:
    if shutil.which("octave") is None and shutil.which("octave-cli") is None:
        raise PxMissing(
            "Octave is not installed here.\nInstall it: `apt-get install octave gnuplot-nox fonts-freefont-otf`."
        )
    if importlib.util.find_spec("oct2py") is None:
        raise PxMissing(
            'oct2py is not installed here.\nType: `%pip install "pxtools[octave]"`, and `%pxcluster restart`.'
        )


def current(engine: Engine) -> Octave:
    """Return the engine's Octave, started on first use."""
    held = getattr(engine.shell, "pxtools_octave", None)
    if held is None:
        held = engine.shell.pxtools_octave = Octave()
    return held


def run(engine: Engine, message: Message) -> Message:
    """Run an Octave cell; message and answer are those of `pxtools.remote.r_runner.run`."""
    conflicts = receive(engine, message["parcel"])
    if message["plot"]["device"] not in _MIME:
        raise PxUsageError(f"-f {message['plot']['device']}: pictures come as {', '.join(_MIME)}.")
    octave, converter = current(engine), Converter()
    octave.defined = list(dict.fromkeys([*octave.defined, *functions_of(message["code"])]))
    for name, source in message["arguments"]:
        octave.session.push(name, converter.to_octave(_given(engine, source), name), verbose=False)
    if message["seed"] is not None:
        _seed(octave, message["seed"], message["rank"][engine.engine_id])
    answer: Message = {"conflicts": conflicts, "outputs": {}, "missing": [], "last": None, "shown": None}
    problem = octave.run(message["code"])
    _show(octave, message["plot"])
    answer["notes"] = converter.notes
    if problem is not None:
        answer["failure"] = _failure(engine, message["code"], *problem)
        return answer
    _take_out(engine, octave, converter, message, answer)
    return answer


def _given(engine: Engine, source: str) -> Any:
    first, *attributes = source.split(".")
    if first not in engine.namespace:
        raise PxNameError(f"`-i {source}`: `{first}` is neither in the notebook nor on engine {engine.engine_id}.")
    value = engine.namespace[first]
    for part in attributes:
        value = getattr(value, part)
    return value


def functions_of(code: str) -> list[str]:
    r"""Return the names of functions that a cell may define.

    Examples
    --------
    >>> functions_of("function r = cube (x)\n  r = x^3;\nend\nfunction plain\nend")
    ['cube', 'plain']
    """
    return _FUNCTION.findall(code)


def _seed(octave: Octave, seed: int, rank: int) -> None:
    """Start independent streams: the state of Octave's Mersenne twister is 625 numbers."""
    import numpy as np

    states = np.random.SeedSequence(seed, spawn_key=(rank,)).generate_state(625).astype(np.float64)
    octave.session.push("pxtools_state", states.reshape(-1, 1), verbose=False)
    setters = " ".join(f"{name} ('twister', pxtools_state);" for name in ("rand", "randn", "rande", "randg", "randp"))
    octave.quietly(f"{setters} clear pxtools_state;")


def _show(octave: Octave, plot: Message) -> None:
    from IPython.display import publish_display_data

    try:
        pictures = octave.figures(plot)
    except Exception as error:
        octave.quietly("close all")
        raise PxMissing(
            f"the picture cannot be made: {_first_error(error)}\n"
            f"Install what draws: `apt-get install gnuplot-nox fonts-freefont-otf`."
        ) from None
    for picture in pictures:
        data: Any = picture.read_bytes()
        data = data.decode() if plot["device"] == "svg" else data
        publish_display_data({_MIME[plot["device"]]: data}, {"image/svg+xml": {"isolated": True}})


def _first_error(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.startswith("error:")]
    return (lines or str(error).splitlines() or [""])[0].removeprefix("error:").strip()


def _failure(engine: Engine, code: str, line: int, message: str) -> failures.Failure:
    first = message.strip().splitlines()[0] if message.strip() else "error"
    if first.startswith("parse error near line "):
        line, first = int(first.split()[4]), "parse error"
    first = first.partition(" near line ")[0]
    failure = failures.describe(PxOctaveError(first), engine.namespace, [f"Octave: {message}"])
    rows = code.splitlines()
    if 0 < line <= len(rows) + 1:
        line = min(line, len(rows))
        failure |= {"line": line, "source": rows[line - 1].strip()}
    return failure


def _take_out(engine: Engine, octave: Octave, converter: Converter, message: Message, answer: Message) -> None:
    values = {}
    for name, there in message["outputs"]:
        octave.quietly(
            f"pxtools_class = ''; if (exist ('{name}', 'var')) pxtools_class = class ({name});"
            f" if (ischar ({name}) && any (double ({name})(:) > 127)) pxtools_class = 'bytes'; end; end"
        )
        kind = octave.session.pull("pxtools_class", verbose=False)
        if not isinstance(kind, str) or not kind:
            answer["missing"].append(name)
            continue
        if kind == "bytes":
            raise PxOctaveError(
                f"`{name}` is text beyond ASCII, which does not reach Python whole.\n"
                f"Send its bytes: `{name} = uint8({name});`, and `bytes(...)` here."
            )
        if kind == "function_handle":
            raise PxOctaveError(
                f"`{name}` is an Octave function handle, which Python cannot hold.\nCall it in the cell."
            )
        values[there] = converter.from_octave(octave.session.pull(name, verbose=False), name, kind)
        engine.namespace[there] = values[there]
        engine.in_step(there)
    octave.quietly("clear pxtools_class")
    answer["outputs"] = send_back(engine, values, message["limit"])
