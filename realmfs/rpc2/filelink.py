"""A connection that files can move along: the state of SFTP that outlives a single call."""

from __future__ import annotations

from abc import abstractmethod

from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.header import SFTP_ACK, SFTP_DATA, SFTP_START
from realmfs.rpc2.hub import Hub
from realmfs.rpc2.link import Identity, Link, Words
from realmfs.rpc2.parameters import BLOCK_SIZE, HEADER_SIZE, MAX_BODY, SftpParameters
from realmfs.rpc2.secure import Opener, Sealer
from realmfs.rpc2.service import Address
from realmfs.rpc2.sftp import REFERENCE_PARAMETERS, Transfer

_WORN_OUT = 0xF0000000
"""With so many packets or seals used up a connection takes no more calls: none may reach 2**32."""


class FileLink(Link):
    """Numbers of both directions, parameters, and the transfer of the current call."""

    def __init__(
        self,
        hub: Hub,
        peer: Address,
        identity: Identity,
        opener: Opener,
        sealer: Sealer,
        *,
        side_effects: bool,
    ) -> None:
        super().__init__(hub, peer, identity, opener, sealer)
        self.side_effects = side_effects
        self.parameters = REFERENCE_PARAMETERS
        self.number_in = 0
        """Number of the last DATA packet of the last file that came."""
        self.number_out = 0
        self.control_number = 0
        self.transfer: Transfer | None = None
        self.sftp_heard = 0.0
        self._touched = False

    @abstractmethod
    def transfer_done(self, now: float) -> None:
        """Learn that the transfer has ended, well or not."""

    def receive_sftp(self, words: Words, packet: bytes, now: float) -> None:
        """Give a packet to the transfer that it belongs to; packets of earlier calls are late copies."""
        transfer = self.transfer
        if transfer is None or words[12] != transfer.call or transfer.failure is not None:
            self.hub.counters["stray_sftp"] += 1
            return
        self.sftp_heard = now
        if not self._touched:
            self._touched = True
            self.hub.touched.append(self)
        opcode = words[6]
        if opcode == SFTP_DATA:
            transfer.receive_data(words, packet, now)
        elif opcode == SFTP_ACK:
            transfer.receive_ack(words, now)
        elif opcode == SFTP_START:
            self._receive_start(words, packet, transfer, now)

    def end_of_burst(self, now: float) -> None:
        """Let the transfer acknowledge and write, once for all that came."""
        self._touched = False
        if self.transfer is not None and self.transfer.failure is None:
            self.transfer.end_of_burst(now)
        self.arm()

    @abstractmethod
    def arm(self) -> None:
        """Set the deadline to the nearest of all that the connection waits for."""

    @property
    def worn_out(self) -> bool:
        """Tell whether some counter of the connection comes near its end."""
        assert self.sealer is not None
        return max(self.sealer.sequence, self.number_in, self.number_out) > _WORN_OUT

    def room(self, body: int) -> int:
        """Return how many bytes of a file can ride with a body of this size."""
        return min(self.hub.packet_size(self.peer) - HEADER_SIZE, MAX_BODY) - body

    def _receive_start(self, words: Words, packet: bytes, transfer: Transfer, now: float) -> None:
        length = words[4]
        block = packet[HEADER_SIZE : HEADER_SIZE + length][-BLOCK_SIZE:]
        transfer.receive_start(SftpParameters.unpack(block) if block else None, words[13], now)


def cut_piggyback(body: bytes, offset: int) -> tuple[bytes, bytes]:
    """Divide a body into parameters and piggybacked data. Raises BadPacket."""
    if offset > len(body):
        raise BadPacket(f"data piggybacked at {offset} in a body of {len(body)}")
    return body[:offset], body[offset:]
