"""Mount links: symbolic links of mode 0644 whose text names the volume, or the object, to go on with.

    #vol.           the root of the volume `vol`, in the realm of the volume that holds the link #vol@realm.
    the same in another realm #@realm.        the root volume of a realm #.              the volume named as
    the link's own path from the realm's root @V.N.U@realm.   an object by its fid, in three hexadecimal
    numbers; only in links that this client makes up $V.N.U@realm.   the same, what a repaired conflict leaves
    behind

Old links lack the dot at the end (directories.md §4.1). A text that is none of these is a plain symbolic
link.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from realmfs.vice.types import Fid, ObjectType

MOUNT_MODE: Final = 0o644
"""The mode that makes a symbolic link a mount link: exactly this."""

_FID: Final = re.compile(r"([0-9a-f]{1,8})\.([0-9a-f]{1,8})\.([0-9a-f]{1,8})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class VolumeMount:
    """A link to the root of a volume."""

    volume: str
    """Its name. Empty: the realm's root volume if `realm` is given, else the link's own path."""
    realm: str
    """Empty: the realm of the volume that holds the link."""

    @property
    def is_own_path(self) -> bool:
        """Whether the volume is named as the link's path."""
        return not self.volume and not self.realm


@dataclass(frozen=True, slots=True)
class ObjectMount:
    """A link to an object by its fid. Never follow one that a server supplied (directories.md §4.1)."""

    fid: Fid
    realm: str
    """Empty: the realm of the volume that holds the link."""
    collapsed: bool
    """Whether it is the `$` form."""


MountLink = VolumeMount | ObjectMount


def is_mount_link(kind: ObjectType, mode: int) -> bool:
    """Whether an object of this type and mode may be a mount link; its text has the last word."""
    return kind is ObjectType.SYMLINK and mode & 0o7777 == MOUNT_MODE


def parse_mount_link(text: bytes) -> MountLink | None:
    """Read the contents of a symbolic link; None if they are no mount link's."""
    try:
        word = text.decode()
    except UnicodeDecodeError:
        return None
    if len(word) < 2 or word[0] not in "#@$" or "\0" in word or "/" in word.rpartition("@")[2]:
        return None
    kind, rest = word[0], word[1:].removesuffix(".")
    name, at, realm = rest.rpartition("@")
    if not at:
        name, realm = rest, ""
    if kind == "#":
        return VolumeMount(name, realm)
    numbers = _FID.fullmatch(name)
    if numbers is None:
        return None
    return ObjectMount(Fid(*(int(number, 16) for number in numbers.groups())), realm, kind == "$")


def format_mount_link(link: MountLink) -> bytes:
    """Return the text of a mount link, with the dot at its end."""
    realm = f"@{link.realm}" if link.realm else ""
    if isinstance(link, VolumeMount):
        return f"#{link.volume}{realm}.".encode()
    mark = "$" if link.collapsed else "@"
    return f"{mark}{link.fid.volume:08x}.{link.fid.vnode:08x}.{link.fid.unique:08x}{realm}.".encode()


def conflict_text(fid: Fid, realm: str) -> bytes:
    """Return the text of the dangling link that an object in conflict is shown as (conflicts.md §3.1)."""
    return format_mount_link(ObjectMount(fid, realm, collapsed=False))
