"""Operations that make names: create, mkdir, symlink, link (what servers check: reintegration.md §2.3)."""

from realmfs.venus.face import Caller
from realmfs.venus.names import LINK_LIMIT, check_new
from realmfs.venus.node import Node
from realmfs.venus.operation import UNSENT, Operation, Tools
from realmfs.venus.resolve import may_be_mount_link
from realmfs.vice.directory import Directory
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.log import AnyRecord, Create, Link, MakeDir, SymLink
from realmfs.vice.types import Fid, ObjectType, Rights, Status, VersionVector

PERMISSIONS = 0o777
SYMLINK_MODE = 0o777


class MakeObject(Operation):
    """Make a new object under a new name; `node` is it afterwards."""

    new_objects = 1

    def __init__(self, tools: Tools, caller: Caller, parent: Node, name: bytes) -> None:
        super().__init__(tools, caller, parent.volume)
        self.parent = parent
        self.name = name
        self.node: Node | None = None

    kind: ObjectType
    mode: int
    link: bytes | None = None
    links = 1
    length = 0

    async def prepare(self) -> None:
        """Bring the directory here."""
        check_new(self.name)
        await self.open_directory(self.parent)

    def ready(self) -> bool:
        """Tell whether the directory is here."""
        return self.is_here(self.parent)

    def check(self) -> None:
        """Refuse a name that is there, a directory that cannot be changed, a caller who may not insert."""
        self.check_directory(self.parent)
        if self.name in self.directory(self.parent):
            self.tools.access.require(self.parent, self.caller, Rights.LOOKUP)
            raise CodaError(Code.EEXIST, repr(self.name))
        self.tools.access.require(self.parent, self.caller, Rights.INSERT)

    def apply(self) -> None:
        """Enter the object into the directory, the cache and the log."""
        core, parent = self.core, self.parent
        fid = self.tools.fids.new(self.volume, self.kind, self.caller.uid)
        node = Node(self.volume, fid, core.cache.inodes.new(self.volume.realm_id, fid))
        node.parent, node.name = parent.ino, self.name
        node.status = self._status()
        node.rights = dict(parent.rights)
        node.doubted = parent.doubted
        node.link = self.link
        core.nodes.save(node)
        self.editing(parent).insert(self.name, fid.vnode, fid.unique)
        self.edited(parent, links=1 if self.kind is ObjectType.DIRECTORY else 0)
        self.fill(node)
        self.log(self.record(fid), objects=[node], parents=[parent])
        core.nodes.enter(node)
        core.cache.on_rollback(lambda: core.nodes.leave(node))
        self.node = node

    def _status(self) -> Status:
        parent = self.parent.status
        assert parent is not None
        rights = int(self.tools.access.rights(self.parent, self.caller.uid))
        # Servers will make it belong to whom they take the caller for, whatever the record says.
        identity = self.core.authors.identity(self.volume, self.caller)
        author = int(identity.partition("@")[0]) if identity else self.caller.uid
        return Status(
            type=self.kind,
            links=self.links,
            length=self.length,
            data_version=0,
            vv=VersionVector(),
            date=self.now,
            author=author,
            owner=author,
            callback=False,
            my_rights=rights,
            any_rights=parent.any_rights,
            mode=self.mode,
            parent=self.parent.fid[1:],
        )

    def fill(self, node: Node) -> None:
        """Give the object its first contents."""

    def record(self, fid: Fid) -> AnyRecord:
        """Return the log record."""
        raise NotImplementedError

    def announce(self) -> None:
        """Tell the kernel of the new name."""
        self.tell_name(self.parent, self.name)


class CreateFile(MakeObject):
    """create(2): an empty file."""

    kind = ObjectType.FILE

    def __init__(self, tools: Tools, caller: Caller, parent: Node, name: bytes, mode: int) -> None:
        super().__init__(tools, caller, parent, name)
        self.mode = mode & PERMISSIONS

    def fill(self, node: Node) -> None:
        """An empty container, so that nobody tries to fetch it."""
        with self.core.cache.containers.hold(b"") as content:
            self.core.cache.objects.attach(node.ino, content)
            node.container = content.id

    def record(self, fid: Fid) -> AnyRecord:
        """Create."""
        return Create(
            mtime=self.now,
            store_id=UNSENT,
            parent=self.parent.fid,
            name=self.name,
            owner=self.caller.uid,
            mode=self.mode,
            fid=fid,
        )


class MakeDirectory(MakeObject):
    """mkdir(2)."""

    kind = ObjectType.DIRECTORY
    links = 2
    length = 2048

    def __init__(self, tools: Tools, caller: Caller, parent: Node, name: bytes, mode: int) -> None:
        super().__init__(tools, caller, parent, name)
        self.mode = mode & PERMISSIONS

    def fill(self, node: Node) -> None:
        """`.` and `..`."""
        parent = (self.parent.fid.vnode, self.parent.fid.unique)
        node.directory = Directory.new((node.fid.vnode, node.fid.unique), parent)
        self.core.nodes.save_directory(node, node.directory)

    def record(self, fid: Fid) -> AnyRecord:
        """MakeDir."""
        return MakeDir(
            mtime=self.now,
            store_id=UNSENT,
            parent=self.parent.fid,
            name=self.name,
            fid=fid,
            owner=self.caller.uid,
            mode=self.mode,
        )


class MakeSymlink(MakeObject):
    """symlink(2). With mode 0644 and the text of one it is a mount link (directories.md §4.1)."""

    kind = ObjectType.SYMLINK

    def __init__(
        self,
        tools: Tools,
        caller: Caller,
        parent: Node,
        name: bytes,
        text: bytes,
        *,
        mode: int = SYMLINK_MODE,
    ) -> None:
        super().__init__(tools, caller, parent, name)
        self.link = text
        self.length = len(text)
        self.mode = mode

    async def prepare(self) -> None:
        """Refuse what servers would."""
        if not self.link or b"\0" in self.link:
            raise CodaError(Code.ENOENT if not self.link else Code.EINVAL, "a symbolic link needs a text")
        if len(self.link) > LINK_LIMIT:
            raise CodaError(Code.ENAMETOOLONG, "the text of a symbolic link has at most 1023 bytes")
        await super().prepare()

    def record(self, fid: Fid) -> AnyRecord:
        """SymLink."""
        return SymLink(
            mtime=self.now,
            store_id=UNSENT,
            parent=self.parent.fid,
            name=self.name,
            content=self.link or b"",
            fid=fid,
            owner=self.caller.uid,
            mode=self.mode,
        )


class MakeLink(Operation):
    """link(2): another name for a file in the same directory; no other is possible (directories.md §3.2)."""

    def __init__(self, tools: Tools, caller: Caller, node: Node, parent: Node, name: bytes) -> None:
        super().__init__(tools, caller, parent.volume)
        self.node = node
        self.parent = parent
        self.name = name

    async def prepare(self) -> None:
        """Bring the directory and the file's status here."""
        check_new(self.name)
        if self.node.volume is not self.parent.volume:
            raise CodaError(Code.EXDEV, self.node.label)
        await self.tools.validator.status(self.node, self.caller.uid)
        await self.open_directory(self.parent)

    def ready(self) -> bool:
        """Tell whether both are here."""
        return self.is_here(self.parent) and self.node.status is not None

    def check(self) -> None:
        """Refuse what servers call EXDEV or EISDIR."""
        node, status = self.node, self.node.status
        self.check_directory(self.parent)
        if self.name in self.directory(self.parent):
            self.tools.access.require(self.parent, self.caller, Rights.LOOKUP)
            raise CodaError(Code.EEXIST, repr(self.name))
        if node.is_directory:
            raise CodaError(Code.EPERM, "directories have one name")
        if may_be_mount_link(node) or node.type is not ObjectType.FILE or status is None:
            raise CodaError(Code.EXDEV, "only files can have several names")
        if status.parent != self.parent.fid[1:] or node.gone:
            raise CodaError(Code.EXDEV if not node.gone else Code.ENOENT, node.label)
        self.tools.access.require(self.parent, self.caller, Rights.INSERT)

    def apply(self) -> None:
        """Enter the name and count it."""
        node, parent, status = self.node, self.parent, self.node.status
        assert status is not None
        self.editing(parent).insert(self.name, node.fid.vnode, node.fid.unique)
        self.edited(parent)
        self.core.nodes.change_status(node, links=status.links + 1)
        record = Link(mtime=self.now, store_id=UNSENT, parent=parent.fid, name=self.name, fid=node.fid)
        self.log(record, objects=[node], parents=[parent])

    def announce(self) -> None:
        """Tell the kernel of the new name."""
        self.tell_name(self.parent, self.name)
