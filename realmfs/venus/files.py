"""Open files: whole-file sessions over containers (client.md §5, design row "close").

    open ──► read ... write ──► flush, fsync or release ──► a store record in the log
                       │
                       └─ the first write asks the cache for a container that may be written. What a store
                          record refers to never changes: after a flush the next write gets a private copy.

All who have a file open here share the node's container, so that they see each other's writes at once. Who
reads follows a fetch that is still going on; who writes waits for all of it.

A file that is being written counts as changed here (`Node.ours`): news from the servers do not replace it.
The store is logged with the version that the writing began from, so that the servers see the conflict. What
was opened for writing but replaced before the first write cannot be written any more.
"""

import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from time import time

import trio

from realmfs.cache.containers import Container
from realmfs.venus.access import Access
from realmfs.venus.core import Core
from realmfs.venus.face import Caller, Opened
from realmfs.venus.fetch import Fetcher
from realmfs.venus.names import FILE_LIMIT
from realmfs.venus.node import Node
from realmfs.venus.validity import Validator
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import ObjectType, Status

log = logging.getLogger(__name__)

WRITING = os.O_WRONLY | os.O_RDWR
LOOKS = 4  # how often within the patience it is looked whether contents are still coming
SMALL = 64 * 1024
"""Bytes of contents that go to the kernel with the answer to an open."""


@dataclass(slots=True, eq=False)
class OpenFile:
    """What one open(2) gave out."""

    node: Node
    caller: Caller
    writer: bool


class Files:
    """The open files. `store` logs a store record for a node whose contents were written."""

    def __init__(
        self,
        core: Core,
        validator: Validator,
        fetcher: Fetcher,
        access: Access,
        store: Callable[[Node, Caller], None],
    ) -> None:
        self._core = core
        self._validator = validator
        self._fetcher = fetcher
        self._access = access
        self._store = store
        self._open: dict[int, OpenFile] = {}
        self._next = 1

    # -- open and close --------------------------------------------------------------------------------

    async def open(self, caller: Caller, node: Node, flags: int) -> Opened:
        """Open a file.

        Raises CodaError: EISDIR, ELOOP, EACCES, EROFS, EAGAIN for programs that may not fetch.
        """
        try:
            await self._validator.status(node, caller.uid)
        except CodaError as error:
            if error.code is not Code.EINCONS:
                raise
        self._check_kind(node)
        writer = bool(flags & WRITING)
        if writer:
            self._access.require_writable(node)
            if not self._access.may_write(node, caller):
                raise CodaError(Code.EACCES, node.label)
        if flags & WRITING != os.O_WRONLY and not self._access.may_read(node, caller):
            raise CodaError(Code.EACCES, node.label)
        file = self.enter(node, caller, writer=writer)
        try:
            if writer and flags & os.O_TRUNC:
                await self.truncate(node, caller, 0)
            else:
                await self._fetcher.begin(node, caller.uid)
        except BaseException:
            self.leave(file)
            raise
        return self.opened(file)

    def _check_kind(self, node: Node) -> None:
        if node.type is ObjectType.DIRECTORY:
            raise CodaError(Code.EISDIR, node.label)
        if node.type is ObjectType.SYMLINK or node.conflict:
            raise CodaError(Code.ELOOP, node.label)

    def enter(self, node: Node, caller: Caller, *, writer: bool) -> OpenFile:
        """Count one more user of a node."""
        if writer:
            node.writers += 1
        else:
            node.readers += 1
        return OpenFile(node, caller, writer)

    def opened(self, file: OpenFile) -> Opened:
        """Give out a handle, and tell whether the kernel's pages are of this version."""
        node = file.node
        keep = node.kernel_version == node.version
        contents = None if keep or file.writer else self._at_once(node, file.caller)
        node.kernel_version = node.version
        handle, self._next = self._next, self._next + 1
        self._open[handle] = file
        return Opened(handle, keep, contents)

    def _at_once(self, node: Node, caller: Caller) -> bytes | None:
        """Return the contents of a small file that is all here, if nobody else can be reading it."""
        content = node.content
        if (
            content is None
            or not 0 < content.length <= SMALL
            or not content.whole
            or content.filling
            or node.readers + node.writers > 1
            or not caller.kernel
        ):
            return None
        return content.read(0, content.length)

    def file(self, handle: int) -> OpenFile:
        """Return what a handle stands for. Raises CodaError EBADF."""
        try:
            return self._open[handle]
        except KeyError:
            raise CodaError(Code.EBADF, f"handle {handle}") from None

    def release(self, handle: int) -> None:
        """Close; writes after the last flush (of a shared mapping) are logged now.

        The handle is gone in any case.
        """
        file = self.file(handle)
        del self._open[handle]
        try:
            if file.writer:
                self.commit(file.node, file.caller)
        finally:
            self.leave(file)

    def leave(self, file: OpenFile) -> None:
        """Count one user less; the last one closes the container."""
        node = file.node
        if file.writer:
            node.writers -= 1
            self._core.logged(node.volume)  # a store that waited for the close may go now
        else:
            node.readers -= 1
        self._fetcher.left(node)

    # -- data ------------------------------------------------------------------------------------------

    async def read(self, handle: int, offset: int, size: int) -> bytes:
        """Return up to `size` bytes, fewer only at the end of the file."""
        file = self.file(handle)
        content = file.node.content
        # A container that is being filled may be shorter than the file is by now: `wait` sees to its length.
        if content is None or content.filling or not content.has(offset, size):
            content = await self._fetcher.wait(file.node, file.caller.uid, offset, size)
        return content.read(offset, min(size, max(content.length - offset, 0)))

    async def write(
        self, handle: int, offset: int, data: bytes, advances: Callable[[], None] | None = None
    ) -> int:
        """Write into the container. Raises CodaError: EBADF, EFBIG; OSError ENOSPC.

        The first write waits for all of the file; `advances` is called whenever more of it has come.
        """
        file = self.file(handle)
        node = file.node
        if not file.writer:
            raise CodaError(Code.EBADF, node.label)
        end = offset + len(data)
        if end > FILE_LIMIT:
            raise CodaError(Code.EFBIG, node.label)
        content = await self._writable(node, file.caller, advances=advances)
        if end > content.length:
            await self._core.room(size=end - content.length)
            content = await self._writable(node, file.caller, advances=advances)
        # From here on no checkpoint: what is written goes into the container that was asked for.
        content.write(offset, data)
        self._changed(node, file.caller)
        return len(data)

    async def truncate(self, node: Node, caller: Caller, length: int, *, at_once: bool = False) -> None:
        """Cut or lengthen a file.

        The store is logged at once if nobody has it open for writing, who would flush it later, or if
        `at_once` says that this is a change of its own.
        """
        if length > FILE_LIMIT:
            raise CodaError(Code.EFBIG, node.label)
        was_written = self._is_written(node)
        content = await self._writable(node, caller, empty=length == 0)
        if length > content.length:
            await self._core.room(size=length - content.length)
            content = await self._writable(node, caller)
        before = None if was_written else node.status  # of what a fetch may have brought meanwhile
        content.truncate(length)
        self._changed(node, caller)
        if at_once or not node.writers:
            try:
                self.commit(node, caller)
            except (CodaError, OSError):
                if before is not None:
                    self._take_back(node, before)
                raise

    def _take_back(self, node: Node, status: Status) -> None:
        """Return to the contents and the status before a change that could not be logged."""
        cache = self._core.cache
        with cache.transaction():
            cache.objects.take_back(node.ino)
        if node.content is not None:
            node.content.close()
        row = cache.objects.load(node.ino)
        node.content, node.container = None, row.container if row is not None else None
        node.status = status
        node.edition += 1
        node.version += 1
        self._core.kernel_forget(node, pages=True)

    def _changed(self, node: Node, caller: Caller) -> None:
        if node.status is not None and node.content is not None:
            node.status = replace(node.status, length=node.content.length, date=int(time()))
        node.edition += 1
        if not caller.kernel:  # it may hold old pages
            node.version += 1
            self._core.kernel_forget(node, pages=True)

    async def _writable(
        self,
        node: Node,
        caller: Caller,
        *,
        empty: bool = False,
        advances: Callable[[], None] | None = None,
    ) -> Container:
        """Return the node's container, whole, writable, and nobody else's."""
        node.require_current()
        if not self._is_written(node) and not node.gone:
            await self._core.authors.turn(node.volume, caller)
        key = ("writable", node.ino)
        while True:
            if self._core.flights.flying(key):  # it may say so already and still be on its way to the disk
                await self._follow(node, advances, partial(self._core.flights.wait, key))
            if node.content is not None and node.content.writing:
                if empty and node.content.length:
                    node.content.truncate(0)
                break
            work = self._make_empty if empty else self._make_writable
            join = partial(self._core.flights.join, key, partial(work, node, caller))
            await self._follow(node, advances, join)
        assert node.content is not None
        return node.content

    async def _follow(
        self, node: Node, advances: Callable[[], None] | None, wait: Callable[[], Awaitable[object]]
    ) -> None:
        """Wait for something, and tell now and then that the contents it needs are coming."""
        if advances is None:
            await wait()
            return
        there = _present(node)
        while True:
            with trio.move_on_after(self._core.settings.patience / LOOKS) as look:
                await wait()
            if not look.cancelled_caught:
                return
            if _present(node) > there:
                there = _present(node)
                advances()

    async def _make_writable(self, node: Node, caller: Caller) -> None:
        content = await self._fetcher.whole(node, caller.uid)
        node.require_current()
        if node.gone:
            # It has no name any more, so no row: a private copy that nothing else refers to.
            node.content = await self._core.cache.containers.fork(content)
            node.content.writing = True
            content.close()
            return
        self._own(node, await self._core.cache.contents.writable(node.ino, content))

    async def _make_empty(self, node: Node, caller: Caller) -> None:
        content = self._fetcher.at_hand(node)
        if node.gone:
            await self._make_writable(node, caller)
            return
        self._own(node, await self._core.cache.contents.writable(node.ino, content, empty=True))

    def _own(self, node: Node, content: Container) -> None:
        node.content = content
        node.container = content.id

    # -- making it permanent ---------------------------------------------------------------------------

    def unlogged(self, handle: int) -> bool:
        """Tell whether closing would log a store record: a writer's does, if the contents were written."""
        file = self.file(handle)
        return file.writer and self._is_written(file.node)

    def flush(self, handle: int) -> None:
        """Log what was written since the last store record: the promise of close(2)."""
        file = self.file(handle)
        if file.writer:
            self.commit(file.node, file.caller)

    async def fsync(self, handle: int) -> None:
        """Log it, as a writer's if a reader asks, and wait until it is on the disk."""
        file = self.file(handle)
        others = (other for other in self._open.values() if other.node is file.node and other.writer)
        self.commit(file.node, (file if file.writer else next(others, file)).caller)
        await self._core.cache.durability.sync()

    def commit(self, node: Node, caller: Caller) -> None:
        """Log a store record if the contents were written since the last one."""
        if self._is_written(node):
            self._store(node, caller)

    def _is_written(self, node: Node) -> bool:
        return node.content is not None and node.content.writing and not node.gone

    def commit_all(self) -> None:
        """Log what every open file holds: before an orderly stop. What fails is named in the log."""
        for file in list(self._open.values()):
            if file.writer:
                try:
                    self.commit(file.node, file.caller)
                except (CodaError, OSError) as error:
                    log.error("what was written to %s cannot be logged: %s", file.node.label, error)


def _present(node: Node) -> int:
    """Return how many bytes of a file are here."""
    return node.content.present.total if node.content is not None else 0
