"""The salvager that never has to repair: says whether a store is consistent in itself.

Everything a directory names exists and knows its parent; everything that exists is named as often as its link
count says; directories count their subdirectories; containers are there, with the length, and if known the
digest, of their rows; blocks in use are the sum over the objects.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator

from realmfs.rpc2.errors import BadPacket
from realmfs.server.store import ServerStore
from realmfs.server.vnodes import Vnode
from realmfs.server.volumes import Volume
from realmfs.vice.directory import Directory
from realmfs.vice.types import Fid

_CHUNK = 1 << 20


def check_store(store: ServerStore, *, contents: bool = False) -> list[str]:
    """Return what is wrong, a line each; with `contents` every file is read and its digest compared."""
    found: list[str] = []
    for volume in store.volumes.all():
        if volume.filling:
            found.append(f"{volume.name}: off line, its import was broken off")
            continue
        found += [f"{volume.name}: {trouble}" for trouble in _check_volume(store, volume, contents)]
    return found


def _check_volume(store: ServerStore, volume: Volume, contents: bool) -> Iterator[str]:
    vnodes = {vnode.fid: vnode for vnode in store.vnodes.all(volume.id)}
    root = vnodes.get(store.root_of(volume))
    if root is None or not root.is_directory:
        yield "there is no root directory"
        return
    named: Counter[Fid] = Counter({root.fid: 1})
    for vnode in vnodes.values():
        if vnode.is_directory:
            yield from _check_directory(store, vnode, vnodes, named)
        elif vnode.container is not None or vnode.target is None:
            yield from _check_contents(store, vnode, contents)
    for vnode in vnodes.values():
        names = 1 if vnode.is_directory else vnode.links
        if named[vnode.fid] != names:
            yield f"{vnode.fid} has {named[vnode.fid]} names and should have {names}"
    blocks = sum(vnode.blocks for vnode in vnodes.values())
    if blocks != volume.blocks:
        yield f"{blocks} blocks are in use, {volume.blocks} are counted"


def _check_directory(
    store: ServerStore, vnode: Vnode, vnodes: dict[Fid, Vnode], named: Counter[Fid]
) -> Iterator[str]:
    image = store.vnodes.image(vnode.fid)
    try:
        entries = list(Directory.parse(image).items())
    except BadPacket as error:
        yield f"directory {vnode.fid} cannot be read: {error}"
        return
    if len(image) != vnode.length or vnode.acl is None:
        yield f"directory {vnode.fid} has {len(image)} bytes, not {vnode.length}, or no access list"
    below = 0
    for name, *entry in entries:
        fid = Fid(vnode.fid.volume, *entry)
        if name in (b".", b".."):
            expected = vnode.fid if name == b"." or not vnode.parent[0] else vnode.parent_fid
            if fid != expected:
                yield f"{name.decode()} of {vnode.fid} is {fid}, not {expected}"
            continue
        named[fid] += 1
        child = vnodes.get(fid)
        if child is None or child.parent_fid != vnode.fid:
            yield f"{name!r} in {vnode.fid} is {fid}, which is not there or not at home"
        below += child is not None and child.is_directory
    if vnode.links != 2 + below:
        yield f"directory {vnode.fid} counts {vnode.links} links and has {below} subdirectories"


def _check_contents(store: ServerStore, vnode: Vnode, contents: bool) -> Iterator[str]:
    if vnode.container is None:
        if vnode.length:
            yield f"file {vnode.fid} has no container for its {vnode.length} bytes"
        return
    path = store.containers.path(vnode.container)
    try:
        size = path.stat().st_size
    except OSError as error:
        yield f"the container of {vnode.fid} cannot be read: {error.strerror}"
        return
    if size != vnode.length:
        yield f"the container of {vnode.fid} has {size} bytes, not {vnode.length}"
    elif contents and vnode.sha is not None:
        digest = hashlib.sha1(usedforsecurity=False)
        with path.open("rb") as file:
            while chunk := os.read(file.fileno(), _CHUNK):
                digest.update(chunk)
        if digest.digest() != vnode.sha:
            yield f"the container of {vnode.fid} has other bytes than were stored"
