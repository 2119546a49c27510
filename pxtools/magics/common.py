"""What every magic shares: reading its line, and where names live."""

from __future__ import annotations

import argparse
import ast
import io
import itertools
import keyword
import tokenize
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics
from IPython.core.magic_arguments import argument

from pxtools.engines.waiting import within
from pxtools.errors import PxUsageError, error_name, nearest
from pxtools.names import parse_rename
from pxtools.session.core import Session
from pxtools.session.failures import show_short
from pxtools.session.handle import Handle

#: help of options that many magics have
TARGETS = "Engines: 0, 0,2, ::2, all, or the name of a view (default: PxTools.targets, all)."
HOW_HELP = "Combine what comes back: list, concat, stack, dict, first or same (default: a PerEngine value)."

#: keywords that go on with the expression before them
_CONTINUES = frozenset({"if", "else", "for", "in", "and", "or", "is", "not", "async"})
#: characters of a line that name its work
_TITLE = 60


def waits(magic: Any) -> Any:
    """Give a magic the options that `PxMagics.carry_out` serves: ``--timeout`` and ``--noblock``."""
    for option in (
        argument("--noblock", action="store_true", help="Return a handle: .done, .progress, .result(), .cancel()."),
        argument("--timeout", type=float, help="Interrupt the engines after so many seconds (default: never)."),
    ):
        magic = option(magic)
    return magic


class PxMagics(Magics):
    """A magic with a session."""

    shell: Any

    def __init__(self, shell: Any, session: Session) -> None:
        super().__init__(shell=shell)
        self.session = session

    def names(self, local_ns: Mapping[str, Any] | None) -> ChainMap[str, Any]:
        """Return the names that the line sees: the calling function's locals before the notebook's."""
        return ChainMap(dict(self.locals_only(local_ns)), self.session.namespace)

    def carry_out(
        self, args: argparse.Namespace, work: Callable[[], Any], take: Callable[[Any], Any] = lambda value: value
    ) -> Any:
        """Do what a magic was asked for, within `--timeout`; with `--noblock` in the background.

        Parameters
        ----------
        work
            Sends, waits, and returns a value. It shows nothing.
        take
            Shows the value, and returns what the magic returns; in the background at the first `result()`.

        Returns
        -------
        What `take` returns, or a `Handle`.
        """

        def limited() -> Any:
            with within(args.timeout):
                return work()

        if not args.noblock:
            return take(limited())
        _ = self.session.wire  # found or started now, with its words on the screen
        return Handle(args.magic, limited, take)

    def locals_only(self, local_ns: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Return the calling function's locals; nothing at the top level of the notebook."""
        return {} if local_ns is None or local_ns is self.session.namespace else local_ns

    def lookup(self, name: str, local_ns: Mapping[str, Any] | None) -> Any:
        """Return the value of a name of the notebook.

        Raises
        ------
        PxUsageError
        """
        names = self.names(local_ns)
        if name not in names:
            raise PxUsageError(f"`{name}` is not in the notebook.{nearest(name, names)}")
        return names[name]


def read_line(magic: Any, line: str, check: Callable[[str], object] | None = None) -> argparse.Namespace:
    """Parse a magic's options; what follows them is left as typed, in `.rest`, if the magic asks for it.

    Options come first, so that expressions with blanks and quotes need no further quoting.

    Parameters
    ----------
    check
        Raises `PxUsageError` for a rest that cannot be read. With it, options may also follow the rest. Short ones
        are looked for only when the rest as a whole cannot be read, for `a -t` may mean a difference.

    Raises
    ------
    PxUsageError
        Naming the nearest option.
    """
    parser = magic.parser
    takes_rest = any(action.nargs == argparse.REMAINDER for action in parser._actions)
    words = split(line)
    try:
        args = parser.parse_args([unquoted(word) for word in words])
    except UsageError as error:
        raise _usage_error(parser, str(error), words) from None
    args.magic = f"%{parser.prog.lstrip('%')} {line.strip()}".strip()[:_TITLE]
    if takes_rest:
        n_options = len(words) - len(args.rest)
        args.rest = _after(line, words[:n_options])
        first = args.rest.split(maxsplit=1)[0] if args.rest else ""
        if first.startswith("--") or (first.startswith("-") and first[1:2].isalpha()):
            raise _usage_error(parser, f"unrecognized arguments: {first}", [first])
        if check is not None and args.rest:
            return _with_options_behind(parser, words[:n_options], args, check)
    return args


def _with_options_behind(
    parser: Any, before: list[str], args: argparse.Namespace, check: Callable[[str], object]
) -> argparse.Namespace:
    for start in _option_starts(args.rest, check):
        rest, words = args.rest[:start], [unquoted(word) for word in split(args.rest[start:])]
        try:
            again = parser.parse_args([*before, *words])
        except UsageError as error:
            raise _usage_error(parser, str(error), words) from None
        if again.rest:
            raise _usage_error(parser, f"unrecognized arguments: {again.rest[0]}", again.rest)
        check(rest)
        again.rest, again.magic = rest.strip(), args.magic
        return again
    check(args.rest)
    return args


def _option_starts(rest: str, check: Callable[[str], object]) -> Iterator[int]:
    """Yield where options may begin: at ` --word` always, at ` -x` only if it cannot be read otherwise."""
    position = 0
    for word in split(rest):
        position = rest.index(word, position)
        is_long = word.startswith("--") and word[2:3].isalpha()
        is_short = word.startswith("-") and word[1:].isalpha()
        is_short = is_short and not _is_readable(rest, check) and _is_readable(rest[:position], check)
        if position and (is_long or is_short):
            yield position
        position += len(word)


def _is_readable(text: str, check: Callable[[str], object]) -> bool:
    try:
        check(text)
        return True
    except PxUsageError:
        return False


def split(line: str) -> list[str]:
    """Cut at blanks that are outside of quotes and brackets: ``--initial np.ones((3, 2)) f`` is three words."""
    words: list[str] = []
    current, quote, depth = "", "", 0
    for character in line:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character.isspace() and depth <= 0:
            words += [current] if current else []
            current = ""
            continue
        else:
            depth += (character in "([{") - (character in ")]}")
        current += character
    return [*words, current] if current else words


def unquoted(word: str) -> str:
    """Return a word without the quotes around it, if they are around all of it."""
    is_quoted = len(word) >= 2 and word[0] == word[-1] and word[0] in "'\"" and word.count(word[0]) == 2
    return word[1:-1] if is_quoted else word


def _after(line: str, words: list[str]) -> str:
    position = 0
    for word in words:
        position = line.index(word, position) + len(word)
    return line[position:].strip()


def _usage_error(parser: Any, message: str, words: list[str]) -> PxUsageError:
    options = sorted(option for action in parser._actions for option in action.option_strings)
    magic = f"%{parser.prog.lstrip('%')}"
    unknown = next((w for w in words if w.startswith("-") and w.split("=")[0] not in options), "")
    if unknown and ("unrecognized" in message or "required" in message):
        hint = nearest(unknown, [option for option in options if option.startswith("--")])
        return PxUsageError(f"{magic} has no option `{unknown}`.{hint}\n`{magic}?` lists its options.")
    return PxUsageError(f"{magic}: {message}.{_meant(parser, message, words)}\n`{magic}?` shows its options.")


def _meant(parser: Any, message: str, words: list[str]) -> str:
    """Return what was probably meant by words too many: `start 4`, or a value that lacks its quotes."""
    left = message.partition("unrecognized arguments: ")[2].split()
    takes_value = {o for action in parser._actions if action.nargs is None for o in action.option_strings}
    if left and left[0].isdigit() and "-n" in takes_value:
        return f" Did you mean `-n {left[0]}`?"
    before = words[: words.index(left[0])] if left and left[0] in words else []
    if len(before) > 1 and before[-2] in takes_value:
        return f'\nA value with blanks stands in quotes: `{before[-2]} "{" ".join([before[-1], *left])}"`.'
    return ""


def renames(specs: list[str] | None) -> dict[str, str]:
    """Return dest to source for `-i a,b`, `-i r=py`, given any number of times."""
    pairs = {}
    for spec in specs or []:
        for piece in spec.split(","):
            if piece.strip():
                try:
                    dest, source = parse_rename(piece.strip())
                except ValueError as error:
                    raise PxUsageError(str(error)) from None
                pairs[dest] = source
    return pairs


def names_and_values(text: str) -> tuple[list[str], dict[str, ast.expr]]:
    """Read ``a b x=f(1, 2)``: names, and assignments whose right sides are expressions.

    Raises
    ------
    PxUsageError
        A piece is neither.
    """
    names: list[str] = []
    values: dict[str, ast.expr] = {}
    for piece in _pieces(text):
        name, is_assignment, right = piece.partition("=")
        if piece.isidentifier():
            names.append(piece)
        elif is_assignment and name.strip().isidentifier():
            values[name.strip()] = expression(right)
        else:
            raise PxUsageError(f"`{piece}` is neither a name nor `name=expression`. Write them like this: `a b x=1+2`.")
    return names, values


def _pieces(text: str) -> list[str]:
    """Cut before every name that can only begin something new: one that follows a whole operand."""
    starts: list[int] = []
    depth, follows_operand = 0, False
    for token in _tokens(text):
        is_name = token.type == tokenize.NAME and not keyword.iskeyword(token.string)
        if depth == 0 and is_name and (follows_operand or not starts):
            starts.append(token.start[1])
        elif depth == 0 and token.string == ",":
            follows_operand = True
            continue
        depth += (token.string in "([{") - (token.string in ")]}") if token.type == tokenize.OP else 0
        is_value = token.type in (tokenize.NUMBER, tokenize.STRING) or token.string in ("None", "True", "False")
        follows_operand = is_name or is_value or (token.type == tokenize.OP and token.string in ")]}")
    if not starts:
        return [text.strip()] if text.strip() else []
    bounds = [0, *starts[1:], len(text)]
    return [text[a:b].strip().rstrip(",").strip() for a, b in itertools.pairwise(bounds)]


def _tokens(text: str) -> list[tokenize.TokenInfo]:
    skipped = (tokenize.NEWLINE, tokenize.NL, tokenize.ENDMARKER, tokenize.COMMENT)
    try:
        return [t for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type not in skipped]
    except (tokenize.TokenError, IndentationError) as error:
        raise PxUsageError(f"`{text}` is not whole: {error.args[0]}.") from None


def expression(text: str) -> ast.expr:
    """Read one expression.

    Raises
    ------
    PxUsageError
    """
    try:
        return ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise PxUsageError(f"`{text.strip()}` is no expression: {error.msg}.") from None


def evaluate(node: ast.expr, names: ChainMap[str, Any]) -> Any:
    """Evaluate an expression of a magic line as the notebook, or the function that called the magic, would.

    Functions made in it have the notebook as their globals: they see later values of its names.

    Raises
    ------
    Exception
        Whatever the expression raises, shown in two lines.
    """
    local = names.maps[0]
    namespace: Any = names.maps[-1]  # the dictionary itself
    used = sorted({part.id for part in ast.walk(node) if isinstance(part, ast.Name)} & local.keys())
    arguments = ast.arguments([], [ast.arg(name) for name in used], kwonlyargs=[], kw_defaults=[], defaults=[])
    whole = ast.fix_missing_locations(ast.Expression(ast.Lambda(arguments, node)))
    try:
        return eval(compile(whole, "<pxtools>", "eval"), namespace)(*(local[name] for name in used))
    except Exception as error:
        show_short(error, [f"{error_name(error)}: {error}", f"in the line's `{ast.unparse(node)}`; nothing was sent"])
        raise


def expressions(text: str) -> list[ast.expr]:
    """Read expressions that stand one after another: ``f range(10) [1, 2]``.

    A new one begins where a blank stands between two operands; so `f (1, 2)` is two, and `f(1, 2)` one.

    Raises
    ------
    PxUsageError
        A piece is no expression, or it looks like an option: ``-o``.
    """
    starts, depth, is_complete, end = [0], 0, False, 0
    for token in _tokens(text):
        position, string = token.start[1], token.string
        if depth == 0 and is_complete and position > end:
            if string == "-" and not text[position + 1 : position + 2].isspace():
                raise PxUsageError(f"`{text[position:].split(maxsplit=1)[0]}` is no option here.")
            is_word = token.type == tokenize.NAME and string not in _CONTINUES
            if is_word or token.type in (tokenize.NUMBER, tokenize.STRING) or string in "([{":
                starts.append(position)
        depth += (string in "([{") - (string in ")]}") if token.type == tokenize.OP else 0
        is_value = token.type in (tokenize.NUMBER, tokenize.STRING) or string in ("None", "True", "False")
        is_name = token.type == tokenize.NAME and not keyword.iskeyword(string)
        is_complete = is_name or is_value or (token.type == tokenize.OP and string in ")]}")
        end = token.end[1]
    pieces = [text[a:b].strip() for a, b in itertools.pairwise([*starts, len(text)])]
    return [expression(piece) for piece in pieces if piece]
