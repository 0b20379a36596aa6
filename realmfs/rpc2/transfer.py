"""Where the bytes of a bulk transfer come from and go to.

Both are called on the trio thread while packets are handled: they must not wait for anything but local disk.
What they raise ends the transfer (SEFAIL4 from a source, SEFAIL3 from a sink) and stays its cause.
"""

from __future__ import annotations

import os
from typing import Protocol

from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.errors import RpcError


class Source(Protocol):
    """A fixed number of bytes to send. May be read more than once, at any offset."""

    @property
    def size(self) -> int:
        """How many bytes there are."""
        ...

    def read(self, offset: int, count: int) -> bytes:
        """Return `count` bytes from `offset`, counted from the start of the source; fewer mean it shrank."""
        ...


class Sink(Protocol):
    """Takes the bytes that arrive, strictly in order."""

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        ...


class BytesSource:
    """Bytes in memory."""

    __slots__ = ("_data", "size")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, offset: int, count: int) -> bytes:
        """Return `count` bytes from `offset`."""
        return self._data[offset : offset + count]


class BytesSink:
    """Collects in memory what arrives, up to `limit` bytes (None: no limit)."""

    __slots__ = ("_limit", "_parts", "size")

    def __init__(self, limit: int | None = None) -> None:
        self._parts: list[bytes] = []
        self._limit = limit
        self.size = 0

    def write(self, data: bytes) -> None:
        """Take the next bytes. Raises ValueError beyond the limit."""
        self.size += len(data)
        if self._limit is not None and self.size > self._limit:
            raise ValueError(f"more than {self._limit} bytes arrive")
        self._parts.append(data)

    @property
    def data(self) -> bytes:
        """Everything so far."""
        if len(self._parts) > 1:
            self._parts[:] = [b"".join(self._parts)]
        return self._parts[0] if self._parts else b""


class FileSource:
    """`size` bytes of an open file from `offset` on. The descriptor stays its owner's."""

    __slots__ = ("_fd", "_offset", "size")

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd = fd
        self._offset = offset
        self.size = size

    def read(self, offset: int, count: int) -> bytes:
        """Return `count` bytes from `offset` of the source."""
        return os.pread(self._fd, min(count, self.size - offset), self._offset + offset)


class FileSink:
    """Writes into an open file from `offset` on. The descriptor stays its owner's."""

    __slots__ = ("_fd", "_offset", "size")

    def __init__(self, fd: int, offset: int = 0) -> None:
        self._fd = fd
        self._offset = offset
        self.size = 0

    def write(self, data: bytes) -> None:
        """Write the next bytes. Raises OSError, also when the disk takes only a part."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, self._offset + self.size)
            self.size += written
            view = view[written:]


def read_whole(source: Source) -> bytes:
    """Return everything in a source. Raises RpcError SEFAIL4 if it cannot be read, or has shrunk."""
    try:
        data = source.read(0, source.size)
    except Exception as error:
        raise RpcError(Rpc2Code.SEFAIL4, f"the source failed: {error}") from error
    if len(data) != source.size:
        raise RpcError(Rpc2Code.SEFAIL4, f"the source ends {source.size - len(data)} bytes early")
    return data
