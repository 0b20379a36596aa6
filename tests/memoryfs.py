"""A file system in memory behind the face of the cache manager, for tests of the rings above it.

It counts lookups as strictly as the face demands: taking back more than was given raises. A few names
misbehave on purpose (`TROUBLES`), so that a test can see through a real mount what the layer above makes of
it.
"""

import errno
import heapq
import itertools
import json
import os
import stat
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from realmfs.venus.face import ROOT_INODE, Attr, Caller, Changes, Entry, KernelNotifier, Opened, Space
from realmfs.vice.errors import CodaError, from_errno

TROUBLES = (b"raises", b"group", b"hangs", b"bad-reply")


def error(number: int) -> CodaError:
    return CodaError(from_errno(number))


@dataclass
class Node:
    ino: int
    mode: int
    uid: int
    gid: int
    data: bytearray = field(default_factory=bytearray)
    children: dict[bytes, int] = field(default_factory=dict)
    mtime_ns: int = field(default_factory=time.time_ns)
    links: int = 1
    lookups: int = 0


class MemoryFiles:
    """A `FileSystem`; `timeout` is how long the kernel may trust what it was told."""

    def __init__(self, timeout: float = 3600.0) -> None:
        self.timeout = timeout
        self.kernel: KernelNotifier | None = None
        self.nodes: dict[int, Node] = {}
        self.calls: Counter[str] = Counter()
        self.unknown_status = False  # readdir then tells no attributes
        self.push = False  # contents then go out with the answer to an open
        self.serials = itertools.count(ROOT_INODE)
        self.handles: dict[int, Node] = {}
        self.removed_open: set[int] = set()
        self._node(stat.S_IFDIR | 0o755, Caller(os.getuid(), os.getgid(), 0))

    def _node(self, mode: int, caller: Caller) -> Node:
        node = Node(next(self.serials), mode, caller.uid, caller.gid)
        self.nodes[node.ino] = node
        return node

    def _attr(self, node: Node) -> Attr:
        return Attr(
            node.ino,
            node.mode,
            node.links,
            len(node.data),
            node.mtime_ns,
            node.uid,
            node.gid,
            (len(node.data) + 511) // 512,
            self.timeout,
            self.timeout,
        )

    def _get(self, ino: int) -> Node:
        if ino not in self.nodes:
            raise error(errno.ESTALE)
        return self.nodes[ino]

    def _child(self, parent: int, name: bytes) -> Node:
        children = self._get(parent).children
        if name not in children:
            raise error(errno.ENOENT)
        return self.nodes[children[name]]

    async def lookup(self, caller: Caller, parent: int, name: bytes) -> Attr:
        self.calls["lookup"] += 1
        if name in TROUBLES:
            return await self._trouble(name)
        node = self._child(parent, name)
        node.lookups += 1
        return self._attr(node)

    async def _trouble(self, name: bytes) -> Attr:
        match name:
            case b"raises":
                raise ValueError("on purpose")
            case b"group":
                async with trio.open_nursery():
                    raise error(errno.EDQUOT)
            case b"hangs":
                await trio.sleep_forever()
            case b"bad-reply":
                return Attr(2**70, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        raise AssertionError(name)

    def remember(self, ino: int) -> None:
        self.nodes[ino].lookups += 1

    def forget(self, ino: int, count: int) -> None:
        node = self._get(ino)
        assert 0 < count <= node.lookups, f"inode {ino} was looked up {node.lookups} times, not {count}"
        node.lookups -= count
        if not node.lookups and not node.links and node not in self.handles.values():
            del self.nodes[ino]

    async def getattr(self, caller: Caller, ino: int) -> Attr:
        self.calls["getattr"] += 1
        return self._attr(self._get(ino))

    async def setattr(self, caller: Caller, ino: int, changes: Changes, handle: int | None = None) -> Attr:
        node = self._get(ino)
        if changes.mode is not None:
            node.mode = stat.S_IFMT(node.mode) | changes.mode
        node.uid = node.uid if changes.uid is None else changes.uid
        node.gid = node.gid if changes.gid is None else changes.gid
        if changes.size is not None:
            del node.data[changes.size :]
            node.data.extend(bytes(changes.size - len(node.data)))
            node.mtime_ns = time.time_ns()
        node.mtime_ns = node.mtime_ns if changes.mtime_ns is None else changes.mtime_ns
        return self._attr(node)

    async def access(self, caller: Caller, ino: int, mask: int) -> bool:
        mode = self._get(ino).mode
        return not mask & os.W_OK or bool(mode & 0o200)

    async def readlink(self, caller: Caller, ino: int) -> bytes:
        return bytes(self._get(ino).data)

    async def opendir(self, caller: Caller, ino: int) -> Opened:
        self.calls["opendir"] += 1
        node = self._get(ino)
        return Opened(self._open(node), keep_cache=False)

    def _open(self, node: Node) -> int:
        handle = next(self.serials)
        self.handles[handle] = node
        return handle

    async def readdir(self, handle: int, position: int, limit: int = 256) -> Sequence[Entry]:
        self.calls["readdir"] += 1
        behind = ((ino, name) for name, ino in self.handles[handle].children.items() if ino > position)
        return [
            Entry(name, ino, None if self.unknown_status else self._attr(self.nodes[ino]), ino)
            for ino, name in heapq.nsmallest(limit, behind)
        ]

    async def releasedir(self, handle: int) -> None:
        del self.handles[handle]

    async def open(self, caller: Caller, ino: int, flags: int) -> Opened:
        self.calls["open"] += 1
        node = self._get(ino)
        if flags & os.O_TRUNC:
            node.data.clear()
        if self.push:
            return Opened(self._open(node), False, bytes(node.data))
        return Opened(self._open(node), True)

    async def create(
        self, caller: Caller, parent: int, name: bytes, mode: int, flags: int
    ) -> tuple[Opened, Attr]:
        attr = self._make(caller, parent, name, stat.S_IFREG | stat.S_IMODE(mode))
        return Opened(self._open(self._get(attr.ino)), True), attr

    def _make(self, caller: Caller, parent: int, name: bytes, mode: int, data: bytes = b"") -> Attr:
        children = self._get(parent).children
        if name in children:
            raise error(errno.EEXIST)
        node = self._node(mode, caller)
        node.data.extend(data)
        children[name] = node.ino
        node.lookups += 1
        return self._attr(node)

    async def read(self, handle: int, offset: int, size: int) -> bytes:
        self.calls["read"] += 1
        return bytes(self._file(handle).data[offset : offset + size])

    def _file(self, handle: int) -> Node:
        if handle not in self.handles:
            raise error(errno.EBADF)
        return self.handles[handle]

    async def write(self, handle: int, offset: int, data: bytes) -> int:
        node = self._file(handle)
        node.data.extend(bytes(max(0, offset - len(node.data))))
        node.data[offset : offset + len(data)] = data
        node.mtime_ns = time.time_ns()
        return len(data)

    async def flush(self, handle: int) -> None:
        self.calls["flush"] += 1

    async def fsync(self, handle: int, data_only: bool) -> None:
        self.calls["fsync"] += 1

    async def fsyncdir(self, handle: int) -> None:
        self.calls["fsyncdir"] += 1

    async def release(self, handle: int) -> None:
        del self.handles[handle]

    async def mkdir(self, caller: Caller, parent: int, name: bytes, mode: int) -> Attr:
        return self._make(caller, parent, name, stat.S_IFDIR | stat.S_IMODE(mode))

    async def symlink(self, caller: Caller, parent: int, name: bytes, target: bytes) -> Attr:
        return self._make(caller, parent, name, stat.S_IFLNK | 0o777, target)

    async def link(self, caller: Caller, ino: int, parent: int, name: bytes) -> Attr:
        node = self._get(ino)
        if name in self._get(parent).children:
            raise error(errno.EEXIST)
        self._get(parent).children[name] = ino
        node.links += 1
        node.lookups += 1
        return self._attr(node)

    async def unlink(self, caller: Caller, parent: int, name: bytes) -> None:
        if stat.S_ISDIR(self._child(parent, name).mode):
            raise error(errno.EISDIR)
        self._drop(parent, name)

    async def rmdir(self, caller: Caller, parent: int, name: bytes) -> None:
        node = self._child(parent, name)
        if not stat.S_ISDIR(node.mode):
            raise error(errno.ENOTDIR)
        if node.children:
            raise error(errno.ENOTEMPTY)
        self._drop(parent, name)

    def _drop(self, parent: int, name: bytes) -> None:
        node = self._child(parent, name)
        del self._get(parent).children[name]
        node.links -= 1
        if not node.links and not node.lookups and node not in self.handles.values():
            del self.nodes[node.ino]

    async def rename(
        self, caller: Caller, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> None:
        node = self._child(parent, name)
        new_children = self._get(new_parent).children
        if flags & 2:
            other = self._child(new_parent, new_name)
            self._get(parent).children[name] = other.ino
        else:
            if new_name in new_children:
                if flags & 1:
                    raise error(errno.EEXIST)
                target = self._child(new_parent, new_name)
                if target is node:
                    return
                if target.children:
                    raise error(errno.ENOTEMPTY)
                self._drop(new_parent, new_name)
            del self._get(parent).children[name]
        new_children[new_name] = node.ino

    async def statfs(self, caller: Caller) -> Space:
        return Space(1 << 30, 1 << 29, 1000, 900)

    async def getxattr(self, caller: Caller, ino: int, name: bytes) -> bytes:
        self.calls["getxattr"] += 1
        if name == b"user.test.calls":
            return json.dumps(self.calls).encode()
        if name == b"user.test.lookups":
            return json.dumps({node.ino: node.lookups for node in self.nodes.values()}).encode()
        raise error(errno.ENODATA)

    async def setxattr(self, caller: Caller, ino: int, name: bytes, value: bytes) -> None:
        """Let a test change things behind the kernel's back, with or without telling the kernel."""
        match name.removeprefix(b"user.test."):
            case b"unknown-status":
                self.unknown_status = value == b"1"
            case b"push":
                self.push = value == b"1"
            case b"data":
                self._get(ino).data[:] = value
                self._get(ino).mtime_ns = time.time_ns()
            case b"invalidate-inode" if self.kernel:
                self.kernel.invalidate_inode(ino, value == b"attributes")
            case b"invalidate-entry" if self.kernel:
                self.kernel.invalidate_entry(ino, value)
            case b"rename-behind":
                old, _, new = value.partition(b"/")
                self._get(ino).children[new] = self._get(ino).children.pop(old)
            case _:
                raise error(errno.EOPNOTSUPP)

    async def removexattr(self, caller: Caller, ino: int, name: bytes) -> None:
        raise error(errno.ENODATA)

    async def listxattr(self, caller: Caller, ino: int) -> Sequence[bytes]:
        return []
