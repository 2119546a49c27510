"""Tasks: objects that an engine keeps, and calls that use them, so that a function travels once and not per call."""

from __future__ import annotations

import contextlib
import importlib
import math
import time
from collections.abc import Callable
from typing import Any

from pxtools.remote import failures
from pxtools.remote.engine import Engine, Lacking, Message, receive

#: first part of the stream keys of map items; those of cells begin otherwise
_ITEMS = 1


def keep(engine: Engine, message: Message) -> Message:
    """Take in a parcel, and an object under a token."""
    conflicts = receive(engine, message["parcel"])
    engine.tasks[message["token"]] = engine.unpack(message["task"])
    return {"conflicts": conflicts}


def release(engine: Engine, message: Message) -> Message:
    """Forget a kept object."""
    engine.tasks.pop(message["token"], None)
    return {}


def _kept(engine: Engine, message: Message) -> tuple[Any, Message]:
    """Return the kept object, and what is to be said of it if this message brought it.

    Who does not have it says so, and does nothing.
    """
    said = keep(engine, message) if "task" in message else {}
    if message["token"] not in engine.tasks:
        raise Lacking([message["token"]])
    return engine.tasks[message["token"]], said


def call_task(engine: Engine, message: Message) -> Message:
    """Call `module.function(kept object, *args)`; return its value and the seconds that it took."""
    module, _, name = message["function"].rpartition(".")
    function, (task, said) = getattr(importlib.import_module(module), name), _kept(engine, message)
    began = time.perf_counter()
    value = function(task, *message["args"])
    return {"value": value, "seconds": time.perf_counter() - began, **said}


def map_items(engine: Engine, message: Message) -> Message:
    """Call the kept function with each item; stop at the first exception unless they are to be returned.

    It may also stop because it has taken long enough: then there are fewer results than items, and no failure.

    Parameters
    ----------
    message
        ``token``; ``items``, a packed list of argument tuples; ``first``, the number of the first item; ``seed`` (or
        None); ``return_exceptions``; ``enough_s`` (or None); ``is_guess``: nobody knows yet how long an item takes.

    Returns
    -------
    dict
        ``results`` (packed list), ``seconds``, ``failed`` (number of the item) and ``failure`` if one failed.
    """
    (function, said), items = _kept(engine, message), engine.unpack(message["items"])
    began = time.perf_counter()
    with contextlib.nullcontext() if message["seed"] is None else engine.own_streams():
        results, answer = _map(engine, message, function, items)
    return {"results": _packed_results(engine, results), "seconds": time.perf_counter() - began, **answer, **said}


def _map(engine: Engine, message: Message, function: Callable[..., Any], items: list[Any]) -> tuple[list[Any], Message]:
    seed = message["seed"]
    batch = getattr(function, "map_batch", None)
    if batch is not None and seed is None and not message["return_exceptions"]:
        return _map_batch(engine, batch, items[:1] if message["is_guess"] else items, message["first"])
    results: list[Any] = []
    enough = math.inf if message["enough_s"] is None else time.perf_counter() + message["enough_s"]
    for number, item in enumerate(items, start=message["first"]):
        if seed is not None:
            engine.seed(seed, _ITEMS, number)
        try:
            results.append(function(*item))
        except Exception as error:
            if not message["return_exceptions"]:
                return results, {"failed": number, "failure": failures.describe(error, engine.namespace)}
            results.append(error)
        if time.perf_counter() > enough:
            break
    return results, {}


def _map_batch(
    engine: Engine, batch: Callable[[Any], list[Any]], items: list[Any], first: int
) -> tuple[list[Any], Message]:
    """Hand all items over at once, to a function of another language."""
    try:
        return batch(items), {}
    except Exception as error:
        return [], {"failed": first + getattr(error, "item", 0), "failure": failures.describe(error, engine.namespace)}


def _packed_results(engine: Engine, results: list[Any]) -> Any:
    """Pack all results at once; if one cannot be pickled, put a description in its place."""
    try:
        return engine.pack(results)
    except Exception:
        return engine.pack([_or_description(engine.pack, result) for result in results])


def _or_description(pack: Callable[[Any], Any], value: Any) -> Any:
    try:
        pack(value)
        return value
    except Exception as error:
        return TypeError(f"a {type(value).__name__} cannot travel: {error}")
