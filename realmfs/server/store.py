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
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, Self

from realmfs.server.access import Acl
from realmfs.server.containers import Containers
from realmfs.server.database import Database, StoreError, sync_directory
from realmfs.server.elements import Elements
from realmfs.server.keys import former_key, good_until, keys_at
from realmfs.server.locations import Location, Locations
from realmfs.server.protection import Protection
from realmfs.server.views import Stamp, Tomb
from realmfs.server.vnodes import Vnode, Vnodes, new_root
from realmfs.server.volumes import IMPORTING, JOINING, ROOT_VOLUME, ServerAddress, Volume, Volumes
from realmfs.vice.types import Fid, Rights, StoreId, VersionFlags

log = logging.getLogger(__name__)

FILE_PORT: Final = 2432
NOBODY: Final = 0
"""The owner of what the realm itself has: an id that no user gets."""
READ_LOOKUP: Final = int(Rights.READ | Rights.LOOKUP)
_TOKEN_KEY_LENGTH = 8
_DATABASE: Final = "store.db"
_UNFINISHED: Final = "store.new"
"""What the database is called until everything that a store begins with is in it."""


class ServerStore:
    """What a server keeps. Not for use by several threads; `with` closes it."""

    def __init__(self, directory: Path, database: Database, lock_fd: int = -1) -> None:
        self.directory = directory
        self.database = database
        self.containers = Containers(directory / "containers")
        self.volumes = Volumes(database)
        self.locations = Locations(database)
        self.elements = Elements(database)
        self.vnodes = Vnodes(database)
        self.protection = Protection(database)
        self._lock_fd = lock_fd

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
        servers: Sequence[int] = (),
        founding: bool = True,
        secret: bytes | None = None,
    ) -> Self:
        """Make a new store with an empty root volume, locked for the caller.

        The root volume's replicas are at `servers`, by default only here. With `founding` False there is
        nothing in the store, no volume, user or key: it is for a server that joins others. `secret` is what
        the servers of a realm of several share.

        The database is made under another name and renamed when all is in it: a store is there whole or not
        at all, whenever the program dies and whoever looks.

        `address` is the dotted IPv4 address that clients are told, `number` the server's (1..254, not 127),
        `anyuser` the rights that everybody has on the root. Raises StoreError.
        """
        if not 1 <= number <= 254 or number == 0x7F:
            raise StoreError(f"a server's number is 1 to 254 without 127, not {number}")
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock_fd = _lock(directory)
        try:
            if (directory / _DATABASE).exists():
                raise StoreError(f"{directory} holds a store already")
            for leftover in directory.glob(f"{_UNFINISHED}*"):
                leftover.unlink()
            with closing(cls(directory, Database(directory / _UNFINISHED, create=True))) as store:
                store.set("realm", realm)
                store.set("number", number)
                store.set_address(address, port)
                if secret is not None:
                    store.set("secret", secret)
                if founding:
                    store._found(anyuser, servers)
                else:
                    store.set("realm_version", 0)
            (directory / _UNFINISHED).rename(directory / _DATABASE)
            sync_directory(directory)
            return cls(directory, Database(directory / _DATABASE), lock_fd)
        except BaseException:
            os.close(lock_fd)
            raise

    @classmethod
    def open(cls, directory: Path, *, lock: bool = True) -> Self:
        """Open the store in `directory`.

        With the lock, also remove what a crash left behind. Raises StoreError.
        """
        store = cls(directory, Database(directory / _DATABASE))
        try:
            if lock:
                store.lock()
                store.recover()
        except BaseException:
            store.close()
            raise
        return store

    def _found(self, anyuser: int, servers: Sequence[int]) -> None:
        """Make what is in a new realm."""
        with self.database.transaction():
            self.set("keeper", self.number)
            self.set("token_key", secrets.token_bytes(_TOKEN_KEY_LENGTH))
            self.protection.initialise()
            self.create_volume(ROOT_VOLUME, anyuser=anyuser, servers=servers)

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
        self._lock_fd = _lock(self.directory)

    def recover(self) -> None:
        """Remove containers that no row names; say which volumes a broken import has left."""
        orphans = self.containers.remove_all_but(self.vnodes.containers())
        if orphans:
            log.info("removed %d containers that a crash had left", orphans)
        for volume in self.volumes.all():
            if volume.filling == IMPORTING:
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
        rows = self.database.rows("SELECT number, address, port, stamp FROM server")
        return {row[0]: ServerAddress(*row) for row in rows}

    def set_address(self, address: str, port: int) -> None:
        """Change what clients are told of this server. Raises StoreError."""
        try:
            parsed = ipaddress.IPv4Address(address)
        except ValueError as error:
            raise StoreError(f"{address} is no IPv4 address") from error
        if parsed.is_unspecified or parsed.is_multicast or not 0 < port < 1 << 16:
            raise StoreError(f"{address}:{port} is nothing that a client could send to")
        present = self.servers().get(self.number)
        if present is None or (present.address, present.port) != (str(parsed), port):
            stamp = max(int(time.time()), present.stamp + 1 if present else 0)
            self.note_server(ServerAddress(self.number, str(parsed), port, stamp))

    def note_server(self, server: ServerAddress) -> bool:
        """Note where a server is, if that is news; whether it is."""
        known = self.servers().get(server.number)
        if known is not None and known.stamp >= server.stamp:
            return False
        self.database.execute("INSERT OR REPLACE INTO server VALUES (?, ?, ?, ?)", tuple(server))
        return True

    def token_keys(self, now: float | None = None) -> list[bytes]:
        """Return the keys tokens may be sealed with; new ones are sealed with the first (keys.py)."""
        return keys_at(self.get("token_key"), self.get("old_token_key"), time.time() if now is None else now)

    def change_token_key(self, *, now: float | None = None, revoke: bool = False) -> float:
        """Seal tokens with a new key; return until when those sealed with the present one are good.

        In a realm of several servers the new key is used once all have had the time to hear of it. `revoke`
        ends all logins at once instead. Raises StoreError while a change before has not run out.
        """
        now = time.time() if now is None else now
        if not revoke and (until := self.old_key_until(now)) is not None:
            left = (until - now) / 3600
            raise StoreError(
                f"logins by the key before the present one hold for {left:.1f} h more; wait, or revoke"
            )
        alone = len(self.servers()) < 2
        old = former_key(self.token_keys(now)[0], now, alone=alone, revoke=revoke)
        with self.transaction():
            self.set("old_token_key", old)
            self.set("token_key", secrets.token_bytes(_TOKEN_KEY_LENGTH))
        return good_until(old)

    def seal_passwords(self, passphrase: bytes) -> None:
        """Seal all passwords, and see that the disk has them no more as they were. No server may run.

        Raises StoreError and ProtectionError.
        """
        if self._lock_fd < 0:
            self.lock()
        with self.transaction():
            self.protection.seal(passphrase)
            self.set("realm_version", int(self.get("realm_version") or 0) + 1)
        self.database.compact()

    def old_key_until(self, now: float) -> float | None:
        """Return until when the key before the present one is good; None if it is not any more."""
        old = self.get("old_token_key")
        until = good_until(old) if isinstance(old, bytes) else 0.0
        return until if until > now else None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the block changes, all or nothing. The block must not await."""
        with self.database.transaction():
            yield

    def create_volume(
        self,
        name: str,
        *,
        anyuser: int = READ_LOOKUP,
        owner: int | None = None,
        filling: bool = False,
        servers: Sequence[int] = (),
        quota: int = 0,
    ) -> Volume:
        """Make an empty volume with its root directory, one of whose replicas is here. Raises StoreError.

        The root is owned by `owner` (a Vice id), who gets all rights on it, or by the administrators. The
        replicas are at `servers`, by default only here; the other servers make theirs when they hear of it.
        """
        places = servers or (self.number,)
        location = self.place_volume(name, places, anyuser=anyuser, owner=owner, quota=quota)
        if location.at(self.number) is None:
            raise StoreError(f"none of the replicas of {name} is at this server")
        with self.transaction():
            return self.make_replica(location, IMPORTING if filling else 0)

    def place_volume(
        self,
        name: str,
        servers: Sequence[int],
        *,
        anyuser: int = READ_LOOKUP,
        owner: int | None = None,
        quota: int = 0,
    ) -> Location:
        """Give a new volume its id and its places; nothing exists of it yet. Raises StoreError."""
        acl = self.protection.default_acl(anyuser)
        if owner is not None:
            acl = Acl((*acl.positive, (owner, int(Rights.ALL))))
        with self.transaction():
            return self.locations.add(name, self.realm, servers, owner or NOBODY, acl, quota)

    def make_replica(self, location: Location, filling: int = 0) -> Volume:
        """Make this server's replica of a volume: the same root that all servers make.

        A JOINING one gets only the shell of a root, for others to fill.
        """
        place = location.at(self.number)
        assert place is not None
        volume = self.volumes.add(
            location.group_id, location.name, place.slot, place.id, location.created, filling
        )
        self.volumes.set_status(volume.id, max_quota=location.quota)
        root, contents = new_root(volume.id, location.owner, location.created, location.acl)
        if filling == JOINING:
            root.vv = root.vv.with_flags(VersionFlags.BARREN)
        self.vnodes.write([root])
        self.vnodes.write_pages(root.fid, contents.take_dirty())
        self.volumes.settle(volume.id, 0, root.blocks)
        return volume

    def note_attribute(self, volume: Volume, directory: Vnode, name: bytes, op: StoreId) -> None:
        """Note that `op` has set an attribute of a directory, for the day when replicas differ (merge.py)."""
        if self.volumes.replicas(volume) > 1:
            stamp, child = self.elements.stamp(directory.fid, name), directory.fid[1:]
            tomb = Tomb(name=name, child=child, stamp=stamp, op=op, batch=op, vv=directory.vv)
            self.elements.leave(directory.fid, [tomb])
            self.elements.enter(directory.fid, [Stamp(name=name, id=op)])

    def remove_volume(self, volume: Volume) -> None:
        """Remove a volume and all that is in it; mount links to it then lead nowhere. Needs the lock."""
        with self.transaction():
            self.volumes.remove(volume)
            self.locations.remove(volume.group_id)
        self.containers.remove_all_but(self.vnodes.containers())

    def count_start(self) -> int:
        """Return a number that is another at each start of the server."""
        with self.transaction():
            starts = int(self.get("starts") or 0) + 1
            self.set("starts", starts)
        return starts << 16 | secrets.randbelow(1 << 16)

    @property
    def knows_realm(self) -> bool:
        """Whether there are users and volumes here: not yet at a server that has just joined others."""
        return int(self.get("realm_version") or 0) > 0

    @property
    def is_keeper(self) -> bool:
        """Whether users, groups, passwords and volumes are changed here: at one server of a realm."""
        return int(self.get("keeper") or self.number) == self.number

    def new_store_ids(self, count: int = 1) -> int:
        """Set aside `count` uniquifiers for updates made by this server itself; return the first."""
        with self.transaction():
            last = int(self.get("last_store_id") or 0)
            self.set("last_store_id", last + count)
        return last + 1

    def root_of(self, volume: Volume) -> Fid:
        """Return the fid of a volume's root directory, under the replica's id."""
        return Fid.root(volume.id)


def _lock(directory: Path) -> int:
    """Lock a store's directory; return the descriptor that holds it. Raises StoreError."""
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise StoreError(
            f"{directory} is in use: a server or an import runs on it. End that first, or name another --data"
        ) from error
    return fd
