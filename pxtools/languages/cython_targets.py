"""C entry points for the typed functions of a Cython cell, so that a sampler calls them without Python.

A function whose arguments are C doubles, one vector of doubles (a memoryview), or `(const double* x, int n)` gets a
C function `double (const double* x, int n)` in the same module, below the cell: line numbers of the cell stay what
they are. A `cpdef` or `cdef` function is called by it. A `def` function has no C function of its own; its body is
compiled a second time, as one. When the C function fails, it returns NaN with the exception set, and the sampler asks
the function itself, which fails in its own words and at its own lines, or gives its value.

The cell is read by Cython's own parser.
"""

from __future__ import annotations

import io
import tokenize
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: the module's attribute: function name to (address, is it called with floats, least and most parameters), or to the
#: reason why it has no C function
TABLE = "__pxtools_targets__"

_DOUBLES = {"double", "float", "float64_t", "double_t"}
_ANNOTATED_DOUBLES = {"double", "float", "cython.double"}
_COUNTS = {"int", "long", "Py_ssize_t", "size_t", "ssize_t"}
#: decorators that a second body can have, too
_DIRECTIVES = ("boundscheck", "wraparound", "cdivision", "nonecheck", "initializedcheck", "overflowcheck", "cpow")
#: what a body may do with a vector; anything else might keep it, and it is filled anew for the next call
_USES = {("IndexNode", "base"), ("SliceIndexNode", "base"), ("AttributeNode", "obj"), ("IteratorNode", "sequence")}

_HEAD = """
cdef extern from "math.h":
    const double __px_nan "NAN"
cdef extern from "stdlib.h":
    void* __px_malloc "malloc"(size_t size)
    void __px_free "free"(void* memory)
{table} = {{}}
"""
_VIEW_HEAD = """
from array import array as __px_array
cdef double[::1] __px_doubles(int n):
    return __px_array("d", bytes(8 * n))
"""


class Reason(Exception):
    """Why a function has no C function that a sampler could call."""


@dataclass(frozen=True)
class Entry:
    """A function of a cell and the text that gives it a C entry point.

    Attributes
    ----------
    text
        Cython, to be put below the cell; only a line with the reason where there is none.
    has_view
        Its argument is a memoryview.
    """

    name: str
    text: str
    has_view: bool = False


def entries(code: str) -> list[Entry]:
    r"""Return what the functions of a cell need below it; none for a cell that Cython's parser refuses.

    Examples
    --------
    >>> [entry.name for entry in entries("def f(double x, double y):\n    return x * y\n")]
    ['f']
    """
    from Cython.Compiler.Errors import CompileError
    from Cython.Compiler.TreeFragment import parse_from_strings

    try:
        body = parse_from_strings("cell", code).body
    except (CompileError, ValueError, UnicodeError):
        return []  # the compiler will say it better
    functions = {}
    statements = _flat(body)
    compiled = {_name(node) for node in statements if type(node).__name__ == "CFuncDefNode"}
    for node in statements:
        if type(node).__name__ in ("DefNode", "CFuncDefNode"):
            functions[_name(node)] = node
    found = [_entry(name, node, code, compiled) for name, node in functions.items()]
    return [entry for entry in found if entry is not None]


def appendix(wanted: list[Entry]) -> str:
    """Return the text to put below the cell."""
    if not wanted:
        return ""
    view = _VIEW_HEAD if any(entry.has_view for entry in wanted) else ""
    return "\n" + _HEAD.format(table=TABLE) + view + "".join(entry.text for entry in wanted)


def without(wanted: list[Entry], code: str, errors: dict[int, str]) -> list[Entry]:
    """Return the entries, those refused in whose text below `code` is a line with an error.

    Parameters
    ----------
    errors
        Line to what Cython says; lines count from the beginning of the cell.
    """
    kept: list[Entry] = []
    line = 1 + (code + appendix(wanted)).count("\n") - sum(entry.text.count("\n") for entry in wanted)
    for entry in wanted:
        end = line + entry.text.count("\n")
        said = next((text for at, text in sorted(errors.items()) if line <= at < end), None)
        kept.append(entry if said is None else _refused(entry.name, f"as a C function it does not compile ({said})"))
        line = end
    return kept if kept != wanted else []


def _refused(name: str, why: str) -> Entry:
    """Return the entry of a function that has no C function."""
    return Entry(name, f"{TABLE}[{name!r}] = {why!r}\n")


def _flat(node: Any) -> list[Any]:
    """Return the statements at the top of a cell."""
    if type(node).__name__ != "StatListNode":
        return [node]
    return [inner for statement in node.stats for inner in _flat(statement)]


def _name(node: Any) -> str:
    declarator = getattr(node, "declarator", None)
    while declarator is not None and not hasattr(declarator, "name"):
        declarator = declarator.base
    return str(node.name if declarator is None else declarator.name)


def _entry(name: str, node: Any, code: str, compiled: set[str]) -> Entry | None:
    is_plain = type(node).__name__ == "DefNode"
    if not is_plain and not node.overridable:
        return _from_pointer(name, node.declarator.args)
    arguments = node.args if is_plain else node.declarator.args
    try:
        if is_plain and (node.star_arg or node.starstar_arg or node.is_async_def):
            raise Reason("it takes any number of arguments")
        views = [_view_of(argument) for argument in arguments]
        if len(arguments) == 1 and views[0]:
            _check_use(node, arguments[0].declarator.name, compiled)
            return _of_view(name, node, views[0], code, is_plain)
        return _of_numbers(name, node, [_number_of(argument) for argument in arguments], code, is_plain)
    except Reason as why:
        return _refused(name, str(why))


# --- arguments


def _number_of(argument: Any) -> tuple[str, str | None]:
    """Return the name of an argument that is a C double, and its default's text."""
    base, name = argument.base_type, argument.declarator.name if hasattr(argument.declarator, "name") else ""
    annotated = argument.annotation is not None and str(argument.annotation.string.value) in _ANNOTATED_DOUBLES
    is_double = type(base).__name__ == "CSimpleBaseTypeNode" and (annotated or base.name in _DOUBLES)
    if is_double and base.name in _DOUBLES and (base.longness or type(argument.declarator).__name__ != _NAME):
        is_double = False
    shown = name or (base.name if type(base).__name__ == "CSimpleBaseTypeNode" else "") or "of it"
    if not is_double or not (name or base.name):
        raise Reason(f"its argument `{shown}` is no C double")
    if argument.kw_only:
        raise Reason(f"its argument `{name}` is given by name only")
    return name, None if argument.default is None else _literal(argument.default, name)


_NAME = "CNameDeclaratorNode"


def _literal(node: Any, name: str) -> str:
    kind = type(node).__name__
    if kind in ("FloatNode", "IntNode"):
        return str(node.value)
    if kind == "UnaryMinusNode":
        return f"-{_literal(node.operand, name)}"
    raise Reason(f"the default of `{name}` is no number")


def _view_of(argument: Any) -> str:
    """Return the type of a one-dimensional memoryview of doubles as text; empty for anything else."""
    base = argument.base_type
    if type(base).__name__ != "MemoryViewSliceTypeNode" or len(base.axes) != 1:
        return ""
    item, const = base.base_type_node, ""
    if type(item).__name__ == "CQualifierTypeNode":
        item, const = item.base_type, "const " if item.is_const else ""
    if getattr(item, "name", None) not in _DOUBLES - {"float"} or item.longness:
        return ""
    step = base.axes[0].step
    return f"{const}double[::1]" if getattr(step, "value", None) == "1" else f"{const}double[:]"


def _check_use(node: Any, name: str, compiled: set[str]) -> None:
    """Refuse a function that may keep its vector, which is filled anew for each call."""
    if not all(_uses(node.body, name, "", "", compiled | {"len"})):
        raise Reason(f"it does more with `{name}` than to read its elements")


def _uses(node: Any, name: str, parent: str, place: str, known: set[str]) -> list[bool]:
    """Return for every use of a name whether it is harmless."""
    kind = type(node).__name__
    if kind == "NameNode" and node.name == name:
        return [(parent, place) in _USES or (parent == "call" and place in known)]
    found = []
    callee = getattr(getattr(node, "function", None), "name", "") if kind == "SimpleCallNode" else ""
    for attribute in node.child_attrs or ():
        child = getattr(node, attribute)
        for inner in child if isinstance(child, list) else [child]:
            if inner is not None and hasattr(inner, "child_attrs"):
                above = ("call", callee) if kind == "SimpleCallNode" and attribute == "args" else (kind, attribute)
                found += _uses(inner, name, *above, known)
    return found


# --- text


def _from_pointer(name: str, arguments: list[Any]) -> Entry | None:
    """Make `cdef double f(const double* x, int n)` known to Python and to the sampler; leave other cdef functions."""
    if len(arguments) != 2:
        return None
    point, count = arguments
    base = point.base_type
    is_const = type(base).__name__ == "CQualifierTypeNode" and base.is_const  # others are helpers, and not for Python
    is_pointer = type(point.declarator).__name__ == "CPtrDeclaratorNode" and hasattr(point.declarator.base, "name")
    if not is_const or not is_pointer or getattr(base.base_type, "name", None) not in _DOUBLES - {"float"}:
        return None
    if getattr(count.base_type, "name", None) not in _COUNTS or type(count.declarator).__name__ != _NAME:
        return None
    return Entry(
        name,
        f"""
cdef double __px_point_{name}(const double* p, int n) except? __px_nan:
    return {name}(p, n)
def __px_python_{name}(x):
    cdef int i, n = len(x)
    cdef double* p = <double*> __px_malloc(n * sizeof(double) + 1)
    try:
        for i in range(n):
            p[i] = x[i]
        return {name}(p, n)
    finally:
        __px_free(p)
__px_python_{name}.__name__ = __px_python_{name}.__qualname__ = {name!r}
globals()[{name!r}] = __px_python_{name}
del globals()["__px_python_{name}"]
{_row(name, False, 1, 1)}""",
    )


def _row(name: str, is_scalar: bool, least: int, most: int) -> str:
    return f"{TABLE}[{name!r}] = (<size_t> <void*> &__px_point_{name}, {is_scalar}, {least}, {most})\n"


def _of_numbers(name: str, node: Any, numbers: list[tuple[str, str | None]], code: str, is_plain: bool) -> Entry:
    least = sum(default is None for _, default in numbers)
    if not numbers:
        raise Reason("it has no argument")
    given = [
        f"p[{k}]" if default is None else f"(p[{k}] if n > {k} else {default})"
        for k, (_, default) in enumerate(numbers)
    ]
    if is_plain:
        types = [_simple_type(argument) for argument in node.args]
        header = ", ".join(f"{kind} {argument}" for kind, (argument, _) in zip(types, numbers, strict=True))
        body = _second_body(name, header, node, code)
    callee = f"__px_body_{name}" if is_plain else name
    text = f"""{body if is_plain else ""}
cdef double __px_point_{name}(const double* p, int n) except? __px_nan:
    return {callee}({", ".join(given)})
{_row(name, True, least, len(numbers))}"""
    return Entry(name, text)


def _simple_type(argument: Any) -> str:
    """Return `float` for a C float; any other number is a double, by one of its names."""
    return "float" if argument.base_type.name == "float" else "double"


def _of_view(name: str, node: Any, kind: str, code: str, is_plain: bool) -> Entry:
    argument = (node.args if is_plain else node.declarator.args)[0].declarator.name
    body = _second_body(name, f"{kind} {argument}", node, code) if is_plain else ""
    text = f"""{body}
cdef {kind} __px_view_{name}
cdef double* __px_data_{name} = NULL
cdef int __px_size_{name} = -1
cdef int __px_resize_{name}(int n) except -1:
    global __px_view_{name}, __px_data_{name}, __px_size_{name}
    cdef double[::1] fresh = __px_doubles(n)
    __px_view_{name}, __px_data_{name}, __px_size_{name} = fresh.base, &fresh[0], n
    return 0
cdef double __px_point_{name}(const double* p, int n) except? __px_nan:
    cdef int i
    if n != __px_size_{name}:
        __px_resize_{name}(n)
    for i in range(n):
        __px_data_{name}[i] = p[i]
    return {f"__px_body_{name}" if is_plain else name}(__px_view_{name})
{_row(name, False, 1, 1)}"""
    return Entry(name, text, has_view=True)


def _second_body(name: str, header: str, node: Any, code: str) -> str:
    """Return a `def` function's body as that of a C function; running into its end is an error there."""
    lines = code.splitlines(keepends=True)
    first = node.pos[1] - 1
    decorators, first = _decorators(lines, first)
    row, column = _end_of_header(lines, first)
    rest = lines[row][column:].strip()
    body = [f"    {rest}\n"] if rest and not rest.startswith("#") else _block(lines, row + 1)
    text = "".join(body) if body and body[-1].endswith("\n") else "".join(body) + "\n"
    start = next((line for line in body if line.strip() and not line.lstrip().startswith("#")), "    ")
    indent = start[: len(start) - len(start.lstrip())]
    end = f"{indent}raise ValueError('no return')\n"
    return f"\n{decorators}cdef double __px_body_{name}({header}) except? __px_nan:\n{text}{end}"


def _decorators(lines: list[str], first: int) -> tuple[str, int]:
    """Return the decorators that a second body can have, and the line of the `def` itself."""
    text = ""
    while not lines[first].startswith("def "):
        line = lines[first]
        if line.startswith("@") and not any(f".{word}(" in line for word in _DIRECTIVES):
            raise Reason("it is decorated")
        text, first = text + line, first + 1
    return text, first


def _end_of_header(lines: list[str], first: int) -> tuple[int, int]:
    """Return the line and column behind the colon that ends a `def` line."""
    depth = 0
    read: Callable[[], str] = io.StringIO("".join(lines[first:])).readline
    for token in tokenize.generate_tokens(read):
        if token.type == tokenize.OP:
            depth += (token.string in "([{") - (token.string in ")]}")
            if token.string == ":" and depth == 0:
                return first + token.end[0] - 1, token.end[1]
    raise Reason("its first line cannot be read")


def _block(lines: list[str], first: int) -> list[str]:
    """Return the lines from `first` that are indented, with empty ones and comments between them."""
    end = first
    for number in range(first, len(lines)):
        line = lines[number]
        if line[:1].isspace() and line.strip():
            end = number + 1
        elif line.strip() and not line.startswith("#"):
            break
    return lines[first:end]
