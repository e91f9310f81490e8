"""The language of `--where`: a condition over a store's columns, as text and as a tree.

label = 'cat' and (width > 500 or format in ('PNG', 'TIFF')) and not uri like '%/drafts/%'

SQL's words and its logic of three values: a comparison with null is neither true nor false, and
only rows for which the whole condition is true match.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lookalike.errors import RequestError

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
  | (?P<text>'(?:[^']|'')*')
  | (?P<quoted>"(?:[^"]|"")+")
  | (?P<word>[^\W\d]\w*)
  | (?P<symbol><=|>=|<>|!=|[=<>(),])
  | (?P<wrong>\S)
)""",
    re.VERBOSE,
)
_OPERATORS = {"=": "=", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_KEYWORDS = frozenset({"and", "or", "not", "in", "is", "null", "like", "true", "false"})
_DEEPEST = 100  # parentheses and nots inside one another

Value = str | int | float | bool


@dataclass(frozen=True)
class Column:
    """A column by name."""

    name: str


@dataclass(frozen=True)
class Literal:
    """A text, number, true or false."""

    value: Value


Operand = Column | Literal


@dataclass(frozen=True)
class Comparison:
    """`left operator right`, the operator one of = != < <= > >=; one side at least is a column."""

    left: Operand
    operator: str
    right: Operand


@dataclass(frozen=True)
class In:
    """Whether the column has one of the values."""

    column: Column
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Like:
    """Whether a text column matches a pattern: % any text, _ any character, backslash quotes."""

    column: Column
    pattern: str


@dataclass(frozen=True)
class IsNull:
    """Whether the column has nothing in a row."""

    column: Column


@dataclass(frozen=True)
class Not:
    """The opposite; of null, null."""

    condition: Condition


@dataclass(frozen=True)
class Both:
    """All parts are true."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Either:
    """A part is true."""

    parts: tuple[Condition, ...]


Condition = Comparison | In | Like | IsNull | Not | Both | Either


def parse(text: str) -> Condition:
    """The tree of a condition.

    Raises:
        RequestError: It cannot be understood; the message says where.
    """
    return _Parser(text).whole()


def columns_of(condition: Condition) -> frozenset[str]:
    """The names of all columns in a condition."""
    return frozenset(_columns(condition))


def _columns(condition: Condition) -> Iterator[str]:
    match condition:
        case Comparison(left, _, right):
            yield from (side.name for side in (left, right) if isinstance(side, Column))
        case In(column) | Like(column) | IsNull(column):
            yield column.name
        case Not(inner):
            yield from _columns(inner)
        case Both(parts) | Either(parts):
            for part in parts:
                yield from _columns(part)


@dataclass(frozen=True)
class _Token:
    kind: str  # number, text, name, word, symbol or end
    text: str
    position: int  # of its first character, from 1


def _tokens(text: str) -> list[_Token]:
    tokens, end = [], len(text.rstrip())
    position = 0
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:  # any character is some token
            raise RuntimeError(f"{text!r}: no token at character {position + 1}")
        kind, found, position = match.lastgroup, match[match.lastgroup], match.end()
        start = position - len(found) + 1
        if kind == "wrong":
            if found in "'\"":
                raise _error(text, start, f"the {found} has no end; a {found} inside is doubled")
            raise _error(text, start, f"{found!r} means nothing here")
        if kind == "quoted":
            kind, found = "name", found[1:-1].replace('""', '"')
        elif kind == "text":
            found = found[1:-1].replace("''", "'")
        elif kind == "word" and found.lower() not in _KEYWORDS:
            kind = "name"
        tokens.append(_Token(kind, found, start))
    return [*tokens, _Token("end", "", end + 1)]


def _error(text: str, position: int, problem: str) -> RequestError:
    return RequestError(f"where {text!r}, at character {position}: {problem}")


class _Parser:
    """Recursive descent: or, and, not, then one predicate or a parenthesis."""

    def __init__(self, text: str) -> None:
        self._text, self._tokens, self._at, self._depth = text, _tokens(text), 0, 0

    def whole(self) -> Condition:
        if self._next.kind == "end":
            raise RequestError("where is empty; give a condition, such as: width > 500")
        condition = self._either()
        if self._next.kind != "end":
            raise self._unexpected("and, or, or the end")
        return condition

    def _either(self) -> Condition:
        parts = [self._both()]
        while self._take("or"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _both(self) -> Condition:
        parts = [self._negation()]
        while self._take("and"):
            parts.append(self._negation())
        return parts[0] if len(parts) == 1 else Both(tuple(parts))

    def _negation(self) -> Condition:
        position = self._next.position
        if not (negated := self._take("not")) and not self._take("("):
            return self._predicate()
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _error(self._text, position, f"more than {_DEEPEST} levels deep")
        if negated:
            condition: Condition = Not(self._negation())
        else:
            condition = self._either()
            self._need(")")
        self._depth -= 1
        return condition

    def _predicate(self) -> Condition:
        position = self._next.position
        left = self._operand()
        token = self._next
        if token.kind == "symbol" and token.text in _OPERATORS:
            self._at += 1
            right = self._operand()
            if not (isinstance(left, Column) or isinstance(right, Column)):
                raise _error(self._text, position, "a comparison needs a column on one side")
            return Comparison(left, _OPERATORS[token.text], right)
        if not isinstance(left, Column):
            raise self._unexpected("an operator")
        if self._take("is"):
            negated = self._take("not")
            self._need("null")
            return Not(IsNull(left)) if negated else IsNull(left)
        negated = self._take("not")
        if self._take("in"):
            found: Condition = In(left, self._values())
        elif self._take("like"):
            if self._next.kind != "text":
                raise self._unexpected("a pattern in single quotes")
            self._at += 1
            found = Like(left, self._tokens[self._at - 1].text)
        elif negated:
            raise self._unexpected("in or like")
        else:
            return Comparison(left, "=", Literal(True))  # a column of true and false by itself
        return Not(found) if negated else found

    def _operand(self) -> Operand:
        if self._next.kind == "name":
            self._at += 1
            return Column(self._tokens[self._at - 1].text)
        return Literal(self._value("a column or a value"))

    def _values(self) -> tuple[Value, ...]:
        self._need("(")
        values = [self._value("a value")]
        while self._take(","):
            values.append(self._value("a value"))
        self._need(")")
        return tuple(values)

    def _value(self, wanted: str) -> Value:
        token = self._next
        word = token.text.lower()
        if token.kind == "word" and word == "null":
            raise _error(
                self._text, token.position, "nothing equals null; ask: is null, or is not null"
            )
        if token.kind not in ("number", "text") and word not in ("true", "false"):
            raise self._unexpected(wanted)
        self._at += 1
        if token.kind == "text":
            return token.text
        if token.kind == "word":
            return word == "true"
        return int(token.text) if token.text.lstrip("+-").isdigit() else float(token.text)

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self, text: str) -> bool:
        token = self._next
        taken = token.kind in ("word", "symbol") and token.text.lower() == text
        self._at += taken
        return taken

    def _need(self, text: str) -> None:
        if not self._take(text):
            raise self._unexpected(text)

    def _unexpected(self, wanted: str) -> RequestError:
        token = self._next
        found = "the end" if token.kind == "end" else repr(token.text)
        return _error(self._text, token.position, f"expected {wanted}, found {found}")
