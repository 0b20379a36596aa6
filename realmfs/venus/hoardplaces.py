"""From paths that people write to places of the hoard database (client.md §8.2, "Path rule").

A path is followed component by component. Each symbolic link met inside the tree gets an entry of its own, of
the same priority and without attributes, and its target is followed; a link at the end is hoarded with its
target. The entry itself stands relative to the root of the volume that holds the last directory. What does
not exist yet is allowed at the end.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from realmfs.cache.hoard import Expand
from realmfs.venus.core import Core
from realmfs.venus.fetch import Fetcher
from realmfs.venus.hoardbind import MOST_LINKS, caller_of
from realmfs.venus.node import Node
from realmfs.venus.resolve import Resolver, may_be_mount_link
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import ObjectType


@dataclass(frozen=True, slots=True)
class Place:
    """A place: volume key, and path from its root."""

    volume: int
    path: bytes


@dataclass(slots=True)
class _Trail:
    """Where a walk along a path is: the directories passed, each with the names from its volume's root."""

    passed: list[tuple[Node, tuple[bytes, ...]]]

    def step(self, node: Node, name: bytes) -> None:
        above, names = self.passed[-1]
        inside = above.volume is node.volume and not node.fid.is_root
        self.passed.append((node, (*names, name) if inside else ()))

    def up(self) -> None:
        del self.passed[max(1, len(self.passed) - 1) :]

    def place(self, *more: bytes) -> Place:
        node, names = self.passed[-1]
        if not node.volume.key:
            raise CodaError(Code.ENOENT, _no_realm(more[0]) if more else "a realm must be named")
        return Place(node.volume.key, b"/".join((*names, *more)))


class Places:
    """Finds places by paths from the root of the tree."""

    def __init__(self, core: Core, fetcher: Fetcher, resolver: Resolver) -> None:
        self._core = core
        self._fetcher = fetcher
        self._resolver = resolver

    async def find(self, uid: int, path: bytes) -> tuple[Place, list[Place]]:
        """Return the place of a path, and those of the links on the way. Raises CodaError."""
        links: list[Place] = []
        trail = _Trail([(self._core.top, ())])
        place = await self._along(uid, trail, _names(path), links)
        return place, links

    async def _along(self, uid: int, trail: _Trail, names: list[bytes], links: list[Place]) -> Place:
        for index, name in enumerate(names):
            if name == b"..":
                trail.up()
                continue
            above = trail.passed[-1][0]
            node = await self._resolver.child(caller_of(uid), above, name)
            if node is None:
                return trail.place(*names[index:])
            last = index == len(names) - 1
            if node.type is ObjectType.SYMLINK and not may_be_mount_link(node) and not last:
                links.append(trail.place(name))
                if len(links) > MOST_LINKS:
                    raise CodaError(Code.ELOOP, "too many links")
                text = await self._fetcher.link(node, uid)
                if text.startswith(b"/"):
                    raise CodaError(Code.EXDEV, f"a link leads out of the tree, to {text!r}")
                return await self._along(uid, trail, [*_names(text), *names[index + 1 :]], links)
            trail.step(node, name)
        return trail.place()

    async def below(self, uid: int, place: Place, depth: Expand) -> AsyncIterator[Place]:
        """Yield the places of what is in a directory now; of all below it, within the volume."""
        volume = self._core.volumes.by_key(place.volume)
        node = self._core.nodes.get(volume, volume.root)
        for name in place.path.split(b"/") if place.path else ():
            child = await self._resolver.child(caller_of(uid), node, name)
            if child is None:
                return
            node = child
        waiting = [(node, place.path)]
        while waiting:
            directory, path = waiting.pop()
            if not directory.is_directory or directory.volume is not volume:
                continue
            for name, vnode, unique in list((await self._fetcher.directory(directory, uid)).items()):
                if name in (b".", b".."):
                    continue
                inner = path + b"/" + name if path else name
                yield Place(place.volume, inner)
                fid = directory.fid._replace(vnode=vnode, unique=unique)
                if fid.is_directory and depth is Expand.DESCENDANTS:
                    child = self._core.nodes.get(volume, fid)
                    child.parent, child.name = directory.ino, name
                    waiting.append((child, inner))


def _no_realm(name: bytes) -> str:
    realm = name.decode("utf-8", "replace")
    return f"there is no realm {realm}: neither DNS nor the realms file names its servers"


def _names(path: bytes) -> list[bytes]:
    return [name for name in path.split(b"/") if name not in (b"", b".")]
