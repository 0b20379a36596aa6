"""One realm: its root servers, its volumes and where they are, its users' tokens (realms.md §3, §5).

What has been learned once is used at once and asked about again in the background, so a realm that was
reached before can be entered without network. Only the very first question waits for a server.
"""

import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial

import trio

from realmfs.realms.context import Context
from realmfs.realms.group import Group
from realmfs.realms.lookup import FILE_SERVICE, MIN_TTL, RootServer, in_order
from realmfs.realms.memory import Location, Memory, RealmMemory
from realmfs.realms.server import Answer, Server, State
from realmfs.realms.sides import within_reach
from realmfs.realms.tokens import Held, News
from realmfs.realms.types import ANYUSER
from realmfs.realms.volume import Replica, Volume
from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.service import Address
from realmfs.vice.calls import GetRootVolume, GetVolumeInfo
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.tokens import Token
from realmfs.vice.types import VolumeInfo, VolumeType

log = logging.getLogger(__name__)

STAGGER = 0.5
"""Seconds before the next root server is asked beside a silent one."""
REFRESH = 600.0
"""Seconds after which what is known of a volume is asked about again, in the background."""


class Realm:
    """A realm by its folded name."""

    def __init__(self, context: Context, name: str, memory: Memory) -> None:
        self.name = name
        self.expires = 0.0
        """When its servers are to be looked up again (trio's clock)."""
        self._context = context
        self._memory = memory
        self._servers: dict[Address, Server] = {}
        self._volumes: dict[int, Volume] = {}
        self._refreshed: dict[object, float] = {}
        self._rng = random.Random()
        self._lookup_allowed = 0.0
        """When a lost server may cause the next look-up."""
        self._left: set[Address] = set()
        """Addresses that were named once and are not any more."""
        self._lost: set[Server] = set()
        """Servers lost since it was last looked for other addresses of theirs."""

    def __repr__(self) -> str:
        return f"<Realm {self.name}>"

    @property
    def known(self) -> RealmMemory:
        """What is remembered of it."""
        return self._memory.realm(self.name)

    # servers

    @property
    def servers(self) -> list[Server]:
        """Every server that has been of interest so far, but for those that have left their addresses."""
        if not self._left:
            return list(self._servers.values())
        used = {replica.server for volume in self._volumes.values() for replica in volume.replicas}
        return [
            server
            for server in self._servers.values()
            if server.address not in self._left or server in used or server.state is not State.DOWN
        ]

    def remembered_servers(self) -> list[Server]:
        """Return every server that is remembered: by name, or as the place of a volume."""
        hosts = {host for place in self.known.volumes.values() for _, _, host in place.replicas}
        named = [self.server_at(*entry.address) for entry in self.known.servers]
        return list({server.address: server for server in [*named, *map(self.server_at, hosts)]}.values())

    @property
    def root_servers(self) -> list[Server]:
        """The servers that the realms file or DNS names, each time in a new order (realms.md §2 "Order")."""
        return [self.server_at(*entry.address) for entry in in_order(self.known.servers, self._rng)]

    def set_root_servers(self, servers: Iterable[RootServer], ttl: float) -> None:
        """Take what a look-up has found."""
        found, old = tuple(servers), self.known.servers
        self.expires = trio.current_time() + ttl
        if found != old:
            self.known.servers = found
            self._memory.touch()
            self._follow(
                {entry.address: entry.name for entry in old}, {entry.address: entry.name for entry in found}
            )

    def _follow(self, old: Mapping[Address, str], new: Mapping[Address, str]) -> None:
        """Follow servers whose names have other addresses now: volumes may live there."""
        gone = {address: name for address, name in old.items() if address not in new}
        come = {name: address for address, name in new.items() if address not in old}
        self._left = (self._left | gone.keys()) - new.keys()
        for address, name in gone.items():
            if name in come:
                log.info("%s of realm %s is at %s:%d now", name, self.name, *come[name])
                self._context.listener.server_moved(self.server_at(*address), come[name])
        if not gone:
            return
        hosts = {host for host, _ in gone}
        for place in list(self.known.volumes.values()):
            if any(host in hosts for _, _, host in place.replicas):
                self._context.background(
                    (self, place.name), partial(self._quietly, self._relocate, place.name)
                )

    def server_at(self, host: str, port: int | None = None) -> Server:
        """Return the server at an IPv4 address; without a port, at the one this realm uses there."""
        address = (host, port or self.port_at(host))
        server = self._servers.get(address)
        if server is None:
            name = next((entry.name for entry in self.known.servers if entry.address == address), host)
            server = self._servers[address] = Server(self._context, self, self.name, address, name)
        return server

    def port_at(self, host: str) -> int:
        """Return the port of a server known by address only, as volume location gives it.

        That of the file or SRV entry with the address; else the one that all entries share; else 2432.
        """
        ports = {entry.address[0]: entry.address[1] for entry in self.known.servers}
        common = set(ports.values())
        return ports.get(host) or (common.pop() if len(common) == 1 else FILE_SERVICE.port)

    def returned(self, server: Server) -> None:
        """Try the others that are down at once: what kept one from us may have kept all.

        So it is known who is there before anything is sent to half of a group.
        """
        for other in self._servers.values():
            if other.state is State.DOWN and other is not server:
                other.probes.now()

    def usual_distance(self) -> float | None:
        """Return the longest round trip to its servers that are up, in seconds; None: none is known to be."""
        up = (server.round_trip for server in self._servers.values() if server.state is State.UP)
        return max((seconds for seconds in up if seconds is not None), default=None)

    def reached(self) -> None:
        """Note that one of its servers has shown itself."""
        if not self.known.reached:
            log.info("realm %s is found", self.name)
            self.known.reached = True
            self._memory.touch()

    def lost(self, server: Server) -> None:
        """Look the names up again, once in a while: a server that does not answer may have moved.

        Or it may have another address that can be reached (sides.py).
        """
        now = trio.current_time()
        if now >= self._lookup_allowed:
            self._lookup_allowed = now + MIN_TTL
            self.expires = 0.0
        else:  # another one was lost just now, and what was found for that says nothing of this one
            self.expires = min(self.expires, self._lookup_allowed)
        self._lost.add(server)
        self._context.background((self, "sides"), self._look_for_other_sides)

    async def _look_for_other_sides(self) -> None:
        """Locate volumes of lost servers anew if there are named servers that might be the lost ones."""
        while self._lost:
            lost, self._lost = self._lost, set()
            for volume in list(self._volumes.values()):
                servers = {replica.server for replica in volume.replicas}
                told = {server.address[0] for server in servers}
                if servers & lost and any(entry.address[0] not in told for entry in self.known.servers):
                    await self._quietly(self._relocate, volume.name)

    # tokens

    def token(self, user: int) -> Token | None:
        """Return a user's token, expired or not."""
        held = self._context.tokens.get(self.name, user)
        return None if held is None else held.token

    def set_token(self, user: int, token: Token | None, name: str = "", news: News = News.DROPPED) -> None:
        """Give a user a token, or take it away; connections made with another one are closed.

        `name` is under which he logged in. Raises TooManyTokensError.
        """
        if token is None:
            self._context.tokens.drop(self.name, user, news)
        else:
            self._context.tokens.put(Held(self.name, user, name, token))
        for server in self._servers.values():
            server.links.drop_user(user)

    def refuse(self, user: int, token: Token) -> None:
        """Drop a token that a server has refused (auth.md §5)."""
        if self.token(user) == token:
            log.info("realm %s: the token of user %d is refused", self.name, user)
            self.set_token(user, None, news=News.REFUSED)

    # volumes

    async def root_volume(self, *, patience: float | None = None) -> str:
        """Return the name of the root volume. Raises CodaError(ETIMEDOUT) if it never was learned."""
        if self.known.root_volume is None:
            await self._learn_root_volume(patience)
        elif self._is_stale("root"):
            self._context.background((self, "root"), partial(self._quietly, self._learn_root_volume, None))
        return self.known.root_volume or "/"

    async def _learn_root_volume(self, patience: float | None) -> None:
        answer = await self._ask_any(GetRootVolume.OPCODE, GetRootVolume().pack(), patience)
        try:
            name = GetRootVolume.Reply.unpack(answer.body).name.decode("utf-8", "surrogateescape") or "/"
        except BadPacket as error:
            raise CodaError(Code.EIO, str(error)) from error
        self._refreshed["root"] = trio.current_time()
        if name != self.known.root_volume:
            self.known.root_volume = name
            self._memory.touch()

    async def volume(self, name: str, *, patience: float | None = None) -> Volume:
        """Return a volume by name. Raises CodaError: ENXIO, there is none; ETIMEDOUT, nobody to ask."""
        place = self.known.volumes.get(name)
        return await self._volume(name, place, patience)

    async def volume_by_id(self, volume: int, *, patience: float | None = None) -> Volume:
        """Return a volume by its id. Raises as `volume`."""
        place = self.known.by_id(volume)
        if place is None and volume in self._volumes and not self._is_stale(volume):
            return self._volumes[volume]
        return await self._volume(place.name if place else str(volume), place, patience)

    def known_volume(self, volume: int) -> Volume | None:
        """Return a volume by id if it is known, without asking anybody."""
        if volume not in self._volumes and (place := self.known.by_id(volume)):
            self._settle(place)
        return self._volumes.get(volume)

    def known_volumes(self) -> list[Volume]:
        """Return the volumes used since the start."""
        return list(self._volumes.values())

    async def _volume(self, name: str, place: Location | None, patience: float | None) -> Volume:
        if place is None:
            return await self._locate(name, patience)
        if self._is_stale(place.id):
            self._context.background((self, name), partial(self._quietly, self._relocate, name))
        return self._volumes.get(place.id) or self._settle(place)

    def _is_stale(self, key: object) -> bool:
        """Whether to ask again; the answer is yes once, then no for a while."""
        now = trio.current_time()
        if now - self._refreshed.get(key, -REFRESH) < REFRESH:
            return False
        self._refreshed[key] = now
        return True

    async def _quietly(self, work: Callable[..., Awaitable[object]], argument: object) -> None:
        try:
            await work(argument)
        except CodaError as error:
            log.info("realm %s: asking again: %s", self.name, error)

    async def _relocate(self, name: str) -> None:
        place = self.known.volumes.get(name)
        if place is not None and name == _name_of_unnamed(place.id):
            asked = str(place.id)
        else:
            asked = name
        try:
            await self._locate(asked, None)
        except CodaError as error:
            if error.code is Code.ENXIO:
                log.info("realm %s has no volume %s any more", self.name, name)
                self.known.volumes.pop(name, None)
                self._memory.touch()
            raise

    async def _locate(self, name: str, patience: float | None) -> Volume:
        """Ask where a volume is: by its name, then each replica by its id (realms.md §5)."""
        info = await self._volume_info(name, patience)
        places: dict[int, tuple[int, int, str]] = {
            replica.slot: (replica.slot, replica.volume, replica.server) for replica in info.replicas
        }

        for replica in info.replicas if info.is_replicated else ():
            try:
                found = await self._volume_info(str(replica.volume), patience)
            except CodaError as error:
                log.info("realm %s: replica %x of %s: %s", self.name, replica.volume, name, error)
                continue
            if not found.is_replicated and found.replicas:
                places[replica.slot] = (replica.slot, replica.volume, found.replicas[0].server)
        if not places:
            raise CodaError(Code.EIO, f"volume {name} of {self.name} is on no server")
        old = self.known.by_id(info.id)
        if name == str(info.id):
            name = old.name if old else _name_of_unnamed(info.id)
        reached = await within_reach(
            [places[slot] for slot in sorted(places)], self.server_at, self.root_servers
        )
        place = Location(info.id, name, info.type, tuple(reached))
        if place != old:
            self.known.remember(place)
            self._memory.touch()
        self._refreshed[info.id] = trio.current_time()
        return self._settle(place)

    async def _volume_info(self, name: str, patience: float | None) -> VolumeInfo:
        body = GetVolumeInfo(name=name.encode("utf-8", "surrogateescape")).pack()
        answer = await self._ask_any(GetVolumeInfo.OPCODE, body, patience)
        try:
            return GetVolumeInfo.Reply.unpack(answer.body).info
        except BadPacket as error:
            raise CodaError(Code.EIO, str(error)) from error

    def _settle(self, place: Location) -> Volume:
        """Return the volume at this location; if it has moved, all that was promised about it is void."""
        kind = VolumeType(place.type)
        replicas = tuple(Replica(slot, volume, self.server_at(host)) for slot, volume, host in place.replicas)
        volume = self._volumes.get(place.id)
        if volume is not None and volume.replicas == replicas:
            volume.name = place.name
            return volume
        group = Group(self._context, place.id, kind is VolumeType.REPLICATED, replicas)
        group.core.inspecting = kind is VolumeType.READ_WRITE
        if volume is None:
            volume = self._volumes[place.id] = Volume(place.id, place.name, self, kind, replicas, group)
            return volume
        log.info("realm %s: volume %s is on other servers now", self.name, place.name)
        volume.name, volume.type, volume.replicas, volume.group = place.name, kind, replicas, group
        for replica in replicas:
            self._context.listener.server_up(replica.server)
        return volume

    # questions that any server can answer

    async def _ask_any(self, opcode: int, body: bytes, patience: float | None) -> Answer:
        """Ask root servers as nobody, one beside the other when they are slow, until one answers.

        Raises CodaError.
        """
        servers = [server for server in self.root_servers if server.available]
        servers.sort(key=lambda server: server.state is not State.UP)
        answers: list[Answer] = []

        async def one(server: Server, done: trio.Event) -> None:
            answer = await server.call(ANYUSER, opcode, body)
            done.set()
            if answer.heard:
                answers.append(answer)
                nursery.cancel_scope.cancel()

        seconds = self._context.settings.patience if patience is None else patience
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for server in servers:
                    done = trio.Event()
                    nursery.start_soon(one, server, done)
                    with trio.move_on_after(STAGGER):
                        await done.wait()
        if not answers:
            self.expires = 0.0  # its servers may have moved: look them up again
            raise CodaError(Code.ETIMEDOUT, f"no server of {self.name} answers")
        if answers[0].code is not Code.SUCCESS:
            raise CodaError(answers[0].code, f"realm {self.name}")
        return answers[0]


def _name_of_unnamed(volume: int) -> str:
    """Return what a volume is called here that was only asked for by its id; no server knows that name."""
    return f"{volume:08x}"
