"""What all calls of the file service share: store, clients, locks of volumes, clock and counters.

Handlers are plain functions of (caller, arguments): they find objects here, decide, and either return a reply
or raise CodaError, or Refusal where the protocol wants something said beside the error.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import trio

from realmfs.rpc2.endpoint import Endpoint
from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.service import Request as Transferring
from realmfs.server.access import Acl, Identity
from realmfs.server.hosts import Host, Hosts, Session
from realmfs.server.store import ServerStore
from realmfs.server.views import Node
from realmfs.server.vnodes import Vnode
from realmfs.server.volumes import Volume
from realmfs.vice.cop2 import unpack_entries
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Fid, Status, VersionFlags
from realmfs.vice.wire import Results

LOCK_PATIENCE: Final = 2.0
"""Seconds that a change waits for another one in the same volume before it is answered EWOULDBLOCK."""


class Refusal(Exception):  # noqa: N818  # an answer, not a mistake
    """An error whose reply carries something, such as the record to blame."""

    def __init__(self, code: int, reply: Results) -> None:
        super().__init__(code)
        self.code = code
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call, from where, and the side effect that comes with it."""

    session: Session
    identity: Identity
    request: Transferring

    @property
    def host(self) -> Host:
        """The client."""
        return self.session.host

    def require_administrator(self) -> None:
        """Raise CodaError EACCES unless the caller is one."""
        if not self.identity.administrator:
            raise CodaError(Code.EACCES, "for administrators only")


@dataclass(frozen=True, slots=True)
class Found:
    """An object and its volume, as a request named them."""

    volume: Volume
    vnode: Vnode
    named: Fid
    """The fid as the client gave it: with the replicated volume's id or the replica's.

    Promises are made for it.
    """

    @property
    def replicated(self) -> bool:
        """Whether the client spoke of the replicated volume: version vectors count, not data versions."""
        return self.named.volume == self.volume.group_id


class ServerState:
    """The file service's common ground. One per server."""

    def __init__(
        self, store: ServerStore, endpoint: Endpoint, clock: Callable[[], float] = time.time
    ) -> None:
        self.store = store
        self.endpoint = endpoint
        self.clock = clock
        self.hosts = Hosts(endpoint)
        self.started = int(clock())
        self.counters: Counter[str] = Counter()
        self.resolve: Callable[[int, Node], Awaitable[None]] | None = None
        """Makes the replicas of an object equal; None at a server that is alone."""
        self._locks: dict[int, trio.Lock] = {}

    # finding

    def volume(self, number: int) -> Volume:
        """Return the volume of a replica's or replicated volume's id. Raises CodaError VNOVOL, VOFFLINE."""
        volume = self.store.volumes.find(number)
        if volume is None:
            raise CodaError(Code.VNOVOL)
        if volume.filling:
            raise CodaError(Code.VOFFLINE)
        return volume

    def group(self, number: int) -> Volume:
        """Return the volume of a replicated id, for the calls that insist on one.

        Raises CodaError EINVAL, VOFFLINE.
        """
        volume = self.store.volumes.find(number)
        if volume is None or volume.group_id != number:
            raise CodaError(Code.EINVAL, "not a replicated volume of this server")
        return self.volume(number)

    def find(self, fid: Fid, inconsistent_ok: bool = False) -> Found:
        """Return the object of a fid. Raises CodaError as vice.md §5.2 lists for all object operations."""
        if 0 in fid:
            raise CodaError(Code.EINVAL)
        volume = self.volume(fid.volume)
        vnode = self.store.vnodes.find(fid.in_volume(volume.id))
        if vnode is None:
            raise CodaError(Code.VNOVNODE)
        if not inconsistent_ok and vnode.vv.inconsistent:
            raise CodaError(Code.EINCONS)
        if not inconsistent_ok and vnode.vv.flags & VersionFlags.BARREN:
            raise CodaError(Code.EIO)
        return Found(volume, vnode, fid)

    def acl_of(self, vnode: Vnode) -> Acl:
        """Return the access list that governs an object: its own, or its parent directory's."""
        if vnode.acl is not None:
            return vnode.acl
        parent = self.store.vnodes.find(vnode.parent_fid)
        return parent.acl if parent is not None and parent.acl is not None else Acl(())

    # answering

    def status(self, caller: Caller, found: Found, *, promise: bool) -> Status:
        """Return the status that a reply carries, with a promise if one is asked for and can be given."""
        vnode, acl = found.vnode, self.acl_of(found.vnode)
        return Status(
            type=vnode.type,
            links=vnode.links,
            length=vnode.length,
            data_version=vnode.data_version,
            vv=vnode.vv,
            date=vnode.mtime,
            author=vnode.author,
            owner=vnode.owner,
            callback=promise and self.hosts.promise(caller.host, found.named),
            my_rights=caller.identity.rights(acl),
            any_rights=acl.rights(caller.identity.anyone),
            mode=vnode.mode,
            parent=vnode.parent,
        )

    # changing

    @asynccontextmanager
    async def exclusive(self, volume: Volume) -> AsyncIterator[None]:
        """Hold a volume for a change. Waits a moment for others; then raises CodaError EWOULDBLOCK."""
        lock = self._locks.setdefault(volume.id, trio.Lock())
        with trio.move_on_after(LOCK_PATIENCE) as scope:
            await lock.acquire()
        if scope.cancelled_caught:
            raise CodaError(Code.EWOULDBLOCK)
        try:
            yield
        finally:
            lock.release()

    def cop2(self, entries: bytes) -> None:
        """Execute the second phase of updates: count the other servers, clear the mark (vice.md §6.4).

        Unknown store ids are ignored. Raises CodaError EINVAL if `entries` is no sequence of entries. Nothing
        here needs to be durable: a lost second phase is legal.
        """
        if not entries:
            return
        try:
            parsed = unpack_entries(entries)
        except BadPacket as error:
            raise CodaError(Code.EINVAL, str(error)) from error
        vnodes = self.store.vnodes
        with self.store.transaction():
            for store_id, slots in parsed:
                for vnode in vnodes.pending(store_id):
                    volume = self.store.volumes.find(vnode.fid.volume)
                    if volume is None or volume.slot not in slots:
                        continue
                    others = [slot for slot in slots if slot != volume.slot]
                    settled = vnode.vv.raised(others).with_flags(vnode.vv.flags & ~VersionFlags.COP2PENDING)
                    vnodes.set_vector(vnode.fid, settled)
                    self.store.volumes.raise_versions(volume.id, others)
                    if len(slots) == self.store.volumes.replicas(volume):
                        self.store.elements.forget(vnode.fid, store_id)
                        self.store.elements.forget_past(vnode.fid)
                    else:
                        vnodes.on_uneven(vnode.fid)
