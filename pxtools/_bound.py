"""The state of a walk through a cell: scopes, the names bound on every path, and what functions wait for."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

State = frozenset[str] | None  # None: no path leads here


@dataclass
class Scope:
    """A module, a class body (`prefix` marks its keys in a state) or an inner scope with names of its own."""

    name: str = ""
    prefix: str = ""
    local: frozenset[str] = frozenset()
    declared: set[str] = field(default_factory=set)
    is_inner: bool = False
    sees_class: bool = False


@dataclass
class Jumps:
    """The states that leave a loop body by `break` and by `continue`."""

    breaks: list[State] = field(default_factory=list)
    continues: list[State] = field(default_factory=list)


@dataclass
class Watch:
    """What stays bound wherever an exception interrupts the watched code."""

    state: State


def join(*states: State) -> State:
    """Names that are bound whichever of the states we come from."""
    alive = [state for state in states if state is not None]
    return frozenset.intersection(*alive) if alive else None


class Names(ast.NodeVisitor):
    """Keep what a cell reads before it binds it, and what it binds.

    A function's body is not run where it is defined: the globals it needs stay in `pending` under its
    name and count as read where that name is first loaded, or else at the end of the cell.
    """

    def __init__(self, lazy_annotations: bool = False) -> None:
        self.lazy_annotations = lazy_annotations
        self.reads: set[str] = set()
        self.binds: set[str] = set()
        self.deletes: set[str] = set()
        self.assigned: dict[str, None] = {}  # dicts, because they keep the order
        self.imports: dict[str, None] = {}
        self.dropped: set[str] = set()
        self.bound: State = frozenset()
        self.pending: dict[str, set[str]] = {}
        self.eager: set[str] = set()  # classes whose code runs when they are subclassed
        self.scopes = [Scope()]
        self.loops: list[Jumps] = []
        self.watches: list[Watch] = []
        self.handled: list[str] = []  # the `e` of each `except … as e` that we are in
        self.exits: list[State] = []
        self.depth = 0  # how many branches deep: 0 means that the statement always runs
        self.finals = 0

    def finish(self) -> None:
        """Count what functions need that nothing in the cell has called: a later cell may call them."""
        if self.bound is None:
            self.bound = join(*self.exits)
        for key in list(self.pending):
            self.use(key)

    # -- names ---------------------------------------------------------------------------------------

    def home(self) -> Scope:
        """Find the scope that an assignment here binds in."""
        return next(scope for scope in reversed(self.scopes) if not scope.is_inner)

    def visible_class(self) -> Scope | None:
        for scope in reversed(self.scopes):
            if scope.prefix:
                return scope
            if not scope.sees_class:
                return None
        return None

    def is_local(self, name: str) -> bool:
        return any(name in scope.local for scope in self.scopes)

    def mangled(self, name: str) -> str:
        """Apply Python's rule for private names in class bodies."""
        cls = next((scope.name.lstrip("_") for scope in reversed(self.scopes) if scope.prefix), "")
        return f"_{cls}{name}" if cls and name.startswith("__") and not name.endswith("__") else name

    def read(self, name: str, may_call: bool = True) -> None:
        if self.is_local(name):
            return
        name = self.mangled(name)
        cls = self.visible_class()
        if cls and name not in cls.declared:
            if may_call:
                self.use(cls.prefix + name)
            if self.bound is None or cls.prefix + name in self.bound:
                return
        self.read_global(name)
        if may_call:
            self.use(name)

    def read_global(self, name: str) -> None:
        if self.bound is not None and name not in self.bound and name != "get_ipython":
            self.reads.add(name)

    def use(self, key: str) -> None:
        """Read all that the function `key` needs, and what the functions that it calls need."""
        todo, seen = [key], {key}  # its own name is bound once it can run: recursion is no input
        while todo:
            for need in self.pending.get(todo.pop(), set()) - seen:
                self.read_global(need)
                seen.add(need)
                todo.append(need)

    def defer(self, key: str, needs: set[str], at_once: bool = False) -> None:
        """Keep what a function needs until it can be called (`at_once`: a decorator may call it)."""
        if self.bound is None:
            return
        self.pending.setdefault(key, set()).update(needs)
        if at_once:
            self.use(key)

    def bind(self, name: str) -> str:
        scope, name = self.home(), self.mangled(name)
        key = scope.prefix + name if name not in scope.declared else name
        if key == name:
            self.binds.add(name)
        if self.bound is not None:
            self.bound |= {key}
        return key

    def unbind(self, key: str) -> None:
        gone = frozenset([key])
        if self.bound is not None:
            self.bound -= gone
        for watch in self.watches:
            if watch.state is not None:
                watch.state -= gone
        if self.finals:  # a `finally` also runs on the way out of a loop
            for jumps in self.loops:
                jumps.breaks = [state and state - gone for state in jumps.breaks]
                jumps.continues = [state and state - gone for state in jumps.continues]

    def collect(self, name: str) -> None:
        if not self.home().prefix and not name.startswith("_"):
            self.assigned.setdefault(name)
            self.dropped.discard(name)

    def store(self, target: ast.expr, collects: bool = True) -> None:
        """Bind an assignment's, loop's or `with`'s target."""
        if isinstance(target, ast.Name):
            if self.scopes[-1].is_inner and target.id in self.scopes[-1].local:
                return
            self.bind(target.id)
            if collects:
                self.collect(target.id)
        elif isinstance(target, (ast.Tuple, ast.List)):
            for element in target.elts:
                self.store(element, collects)
        elif isinstance(target, ast.Starred):
            self.store(target.value, collects)
        else:
            self.visit(target)
            base: ast.expr = target
            while isinstance(base, (ast.Attribute, ast.Subscript)):
                base = base.value
            if collects and isinstance(base, ast.Name):
                self.collect(base.id)

    @contextmanager
    def scope(self, scope: Scope) -> Iterator[Scope]:
        self.scopes.append(scope)
        yield scope
        self.scopes.pop()

    @contextmanager
    def watched(self) -> Iterator[Watch]:
        watch = Watch(self.bound)
        self.watches.append(watch)
        yield watch
        self.watches.pop()

    def visit_all(self, nodes: Iterable[ast.AST | None]) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)
