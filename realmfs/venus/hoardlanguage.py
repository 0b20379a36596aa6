"""The command language of hoard(1) (client.md §8.2): what people write into profiles and command files.

One command per line, words separated by white space, blank lines ignored. Ours on top of that, none of which
an old file can contain: lines that begin with `#` are comments, as is what follows a complete command; a path
with blanks can be written in double quotes; `modify` changes an entry, as the manual always said.

    add path [attributes]      attributes: fields joined by `:`, in any order: a number 1..1000 (usual: 10),
    modify path [attributes]   c+ d+ (children, descendants: now and later), c d (those that are there now)
    delete path
    clear [uid]        list [file [uid]]        verify [file [verbosity [uid]]]       walk       on       off

A command is its word or its first letter; `on` and `off` only in full. All lines are read before any is
carried out, and they are carried out by kind (`ordered`).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from realmfs.cache.hoard import HIGHEST, USUAL, Expand

_WORD = re.compile(r'"(?:[^"\\]|\\.)*"?|\S+')
_NEEDS_QUOTES = re.compile(r'[\s]|^["#]|^$')


class Kind(Enum):
    """The commands, in the order in which those of one file are carried out."""

    CLEAR = "clear"
    ADD = "add"
    MODIFY = "modify"
    DELETE = "delete"
    LIST = "list"
    WALK = "walk"
    VERIFY = "verify"
    ON = "on"
    OFF = "off"


_NAMES = {kind.value: kind for kind in Kind} | {
    kind.value[0]: kind for kind in Kind if kind not in (Kind.ON, Kind.OFF)
}
_MOST = {Kind.CLEAR: 1, Kind.ADD: 2, Kind.MODIFY: 2, Kind.DELETE: 1, Kind.LIST: 2, Kind.VERIFY: 3}


@dataclass(frozen=True, slots=True)
class Wish:
    """The attributes of an entry. `now`: those that are there are entered one by one, and only they."""

    priority: int = USUAL
    expand: Expand = Expand.NONE
    now: Expand = Expand.NONE

    def __str__(self) -> str:
        marks = {Expand.CHILDREN: "c", Expand.DESCENDANTS: "d"}
        expand = f":{marks[self.expand]}+" if self.expand else ""
        return f"{self.priority}{expand}" + (f":{marks[self.now]}" if self.now else "")


@dataclass(frozen=True, slots=True)
class Command:
    """One command, and where it stands."""

    kind: Kind
    line: int
    column: int
    """Of its path, if it has one: what is wrong with it is known only later."""
    path: str = ""
    """Of an object, or of the file to list into ("": the terminal)."""
    wish: Wish = Wish()
    uid: int | None = None
    verbosity: int = 0


@dataclass(frozen=True, slots=True)
class Mistake:
    """What cannot be read, and where; lines and columns count from 1."""

    file: str
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.text}"


class _WrongError(Exception):
    def __init__(self, offset: int, text: str) -> None:
        super().__init__(text)
        self.offset = offset
        self.text = text


def parse(text: str, file: str) -> tuple[list[Command], list[Mistake]]:
    """Read commands; what cannot be read is reported and left out. Never raises."""
    commands: list[Command] = []
    mistakes: list[Mistake] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = [(match.start(), match[0]) for match in _WORD.finditer(line)]
        if not words or words[0][1].startswith("#"):
            continue
        try:
            commands.append(_command(words, number))
        except _WrongError as wrong:
            mistakes.append(Mistake(file, number, wrong.offset + 1, wrong.text))
    return commands, mistakes


def ordered(commands: Sequence[Command]) -> list[Command]:
    """Return the commands in the order in which they are carried out: by kind."""
    order = list(Kind)
    return sorted(commands, key=lambda command: order.index(command.kind))


def parse_wish(text: str, offset: int = 0) -> Wish:
    """Read the attributes of an entry, `600:d+`. Raises ValueError with what is wrong."""
    try:
        return _wish(offset, text)
    except _WrongError as wrong:
        raise ValueError(wrong.text) from None


def write(path: str, wish: Wish) -> str:
    """Return the line that adds an entry."""
    return f"add {_quoted(path)} {wish}"


def _command(words: Sequence[tuple[int, str]], line: int) -> Command:
    at, name = words[0]
    kind = _NAMES.get(name)
    if kind is None:
        raise _WrongError(at, f"there is no command {name!r}")
    arguments = list(_arguments(words[1:], _MOST.get(kind, 0)))
    if kind in (Kind.ADD, Kind.MODIFY, Kind.DELETE):
        if not arguments:
            raise _WrongError(at + len(name), f"{kind.value} needs a path")
        place, path = arguments[0]
        wish = _wish(*arguments[1]) if len(arguments) > 1 else Wish()
        return Command(kind, line, place + 1, path, wish)
    numbers = [_number(*word) for word in (arguments if kind is Kind.CLEAR else arguments[1:])]
    place, path = arguments[0] if arguments and kind is not Kind.CLEAR else (at, "")
    verbosity = numbers[0] if kind is Kind.VERIFY and numbers else 0
    uids = numbers[1:] if kind is Kind.VERIFY else numbers
    return Command(kind, line, place + 1, path, uid=uids[0] if uids else None, verbosity=verbosity)


def _arguments(words: Sequence[tuple[int, str]], most: int) -> Iterator[tuple[int, str]]:
    """Yield at most `most` words, up to a comment; the first word of a command is never one."""
    for index, (at, word) in enumerate(words):
        if word.startswith("#") and (index or not most):
            return
        if index == most:
            raise _WrongError(at, f"{word!r} is too much")
        yield at, _unquoted(at, word)


def _unquoted(at: int, word: str) -> str:
    if not word.startswith('"'):
        return word
    if len(word) < 2 or not word.endswith('"'):
        raise _WrongError(at, "the quotation is not closed")
    return re.sub(r"\\(.)", r"\1", word[1:-1])


def _quoted(path: str) -> str:
    if not _NEEDS_QUOTES.search(path):
        return path
    return '"' + re.sub(r'(["\\])', r"\\\1", path) + '"'


def _wish(at: int, text: str) -> Wish:
    priority, expand, now = USUAL, Expand.NONE, Expand.NONE
    for field in text.split(":"):
        if field.isascii() and field.isdecimal():
            priority = int(field)
            if not 1 <= priority <= HIGHEST:
                raise _WrongError(at, f"a priority is a number from 1 to {HIGHEST}, not {field}")
        elif field in ("c+", "d+"):
            expand = max(expand, Expand.CHILDREN if field == "c+" else Expand.DESCENDANTS)
        elif field in ("c", "d"):
            now = max(now, Expand.CHILDREN if field == "c" else Expand.DESCENDANTS)
        elif field:
            raise _WrongError(at, f"{field!r} is no attribute: a number from 1 to {HIGHEST}, c, d, c+ or d+")
        at += len(field) + 1
    return Wish(priority, expand, now)


def _number(at: int, word: str) -> int:
    if not (word.isascii() and word.isdecimal() and len(word) <= 10):
        raise _WrongError(at, f"{word!r} is no number")
    return int(word)
