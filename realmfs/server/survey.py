"""A survey: the versions of all objects of a replica, 52 bytes each, to find what two replicas differ in."""

from __future__ import annotations

import hashlib
import struct
from typing import Final

from realmfs.rpc2.errors import BadPacket
from realmfs.server.store import ServerStore
from realmfs.server.views import Node
from realmfs.server.volumes import Volume

_LINE: Final = struct.Struct(">2I32s3I")
_TOLD: Final = 0x05
"""The flags that count: INCON and BARREN."""


def survey(store: ServerStore, volume: Volume) -> bytes:
    """Return the survey of a replica, in the order of fids."""
    rows = store.database.rows(
        "SELECT vnode, uniq, versions, store_host, store_unique, flags & ? FROM vnode WHERE volume = ? "
        "ORDER BY vnode, uniq", _TOLD, volume.id,
    )  # fmt: skip
    return b"".join(_LINE.pack(*row) for row in rows)


def digest(found: bytes) -> bytes:
    """Return what stands for a survey."""
    return hashlib.sha1(found, usedforsecurity=False).digest()


def differences(ours: bytes, theirs: bytes) -> list[Node]:
    """Return what is not the same in two surveys: directories first. Raises BadPacket."""
    if len(ours) % _LINE.size or len(theirs) % _LINE.size:
        raise BadPacket("a survey that is cut short")
    nodes = {line[:2] for line in set(_LINE.iter_unpack(ours)) ^ set(_LINE.iter_unpack(theirs))}
    return sorted(nodes, key=lambda node: (not node[0] & 1, node))
