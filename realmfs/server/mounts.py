"""Mount links made by the administrator: how volumes get their places in the tree (directories.md §4)."""

from __future__ import annotations

import time

from realmfs.server.database import StoreError
from realmfs.server.store import NOBODY, ServerStore
from realmfs.server.vnodes import Vnode
from realmfs.server.volumes import ROOT_VOLUME
from realmfs.server.workingset import WorkingSet
from realmfs.vice.errors import CodaError
from realmfs.vice.mountlink import MOUNT_MODE, VolumeMount, format_mount_link, parse_mount_link
from realmfs.vice.types import Fid, ObjectType, StoreId, VersionVector


def make_mount(store: ServerStore, volume: str, path: str) -> None:
    """Mount a volume at `path`, whose directories above lie in the realm's root volume. Raises StoreError."""
    if store.locations.named(volume) is None:
        raise StoreError(f"there is no volume {volume}")
    *above, name = [part for part in path.encode().split(b"/") if part] or [b""]
    root = store.volumes.named(ROOT_VOLUME)
    if root is None or not name or volume == ROOT_VOLUME:
        raise StoreError(f"{volume} cannot be mounted at {path!r}")
    try:
        granted = store.volumes.allocate(root, False, 1)
        stamp = StoreId(store.number, store.new_store_ids())
        work = WorkingSet(store, root)
        parent = _walk(work, store.root_of(root), above)
        link = _mount_link(Fid(root.id, granted.vnode, granted.unique), parent, volume)
        work.create(link)
        contents = work.directory(parent.fid)
        contents.insert(name, *link.fid[1:])
        work.resize(parent, contents.length)
        parent.mtime, parent.data_version = link.mtime, parent.data_version + 1
        work.touch(parent, stamp)
        work.touch(link, stamp)
        work.commit(None)
    except CodaError as error:
        raise StoreError(f"{volume} cannot be mounted at {path}: {error}") from error


def _mount_link(fid: Fid, parent: Vnode, volume: str) -> Vnode:
    target, now = format_mount_link(VolumeMount(volume, "")), int(time.time())
    size, vv = len(target), VersionVector()
    link = Vnode(fid, ObjectType.SYMLINK, 1, size, 1, vv, now, NOBODY, NOBODY, MOUNT_MODE, parent.fid[1:])
    link.target = target
    return link


def mount_points(store: ServerStore) -> dict[str, list[str]]:
    """Return the mount links in the root volume: volume name to paths from the realm's root."""
    root = store.volumes.named(ROOT_VOLUME)
    found: dict[str, list[str]] = {}
    rows = store.database.rows(
        "SELECT vnode, uniq, parent_vnode, parent_unique, target FROM vnode WHERE volume = ? AND type = 3 "
        "AND mode = ?",
        root.id if root else 0,
        MOUNT_MODE,
    )
    for vnode, unique, parent_vnode, parent_unique, target in rows:
        link = parse_mount_link(target)
        if root is not None and isinstance(link, VolumeMount) and link.volume:
            path = _path(store, Fid(root.id, vnode, unique), Fid(root.id, parent_vnode, parent_unique))
            found.setdefault(link.volume, []).append(path)
    return found


def _walk(work: WorkingSet, directory: Fid, names: list[bytes]) -> Vnode:
    for name in names:
        entry = work.directory(directory).lookup(name)
        if entry is None:
            raise StoreError(f"there is no {name.decode('utf-8', 'replace')} in the root volume to mount in")
        directory = Fid(directory.volume, *entry)
    work.directory(directory)
    return work.get(directory)


def _path(store: ServerStore, child: Fid, parent: Fid) -> str:
    """Return the path of an object in its volume, by looking upwards."""
    names: list[str] = []
    while parent.vnode:
        contents = store.vnodes.take_directory(parent)
        store.vnodes.keep_directory(parent, contents)
        found = (name for name, *entry in contents.items() if (*entry,) == child[1:])
        names.append(next(found, b"?").decode("utf-8", "replace"))
        row = store.vnodes.find(parent)
        child, parent = parent, row.parent_fid if row is not None else Fid.zero()
    return "/" + "/".join(reversed(names))
