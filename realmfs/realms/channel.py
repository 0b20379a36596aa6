"""How packets travel to one server: by UDP, or in a TLS tunnel (sftp.md Part II).

                 off; or auto and not one of ours                    the server is down (`reset`)
    undecided ─────────────────────────────────────────────▶ UDP ────────────────────────────────▶ undecided
        │        prefer, and nobody listens for TLS there     ▲
        ├─────────────────────────────────────────────────────┘     it breaks, or `reset`
        └─────────────────────────────────────────────────▶ tunnel ──────────────────────────────▶ undecided
                 require, prefer; auto and one of ours

The way is chosen at the first contact and kept as long as the server is up. For the server each way is
another client, with promises and a callback connection of its own; so a change of way voids everything, and
never happens in the middle. A server says only in the handshake that it is one of ours: then the first bind,
by UDP, is given up before it has led to anything.

A tunnel that breaks is built anew when it is needed, which is at once while calls wait. One that broke soon
after it was made is given a moment first, longer each time.
"""

import logging
from collections.abc import Callable

import trio

from realmfs.realms.context import Context
from realmfs.realms.settings import ChannelPolicy, Tls
from realmfs.rpc2.errors import BadCertificate, BrokenTunnel
from realmfs.rpc2.service import Address
from realmfs.rpc2.tls import client_context, is_address
from realmfs.rpc2.tunnel import Tunnel, open_tunnel

log = logging.getLogger(__name__)

SHORT_LIFE = 5.0
"""A tunnel that lived less long, in seconds, counts as one that cannot be kept."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
NO_TLS_FOR = 60.0
"""How long a server that did not listen for TLS is not asked again, where TLS is not required."""


class Channel:
    """The way to one server. `lost` is told why the tunnel broke, when it does."""

    def __init__(
        self, context: Context, realm: str, address: Address, name: str, lost: Callable[[str], None]
    ) -> None:
        self._context = context
        self._realm = realm
        self._address = address
        self._name = name
        self._lost = lost
        self._ours = False
        self._way: Address | None = None
        self._tunnel: Tunnel | None = None
        self._opening = trio.Lock()
        self._made = 0.0
        self._short_lives = 0
        self._not_before = 0.0
        self._udp_until = 0.0
        self.tunnels = 0
        """How many were made so far."""
        if self._policy.tls is Tls.REQUIRE:
            context.endpoint.bar_from_udp(address)

    @property
    def _policy(self) -> ChannelPolicy:
        return self._context.settings.channels(self._realm)

    @property
    def peer(self) -> Address:
        """Who the server is to the transport, at present."""
        return self._way or self._address

    @property
    def protection(self) -> str:
        """What protects the packets, for people."""
        if self._tunnel is not None:
            return f"{self._tunnel.protection} + AES-CCM"
        if self._way is None and self._policy.tls is Tls.REQUIRE:
            return "none yet: TLS is required"
        return "UDP, AES-CCM"

    async def open(self, patience: float) -> Address:
        """Return whom to bind to, after making the tunnel where there has to be one.

        Raises BadCertificate, BrokenTunnel.
        """
        async with self._opening:
            if self._way is None:
                self._way = await self._choose(patience)
            return self._way

    def met(self, *, ours: bool) -> bool:
        """Note what kind of server it is; tell whether there is a better way to it than by UDP."""
        self._ours = ours
        if self._tunnel is None and self._wanted() is Tls.PREFER and self._policy.authority.exists():
            self._way = None
        return self._way is None

    def reset(self) -> None:
        """Give the way up; the next contact chooses anew."""
        tunnel, self._tunnel, self._way = self._tunnel, None, None
        if tunnel is not None:
            tunnel.close()

    def _wanted(self) -> Tls:
        """Return what the policy comes to at present; never AUTO."""
        policy = self._policy
        wanted = policy.tls
        if wanted is Tls.AUTO:
            wanted = Tls.PREFER if self._ours else Tls.OFF
        if wanted is Tls.PREFER and (trio.current_time() < self._udp_until or not policy.authority.exists()):
            return Tls.OFF
        return wanted

    async def _choose(self, patience: float) -> Address:
        wanted = self._wanted()
        if wanted is Tls.OFF:
            return self._address
        await trio.sleep_until(max(self._not_before, trio.current_time()))
        try:
            tunnel = await self._connect(patience)
        except BadCertificate as error:
            log.info("%s of %s is refused: %s", self._name, self._realm, error)
            raise
        except BrokenTunnel as error:
            if wanted is Tls.REQUIRE:
                raise
            log.info("no TLS to %s of %s: %s", self._name, self._realm, error)
            self._udp_until = trio.current_time() + NO_TLS_FOR
            return self._address
        self._context.endpoint.start_tunnel(tunnel, lambda reason: self._broke(tunnel, reason))
        self._tunnel, self._made = tunnel, trio.current_time()
        self.tunnels += 1
        log.info("tunnel to %s of %s: %s", self._name, self._realm, tunnel.protection)
        return tunnel.peer

    async def _connect(self, patience: float) -> Tunnel:
        authority, (host, port) = self._policy.authority, self._address
        if not authority.exists():
            raise BadCertificate(
                f"TLS is required, but who vouches for the servers of {self._realm} is not known here. "
                f"Put the certificate of its authority into {authority}"
            )
        context = client_context(authority)
        try:
            with trio.fail_after(patience):
                stream = await self._context.connect(self._address)
                return await open_tunnel(
                    stream,
                    self._address,
                    context,
                    (self._name, host),
                    sni="" if is_address(self._name) else self._name,
                )
        except OSError as error:
            raise BrokenTunnel(f"no TLS on TCP port {port}: {error.strerror or error}") from None
        except trio.TooSlowError:
            raise BrokenTunnel(f"no TLS on TCP port {port} within {patience:.0f} s") from None

    def _broke(self, tunnel: Tunnel, reason: str) -> None:
        if self._tunnel is not tunnel:
            return
        self._tunnel = self._way = None
        now = trio.current_time()
        self._short_lives = self._short_lives + 1 if now - self._made < SHORT_LIFE else 0
        if self._short_lives:
            self._not_before = now + min(FIRST_PAUSE * 2**self._short_lives, LONGEST_PAUSE)
        self._lost(reason)
