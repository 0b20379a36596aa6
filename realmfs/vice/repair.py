"""Repair files: what a ViceRepair of a directory sends, edits per replica that make all of them equal.

All words are big-endian (conflicts.md §5.3). First the number of replicas, then for each its volume id and
how many commands it gets, then all the commands: opcode, name and LF, second name and LF, five parameters.
Nothing is padded.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from realmfs.rpc2.errors import BadPacket
from realmfs.vice.types import Fid

MAX_NAME: Final = 253
MAX_REPLICAS: Final = 9
"""Eight servers, and a section that the client keeps for itself."""

_WORD = struct.Struct(">I")
_SECTION = struct.Struct(">2I")
_PARAMETERS = struct.Struct(">5I")
_SMALLEST: Final = _WORD.size + 2 + _PARAMETERS.size


class RepairOp(enum.IntEnum):
    """What a command does."""

    CREATE_FILE = 174321
    CREATE_DIRECTORY = 174322
    CREATE_SYMLINK = 174323
    CREATE_LINK = 174324
    REMOVE = 174325
    """Of a file or symlink."""
    REMOVE_DIRECTORY = 174326
    """Recursively."""
    SET_ACL = 174327
    SET_NEGATIVE_ACL = 174328
    SET_MODE = 174329
    SET_OWNER = 174330
    SET_MTIME = 174331
    MOVE = 174333


@dataclass(frozen=True, slots=True)
class RepairCommand:
    """One edit of one replica."""

    op: RepairOp
    name: bytes = b""
    """What is created, removed or moved; or whose rights are set."""
    new_name: bytes = b""
    """Of MOVE only."""
    parameters: tuple[int, ...] = (0, 0, 0, 0, 0)
    """The fid of what is created; a mask of rights; a value; for MOVE the volume and both directories' vnode
    and unique."""

    @property
    def fid(self) -> Fid:
        """The fid of what is created."""
        return Fid(*self.parameters[:3])


@dataclass(frozen=True, slots=True)
class ReplicaRepair:
    """All edits of one replica, in order."""

    volume: int
    commands: tuple[RepairCommand, ...] = ()


def pack_repair(replicas: Iterable[ReplicaRepair]) -> bytes:
    """Return the repair file. Raises ValueError for a name that can not be in one."""
    sections = list(replicas)
    parts = [_WORD.pack(len(sections))]
    parts += [_SECTION.pack(section.volume, len(section.commands)) for section in sections]
    for section in sections:
        for command in section.commands:
            for name in (command.name, command.new_name):
                if len(name) > MAX_NAME or b"\n" in name:
                    raise ValueError(f"{name!r} can not be named in a repair file")
            parts += [_WORD.pack(command.op), command.name, b"\n", command.new_name, b"\n"]
            parts.append(_PARAMETERS.pack(*command.parameters))
    return b"".join(parts)


def unpack_repair(data: bytes) -> list[ReplicaRepair]:
    """Read a repair file. Raises BadPacket."""
    reader = _Reader(data)
    count = reader.take(_WORD)[0]
    if count > MAX_REPLICAS:
        raise BadPacket(f"a repair file for {count} replicas")
    heads = [reader.take(_SECTION) for _ in range(count)]
    if sum(commands for _, commands in heads) * _SMALLEST > len(data):
        raise BadPacket("a repair file that promises more commands than it has room for")
    sections = [
        ReplicaRepair(volume, tuple(reader.command() for _ in range(commands))) for volume, commands in heads
    ]
    if reader.offset != len(data):
        raise BadPacket("a repair file with something behind its last command")
    return sections


class _Reader:
    """A place in a repair file."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.offset = 0

    def take(self, layout: struct.Struct) -> tuple[int, ...]:
        end = self.offset + layout.size
        if end > len(self.data):
            raise BadPacket("a repair file that is cut short")
        words = layout.unpack_from(self.data, self.offset)
        self.offset = end
        return words

    def name(self) -> bytes:
        end = self.data.find(b"\n", self.offset, self.offset + MAX_NAME + 1)
        if end < 0:
            raise BadPacket("a name without end in a repair file")
        name = self.data[self.offset : end]
        self.offset = end + 1
        return name

    def command(self) -> RepairCommand:
        number = self.take(_WORD)[0]
        op = _OPS.get(number)
        if op is None:
            raise BadPacket(f"a repair file with the unknown command {number}")
        return RepairCommand(op, self.name(), self.name(), self.take(_PARAMETERS))


_OPS: Final = {op.value: op for op in RepairOp}
