"""Operations on one object: new contents, times, mode, owner.

A setattr of several attributes makes one record per attribute in the order length, mtime, owner, mode
(reintegration.md §1.2). Servers allow them to whoever may write (of a directory: insert or delete), the
owner alone to whom an object belongs. Mode bits of symbolic links cannot be changed, and a record that tries
would block the log.
"""

from realmfs.venus.face import Caller
from realmfs.venus.node import Node
from realmfs.venus.operation import UNSENT, Operation, Tools
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.log import Chmod, Chown, Store, Utimes
from realmfs.vice.types import ObjectType, Rights

SPECIAL_BITS = 0o6000  # set-user-id and set-group-id mean nothing here and are refused


class StoreContents(Operation):
    """Log the contents of a file as they are in its container now. Has nothing to wait for: call `do`."""

    def __init__(self, tools: Tools, caller: Caller, node: Node) -> None:
        super().__init__(tools, caller, node.volume)
        self.node = node

    async def prepare(self) -> None:
        """Nothing: who wrote has it all here."""

    def ready(self) -> bool:
        """Yes."""
        return True

    def check(self) -> None:
        """Whoever could open the file for writing may store it."""

    def apply(self) -> None:
        """Save length and time, and log the container."""
        node = self.node
        content, status = node.content, node.status
        assert content is not None
        assert status is not None
        self.core.nodes.change_status(node, length=content.length, author=self.caller.uid)
        record = Store(mtime=status.date, store_id=UNSENT, fid=node.fid, length=content.length)
        self.log(record, objects=[node], contents=content)

    def announce(self) -> None:
        """Tell the kernel that its attributes are old."""
        if not self.caller.kernel:
            self.core.kernel_forget(self.node, pages=True)


class SetAttribute(Operation):
    """Change one attribute."""

    def __init__(self, tools: Tools, caller: Caller, node: Node) -> None:
        super().__init__(tools, caller, node.volume)
        self.node = node

    async def prepare(self) -> None:
        """Bring the status here."""
        await self.tools.validator.status(self.node, self.caller.uid)

    def ready(self) -> bool:
        """Tell whether the status is here."""
        return self.node.status is not None

    def check(self) -> None:
        """Refuse who may not write."""
        if self.node.conflict:
            raise CodaError(Code.EINCONS, self.node.label)
        self.node.require_current()
        self.tools.access.require_writable(self.node)
        needed = Rights.INSERT | Rights.DELETE if self.node.is_directory else Rights.WRITE
        self.tools.access.require_any(self.node, self.caller, needed)

    def announce(self) -> None:
        """Tell the kernel that its attributes are old."""
        if not self.caller.kernel and self.core.kernel is not None and self.node.lookups:
            self.core.kernel.invalidate_inode(self.node.ino, attr_only=True)


class SetTime(SetAttribute):
    """utimes(2): Coda keeps a modify time in whole seconds, and no other."""

    def __init__(self, tools: Tools, caller: Caller, node: Node, date: int) -> None:
        super().__init__(tools, caller, node)
        self.date = max(0, min(date, 2**32 - 1))

    def apply(self) -> None:
        """Change and log it."""
        self.core.nodes.change_status(self.node, date=self.date)
        if not self.node.gone:
            record = Utimes(mtime=self.now, store_id=UNSENT, fid=self.node.fid, date=self.date)
            self.log(record, objects=[self.node])


class SetMode(SetAttribute):
    """chmod(2)."""

    def __init__(self, tools: Tools, caller: Caller, node: Node, mode: int) -> None:
        super().__init__(tools, caller, node)
        self.mode = mode & 0o7777

    def check(self) -> None:
        """Refuse what servers do, and bits that mean nothing."""
        super().check()
        if self.node.type is ObjectType.SYMLINK:
            raise CodaError(Code.EOPNOTSUPP, "symbolic links have no mode of their own")
        if self.mode & SPECIAL_BITS:
            raise CodaError(Code.EPERM, "set-user-id and set-group-id bits are not kept")

    def apply(self) -> None:
        """Change and log it."""
        self.core.nodes.change_status(self.node, mode=self.mode)
        if not self.node.gone:
            record = Chmod(mtime=self.now, store_id=UNSENT, fid=self.node.fid, mode=self.mode)
            self.log(record, objects=[self.node])


class SetOwner(SetAttribute):
    """chown(2); `owner` is a Vice id."""

    def __init__(self, tools: Tools, caller: Caller, node: Node, owner: int) -> None:
        super().__init__(tools, caller, node)
        self.owner = owner

    def check(self) -> None:
        """Refuse who is not the owner as whom it will be sent: servers do, and the log would block.

        See reintegration.md §2.3. An administrator, whom only servers know as one, is refused as well.
        """
        super().check()
        assert self.node.status is not None
        owner = f"{self.node.status.owner}@{self.node.volume.realm}"
        if self.core.authors.identity(self.node.volume, self.caller) != owner:
            raise CodaError(Code.EPERM, "only the owner of an object can give it away")

    def apply(self) -> None:
        """Change and log it."""
        self.core.nodes.change_status(self.node, owner=self.owner)
        if not self.node.gone:
            record = Chown(mtime=self.now, store_id=UNSENT, fid=self.node.fid, owner=self.owner)
            self.log(record, objects=[self.node])
