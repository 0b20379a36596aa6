"""File commands over the control socket: paths instead of inodes, for machines and moments without a mount.

Each method walks the path anew with the rights of whoever asked, and gives back every lookup it made. Links
to absolute paths lead out of the tree, which ends here: only the kernel knows what is there. Contents go
through pipes (see `contents`). A new file is written beside the old one and renamed over it when it is
complete, so a command that dies leaves what was there.
"""

import errno
import itertools
import logging
import os
import secrets
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

import trio

from realmfs.control import messages
from realmfs.control.contents import Flow, Passed, pour_in, pour_out
from realmfs.control.protocol import ControlError
from realmfs.control.walk import Walk
from realmfs.venus.face import Attr, Caller, Entry, FileSystem
from realmfs.vice.errors import CodaError

log = logging.getLogger(__name__)

_MOST_OPEN = 64
_PAGE = 200  # entries: more would hold the loop for over 10 ms
_AT_ONCE = 16
_TYPES = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}
_DETAILS = (
    "fid", "vv", "realm", "volume", "volume_id", "mount", "servers", "state", "cached", "valid", "dirty",
    "pending", "conflict", "hoard", "priority", "rights", "author", "owner",
)  # fmt: skip
_PREFIX = b"user.coda."
_ROOT = ".1.1"
"""Ends the fid of a volume's root."""


def attributes(attr: Attr) -> messages.Attributes:
    """Return attributes as a message."""
    kind = _TYPES.get(stat.S_IFMT(attr.mode), "other")
    return messages.Attributes(
        kind, stat.S_IMODE(attr.mode), attr.size, attr.mtime_ns, attr.links, attr.uid, attr.gid, attr.ino
    )


@dataclass
class _Open:
    """An open file; while it is written, the directory and the names it will move between."""

    handle: int
    caller: Caller
    rename: tuple[int, bytes, bytes] | None
    stack: AsyncExitStack
    flow: Flow


class Files:
    """The file methods of one connection; `close` ends what the caller left open."""

    def __init__(self, files: FileSystem, caller: Caller) -> None:
        """Serve `files` to `caller`."""
        self._files = files
        self._caller = caller
        self._open: dict[int, _Open] = {}
        self._serials = itertools.count(1)

    @asynccontextmanager
    async def _walk(self, path: str) -> AsyncIterator[Walk]:
        """A walk whose errors name the path."""
        walk = Walk(self._files, self._caller)
        try:
            yield walk
        except CodaError as error:
            raise ControlError.of_errno(error.errno, f"/{path}: {os.strerror(error.errno)}") from error
        finally:
            walk.give_back()

    async def stat(self, params: messages.PathOf) -> messages.Object:
        """Tell all that is known about an object."""
        async with self._walk(params.path) as walk:
            attr = await walk.to(params.path, follow=params.follow)
            details: dict[str, str] = {}
            for name in _DETAILS:
                value = await self._detail(attr.ino, name)
                if value is not None:
                    details[name] = value
            return messages.Object(params.path, attributes(attr), await self._target(attr), details)

    async def _detail(self, ino: int, name: str) -> str | None:
        try:
            value = await self._files.getxattr(self._caller, ino, _PREFIX + name.encode())
        except CodaError:  # not known, not for this caller, or not for this type of object
            return None
        return value.decode("utf-8", "replace")

    async def _target(self, attr: Attr) -> str | None:
        if not stat.S_ISLNK(attr.mode):
            return None
        return os.fsdecode(await self._files.readlink(self._caller, attr.ino))

    async def list_directory(self, params: messages.List) -> messages.Listing:
        """List a piece of a directory."""
        limit = max(1, min(params.limit, _PAGE))
        async with self._walk(params.path) as walk:
            attr = await walk.to(params.path)
            if not stat.S_ISDIR(attr.mode):
                raise ControlError.of_errno(errno.ENOTDIR, f"/{params.path}: {os.strerror(errno.ENOTDIR)}")
            handle = (await self._files.opendir(self._caller, attr.ino)).handle
            try:
                found = list(await self._files.readdir(handle, max(0, params.position), limit))
            finally:
                await self._files.releasedir(handle)
            piece = found[:limit]
            entries = await self._describe(walk, attr.ino, piece, params)
        # A listing may come in pieces from below as well: only an empty one is the end.
        return messages.Listing(entries, piece[-1].position if piece else None)

    async def _describe(
        self, walk: Walk, parent: int, found: list[Entry], params: messages.List
    ) -> list[messages.Entry]:
        """Add what is wanted, several at once; an entry whose status cannot be had stays without."""
        told = [messages.Entry(os.fsdecode(entry.name), None) for entry in found]
        limit = trio.Semaphore(_AT_ONCE)

        async def describe(index: int, entry: Entry) -> None:
            async with limit:
                attr, target = entry.attr, None
                with suppress(CodaError, ControlError):
                    if attr is None and params.attributes:
                        attr = await walk.step(parent, entry.name)
                    target = None if attr is None else await self._target(attr)
                known = None if attr is None else attributes(attr)
                kind = await self._kind(entry, attr)
                told[index] = messages.Entry(told[index].name, known, target, kind)
                number = entry.ino if attr is None else attr.ino
                if params.states and number != parent:
                    told[index] = await self._with_state(told[index], number)

        async with trio.open_nursery() as nursery:
            for index, entry in enumerate(found):
                nursery.start_soon(describe, index, entry)
        return told

    async def _with_state(self, entry: messages.Entry, number: int) -> messages.Entry:
        """Add what of it is on this machine, and which volume is mounted there."""
        fid = await self._detail(number, "fid") or ""
        volume = await self._detail(number, "volume") if fid.endswith(_ROOT) else None
        return replace(
            entry,
            state=await self._detail(number, "state") or "",
            hoard=await self._detail(number, "hoard") or "",
            volume=volume or "",
        )

    async def _kind(self, entry: Entry, attr: Attr | None) -> str:
        """Return the type; without a status, a fid still tells directories from what is none."""
        if attr is not None:
            return _TYPES.get(stat.S_IFMT(attr.mode), "other")
        fid = await self._detail(entry.ino, "fid")
        return "directory" if fid is None or int(fid.split(".")[1], 16) % 2 else "file"

    async def mkdir(self, params: messages.Make) -> messages.Nothing:
        """Make a directory."""
        async with self._walk(params.path) as walk:
            parent, name = await walk.to_parent(params.path)
            walk.took(await self._files.mkdir(self._caller, parent.ino, name, stat.S_IMODE(params.mode)))
        return messages.Nothing()

    async def remove(self, params: messages.PathOf) -> messages.Nothing:
        """Remove a name; a directory must be empty."""
        async with self._walk(params.path) as walk:
            parent, name = await walk.to_parent(params.path)
            attr = await walk.step(parent.ino, name)
            if stat.S_ISDIR(attr.mode):
                await self._files.rmdir(self._caller, parent.ino, name)
            else:
                await self._files.unlink(self._caller, parent.ino, name)
        return messages.Nothing()

    async def move(self, params: messages.Move) -> messages.Nothing:
        """Move a name."""
        async with self._walk(params.path) as walk:
            parent, name = await walk.to_parent(params.path)
            new_parent, new_name = await walk.to_parent(params.new_path)
            await self._files.rename(self._caller, parent.ino, name, new_parent.ino, new_name, 0)
        return messages.Nothing()

    async def open_file(self, params: messages.Open) -> Passed[messages.Opened]:
        """Open a file for reading, or a new one that takes its name when it is closed."""
        if len(self._open) >= _MOST_OPEN:
            raise ControlError.of_errno(
                errno.EMFILE, f"{_MOST_OPEN} files are open on this connection. Close some first"
            )
        async with AsyncExitStack() as stack:
            walk = await stack.enter_async_context(self._walk(params.path))
            if params.write:
                opened, size = await self._create(walk, params, stack), 0
            else:
                opened, size = await self._open_old(walk, params, stack)
            serial = next(self._serials)
            self._open[serial] = opened
            opened.stack = stack.pop_all()
        for_reading, for_writing = os.pipe2(os.O_CLOEXEC)
        if params.write:
            return Passed(
                messages.Opened(serial, size),
                for_writing,
                partial(pour_in, self._files, opened.flow, for_reading),
            )
        return Passed(
            messages.Opened(serial, size),
            for_reading,
            partial(pour_out, self._files, opened.flow, for_writing),
        )

    async def _open_old(self, walk: Walk, params: messages.Open, stack: AsyncExitStack) -> tuple[_Open, int]:
        attr = await walk.to(params.path)
        if stat.S_ISDIR(attr.mode):
            raise ControlError.of_errno(errno.EISDIR, f"/{params.path}: {os.strerror(errno.EISDIR)}")
        handle = (await self._files.open(self._caller, attr.ino, os.O_RDONLY)).handle
        return _Open(handle, self._caller, None, stack, Flow(handle, params.path)), attr.size

    async def _create(self, walk: Walk, params: messages.Open, stack: AsyncExitStack) -> _Open:
        parent, name = await walk.to_parent(params.path)
        beside = b".%s.%s~" % (name[:200], secrets.token_hex(4).encode())
        mode = stat.S_IMODE(params.mode)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        opened, attr = await self._files.create(self._caller, parent.ino, beside, mode, flags)
        walk.took(attr)
        rename = (parent.ino, beside, name)
        return _Open(opened.handle, self._caller, rename, stack, Flow(opened.handle, params.path))

    async def close_file(self, params: messages.Close) -> messages.Nothing:
        """Close a file; a new one takes its name now."""
        opened = self._open.get(params.handle)
        if opened is None:
            raise ControlError.of_errno(errno.EBADF, "there is no such open file on this connection")
        if opened.rename is not None and not params.abandon:
            await opened.flow.all_came()
        del self._open[params.handle]
        async with opened.stack:
            try:
                await opened.flow.stop()
                if params.sync and opened.rename is not None:
                    await self._files.fsync(opened.handle, False)
                await self._files.flush(opened.handle)
            except BaseException:
                await self._abandon(opened)
                raise
            if params.abandon:
                await self._abandon(opened)
                return messages.Nothing()
            await self._files.release(opened.handle)
            if opened.rename is not None:
                parent, beside, name = opened.rename
                await self._files.rename(opened.caller, parent, beside, parent, name, 0)
        return messages.Nothing()

    async def _abandon(self, opened: _Open) -> None:
        """Release a file; remove a new one that was never closed."""
        await self._files.release(opened.handle)
        if opened.rename is not None:
            parent, beside, _ = opened.rename
            await self._files.unlink(opened.caller, parent, beside)

    async def close(self) -> None:
        """Let go of everything still open: the caller has gone."""
        left, self._open = list(self._open.values()), {}
        for opened in left:
            try:
                async with opened.stack:
                    await self._abandon(opened)
            except (CodaError, ControlError) as error:
                log.info("a file left open by a client: %s", error)
