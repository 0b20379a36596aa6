"""The other servers of the realm, as one of them sees them: who is up, what is new, how to ask.

    every BEAT ──Hello──> each server that we know an address of
                 answer: it is up; its addresses of others, if newer, are ours now; its realm database, if
                 newer, is fetched; up for the first time, or started anew: the catch-up is told
                 none:   it is down, and is not asked anything until it answers a Hello, or says one

Calls go over a few connections per server, bound at need with the realm's secret and kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeVar

import trio

from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.endpoint import Connection, Endpoint
from realmfs.rpc2.errors import BadPacket, RpcError
from realmfs.rpc2.service import Credentials, Level
from realmfs.rpc2.transfer import BytesSink, Sink, Source
from realmfs.server import realmdb
from realmfs.server.peercalls import MAX_BULK, PEER_SUBSYSTEM, PROTOCOL, FetchRealm, Hello, Place
from realmfs.server.store import ServerStore
from realmfs.server.volumes import ServerAddress
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.wire import Request, Results

log = logging.getLogger(__name__)

BEAT: Final = 5.0
"""Seconds between two Hellos to a server."""
PATIENCE: Final = 4.0
"""Seconds that a server has for a bind or a Hello."""
CALL_PATIENCE: Final = 30.0
AUTH_TYPE: Final = 3
_KEPT: Final = 4

R = TypeVar("R", bound=Results)


@dataclass(eq=False, slots=True)
class Peer:
    """Another server."""

    number: int
    up: bool = False
    started: int = 0
    idle: list[Connection] = field(default_factory=list)
    heard: trio.Event = field(default_factory=trio.Event)
    """Set when it has to be greeted before its time."""


class Peers:
    """All other servers of the realm."""

    def __init__(self, store: ServerStore, endpoint: Endpoint, secret: bytes, started: int) -> None:
        self._store = store
        self._endpoint = endpoint
        self._credentials = Credentials(Level.SECURE, b"server %d" % store.number, secret, AUTH_TYPE)
        self._peers: dict[int, Peer] = {}
        self._more = trio.Event()
        self.started = started
        self.on_up: Callable[[int], None] = lambda number: None
        self.on_realm: Callable[[], None] = lambda: None

    async def run(self) -> None:
        """Greet everybody, for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                for number in self._store.servers():
                    if number != self._store.number and number not in self._peers:
                        self._peers[number] = Peer(number)
                        nursery.start_soon(self._greet_for_ever, self._peers[number])
                self._more = trio.Event()
                with trio.move_on_after(BEAT):
                    await self._more.wait()

    def up(self, number: int) -> bool:
        """Whether a server answered when it was last asked."""
        peer = self._peers.get(number)
        return peer is not None and peer.up

    def known(self) -> dict[int, bool]:
        """Return which other servers there are, and whether they are up."""
        return {number: peer.up for number, peer in sorted(self._peers.items())}

    def hello(self) -> Hello:
        """Return what we say of ourselves."""
        return Hello(started=self.started, realm_version=realmdb.version(self._store), places=self.places())

    def places(self) -> tuple[Place, ...]:
        """Return where all servers are that we know of."""
        return tuple(
            Place(number=one.number, address=one.address.encode(), port=one.port, stamp=one.stamp)
            for one in self._store.servers().values()
        )

    def greeted(self, number: int, hello: Hello) -> None:
        """Take a Hello of another server: greet it at once, if there is news."""
        self._note(hello.places)
        peer = self._peers.get(number)
        if peer is None:
            self._more.set()
        elif (
            not peer.up or peer.started != hello.started or hello.realm_version > realmdb.version(self._store)
        ):
            peer.heard.set()

    def news(self) -> None:
        """Greet everybody now: there is something new here."""
        for peer in self._peers.values():
            peer.heard.set()

    async def call(
        self, number: int, request: Request[R], *, source: Source | None = None, sink: Sink | None = None,
        patience: float | None = CALL_PATIENCE,
    ) -> R:  # fmt: skip
        """Ask another server. Raises CodaError: what it answers, or ETIMEDOUT if it does not."""
        peer = self._peers.get(number)
        if peer is None or not (peer.up or isinstance(request, Hello)):
            raise CodaError(Code.ETIMEDOUT, f"server {number} is down")
        try:
            return await self._call(peer, request, source, sink, patience)
        except BadPacket as error:
            raise CodaError(Code.EIO, f"server {number} answers nonsense: {error}") from error
        except RpcError as error:
            for connection in peer.idle:
                connection.close()
            peer.idle.clear()
            if peer.up and error.code != Rpc2Code.NAKED:
                log.info("server %d is down: %s", number, error)
                peer.up = False
            raise CodaError(Code.ETIMEDOUT, f"server {number}: {error}") from error

    async def _call(
        self,
        peer: Peer,
        request: Request[R],
        source: Source | None,
        sink: Sink | None,
        patience: float | None,
    ) -> R:
        connection = None
        while connection is None and peer.idle:
            kept = peer.idle.pop()
            connection = kept if kept.usable else None
        if connection is None:
            place = self._store.servers()[peer.number]
            connection = await self._endpoint.bind(
                (place.address, place.port), PEER_SUBSYSTEM, self._credentials, patience=PATIENCE
            )
        reply = await connection.call(
            request.OPCODE, request.pack(), source=source, sink=sink, patience=patience
        )
        if connection.usable and len(peer.idle) < _KEPT:
            peer.idle.append(connection)
        else:
            connection.close()
        if reply.code < 0:
            raise RpcError(reply.code)
        if reply.code:
            raise CodaError(reply.code, f"server {peer.number}: {type(request).__name__}")
        return request.reply_type().unpack(reply.body)

    async def _greet_for_ever(self, peer: Peer) -> None:
        while True:
            peer.heard = trio.Event()
            try:
                answer = await self.call(peer.number, self.hello(), patience=PATIENCE)
            except CodaError as error:
                log.debug("no Hello from server %d: %s", peer.number, error)
            else:
                self._note(answer.places)
                await self._heard(peer, answer)
            with trio.move_on_after(BEAT):
                await peer.heard.wait()

    async def _heard(self, peer: Peer, answer: Hello.Reply) -> None:
        is_new = not peer.up or peer.started != answer.started
        peer.up, peer.started = True, answer.started
        if answer.realm_version > realmdb.version(self._store):
            await self._fetch_realm(peer)
        if is_new:
            log.info("server %d is up", peer.number)
            self.on_up(peer.number)

    async def _fetch_realm(self, peer: Peer) -> None:
        sink = BytesSink(MAX_BULK)
        try:
            await self.call(peer.number, FetchRealm(), sink=sink)
            is_news = realmdb.load(self._store, sink.data)
        except (CodaError, BadPacket) as error:
            log.warning("the realm's database cannot be had from server %d: %s", peer.number, error)
            return
        if is_news:
            log.info("server %d had a newer database of the realm", peer.number)
            self.on_realm()

    def _note(self, places: Iterable[Place]) -> None:
        for place in places:
            try:
                address = ServerAddress(place.number, place.address.decode("ascii"), place.port, place.stamp)
            except UnicodeDecodeError:
                continue
            if place.number != self._store.number:
                with self._store.transaction():
                    is_news = self._store.note_server(address)
                if is_news:
                    self._more.set()


def is_compatible(hello: Hello) -> bool:
    """Whether we understand each other."""
    return hello.protocol == PROTOCOL
