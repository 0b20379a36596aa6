"""Repair files as people read and write them (conflicts.md §5.2).

    replica s1.rig.test 1000001
        createf  report 7f000000 a2 3f
        mv       plan plan.s2 7f000000 1 1 1 1
        removed  old
        setacl   alice rlidwk

One command a line; blanks separate, empty lines are ignored. Numbers are hexadecimal, an owner's id
decimal, a mode octal. In names a byte may be `%xx` and a blank `+`; blanks, `%` and `+` must be, and names
may stand in double quotes. A replica is given by its server's name and its own volume id, of which the id
counts.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from realmfs.vice.acl import parse_rights, rights_text
from realmfs.vice.repair import RepairCommand, RepairOp, ReplicaRepair

_WORDS: Final = {
    "createf": RepairOp.CREATE_FILE,
    "created": RepairOp.CREATE_DIRECTORY,
    "creates": RepairOp.CREATE_SYMLINK,
    "createl": RepairOp.CREATE_LINK,
    "removefsl": RepairOp.REMOVE,
    "removed": RepairOp.REMOVE_DIRECTORY,
    "mv": RepairOp.MOVE,
    "setacl": RepairOp.SET_ACL,
    "setnacl": RepairOp.SET_NEGATIVE_ACL,
    "setmode": RepairOp.SET_MODE,
    "setowner": RepairOp.SET_OWNER,
    "setmtime": RepairOp.SET_MTIME,
}
_NAMES: Final = {op: word for word, op in _WORDS.items()}
_CREATIONS: Final = frozenset(
    {RepairOp.CREATE_FILE, RepairOp.CREATE_DIRECTORY, RepairOp.CREATE_SYMLINK, RepairOp.CREATE_LINK}
)
_REMOVALS: Final = frozenset({RepairOp.REMOVE, RepairOp.REMOVE_DIRECTORY})
_RIGHTS: Final = frozenset({RepairOp.SET_ACL, RepairOp.SET_NEGATIVE_ACL})
_BASE: Final = {RepairOp.SET_MODE: 8, RepairOp.SET_OWNER: 10, RepairOp.SET_MTIME: 16}
_FORMAT: Final[Mapping[int, Callable[[int], str]]] = {8: "{:o}".format, 10: "{:d}".format, 16: "{:x}".format}


class FixFileError(ValueError):
    """A line that is no command; the text says which, and why."""


def format_fix_file(replicas: Iterable[ReplicaRepair], servers: Mapping[int, str]) -> str:
    """Return a repair file as text; `servers` names the server of each replica's volume id."""
    lines = []
    for section in replicas:
        lines.append(f"replica {servers.get(section.volume, 'unknown')} {section.volume:x}")
        lines += [f"    {_line(command)}" for command in section.commands]
    return "".join(f"{line}\n" for line in lines)


def _line(command: RepairCommand) -> str:
    op, numbers = command.op, command.parameters
    words = [f"{_NAMES[op]:<9}"]
    if op in _BASE:
        words.append(_FORMAT[_BASE[op]](numbers[0]))
    elif op in _RIGHTS:
        words += [_quoted(command.name), rights_text(numbers[0]) if numbers[0] else "0"]
    elif op is RepairOp.MOVE:
        words += [_quoted(command.name), _quoted(command.new_name), *(f"{number:x}" for number in numbers)]
    else:
        words.append(_quoted(command.name))
        if op in _CREATIONS:
            words += [f"{number:x}" for number in numbers[:3]]
    return " ".join(words)


def parse_fix_file(text: str) -> list[ReplicaRepair]:
    """Read the text of a repair file. Raises FixFileError."""
    found: list[tuple[int, list[RepairCommand]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            words = shlex.split(line, posix=True)
            if not words:
                continue
            if words[0] == "replica":
                _, _, volume = words
                found.append((int(volume, 16), []))
            elif not found:
                raise ValueError("a command before the first `replica`")
            else:
                found[-1][1].append(_command(words))
        except ValueError as error:
            raise FixFileError(f"line {number}, {line.strip()!r}: {error}") from None
    return [ReplicaRepair(volume, tuple(commands)) for volume, commands in found]


def _command(words: list[str]) -> RepairCommand:
    op = _WORDS.get(words[0])
    if op is None:
        raise ValueError(f"there is no command {words[0]!r}")
    if op in _BASE:
        _, value = words
        return RepairCommand(op, parameters=(_number(value, _BASE[op]), 0, 0, 0, 0))
    if op in _RIGHTS:
        _, name, rights = words
        mask = 0 if rights == "0" else int(parse_rights(rights))
        return RepairCommand(op, _bytes(name), parameters=(mask, 0, 0, 0, 0))
    if op is RepairOp.MOVE:
        _, old, new, *fids = words
        numbers = tuple(_number(word, 16) for word in fids)
        if len(numbers) != 5:
            raise ValueError("mv takes two names and five numbers")
        return RepairCommand(op, _bytes(old), _bytes(new), numbers)
    if op in _REMOVALS:
        _, name = words
        return RepairCommand(op, _bytes(name))
    _, name, *fid = words
    if len(fid) != 3:
        raise ValueError("a creation takes a name and the three numbers of a fid")
    volume, vnode, unique = (_number(word, 16) for word in fid)
    return RepairCommand(op, _bytes(name), parameters=(volume, vnode, unique, 0, 0))


def _number(word: str, base: int) -> int:
    if not re.fullmatch(r"[0-9a-fA-F]{1,11}", word) or (value := int(word, base)) > 0xFFFFFFFF:
        raise ValueError(f"{word!r} is no number")
    return value


def _quoted(name: bytes) -> str:
    return quote_from_bytes(name, safe="!#$&()*,-./:;<=>?@[]^_{|}~").replace("%20", "+")


def _bytes(word: str) -> bytes:
    name = unquote_to_bytes(word.replace("+", " ").encode("utf-8", "surrogateescape"))
    if not name or b"\0" in name or b"/" in name or b"\n" in name:
        raise ValueError(f"{word!r} is no name")
    return name
