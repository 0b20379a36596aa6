"""New files beside old ones: how a version is kept under another name."""

import os
from collections.abc import Collection
from itertools import count
from typing import Protocol

from realmfs.venus.face import Caller
from realmfs.venus.files import Files
from realmfs.venus.making import CreateFile, MakeSymlink
from realmfs.venus.node import Node
from realmfs.venus.operation import Tools
from realmfs.vice.detours import is_fatal
from realmfs.vice.directory import MAX_NAME
from realmfs.vice.log import Create
from realmfs.vice.types import Fid, StoreId

PIECE = 1 << 20


class Contents(Protocol):
    """What is copied."""

    length: int

    def read(self, offset: int, count: int) -> bytes:
        """Return bytes of it."""
        ...


class Copies:
    """Makes them, as any program would."""

    def __init__(self, tools: Tools, files: Files) -> None:
        self._tools = tools
        self._files = files

    async def beside(
        self, author: Caller, above: Node, name: bytes, tag: bytes, mode: int, contents: Contents
    ) -> bytes:
        """Write a new file with a name like `name`; return its name. Raises CodaError as creating does."""
        fresh = await self._free_name(author, above, name, tag)
        operation = CreateFile(self._tools, author, above, fresh, mode)
        await operation.run()
        assert operation.node is not None
        file = self._files.enter(operation.node, author, writer=True)
        self._tools.fetcher.at_hand(operation.node)
        handle = self._files.opened(file).handle
        try:
            for offset in range(0, contents.length, PIECE):
                await self._files.write(handle, offset, contents.read(offset, PIECE))
            self._files.flush(handle)
        finally:
            self._files.release(handle)
        return fresh

    async def link_beside(self, author: Caller, above: Node, name: bytes, tag: bytes, text: bytes) -> bytes:
        """Make a new symbolic link with a name like `name`; return its name."""
        fresh = await self._free_name(author, above, name, tag)
        await MakeSymlink(self._tools, author, above, fresh, text).run()
        return fresh

    async def _free_name(self, author: Caller, above: Node, name: bytes, tag: bytes) -> bytes:
        directory = await self._tools.fetcher.directory(above, author.uid)
        return free_name(name, tag, set(directory.names()))


def free_name(name: bytes, tag: bytes, taken: Collection[bytes]) -> bytes:
    """Return a name like `name` that nobody has: `a.odt` becomes `a.local.odt`, `a.local-2.odt`...

    It is one that every server survives (vice/detours.py).
    """
    stem, extension = os.path.splitext(name)
    for number in count(1):
        end = b"." + tag + (b"-%d" % number if number > 1 else b"") + extension
        fresh = stem[: MAX_NAME - len(end)] + end
        if fresh not in taken and not is_fatal(_create(fresh)):
            return fresh
    raise AssertionError


def _create(name: bytes) -> Create:
    nothing = Fid.zero()
    return Create(mtime=0, store_id=StoreId(0, 0), parent=nothing, name=name, owner=0, mode=0, fid=nothing)
