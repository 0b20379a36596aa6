"""The store of a server that `realmfs serve` starts: opened, founded, or empty and waiting for the others."""

from dataclasses import dataclass
from pathlib import Path

import click

from realmfs.server.database import StoreError
from realmfs.server.groupfile import GroupFile, editing, store_directory
from realmfs.server.imports import Imported, import_tree
from realmfs.server.mounts import make_mount
from realmfs.server.store import ServerStore
from realmfs.server.volumes import IMPORTING, ROOT_VOLUME, ServerAddress

_SHOWN_SKIPPED = 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for."""

    realm: str
    data: Path
    count: int
    """Servers of the realm."""
    source: Path | None
    """What a new realm's root volume is filled with."""
    volumes: tuple[tuple[str, Path | None], ...]
    anyuser: int

    @property
    def servers(self) -> tuple[int, ...]:
        """The numbers of the servers that new volumes are placed at."""
        return tuple(range(1, self.count + 1))


def prepare(wanted: Wanted, number: int, address: str) -> ServerStore:
    """Open or make the store of a server, with everything in it that the command line asks for.

    Raises StoreError.
    """
    if wanted.count == 1:
        exists = (wanted.data / "store.db").exists()
        if exists:
            store = ServerStore.open(wanted.data)
        else:
            store = ServerStore.create(wanted.data, wanted.realm, address, anyuser=wanted.anyuser)
        return _filled(store, wanted, is_new=not exists)
    directory = store_directory(wanted.data, number)
    if (wanted.data / "store.db").exists():
        raise StoreError(f"{wanted.data} holds the store of a server that is alone")
    with editing(wanted.data, wanted.realm, wanted.count) as group:
        exists = (directory / "store.db").exists()
        founds = number == 1 and not group.founded
        store = ServerStore.open(directory) if exists else _make(wanted, group, number, address, founds)
        group.founded = group.founded or founds
    return _filled(store, wanted, is_new=founds) if store.knows_realm and store.is_keeper else store


def announce(wanted: Wanted, store: ServerStore) -> None:
    """Note in the group's file where a server is, and take from it where the others are.

    Both at once: of servers that are started together at least the last finds the others. Raises StoreError.
    """
    if wanted.count > 1:
        with editing(wanted.data, wanted.realm, wanted.count) as group:
            taken = [one for one, (ip, _) in group.servers.items() if ip == store.address.address]
            if any(one != store.number for one in taken):
                raise StoreError(
                    f"{store.address.address} is server {taken[0]}: each needs an address of its own"
                )
            group.servers[store.number] = store.address.address, store.address.port
            with store.transaction():
                for other, (ip, port) in group.servers.items():
                    if other != store.number:
                        store.note_server(ServerAddress(other, ip, port, 1))


def _make(wanted: Wanted, group: GroupFile, number: int, address: str, founds: bool) -> ServerStore:
    return ServerStore.create(
        store_directory(wanted.data, number), wanted.realm, address, number=number, anyuser=wanted.anyuser,
        servers=wanted.servers, founding=founds, secret=group.secret,
    )  # fmt: skip


def _filled(store: ServerStore, wanted: Wanted, *, is_new: bool) -> ServerStore:
    try:
        if store.realm != wanted.realm:
            raise StoreError(f"{wanted.data} is of the realm {store.realm}, not {wanted.realm}")
        root = store.volumes.named(ROOT_VOLUME)
        broken_off = root is not None and root.filling == IMPORTING
        if wanted.source is not None and (is_new or broken_off):
            _report(ROOT_VOLUME, import_tree(store, ROOT_VOLUME, wanted.source))
        for name, directory in wanted.volumes:
            _add_volume(store, wanted, name, directory)
    except BaseException:
        store.close()
        raise
    return store


def _add_volume(store: ServerStore, wanted: Wanted, name: str, directory: Path | None) -> None:
    volume = store.volumes.named(name)
    if volume is not None and not volume.filling:
        return
    if volume is None:
        filling = directory is not None
        store.create_volume(name, anyuser=wanted.anyuser, filling=filling, servers=wanted.servers)
    if directory is not None:
        _report(name, import_tree(store, name, directory))
    if volume is None:
        make_mount(store, name, name)


def _report(volume: str, done: Imported) -> None:
    click.echo(
        f"{volume}: imported {done.files} files, {done.directories} directories, {done.links} links, "
        f"{done.bytes / 1e6:.1f} MB",
        err=True,
    )
    for path, reason in done.skipped[:_SHOWN_SKIPPED]:
        click.echo(f"{volume}: left out {path}: {reason}", err=True)
    if len(done.skipped) > _SHOWN_SKIPPED:
        click.echo(f"{volume}: and {len(done.skipped) - _SHOWN_SKIPPED} more", err=True)
