"""Pickling between two notebook namespaces: the user's here and the user's there.

What cloudpickle does not do, and a notebook needs:

- A function of the notebook arrives bound to the *receiving* namespace, so that it sees names which exist only
  there and names that are pushed later. The names it uses are reported (`Packed.needs`), not embedded: cloudpickle
  would freeze their values and send its arrays again with every function.
- A function from a file that cannot be imported (`%run`) keeps a namespace of its own, one per file, shared by all
  functions of that file.
- Cells are shared and may be recursive: two closures over one `nonlocal` stay two closures over one variable.
- The global random generators, and so their methods, travel as imports. By value, their state would give every
  engine the same numbers.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import linecache
import pickle
import random
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cloudpickle

from pxtools.remote.codes import attribute_names, global_names, imported_modules

Namespace = dict[str, Any]

#: keys of the reserved namespaces in the stream; `Unpickler.find_class` gives them their meaning
_HERE = "notebook_namespace"
_OF_FILE = "namespace_of_file"

#: objects of `dataclasses` that are compared by identity: type to the name they are imported by
_SENTINELS = {
    getattr(dataclasses, kind): name
    for kind, name in [
        ("_MISSING_TYPE", "MISSING"),
        ("_HAS_DEFAULT_FACTORY_CLASS", "_HAS_DEFAULT_FACTORY"),
        ("_KW_ONLY_TYPE", "KW_ONLY"),
    ]
    if hasattr(dataclasses, kind)
}

#: the code that every `functools.singledispatch` function runs
_SINGLE_DISPATCH = getattr(functools.singledispatch(len), "__code__")  # noqa: B009


@dataclass(frozen=True)
class Packed:
    """A value in transit: the pickle stream, its large buffers beside it, and what the value relies on."""

    data: bytes
    buffers: tuple[Any, ...] = ()
    needs: frozenset[str] = frozenset()
    modules: frozenset[str] = frozenset()
    attributes: frozenset[str] = frozenset()

    @property
    def nbytes(self) -> int:
        """Size in bytes of everything that would travel."""
        return len(self.data) + sum(raw(buffer).nbytes for buffer in self.buffers)

    def __reduce__(self) -> Any:
        """Travel without `needs` and `modules`, which only the sender uses; long streams as buffers, too."""
        return Packed, (pickle.PickleBuffer(self.data), self.buffers)


def raw(buffer: Any) -> memoryview:
    """Return the bytes of a buffer without copying it."""
    return buffer.raw() if isinstance(buffer, pickle.PickleBuffer) else memoryview(buffer)


def pack(value: Any, namespace: Namespace) -> Packed:
    """Pickle `value`; large arrays stay where they are, as buffers beside the stream.

    Parameters
    ----------
    value
        Anything; functions and classes of the notebook included.
    namespace
        The dictionary that notebook functions have as their globals.

    Raises
    ------
    Exception
        Whatever the value's own pickling raises.
    """
    buffers: list[pickle.PickleBuffer] = []
    stream = io.BytesIO()
    pickler = Pickler(stream, namespace, buffers.append)
    pickler.dump(value)
    found = (frozenset(names) for names in (pickler.needs, pickler.modules, pickler.attributes))
    return Packed(stream.getvalue(), tuple(buffers), *found)


def unpack(packed: Packed, namespace: Namespace, files: dict[str, Namespace], *, keeps_classes: bool = False) -> Any:
    """Rebuild a value; its notebook functions look their globals up in `namespace`.

    Parameters
    ----------
    keeps_classes
        A class that this process knows already stays as it is here: an instance that comes back must not bring
        back an older state of the notebook's class.
    """
    reader = Unpickler(io.BytesIO(packed.data), namespace, files, packed.buffers)
    reader.keeps_classes = keeps_classes
    return reader.load()


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's pickler with the rules of the module docstring."""

    def __init__(self, file: io.BytesIO, namespace: Namespace, buffer_callback: Callable[[Any], Any]) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)
        self.namespace = namespace
        self.needs: set[str] = set()
        self.modules: set[str] = set()
        self.attributes: set[str] = set()

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is types.FunctionType:
            is_dispatcher = obj.__code__ is _SINGLE_DISPATCH and hasattr(obj, "registry")
            return _reduce_dispatcher(obj) if is_dispatcher else self._reduce_function(obj)
        if kind is types.CellType:
            return _reduce_cell(obj)
        if kind in _SENTINELS:
            return _SENTINELS[kind]
        if obj is getattr(random, "_inst", None):
            return getattr, (random, "_inst")
        if obj is getattr(sys.modules.get("numpy.random.mtrand"), "_rand", self):
            return getattr, (sys.modules["numpy.random.mtrand"], "_rand")
        if kind is functools.cached_property:  # Python 3.11 keeps a lock in it
            return rebuild_cached_property, (obj.func, obj.attrname)
        if kind is functools._lru_cache_wrapper:
            return rebuild_cache, (obj.__wrapped__, obj.cache_parameters())
        if kind is types.ModuleType:
            self.modules.add(obj.__name__)
        elif isinstance(getattr(obj, "__module__", None), str):  # classes, and functions compiled by Cython
            self.modules.add(obj.__module__)
        return super().reducer_override(obj)

    def _reduce_function(self, function: types.FunctionType) -> Any:
        if is_importable(function):
            self.modules.add(function.__module__)
            return NotImplemented
        contents: Namespace = {}
        its = function.__globals__
        own = its.get("__name__")
        self.attributes |= attribute_names(function.__code__)
        self.modules |= imported_modules(function.__code__)
        if its is self.namespace:
            self.needs |= names_used(function)
            home = _Home(_HERE)
        elif own != "__main__" and own in sys.modules and sys.modules[own].__dict__ is its:
            self.modules.add(own)
            home = _Home("", own)
        else:
            home = _Home(_OF_FILE, f"{own}:{its.get('__file__', id(its))}")
            contents = {name: its[name] for name in sorted(names_used(function)) if name in its}
        state = {
            "contents": contents,
            "name": function.__name__,
            "qualname": function.__qualname__,
            "module": function.__module__,
            "doc": function.__doc__,
            "defaults": function.__defaults__,
            "kwdefaults": function.__kwdefaults__,
            "annotations": function.__annotations__,
            "dict": function.__dict__,
            "source": _typed_source(function.__code__.co_filename),
        }
        parts = (_Python(), function.__code__, home, function.__closure__)
        return build_function, parts, state, None, None, fill_function


class Unpickler(pickle.Unpickler):
    """Gives the reserved namespaces of a stream their meaning on this side."""

    def __init__(
        self, file: io.BytesIO, namespace: Namespace, files: dict[str, Namespace], buffers: tuple[Any, ...]
    ) -> None:
        super().__init__(file, buffers=buffers)
        self.namespace = namespace
        self.files = files
        self.keeps_classes = False
        self._own_classes: list[Any] = []

    def find_class(self, module: str, name: str) -> Any:
        if self.keeps_classes and module == cloudpickle.cloudpickle.__name__:
            if name in ("_make_skeleton_class", "_make_skeleton_enum"):
                return functools.partial(self._find_or_make_class, super().find_class(module, name))
            if name == "_class_setstate":
                return functools.partial(self._fill_class, super().find_class(module, name))
        if module == __name__ and name == _HERE:
            return lambda: self.namespace
        if module == __name__ and name == _OF_FILE:
            return self._namespace_of_file
        return super().find_class(module, name)

    def _find_or_make_class(self, make: Callable[..., Any], *args: Any) -> Any:
        tracked = cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID
        is_ours = any(isinstance(arg, str) and arg in tracked for arg in args)
        made = make(*args)
        if is_ours:
            self._own_classes.append(made)
        return made

    def _fill_class(self, fill: Callable[..., Any], made: Any, state: Any) -> Any:
        return made if any(made is own for own in self._own_classes) else fill(made, state)

    def _namespace_of_file(self, key: str) -> Namespace:
        return self.files.setdefault(key, {"__name__": key.partition(":")[0], "__builtins__": __builtins__})


class _Home:
    """Stands for a globals dictionary in the stream: of the notebook, of a file, or of a module."""

    def __init__(self, kind: str, key: str = "") -> None:
        self.kind = kind
        self.key = key

    def __reduce__(self) -> Any:
        if self.kind == _HERE:
            return notebook_namespace, ()
        if self.kind == _OF_FILE:
            return namespace_of_file, (self.key,)
        return module_namespace, (self.key,)


def notebook_namespace() -> Namespace:
    """Stand for the reader's notebook in a stream; only `Unpickler` can tell which that is."""
    raise pickle.UnpicklingError("a notebook function can be read by pxtools only")


def namespace_of_file(key: str) -> Namespace:
    """Stand for the namespace of an un-importable file in a stream."""
    raise pickle.UnpicklingError(f"a function of {key} can be read by pxtools only")


def module_namespace(name: str) -> Namespace:
    """Return the globals of a module that both sides can import."""
    __import__(name)
    return sys.modules[name].__dict__


class _Python:
    """Stands before compiled code in the stream: another Python must not even begin to read that."""

    def __reduce__(self) -> Any:
        return same_python, (sys.version_info[:2],)


def same_python(version: tuple[int, int]) -> None:
    """Go on if this is the Python that compiled what follows.

    Raises
    ------
    TypeError
    """
    if version != sys.version_info[:2]:
        there, here = (".".join(map(str, v)) for v in (version, sys.version_info[:2]))
        raise TypeError(f"functions of Python {there} cannot run in Python {here}; define them there, in a cell")


def build_function(
    python: None, code: types.CodeType, home: Namespace, closure: tuple[types.CellType, ...] | None
) -> types.FunctionType:
    """Make the bare function; `fill_function` adds the rest, so that it may refer to itself."""
    return types.FunctionType(code, home, closure=closure)


def fill_function(function: types.FunctionType, state: dict[str, Any]) -> None:
    """Give a rebuilt function its names, defaults and attributes."""
    function.__globals__.update(state["contents"])
    filename, text = function.__code__.co_filename, state["source"]
    if text and filename not in linecache.cache:
        linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    function.__name__ = state["name"]
    function.__qualname__ = state["qualname"]
    function.__module__ = state["module"]
    function.__doc__ = state["doc"]
    function.__defaults__ = state["defaults"]
    function.__kwdefaults__ = state["kwdefaults"]
    function.__annotations__ = state["annotations"]
    function.__dict__.update(state["dict"])


def _typed_source(filename: str) -> str:
    """Return the text of a cell, for tracebacks there; nothing for a file, which can be read."""
    entry = linecache.cache.get(filename, ())
    return "".join(entry[2]) if len(entry) == 4 and entry[1] is None else ""


def make_cell() -> types.CellType:
    """Return an empty closure cell."""
    return types.CellType()


def fill_cell(cell: types.CellType, state: tuple[Any]) -> None:
    """Put the value into a rebuilt closure cell."""
    cell.cell_contents = state[0]


def _reduce_cell(cell: types.CellType) -> Any:
    try:
        contents = cell.cell_contents
    except ValueError:
        return make_cell, ()
    return make_cell, (), (contents,), None, None, fill_cell


def rebuild_cache(function: Any, parameters: dict[str, Any]) -> Any:
    """Return the function under an empty `functools.lru_cache` of the same size."""
    return functools.lru_cache(**parameters)(function)


def rebuild_cached_property(function: Any, name: str | None) -> Any:
    """Return the function as a `functools.cached_property` with a lock of its own."""
    made = functools.cached_property(function)
    made.attrname = name
    return made


def _reduce_dispatcher(function: Any) -> Any:
    """Send a `functools.singledispatch` function as what was registered: its cache holds weak references."""
    return rebuild_dispatcher, (function.registry[object], dict(function.registry))


def rebuild_dispatcher(default: Any, registry: dict[type, Any]) -> Any:
    """Return a `functools.singledispatch` function with the same implementations."""
    made = functools.singledispatch(default)
    for kind, function in registry.items():
        made.register(kind, function)
    return made


def is_importable(obj: Any) -> bool:
    """Return whether importing `obj.__module__` elsewhere gives this very object under its qualified name."""
    module = getattr(obj, "__module__", None)
    if not module or module == "__main__" or module not in sys.modules:
        return False
    found: Any = sys.modules[module]
    for part in obj.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is obj


def names_used(function: types.FunctionType) -> frozenset[str]:
    """Return the global names that a function may look up, annotations and defaults not included."""
    return global_names(function.__code__)


def home_of_generator_method(method: Any) -> types.ModuleType | None:
    """Return `numpy.random` or `random` if this is a method of that module's global generator."""
    owner = getattr(method, "__self__", None)
    if owner is getattr(random, "_inst", None):
        return random
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None and isinstance(owner, numpy_random.RandomState):
        twin = getattr(numpy_random, method.__name__, None)
        if getattr(twin, "__self__", None) is owner:
            return numpy_random
    return None
