"""Tab completion in the lines of pxtools' magics: options, choices, names here and on the engines."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from typing import Any

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher
from IPython.core.completerlib import module_completion

from pxtools.expr.compiled import FORMS as EXPR_FORMS
from pxtools.kalman.forms import FORMS as KALMAN_FORMS
from pxtools.magics.common import split
from pxtools.magics.pxcluster import VERBS
from pxtools.results import HOW
from pxtools.sampling.samplers import SAMPLERS
from pxtools.session.core import Session
from pxtools.session.state import names_there

#: what IPython knows the matcher by
IDENTIFIER = "pxtools"

_LINE = re.compile(r"(?P<before>.*?)(?P<percent>%%?)(?P<magic>px\w+)\s(?P<line>.*)", re.DOTALL)

#: what an option takes when its parser does not say: by its long name, or by magic and long name
_CHOICES: dict[str, Callable[[], Iterable[str]]] = {
    "--how": lambda: HOW,
    "--engines": lambda: (entry.name for entry in entry_points(group="ipyparallel.engine_launchers")),
    "--sampler": lambda: SAMPLERS,
    "pxkalman --form": lambda: ("auto", *KALMAN_FORMS),
    "pxexpr --form": lambda: EXPR_FORMS,
    "pxexpr --dtype": lambda: ("float64", "float32"),
    "pxoctave --format": lambda: ("png", "svg", "jpg"),
}

#: options that take names of the notebook, or of engines, separated by commas
_HERE = frozenset({"--input", "--initial", "--step", "--bounds", "--names", "--scale", "--check", "--assume"})
_THERE = frozenset({"--output"})


def matcher(shell: Any, session: Session) -> Any:
    """Return what IPython's completer calls at each press of the Tab key."""
    completer = Completer(shell, session)

    @context_matcher(identifier=IDENTIFIER)
    def complete(context: CompletionContext) -> SimpleMatcherResult:
        return completer.complete(context)

    return complete


class Completer:
    """Completes after ``%px…`` and ``%%px…``; silent everywhere else.

    Parameters
    ----------
    shell
        The IPython shell whose completer asks.
    session
        Whose engines' names are offered.
    """

    def __init__(self, shell: Any, session: Session) -> None:
        self._shell = shell
        self._session = session

    def complete(self, context: CompletionContext) -> SimpleMatcherResult:
        """Return what may stand at the cursor; nothing where the line is not ours."""
        found = self._line(context)
        if found is None:
            return SimpleMatcherResult(completions=[], suppress=False)
        magic, line = found
        fragment, kind, candidates = self._candidates(magic, line)
        matching = [c for c in candidates if c.startswith(fragment)]
        if not fragment.startswith("_"):
            matching = [c for c in matching if not c.startswith("_")]
        return SimpleMatcherResult(
            completions=[SimpleCompletion(text=c, type=kind) for c in matching],
            suppress=bool(matching),
            matched_fragment=fragment,
        )

    def _line(self, context: CompletionContext) -> tuple[str, str] | None:
        """Return the magic whose line the cursor is in, and that line up to the cursor."""
        match = _LINE.fullmatch(context.text_until_cursor)
        if match is None or self._function(match["magic"]) is None:
            return None
        if match["percent"] == "%%" and (context.cursor_line or match["before"].strip()):
            return None
        return match["magic"], match["line"]

    def _candidates(self, magic: str, line: str) -> tuple[str, str, Iterable[str]]:
        """Return what is being typed, what kind of thing it is, and all that could stand there."""
        words = split(line) if line.strip() else []
        word = words.pop() if words and not line[-1].isspace() else ""
        actions = self._actions(magic)
        if word.startswith("-") and not word[1:2].isdigit():
            option, equals, value = word.partition("=")
            if not equals:
                return word, "param", sorted(o for action in actions for o in action.option_strings)
            words, word = [*words, option], value
        taker = _taker(actions, words[-1]) if words else None
        if taker is not None:
            return self._value_of(magic, taker, word)
        return self._operand(magic, words, word)

    def _function(self, magic: str) -> Any:
        """Return what IPython runs for a magic, line or cell; None for no magic."""
        tables = self._shell.magics_manager.magics
        return tables["line"].get(magic) or tables["cell"].get(magic)

    def _actions(self, magic: str) -> list[argparse.Action]:
        return list(getattr(getattr(self._function(magic), "parser", None), "_actions", ()))

    def _value_of(self, magic: str, action: argparse.Action, word: str) -> tuple[str, str, Iterable[str]]:
        """Complete the value of an option."""
        name = action.option_strings[-1]
        if action.choices is not None:
            return word, "value", map(str, action.choices)
        for key in (f"{magic} {name}", name):
            if key in _CHOICES:
                return word, "value", _CHOICES[key]()
        last = re.split(r"[,=]", word)[-1]
        if name == "--targets":
            return last, "value", self._targets()
        if name in _HERE:
            return last, "instance", self._here()
        if name in _THERE:
            return last, "instance", self._there()
        return word, "path", ()  # IPython's own matchers complete a file's name

    def _operand(self, magic: str, words: list[str], word: str) -> tuple[str, str, Iterable[str]]:
        """Complete what is no option."""
        if magic == "pximport":
            return word, "module", _modules(" ".join([*words, word]))
        if magic == "pxcluster":
            return word, "value", () if any(w in VERBS for w in words) else VERBS
        last = re.split(r"[^\w]", word)[-1]
        if last != word and word[-len(last) - 1 : len(word) - len(last)] == ".":
            return last, "", ()  # an attribute: IPython knows better
        if magic in ("pxcollect", "pxgather", "pxclear", "pxrun"):
            return last, "instance", self._there()
        if magic in ("pxmap", "pxsample") and not _operands(self._actions(magic), words):
            return last, "function", self._functions()
        return last, "instance", self._here()

    # --- names

    def _here(self) -> list[str]:
        hidden = self._shell.user_ns_hidden
        return sorted(n for n, v in self._session.namespace.items() if hidden.get(n, self) is not v)

    def _functions(self) -> list[str]:
        names = self._session.namespace
        return [n for n in self._here() if callable(names[n]) and not isinstance(names[n], type)]

    def _there(self) -> list[str]:
        return names_there(self._session) if self._session.is_connected else []

    def _targets(self) -> list[str]:
        if not self._session.is_connected:
            return ["all"]
        views = [n for n, v in self._session.namespace.items() if type(v).__name__.endswith("View")]
        return ["all", *map(str, self._session.client.ids), *sorted(views)]


def _taker(actions: list[argparse.Action], word: str) -> argparse.Action | None:
    """Return the option that waits for its value after `word`."""
    return next((a for a in actions if word in a.option_strings and a.nargs != 0), None)


def _operands(actions: list[argparse.Action], words: list[str]) -> list[str]:
    """Return the words that are neither options nor their values."""
    found, is_value = [], False
    for word in words:
        if not is_value and not word.startswith("-"):
            found.append(word)
        is_value = not is_value and _taker(actions, word) is not None
    return found


def _modules(text: str) -> list[str]:
    """Complete an import as IPython does; ``numpy.li`` and ``from numpy import li`` included."""
    line = text if text.startswith(("import ", "from ")) else f"import {re.split(r'[ ,]', text)[-1]}"
    return list(module_completion(line) or ())
