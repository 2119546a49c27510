"""What R and Octave hold on an engine, as bytes: taken from one engine, given to another.

Functions, and values up to a size. Each has a key, equal on engines where it is the same.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from pxtools.remote.engine import Engine, Message
from pxtools.remote.octave_runner import current as current_octave
from pxtools.remote.r_runner import current as current_r

#: (key, bytes) by name
Held = dict[str, tuple[str, bytes]]

_R = r"""
list(
  save = function(limit) {
    names <- setdiff(ls(globalenv(), all.names = TRUE), ".Random.seed")
    saved <- lapply(names, function(name) tryCatch({
      value <- get(name, globalenv())
      if (typeof(value) %in% c("externalptr", "weakref") || utils::object.size(value) > limit) stop("not this one")
      text <- if (typeof(value) == "closure") paste(deparse(utils::removeSource(value)), collapse = "\n") else ""
      list(text, serialize(value, NULL))
    }, error = function(e) NULL))
    list(names = names, saved = saved, packages = rev(.packages()))
  },
  attach = function(packages) {
    for (name in packages) suppressWarnings(require(name, character.only = TRUE, quietly = TRUE))
  },
  restore = function(name, bytes) assign(name, unserialize(bytes), globalenv())
)
"""


def _helpers(r: Any) -> dict[str, Any]:
    functions = r.ri.evalr(_R)
    return dict(zip(functions.names, functions, strict=True))


def save_r(engine: Engine, message: Message) -> Message:
    """Return what this engine's R holds: `held`, `packages`, and `left`, names that are too large or cannot be saved.

    Parameters
    ----------
    message
        ``limit``, the most bytes of a value.
    """
    if getattr(engine.shell, "pxtools_r", None) is None:
        return {"held": {}, "packages": [], "left": []}
    r = current_r(engine)
    answer = _helpers(r)["save"](r.integers(message["limit"]))
    names, saved, packages = answer
    held: Held = {}
    for name, pair in zip(names, saved, strict=True):
        if pair is not r.ri.NULL:
            content = bytes(list(pair[1]))
            held[str(name)] = (str(pair[0][0]) or _key(content), content)
    return {"held": held, "packages": list(packages), "left": [str(n) for n in names if str(n) not in held]}


def give_r(engine: Engine, message: Message) -> Message:
    """Give this engine's R what others hold: ``held``, ``packages``."""
    r = current_r(engine)
    helpers = _helpers(r)
    if message["packages"]:
        helpers["attach"](r.text(*message["packages"]))
    for name, content in message["held"].items():
        helpers["restore"](r.text(name), r.ri.ByteSexpVector(content))
    return {}


_SAVE_OCTAVE = r"""
function left = pxtools_save (folder, limit)
  left = {};
  for name = setdiff (evalin ("base", "who"), {"ans"})'
    try
      if (evalin ("base", ["sizeof (" name{1} ")"]) > limit)
        error ("too large");
      endif
      evalin ("base", ["save ('-binary', '" fullfile(folder, [name{1} ".bin"]) "', '" name{1} "')"]);
    catch
      left{end + 1} = name{1};
    end_try_catch
  endfor
endfunction
"""


def save_octave(engine: Engine, message: Message) -> Message:
    """Return what this engine's Octave holds; see `save_r`."""
    if getattr(engine.shell, "pxtools_octave", None) is None:
        return {"held": {}, "packages": [], "left": []}
    octave = current_octave(engine)
    (octave.folder / "pxtools_save.m").write_text(_SAVE_OCTAVE)
    held: Held = {}
    with tempfile.TemporaryDirectory(dir=octave.folder) as folder:
        left = octave.session.feval("pxtools_save", folder, float(message["limit"]), nout=1)
        for file in sorted(Path(folder).iterdir()):
            content = file.read_bytes()
            held[file.stem] = (_key(content), content)
    for name in octave.defined:
        if octave.session.feval("exist", name, nout=1) == 103:  # a function that was typed in
            text = str(_flat(octave.session.feval("type", "-q", name, nout=1))[0])
            held[f"{name}()"] = (text, text.encode())
    return {"held": held, "packages": [], "left": [str(name) for name in _flat(left)]}


def _flat(names: Any) -> list[Any]:
    return [names] if isinstance(names, str) else list(np.asarray(names, dtype=object).flat)


def give_octave(engine: Engine, message: Message) -> Message:
    """Give this engine's Octave what others hold; see `give_r`."""
    octave = current_octave(engine)
    with tempfile.TemporaryDirectory(dir=octave.folder) as folder:
        for name, content in message["held"].items():
            if name.endswith("()"):
                octave.run(content.decode())
                continue
            file = Path(folder) / f"{name}.bin"
            file.write_bytes(content)
            octave.quietly(f"load ('{file}')")
    return {}


def _key(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
