"""Who may do what, judged from cached rights (client.md §4, directories.md §5).

Directories carry the access list; files and links are governed by that of the directory they are in, so the
rights that came with a file's own status are those of its parent. In addition the owner's mode bits of a
*file* apply. The servers judge again when the log is replayed; judging here keeps out what they would refuse
hours later.
"""

from realmfs.realms.types import ANYUSER
from realmfs.venus.face import Caller
from realmfs.venus.node import Node
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import ObjectType, Rights, VolumeType

OWNER_READ, OWNER_WRITE, OWNER_EXECUTE = 0o400, 0o200, 0o100


class Access:
    """Judges by what nodes know of rights."""

    def rights(self, node: Node, uid: int) -> Rights:
        """Return what the user may do with the node; without own knowledge, what anybody may."""
        anybody = node.rights.get(ANYUSER, 0)
        return Rights(node.rights.get(uid, anybody) | anybody)

    def require(self, node: Node, caller: Caller, needed: Rights) -> None:
        """Raise CodaError EACCES unless the caller has all the rights needed."""
        if self.rights(node, caller.uid) & needed != needed:
            raise CodaError(Code.EACCES, f"{node.label}: not allowed")

    def require_any(self, node: Node, caller: Caller, one_of: Rights) -> None:
        """Raise CodaError EACCES unless the caller has one of the rights."""
        if not self.rights(node, caller.uid) & one_of:
            raise CodaError(Code.EACCES, f"{node.label}: not allowed")

    def require_writable(self, node: Node) -> None:
        """Raise CodaError EROFS for what nobody can change: `/coda`, backups, single replicas, conflicts."""
        if node.conflict or not writable(node):
            raise CodaError(Code.EROFS, f"{node.label} is read-only")

    def may_read(self, node: Node, caller: Caller) -> bool:
        """Tell whether the caller may read a file or list a directory."""
        if node.is_directory:
            return bool(self.rights(node, caller.uid) & Rights.LOOKUP)
        return self._file(node, caller, Rights.READ, OWNER_READ)

    def may_write(self, node: Node, caller: Caller) -> bool:
        """Tell whether the caller may change a file's contents, or the names in a directory."""
        if not writable(node) or node.conflict:
            return False
        if node.is_directory:
            return bool(self.rights(node, caller.uid) & (Rights.INSERT | Rights.DELETE))
        return self._file(node, caller, Rights.WRITE, OWNER_WRITE)

    def may_execute(self, node: Node, caller: Caller) -> bool:
        """Tell whether the caller may run a file or look names up in a directory."""
        if node.is_directory:
            return bool(self.rights(node, caller.uid) & Rights.LOOKUP)
        return self._file(node, caller, Rights.READ, OWNER_EXECUTE)

    def _file(self, node: Node, caller: Caller, needed: Rights, owner_bit: int) -> bool:
        if node.status is None or not self.rights(node, caller.uid) & needed:
            return False
        return node.type is ObjectType.SYMLINK or bool(node.status.mode & owner_bit)


def writable(node: Node) -> bool:
    """Tell whether the node's volume takes changes at all."""
    place = node.volume.place
    if place is None:
        return node.volume.key > 0
    return place.type in (VolumeType.REPLICATED, VolumeType.NON_REPLICATED)
