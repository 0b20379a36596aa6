"""The store of one file server: a directory with a database, container files and a lock.

    DIR/store.db       everything but the bytes of files (schema.sql)
    DIR/containers/    the bytes (containers.py)
    DIR/lock           held by the one process that may make containers: the server, or an import

Administration of users, groups and volumes needs no lock: it opens the database beside the running server,
which notices within a second, drops what it had read, and breaks the promises it gave (database.py,
fileserver.py).
"""

from __future__ import annotations

import fcntl
import ipaddress
import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from realmfs.server.access import Acl
from realmfs.server.containers import Containers
from realmfs.server.database import Database, StoreError
from realmfs.server.protection import Protection
from realmfs.server.vnodes import Vnodes, new_root
from realmfs.server.volumes import ROOT_VOLUME, ServerAddress, Volume, Volumes
from realmfs.vice.types import Fid, Rights

log = logging.getLogger(__name__)

FILE_PORT: Final = 2432
NOBODY: Final = 0
"""The owner of what the realm itself has: an id that no user gets."""
READ_LOOKUP: Final = int(Rights.READ | Rights.LOOKUP)
_TOKEN_KEY_LENGTH = 8


class ServerStore:
    """What a server keeps. Not for use by several threads; `with` closes it."""

    def __init__(self, directory: Path, database: Database) -> None:
        self.directory = directory
        self.database = database
        self.containers = Containers(directory / "containers")
        self.volumes = Volumes(database)
        self.vnodes = Vnodes(database)
        self.protection = Protection(database)
        self._lock_fd = -1

    @classmethod
    def create(
        cls,
        directory: Path,
        realm: str,
        address: str,
        *,
        port: int = FILE_PORT,
        number: int = 1,
        anyuser: int = READ_LOOKUP,
    ) -> Self:
        """Make a new store with an empty root volume, locked for the caller.

        `address` is the dotted IPv4 address that clients are told, `number` the server's (1..254, not 127),
        `anyuser` the rights that everybody has on the root. Raises StoreError.
        """
        if not 1 <= number <= 254 or number == 0x7F:
            raise StoreError(f"a server's number is 1 to 254 without 127, not {number}")
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        store = cls(directory, Database(directory / "store.db", create=True))
        try:
            store.lock()
            with store.database.transaction():
                store.set("realm", realm)
                store.set("number", number)
                store.set("token_key", secrets.token_bytes(_TOKEN_KEY_LENGTH))
                store.set_address(address, port)
                store.protection.initialise()
                store.create_volume(ROOT_VOLUME, anyuser=anyuser)
            store.database.sync()
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def open(cls, directory: Path, *, lock: bool = True) -> Self:
        """Open the store in `directory`.

        With the lock, also remove what a crash left behind. Raises StoreError.
        """
        store = cls(directory, Database(directory / "store.db"))
        try:
            if lock:
                store.lock()
                store.recover()
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Close the database and give up the lock."""
        self.database.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def lock(self) -> None:
        """Be the one process that makes containers. Raises StoreError if there is one already."""
        fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            raise StoreError(f"{self.directory} is in use: a server or an import is running on it") from error
        self._lock_fd = fd

    def recover(self) -> None:
        """Remove containers that no row names; say which volumes a broken import has left."""
        orphans = self.containers.remove_all_but(self.vnodes.containers())
        if orphans:
            log.info("removed %d containers that a crash had left", orphans)
        for volume in self.volumes.all():
            if volume.filling:
                log.warning(
                    "the import into volume %s was broken off; it stays off line until it is repeated",
                    volume.name,
                )

    def get(self, name: str) -> str | int | bytes | None:
        """Return a setting."""
        row = self.database.row("SELECT value FROM setting WHERE name = ?", name)
        return row[0] if row else None

    def set(self, name: str, value: str | int | bytes) -> None:
        """Change a setting."""
        self.database.execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", (name, value))

    @property
    def realm(self) -> str:
        """The name of the realm."""
        return str(self.get("realm"))

    @property
    def number(self) -> int:
        """This server's number: the high byte of the ids it makes."""
        return int(self.get("number") or 0)

    @property
    def address(self) -> ServerAddress:
        """What clients are told of this server."""
        return self.servers()[self.number]

    def servers(self) -> dict[int, ServerAddress]:
        """Return all file servers of the realm by number."""
        rows = self.database.rows("SELECT number, address, port FROM server")
        return {row[0]: ServerAddress(*row) for row in rows}

    def set_address(self, address: str, port: int) -> None:
        """Change what clients are told of this server. Raises StoreError."""
        try:
            parsed = ipaddress.IPv4Address(address)
        except ValueError as error:
            raise StoreError(f"{address} is no IPv4 address") from error
        if parsed.is_unspecified or parsed.is_multicast or not 0 < port < 1 << 16:
            raise StoreError(f"{address}:{port} is nothing that a client could send to")
        self.database.execute(
            "INSERT OR REPLACE INTO server VALUES (?, ?, ?)", (self.number, str(parsed), port)
        )

    def token_keys(self) -> list[bytes]:
        """Return the keys tokens may be sealed with; new ones are sealed with the first (auth.md §4.4)."""
        keys = (self.get("token_key"), self.get("old_token_key"))
        return [key for key in keys if isinstance(key, bytes)]

    def change_token_key(self, key: bytes | None = None) -> None:
        """Seal tokens with a new key from now on; those sealed with the present one stay good."""
        with self.transaction():
            self.set("old_token_key", self.token_keys()[0])
            self.set("token_key", key or secrets.token_bytes(_TOKEN_KEY_LENGTH))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the block changes, all or nothing. The block must not await."""
        with self.database.transaction():
            yield

    def create_volume(
        self, name: str, *, anyuser: int = READ_LOOKUP, owner: int | None = None, filling: bool = False
    ) -> Volume:
        """Make an empty volume with its root directory. Raises StoreError.

        The root is owned by `owner` (a Vice id), who gets all rights on it, or by the administrators.
        """
        acl = self.protection.default_acl(anyuser)
        if owner is not None:
            acl = Acl((*acl.positive, (owner, int(Rights.ALL))))
        with self.transaction():
            volume = self.volumes.create(name, self.realm, self.number, filling=filling)
            root, contents = new_root(volume.id, owner or NOBODY, int(time.time()), acl)
            self.vnodes.write([root])
            self.vnodes.write_pages(root.fid, contents.take_dirty())
            self.volumes.settle(volume.id, 0, root.blocks)
        return volume

    def remove_volume(self, volume: Volume) -> None:
        """Remove a volume and all that is in it; mount links to it then lead nowhere. Needs the lock."""
        with self.transaction():
            self.volumes.remove(volume)
        self.containers.remove_all_but(self.vnodes.containers())

    def new_store_ids(self, count: int = 1) -> int:
        """Set aside `count` uniquifiers for updates made by this server itself; return the first."""
        with self.transaction():
            last = int(self.get("last_store_id") or 0)
            self.set("last_store_id", last + count)
        return last + 1

    def root_of(self, volume: Volume) -> Fid:
        """Return the fid of a volume's root directory, under the replica's id."""
        return Fid.root(volume.id)
