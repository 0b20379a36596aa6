"""pyfuse3's operations, each a thin translation of one call to the cache manager.

Five things are decided here and nowhere else:

* **Directory entries of unknown status.** pyfuse3 speaks readdirplus only, which carries attributes with
  each name. An entry whose mode has no type bits is taken by the kernel as DT_UNKNOWN: it makes no inode
  and at once forgets the lookup that the entry counted for. So such an entry is remembered like any other,
  and the forget balances it.
* **`.` and `..`** are entries 1 and 2 of a listing; the positions of the cache manager come after them. The
  kernel makes no inode for them and counts no lookup.
* **Groups.** Coda has none. Every object is of the daemon's own group, so that copying programs find what
  they set and do not try again each time.
* **Small contents that are here** are put into the kernel's pages before an open is answered: no read
  follows. At that moment nobody can be reading the file (`Opened.contents`), so no page of it is locked.
* **Attributes outside `user.`** do not exist. The kernel asks for `security.capability` before every write;
  that question does not reach the cache manager.
"""

import errno
import functools
import logging
import os
import stat
from collections.abc import Sequence

import pyfuse3

from realmfs.fuse.handler import Requests, handler
from realmfs.venus.face import Attr, Caller, Changes, FileSystem, Opened

log = logging.getLogger(__name__)

_DOTS = (b".", b"..")
_BLOCK = 4096
_NAME_LIMIT = 255
_GROUP = os.getegid()
_AT_ONCE = 256  # directory entries
_SPARE = 8
_ENTRIES = 8192  # attributes that stay in pyfuse3's form


@functools.lru_cache(1024)
def _who(uid: int, gid: int, pid: int) -> Caller:
    return Caller(uid, gid, pid)


def _caller(ctx: pyfuse3.RequestContext) -> Caller:
    return _who(ctx.uid, ctx.gid, ctx.pid)


def _bare_entry(ino: int) -> pyfuse3.EntryAttributes:
    """An entry of which only the number is known: no type bits, nothing for the kernel to keep."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = pyfuse3.InodeT(ino)
    entry.st_mode = pyfuse3.ModeT(0)
    entry.entry_timeout = entry.attr_timeout = 0
    return entry


def _file_info(opened: Opened) -> pyfuse3.FileInfo:
    return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(opened.handle), keep_cache=opened.keep_cache)


class Operations(pyfuse3.Operations):
    """The handlers of one mount."""

    supports_dot_lookup = False
    enable_writeback_cache = False  # with it the kernel ignores sizes and times that the servers changed
    enable_acl = False

    def __init__(self, files: FileSystem, requests: Requests, *, owner: int | None) -> None:
        """Serve `files`; `requests` counts; `owner` is the local user whose everything is, if one's."""
        super().__init__()
        self.requests = requests
        self._owner = owner
        self._files = files
        # By handle of an open directory: its inode, and how many entries the kernel takes at once.
        self._directories: dict[int, tuple[int, int]] = {}
        self._entry = functools.lru_cache(_ENTRIES)(self._make_entry)  # pyfuse3 copies what it is given

    def _make_entry(self, attr: Attr) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(attr.ino)
        entry.st_mode = pyfuse3.ModeT(attr.mode)
        entry.st_nlink = attr.links
        entry.st_uid = attr.uid if self._owner is None else self._owner
        entry.st_gid = _GROUP
        entry.st_size, entry.st_blocks, entry.st_blksize = attr.size, attr.blocks, _BLOCK
        entry.st_mtime_ns = entry.st_ctime_ns = entry.st_atime_ns = attr.mtime_ns
        entry.entry_timeout, entry.attr_timeout = attr.entry_timeout, attr.attr_timeout
        return entry

    # names

    @handler()
    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Find a name; inode 0 tells the kernel that it may remember the absence."""
        return self._entry(await self._files.lookup(_caller(ctx), parent_inode, name))

    async def forget(self, inode_list: Sequence[tuple[pyfuse3.InodeT, int]]) -> None:
        """Take back lookups. The kernel expects no answer, so even FUSEError must not escape."""
        for ino, count in inode_list:
            try:
                self._files.forget(ino, count)
            except Exception:
                log.exception("forget of inode %d failed", ino)

    @handler()
    async def mknod(
        self,
        parent_inode: pyfuse3.InodeT,
        name: pyfuse3.FileNameT,
        mode: pyfuse3.ModeT,
        rdev: int,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Make a plain file; Coda has no devices, pipes and sockets."""
        if not stat.S_ISREG(mode):
            raise pyfuse3.FUSEError(errno.EPERM)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        opened, attr = await self._files.create(_caller(ctx), parent_inode, name, mode, flags)
        await self._files.release(opened.handle)
        return self._entry(attr)

    @handler()
    async def mkdir(
        self,
        parent_inode: pyfuse3.InodeT,
        name: pyfuse3.FileNameT,
        mode: pyfuse3.ModeT,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Make a directory."""
        return self._entry(await self._files.mkdir(_caller(ctx), parent_inode, name, mode))

    @handler()
    async def symlink(
        self,
        parent_inode: pyfuse3.InodeT,
        name: pyfuse3.FileNameT,
        target: pyfuse3.FileNameT,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Make a symbolic link."""
        return self._entry(await self._files.symlink(_caller(ctx), parent_inode, name, target))

    @handler()
    async def link(
        self,
        inode: pyfuse3.InodeT,
        new_parent_inode: pyfuse3.InodeT,
        new_name: pyfuse3.FileNameT,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Give a file another name in its directory."""
        return self._entry(await self._files.link(_caller(ctx), inode, new_parent_inode, new_name))

    @handler()
    async def unlink(
        self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext
    ) -> None:
        """Remove a name that is not a directory's."""
        await self._files.unlink(_caller(ctx), parent_inode, name)

    @handler()
    async def rmdir(
        self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext
    ) -> None:
        """Remove an empty directory."""
        await self._files.rmdir(_caller(ctx), parent_inode, name)

    @handler()
    async def rename(
        self,
        parent_inode_old: pyfuse3.InodeT,
        name_old: pyfuse3.FileNameT,
        parent_inode_new: pyfuse3.InodeT,
        name_new: pyfuse3.FileNameT,
        flags: pyfuse3.FlagT,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        """Move a name. Of renameat2's flags, whiteouts have no meaning here."""
        if flags & ~(pyfuse3.RENAME_NOREPLACE | pyfuse3.RENAME_EXCHANGE):
            raise pyfuse3.FUSEError(errno.EINVAL)
        await self._files.rename(_caller(ctx), parent_inode_old, name_old, parent_inode_new, name_new, flags)

    # attributes

    @handler()
    async def getattr(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """Answer stat(2)."""
        return self._entry(await self._files.getattr(_caller(ctx), inode))

    @handler(deadline=False)
    async def setattr(
        self,
        inode: pyfuse3.InodeT,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: pyfuse3.FileHandleT | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Change mode, owner, size or time; a change of the size may have to fetch the file first."""
        changes = Changes(
            mode=stat.S_IMODE(attr.st_mode) if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid and attr.st_uid != self._owner else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        )
        return self._entry(await self._files.setattr(_caller(ctx), inode, changes, fh))

    @handler()
    async def readlink(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.FileNameT:
        """Return a symbolic link's text."""
        return pyfuse3.FileNameT(await self._files.readlink(_caller(ctx), inode))

    @handler()
    async def access(self, inode: pyfuse3.InodeT, mode: pyfuse3.ModeT, ctx: pyfuse3.RequestContext) -> bool:
        """Answer access(2) by the caller's rights, not by mode bits."""
        return await self._files.access(_caller(ctx), inode, mode)

    @handler()
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """Answer statfs(2) with the room in the cache; pyfuse3 does not tell for which object."""
        space = await self._files.statfs(_caller(ctx))
        answer = pyfuse3.StatvfsData()
        answer.f_bsize = answer.f_frsize = _BLOCK
        answer.f_blocks = space.bytes_total // _BLOCK
        answer.f_bfree = answer.f_bavail = space.bytes_free // _BLOCK
        answer.f_files = space.objects_total
        answer.f_ffree = answer.f_favail = space.objects_free
        answer.f_namemax = _NAME_LIMIT
        return answer

    # directories

    @handler()
    async def opendir(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.FileHandleT:
        """Open a directory for listing."""
        handle = (await self._files.opendir(_caller(ctx), inode)).handle
        self._directories[handle] = inode, _AT_ONCE
        return pyfuse3.FileHandleT(handle)

    @handler()
    async def readdir(self, fh: pyfuse3.FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """Hand out entries from `start_id` on; each one the kernel takes counts a lookup."""
        inode, limit = self._directories.get(fh, (pyfuse3.ROOT_INODE, _AT_ONCE))
        for position in range(start_id, len(_DOTS)):
            dot = _bare_entry(inode)
            dot.st_mode = pyfuse3.ModeT(stat.S_IFDIR)
            if not pyfuse3.readdir_reply(token, pyfuse3.FileNameT(_DOTS[position]), dot, position + 1):
                return
        entries = await self._files.readdir(fh, max(0, start_id - len(_DOTS)), limit)
        for taken, entry in enumerate(entries):
            attr = _bare_entry(entry.ino) if entry.attr is None else self._entry(entry.attr)
            name = pyfuse3.FileNameT(entry.name)
            if not pyfuse3.readdir_reply(token, name, attr, entry.position + len(_DOTS)):
                self._directories[fh] = inode, taken + _SPARE
                return
            self._files.remember(entry.ino)

    @handler(deadline=False)
    async def releasedir(self, fh: pyfuse3.FileHandleT) -> None:
        """Close a directory."""
        self._directories.pop(fh, None)
        await self._files.releasedir(fh)

    @handler(deadline=False)
    async def fsyncdir(self, fh: pyfuse3.FileHandleT, datasync: bool) -> None:
        """Make the directory's changes safe against power loss."""
        await self._files.fsyncdir(fh)

    # contents

    @handler(deadline=False)
    async def open(
        self, inode: pyfuse3.InodeT, flags: pyfuse3.FlagT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileInfo:
        """Open a file; O_TRUNC comes with the flags."""
        opened = await self._files.open(_caller(ctx), inode, flags)
        if opened.contents is not None and self._store(inode, opened.contents):
            return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(opened.handle), keep_cache=True)
        return _file_info(opened)

    def _store(self, inode: pyfuse3.InodeT, contents: bytes) -> bool:
        try:
            pyfuse3.notify_store(inode, 0, contents)
        except OSError as error:  # the kernel will read them, then
            log.debug("the pages of inode %d were not taken: %s", inode, error.strerror)
            return False
        return True

    @handler()
    async def create(
        self,
        parent_inode: pyfuse3.InodeT,
        name: pyfuse3.FileNameT,
        mode: pyfuse3.ModeT,
        flags: pyfuse3.FlagT,
        ctx: pyfuse3.RequestContext,
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        """Make a plain file and open it."""
        opened, attr = await self._files.create(_caller(ctx), parent_inode, name, mode, flags)
        return _file_info(opened), self._entry(attr)

    @handler(deadline=False)
    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        """Read at an offset; short only at the end of the file."""
        data = await self._files.read(fh, off, size)
        return data[:size]  # type: ignore[return-value]  # a memoryview will do, whatever the stubs say

    @handler(deadline=False)
    async def write(self, fh: pyfuse3.FileHandleT, off: int, buf: bytes) -> int:
        """Write at an offset."""
        return await self._files.write(fh, off, buf)

    @handler(deadline=False)
    async def flush(self, fh: pyfuse3.FileHandleT) -> None:
        """Take part in one close(2) of the file."""
        await self._files.flush(fh)

    @handler(deadline=False)
    async def fsync(self, fh: pyfuse3.FileHandleT, datasync: bool) -> None:
        """Make the contents safe against power loss."""
        await self._files.fsync(fh, datasync)

    @handler(deadline=False)
    async def release(self, fh: pyfuse3.FileHandleT) -> None:
        """Let go of the file after its last close; nobody waits for the outcome."""
        await self._files.release(fh)

    # extended attributes

    @handler()
    async def getxattr(
        self, inode: pyfuse3.InodeT, name: pyfuse3.XAttrNameT, ctx: pyfuse3.RequestContext
    ) -> bytes:
        """Return an attribute, or ENODATA.

        Of other name spaces than ours there is nothing at all: told so, `ls -l` asks once, not for each file.
        """
        if not name.startswith(b"user."):
            raise pyfuse3.FUSEError(errno.EOPNOTSUPP)
        return await self._files.getxattr(_caller(ctx), inode, name)

    @handler()
    async def setxattr(
        self,
        inode: pyfuse3.InodeT,
        name: pyfuse3.XAttrNameT,
        value: bytes,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        """Set one of the few attributes that can be set."""
        if not name.startswith(b"user."):
            raise pyfuse3.FUSEError(errno.EOPNOTSUPP)
        await self._files.setxattr(_caller(ctx), inode, name, value)

    @handler()
    async def removexattr(
        self, inode: pyfuse3.InodeT, name: pyfuse3.XAttrNameT, ctx: pyfuse3.RequestContext
    ) -> None:
        """Remove an attribute."""
        if not name.startswith(b"user."):
            raise pyfuse3.FUSEError(errno.ENODATA)
        await self._files.removexattr(_caller(ctx), inode, name)

    @handler()
    async def listxattr(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext
    ) -> Sequence[pyfuse3.XAttrNameT]:
        """List the attributes that copying programs may see."""
        return [pyfuse3.XAttrNameT(name) for name in await self._files.listxattr(_caller(ctx), inode)]
