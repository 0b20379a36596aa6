"""What those who use the transport see of it: credentials, replies, and the face of a service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

from realmfs.rpc2.transfer import Sink, Source

Address = tuple[str, int]
"""IPv4 address as text, port."""


class TunnelAddress(tuple[str, int]):
    """The far end of one tunnel. It prints like any address and equals nothing but itself.

    So a UDP socket at the same address and port is another peer, and so is the next tunnel from there.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    def __hash__(self) -> int:
        return id(self)


ANY_SUBSYSTEM = 0
"""To serve under this number takes binds to every subsystem that has no service of its own."""


class Transport(Protocol):
    """Something that carries datagrams: a UDP socket, a tunnel, a port of the fake network."""

    @property
    def dropped(self) -> int:
        """How many datagrams `send` could not get rid of."""
        ...

    @property
    def address(self) -> Address:
        """Our own address."""
        ...

    async def receive(self) -> Sequence[tuple[bytes, Address]]:
        """Wait for datagrams and return all that are there, with their senders."""
        ...

    def send(self, datagrams: Sequence[bytes], peer: Address) -> None:
        """Send at once, in order; never blocks, and what does not fit is dropped."""
        ...

    def close(self) -> None:
        """Give the address back."""
        ...


class Level(IntEnum):
    """Security levels; in AES mode all of them encrypt everything (rpc2.md §4)."""

    AUTHONLY = 12
    SECURE = 66
    HEADERSONLY = 73
    OPENKIMONO = 98


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """Who binds: `ident` travels in the clear, `secret` (8 bytes) never does."""

    level: int
    ident: bytes
    secret: bytes
    auth_type: int = 0

    def __repr__(self) -> str:
        return f"Credentials(level={self.level}, ident={len(self.ident)} bytes, secret=...)"


ANONYMOUS = Credentials(Level.OPENKIMONO, b"", bytes(8))


@dataclass(frozen=True, slots=True)
class BindOffer:
    """What a client said when it asked to be bound."""

    peer: Address
    subsystem: int
    level: int
    auth_type: int
    encryption_type: int
    ident: bytes
    side_effects: bool


class Reply(NamedTuple):
    """What a procedure returned.

    `code` is the return code as the server sent it: 0, a positive wire errno, or a negative RPC2 number.
    `moved` is how many bytes the side effect carried, None if there was none.
    """

    code: int
    body: bytes = b""
    moved: int | None = None


class LinkEstimate(NamedTuple):
    """What is known of the path to a peer; None where nothing has been measured yet.

    `distance` is the round trip that the path itself takes, without what the ends are busy with.
    """

    round_trip: float | None
    bandwidth: float | None
    distance: float | None


class ServerConnection(Protocol):
    """A client that is bound to us. `data` is the service's own."""

    data: Any

    @property
    def peer(self) -> Address:
        """Where the client is now."""
        ...

    @property
    def offer(self) -> BindOffer:
        """What it said when it was bound."""
        ...

    def close(self) -> None:
        """Forget the client: its next packet goes unanswered, a request that is running is cancelled."""
        ...


class Request(Protocol):
    """A call that waits for its reply."""

    @property
    def opcode(self) -> int:
        """The operation number."""
        ...

    @property
    def body(self) -> bytes:
        """The parameters, without piggybacked data."""
        ...

    async def receive(self, sink: Sink, limit: int) -> int:
        """Take a file from the client; returns its size.

        Raises RpcError: SEFAIL2 if the client does not send, SEFAIL3 if more than `limit` bytes come or the
        sink fails. The connection ends with the reply then.
        """
        ...

    async def send(self, source: Source) -> None:
        """Send a file to the client. Small ones ride in the reply and are read at once.

        Raises RpcError: SEFAIL2 if the client stays silent, SEFAIL4 if the source fails.
        """
        ...


class Service(Protocol):
    """The server role of one subsystem."""

    def secret(self, offer: BindOffer) -> bytes | None:
        """Return the 8 bytes shared with this client (zeros at level OPENKIMONO); None refuses it."""
        ...

    async def connected(self, connection: ServerConnection) -> None:
        """Welcome a client; its first request is served after this returns."""
        ...

    async def call(self, connection: ServerConnection, request: Request) -> Reply:
        """Serve one request. What it raises is logged and answered with FAIL."""
        ...

    def closed(self, connection: ServerConnection) -> None:
        """Learn that a welcomed client is gone."""
        ...
