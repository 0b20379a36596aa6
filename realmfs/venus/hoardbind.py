"""Binding contexts to objects: paths walked, renamed objects found again, priorities given and taken."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import trio

from realmfs.cache.hoard import HoardEntry
from realmfs.venus.access import Access
from realmfs.venus.core import Core
from realmfs.venus.face import Caller
from realmfs.venus.fetch import Fetcher
from realmfs.venus.hoardcontext import Context, Contexts
from realmfs.venus.node import Node
from realmfs.venus.resolve import Resolver, may_be_mount_link
from realmfs.venus.validity import Validator
from realmfs.venus.volume import VolumeState
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Fid, ObjectType, Rights

MOST_LINKS = 40
DEEPEST = 256
SLICE = 500
"""Rows looked at between two pauses."""


def caller_of(uid: int) -> Caller:
    """Return a user as whom names are looked up here."""
    return Caller(uid, uid, 0, kernel=False)


class Binder:
    """Binds. `mount_point`: links to absolute paths below it are followed; None: there is no mount."""

    def __init__(
        self, core: Core, validator: Validator, fetcher: Fetcher, resolver: Resolver, access: Access
    ) -> None:
        self._core = core
        self._validator = validator
        self._fetcher = fetcher
        self._resolver = resolver
        self._access = access
        self._users: dict[int, int] = {}  # volume key: whose entries are there
        self.mount_point: str | None = None

    # -- what is known ---------------------------------------------------------------------------------

    def node(self, context: Context) -> Node | None:
        """Return the object a context is bound to."""
        if not context.number:
            return None
        try:
            node = self._core.nodes.by_number(context.number)
        except CodaError:
            return None
        # An object replaced while it was open lives on under a new number (nodes.retire).
        return self._core.nodes.get(node.volume, node.fid) if node.replaced else node

    def has_data(self, node: Node, *, confirmed: bool = False) -> bool:
        """Tell whether the contents of an object are here, and all of them.

        `confirmed`: servers said so for itself, whatever a later question about many has left open.
        """
        if node.status is None or (node.stale and not confirmed):
            return False
        if node.is_directory:
            return node.directory is not None or self._core.cache.directories.has(node.ino)
        if node.type is ObjectType.SYMLINK:
            return node.link is not None
        if node.content is not None:
            return node.content.whole and not node.content.filling
        return node.container is not None and self._core.cache.containers.is_whole(node.container)

    def user_of(self, volume: VolumeState) -> int:
        """Return as whom objects of a volume are validated: whose entries are there, or at all."""
        return self._users.get(volume.key, next(iter(self._users.values()), 0))

    def employ(self, foremost: Mapping[int, HoardEntry]) -> None:
        """Note whose the entries are, by the most important one of each volume."""
        self._users = {volume: entry.uid for volume, entry in foremost.items()}

    def require_lookup(self, node: Node, uid: int) -> None:
        """Raise CodaError EACCES unless the user may list the directory."""
        self._access.require(node, caller_of(uid), Rights.LOOKUP)

    # -- priorities; inside a transaction --------------------------------------------------------------

    def claim(self, context: Context, node: Node) -> None:
        """Bind a context to an object, and have that stay in the cache."""
        if node.ino != context.number:
            context.number = node.ino
        if node.stored:
            self.mark(node.ino, context)

    def mark(self, number: int, context: Context) -> None:
        """See to it that an object has at least a context's priority."""
        self._core.cache.objects.raise_hoard(number, context.priority, context.entry.uid)

    async def settle(self, contexts: Contexts) -> None:
        """Give each object the highest priority of its contexts, and none to those that have none."""
        wanted: dict[int, tuple[int, int]] = {}
        for index, context in enumerate(contexts.each()):
            if not index % SLICE:
                await trio.lowlevel.checkpoint()
            gives = (context.priority, context.entry.uid)
            for number in (context.number, *context.along):
                if number and wanted.get(number, (0, 0)) < gives:
                    wanted[number] = gives
        objects, last = self._core.cache.objects, 0
        while rows := objects.hoard_after(last, SLICE):
            with self._core.cache.transaction():
                for number, hoard in rows:
                    priority, uid = wanted.get(number, (0, -1))
                    if hoard != priority:
                        objects.update(number, hoard=priority, hoard_uid=uid)
            last = rows[-1][0]
            await trio.lowlevel.checkpoint()

    # -- paths -----------------------------------------------------------------------------------------

    async def bind(self, context: Context) -> Node | None:
        """Walk an entry's path; bind what is on it, and return what is at its end.

        None if there is no such name now. Raises CodaError.
        """
        entry = context.entry
        volume = self._core.volumes.by_key(entry.volume)
        try:
            passed = await self._walk(volume, entry.path, entry.uid)
        except CodaError as error:
            if error.code not in (Code.ENOENT, Code.ENOTDIR):
                raise
            passed = await self._again(context, volume)
        with self._core.cache.transaction():
            context.along = tuple(node.ino for node in passed[:-1])
            for node in passed[:-1]:
                self.mark(node.ino, context)
            self.claim(context, passed[-1])
            if context.number != context.entry.bound:
                self._core.cache.hoard.rebind(entry.id, path=context.entry.path, bound=context.number)
                context.entry = replace(context.entry, bound=context.number)
        return passed[-1]

    async def _walk(self, volume: VolumeState, path: bytes, uid: int) -> list[Node]:
        """Return the objects along a path, from the root of the volume to its end.

        A link at the end is that link; one on the way is not followed: it has an entry of its own.
        """
        await self._core.enter(volume)
        node = self._core.nodes.get(volume, volume.root)
        await self._validator.status(node, uid)
        passed = [node]
        for name in path.split(b"/") if path else ():
            child = await self._resolver.child(caller_of(uid), node, name)
            if child is None:
                raise CodaError(Code.ENOENT, name.decode("utf-8", "replace"))
            node = child
            passed.append(node)
        return passed

    async def _again(self, context: Context, volume: VolumeState) -> list[Node]:
        """Find an object again that was renamed: the entry follows it. Raises CodaError ENOENT."""
        entry = context.entry
        node = None
        if entry.bound:
            context.number = entry.bound
            node = self.node(context)
        if node is None or node.gone or node.volume is not volume:
            raise CodaError(Code.ENOENT, "there is no such name now")
        path = await self._place(node, entry.uid)
        passed = await self._walk(volume, path, entry.uid)
        context.name = path
        context.entry = replace(entry, path=path)
        with self._core.cache.transaction():
            self._core.cache.hoard.rebind(entry.id, path=path, bound=node.ino)
        return passed

    async def _place(self, node: Node, uid: int) -> bytes:
        """Return where an object is now, from the root of its volume. Raises CodaError ENOENT."""
        names: list[bytes] = []
        while not node.fid.is_root:
            if len(names) == DEEPEST:
                raise CodaError(Code.ELOOP, "directories that contain each other")
            above, name = await self._above(node, uid)
            names.append(name)
            node = above
        return b"/".join(reversed(names))

    async def _above(self, node: Node, uid: int) -> tuple[Node, bytes]:
        """Return the directory that an object is in now, and its name there."""
        above = self._core.nodes.by_number(node.parent) if node.parent else None
        if above is not None and above.volume is node.volume:
            name = await self._name_in(above, node, uid)
            if name is not None:
                return above, name
        if not node.ours:  # somebody else has moved it: the servers know where
            await self._validator.get_attr(node, uid)
        if node.status is not None and node.status.parent != (0, 0):
            above = self._core.nodes.get(node.volume, Fid(node.fid.volume, *node.status.parent))
            name = await self._name_in(above, node, uid)
            if name is not None:
                node.parent, node.name = above.ino, name
                return above, name
        raise CodaError(Code.ENOENT, f"nobody knows where {node.label} is now")

    async def _name_in(self, directory: Node, node: Node, uid: int) -> bytes | None:
        wanted = tuple(node.fid[1:])
        for name, vnode, unique in (await self._fetcher.directory(directory, uid)).items():
            if (vnode, unique) == wanted and name not in (b".", b".."):
                return name
        return None

    # -- links -----------------------------------------------------------------------------------------

    async def covering(self, uid: int, parent: Node, link: Node) -> Node | None:
        """Return the root of the volume mounted on a link; None if it is an ordinary link."""
        node = await self._resolver.child(caller_of(uid), parent, link.name)
        return node if node is not None and node.is_directory else None

    async def follow(self, uid: int, parent: Node, text: bytes) -> Sequence[Node]:
        """Return the objects on the way of a link to its target, the target last.

        Empty if it leads out of the tree or to nothing.
        """
        reached: list[Node] = []
        try:
            await self._follow(caller_of(uid), parent, text, reached, MOST_LINKS)
        except CodaError as error:
            if error.code in (Code.ENOENT, Code.ENOTDIR, Code.ELOOP, Code.EACCES):
                return ()
            raise
        return reached

    async def _follow(self, caller: Caller, node: Node, text: bytes, reached: list[Node], links: int) -> Node:
        if not links:
            raise CodaError(Code.ELOOP, "too many links")
        start = self._start(node, text)
        if start is None:
            raise CodaError(Code.ENOENT, "it leads out of the tree")
        node, names = start
        for name in names:
            child = await self._resolver.child(caller, node, name)
            if child is None:
                raise CodaError(Code.ENOENT, name.decode("utf-8", "replace"))
            reached.append(child)
            if child.type is ObjectType.SYMLINK and not may_be_mount_link(child):
                target = await self._fetcher.link(child, caller.uid)
                child = await self._follow(caller, node, target, reached, links - 1)
            node = child
        return node

    def _start(self, node: Node, text: bytes) -> tuple[Node, list[bytes]] | None:
        """Return where a link's text begins, and the names from there; None outside of the tree."""
        names = [name for name in text.split(b"/") if name not in (b"", b".")]
        if not text.startswith(b"/"):
            return node, names
        for top in {self.mount_point or "/coda", "/coda"}:
            inside = [name for name in top.encode("utf-8", "surrogateescape").split(b"/") if name]
            if names[: len(inside)] == inside:
                return self._core.top, names[len(inside) :]
        return None
