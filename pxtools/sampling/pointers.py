"""Targets that are C functions `double f(const double* x, int n)`: typed Cython, Numba, SciPy's LowLevelCallable.

An address means nothing in another process, so what travels is where it came from, and each engine looks it up again.
Standard library and NumPy only, Numba where it is asked for: engines run this.
"""

from __future__ import annotations

import ctypes
import importlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from pxtools.errors import PxUsageError

SIGNATURE = "double f(const double* x, int n)"
#: how Cython writes it, in its releases
_CAPSULE_NAMES = (b"double (double const *, int)", b"double (const double *, int)", b"double (double *, int)")
_FUNCTION = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.POINTER(ctypes.c_double), ctypes.c_int)


class CTarget:
    """A C function that Python can call too; kernels call its address.

    Parameters
    ----------
    address : int
        Of a `double f(const double* x, int n)`.
    name : str
        For messages.
    is_scalar : bool
        A call from Python gives numbers, not one vector.
    keep : object
        What must live as long as the address is used.
    python : callable, optional
        The same function for Python. It is called where no kernel is, and where the C function returned NaN with an
        exception set: it then raises in its own words.
    """

    #: tells kernels that `address` is one
    is_pointer = True

    def __init__(
        self,
        address: int,
        name: str,
        is_scalar: bool = False,
        keep: object = None,
        python: Callable[..., Any] | None = None,
    ) -> None:
        self.address = address
        self.__name__ = name
        self.is_scalar = is_scalar
        self._keep = keep
        self.python = python
        self._function = _FUNCTION(address)

    def __call__(self, *arguments: Any) -> Any:
        """Return the value at one point."""
        if self.python is not None:
            return self.python(*arguments)
        point = np.array(arguments if self.is_scalar else arguments[0], dtype=np.float64)
        return float(self._function(point.ctypes.data_as(ctypes.POINTER(ctypes.c_double)), point.size))


@contextmanager
def interrupt_waits() -> Iterator[None]:
    """Hold Ctrl-C back until the block is done: in the middle of Numba it would get lost, or leave half of a package.

    LLVM calls Python while it compiles, and what is raised there goes nowhere.
    """
    pressed: list[Any] = []
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if is_main else None
    if callable(handler):
        signal.signal(signal.SIGINT, lambda *arguments: pressed.append(arguments))
    try:
        yield
    finally:
        if callable(handler):
            signal.signal(signal.SIGINT, handler)
            if pressed:
                handler(*pressed[0])


@cache
def import_numba() -> Any:
    """Return Numba, all of it: it loads some of its own when it compiles for the first time."""
    with interrupt_waits():
        numba = importlib.import_module("numba")
        numba.njit(lambda x: x)(0.0)
    return numba


@dataclass(frozen=True)
class FromModule:
    """A function that a Cython module exports (`cdef api`, or declared in its .pxd)."""

    module: str
    name: str

    @property
    def __name__(self) -> str:
        """The function's name."""
        return self.name

    def resolve(self) -> CTarget:
        """Look the address up in this process."""
        module = importlib.import_module(self.module)
        return CTarget(_address_of(module.__pyx_capi__[self.name]), self.name, keep=module)


@dataclass(frozen=True)
class FromNumba:
    """A Numba cfunc: its Python source is compiled again where it is used."""

    function: Callable[..., Any]

    @property
    def __name__(self) -> str:
        """The function's name."""
        return self.function.__name__

    def resolve(self) -> CTarget:
        """Compile in this process."""
        numba = import_numba()
        types = numba.types
        with interrupt_waits():
            compiled = numba.cfunc(types.float64(types.CPointer(types.float64), types.intc))(self.function)
        return CTarget(compiled.address, self.function.__name__, keep=compiled)


@dataclass(frozen=True)
class FromCell:
    """A typed function of a `%%pxcython` cell, which has a C function beside it."""

    function: Callable[..., Any]

    @property
    def __name__(self) -> str:
        """The function's name."""
        return str(self.function.__name__)

    def resolve(self) -> CTarget:
        """Look the address up in this process."""
        address, is_scalar, _, _ = _row_of(self.function)
        return CTarget(address, self.__name__, is_scalar, keep=self.function, python=self.function)


def c_arguments(function: object) -> tuple[bool, int, int] | None:
    """Return whether the C function of a cell's function is called with floats, and its least and most parameters.

    None when it has no C function: `why_python` may know why.
    """
    row = _row_of(function)
    return row[1:] if isinstance(row, tuple) else None


def why_python(function: object) -> str:
    """Return why a function of a `%%pxcython` cell is called through Python; empty for other functions."""
    row = _row_of(function)
    return row if isinstance(row, str) else ""


def _row_of(function: object) -> Any:
    """Return what a cell's module says about a function: (address, floats, least, most), a reason, or None."""
    name = getattr(function, "__name__", "")
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    table = getattr(module, "__pxtools_targets__", None)
    return table.get(name) if isinstance(table, dict) and getattr(module, name, None) is function else None


def source_of(thing: object) -> FromModule | FromNumba | None:
    """Return where a C function comes from; None when `thing` is no such thing.

    Raises
    ------
    PxUsageError
        A C function with another signature, or one that other processes cannot find.
    """
    kind = type(thing).__name__
    if kind == "PyCapsule":
        return _from_capsule(thing)
    if kind == "LowLevelCallable":
        capsule = getattr(thing, "function", None)
        if type(capsule).__name__ == "PyCapsule" and _finds(capsule) is not None:
            return _from_capsule(capsule)
        raise PxUsageError(
            "This LowLevelCallable holds an address that engines cannot find.\n"
            "Make it with LowLevelCallable.from_cython(module, name), or give the Numba cfunc itself."
        )
    if kind == "CFunc" and type(thing).__module__.startswith("numba"):
        function = getattr(thing, "_pyfunc", None) or getattr(thing, "__wrapped__", None)
        signature = str(getattr(thing, "_sig", ""))
        if signature and signature not in ("(float64*, int32) -> float64", "float64(float64*, int32)"):
            raise PxUsageError(f"The cfunc's signature is {signature}.\nA target needs {SIGNATURE}.")
        assert function is not None
        return FromNumba(function)
    return None


def _from_capsule(capsule: object) -> FromModule:
    if _capsule_name(capsule) not in _CAPSULE_NAMES:
        raise PxUsageError(f"The capsule holds `{_capsule_name(capsule)!r}`.\nA target needs {SIGNATURE}.")
    found = _finds(capsule)
    if found is None:
        raise PxUsageError(
            "The capsule belongs to no module, so engines cannot find it.\nTake it from a Cython module."
        )
    return found


def _finds(capsule: object) -> FromModule | None:
    """Return the module and name under which Cython exports this address."""
    address = _address_of(capsule)
    for module_name, module in list(sys.modules.items()):
        exported = getattr(module, "__pyx_capi__", None)
        for name, other in exported.items() if isinstance(exported, dict) else ():
            if type(other).__name__ == "PyCapsule" and _address_of(other) == address:
                return FromModule(module_name, name)
    return None


def _capsule_name(capsule: object) -> bytes | None:
    get_name = ctypes.pythonapi.PyCapsule_GetName
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    name: bytes | None = get_name(capsule)
    return name


def _address_of(capsule: object) -> int:
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return int(get_pointer(capsule, _capsule_name(capsule)) or 0)
