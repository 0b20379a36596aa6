"""From names to objects: directories, the list of realms, mount links (directories.md §4).

    /coda ── realm name ──> root volume of the realm ── root directory ── names ── ... ── mount link
                                                                                             │ covered by
                                                          root directory of another volume <─┘

A mount link is a symbolic link of mode 0644 whose text is `#volume.`. On the way down it is *covered*: the
name means the root directory of that volume, and the link stays hidden. When the volume cannot be had the
link itself is shown, dangling, so that nothing hangs. Three things are never followed, for a server could
otherwise send a client wherever it likes: a link into another realm, a link to the volume it is in (ELOOP
both), and the forms `@fid` and `$fid`, which only the client itself makes.
"""

from realmfs.venus import access
from realmfs.venus.access import Access
from realmfs.venus.core import Core
from realmfs.venus.face import ROOT_INODE, Caller
from realmfs.venus.fetch import Fetcher
from realmfs.venus.names import check_lookup
from realmfs.venus.node import Node
from realmfs.venus.validity import Validator
from realmfs.venus.versions import Versions
from realmfs.venus.volume import VolumeState
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.mountlink import MountLink, ObjectMount, is_mount_link, parse_mount_link
from realmfs.vice.names import expand
from realmfs.vice.types import Fid, Rights


class Resolver:
    """Finds the object that a name means."""

    def __init__(
        self, core: Core, validator: Validator, fetcher: Fetcher, access: Access, versions: Versions
    ) -> None:
        self._core = core
        self._versions = versions
        self._validator = validator
        self._fetcher = fetcher
        self._access = access

    async def child(self, caller: Caller, parent: Node, name: bytes) -> Node | None:
        """Return what `name` means in a directory, mount links covered; None if there is no such name.

        The node's status is usable. Raises CodaError: ENOTDIR, EACCES, ENAMETOOLONG, ELOOP, ETIMEDOUT.
        """
        node = await self.entry(caller, parent, name)
        if node is None or not may_be_mount_link(node):
            return node
        return await self._covered(caller, parent, name, node)

    async def entry(self, caller: Caller, parent: Node, name: bytes) -> Node | None:
        """Return what `name` means in a directory itself, mount links uncovered (as for removing one)."""
        settings = self._core.settings
        name = expand(name, settings.system_type.encode(), settings.cpu_type.encode())
        check_lookup(name)
        if not parent.is_directory or parent.conflict:
            raise CodaError(Code.ENOTDIR, f"{parent.label} is no directory")
        if parent.ino == ROOT_INODE:
            return await self._realm_root(caller, name)
        if name == b".":
            return parent
        if name == b"..":
            return self._core.above(parent) or self._core.top
        if parent.shows is not None:
            return await self._versions.named(caller, parent.shows, name)
        fid = await self._fid(caller, parent, name)
        held = self._core.conflicts.at(parent.ino, name)
        if held is not None:
            return held
        if fid is None:
            return self._core.conflicts.way(parent.ino, name)
        return await self._known(caller, parent, name, fid)

    async def _known(self, caller: Caller, parent: Node, name: bytes, fid: Fid) -> Node:
        """Return the node of a fid, with usable status, or shown as a conflict."""
        node = self._core.nodes.get(parent.volume, fid)
        node.parent, node.name = parent.ino, name
        try:
            await self._validator.status(node, caller.uid)
        except CodaError as error:
            if error.code is not Code.EINCONS and not (node.conflict and error.code is Code.ETIMEDOUT):
                raise
        # The object may have changed elsewhere while somebody has it open: then the name means another node
        # now.
        return self._core.conflicts.shown(self._core.nodes.get(parent.volume, fid))

    async def _fid(self, caller: Caller, parent: Node, name: bytes) -> Fid | None:
        directory = await self._fetcher.directory(parent, caller.uid)
        self._access.require(parent, caller, Rights.LOOKUP)
        found = directory.lookup(name)
        return None if found is None else Fid(parent.fid.volume, *found)

    async def _realm_root(self, caller: Caller, name: bytes) -> Node | None:
        if name in (b".", b".."):
            return self._core.top
        try:
            realm_name = name.decode("ascii")
        except UnicodeDecodeError:
            return None
        if realm_name[0] in "#@":
            return None
        try:
            volume = await self._core.volumes.root_of(realm_name)
        except CodaError as error:
            if error.code is Code.ENOENT:
                return None
            raise
        return await self._mounted(caller, volume, self._core.top, name)

    async def _covered(self, caller: Caller, parent: Node, name: bytes, node: Node) -> Node:
        """Return what covers `node` if it is a mount link that can be followed, else `node`."""
        try:
            mount = parse_mount_link(await self._fetcher.link(node, caller.uid))
            if mount is None:
                return node
            return await self._mounted(caller, await self._target(node, mount), parent, name)
        except CodaError as error:
            if error.code is Code.ELOOP:
                raise
            return node

    async def _target(self, node: Node, mount: MountLink) -> VolumeState:
        """Return the volume a mount link names.

        Raises CodaError ELOOP or ENOENT where it must not be followed.
        """
        here = node.volume
        if isinstance(mount, ObjectMount):
            raise CodaError(Code.ENOENT, "a server may not name objects by fid in mount links")
        if mount.realm not in ("", here.realm):
            raise CodaError(Code.ELOOP, f"{node.label} leads into another realm")
        if not access.writable(node):
            raise CodaError(Code.ENOENT, "mount links in backups are not followed")
        if mount.volume or mount.is_own_path:
            name = mount.volume or self._core.path(node).split("/", 2)[-1]
            target = await self._core.volumes.named(here.realm, name)
        else:
            target = await self._core.volumes.root_of(here.realm)
        if target is here:
            raise CodaError(Code.ELOOP, f"{node.label} mounts a volume in itself")
        return target

    async def _mounted(self, caller: Caller, volume: VolumeState, parent: Node, name: bytes) -> Node:
        root = self._core.nodes.get(volume, volume.root)
        try:
            await self._validator.status(root, caller.uid)
        except CodaError as error:
            if error.code is not Code.EINCONS:
                raise
        volume.mounted_on = (parent, name)
        root.name = name
        shown = self._core.conflicts.shown(root)
        if shown is not root:
            shown.parent = parent.ino
        return shown


def may_be_mount_link(node: Node) -> bool:
    """Tell whether a node has the outside of a mount link; its text decides."""
    return node.status is not None and is_mount_link(node.status.type, node.status.mode)
