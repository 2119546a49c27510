"""What Python values become in R and Octave and back: the committed table that the converters are tested against.

A row whose `note` is empty comes back equal in value, type and dtype.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One value and what a round trip makes of it.

    Attributes
    ----------
    value
        A Python expression over ``np``, ``pd``, ``dt`` (datetime) and ``zoneinfo``.
    language
        ``R`` or ``Octave``.
    back
        The expression that the result equals; ``=`` when it is the value itself; an error's first words after ``!``.
    note
        What changed, in words; empty when nothing did.
    """

    value: str
    language: str
    back: str = "="
    note: str = ""


_R = (
    ("None",),
    ("True",),
    ("3",),
    ("-2.5",),
    ("float('inf')",),
    ("2 + 1j",),
    ("'text'",),
    ("'Ümläut 中'",),
    ("b'bytes'",),
    ("2**40", "float(2**40)", "beyond R's 32-bit integers: a double, exact up to 2**53"),
    ("2**60", "!`v`: 1152921504606846976 has more digits", "an error that offers text or a rounded number"),
    ("np.float64(2.5)", "2.5", "R has no scalars of NumPy: a Python float"),
    ("np.float32(0.1)", "float(np.float32(0.1))", "float32 became double"),
    ("np.int64(7)", "7", "a Python int"),
    ("np.bool_(True)", "True", "a Python bool"),
    ("[1, 2, 3]", "np.array([1, 2, 3])", "a list of numbers is an R vector, which comes back as an array"),
    ("(1.5, 2.5)", "np.array([1.5, 2.5])", "a tuple of numbers is an R vector"),
    ("[1, 2.5]", "np.array([1.0, 2.5])", "one type for the whole vector"),
    ("[True, False]", "np.array([True, False])", "a list of bools is an R vector"),
    ("[True, None]",),
    ("['a', None, 'b']",),
    ("['a']", "'a'", "R has no scalars: one text is a vector of one"),
    ("[1, None]", "np.array([1.0, np.nan])", "NA among integers became NaN, the numbers float64"),
    ("[1.5, None]", "np.array([1.5, np.nan])", "None became NA, which comes back as NaN"),
    ("[1, 2.5, 'a']",),
    ("[]",),
    ("[[1, 2], ['a', 'b']]", "[np.array([1, 2]), ['a', 'b']]", "a list of numbers is an R vector"),
    ("range(3)", "np.array([0, 1, 2])", "a range is an R vector"),
    (
        "{'a': 1, 'b': [1.5, 2.5], 'c': None}",
        "{'a': 1, 'b': np.array([1.5, 2.5]), 'c': None}",
        "a list of numbers is an R vector",
    ),
    ("{}",),
    ("{1: 2}", "!`v`: R's names are text", "an error: R's names are text"),
    ("{1, 2}", "!`v`: R has nothing like a Python set", "an error that offers sorted(...)"),
    ("len", "!`v`: R has nothing like a Python builtin_function_or_method", "an error"),
    ("np.array([1.5, 2.5])",),
    ("np.array([2.5])",),
    ("np.array([])",),
    ("np.array([1, 2, 3])",),
    ("np.array([1, 2], dtype=np.int32)", "np.array([1, 2])", "R's integers come back as int64"),
    ("np.array([1, 2], dtype=np.uint8)", "np.array([1, 2])", "R's integers come back as int64"),
    ("np.array([0.5, 0.25], dtype=np.float32)", "np.array([0.5, 0.25])", "float32 became double"),
    ("np.array([2**40, 1])", "np.array([2.0**40, 1.0])", "integers beyond 32 bits became double, exactly"),
    (
        "np.array([2**60, 1])",
        "!`v`: 1152921504606846976 has more digits",
        "an error that offers text or rounded numbers",
    ),
    ("np.array([True, False])",),
    ("np.array([1 + 2j, 3])",),
    ("np.array(['a', 'bc'])",),
    ("np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])",),
    ("np.arange(24.0).reshape(2, 3, 4)",),
    ("np.arange(6).reshape(2, 3).T",),
    ("np.array([[True, False], [True, True], [False, False]])",),
    ("np.array([['a', 'b'], ['c', 'd'], ['e', 'f']])",),
    ("np.array([1.0, np.nan])",),
    (
        "np.ma.array([1.0, 2.0], mask=[False, True])",
        "np.array([1.0, np.nan])",
        "masked numbers are NA, which comes back as NaN",
    ),
    ("np.array(['2026-11-22', 'NaT'], dtype='datetime64[D]')",),
    ("np.array(['2026-11-22T01:02:03.5', 'NaT'], dtype='datetime64[us]')",),
    ("np.array([90, 3], dtype='timedelta64[us]')",),
    ("np.array([1, 'a'], dtype=object)", "[1, 'a']", "an array of different things is an R list"),
    ("dt.date(2026, 11, 22)",),
    ("dt.datetime(2026, 11, 22, 1, 2, 3, tzinfo=dt.UTC)",),
    (
        "dt.datetime(2026, 11, 22, 1, 2, 3)",
        "dt.datetime(2026, 11, 22, 1, 2, 3, tzinfo=dt.UTC)",
        "a time without a zone is taken as UTC",
    ),
    ("dt.timedelta(hours=3)",),
    ("pd.DataFrame({'a': [1, 2], 'b': [0.5, np.nan], 'c': ['x', None], 'd': [True, False]})",),
    ("pd.DataFrame({'a': [1.0, 2.0]}, index=['r1', 'r2'])",),
    (
        "pd.DataFrame({'a': [1.0]}, index=[7])",
        "pd.DataFrame({'a': [1.0]})",
        "an index that is not unique text was left in Python",
    ),
    ("pd.DataFrame({'f': pd.Categorical(['u', 'v', 'u'], categories=['v', 'u'])})",),
    ("pd.DataFrame({'n': pd.array([1, None], dtype='Int64'), 'b': pd.array([True, None], dtype='boolean')})",),
    ("pd.DataFrame({'t': pd.to_datetime(['2026-11-22', None]).tz_localize('UTC').as_unit('us')})",),
    ("pd.Categorical(['a', 'b', 'a'], ordered=True)",),
    ("pd.NA", "None", "R's NA is None"),
    ("pd.NaT", "None", "R's NA is None"),
    ("(1, 'a')", "[1, 'a']", "an R list"),
    ("np.array([['a', None]], dtype=object)",),
    ("pd.Series([1.5, 2.5], index=['a', 'b'])",),
    ("pd.Series([1.5, 2.5])", "np.array([1.5, 2.5])", "a series without labels is an R vector"),
)

_OCTAVE = (
    ("None", "np.zeros((0, 0))", "Octave's nothing is an empty matrix"),
    ("True",),
    ("3", "3.0", "Octave computes in doubles"),
    ("-2.5",),
    ("float('inf')",),
    ("2 + 1j",),
    ("'text'",),
    ("2**40", "float(2**40)", "Octave computes in doubles: exact up to 2**53"),
    ("2**60", "!`v`: 1152921504606846976 has more digits", "an error that offers text or a rounded number"),
    ("[1, 2, 3]", "np.array([[1.0, 2.0, 3.0]])", "a list of numbers is a row of doubles"),
    ("['a', 'bc']",),
    ("[1, 'a']", "[1.0, 'a']", "a cell array; numbers are doubles"),
    ("{'a': 1.5, 'b': 'x'}",),
    ("{'a': {'b': 2.5}}",),
    ("{1: 2}", "!`v`: Octave's fields are text", "an error: fields are text"),
    ("{1, 2}", "!`v`: Octave has nothing like a Python set", "an error that offers sorted(...)"),
    ("np.array([1.5, 2.5])", "np.array([[1.5, 2.5]])", "Octave has no vectors: a row"),
    ("np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])",),
    ("np.array([[1, 2], [3, 4]])", "np.array([[1.0, 2.0], [3.0, 4.0]])", "integers became double"),
    ("np.array([[1, 2]], dtype=np.uint8)", "np.array([[1.0, 2.0]])", "integers became double"),
    ("np.array([[2**60, 1]])", "!`v`: 1152921504606846976 has more digits", "an error that offers rounded numbers"),
    ("np.array([[0.5, 0.25]], dtype=np.float32)", "np.array([[0.5, 0.25]])", "float32 became double"),
    ("np.array([[True, False]])",),
    ("np.array([[1 + 2j, 3]])",),
    ("np.arange(24.0).reshape(2, 3, 4)",),
    ("np.array([['a', 'bc']])", "['a', 'bc']", "an array of texts is a cell array"),
    ("np.array([[1.0, np.nan]])",),
    ("dt.date(2026, 11, 22)", "!`v`: Octave has nothing like a Python date", "an error: send numbers or text"),
    ("b'bytes'", "!`v`: Octave has nothing like a Python bytes", "an error"),
    ("[1, None]", "[1.0, np.zeros((0, 0))]", "a cell array; numbers are doubles, nothing is an empty matrix"),
    (
        "np.ma.array([1.0, 2.0], mask=[False, True])",
        "!`v`: Octave has no masked arrays",
        "an error that offers filled(np.nan)",
    ),
    (
        "np.array(['2026-11-22'], dtype='datetime64[D]')",
        "!`v`: Octave has nothing like an array of datetime64",
        "an error",
    ),
    ("pd.Series([1.5, 2.5], index=['a', 'b'])", "np.array([[1.5, 2.5]])", "a row; labels stay in Python"),
    ("pd.Categorical(['a', 'b'])", "['a', 'b']", "a cell array of texts"),
    ("pd.DataFrame({'a': [1.5, 2.5]})", "{'a': np.array([[1.5], [2.5]])}", "a data frame is a struct of columns"),
    (
        "pd.DataFrame({'n': pd.array([1, None], dtype='Int64'), 'b': [True, False], 's': ['x', None]})",
        "{'n': np.array([[1.0], [np.nan]]), 'b': np.array([[1], [0]], dtype=np.uint8), 's': ['x', np.zeros((0, 0))]}",
        "a struct of columns; missing numbers are NaN, missing texts empty matrices, bools 0 and 1",
    ),
    (
        "pd.DataFrame({'f': pd.Categorical(['u', 'v', 'u'])})",
        "{'f': ['u', 'v', 'u']}",
        "a struct of columns; categories are texts",
    ),
    (
        "pd.DataFrame({'t': pd.to_datetime(['2026-11-22'])})",
        "!`v`: Octave has nothing like an array of datetime64",
        "an error: send numbers or text",
    ),
    ("'Ümläut'", "!`v`: 'Ü' does not reach Octave whole", "an error: Octave's characters are bytes"),
    ("{'a': True}", "{'a': 1}", "bools inside a struct are 0 and 1"),
    ("{}",),
    ("(1.5, 2.5)", "np.array([[1.5, 2.5]])", "a tuple of numbers is a row of doubles"),
    ("(1, 'a')", "[1.0, 'a']", "a cell array; numbers are doubles"),
    ("[True, False]", "np.array([[True, False]])", "a list of bools is a row"),
    ("['a', None]", "['a', np.zeros((0, 0))]", "a cell array; nothing is an empty matrix"),
    ("range(3)", "np.array([[0.0, 1.0, 2.0]])", "a range is a row of doubles"),
    ("np.float64(2.5)", "2.5", "a Python float"),
    ("np.int64(7)", "7.0", "Octave computes in doubles"),
    ("np.bool_(True)", "True", "a Python bool"),
    ("np.array([True, False])", "np.array([[True, False]])", "Octave has no vectors: a row"),
    ("np.array([1 + 2j, 3])", "np.array([[1 + 2j, 3]])", "Octave has no vectors: a row"),
    ("np.array([[2**40, 1]])", "np.array([[2.0**40, 1.0]])", "integers became double, exactly"),
    (
        "{'a': [1, 2], 'b': None}",
        "{'a': np.array([[1.0, 2.0]]), 'b': np.zeros((0, 0))}",
        "rows of doubles; nothing is empty",
    ),
    ("dt.datetime(2026, 11, 22)", "!`v`: Octave has nothing like a Python datetime", "an error: send numbers or text"),
    ("dt.timedelta(hours=3)", "!`v`: Octave has nothing like a Python timedelta", "an error: send seconds"),
    ("pd.NA", "!`v`: Octave has nothing like a Python NAType", "an error"),
)

TABLE = tuple(Row(row[0], "R", *row[1:]) for row in _R) + tuple(Row(row[0], "Octave", *row[1:]) for row in _OCTAVE)
