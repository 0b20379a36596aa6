"""Serving the other servers of the realm: subsystem PEER of one server (peercalls.py)."""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Awaitable, Callable
from typing import Any

from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.errors import BadPacket, RpcError
from realmfs.rpc2.service import BindOffer, Level, Reply, ServerConnection
from realmfs.rpc2.service import Request as Transferring
from realmfs.rpc2.transfer import BytesSink, BytesSource, FileSource, Sink
from realmfs.server import realmdb
from realmfs.server.peercalls import (
    MAX_BULK,
    PEER_SERVICE,
    FetchContents,
    FetchRealm,
    Forget,
    GetSurvey,
    Hello,
    Install,
    Look,
    Take,
)
from realmfs.server.peers import AUTH_TYPE, Peers, is_compatible
from realmfs.server.replica import LocalReplica
from realmfs.server.state import ServerState
from realmfs.server.survey import digest, survey
from realmfs.server.views import Plan
from realmfs.server.volumes import JOINING, Volume
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Fid
from realmfs.vice.wire import NoResults, Results

log = logging.getLogger(__name__)

Handler = Callable[[Transferring, Any], Awaitable[Results]]


class PeerService:
    """The service that the endpoint calls for other servers."""

    def __init__(self, state: ServerState, peers: Peers, secret: bytes) -> None:
        self._state = state
        self._store = state.store
        self._peers = peers
        self._secret = secret
        self._handlers: dict[type[Any], Handler] = {
            Hello: self._hello,
            FetchRealm: self._fetch_realm,
            Look: self._look,
            Install: self._install,
            FetchContents: self._fetch_contents,
            Take: self._take,
            Forget: self._forget,
            GetSurvey: self._survey,
        }

    def secret(self, offer: BindOffer) -> bytes | None:
        """Return the realm's secret to servers of the realm; refuse everybody else."""
        known = offer.level == Level.SECURE and offer.auth_type == AUTH_TYPE
        return self._secret if known and _number(offer) is not None else None

    async def connected(self, connection: ServerConnection) -> None:
        """Note which server it is: the handshake has proved that it is one."""
        connection.data = _number(connection.offer)

    def closed(self, connection: ServerConnection) -> None:
        """Nothing is kept."""

    async def call(self, connection: ServerConnection, request: Transferring) -> Reply:
        """Answer one request."""
        kind = PEER_SERVICE.get(request.opcode)
        if kind is None:
            return Reply(Rpc2Code.INVALIDOPCODE)
        zero = kind.reply_type().zero().pack()
        try:
            arguments = kind.unpack(request.body)
            if isinstance(arguments, Hello) and is_compatible(arguments):
                self._peers.greeted(connection.data, arguments)
            results = await self._handlers[kind](request, arguments)
        except (BadPacket, struct.error) as error:
            log.warning("server %d: %s that cannot be read: %s", connection.data, kind.__name__, error)
            return Reply(Rpc2Code.BADDATA, zero)
        except CodaError as error:
            log.debug("%s of server %d: %s", kind.__name__, connection.data, error)
            return Reply(error.number, zero)
        except RpcError as error:
            return Reply(error.code, zero)
        return Reply(0, results.pack())

    def replica(self, number: int) -> LocalReplica:
        """Return our replica of a volume, on line or not. Raises CodaError VNOVOL."""
        return LocalReplica(self._state, self._volume(number))

    def _volume(self, number: int) -> Volume:
        volume = self._store.volumes.find(number)
        if volume is None or volume.filling not in (0, JOINING):
            raise CodaError(Code.VNOVOL)
        return volume

    async def _hello(self, request: Transferring, args: Hello) -> Hello.Reply:
        if not is_compatible(args):
            raise CodaError(Code.EPROTONOSUPPORT)
        ours = self._peers.hello()
        return Hello.Reply(started=ours.started, realm_version=ours.realm_version, places=ours.places)

    async def _fetch_realm(self, request: Transferring, args: FetchRealm) -> NoResults:
        await request.send(BytesSource(realmdb.dump(self._store)))
        return NoResults()

    async def _look(self, request: Transferring, args: Look) -> NoResults:
        views = self.replica(args.volume).look(args.directories, args.objects)
        await request.send(BytesSource(views.pack()))
        return NoResults()

    async def _install(self, request: Transferring, args: Install) -> NoResults:
        replica, sink = self.replica(args.volume), BytesSink(MAX_BULK)
        await request.receive(sink, MAX_BULK)
        await replica.install(Plan.read(sink.data))
        return NoResults()

    async def _fetch_contents(self, request: Transferring, args: FetchContents) -> NoResults:
        vnode = self._store.vnodes.find(Fid(self._volume(args.volume).id, *args.node))
        if vnode is None or vnode.vv != args.vv or vnode.container is None:
            raise CodaError(Code.EAGAIN)
        fd = self._store.containers.open(vnode.container)
        try:
            await request.send(FileSource(fd, 0, vnode.length))
        finally:
            os.close(fd)
        return NoResults()

    async def _take(self, request: Transferring, args: Take) -> NoResults:
        async def fetch(sink: Sink) -> None:
            call = FetchContents(volume=args.volume, node=args.row.node, vv=args.source)
            await self._peers.call(args.server, call, sink=sink, patience=None)

        await self.replica(args.volume).take(args.guard, args.row, fetch)
        return NoResults()

    async def _forget(self, request: Transferring, args: Forget) -> NoResults:
        self.replica(args.volume).forget([(one.node, one.vv) for one in args.settled])
        return NoResults()

    async def _survey(self, request: Transferring, args: GetSurvey) -> GetSurvey.Reply:
        volume = self._volume(args.volume)
        found = survey(self._store, volume)
        await request.send(BytesSource(b"" if digest(found) == args.digest else found))
        return GetSurvey.Reply(
            online=not volume.filling,
            virgin=is_virgin(self._state, volume),
            next_unique=volume.next_unique,
            next_file=volume.next_file,
            next_directory=volume.next_directory,
        )


def is_virgin(state: ServerState, volume: Volume) -> bool:
    """Whether nothing was ever in a replica: its root is a shell, and there is nothing else."""
    count = state.store.database.row("SELECT count(*), sum(flags & 4) FROM vnode WHERE volume = ?", volume.id)
    return tuple(count) == (1, 4)


def _number(offer: BindOffer) -> int | None:
    word, _, number = offer.ident.partition(b"\0")[0].partition(b" ")
    return int(number) if word == b"server" and number.isdigit() and len(number) <= 3 else None
