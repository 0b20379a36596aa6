"""Who may do what, judged from cached rights (client.md §4, directories.md §5).

Directories carry the access list; files and links are governed by that of the directory they are in. Servers
tell a file's rights with its status as well, but call nobody back for the *files* when a directory's list
changes. So a file is judged by what is known of its directory, whose promise breaks with its list (`judge`).
In addition the owner's mode bits of a *file* apply. The servers judge again when the log is replayed; judging
here keeps out what they would refuse hours later.

Which of the cached rights count for a local user:

    he has a token                    his own, asked for with it
    he has none, servers are away     his own, as far as they were ever told: work goes on (promise 4)
    he has none, servers are there    those of System:AnyUser; but his own, too, in a volume where changes of
                                      his wait for a login: so that he can go on with what he has begun

Nobody has less than System:AnyUser. What a user's token was told is forgotten when he logs out, and kept when
the token only ends (logins.py).
"""

from realmfs.realms.types import ANYUSER
from realmfs.venus.core import Core
from realmfs.venus.face import Caller
from realmfs.venus.node import Node
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import ObjectType, Rights, VolumeType

OWNER_READ, OWNER_WRITE, OWNER_EXECUTE = 0o400, 0o200, 0o100


class Access:
    """Judges by what nodes know of rights."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def judge(self, node: Node) -> Node:
        """Return the node whose rights count: a directory itself, else the one that it is in, if known."""
        if node.is_directory or not node.parent:
            return node
        parent = self._core.nodes.in_memory(node.parent)
        return parent if parent is not None and parent.status is not None else node

    def knows(self, node: Node, uid: int) -> bool:
        """Tell whether the rights of a user are those that servers would tell now."""
        asked = uid if self._core.volumes.has_token(node.volume, uid) else ANYUSER
        return node.knows(asked)

    def rights(self, node: Node, uid: int) -> Rights:
        """Return what the user may do with the node; without own knowledge, what anybody may."""
        judge = self.judge(node)
        anybody = judge.rights.get(ANYUSER, 0)
        own = judge.rights.get(uid, anybody) | anybody
        return Rights(own if own == anybody or self._counts(judge, uid) else anybody)

    def _counts(self, judge: Node, uid: int) -> bool:
        volume = judge.volume
        if volume.away or self._core.volumes.has_token(volume, uid):
            return True
        owner = self._core.cache.log.owner(volume.key)
        return owner is not None and owner[0] == uid

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
