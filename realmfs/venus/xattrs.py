"""Extended attributes: what we know of an object, for any tool that can read them (features.md §12).

They are answered without network, but `user.coda.acl`; that and `user.coda.hoard` can be set. `listxattr`
names none of them, so that copies by `rsync -X` or `cp -a` do not try to set them elsewhere.
"""

import os
from collections.abc import Awaitable, Callable

from realmfs.cache.log import Role
from realmfs.venus.access import Access
from realmfs.venus.acls import AccessLists
from realmfs.venus.core import Core
from realmfs.venus.face import Caller
from realmfs.venus.hoard import Hoard
from realmfs.venus.node import Node
from realmfs.vice.acl import rights_text
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import ObjectType

PREFIX = b"user.coda."


class ExtendedAttributes:
    """Answers getxattr and setxattr."""

    def __init__(self, core: Core, access: Access, acls: AccessLists, hoard: Hoard) -> None:
        self._core = core
        self._access = access
        self._acls = acls
        self._hoarding = hoard
        self._known: dict[bytes, Callable[[Caller, Node], str]] = {
            b"fid": lambda caller, node: str(node.fid),
            b"vv": lambda caller, node: str(node.status.vv) if node.status else "",
            b"version": lambda caller, node: str(node.status.vv) if node.status else "",
            b"sha1": lambda caller, node: node.sha.hex(),
            b"realm": lambda caller, node: node.volume.realm,
            b"volume": lambda caller, node: node.volume.name,
            b"volume_id": lambda caller, node: f"{node.volume.id:x}",
            b"mount": self._mount,
            b"servers": self._servers,
            b"state": lambda caller, node: self.state(node),
            b"cached": self._cached,
            b"valid": lambda caller, node: node.reason().value,
            b"dirty": lambda caller, node: _yes(node.dirty),
            b"pending": self._pending,
            b"conflict": lambda caller, node: self._core.conflicts.kind(node),
            b"hoard": self._hoard,
            b"priority": self._priority,
            b"rights": self._rights,
            b"author": lambda caller, node: str(node.status.author) if node.status else "",
            b"owner": lambda caller, node: str(node.status.owner) if node.status else "",
        }
        self._asked: dict[bytes, Callable[[Caller, Node], Awaitable[str]]] = {b"acl": acls.text}
        self._settable: dict[bytes, Callable[[Caller, Node, str], Awaitable[None]]] = {
            b"acl": acls.set_text,
            b"hoard": self._set_hoard,
        }

    async def get(self, caller: Caller, node: Node, name: bytes) -> bytes:
        """Return an attribute.

        Raises CodaError: EOPNOTSUPP for one we do not have, or what the servers say.
        """
        if node.shows is not None:
            if name == PREFIX + b"state":
                return b"conflict"
            node = node.shows
        short = name.removeprefix(PREFIX) if name.startswith(PREFIX) else b""
        known = self._known.get(short)
        if known is not None:
            return known(caller, node).encode("utf-8", "surrogateescape")
        asked = self._asked.get(short)
        if asked is None:
            raise CodaError(Code.EOPNOTSUPP, name.decode("utf-8", "replace"))
        return (await asked(caller, node)).encode("utf-8", "surrogateescape")

    async def set(self, caller: Caller, node: Node, name: bytes, value: bytes) -> None:
        """Set an attribute. Raises CodaError: EOPNOTSUPP for one that cannot be set, or what came of it."""
        short = name.removeprefix(PREFIX) if name.startswith(PREFIX) else b""
        settable = self._settable.get(short)
        if settable is None:
            raise CodaError(Code.EOPNOTSUPP, name.decode("utf-8", "replace"))
        await settable(caller, node, value.decode("utf-8", "surrogateescape"))

    def state(self, node: Node) -> str:
        """Return absent, partial, cached, dirty or conflict."""
        if self._core.conflicts.kind(node) != "no":
            return "conflict"
        if node.ours:
            return "dirty"
        present, size = self._bytes(node)
        if present < size or not self._has_data(node):
            return "partial" if present else "absent"
        return "cached"

    def _has_data(self, node: Node) -> bool:
        if node.is_directory:
            return node.directory is not None or self._core.cache.directories.has(node.ino)
        if node.type is ObjectType.SYMLINK:
            return node.link is not None
        return node.content is not None or node.container is not None

    def _bytes(self, node: Node) -> tuple[int, int]:
        size = node.status.length if node.status is not None else 0
        if node.type is not ObjectType.FILE:
            return (size, size) if self._has_data(node) else (0, size)
        if node.content is not None:
            return node.content.present.total, size
        if node.container is None:
            return 0, size
        with self._core.cache.containers.open(node.container) as content:
            return content.present.total, size

    def _cached(self, caller: Caller, node: Node) -> str:
        if node.status is None or not self._has_data(node):
            return "none" if node.status is None else "status"
        present, size = self._bytes(node)
        return "full" if present >= size else f"partial:{100 * present // size}%"

    def _mount(self, caller: Caller, node: Node) -> str:
        mounted = node.volume.mounted_on
        return (
            self._core.path(mounted[0]).rstrip("/") + "/" + mounted[1].decode("utf-8", "replace")
            if mounted
            else ""
        )

    def _servers(self, caller: Caller, node: Node) -> str:
        place = node.volume.place
        return " ".join(str(replica.server) for replica in place.replicas) if place is not None else ""

    def _pending(self, caller: Caller, node: Node) -> str:
        return str(
            sum(1 for _, role in self._core.cache.log.about(node.ino) if role & (Role.OBJECT | Role.PARENT))
        )

    def _hoard(self, caller: Caller, node: Node) -> str:
        """Return its entry's attributes, `600:d+`; else the priority that it has from another entry, or 0."""
        wish = self._hoarding.wish_of(node)
        row = self._core.cache.objects.load(node.ino)
        return str(wish or (row.hoard if row is not None else 0))

    async def _set_hoard(self, caller: Caller, node: Node, text: str) -> None:
        if caller.uid not in (0, os.geteuid()):
            raise CodaError(Code.EPERM, "what is hoarded is for the owner of the mount to say")
        await self._hoarding.set_wish(caller.uid or os.geteuid(), node, text)

    def _priority(self, caller: Caller, node: Node) -> str:
        row = self._core.cache.objects.load(node.ino)
        return str(self._core.cache.replacement.priority(row.hoard, row.tick) if row is not None else 0)

    def _rights(self, caller: Caller, node: Node) -> str:
        return rights_text(self._access.rights(node, caller.uid))


def _yes(fact: bool) -> str:
    return "yes" if fact else "no"
