"""How an object looks to stat(2) (client.md §1 "What stat shows")."""

import stat

from realmfs.realms.types import ANYUSER
from realmfs.venus.face import ROOT_INODE, Attr
from realmfs.venus.names import conflict_text
from realmfs.venus.node import Node
from realmfs.venus.settings import VenusSettings
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import ObjectType, Rights

NOBODYS_GROUP = 65534
NO_REALM = 10.0  # seconds that the kernel may take a realm for absent
_TYPE_BITS = {
    ObjectType.FILE: stat.S_IFREG,
    ObjectType.DIRECTORY: stat.S_IFDIR,
    ObjectType.SYMLINK: stat.S_IFLNK,
}


def attr_of(node: Node, settings: VenusSettings, name_lasts: float = 0.0) -> Attr:
    """Return the attributes of a node with status; its name, if it was looked up, is good for `name_lasts` s.

    The kernel may keep what a promise covers until we tell it otherwise. Directories have one link, so that
    find(1) does not count subdirectories behind mount links.
    """
    attr_timeout = settings.kernel_timeout if node.valid and node.shows is None else 0.0
    entry_timeout = name_lasts if node.shows is None else 0.0  # a conflict may be over any time
    if node.conflict:
        size = len(conflict_text(node.fid, node.volume.realm))
        return Attr(node.ino, stat.S_IFLNK | 0o644, 1, size, 0, 0, NOBODYS_GROUP, 0, 0.0, 0.0)
    status = node.status
    if status is None:
        raise CodaError(Code.ETIMEDOUT, f"{node.label}: nothing is known of it")
    mode = status.mode & (0o1777 if status.type is ObjectType.FILE else 0o7777)
    return Attr(
        ino=node.ino,
        mode=_TYPE_BITS[status.type] | mode,
        links=1 if node.is_directory else max(status.links, 0 if node.gone else 1),
        size=status.length,
        mtime_ns=status.date * 10**9,
        uid=status.owner,
        gid=NOBODYS_GROUP,
        blocks=(status.length + 511) // 512,
        entry_timeout=entry_timeout,
        attr_timeout=attr_timeout,
    )


def name_timeout(parent: Node, settings: VenusSettings) -> float:
    """Return for how long the kernel may take names in a directory for granted, in seconds.

    The kernel shows what it remembers to every user who may use the mount. Where that are several, it may
    remember only names that anybody may look up, and asks us about the others each time, for whoever asks.
    Attributes need no such care: they are reached through names or open files.
    """
    if not parent.valid or parent.shows is not None:
        return 0.0
    if settings.shared and not (parent.knows(ANYUSER) and parent.rights[ANYUSER] & Rights.LOOKUP):
        return 0.0
    return settings.kernel_timeout


def no_such_name(parent: Node, settings: VenusSettings) -> Attr:
    """Return the answer that a name does not exist; the kernel may remember it with the directory."""
    timeout = name_timeout(parent, settings)
    if parent.ino == ROOT_INODE:  # of realms that come to be nobody tells us
        timeout = min(timeout, NO_REALM)
    return Attr(0, 0, 0, 0, 0, 0, 0, 0, timeout, 0.0)
