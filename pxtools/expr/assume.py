"""What is said of the matrices: `"Sigma, R: positive_definite; H: k x n, full_row_rank; lam: positive scalar"`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pxtools.errors import PxUsageError, nearest

#: every word that is understood, and what it means
WORDS: dict[str, frozenset[str]] = {
    "symmetric": frozenset({"symmetric"}),
    "positive_definite": frozenset({"symmetric", "psd", "pd"}),
    "positive_semidefinite": frozenset({"symmetric", "psd"}),
    "diagonal": frozenset({"symmetric", "diagonal"}),
    "lower_triangular": frozenset({"lower"}),
    "upper_triangular": frozenset({"upper"}),
    "orthogonal": frozenset({"orthogonal"}),
    "full_rank": frozenset({"full_rank"}),
    "full_row_rank": frozenset({"row_rank"}),
    "full_column_rank": frozenset({"col_rank"}),
    "invertible": frozenset({"full_rank"}),
    "square": frozenset({"square"}),
    "scalar": frozenset({"scalar"}),
    "positive": frozenset({"scalar", "positive"}),
    "vector": frozenset({"vector"}),
}
ALIASES = {
    "spd": "positive_definite",
    "pd": "positive_definite",
    "psd": "positive_semidefinite",
    "spsd": "positive_semidefinite",
    "diag": "diagonal",
    "lower": "lower_triangular",
    "upper": "upper_triangular",
    "fullrank": "full_rank",
    "nonsingular": "invertible",
    "full_col_rank": "full_column_rank",
    "unitary": "orthogonal",
    "column": "vector",
    "real_elements": "",
    "real": "",
}


@dataclass
class Assumptions:
    """Properties and declared sizes by name."""

    properties: dict[str, set[str]] = field(default_factory=dict)
    shapes: dict[str, tuple[str, str]] = field(default_factory=dict)

    def add(self, name: str, word: str) -> None:
        """Record one word about one name."""
        word = word.strip()
        plain = word.replace("-", "_").lower()
        plain = ALIASES.get(plain, plain)
        if plain in WORDS:
            self.properties.setdefault(name, set()).update(WORDS[plain])
        elif shape := _declared_shape(word):
            self.shapes[name] = shape
        elif plain:
            raise PxUsageError(
                f"`{word}` is no property of a matrix.{nearest(plain, [*WORDS, *ALIASES])}\n"
                f"Known: {', '.join(WORDS)}, and a shape such as `k x n`."
            )

    def has(self, name: str, word: str) -> bool:
        return word in self.properties.get(name, ())


def _declared_shape(word: str) -> tuple[str, str] | None:
    for mark in ("×", " x ", "*", ","):
        parts = [part.strip() for part in word.strip("()").split(mark)]
        if len(parts) == 2 and all(part.isidentifier() or part.isdigit() for part in parts):
            return parts[0], parts[1]
    return None


def read_assumptions(given: Any) -> Assumptions:
    """Read assumptions from a string, a mapping, or SymPy's `Q.positive_definite(X)` and conjunctions of them.

    Parameters
    ----------
    given
        ``"names: words; names: words"``, or any of these; docs/formulas.md has the words.

    Returns
    -------
    Assumptions
        What each name is said to be.

    Raises
    ------
    PxUsageError
        When a word is not known, or the text has not the form `names: words`.

    Examples
    --------
    >>> sorted(read_assumptions("A, B: diagonal").properties["B"])
    ['diagonal', 'symmetric']
    """
    result = Assumptions()
    if given is None or given is False:
        return result
    if isinstance(given, Assumptions):
        return given
    if isinstance(given, str):
        for clause in given.replace("\n", ";").split(";"):
            if clause.strip():
                _read_clause(result, clause)
    elif isinstance(given, Mapping):
        for name, words in given.items():
            for word in words.split(",") if isinstance(words, str) else words:
                result.add(str(name), word)
    elif isinstance(given, Iterable) and not hasattr(given, "func"):
        for item in given:
            other = read_assumptions(item)
            for name, found in other.properties.items():
                result.properties.setdefault(name, set()).update(found)
            result.shapes.update(other.shapes)
    else:
        _read_sympy(result, given)
    return result


def _read_clause(result: Assumptions, clause: str) -> None:
    names, colon, words = clause.partition(":")
    if not colon:
        call, paren, rest = clause.strip().partition("(")
        if not paren or not rest.endswith(")"):
            raise PxUsageError(
                f"`{clause.strip()}` is no assumption. Write names, a colon, and what is known of them:\n"
                '    --assume "Sigma, R: positive_definite; H: full_row_rank"'
            )
        names, words = rest[:-1], call
    for name in names.split(","):
        if not name.strip().isidentifier():
            raise PxUsageError(f"`{name.strip()}` in the assumptions is no name.")
        for word in _words(words):
            result.add(name.strip(), word)


def _words(text: str) -> list[str]:
    """Split at commas outside parentheses; blanks part known words (`positive scalar`)."""
    parts, depth, current = [], 0, ""
    for char in text:
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += char
    words = []
    for part in [*parts, current]:
        pieces = part.split()
        known = all(ALIASES.get(p.lower(), p.lower()) in WORDS for p in pieces)
        words.extend(pieces if known else [part])
    return words


def _read_sympy(result: Assumptions, given: Any) -> None:
    kind = type(given).__name__
    if kind == "And":
        for part in given.args:
            _read_sympy(result, part)
    elif kind == "AppliedPredicate":
        result.add(str(given.arguments[0]), str(given.function.name))
    else:
        raise PxUsageError(f"`{given}` is no assumption; use a string, a mapping or `sympy.Q.…(X)`.")
