"""Modules compiled from a cell, on an engine: load one, without binding any name yet."""

from __future__ import annotations

import importlib
import sys

from pxtools.remote import importer
from pxtools.remote.engine import Engine, Message, receive


def load(engine: Engine, message: Message) -> Message:
    """Take in a parcel that holds a compiled module, and import it.

    Parameters
    ----------
    message
        ``parcel``; ``module``, its name; ``text``, the cell, for tracebacks; ``alias``, a second name or None.
    """
    receive(engine, message["parcel"])
    importer.remember_text(message["module"], message["text"])
    module = importlib.import_module(message["module"])
    if message["alias"]:
        sys.modules[message["alias"]] = module
    return {}
