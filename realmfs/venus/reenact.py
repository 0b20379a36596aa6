"""Making the changes of an archive again, one after the other, as ordinary operations of whoever asks.

Each stands for itself: one that cannot be made is told, and the next one is tried. What is there already, a
directory of the same name or a file that the next change fills, is taken for what was made.
"""

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from realmfs.venus.archive import ArchiveError, Change
from realmfs.venus.changing import SetMode, SetOwner, SetTime
from realmfs.venus.face import Caller
from realmfs.venus.files import Files
from realmfs.venus.making import CreateFile, MakeDirectory, MakeLink, MakeObject, MakeSymlink
from realmfs.venus.node import Node
from realmfs.venus.operation import Tools
from realmfs.venus.removing import RemoveName, RenameName
from realmfs.venus.volume import VolumeState
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Fid

PIECE = 1 << 20


@dataclass(slots=True)
class Reenactment:
    """Changes made again: how many, and what could not be."""

    done: int = 0
    failed: list[str] = field(default_factory=list)


class Importer:
    """Makes the changes of one archive for one caller."""

    def __init__(self, tools: Tools, files: Files, caller: Caller, path: Path) -> None:
        self._tools = tools
        self._files = files
        self._caller = caller
        self._path = path
        self._made: dict[tuple[int, Fid], Node] = {}
        self._ways: Mapping[str, Callable[[Change, VolumeState], Awaitable[None]]] = {
            "Create": self._create,
            "MakeDir": self._make_directory,
            "SymLink": self._symlink,
            "Link": self._link,
            "Store": self._store,
            "Utimes": self._utimes,
            "Chmod": self._chmod,
            "Chown": self._chown,
            "Remove": self._remove,
            "RemoveDir": self._remove,
            "Rename": self._rename,
        }

    async def run(self, changes: list[Change]) -> Reenactment:
        """Make them all, as far as possible."""
        result = Reenactment()
        for change in changes:
            try:
                await self._one(change)
            except (CodaError, ArchiveError, OSError) as error:
                where = change.fields.get("name") or change.fields.get("path") or change.fields.get("fid")
                result.failed.append(f"{change.kind} {where}: {error}")
            else:
                result.done += 1
        return result

    async def _one(self, change: Change) -> None:
        way = self._ways.get(change.kind)
        if way is None:
            raise ArchiveError(f"there is no change {change.kind!r}")
        core = self._tools.core
        volume = await core.volumes.named(change.text("realm"), change.text("volume"))
        await core.enter(volume)
        await way(change, volume)

    def _node(self, change: Change, name: str, volume: VolumeState) -> Node:
        fid = change.fid(name)
        made = self._made.get((volume.key, fid))
        return made if made is not None else self._tools.core.nodes.get(volume, Fid(volume.id, *fid[1:]))

    async def _make(self, change: Change, volume: VolumeState, operation: MakeObject) -> None:
        try:
            await operation.run()
            node = operation.node
        except CodaError as error:
            if error.code is not Code.EEXIST:
                raise
            above = self._node(change, "parent", volume)
            node = await self._tools.resolver.entry(self._caller, above, change.name("name"))
            if (
                node is None
                or type(operation) is MakeSymlink
                or node.is_directory != isinstance(operation, MakeDirectory)
            ):
                raise
        assert node is not None
        self._made[volume.key, change.fid("fid")] = node

    async def _create(self, change: Change, volume: VolumeState) -> None:
        above = self._node(change, "parent", volume)
        operation = CreateFile(self._tools, self._caller, above, change.name("name"), change.number("mode"))
        await self._make(change, volume, operation)

    async def _make_directory(self, change: Change, volume: VolumeState) -> None:
        above = self._node(change, "parent", volume)
        operation = MakeDirectory(
            self._tools, self._caller, above, change.name("name"), change.number("mode")
        )
        await self._make(change, volume, operation)

    async def _symlink(self, change: Change, volume: VolumeState) -> None:
        above = self._node(change, "parent", volume)
        operation = MakeSymlink(self._tools, self._caller, above, change.name("name"), change.name("content"))
        await self._make(change, volume, operation)

    async def _link(self, change: Change, volume: VolumeState) -> None:
        node, above = self._node(change, "fid", volume), self._node(change, "parent", volume)
        await MakeLink(self._tools, self._caller, node, above, change.name("name")).run()

    async def _store(self, change: Change, volume: VolumeState) -> None:
        if change.contents is None:
            raise ArchiveError("its contents are missing")
        node = self._node(change, "fid", volume)
        opened = await self._files.open(self._caller, node, os.O_WRONLY | os.O_TRUNC)
        start, size = change.contents
        try:
            with open(self._path, "rb") as archive:  # noqa: ASYNC230  # as quick as our own containers
                archive.seek(start)
                for offset in range(0, size, PIECE):
                    await self._files.write(opened.handle, offset, archive.read(min(PIECE, size - offset)))
            self._files.flush(opened.handle)
        finally:
            self._files.release(opened.handle)

    async def _utimes(self, change: Change, volume: VolumeState) -> None:
        node = self._node(change, "fid", volume)
        await SetTime(self._tools, self._caller, node, change.number("date")).run()

    async def _chmod(self, change: Change, volume: VolumeState) -> None:
        node = self._node(change, "fid", volume)
        await SetMode(self._tools, self._caller, node, change.number("mode")).run()

    async def _chown(self, change: Change, volume: VolumeState) -> None:
        node = self._node(change, "fid", volume)
        await SetOwner(self._tools, self._caller, node, change.number("owner")).run()

    async def _remove(self, change: Change, volume: VolumeState) -> None:
        above = self._node(change, "parent", volume)
        directory = change.kind == "RemoveDir"
        await RemoveName(self._tools, self._caller, above, change.name("name"), directory=directory).run()

    async def _rename(self, change: Change, volume: VolumeState) -> None:
        old = self._node(change, "old_parent", volume), change.name("old_name")
        new = self._node(change, "new_parent", volume), change.name("new_name")
        await RenameName(self._tools, self._caller, old, new).run()
