"""Parameters on the wire: words in network order, everything padded to a multiple of four (rpc2.md §14).

Padding is zero when we send and ignored when we receive: the reference leaves it uninitialised.
"""

from __future__ import annotations

import struct

from realmfs.rpc2.errors import BadPacket

_U32 = struct.Struct(">I")
_I32 = struct.Struct(">i")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


class Packer:
    """Collects the parameters of one body. Values out of range raise struct.error: the caller's mistake."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def u32(self, value: int) -> None:
        """Append an unsigned word."""
        self._parts.append(_U32.pack(value))

    def i32(self, value: int) -> None:
        """Append a signed word."""
        self._parts.append(_I32.pack(value))

    def byte(self, value: int) -> None:
        """Append a byte, which fills a word of its own and comes first in it."""
        self._parts.append(bytes((value, 0, 0, 0)))

    def raw(self, data: bytes) -> None:
        """Append bytes whose number both sides know."""
        self._parts.append(data)
        self._parts.append(_PADDING[len(data) & 3])

    def string(self, text: bytes) -> None:
        """Append an RPC2_String: length without the NUL, text, NUL."""
        self.u32(len(text))
        self.raw(text + b"\0")

    def counted(self, data: bytes) -> None:
        """Append an RPC2_CountedBS."""
        self.u32(len(data))
        self.raw(data)

    def bounded(self, data: bytes, maximum: int | None = None) -> None:
        """Append an RPC2_BoundedBS whose buffer holds `maximum` bytes; by default just the data."""
        self.u32(len(data) if maximum is None else maximum)
        self.counted(data)

    def done(self) -> bytes:
        """Return all that was appended."""
        return b"".join(self._parts)


class Unpacker:
    """Reads the parameters of one body in order. Raises BadPacket and nothing else."""

    __slots__ = ("_data", "_offset")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    def u32(self) -> int:
        """Read an unsigned word."""
        return int.from_bytes(self._take(4), "big")

    def i32(self) -> int:
        """Read a signed word."""
        return int.from_bytes(self._take(4), "big", signed=True)

    def byte(self) -> int:
        """Read a byte and the rest of its word."""
        return self._take(4)[0]

    def raw(self, size: int) -> bytes:
        """Read `size` bytes and their padding."""
        data = self._take(size)
        self._take(-size & 3)
        return data

    def string(self) -> bytes:
        """Read an RPC2_String; the NUL must be there and is not returned."""
        size = self.u32()
        text = self.raw(size + 1)
        if text[-1]:
            raise BadPacket("a string without its NUL")
        return text[:-1]

    def counted(self, limit: int) -> bytes:
        """Read an RPC2_CountedBS of at most `limit` bytes."""
        size = self.u32()
        if size > limit:
            raise BadPacket(f"{size} bytes where {limit} may come")
        return self.raw(size)

    def bounded(self, limit: int) -> bytes:
        """Read an RPC2_BoundedBS of at most `limit` bytes; what its sender's buffer could hold is ignored."""
        self.u32()
        return self.counted(limit)

    @property
    def rest(self) -> bytes:
        """The bytes not yet read."""
        return self._data[self._offset :]

    @property
    def at_end(self) -> bool:
        """Whether everything has been read."""
        return self._offset == len(self._data)

    def finish(self) -> None:
        """Insist that everything has been read."""
        if self._offset != len(self._data):
            raise BadPacket(f"{len(self._data) - self._offset} bytes too many")

    def _take(self, size: int) -> bytes:
        end = self._offset + size
        if end > len(self._data):
            raise BadPacket(f"{len(self._data)} bytes end before byte {end}")
        data = self._data[self._offset : end]
        self._offset = end
        return data
