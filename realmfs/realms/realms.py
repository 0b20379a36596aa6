"""All realms of a client.

Found by name, remembered, kept up to date; their servers probed; a clean way to leave.

    name ──► known? ──► at once (looked up again in the background when its time is over)
        └──► looked up: realms file, SRV, A ──► remembered, also on disk
                  │ "no such realm" is remembered for some minutes
"""

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import trio

from realmfs.realms.callbacks import CallbackService
from realmfs.realms.context import Context
from realmfs.realms.farewell import say_farewell
from realmfs.realms.login import LoginService
from realmfs.realms.lookup import (
    FILE_SERVICE,
    LOGIN_SERVICE,
    MIN_TTL,
    Lookup,
    NoAnswerError,
    UnknownRealmError,
)
from realmfs.realms.memory import Memory
from realmfs.realms.names import fold, is_name
from realmfs.realms.presence import Presence
from realmfs.realms.probes import TICK, Prober, probe
from realmfs.realms.realm import Realm
from realmfs.realms.server import Server, State
from realmfs.realms.settings import RealmSettings, Tls
from realmfs.realms.tokens import DIRECTORY as TOKEN_DIRECTORY
from realmfs.realms.tokens import Tokens
from realmfs.realms.types import Listener
from realmfs.rpc2.endpoint import Endpoint
from realmfs.rpc2.service import Address
from realmfs.vice.calls import TokenExpired
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import CALLBACK_SUBSYSTEM

log = logging.getLogger(__name__)

MAX_NEGATIVE = 1000
LEAVE_WITHIN = 1.0


class Realms:
    """The realms of one client. `state_dir` None: nothing is remembered on disk."""

    def __init__(
        self, endpoint: Endpoint, settings: RealmSettings, listener: Listener, state_dir: Path | None = None
    ) -> None:
        directory = None if state_dir is None else state_dir / TOKEN_DIRECTORY
        tokens = Tokens(directory, keep=settings.keep_tokens, in_keyring=settings.tokens_in_keyring)
        self._memory = Memory(state_dir)
        presence = Presence(self._memory.off)
        self.context = Context(endpoint, settings, listener, presence=presence, tokens=tokens)
        self._lookup = Lookup(settings.realms_file, settings.name_server)
        self._realms: dict[str, Realm] = {}
        self._negative: dict[str, float] = {}
        self._silent: dict[str, float] = {}
        self._looking: dict[str, trio.Lock] = {}
        self._prober = Prober(self.context)
        endpoint.serve(CALLBACK_SUBSYSTEM, CallbackService(self.context, self._servers_at))

    @property
    def presence(self) -> Presence:
        """Where we are on line."""
        return self.context.presence

    @property
    def breaks(self) -> int:
        """How many promises were broken so far. Sampled before and compared after a wait, it shows a race."""
        return self.context.breaks

    # names

    async def realm(self, name: str, *, patience: float | None = None) -> Realm:
        """Return a realm by name. Raises CodaError: ENOENT, there is none; ETIMEDOUT, nobody could be asked.

        A remembered realm is returned at once, whether its servers answer or not.
        """
        name = fold(name)
        known = self.realm_named(name)
        if known is not None:
            return known
        if not is_name(name) or self._negative.get(name, 0.0) > trio.current_time():
            raise CodaError(Code.ENOENT, f"realm {name}")
        if not self.presence.is_online(name):
            raise CodaError(Code.ETIMEDOUT, f"realm {name}: {self.presence.why(name)}")
        lock = self._looking.setdefault(name, trio.Lock())
        try:
            async with lock:
                if self._silent.get(name, 0.0) > trio.current_time():
                    raise CodaError(Code.ETIMEDOUT, f"nobody answered just now where realm {name} is")
                return self.realm_named(name) or await self._find(name, patience)
        finally:
            if not lock.statistics().tasks_waiting:
                self._looking.pop(name, None)

    async def _find(self, name: str, patience: float | None) -> Realm:
        try:
            answer = await self._lookup.find(
                name, FILE_SERVICE, self.context.settings.patience if patience is None else patience
            )
        except UnknownRealmError as error:
            _remember(self._negative, name, self.context.settings.negative)
            raise CodaError(Code.ENOENT, str(error)) from None
        except NoAnswerError as error:
            _remember(self._silent, name, self.context.settings.unanswered)
            raise CodaError(Code.ETIMEDOUT, str(error)) from None
        realm = self._realms[name] = Realm(self.context, name, self._memory)
        realm.set_root_servers(answer.servers, answer.ttl)
        return realm

    def realm_named(self, name: str) -> Realm | None:
        """Return a realm that is known, from this run or an earlier one, without waiting."""
        name = fold(name)
        realm = self._realms.get(name)
        if realm is None and name in self._memory.realms:
            realm = self._realms[name] = Realm(self.context, name, self._memory)
        return realm

    def known(self) -> list[str]:
        """Return the names of all realms ever reached."""
        return sorted(name for name, realm in self._memory.realms.items() if realm.reached)

    def forget(self, name: str) -> None:
        """Forget a realm: it must be found anew. Connections to its servers stay until they are lost."""
        self._realms.pop(fold(name), None)
        self._negative.pop(fold(name), None)
        self._silent.pop(fold(name), None)
        if self._memory.realms.pop(fold(name), None) is not None:
            self._memory.touch()

    # logins

    @property
    def tokens(self) -> Tokens:
        """Who is logged in where."""
        return self.context.tokens

    async def login_service(self, name: str, user: str, password: bytes) -> LoginService:
        """Return the login servers of a realm, for a user with his password.

        Raises CodaError as `realm`, and LoginError.
        """
        try:
            found = await self._lookup.find(fold(name), LOGIN_SERVICE, self.context.settings.patience)
        except UnknownRealmError as error:
            raise CodaError(Code.ENOENT, str(error)) from None
        except NoAnswerError as error:
            raise CodaError(Code.ETIMEDOUT, str(error)) from None
        return LoginService(self.context.endpoint, found.servers, user, password)

    # servers

    def servers(self) -> list[Server]:
        """Return every server that has been of interest so far."""
        return [server for realm in self._realms.values() for server in realm.servers]

    def _servers_at(self, address: Address) -> Sequence[Server]:
        return [server for server in self.servers() if server.channel.peer == address]

    async def check(self, servers: Iterable[Server] | None = None) -> None:
        """Probe servers now, all by default; a few seconds. What comes of it is in their state."""
        async with trio.open_nursery() as nursery:
            for server in self.servers() if servers is None else servers:
                nursery.start_soon(probe, server)

    def network_changed(self) -> None:
        """Probe every server we have had to do with at once: a way may have opened or closed."""
        for server in self.servers():
            server.probes.now()
        self._prober.look(self.servers())

    # life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Probe, deliver second phases, look names up again, save; until cancelled."""
        async with trio.open_nursery() as self.context.nursery:
            self.context.nursery.start_soon(self.tokens.run_keyring)
            self.context.nursery.start_soon(self._leave_late, self._memory.port)
            task_status.started()
            try:
                housekeeping = 0.0
                while True:
                    now = trio.current_time()
                    self._prober.look(self.servers())
                    if now >= housekeeping:
                        housekeeping = now + self.context.settings.housekeeping
                        self._keep_house(now)
                    await trio.sleep(TICK)
            finally:
                with trio.CancelScope(shield=True):
                    await self._memory.save()

    async def _leave_late(self, port: int) -> None:
        """Note our port; after a crash, take leave in the name of who had the port found there.

        Not where TLS is required: there nothing was promised to that port, and nothing may be sent from it.
        """
        host, self._memory.port = self.context.endpoint.address
        self._memory.touch()
        await self._memory.save()
        servers = {
            server.address
            for name, known in self._memory.realms.items()
            if known.reached and self.presence.is_online(name) and (realm := self.realm_named(name))
            if self.context.settings.channels(name).tls is not Tls.REQUIRE
            for server in realm.remembered_servers()
        }
        if not port or port == self._memory.port or not servers:
            return
        try:
            transport = await self.context.open_port((host, port))
        except OSError as error:
            log.info("no leave can be taken from port %d of the run before: %s", port, error.strerror)
            return
        told = await say_farewell(transport, servers)
        log.info("the run before had crashed: %d of %d servers were told", told, len(servers))

    def _keep_house(self, now: float) -> None:
        self.context.background(("save",), self._memory.save)
        for realm in self._realms.values():
            if now >= realm.expires and self.presence.is_online(realm.name):
                self.context.background((realm, "lookup"), partial(self._look_again, realm))
            for volume in realm.known_volumes():
                volume.group.core.deliver_cop2()
            for server in realm.servers:
                server.links.drop_expired()

    async def _look_again(self, realm: Realm) -> None:
        realm.expires = trio.current_time() + MIN_TTL
        try:
            answer = await self._lookup.find(realm.name, FILE_SERVICE)
        except (UnknownRealmError, NoAnswerError) as error:
            log.info("realm %s keeps its servers: %s", realm.name, error)
        else:
            realm.set_root_servers(answer.servers, answer.ttl)

    async def leave(self, within: float = LEAVE_WITHIN) -> None:
        """Take leave of every server, so that no writer there waits for us (vice.md §2.4).

        The last thing to do: promises, connections and callback channels are gone.
        """
        await self._take_leave(self.servers(), within)
        self._memory.port = 0
        self._memory.touch()
        for server in self.servers():
            self.context.endpoint.forget_peer(server.channel.peer)
            server.channel.reset()

    async def disconnect(self, realm: str | None = None) -> None:
        """Go off line by hand, in a realm or everywhere, until `reconnect`; LEAVE_WITHIN seconds at most."""
        self.presence.take_off(None if realm is None else fold(realm))
        await self._go_off_line("disconnected by hand")
        await self._remember_presence()

    async def reconnect(self, realm: str | None = None) -> None:
        """Be on line again, in one realm or in all, and look for the servers at once."""
        self.presence.put_on(None if realm is None else fold(realm))
        self._look_for_servers()
        await self._remember_presence()

    async def _remember_presence(self) -> None:
        self._memory.touch()
        await self._memory.save()

    async def fall_asleep(self) -> None:
        """Go off line because the machine is about to sleep; at most LEAVE_WITHIN seconds."""
        self.presence.asleep = True
        await self._go_off_line("asleep")

    def wake_up(self) -> None:
        """Be on line again as before the sleep."""
        if self.presence.asleep:
            self.presence.asleep = False
            self._look_for_servers()

    def _look_for_servers(self) -> None:
        """Ask for all servers, those too that nobody was let speak to since the start."""
        self.network_changed()
        for server in self.servers():
            if not server.contacted and server.online:
                self.context.background(("probe", server), partial(probe, server))

    async def _go_off_line(self, reason: str) -> None:
        """Take leave of the servers that we may not speak to any more."""
        leaving = [server for server in self.servers() if not server.online]
        await self._take_leave(leaving, LEAVE_WITHIN)
        for server in leaving:
            if server.contacted and not server.online:
                server.failed(reason)

    async def _take_leave(self, servers: Iterable[Server], within: float) -> None:
        async def bid(server: Server) -> None:
            link = server.links.take_any()
            if link is None and await server.reach(leaving=True):  # all of them are busy
                link = server.links.take_any()
            if link is None:
                return
            try:
                code, _ = await link.call(TokenExpired.OPCODE, TokenExpired().pack())
                log.debug("left %s: %d", server, code)
            finally:
                server.links.release(link)

        with trio.move_on_after(within):
            async with trio.open_nursery() as nursery:
                for server in servers:
                    if server.state is State.UP:
                        nursery.start_soon(bid, server)


def _remember(table: dict[str, float], name: str, seconds: float) -> None:
    """Note a name until some time from now; the table stays bounded."""
    table.pop(name, None)
    while len(table) >= MAX_NEGATIVE:
        del table[next(iter(table))]
    table[name] = trio.current_time() + seconds
