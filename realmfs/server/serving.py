"""Putting an embedded realm on the network: file service and auth2 of one store, a UDP socket each.

With a certificate the file service also listens for TLS, on the TCP port of the same number (sftp.md §16).

A machine in several networks may be served at an address in each. Clients are told one of them, the first, at
which servers also find one another; those that cannot reach it come by the others (`realms/sides.py`).
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence
from typing import Self

import trio

from realmfs.rpc2.endpoint import Endpoint, udp_transport
from realmfs.rpc2.multihomed import MultihomedTransport
from realmfs.rpc2.service import Address, Transport
from realmfs.server.authserver import AUTH_PORT, AuthServer
from realmfs.server.certificates import Certificates
from realmfs.server.database import StoreError
from realmfs.server.fileserver import FileServer
from realmfs.server.store import FILE_PORT, ServerStore
from realmfs.server.tunnels import Tunnels

log = logging.getLogger(__name__)

ANY_PORT = 0


class RealmServer:
    """A realm that has its sockets; `run` serves it."""

    def __init__(
        self, store: ServerStore, files: Transport, logins: Transport, tunnels: Tunnels | None = None
    ) -> None:
        """Take two transports; callers with sockets in mind use `bind`."""
        self.tunnels = tunnels
        self.file_address: Address = files.address
        self.auth_address: Address = logins.address
        self.file_server = FileServer(store, Endpoint(files))
        self.auth_server = AuthServer(store, Endpoint(logins))

    @classmethod
    async def bind(
        cls,
        store: ServerStore,
        address: str,
        port: int = FILE_PORT,
        auth_port: int | None = None,
        certificates: Certificates | None = None,
        *,
        also_at: Sequence[str] = (),
    ) -> Self:
        """Open sockets at a local address, which clients are told from now on. Raises StoreError.

        With `certificates` clients may also come through TLS. Port 0 is any port. Without `auth_port` auth2
        takes its own, 370; where that is forbidden or taken the port after the file service's, and if need
        be any. `also_at` are other local addresses, with the same ports.
        """
        files = await _bind_all(address, port, also_at)
        try:
            logins = await _bind_auth(address, files.address[1], auth_port, also_at)
        except BaseException:
            files.close()
            raise
        tunnels: Tunnels | None = None
        if certificates is not None:
            try:
                tunnels = await Tunnels.bind(certificates, files.address, also_at)
            except BaseException:
                files.close()
                logins.close()
                raise
        with store.transaction():
            store.set_address(*files.address)
        return cls(store, files, logins, tunnels)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.file_server.run)
            await nursery.start(self.auth_server.run)
            if self.tunnels is not None:
                nursery.start_soon(self.tunnels.run, self.file_server)
            task_status.started()


_REASONS = {
    errno.EADDRNOTAVAIL: "it is not an address of this machine. Name another with --address",
    errno.EADDRINUSE: "another program serves there. End it, or name another --address",
    errno.EACCES: "ports below 1024 are for root. Name another with --address or --auth-port",
}


async def _bind(address: str, port: int) -> Transport:
    try:
        return await udp_transport((address, port))
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror)
        raise StoreError(f"cannot serve at {address}:{port}: {reason}") from error


async def _bind_all(address: str, port: int, also_at: Sequence[str]) -> Transport:
    """Bind to the same port at several addresses; what that is is decided at the first one."""
    first = await _bind(address, port)
    if not also_at:
        return first
    sides = [first]
    try:
        sides += [await _bind(other, first.address[1]) for other in also_at]
    except StoreError:
        first.close()
        raise
    return MultihomedTransport(sides)


async def _bind_auth(
    address: str, file_port: int, port: int | None, also_at: Sequence[str] = ()
) -> Transport:
    if port is not None:
        return await _bind_all(address, port, also_at)
    for candidate in (AUTH_PORT, file_port + 1):
        try:
            return await _bind_all(address, candidate, also_at)
        except StoreError as error:
            log.debug("auth2: %s", error)
    return await _bind_all(address, ANY_PORT, also_at)
