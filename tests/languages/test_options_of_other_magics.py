"""Every option of `%%R` and `%%octave` is one of `%%pxR` and `%%pxoctave`, and takes a value or none as there."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest

from pxtools.magics.pxoctave import PxOctave
from pxtools.magics.pxR import PxR

#: in a process of its own: reading rpy2's magic starts R
_LIST = """
import importlib, json, sys
magic = getattr(getattr(importlib.import_module(sys.argv[1]), sys.argv[2]), sys.argv[3])
print(json.dumps({option: action.nargs != 0 for action in magic.parser._actions for option in action.option_strings}))
"""
CASES = [
    ("rpy2.ipython.rmagic", "RMagics", "R", PxR.pxR),
    ("oct2py.ipython.octavemagic", "OctaveMagics", "octave", PxOctave.pxoctave),
]


@pytest.mark.parametrize(("module", "cls", "name", "ours"), CASES, ids=["R", "octave"])
def test_every_option_of_the_languages_own_magic_is_taken(module: str, cls: str, name: str, ours: Any) -> None:
    program = {"R": "R", "octave": "octave"}[name]
    if shutil.which(program) is None or importlib.util.find_spec(module.partition(".")[0]) is None:
        pytest.skip(f"{program} and {module.partition('.')[0]} are not installed")
    environment = {**os.environ, "RPY2_CFFI_MODE": "ABI"}
    command = [sys.executable, "-W", "ignore", "-c", _LIST, module, cls, name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    theirs = json.loads(done.stdout.splitlines()[-1])
    taken = {o: action.nargs != 0 for action in ours.parser._actions for o in action.option_strings}
    assert len(theirs) > 6
    assert {option: taken.get(option) for option in theirs} == theirs
