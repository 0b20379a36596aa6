"""Reintegration handles: containers that clients fill piece by piece (reintegration.md §3).

A handle is (start time of the server, volume's low bits, number of the container). It dies with the server,
when its store is reintegrated, or when nobody has used it for an hour; a dead one is answered EBADF, and the
client starts over.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import trio

from realmfs.rpc2.service import Request
from realmfs.server.containers import Container, Containers
from realmfs.server.volumes import Volume
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import ReintHandle

MAX_HANDLES: Final = 256
"""Open handles of all clients; beyond them the one unused longest dies."""
IDLE: Final = 3600.0
"""Seconds that a handle lives unused."""
MAX_FILE: Final = 0x7FFFFFFF


@dataclass(slots=True)
class _Open:
    container: Container
    volume: int
    used: float
    busy: bool = False


class Handles:
    """The open handles of a server."""

    def __init__(self, containers: Containers, birth_time: int) -> None:
        self._containers = containers
        self._birth_time = birth_time & 0x7FFFFFFF
        self._open: dict[ReintHandle, _Open] = {}

    def open(self, volume: Volume) -> ReintHandle:
        """Make an empty container and return its handle. Raises CodaError ENOSPC."""
        self.expire()
        container = self._containers.create()
        handle = ReintHandle(self._birth_time, volume.id & 0x7FFFFFFF, container.number & 0x7FFFFFFF)
        self._open[handle] = _Open(container, volume.id, trio.current_time())
        return handle

    def length(self, volume: Volume, handle: ReintHandle) -> int:
        """Return how many bytes have arrived. Raises CodaError EBADF."""
        return self._find(volume, handle).container.length

    async def append(self, volume: Volume, handle: ReintHandle, length: int, request: Request) -> None:
        """Take exactly `length` bytes from the client, or none.

        Raises CodaError EBADF, EBUSY, EINVAL, EFBIG; RpcError.
        """
        found = self._find(volume, handle)
        if found.busy:
            raise CodaError(Code.EBUSY, "another piece is being sent to this handle")
        if found.container.length + length > MAX_FILE:
            raise CodaError(Code.EFBIG)
        mark = found.container.mark()
        found.busy, complete = True, False
        try:
            complete = await request.receive(found.container, length) == length
        finally:
            found.busy = False
            found.used = trio.current_time()
            if not complete:
                found.container.cut(mark)
        if not complete:
            raise CodaError(Code.EINVAL, f"not the {length} bytes that were announced")

    @contextmanager
    def closing(self, volume: Volume, handle: ReintHandle) -> Iterator[Container]:
        """Lend the container while its store is reintegrated; if that succeeds, the handle is gone.

        Raises CodaError EBADF, EBUSY.
        """
        found = self._find(volume, handle)
        if found.busy:
            raise CodaError(Code.EBUSY, "the handle is in use")
        found.busy = True
        try:
            yield found.container
        except BaseException:
            found.busy = False
            raise
        del self._open[handle]
        found.container.close()

    def expire(self) -> None:
        """Let handles die that are unused too long or too many."""
        now = trio.current_time()
        idle = sorted((found.used, handle) for handle, found in self._open.items() if not found.busy)
        spare = len(self._open) - MAX_HANDLES + 1
        for index, (used, handle) in enumerate(idle):
            if now - used > IDLE or index < spare:
                self._open.pop(handle).container.discard()

    def _find(self, volume: Volume, handle: ReintHandle) -> _Open:
        found = self._open.get(handle)
        if found is None or found.volume != volume.id:
            raise CodaError(Code.EBADF)
        found.used = trio.current_time()
        return found
