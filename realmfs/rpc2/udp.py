"""A UDP socket as a `Transport`: drained at every wake-up, with segmentation offload where the kernel has it.

Waking a task costs about as much as forty packets. So everything that is there is taken at once (UDP_GRO
hands over up to 64 datagrams of one sender in a single call), and a window of equal-sized packets leaves in
a single call (UDP_SEGMENT). Without these options, or on a path that cannot use them, it is one call per
datagram.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
from collections.abc import Sequence

import trio

from realmfs.rpc2.service import Address

log = logging.getLogger(__name__)

_UDP_SEGMENT = 103
_UDP_GRO = 104
_LARGEST = 65507
_MOST_SEGMENTS = 64
_MOST_READS = 64
"""Reads per wake-up: others must have their turn, too."""
_BUFFER = 4 << 20

_NO_OFFLOAD = {errno.EINVAL, errno.EMSGSIZE, errno.EIO, errno.ENOPROTOOPT, errno.EOPNOTSUPP}
_SEGMENT_SIZE = struct.Struct("=H")
_GRO_SIZE = struct.Struct("=i")


class UdpTransport:
    """An IPv4 socket. `offload=False` does without the kernel's help, as on another system."""

    def __init__(self, address: Address, *, offload: bool = True) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self._socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        try:
            self._socket.bind(address)
        except OSError:
            self._socket.close()
            raise
        self.dropped = 0
        """Datagrams that the kernel did not take."""
        self._offload = offload and self._switch_on_gro()
        self._too_large = _LARGEST
        self._buffer = bytearray(65536)
        self._view = memoryview(self._buffer)
        self._ancillary = socket.CMSG_SPACE(_GRO_SIZE.size) if self._offload else 0

    def _switch_on_gro(self) -> bool:
        try:
            self._socket.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 1)
        except OSError:
            return False
        return True

    @property
    def address(self) -> Address:
        """Our own address."""
        host, port = self._socket.getsockname()
        return host, port

    def close(self) -> None:
        """Close the socket; who waits in `receive` gets trio.ClosedResourceError."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    async def receive(self) -> Sequence[tuple[bytes, Address]]:
        """Wait for datagrams and return all that are there, with their senders."""
        batch: list[tuple[bytes, Address]] = []
        while not batch:
            await trio.lowlevel.wait_readable(self._socket)
            for _ in range(_MOST_READS):
                if not self._read(batch):
                    break
        return batch

    def _read(self, batch: list[tuple[bytes, Address]]) -> bool:
        """Take one read's worth of datagrams; tell whether there may be more."""
        try:
            size, ancillary, _, sender = self._socket.recvmsg_into([self._buffer], self._ancillary)
        except BlockingIOError:
            return False
        except OSError as error:
            if self._socket.fileno() < 0:
                raise trio.ClosedResourceError from None
            log.debug("an error on the UDP socket: %s", error)  # an ICMP answer to some earlier packet
            return True
        step = size
        for level, kind, data in ancillary:
            if level == socket.IPPROTO_UDP and kind == _UDP_GRO:
                step = _GRO_SIZE.unpack(data)[0]
        if step >= size:
            batch.append((bytes(self._view[:size]), sender))
        else:
            view = self._view
            batch += [(bytes(view[at : min(at + step, size)]), sender) for at in range(0, size, step)]
        return True

    def send(self, datagrams: Sequence[bytes], peer: Address) -> None:
        """Send at once; what the kernel does not take now is dropped."""
        first, count = 0, len(datagrams)
        while first < count:
            size = len(datagrams[first])
            end = self._end_of_run(datagrams, first) if self._offload else first + 1
            if end - first > 1 and self._send_run(datagrams[first:end], size, peer):
                first = end
            else:
                self._send_one(datagrams[first], peer)
                first += 1

    def _end_of_run(self, datagrams: Sequence[bytes], first: int) -> int:
        """Return where a run ends that one call can send: equal sizes, only the last may be shorter."""
        size = len(datagrams[first])
        if size >= self._too_large or not size:
            return first + 1
        most = min(len(datagrams), first + min(_MOST_SEGMENTS, _LARGEST // size))
        for index in range(first + 1, most):
            if len(datagrams[index]) != size:
                return index + 1 if 0 < len(datagrams[index]) < size else index
        return most

    def _send_run(self, datagrams: Sequence[bytes], size: int, peer: Address) -> bool:
        """Send equal-sized datagrams with one call; False: the path cannot, send them singly."""
        control = [(socket.IPPROTO_UDP, _UDP_SEGMENT, _SEGMENT_SIZE.pack(size))]
        try:
            self._socket.sendmsg(datagrams, control, 0, peer)
        except BlockingIOError:
            self.dropped += len(datagrams)
        except OSError as error:
            if error.errno in _NO_OFFLOAD:
                self._too_large = min(self._too_large, size)
                return False
            self._failed(error, len(datagrams), peer)
        return True

    def _send_one(self, datagram: bytes, peer: Address) -> None:
        try:
            self._socket.sendto(datagram, peer)
        except BlockingIOError:
            self.dropped += 1
        except OSError as error:
            self._failed(error, 1, peer)

    def _failed(self, error: OSError, count: int, peer: Address) -> None:
        """No route, no network, a filter: to the protocol it is a lost packet."""
        self.dropped += count
        log.debug("cannot send to %s:%d: %s", *peer, error)


async def udp_transport(address: Address = ("0.0.0.0", 0)) -> UdpTransport:
    """Open a UDP socket, by default on all addresses and a free port. Raises OSError if it is taken."""
    await trio.lowlevel.checkpoint()
    return UdpTransport(address)
