"""Functions and classes of the notebook, with everything that they use, on a real cluster."""

from __future__ import annotations

from typing import Any

import pytest

from pxtools.errors import PxNameError, PxRemoteError

N_ENGINES = 4

#: what a user defines here, what the engines are asked, what each engine answers
FUNCTIONS = {
    "a constant": ("K = 3\ndef f(x): return K * x", "f(2)", 6),
    "an alias of a module": ("import numpy as np\ndef f(x): return float(np.sqrt(x))", "f(4.0)", 2.0),
    "a submodule imported by its full name": (
        "import xml.dom.minidom\ndef f(): return xml.dom.minidom.parseString('<a/>').documentElement.tagName",
        "f()",
        "a",
    ),
    "a helper that calls a helper": (
        "K = 2\ndef inner(x): return K + x\ndef helper(x): return inner(x) * 10\ndef f(x): return helper(x)",
        "f(1)",
        30,
    ),
    "a closure over a number": ("def make(k):\n    return lambda x: k * x\nf = make(4)", "f(2)", 8),
    "a closure over a small array": (
        "import numpy as np\ndef make(a):\n    def g(): return float(a.sum())\n    return g\nf = make(np.ones(3))",
        "f()",
        3.0,
    ),
    "a closure over a large array": (
        "import numpy as np\ndef make(a):\n    def g(): return float(a.sum())\n    return g\n"
        "f = make(np.ones(300_000))",
        "f()",
        300_000.0,
    ),
    "a closure over a module": (
        "import math\ndef make():\n    import math as m\n    return lambda x: m.floor(x)\nf = make()",
        "f(2.5)",
        2,
    ),
    "an array as a default argument": (
        "import numpy as np\ndef f(x, a=np.arange(4)): return int(a.sum()) + x",
        "f(1)",
        7,
    ),
    "a keyword-only default": ("def f(*, a=5, b): return a + b", "f(b=1)", 6),
    "a partial": ("from functools import partial\ndef g(a, b): return a - b\nf = partial(g, 10)", "f(3)", 7),
    "a decorator of the notebook": (
        "import functools\ndef twice(g):\n    @functools.wraps(g)\n    def wrapper(*args): return g(*args) * 2\n"
        "    return wrapper\n@twice\ndef f(x):\n    'Doc.'\n    return x + 1",
        "(f(1), f.__name__, f.__doc__)",
        (4, "f", "Doc."),
    ),
    "a decorator that is a class": (
        "class Count:\n    def __init__(self, g): self.g, self.n = g, 0\n"
        "    def __call__(self, x):\n        self.n += 1\n        return self.g(x), self.n\n"
        "@Count\ndef f(x): return x",
        "f(5)",
        (5, 1),
    ),
    "recursion": ("def f(n): return 1 if n < 2 else n * f(n - 1)", "f(5)", 120),
    "deep recursion": ("def f(n): return 0 if n == 0 else 1 + f(n - 1)", "f(500)", 500),
    "mutual recursion": (
        "def even(n): return n == 0 or odd(n - 1)\ndef odd(n): return n != 0 and even(n - 1)",
        "even(10)",
        True,
    ),
    "a cached recursive function": (
        "from functools import lru_cache\n@lru_cache(None)\ndef f(n): return n if n < 2 else f(n - 1) + f(n - 2)",
        "f(40)",
        102_334_155,
    ),
    "nonlocal": (
        "def counter():\n    n = 0\n    def up():\n        nonlocal n\n        n += 1\n        return n\n"
        "    return up\nf = counter()",
        "(f(), f())",
        (1, 2),
    ),
    "a generator": ("K = 2\ndef f(n):\n    for i in range(n): yield i * K", "list(f(3))", [0, 2, 4]),
    "a generator expression over a global": ("K = [1, 2]\ndef f(): return sum(k for k in K if k in K)", "f()", 3),
    "an async function": (
        "import asyncio\nasync def g(): return 7\nasync def f():\n    await asyncio.sleep(0)\n    return await g()",
        "await f()",
        7,
    ),
    "a lambda in a dictionary": ("K = 1\ntable = {'f': [lambda x: x + K]}", "table['f'][0](1)", 2),
    "np.vectorize": ("import numpy as np\nK = 2\nf = np.vectorize(lambda x: x * K)", "f([1, 2]).tolist()", [2, 4]),
    "a ufunc": ("import numpy as np\nf = np.add", "int(f(1, 2))", 3),
    "a bound method of a module's object": ("text = 'abc'\nf = text.upper", "f()", "ABC"),
    "a bound method of a class of the notebook": (
        "K = 4\nclass A:\n    def m(self): return K\nf = A().m",
        "f()",
        4,
    ),
    "single dispatch": (
        "from functools import singledispatch\n@singledispatch\ndef f(x): return 'any'\n"
        "@f.register\ndef _(x: int): return 'int'",
        "(f(1), f('a'))",
        ("int", "any"),
    ),
    "a context manager": (
        "from contextlib import contextmanager\n@contextmanager\ndef c():\n    yield 3\n"
        "def f():\n    with c() as x: return x",
        "f()",
        3,
    ),
    "annotations with classes of the notebook": (
        "class A: pass\ndef f(a: A, b: 'A' = None) -> A: return f.__annotations__['a'].__name__",
        "f(1)",
        "A",
    ),
    "a doctest": (
        "import doctest\ndef f(x):\n    '''\n    >>> f(1)\n    2\n    '''\n    return x + 1\n"
        "def check():\n    test = doctest.DocTestFinder().find(f, 'f', globs={'f': f})[0]\n"
        "    return doctest.DocTestRunner().run(test).failed",
        "check()",
        0,
    ),
    "a name that is also an attribute": ("x = 3\nclass A:\n    x = 1\ndef f(a): return a.x + x", "f(A())", 4),
    "non-ASCII names": ("größe = 2\ndef fläche(π): return π * größe", "fläche(3)", 6),
}

CLASSES = {
    "super": (
        "class A:\n    def f(self): return 1\nclass B(A):\n    def f(self): return super().f() + 1\n"
        "class C(B):\n    def f(self): return super().f() + 1",
        "C().f()",
        3,
    ),
    "an instance": ("class A:\n    def __init__(self, x): self.x = x\na = A([1])", "a.x", [1]),
    "a method that uses globals": ("K = 5\ndef h(): return K\nclass A:\n    def f(self): return h()", "A().f()", 5),
    "properties and other descriptors": (
        "class A:\n    @property\n    def p(self): return 1\n    @classmethod\n    def c(cls): return cls.__name__\n"
        "    @staticmethod\n    def s(): return 3",
        "(A().p, A.c(), A.s())",
        (1, "A", 3),
    ),
    "a cached property": (
        "from functools import cached_property\nclass A:\n    @cached_property\n    def p(self): return 9",
        "A().p",
        9,
    ),
    "slots": ("class A:\n    __slots__ = ('x',)\n    def __init__(self): self.x = 2\na = A()", "a.x", 2),
    "a dataclass": (
        "from dataclasses import dataclass, field\n@dataclass(order=True)\nclass P:\n    x: float\n"
        "    y: list = field(default_factory=list)\np = P(1.0)",
        "(p == P(1.0), p < P(2.0), p.y, repr(p))",
        (True, True, [], "P(x=1.0, y=[])"),
    ),
    "a child of a dataclass, defined there": (
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n",
        "[dataclass(type('Q', (P,), {'__annotations__': {'y': int}, 'y': 2}))(1).y][0]",
        2,
    ),
    "a frozen dataclass": (
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass P:\n    x: int\np = {P(1): 'one'}",
        "p[P(1)]",
        "one",
    ),
    "an enum": (
        "import enum\nclass Color(enum.Enum):\n    RED = 1\n    BLUE = 2\nc = Color.RED",
        "(c is Color.RED, Color(2).name, [m.name for m in Color])",
        (True, "BLUE", ["RED", "BLUE"]),
    ),
    "a flag": (
        "import enum\nclass F(enum.Flag):\n    A = 1\n    B = 2\nx = F.A | F.B",
        "(F.A in x, x.value)",
        (True, 3),
    ),
    "a namedtuple": (
        "from collections import namedtuple\nP = namedtuple('P', 'x y')\np = P(1, 2)",
        "(p.x, p == P(1, 2), p._replace(y=5).y, type(p) is P)",
        (1, True, 5, True),
    ),
    "a typed namedtuple": (
        "from typing import NamedTuple\nclass P(NamedTuple):\n    x: int\n    y: int = 4\n"
        "    def s(self): return self.x + self.y",
        "P(1).s()",
        5,
    ),
    "an abstract class": (
        "import abc\nclass A(abc.ABC):\n    @abc.abstractmethod\n    def f(self): ...\n"
        "class B(A):\n    def f(self): return 1",
        "(B().f(), isinstance(B(), A))",
        (1, True),
    ),
    "a metaclass": (
        "class M(type):\n    def __call__(cls, *a): return ('made', super().__call__(*a))[0]\n"
        "class A(metaclass=M): pass",
        "A()",
        "made",
    ),
    "a generic class": (
        "from typing import Generic, TypeVar\nT = TypeVar('T')\nclass Box(Generic[T]):\n"
        "    def __init__(self, x: T): self.x = x",
        "Box[int](3).x",
        3,
    ),
    "operators": (
        "class V:\n    def __init__(self, x): self.x = x\n    def __add__(self, o): return V(self.x + o.x)",
        "(V(1) + V(2)).x",
        3,
    ),
}


@pytest.mark.parametrize("case", FUNCTIONS)
def test_a_function_arrives_with(case: str, cell: Any) -> None:
    definition, expression, expected = FUNCTIONS[case]
    cell(definition)
    assert list(cell(f"%pxrun {expression}")) == [expected] * N_ENGINES


@pytest.mark.parametrize("case", CLASSES)
def test_a_class_arrives_with(case: str, cell: Any) -> None:
    definition, expression, expected = CLASSES[case]
    cell(definition)
    assert list(cell(f"%pxrun {expression}")) == [expected] * N_ENGINES


def test_names_that_exist_only_on_the_engines_are_visible_to_functions(cell: Any, session: Any) -> None:
    cell("def f(): return theirs")
    session.client[:].push({"theirs": 5}, block=True)
    assert list(cell("%pxrun f()")) == [5] * N_ENGINES


def test_later_pushes_are_seen_by_functions_that_are_there(cell: Any) -> None:
    cell("k = 1\ndef f(): return k")
    cell("%pxpush f")
    cell("%pxpush k=2")
    assert list(cell("%pxcollect f()")) == [2] * N_ENGINES
    cell("k = 3")
    assert list(cell("%pxrun f()")) == [3] * N_ENGINES


def test_a_redefined_function_replaces_the_old_one_also_in_functions_that_use_it(cell: Any) -> None:
    cell("def h(): return 1\ndef f(): return h()")
    cell("%pxrun f()")
    cell("def h(): return 2")
    assert list(cell("%pxrun f()")) == [2] * N_ENGINES


def test_the_locals_of_the_caller_are_never_a_functions_globals(cell: Any) -> None:
    cell("scale = 2\ndef f(x): return scale * x")
    cell("def g():\n    scale = 99\n    return get_ipython().run_line_magic('pxmap', 'f [1, 2]')")
    assert cell("g()") == [2, 4]


def test_a_global_statement_in_a_mapped_function_stays_on_its_engine(cell: Any, shell: Any) -> None:
    cell("count = 0\ndef f(x):\n    global count\n    count += 1\n    return x")
    cell("%pxmap --chunksize 1 f range(8)")
    assert shell.user_ns["count"] == 0
    assert sum(cell("%pxcollect count")) == 8


def test_a_redefined_class_gives_new_instances_and_leaves_old_ones_alone(cell: Any) -> None:
    cell("class A:\n    def f(self): return 'old'\na = A()")
    cell("%pxrun a.f()")
    cell("class A:\n    def f(self): return 'new'")
    assert list(cell("%pxrun (a.f(), A().f())")) == [("old", "new")] * N_ENGINES


def test_a_class_that_was_changed_in_place_is_changed_there(cell: Any) -> None:
    cell("class A:\n    def f(self): return 'old'\na = A()")
    cell("%pxrun a.f()")
    cell("A.f = lambda self: 'new'")
    assert list(cell("%pxrun a.f()")) == ["new"] * N_ENGINES


def test_an_instance_that_comes_back_is_one_of_the_notebooks_class(cell: Any, shell: Any) -> None:
    cell(
        "class A:\n    pass\nimport enum\nclass E(enum.Enum):\n    X = 1\n"
        "from collections import namedtuple\nP = namedtuple('P', 'x')"
    )
    cell("%pxrun a, e, p = A(), E.X, P(1)")
    names = shell.user_ns
    assert all(isinstance(a, names["A"]) for a in names["a"])
    assert all(e is names["E"].X for e in names["e"])
    assert all(type(p) is names["P"] for p in names["p"])


def test_an_instance_that_comes_back_does_not_undo_what_was_changed_here(cell: Any, shell: Any) -> None:
    cell("class A:\n    n = 0\n    def f(self): return 'old'")
    cell("%%pxrun\nA.n = 5\na = A()")
    cell("A.f = lambda self: 'new'")
    cell("%pxrun --no-auto -o a 0")
    assert isinstance(shell.user_ns["A"], type)
    assert shell.user_ns["a"][0].f() == "new"
    assert shell.user_ns["A"].n == 0


def test_an_exception_class_of_the_notebook_can_be_caught_here(cell: Any, shell: Any) -> None:
    cell(
        "class Mine(Exception):\n    def __init__(self, a, b):\n        super().__init__(f'{a} and {b}')\n"
        "        self.a = a"
    )
    with pytest.raises(shell.user_ns["Mine"], match="1 and 2") as caught:
        cell("%pxrun raise Mine(1, 2)")
    assert caught.value.a == 1


def test_an_exception_class_that_only_engines_know_is_raised_under_its_name(cell: Any) -> None:
    with pytest.raises(Exception, match="only there") as caught:
        cell("%%pxrun\nclass Theirs(ValueError): pass\nraise Theirs('only there')")
    assert isinstance(caught.value, ValueError | PxRemoteError)


@pytest.mark.parametrize("kind", ["SystemExit", "KeyboardInterrupt", "StopIteration", "GeneratorExit"])
def test_exceptions_that_would_end_the_notebooks_own_work_are_never_raised_here(kind: str, cell: Any) -> None:
    with pytest.raises(PxRemoteError, match=kind):
        cell(f"%pxrun raise {kind}('so')")
    assert list(cell("%pxrun 1")) == [1] * N_ENGINES


def test_a_name_that_is_nowhere_is_a_name_error(cell: Any) -> None:
    cell("def f(): return nowhere")
    with pytest.raises(NameError, match="nowhere"):
        cell("%pxrun f()")


def test_what_cannot_be_pickled_is_an_error_only_when_it_is_needed(cell: Any) -> None:
    cell("import threading\nlock = threading.Lock()\ndef f(use):\n    return lock.locked() if use else 'not needed'")
    assert list(cell("%pxrun f(False)")) == ["not needed"] * N_ENGINES
    with pytest.raises(PxNameError, match="`lock` was not sent: a lock"):
        cell("%pxrun f(True)")
    with pytest.raises(PxNameError, match="`lock` was not sent"):
        cell("%pxmap f [True]")
