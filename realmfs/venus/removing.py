"""Operations that take names away or move them: unlink, rmdir, rename.

A removed object keeps its row in the cache, with no links, until the servers have confirmed the removal:
sending the record needs its version. Who has it open keeps its contents.

A rename onto an existing name is two records, the removal of the target and the rename (reintegration.md
§1.2), in one transaction.
"""

from functools import partial

from realmfs.venus.face import Caller
from realmfs.venus.names import check_new, check_removal
from realmfs.venus.node import Node
from realmfs.venus.operation import UNSENT, Operation, Tools
from realmfs.venus.resolve import may_be_mount_link
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.log import Remove, RemoveDir, Rename
from realmfs.vice.types import Rights


class _Removal(Operation):
    """What unlink, rmdir and rename-over have in common."""

    async def find(self, parent: Node, name: bytes) -> Node | None:
        """Return what a name means, uncovered, with status; a directory with its contents."""
        node = await self.tools.resolver.entry(self.caller, parent, name)
        if node is not None and (node.shows is not None or node.conflict):
            raise CodaError(Code.EINCONS, f"{node.label} is in conflict")
        if parent.shows is not None:
            raise CodaError(Code.EROFS, f"{parent.label} shows a conflict")
        if node is not None and node.is_directory and not node.conflict and self.core.top is not node:
            await self.open_directory(node)
        return node

    def is_still(self, parent: Node, name: bytes, node: Node | None) -> bool:
        """Tell whether the name still means that node, or still nothing."""
        if not self.is_here(parent) or (node is not None and (node.status is None or node.gone)):
            return False
        found = self.directory(parent).lookup(name)
        return found == (None if node is None else node.fid[1:])

    def check_victim(self, node: Node, *, directory: bool, mount_point: bool = False) -> None:
        """Refuse to remove what is of the other kind, not empty, in conflict, or a mount link.

        With `mount_point` the caller has asked for a mount link: the servers know who is an administrator.
        """
        if node.conflict:
            raise CodaError(Code.EINCONS, node.label)
        if may_be_mount_link(node) and not mount_point:
            raise CodaError(Code.EACCES, f"{node.label} is a mount link: only administrators remove those")
        if directory and not node.is_directory:
            raise CodaError(Code.ENOTDIR, node.label)
        if not directory and node.is_directory:
            raise CodaError(Code.EISDIR, node.label)
        if node.is_directory and not self.directory(node).is_empty:
            raise CodaError(Code.ENOTEMPTY, node.label)

    def remove(self, parent: Node, name: bytes, node: Node) -> None:
        """Take a name and, if it was the last one, the object out of the cache, and log that."""
        status = node.status
        assert status is not None
        core = self.core
        self.editing(parent).delete(name)
        self.edited(parent, links=-1 if node.is_directory else 0)
        last = node.is_directory or status.links <= 1
        core.nodes.change_status(node, links=0 if last else status.links - 1)
        kind = RemoveDir if node.is_directory else Remove
        record = kind(mtime=self.now, store_id=UNSENT, parent=parent.fid, name=name, fid=node.fid)
        if last:
            # The record that stores it, if any, still needs the contents; the object does not.
            core.cache.objects.attach(node.ino, None)
        self.log(record, objects=[node], parents=[parent], last_name=last)
        if last:
            core.cache.on_rollback(partial(node.hold, node.container, node.link))
            node.container = None
            core.nodes.leave(node)
            core.cache.on_rollback(lambda: core.nodes.come_back(node))
        parent.kernel_names.discard(name)


class RemoveName(_Removal):
    """unlink(2) and rmdir(2)."""

    def __init__(
        self,
        tools: Tools,
        caller: Caller,
        parent: Node,
        name: bytes,
        *,
        directory: bool,
        mount_point: bool = False,
    ) -> None:
        super().__init__(tools, caller, parent.volume)
        self.mount_point = mount_point
        self.parent = parent
        self.name = name
        self.wants_directory = directory
        self.node: Node | None = None

    async def prepare(self) -> None:
        """Find what the name means."""
        check_removal(self.name)
        await self.open_directory(self.parent)
        if self.parent is not self.core.top:
            self.node = await self.find(self.parent, self.name)

    def ready(self) -> bool:
        """Tell whether it still means that."""
        return self.parent is self.core.top or self.is_still(self.parent, self.name, self.node)

    def check(self) -> None:
        """Refuse what servers would."""
        self.check_directory(self.parent)
        if self.node is None:
            raise CodaError(Code.ENOENT, repr(self.name))
        self.tools.access.require(self.parent, self.caller, Rights.DELETE)
        self.check_victim(self.node, directory=self.wants_directory, mount_point=self.mount_point)

    def apply(self) -> None:
        """Remove it."""
        assert self.node is not None
        self.remove(self.parent, self.name, self.node)

    def announce(self) -> None:
        """Tell the kernel that the name is gone."""
        self.tell_name(self.parent, self.name)


class RenameName(_Removal):
    """rename(2)."""

    def __init__(
        self,
        tools: Tools,
        caller: Caller,
        old: tuple[Node, bytes],
        new: tuple[Node, bytes],
        *,
        no_replace: bool = False,
    ) -> None:
        super().__init__(tools, caller, old[0].volume)
        self.old_parent, self.old_name = old
        self.new_parent, self.new_name = new
        self.no_replace = no_replace
        self.node: Node | None = None
        self.target: Node | None = None

    async def prepare(self) -> None:
        """Find what both names mean."""
        check_removal(self.old_name)
        if self.new_parent.volume is not self.volume:
            raise CodaError(Code.EXDEV, self.old_parent.label)
        await self.open_directory(self.old_parent)
        await self.open_directory(self.new_parent)
        if self.old_parent is not self.core.top:
            self.node = await self.find(self.old_parent, self.old_name)
            self.target = await self.find(self.new_parent, self.new_name)

    def ready(self) -> bool:
        """Tell whether they still mean that."""
        return self.old_parent is self.core.top or (
            self.is_still(self.old_parent, self.old_name, self.node)
            and self.is_still(self.new_parent, self.new_name, self.target)
        )

    def check(self) -> None:
        """Refuse what servers would."""
        node, target = self.node, self.target
        self.check_directory(self.old_parent)
        self.check_directory(self.new_parent)
        if node is None:
            raise CodaError(Code.ENOENT, repr(self.old_name))
        if target is None:
            check_new(self.new_name)
        elif self.no_replace:
            raise CodaError(Code.EEXIST, repr(self.new_name))
        if node.conflict:
            raise CodaError(Code.EINCONS, node.label)
        if may_be_mount_link(node):
            raise CodaError(Code.EXDEV, f"{node.label} is a mount link")
        self.tools.access.require(self.old_parent, self.caller, Rights.DELETE)
        needed = Rights.INSERT if target is None else Rights.INSERT | Rights.DELETE
        self.tools.access.require(self.new_parent, self.caller, needed)
        self._check_move(node)
        if target is not None and target is not node:
            self.check_victim(target, directory=node.is_directory)

    def _check_move(self, node: Node) -> None:
        if self.old_parent is self.new_parent:
            return
        status = node.status
        if not node.is_directory:
            if status is not None and status.links > 1:
                raise CodaError(Code.EXDEV, f"{node.label} has several names, all in one directory")
            return
        above: Node | None = self.new_parent
        while above is not None and above.volume is self.volume:
            if above is node:
                raise CodaError(Code.EINVAL, "a directory cannot move into itself")
            if above.fid.is_root:
                return
            above = self.core.above(above)

    def apply(self) -> None:
        """Remove what is in the way, then move."""
        node = self.node
        assert node is not None
        if self.target is node:
            return  # two names of one file: POSIX wants nothing done
        if self.target is not None:
            self.remove(self.new_parent, self.new_name, self.target)
        moved = int(node.is_directory and self.old_parent is not self.new_parent)
        self.editing(self.old_parent).delete(self.old_name)
        self.edited(self.old_parent, links=-moved)
        self.editing(self.new_parent).insert(self.new_name, node.fid.vnode, node.fid.unique)
        self.edited(self.new_parent, links=moved)
        self._move(node, bool(moved))
        record = Rename(
            mtime=self.now,
            store_id=UNSENT,
            old_parent=self.old_parent.fid,
            old_name=self.old_name,
            new_parent=self.new_parent.fid,
            new_name=self.new_name,
            fid=node.fid,
        )
        parents = (
            [self.old_parent] if self.old_parent is self.new_parent else [self.old_parent, self.new_parent]
        )
        self.log(record, objects=[node], parents=parents)

    def _move(self, node: Node, to_other_parent: bool) -> None:
        before = node.parent, node.name
        node.parent, node.name = self.new_parent.ino, self.new_name
        self.core.cache.on_rollback(lambda: node.put(*before))
        parent = self.new_parent.fid[1:]
        if to_other_parent:
            directory = self.editing(node)
            directory.move_to(parent)
            self.core.nodes.change_status(node, parent=parent, length=directory.length)
            self.core.nodes.save_directory(node, directory)
        else:
            self.core.nodes.change_status(node, parent=parent)
        self.old_parent.kernel_names.discard(self.old_name)
        self.new_parent.kernel_names.add(self.new_name)

    def announce(self) -> None:
        """Tell the kernel of both names."""
        self.tell_name(self.old_parent, self.old_name)
        self.tell_name(self.new_parent, self.new_name)
