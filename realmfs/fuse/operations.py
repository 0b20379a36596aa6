"""The kernel's operations, each a thin translation of one call to the cache manager.

Six things are decided here and nowhere else:

* **Directory entries of unknown status** go out as a name without an inode; the kernel then asks for each
  when a program wants its status.
* **`.` and `..`** are entries 1 and 2 of a listing; the positions of the cache manager come after them. The
  kernel makes no inode for them and counts no lookup.
* **Groups.** Coda has none. Every object is of the daemon's own group, so that copying programs find what
  they set and do not try again each time.
* **Attributes outside `user.`** do not exist. The kernel asks for `security.capability` before writes;
  that question does not reach the cache manager.
* **Closing.** A file opened for reading has nothing to flush, so its close(2) is not told to us, only the
  release, for which nobody waits.
* **Small contents that are here** are put into the kernel's pages before an open is answered: no read
  follows. At that moment nobody can be reading the file (`Opened.contents`), so no page of it is locked.
"""

import errno
import functools
import logging
import os
import stat
from collections.abc import Mapping

from realmfs.fuse import wire
from realmfs.fuse.device import MAX_WRITE, PAGES, Buffer, Device
from realmfs.fuse.requests import Refusal
from realmfs.fuse.wire import Feature, Opcode, OpenFlag, Request, Set
from realmfs.fuse.workers import Operation
from realmfs.venus.face import Attr, Caller, Changes, FileSystem, Opened

log = logging.getLogger(__name__)

_FEATURES = (
    Feature.ASYNC_READ
    | Feature.ATOMIC_O_TRUNC
    | Feature.BIG_WRITES
    | Feature.AUTO_INVAL_DATA
    | Feature.DO_READDIRPLUS
    | Feature.ASYNC_DIO
    | Feature.PARALLEL_DIROPS
    | Feature.MAX_PAGES
    | Feature.HANDLE_KILLPRIV_V2  # no bits of that kind exist here; so the kernel need not ask before writes
)
# Not the write-back cache: with it the kernel ignores sizes and times that the servers changed.

_DOTS = (b".", b"..")
_DIRECTORY = stat.S_IFDIR >> 12
_BLOCK = 4096
_NAME_LIMIT = 255
_NANO = 10**9
_GROUP = os.getegid()
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2
_DONE = b""
_SMALLEST = len(wire.dirent(1, 1, b"x", 0))


@functools.lru_cache(1024)
def _caller(uid: int, gid: int, pid: int) -> Caller:
    return Caller(uid, gid, pid)


def _who(request: Request) -> Caller:
    return _caller(request.uid, request.gid, request.pid)


def _open_flags(opened: Opened, keeps: bool) -> int:
    flags = 0 if opened.flushes else int(OpenFlag.NOFLUSH)
    return flags | OpenFlag.KEEP_CACHE if keeps or opened.keep_cache else flags


def _handle(request: Request) -> int:
    """Return the handle that a release, flush, fsync, read or write begins with."""
    handle: int = wire.HANDLE.unpack_from(request.body)[0]
    return handle


class Operations:
    """The handlers of one mount."""

    def __init__(self, files: FileSystem, device: Device, *, owner: int | None) -> None:
        """Serve `files`; `owner` is the local user whose everything is, if one's."""
        self._files = files
        self._device = device
        self._owner = owner

    def table(self) -> Mapping[int, Operation]:
        """Return what serves each opcode; operations that move data may last as long as data advance."""
        moving = {"setattr", "open", "read", "write", "flush", "fsync", "fsyncdir", "release"}
        names = {opcode: opcode.name.lower() for opcode in Opcode if opcode is not Opcode.INTERRUPT}
        return {
            int(opcode): Operation(name, getattr(self, name), name in moving)
            for opcode, name in names.items()
        }

    # the connection

    async def init(self, request: Request) -> Buffer:
        """Agree on the protocol."""
        try:
            return wire.answer_to_init(request.body, _FEATURES, MAX_WRITE, PAGES)
        except ValueError as error:
            log.error("%s", error)
            raise Refusal(errno.EPROTO) from error

    async def destroy(self, request: Request) -> Buffer:
        """Hear that the kernel lets go."""
        return _DONE

    # names

    def _inode(self, attr: Attr) -> tuple[int, ...]:
        seconds, nano = divmod(attr.mtime_ns, _NANO)
        seconds = max(seconds, 0)
        owner = attr.uid if self._owner is None else self._owner
        times = (seconds, seconds, seconds, nano, nano, nano)
        return (attr.ino, attr.size, attr.blocks, *times, attr.mode, attr.links, owner, _GROUP, 0, _BLOCK, 0)

    def _entry(self, attr: Attr) -> bytes:
        name, status = attr.entry_timeout, attr.attr_timeout
        name_s, status_s = int(name), int(status)
        return wire.ENTRY.pack(
            attr.ino,
            0,
            name_s,
            status_s,
            int((name - name_s) * _NANO),
            int((status - status_s) * _NANO),
            *self._inode(attr),
        )

    def _attr(self, attr: Attr) -> bytes:
        seconds = int(attr.attr_timeout)
        nano = int((attr.attr_timeout - seconds) * _NANO)
        return wire.ATTR_OUT.pack(seconds, nano, 0, *self._inode(attr))

    async def lookup(self, request: Request) -> Buffer:
        """Find a name; inode 0 tells the kernel that it may remember the absence."""
        return self._entry(await self._files.lookup(_who(request), request.node, request.body[:-1]))

    async def forget(self, request: Request) -> None:
        """Take back lookups. The kernel expects no answer."""
        self._forget(request.node, wire.FORGET.unpack_from(request.body)[0])

    async def batch_forget(self, request: Request) -> None:
        """Take back lookups of many inodes."""
        count, _ = wire.FORGETS.unpack_from(request.body)
        every = request.body[wire.FORGETS.size :][: count * wire.FORGET_ONE.size]
        for ino, lookups in wire.FORGET_ONE.iter_unpack(every):
            self._forget(ino, lookups)

    def _forget(self, ino: int, count: int) -> None:
        try:
            self._files.forget(ino, count)
        except Exception:
            log.exception("forget of inode %d failed", ino)

    async def mknod(self, request: Request) -> Buffer:
        """Make a plain file; Coda has no devices, pipes and sockets."""
        mode, _, _, _ = wire.MKNOD.unpack_from(request.body)
        if not stat.S_ISREG(mode):
            raise Refusal(errno.EPERM)
        name = request.body[wire.MKNOD.size : -1]
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        opened, attr = await self._files.create(_who(request), request.node, name, mode, flags)
        await self._files.release(opened.handle)
        return self._entry(attr)

    async def mkdir(self, request: Request) -> Buffer:
        """Make a directory."""
        mode, _ = wire.MKDIR.unpack_from(request.body)
        name = request.body[wire.MKDIR.size : -1]
        return self._entry(await self._files.mkdir(_who(request), request.node, name, mode))

    async def symlink(self, request: Request) -> Buffer:
        """Make a symbolic link."""
        name, target = wire.strings(request.body, 2)
        return self._entry(await self._files.symlink(_who(request), request.node, name, target))

    async def link(self, request: Request) -> Buffer:
        """Give a file another name in its directory."""
        (ino,) = wire.LINK.unpack_from(request.body)
        name = request.body[wire.LINK.size : -1]
        return self._entry(await self._files.link(_who(request), ino, request.node, name))

    async def unlink(self, request: Request) -> Buffer:
        """Remove a name that is not a directory's."""
        await self._files.unlink(_who(request), request.node, request.body[:-1])
        return _DONE

    async def rmdir(self, request: Request) -> Buffer:
        """Remove an empty directory."""
        await self._files.rmdir(_who(request), request.node, request.body[:-1])
        return _DONE

    async def rename(self, request: Request) -> Buffer:
        """Move a name."""
        (parent,) = wire.RENAME.unpack_from(request.body)
        return await self._rename(request, parent, request.body[wire.RENAME.size :], 0)

    async def rename2(self, request: Request) -> Buffer:
        """Move a name; of renameat2's flags, whiteouts have no meaning here."""
        parent, flags, _ = wire.RENAME2.unpack_from(request.body)
        if flags & ~(_RENAME_NOREPLACE | _RENAME_EXCHANGE):
            raise Refusal(errno.EINVAL)
        return await self._rename(request, parent, request.body[wire.RENAME2.size :], flags)

    async def _rename(self, request: Request, parent: int, names: bytes, flags: int) -> Buffer:
        old, new = wire.strings(names, 2)
        await self._files.rename(_who(request), request.node, old, parent, new, flags)
        return _DONE

    # attributes

    async def getattr(self, request: Request) -> Buffer:
        """Answer stat(2)."""
        return self._attr(await self._files.getattr(_who(request), request.node))

    async def setattr(self, request: Request) -> Buffer:
        """Change mode, owner, size or time; a change of the size may have to fetch the file first."""
        fields = wire.SETATTR.unpack_from(request.body)
        valid, handle, size, mtime, mtime_ns, mode, uid, gid = (
            fields[i] for i in (0, 1, 2, 5, 8, 10, 12, 13)
        )
        changes = Changes(
            mode=stat.S_IMODE(mode) if valid & Set.MODE else None,
            uid=uid if valid & Set.UID and uid != self._owner else None,
            gid=gid if valid & Set.GID else None,
            size=size if valid & Set.SIZE else None,
            mtime_ns=mtime * _NANO + mtime_ns if valid & Set.MTIME else None,
        )
        opened = handle if valid & Set.HANDLE else None
        return self._attr(await self._files.setattr(_who(request), request.node, changes, opened))

    async def readlink(self, request: Request) -> Buffer:
        """Return a symbolic link's text."""
        return await self._files.readlink(_who(request), request.node)

    async def access(self, request: Request) -> Buffer:
        """Answer access(2) by the caller's rights, not by mode bits."""
        mask, _ = wire.ACCESS.unpack_from(request.body)
        if not await self._files.access(_who(request), request.node, mask):
            raise Refusal(errno.EACCES)
        return _DONE

    async def statfs(self, request: Request) -> Buffer:
        """Answer statfs(2) with the room in the cache."""
        space = await self._files.statfs(_who(request))
        free = space.bytes_free // _BLOCK
        return wire.STATFS_OUT.pack(
            space.bytes_total // _BLOCK,
            free,
            free,
            space.objects_total,
            space.objects_free,
            _BLOCK,
            _NAME_LIMIT,
            _BLOCK,
            0,
        )

    # directories

    async def opendir(self, request: Request) -> Buffer:
        """Open a directory for listing; the kernel may keep the names until we tell it otherwise."""
        opened = await self._files.opendir(_who(request), request.node)
        flags = int(OpenFlag.CACHE_DIR) if opened.lasting else 0
        return wire.OPEN_OUT.pack(opened.handle, flags | (OpenFlag.KEEP_CACHE if opened.keep_cache else 0), 0)

    async def readdir(self, request: Request) -> Buffer:
        """Hand out names from a position on."""
        return await self._listing(request, attributes=False)

    async def readdirplus(self, request: Request) -> Buffer:
        """Hand out names with attributes; each entry that has some counts a lookup."""
        return await self._listing(request, attributes=True)

    async def _listing(self, request: Request, *, attributes: bool) -> Buffer:
        handle, start, room, _, _, _, _ = wire.READ.unpack_from(request.body)
        blank = wire.NO_ENTRY if attributes else b""
        parts: list[bytes] = []
        for position in range(start, len(_DOTS)):
            dot = blank + wire.dirent(request.node, position + 1, _DOTS[position], _DIRECTORY)
            room -= len(dot)
            if room < 0:
                return b"".join(parts)
            parts.append(dot)
        limit = room // (len(blank) + _SMALLEST) + 1
        for entry in await self._files.readdir(handle, max(0, start - len(_DOTS)), limit):
            attr = entry.attr
            kind = 0 if attr is None else attr.mode >> 12
            packed = wire.dirent(entry.ino, entry.position + len(_DOTS), entry.name, kind)
            room -= len(blank) + len(packed)
            if room < 0:
                break
            if attributes:
                parts.append(blank if attr is None else self._entry(attr))
                if attr is not None:
                    self._files.remember(entry.ino)
            parts.append(packed)
        return b"".join(parts)

    async def releasedir(self, request: Request) -> Buffer:
        """Close a directory."""
        await self._files.releasedir(_handle(request))
        return _DONE

    async def fsyncdir(self, request: Request) -> Buffer:
        """Make the directory's changes safe against power loss."""
        await self._files.fsyncdir(_handle(request))
        return _DONE

    # contents

    async def open(self, request: Request) -> Buffer:
        """Open a file; O_TRUNC comes with the flags."""
        flags, _ = wire.OPEN.unpack_from(request.body)
        opened = await self._files.open(_who(request), request.node, flags)
        stored = opened.contents is not None and self._store(request.node, opened.contents)
        return wire.OPEN_OUT.pack(opened.handle, _open_flags(opened, stored), 0)

    def _store(self, ino: int, contents: bytes) -> bool:
        try:
            self._device.store(ino, contents)
        except OSError as error:  # the kernel will read them, then
            log.debug("the pages of inode %d were not taken: %s", ino, error.strerror)
            return False
        return True

    async def create(self, request: Request) -> Buffer:
        """Make a plain file and open it."""
        flags, mode, _, _ = wire.CREATE.unpack_from(request.body)
        name = request.body[wire.CREATE.size : -1]
        opened, attr = await self._files.create(_who(request), request.node, name, mode, flags)
        return self._entry(attr) + wire.OPEN_OUT.pack(opened.handle, _open_flags(opened, False), 0)

    async def read(self, request: Request) -> Buffer:
        """Read at an offset; short only at the end of the file."""
        handle, offset, size, _, _, _, _ = wire.READ.unpack_from(request.body)
        return (await self._files.read(handle, offset, size))[:size]

    async def write(self, request: Request) -> Buffer:
        """Write at an offset."""
        handle, offset, size, _, _, _, _ = wire.WRITE.unpack_from(request.body)
        data = request.body[wire.WRITE.size : wire.WRITE.size + size]
        return wire.WRITE_OUT.pack(await self._files.write(handle, offset, data), 0)

    async def flush(self, request: Request) -> Buffer:
        """Take part in one close(2) of the file."""
        await self._files.flush(_handle(request))
        return _DONE

    async def fsync(self, request: Request) -> Buffer:
        """Make the contents safe against power loss."""
        handle, flags, _ = wire.FSYNC.unpack_from(request.body)
        await self._files.fsync(handle, bool(flags & 1))
        return _DONE

    async def release(self, request: Request) -> Buffer:
        """Let go of the file after its last close; nobody waits for the outcome."""
        await self._files.release(_handle(request))
        return _DONE

    # extended attributes

    async def getxattr(self, request: Request) -> Buffer:
        """Return an attribute, or ENODATA."""
        room, _ = wire.GETXATTR.unpack_from(request.body)
        name = request.body[wire.GETXATTR.size : -1]
        if not name.startswith(b"user."):
            raise Refusal(errno.ENODATA)
        return _fitting(await self._files.getxattr(_who(request), request.node, name), room)

    async def setxattr(self, request: Request) -> Buffer:
        """Set one of the few attributes that can be set."""
        size, _ = wire.SETXATTR.unpack_from(request.body)
        name, _, value = request.body[wire.SETXATTR.size :].partition(b"\0")
        if not name.startswith(b"user."):
            raise Refusal(errno.EOPNOTSUPP)
        await self._files.setxattr(_who(request), request.node, name, value[:size])
        return _DONE

    async def removexattr(self, request: Request) -> Buffer:
        """Remove an attribute."""
        name = request.body[:-1]
        if not name.startswith(b"user."):
            raise Refusal(errno.ENODATA)
        await self._files.removexattr(_who(request), request.node, name)
        return _DONE

    async def listxattr(self, request: Request) -> Buffer:
        """List the attributes that copying programs may see."""
        room, _ = wire.GETXATTR.unpack_from(request.body)
        names = await self._files.listxattr(_who(request), request.node)
        return _fitting(b"".join([name + b"\0" for name in names]), room)


def _fitting(value: bytes, room: int) -> Buffer:
    """Return a value, or its size if that was asked for. Raises Refusal ERANGE."""
    if room == 0:
        return wire.XATTR_OUT.pack(len(value), 0)
    if len(value) > room:
        raise Refusal(errno.ERANGE)
    return value
