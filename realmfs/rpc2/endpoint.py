"""The transport's only trio socket, and the face of the ring for those above."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import trio

from realmfs.rpc2.parameters import Limits, SftpParameters, Timers
from realmfs.rpc2.service import Address, Credentials, LinkEstimate, Reply, Service, Transport
from realmfs.rpc2.transfer import Sink, Source


async def udp_transport(address: Address = ("0.0.0.0", 0)) -> Transport:
    """Open a UDP socket."""
    raise NotImplementedError


class Connection:
    """The client's end of a binding. One call at a time; a second waits for the first."""

    @property
    def peer(self) -> Address:
        """Where the server is."""
        raise NotImplementedError

    @property
    def usable(self) -> bool:
        """False after any RpcError, a fatal return code, a cancelled call or close."""
        raise NotImplementedError

    async def call(
        self,
        opcode: int,
        body: bytes = b"",
        *,
        source: Source | None = None,
        sink: Sink | None = None,
        patience: float | None = None,
    ) -> Reply:
        """Call a procedure, with at most one file moving along."""
        raise NotImplementedError

    def close(self) -> None:
        """Forget the connection; nothing is sent."""
        raise NotImplementedError


class Endpoint:
    """One UDP address, client and server at once."""

    def __init__(
        self,
        transport: Transport,
        *,
        sftp: SftpParameters | None = None,
        timers: Timers | None = None,
        limits: Limits | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.address = transport.address

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        raise NotImplementedError

    async def bind(
        self,
        peer: Address,
        subsystem: int,
        credentials: Credentials,
        *,
        side_effects: bool = True,
        patience: float = 15.0,
    ) -> Connection:
        """Bind to a subsystem of a server."""
        raise NotImplementedError

    def serve(self, subsystem: int, service: Service) -> None:
        """Accept binds to a subsystem."""
        raise NotImplementedError

    def statistics(self) -> Mapping[str, int]:
        """Counters."""
        raise NotImplementedError

    def last_heard(self, peer: Address) -> float | None:
        """When the peer was last heard, in trio time."""
        raise NotImplementedError

    def estimate(self, peer: Address) -> LinkEstimate:
        """What is known of the path to a peer."""
        raise NotImplementedError

    def forget_peer(self, peer: Address) -> None:
        """Drop all connections from and to a peer."""
        raise NotImplementedError

    def close(self, *_: Any) -> None:
        """Give the address back."""
        raise NotImplementedError
