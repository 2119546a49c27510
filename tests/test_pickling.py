"""Between two notebook namespaces: what `pack` takes apart, `unpack` puts together. No cluster."""

from __future__ import annotations

import dataclasses
import enum
import functools
import pickle
import random
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pxtools.remote.pickling import home_of_generator_method, pack, unpack
from pxtools.results import is_equal


def notebook(source: str = "", **names: Any) -> dict[str, Any]:
    """Return a namespace in which `source` ran as a cell."""
    namespace: dict[str, Any] = {"__name__": "__main__", **names}
    exec(compile(source, "<cell>", "exec", dont_inherit=True), namespace)
    return namespace


def sent(value: Any, here: dict[str, Any], there: dict[str, Any] | None = None, **options: Any) -> Any:
    """Send a value as the wire does: the packed value is itself pickled."""
    packed = pickle.loads(pickle.dumps(pack(value, here), protocol=5))
    return unpack(packed, notebook() if there is None else there, {}, **options)


dtypes = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(),
    hnp.floating_dtypes(),
    hnp.complex_number_dtypes(),
    hnp.datetime64_dtypes(endianness="="),  # NumPy's own pickles lose the byte order of dates
    hnp.timedelta64_dtypes(endianness="="),
    hnp.byte_string_dtypes(),
    hnp.unicode_string_dtypes(),
    hnp.array_dtypes(hnp.floating_dtypes() | hnp.integer_dtypes(), max_size=3),
)
arrays = hnp.arrays(dtypes, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers()
containers = st.recursive(
    scalars | arrays,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=8,
)


@given(containers)
def test_containers_and_arrays_of_any_kind_arrive_as_they_are(value: Any) -> None:
    assert is_equal(sent(value, {}), value)


@given(arrays, st.sampled_from("CF"))
def test_arrays_keep_their_memory_order_and_can_be_written_to(array: Any, order: str) -> None:
    array = np.array(array, order=order)  # type: ignore[call-overload]
    arrived = sent(array, {})
    assert arrived.flags.f_contiguous == array.flags.f_contiguous
    assert arrived.flags.c_contiguous == array.flags.c_contiguous
    assert arrived.flags.writeable


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24.0).reshape(4, 6)[::2, ::3],
        np.array([{"a": 1}, None, [2]], dtype=object),
        np.ma.masked_array([1.0, 2.0, 3.0], mask=[0, 1, 0]),
        np.float64(2.5),
        np.array(["2020-01-01", "NaT"], dtype="M8[D]"),
        np.recarray((2,), dtype=[("x", float), ("y", int)]),
    ],
    ids=["strided", "objects", "masked", "scalar", "dates", "records"],
)
def test_unusual_arrays_arrive(array: Any) -> None:
    arrived = sent(array, {})
    assert type(arrived) is type(array)
    assert is_equal(arrived, array)


def test_large_arrays_stay_beside_the_stream() -> None:
    packed = pack({"x": np.zeros(10_000)}, {})
    assert len(packed.data) < 1_000
    assert packed.nbytes > 80_000


def test_one_array_under_two_names_stays_one() -> None:
    x = np.zeros(3)
    a, b = sent([x, x], {})
    assert a is b


def test_a_function_sees_the_names_of_the_namespace_that_it_arrives_in() -> None:
    here = notebook("def f(): return x")
    there = {"x": "theirs"}
    f = sent(here["f"], here, there)
    assert f() == "theirs"
    there["x"] = "later"
    assert f() == "later"


def test_the_names_that_a_function_uses_are_reported_and_not_embedded() -> None:
    here = notebook("import numpy as np\ndef f(n): return np.zeros(n) + big + sum(k for k in h())", big=np.ones(10_000))
    packed = pack(here["f"], here)
    assert packed.needs >= {"np", "big", "h"}
    assert packed.nbytes < 2_000


@pytest.mark.parametrize("n", [3, 100_000])
def test_a_closure_brings_its_cells(n: int) -> None:
    here = notebook("def make(a):\n    return lambda: a.sum()", np=np)
    assert sent(here["make"](np.ones(n)), here)() == n


def test_two_closures_over_one_variable_still_share_it() -> None:
    here = notebook(
        "def make():\n"
        "    n = 0\n"
        "    def up():\n        nonlocal n\n        n += 1\n        return n\n"
        "    def read(): return n\n"
        "    return up, read"
    )
    up, read = sent(here["make"](), here)
    up()
    assert read() == 1


def test_a_local_function_that_calls_itself_arrives() -> None:
    here = notebook(
        "def make():\n    def fact(n): return 1 if n < 2 else n * fact(n - 1)\n    return fact",
    )
    assert sent(here["make"](), here)(5) == 120


def test_an_empty_cell_stays_empty() -> None:
    here = notebook("def make():\n    def f(): return later\n    if False: later = 1\n    return f")
    with pytest.raises(NameError):
        sent(here["make"](), here)()


def test_defaults_attributes_annotations_and_names_come_along() -> None:
    here = notebook(
        "def f(a: int, b=2, *, c=np.arange(3)) -> float:\n    'Add.'\n    return a + b + c.sum()\nf.note = 'kept'",
        np=np,
    )
    f = sent(here["f"], here)
    assert f(1) == 6
    assert (f.__name__, f.__doc__, f.note, f.__module__) == ("f", "Add.", "kept", "__main__")
    assert f.__annotations__ == {"a": int, "return": float}


def test_a_cache_arrives_empty_and_works() -> None:
    here = notebook("import functools\n@functools.lru_cache(maxsize=7)\ndef f(n): return n * n")
    f = sent(here["f"], here)
    assert (f(3), f(3), f.cache_info().hits, f.cache_info().maxsize) == (9, 9, 1, 7)


def test_single_dispatch_arrives_with_its_implementations() -> None:
    here = notebook(
        "import functools\n@functools.singledispatch\ndef f(x): return 'any'\n@f.register\ndef _(x: int): return 'int'"
    )
    f = sent(here["f"], here)
    assert (f(1), f("x"), f.__name__) == ("int", "any", "f")


def test_classes_arrive_with_super_properties_and_cached_properties() -> None:
    here = notebook(
        "import functools\n"
        "class A:\n"
        "    def __init__(self, x): self.x = x\n"
        "class B(A):\n"
        "    def __init__(self, x): super().__init__(x + 1)\n"
        "    @property\n    def twice(self): return 2 * self.x\n"
        "    @classmethod\n    def make(cls): return cls(1)\n"
        "    @staticmethod\n    def one(): return 1\n"
        "    @functools.cached_property\n    def once(self): return object()\n"
    )
    b = sent(here["B"], here).make()
    assert (b.x, b.twice, b.one()) == (2, 4, 1)
    assert b.once is b.once


def test_the_markers_of_dataclasses_keep_their_identity() -> None:
    here = notebook(
        "from dataclasses import dataclass, field\n@dataclass\nclass P:\n"
        "    x: float\n    y: list = field(default_factory=list)"
    )
    P = sent(here["P"], here)
    assert P(1.0) == P(1.0, [])
    assert dataclasses.fields(P)[0].default is dataclasses.MISSING
    child = dataclasses.make_dataclass("C", [("z", int, 0)], bases=(P,))
    assert child(1.0).z == 0


def test_an_enum_member_that_comes_back_is_the_member() -> None:
    here = notebook("import enum\nclass Color(enum.Enum):\n    RED = 1\n    BLUE = 2")
    assert sent(here["Color"].RED, here) is here["Color"].RED
    assert isinstance(here["Color"].RED, enum.Enum)


def test_an_instance_that_comes_back_does_not_bring_back_an_older_class() -> None:
    here = notebook("class A:\n    def f(self): return 'old'")
    packed = pack(here["A"](), here)
    here["A"].f = lambda self: "new"
    assert unpack(packed, here, {}, keeps_classes=True).f() == "new"
    assert unpack(packed, here, {}).f() == "old"  # engines take the state that they are sent


def test_methods_of_the_global_generators_travel_as_imports() -> None:
    for method in (random.random, random.gauss, np.random.rand, np.random.random, np.random.normal):
        assert home_of_generator_method(method) is not None
        arrived = sent([functools.partial(method)], {})[0].func
        assert arrived.__self__ is method.__self__
    own = random.Random(3)
    assert home_of_generator_method(own.random) is None
    assert home_of_generator_method(np.random.RandomState(3).rand) is None


def test_the_global_generators_themselves_travel_as_imports() -> None:
    for generator in (random._inst, np.random.mtrand._rand):  # type: ignore[attr-defined]
        assert sent({"in": generator}, {})["in"] is generator


def test_functions_of_two_files_keep_their_own_globals() -> None:
    files: dict[str, Any] = {}
    made = []
    for factor in (2, 3):
        of_file = {"__name__": "__main__", "__file__": f"/some/{factor}.py"}
        exec(f"scale = {factor}\ndef helper(x): return scale * x\ndef f(x): return helper(x)", of_file)
        made.append(unpack(pack(of_file["f"], {}), {}, files))
    assert [f(10) for f in made] == [20, 30]


def test_a_file_that_ran_again_replaces_what_it_defined_before() -> None:
    files: dict[str, Any] = {}
    for factor in (2, 5):
        of_file = {"__name__": "__main__", "__file__": "/some/file.py"}
        exec(f"scale = {factor}\ndef f(x): return scale * x", of_file)
        f = unpack(pack(of_file["f"], {}), {}, files)
    assert f(10) == 50


def test_a_function_that_a_library_made_keeps_the_library_as_its_globals() -> None:
    here = notebook("import contextlib\n@contextlib.contextmanager\ndef c(): yield 7")
    packed = pack(here["c"], here)
    with unpack(packed, here, {})() as seven:
        assert seven == 7


def test_a_lock_raises_what_its_own_pickling_raises() -> None:
    with pytest.raises(TypeError, match="pickle"):
        pack(threading.Lock(), {})


def test_mutual_recursion_async_and_generator_functions_arrive() -> None:
    here = notebook(
        "def even(n): return n == 0 or odd(n - 1)\n"
        "def odd(n): return n != 0 and even(n - 1)\n"
        "def upto(n):\n    yield from range(n)\n"
        "async def later(): return 5\n"
        "table = {'f': lambda x: x + 1}"
    )
    there: dict[str, Any] = {}
    for name in ("even", "odd", "upto", "later", "table"):
        there[name] = sent(here[name], here, there)
    assert there["even"](10)
    assert list(there["upto"](3)) == [0, 1, 2]
    with pytest.raises(StopIteration, match="5"):
        there["later"]().send(None)
    assert there["table"]["f"](1) == 2
