"""Inputs and outputs of cells: a table a rule, and random programs whose real reads are recorded."""

import builtins
import contextlib
import doctest
import random
import sys
import textwrap

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import pxtools.names
import pxtools.remote.codes
from pxtools.names import CellNames, analyse, global_names, parse_rename

BUILTINS = set(dir(builtins))


def reads(code):
    return set(analyse(textwrap.dedent(code)).reads) - BUILTINS


def check_reads(code, expected):
    assert reads(code) == set(expected.split())


# -- one name after the other --------------------------------------------------------------------------


def test_augmented_assignment_reads_and_assigns():
    names = analyse("x += 1")
    assert (names.reads, names.assigned, names.binds) == ({"x"}, ("x",), {"x"})


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("x = x + 1", "x"),
        ("x = 1\ny = x", ""),
        ("x += y", "x y"),
        ("x[0] = 1", "x"),
        ("x[i].a = y", "x i y"),
        ("x.a = 1", "x"),
        ("x[0] += 1", "x"),
        ("del x", "x"),
        ("x = 1\ndel x", ""),
        ("x = 1\ndel x\nx", "x"),
        ("del x[i], (y.a, z)", "x i y z"),
        ("a, (b, *c) = z\na, b, c", "z"),
        ("a = b = a", "a"),
        ("x: int = 1\nx", ""),
        ("x: T", "T"),
        ("x: T\nx", "T x"),
        ("from __future__ import annotations\nx: T", ""),
        ("from __future__ import annotations\ndef f(a: T) -> U: pass", ""),
        ("x: x = 1", ""),
        ("x.a: T", "x T"),
        ("import a.b\na", ""),
        ("import a.b as c\na, c", "a"),
        ("from m import x as y\nx, y", "x"),
        ("from m import *\nx", "x"),
        ("print(*a, **b, k=c)", "a b c"),
        ("f'{a!r:>{b}} {{c}}'", "a b"),
        ("a < b < c", "a b c"),
        ("'x + y'", ""),
        ("exec('x'); eval('y')", ""),
        ("x[a:b, ...]", "x a b"),
        ("{a: b, **c}", "a b c"),
        ("lst.append(a)", "lst a"),
        ("(a := b) + a", "b"),
        ("{1: a, (a := 2): 3}", "a"),
        ("global x\nx = 1\nx", ""),
        ("_", "_"),
    ],
)
def test_straight_line_code_reads_what_it_has_not_bound(code, expected):
    check_reads(code, expected)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("if c: x = 1\nx", "c x"),
        ("if c: x = 1\nelse: x = 2\nx", "c"),
        ("if c: x = 1\nelse: raise E\nx", "c E"),
        ("if c: import x\nx", "c x"),
        ("if c:\n def f(): pass\nf", "c f"),
        ("if c:\n class A: pass\nA()", "c A"),
        ("if (n := f()) and (m := g()): n, m\nn\n", "f g"),
        ("if (n := f()) and (m := g()): pass\nm", "f g m"),
        ("if not (c and (m := g())): pass\nelse: m", "c g"),
        ("c or (m := 1)\nm", "c m"),
        ("a < b < (m := 1)\nm", "a b m"),
        ("a < (m := 1)\nm", "a"),
        ("(x := 1) if c else (y := 2)\nx, y", "c x y"),
        ("(x := 1) if c else (x := 2)\nx", "c"),
        ("assert (x := c), x\nx", "c"),
        ("assert c and (x := 1), x\nx", "c x"),
        ("for i in xs: i\n", "xs"),
        ("for i in xs: pass\ni", "xs i"),
        ("for i in xs: x = i\nx", "xs x"),
        ("for i in xs: pass\nelse: x = 1\nx", "xs"),
        ("for i in xs:\n if i: break\nelse: x = 1\nx", "xs x"),
        ("for a, b in a: b", "a"),
        ("for x.a in xs: pass", "x xs"),
        ("x = 1\nfor i in xs:\n x\n del x", "xs x"),
        ("for i in xs:\n if i: continue\n x = 1\nelse: x", "xs x"),
        ("while c: x = 1\nx", "c x"),
        ("while (x := f()): pass\nx", "f"),
        ("while True:\n x = 1\n if c: break\nx", "c"),
        ("while True:\n if c: break\n x = 1\nx", "c x"),
        ("while True:\n if c: continue\n x = 1\n if d: break\nx", "c d"),
        ("while c: pass\nelse: x = 1\nx", "c"),
        ("for i in xs:\n if i: f()\n def f(): return x\nx = 1", "xs f x"),
    ],
)
def test_a_branch_or_loop_binds_only_what_every_path_binds(code, expected):
    check_reads(code, expected)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("try: x = 1\nexcept E: pass\nx", "E x"),
        ("try: x = 1\nexcept E: x = 2\nx", "E"),
        ("try: x = 1\nexcept E: raise\nx", "E"),
        ("try: x = 1\nexcept E: x", "E x"),
        ("try: x = 1\nfinally: x", "x"),
        ("try: x = 1\nfinally: y = 1\nx, y", ""),
        ("try: f()\nexcept E: x = 0\nelse: x = 1\nx", "f E"),
        ("try: f()\nexcept E as e: e\ne", "f E e"),
        ("e = 1\ntry: f()\nexcept E as e: pass\ne", "f E e"),
        ("x = 1\ntry:\n del x\n x = 2\nexcept E: x", "E x"),
        ("try: x = 1\nexcept* E: pass\nx", "E x"),
        ("try: import a\nexcept ImportError: a = None\na", ""),
        ("for i in xs:\n try: f()\n except E as e: break\nelse: e = 1\ne", "xs f E e"),
        ("for i in xs:\n x = 1\n try: break\n finally: del x\nelse: x = 2\nx", "xs x"),
        ("with f() as x: y = x\nx, y", "f"),
        ("with f() as x, g(x) as (a, b): pass\na, b", "f g"),
        ("with f() as x.a: pass", "f x"),
        ("with suppress(E): x = 1\nx", "suppress E x"),
        ("with contextlib.suppress(E) as s: x = 1\ns", "contextlib E"),
        ("async with f() as x: x\nx", "f"),
        ("async for i in f(): i\ni", "f i"),
        ("raise E\nx", "E"),
        ("raise E from x", "E x"),
    ],
)
def test_an_exception_may_leave_a_try_body_at_any_point(code, expected):
    check_reads(code, expected)


@pytest.mark.parametrize(
    ("cases", "expected"),
    [
        ("case [a, *b]: a, b", "v"),
        ("case [a]: pass\n case _: a", "v a"),
        ("case A(x=y, z=B.C): y", "v A B"),
        ("case {k.K: x, **rest}: x, rest", "v k"),
        ("case [1, x] | [x, 2]: x", "v"),
        ("case x if x > y: z = 1", "v y"),
        ("case (1 | 2) as n: n", "v"),
    ],
)
def test_a_match_case_binds_its_captures(cases, expected):
    check_reads(f"match v:\n {cases}", expected)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("match v:\n case [a]: x = 1\nx, a", "v x a"),
        ("match v:\n case [a]: x = 1\n case _: x = 2\nx", "v"),
        ("match v:\n case [a]: x = 1\n case 1 | _: x = 2\nx", "v"),
        ("match v:\n case y if c: x = 1\nx", "v c x"),
        ("match v:\n case [y] if (w := c): x = 1\n case z: w", "v c w"),
        ("match v:\n case y if (w := c): x = 1\n case z: w", "v c"),
    ],
)
def test_after_a_match_only_what_all_cases_bind_is_bound(code, expected):
    check_reads(code, expected)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("[x for x in xs]", "xs"),
        ("[x for x in x]", "x"),
        ("[x for x in xs]\nx", "xs x"),
        ("[y for x in xs for y in x if z]", "xs z"),
        ("{k: v for k, v in d.items() if k in s}", "d s"),
        ("[(y := x) for x in xs]\ny", "xs y"),
        ("[y for x in xs if (y := f(x))]", "xs f"),
        ("any((y := x) for x in xs)\ny", "xs y"),
        ("[lambda: x + y for x in xs]", "xs y"),
        ("[[x for y in x] for x in xs]", "xs"),
        ("[0 for x.a in xs]", "xs x"),
        ("(a async for a in b)", "b"),
        ("xs = 1\nclass A:\n ys = 1\n z = [ys for x in ys]", "ys"),
    ],
)
def test_a_comprehension_has_names_of_its_own(code, expected):
    check_reads(code, expected)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f(): return x", "x"),
        ("def f(): return g()\ndef g(): return 1", ""),
        ("def f(): return g()\ndef g(): return f()\nf()", ""),
        ("def f(): return g()\nf()\ndef g(): return 1", "g"),
        ("def f(): return g()\ndef g(): return h()\nf()\ndef h(): pass", "h"),
        ("def f(n): return f(n - 1)", ""),
        ("def f(): return x\nx = 1\nf()", ""),
        ("def f(): return x\nf()\nx = 1", "x"),
        ("def f(): return x\nmap(f, xs)\nx = 1", "x xs"),
        ("def f(): return x\nif c: x = 1\nf()", "c x"),
        ("if c:\n def f(): return f()\n", "c"),
        ("def f(): return x\nx = 1\nf()\ndel x", "x"),  # a later cell may call it
        ("@d(e)\ndef f(): return g()\ndef g(): pass", "d e g"),
        ("@d\ndef f(): return f()", "d"),
        ("def f(a=x, *, b: T = y) -> U: return a, b", "x y T U"),
        ("def f(a, /, b, *c, d, **e): a, b, c, d, e", ""),
        ("def f():\n global x\n x = 1\nf()\nx", "x"),
        ("def f():\n global x\n x += 1", "x"),
        ("def f():\n x = 1\n def g():\n  nonlocal x\n  x += y\n return g", "y"),
        ("def f():\n import a.b\n return a, [a for b in c]", "c"),
        ("def f():\n class A(B):\n  x = y\n  z = x\n  def m(self): return w", "B y w"),
        ("lambda a, b=x: a + b + y", "x y"),
        ("f = lambda n: f(n - 1)", ""),
        ("f = lambda: g()\ndef g(): pass\nf()", ""),
        ("f = lambda: g()\nf()\ndef g(): pass", "g"),
        ("fs = [lambda: g()]\ndef g(): pass", "g"),
        ("async def f(): return await g(x)", "g x"),
        ("def f(x):\n y: T = x\n return y", ""),
        ("def f(): raise E\nraise f\nE = 1", "E"),
    ],
)
def test_a_function_needs_its_globals_when_it_can_first_be_called(code, expected):
    check_reads(code, expected)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("class A: x = y", "y"),
        ("class A:\n x = 1\n y = x", ""),
        ("class A:\n x = x", "x"),
        ("class A: x = 1\nx", "x"),
        ("class A:\n x = 1\n def m(self): return x", "x"),
        ("class A(B, metaclass=M): pass", "B M"),
        ("class A:\n def m(self): return A, B()\nclass B: pass\nA()", ""),
        ("class A:\n def m(self): return B()\nA().m()\nclass B: pass", "B"),
        ("class A:\n def m(): return x\n y = m()\nx = 1", "x"),
        ("class A:\n def m(self): return B\nclass B(A): pass", ""),
        ("class A:\n def m(self): return B\nclass C(A): pass\nC()\nclass B: pass", "B"),
        ("class A:\n def __init_subclass__(cls): return B\nclass B(A): pass", "B"),
        ("@d\nclass A:\n def m(self): return B\nclass B: pass", "d B"),
        ("class A:\n global x\n x = 1\nx", ""),
        ("class A:\n __x = 1\n y = __x\n def m(self): return __z, super().m()", "_A__z"),
        ("class A:\n class B:\n  x = y\n  def m(self): return x\n z = B", "y x"),
        ("class A:\n if c: x = 1\n y = x", "c x"),
        ("class A:\n @property\n def m(self): return w", "w"),
        ("class A:\n f: T = 1\n def m(self, o: U): pass", "T U"),
    ],
)
def test_a_class_body_runs_at_once_and_its_methods_later(code, expected):
    check_reads(code, expected)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="syntax of Python 3.12")
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f[T: B](a: T) -> U: return x", "B U x"),
        ("class A[T](Base[T]):\n def m(self, a: T): return T, y", "Base y"),
        ("type X[T] = list[X[T] | Y]", "Y"),
        ("type X = Y\nclass Y: pass", ""),
    ],
)
def test_type_parameters_are_local(code, expected):
    check_reads(code, expected)


# -- what comes back -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("b = 1\na = 2\nb = 3", "b a"),
        ("a, (b, *c) = z", "a b c"),
        ("x: int = 1\ny: int", "x"),
        ("x[0] = 1\ny.a = 2\nz[0].b += 1\nf(w)[0] = 1", "x y z"),
        ("if (n := f()): a = 1\nelse: b = 2", "n a b"),
        ("for i in xs: t = i\nelse: u = 1", "t u"),
        ("while c: t = 1", "t"),
        ("with f() as g: t = 1", "t"),
        ("try: a = 1\nexcept E as e: b = 1\nelse: c = 1\nfinally: d = 1", "a b c d"),
        ("match v:\n case [x]: y = 1", "y"),
        ("[(y := x) for x in xs]", "y"),
        ("import a\ndef f(): x = 1\nclass A: y = 1", ""),
        ("_x = 1\n_ = 2\n__y = 3\nz = 4", "z"),
        ("x = y = 1\ndel x", "y"),
        ("x = 1\ndel x\nx = 2", "x"),
        ("x = 1\nif c: del x", "x"),
        ("x = 1\nwith f(): del x", ""),
        ("lst.append(1)", ""),
        ("f = lambda: 1", "f"),
        ("x = get_ipython().run_line_magic('time', 'f()')", "x"),
        ("x = get_ipython().getoutput('ls')", "x"),
        ("get_ipython().run_cell_magic('time', '', 'x = 1')", "x"),
        ("get_ipython().run_cell_magic('capture', 'out', 'x = 1')", "x"),
        ("get_ipython().run_cell_magic('timeit', '', 'x = 1')", ""),
        ("get_ipython().run_line_magic('timeit', 'x = 1')", ""),
        ("get_ipython().run_line_magic('time', 'x = 1')", "x"),
    ],
)
def test_assignments_at_the_top_level_are_collected_in_order(code, expected):
    assert analyse(code).assigned == tuple(expected.split())


def test_every_way_of_binding_is_seen():
    names = analyse(
        textwrap.dedent("""\
        import a.b, c as d
        from e import f
        def g():
            global h
            h = [i for i in ()]
        class j:
            k = 1
        for l in (): pass
        with m() as n: pass
        try: pass
        except E as o: pass
        (p := 1)
        match p:
            case [q, *r]: pass
            case {**s}: pass
            case t as u: pass
        v += 1
        """)
    )
    assert names.binds == set("adfghjlnopqrstuv")
    assert names.imports == ("import a.b, c as d", "from e import f")


def test_only_imports_that_always_run_are_listed():
    code = "import a\nif c: import b\nwith w: import d\ntry: import e\nexcept E: pass\ndef f(): import g"
    assert analyse(code).imports == ("import a", "import d")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("await x", True),
        ("async with x: pass", True),
        ("async for i in x: pass", True),
        ("[i async for i in x]", True),
        ("async def f(): await x", False),
        ("x = 1", False),
    ],
)
def test_top_level_await_is_seen(code, expected):
    assert analyse(code).has_await is expected


def test_deleted_names_are_listed():
    assert analyse("del a, (b, c[0])\nif x: del d\nclass A:\n e = 1\n del e").deletes == {"a", "b", "d"}


# -- magics --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cd $folder/$$HOME/$$$twice {name} {{no}}", "folder twice name"),
        ("load {path.stem + ext} ${n} {x[0]:>{w}}", "path ext n x w"),
        ("load {[a for a in b]}", "b"),
        ("awk '{print $one}' {", "one"),
        ("load {is python} {}", ""),
        ("load x y", ""),
    ],
)
def test_names_that_ipython_expands_in_a_magic_line_are_read(line, expected):
    for call in ("run_line_magic('m', {0!r})", "run_cell_magic('m', {0!r}, '$body')", "system({0!r})"):
        check_reads("get_ipython()." + call.format(line), expected)
    check_reads(f"z = get_ipython().getoutput({line!r})", expected)


@pytest.mark.parametrize(
    ("name", "line", "expected"),
    [
        ("timeit", "f(x)", "f x"),
        ("timeit", "-n 10 -r3 -q -p 3 -o -t -c -v 'saved' f(x)", "f x"),
        ("timeit", "f'{x}'; x = 1", "x"),
        ("timeit", "not python $x", "x"),
        ("time", "y = f(x)", "f x"),
        ("time", "--no-raise-error f(x)", "f x"),
        ("prun", "-l 10 -s cumulative -q -T file.txt f(x)", "f x"),
        ("pinfo", "x", ""),
        ("matplotlib", "inline", ""),
        ("capture", "out", ""),
    ],
)
def test_a_magic_line_of_python_is_read_as_python(name, line, expected):
    check_reads(f"get_ipython().run_line_magic({name!r}, {line!r})", expected)


@pytest.mark.parametrize(
    ("name", "line", "body", "expected"),
    [
        ("time", "", "y = x\nz = y", "x"),
        ("timeit", "-n 3 y = s", "f(y)\n", "s f"),
        ("capture", "--no-stderr out", "print(x)", "x"),
        ("memit", "-r 3", "f(x)", "f x"),
        ("prun", "-q", "f(x)", "f x"),
        ("time", "", "%matplotlib inline\nfor i in xs:\n    !echo $a\n    y = %timeit f(b)\nhelp?", "xs a f b"),
        ("time", "", "%%timeit s = x\nf(s)", "x f"),
        ("time", "", "x = (", ""),
        ("time", "", "s = '''\n%not a magic\n'''", ""),
        ("bash", "$x", "echo $y", "x"),
    ],
)
def test_a_magic_body_of_python_is_read_as_python(name, line, body, expected):
    check_reads(f"get_ipython().run_cell_magic({name!r}, {line!r}, {body!r})", expected)


@pytest.mark.parametrize(("magic", "expected"), [("time", ""), ("capture", ""), ("timeit", "x")])
def test_a_timed_body_binds_only_where_it_runs_in_the_notebook(magic, expected):
    check_reads(f"get_ipython().run_cell_magic({magic!r}, '', 'x = 1')\nx", expected)


def test_capture_binds_its_output():
    names = analyse("get_ipython().run_cell_magic('capture', '--no-stderr out', '')\nout")
    assert (names.reads, names.binds, names.assigned) == (set(), {"out"}, ())


def test_a_timed_call_uses_the_functions_of_the_cell():
    code = "def f(): return x\nget_ipython().run_line_magic('timeit', 'f()')\nx = 1"
    check_reads(code, "x")


def test_a_magic_inside_a_function_reads_globals_but_not_locals():
    check_reads("def f(a):\n get_ipython().system('ls $a $b')\n get_ipython().run_line_magic('time', 'g(a)')", "b g")


# -- robustness ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["x =", "break", "return 1", "def f(: pass", "'\x00"])
def test_a_syntax_error_passes_through(code):
    with pytest.raises(SyntaxError):
        analyse(code)


def test_code_that_python_warns_about_is_analysed_without_a_warning():
    check_reads("x is 1\n'\\d'", "x")


def test_a_sum_of_many_terms_does_not_exhaust_the_stack():
    check_reads(" + ".join(["x"] * 900), "x")


def test_builtins_are_reported_and_get_ipython_is_not():
    assert analyse("len(get_ipython().user_ns)").reads == {"len"}


@pytest.mark.parametrize("code", ["", "\n", "# nothing", "pass", "...", "'doc'"])
def test_empty_code_has_no_names(code):
    names = analyse(code)
    assert names == CellNames(frozenset(), (), frozenset(), (), has_await=False, deletes=frozenset())


# -- global_names, parse_rename ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(a): return a.attr + g", "g"),
        ("def f(): return [x + y for x in z]", "y z"),
        ("def f():\n a = 1\n return lambda: a + b", "b"),
        ("def f():\n global x\n x = 1", ""),
        ("def f():\n global x\n x = 1\n return x", "x"),
        ("def f():\n global x\n del x", "x"),
        ("def f():\n class A(B):\n  p = q\n  r = p\n  def m(self): return s\n return A", "B q s"),
        ("def f():\n class A:\n  if c: p = 1\n  r = p", "c p"),
        ("def f(a=d): import m; return m, a", ""),
        ("async def f():\n async with c as x: await x", "c"),
    ],
)
def test_globals_of_a_code_object_include_nested_code(source, expected):
    namespace = {"d": None}
    exec(textwrap.dedent(source), namespace)
    assert global_names(namespace["f"].__code__) == set(expected.split())


@pytest.mark.parametrize(("spec", "expected"), [("x", ("x", "x")), ("r=py", ("r", "py")), (" r = py ", ("r", "py"))])
def test_a_rename_is_destination_then_source(spec, expected):
    assert parse_rename(spec) == expected


@pytest.mark.parametrize("spec", ["", "=", "a=", "=a", "a.b", "1x", "a=b=c", "a b"])
def test_a_rename_that_is_no_identifier_is_an_error_that_says_what_to_write(spec):
    with pytest.raises(ValueError, match=r"identifier.\nWrite `x`, or `destination=source`.\Z"):
        parse_rename(spec)


def test_the_examples_in_the_documentation_run():
    results = [doctest.testmod(pxtools.names), doctest.testmod(pxtools.remote.codes)]
    assert sum(result.attempted for result in results) >= 5
    assert sum(result.failed for result in results) == 0


# -- random programs against what Python really does --------------------------------------------------


# A seed does not shrink to a smaller program.
RANDOM_PROGRAMS = settings(max_examples=60, deadline=None, derandomize=True, phases=[Phase.generate])


class Boom(Exception):
    """Raised at random, to jump out of a `try` anywhere."""


class Stop(BaseException):
    """Raised when a program has run long enough."""


class Chance:
    """The value of every name: each thing done with it turns out at random."""

    def __init__(self, rng, is_calm):
        self.rng, self.is_calm, self.budget = rng, is_calm, 300

    def step(self, *_):
        self.budget -= 1
        if self.budget < 0:
            raise Stop
        if not self.is_calm and self.rng.random() < 0.1:
            raise Boom
        return self

    __add__ = __call__ = __getitem__ = __enter__ = step

    def __bool__(self):
        self.step()
        return self.rng.random() < 0.5

    def __iter__(self):
        self.step()
        return iter([self] * self.rng.randrange(3))

    def __setitem__(self, key, value):
        self.step()

    def __exit__(self, *_):
        return None


class Recorder(dict):
    """A namespace that notes each name that is looked up while it is not bound."""

    def __init__(self, value):
        super().__init__()
        self.value, self.missed = value, set()

    def __missing__(self, name):
        if name in BUILTINS or name == "Boom":
            raise KeyError(name)
        self.missed.add(name)
        return self.value

    def __delitem__(self, name):
        if name in self:
            super().__delitem__(name)
        else:
            self.missed.add(name)


class Writer:
    """Write a random program: assignments, and with `branches` all kinds of control flow."""

    def __init__(self, rng, branches):
        self.rng, self.branches, self.functions = rng, branches, list(range(4))
        rng.shuffle(self.functions)

    def name(self):
        return self.rng.choice("abcdef")

    def expression(self, depth=2):
        pick = self.rng.randrange(14 if self.branches else 5)
        if depth == 0 or pick < 2:
            return self.name()
        a, b = self.expression(depth - 1), self.expression(depth - 1)
        forms = [
            f"({a} + {b})", f"f{self.rng.randrange(4)}()", f"({self.name()} := {a})", f"({a} and {b})",
            f"({a} or {b})", f"({a} if {self.expression(depth - 1)} else {b})", f"(not {a})",
            f"max([{a} for {self.name()} in {b}], key=id, default={self.name()})",
            f"list(({a}, {self.name()}) for z in {self.name()} if z) or {b}",
            f"(lambda {self.name()}: {a.replace(':=', '+')})({b})", f"{self.name()}[{a}]",
            f"{{{a}: 0, {b}: 1}} and {a}",
        ]  # fmt: skip
        return forms[pick - 2]

    def safe(self, text):
        """A comprehension may not rebind its own variable, and its iterable may bind nothing."""
        try:
            compile(text, "", "exec")
        except SyntaxError:
            return "pass"
        return text

    def block(self, depth, in_loop):
        lines = [self.statement(depth - 1, in_loop) for _ in range(self.rng.randrange(1, 4))]
        return textwrap.indent("\n".join(lines), "    ")

    def simple(self):
        x, e = self.name(), self.expression()
        return self.safe(
            self.rng.choice([f"{x} = {e}", f"{x} += {e}", f"{x}[0] = {e}", f"del {x}", f"{e}", f"{x} = {e}"])
        )

    def define(self):
        number = self.functions.pop()
        later = [f"f{other}()" for other in range(number + 1, 4)]  # never round in circles
        body = " + ".join(self.rng.sample(["a", "b", "c", *later], 2))
        return f"def f{number}(): return {body}"

    def statement(self, depth, in_loop=False):
        if self.functions and self.rng.random() < 0.15:
            return self.define()
        if not self.branches or depth <= 0 or self.rng.random() < 0.4:
            if in_loop and self.rng.random() < 0.2:
                return self.rng.choice(["break", "continue"])
            return self.simple()
        e, x, b = self.expression(), self.name(), lambda loop=in_loop: self.block(depth, loop)
        forms = [
            lambda: f"if {e}:\n{b()}", lambda: f"if {e}:\n{b()}\nelse:\n{b()}",
            lambda: f"for {x} in {e}:\n{b(True)}", lambda: f"for {x} in {e}:\n{b(True)}\nelse:\n{b()}",
            lambda: f"while {e}:\n    tick()\n{b(True)}\nelse:\n{b()}",
            lambda: f"while True:\n    tick()\n{b(True)}\n    if {e}: break",
            lambda: f"try:\n{b()}\nexcept Boom as {x}:\n{b()}\nelse:\n{b()}",
            lambda: f"try:\n{b()}\nexcept Boom:\n{b()}\nfinally:\n{b(False)}",
            lambda: f"try:\n{b()}\nfinally:\n{b(False)}", lambda: f"with {e} as {x}:\n{b()}",
            lambda: f"match {e}:\n    case [{x}]:\n{textwrap.indent(b(), '    ')}\n"
                    f"    case {self.name()} if {self.expression()}:\n{textwrap.indent(b(), '    ')}",
            lambda: f"class K:\n{b(False)}",
        ]  # fmt: skip
        text = self.rng.choice(forms)()
        return text if in_loop else self.safe(text)

    def program(self):
        lines = [self.statement(3) for _ in range(self.rng.randrange(2, 9))]
        return "\n".join(lines + [self.define() for _ in list(self.functions)])


def missed_by(code, rng, is_calm=False):
    namespace = Recorder(Chance(rng, is_calm))
    namespace.update(Boom=Boom, tick=namespace.value.step)  # `tick` ends a loop that does nothing else
    with contextlib.suppress(Boom, Stop, TypeError, AttributeError, ValueError):
        try:
            exec(compile(code, "<random>", "exec"), namespace)
        except NameError as error:  # a class body looks past `__missing__`
            namespace.missed |= {error.name} - {None} - set(namespace)
    return namespace.missed


@RANDOM_PROGRAMS
@given(st.integers(0, 2**32))
def test_whatever_a_random_program_misses_was_reported(seed):
    rng = random.Random(seed)
    code = Writer(rng, branches=True).program()
    try:
        found = analyse(code).reads
    except SyntaxError:
        return
    for _ in range(8):
        assert missed_by(code, rng) <= found, code


@RANDOM_PROGRAMS
@given(st.integers(0, 2**32))
def test_in_a_straight_line_exactly_what_is_missed_is_reported(seed):
    rng = random.Random(seed)
    code = Writer(rng, branches=False).program() + "\nf0() + f1() + f2() + f3()"
    assert missed_by(code, rng, is_calm=True) == analyse(code).reads, code
