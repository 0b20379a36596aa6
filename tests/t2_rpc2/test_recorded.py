"""A session recorded between two reference programs, with each of them replaced by ours in turn.

The random choices of the one who is replaced are taken from the record, so that everything the other one
said fits. What ours sends must then equal what the reference sent, but for the clocks, and where ours does
better on purpose.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from realmfs.rpc2.call import ClientLink
from realmfs.rpc2.core import Core
from realmfs.rpc2.events import Accepted, Arrived, BindDone, CallDone, Moved
from realmfs.rpc2.header import DATA_HEADER, RETRY, Op, SftpOp, split
from realmfs.rpc2.secure import ReplayWindow, make_opener
from realmfs.rpc2.serve import ServerLink
from realmfs.rpc2.service import Credentials, Reply
from realmfs.rpc2.sftp import REFERENCE_PARAMETERS
from realmfs.rpc2.transfer import BytesSink, BytesSource

GROUPS = json.loads((Path(__file__).parents[1] / "data" / "rpc2.json").read_text())["groups"]
PEER = ("192.0.2.1", 1)
SECRET = bytes.fromhex("62616e616e617300")
INIT1, INIT3, INIT2, INIT4 = 0, 1, 16, 17


def file_of(size: int) -> bytes:
    return bytes((7 * n + 3) % 256 for n in range(size))


class Dice(random.Random):
    """Falls as it fell in the record."""

    def __init__(self, handle: int, words: list[int], key: bytes) -> None:
        super().__init__(0)
        self._handle, self._words, self._key = handle, words, key

    def randint(self, a: int, b: int) -> int:
        return self._handle

    def getrandbits(self, k: int) -> int:
        return self._words.pop(0) if k == 32 else super().getrandbits(k)

    def randbytes(self, n: int) -> bytes:
        assert n == len(self._key)
        return self._key


class Record:
    """One of the two recorded sessions."""

    def __init__(self, level: str) -> None:
        group = GROUPS[f"session_level_{level}"]
        self.level = int(level)
        self.secret = SECRET if level == "66" else bytes(8)
        self.packets: list[dict[str, Any]] = group["packets"]
        self.handshake: dict[str, str] = group["handshake"]

    def wire(self, index: int) -> bytes:
        return bytes.fromhex(self.packets[index]["wire"])

    def plain(self, index: int) -> bytes:
        return bytes.fromhex(self.packets[index]["plaintext"])

    def key(self, name: str) -> bytes:
        return bytes.fromhex(self.handshake[name])

    def number(self, name: str) -> int:
        return int(self.handshake[name], 16)


@pytest.fixture(params=["66", "98"])
def record(request: pytest.FixtureRequest) -> Record:
    return Record(request.param)


def same(ours: bytes, theirs: bytes) -> None:
    """Compare two packets, but for clocks; of SFTP, but for flags and echo that mean nothing to the receiver.

    In front of a parameter block the reference sends 24 bytes of stale memory; ours are zero.
    """
    a, b = list(DATA_HEADER.unpack_from(ours)), list(DATA_HEADER.unpack_from(theirs))
    assert (a[13] != 0) == (b[13] != 0)
    ignored = [13] if a[0] == 3 else [11, 13]
    if a[0] == 3 and a[6] == SftpOp.DATA:
        ignored += [3, 7, 14]
        assert (a[7] ^ b[7]) & 1 == 0
    for word in ignored:
        a[word] = b[word] = 0
    assert a == b
    if ours[-44:-20] == bytes(24):
        theirs = theirs[:-44] + bytes(24) + theirs[-20:]
    assert ours[60:] == theirs[60:]


def outbox(core: Core, opener: Any) -> list[bytes]:
    """Return what a core has to send, out of its envelopes."""
    datagrams = [datagram for _, batch in core.hub.outbox for datagram in batch]
    core.hub.outbox.clear()
    return [opener.open(datagram) for datagram in datagrams]


class TestOurClient:
    """Every packet of the reference server, played to our client."""

    def bind(self, record: Record) -> tuple[Core, ClientLink, Any]:
        dice = Dice(
            record.number("client_handle"),
            [int(record.handshake[name], 16) for name in ("xrandom_wire", "uniquefier_wire")],
            record.key("key_server_to_client"),
        )
        core = Core(rng=dice, sftp=REFERENCE_PARAMETERS)
        ident = bytes.fromhex(record.handshake["ident"])
        core.bind(
            PEER,
            1001,
            Credentials(record.level, ident, record.secret, 4),
            side_effects=True,
            give_up=9.0,
            now=1.0,
        )
        ((_, (init1,)),) = core.hub.outbox
        core.hub.outbox.clear()
        same(init1, record.plain(INIT1))
        core.receive([(record.wire(INIT2), PEER)], 1.0)
        opener = make_opener(0, 14, record.key("key_client_to_server"), ReplayWindow())
        (init3,) = outbox(core, opener)
        same(init3, record.plain(INIT3))
        core.receive([(record.wire(INIT4), PEER)], 1.0)
        (done,) = core.take_events()
        assert isinstance(done, BindDone)
        assert isinstance(done.outcome, ClientLink)
        return core, done.outcome, opener

    def test_plays_the_whole_session(self, record: Record) -> None:
        core, link, opener = self.bind(record)
        link._announced = (
            True  # the reference announces its parameters with the first file, ours with any call
        )
        now = 1.0

        def call(
            opcode: int, index: int, source: BytesSource | None = None, sink: BytesSink | None = None
        ) -> None:
            body = split(record.plain(index))[1]
            header = split(record.plain(index))[0]
            parameters = body[: header.se_offset] if header.se_flags else body
            link.call(opcode, parameters, source, sink, 99.0, now)
            (request,) = outbox(core, opener)
            same(request, record.plain(index))

        def hear(*indexes: int) -> list[Reply]:
            core.receive([(record.wire(index), PEER) for index in indexes], now)
            return [event.outcome for event in core.take_events() if isinstance(event, CallDone)]  # type: ignore[misc]

        call(3, 2)
        assert hear(18) == [Reply(0, bytes(8))]
        call(5, 3)
        assert hear(19) == [Reply(2, bytes(8))]
        call(6, 4)
        assert hear(20) == [Reply(-3)]
        call(4, 5)
        assert hear(21) == []
        assert hear(22) == [Reply(0, split(record.plain(22))[1])]
        self.fetches(record, core, link, opener, call, hear)
        self.stores(record, core, opener, call, hear)

    def fetches(
        self, record: Record, core: Core, link: ClientLink, opener: Any, call: Any, hear: Any
    ) -> None:
        link._announced = False
        call(1, 6, sink=(sink := BytesSink()))
        assert hear(23, 24, 25) == []
        (ack,) = outbox(core, opener)
        same(ack, record.plain(7))
        ((_, _, moved),) = hear(26)
        assert moved == 3000
        assert sink.data == file_of(3000)
        call(1, 8, sink=(sink := BytesSink()))
        ((_, _, moved),) = hear(27)
        assert (moved, sink.data) == (300, file_of(300))

    def stores(self, record: Record, core: Core, opener: Any, call: Any, hear: Any) -> None:
        data = split(record.plain(9))[1][4:]
        call(2, 9, source=BytesSource(data))
        assert hear(28)[0].moved == 300
        whole = b"".join(record.plain(index)[60:] for index in (12, 13, 14))
        call(2, 10, source=BytesSource(whole))
        assert hear(29) == []
        ours = outbox(core, opener)
        for packet, index in zip(ours, (12, 13, 14), strict=True):
            same(packet, record.plain(index))
        assert hear(30) == []
        assert hear(31)[0].moved == 3000
        call(1, 15, sink=(sink := BytesSink()))
        assert hear(32)[0].moved == 0
        assert sink.data == b""


class TestOurServer:
    """Every packet of the reference client, played to our server."""

    def bind(self, record: Record) -> tuple[Core, ServerLink, Any]:
        first = split(record.plain(2))[0].sequence
        dice = Dice(record.number("server_handle"), [first], record.key("key_client_to_server"))
        core = Core(rng=dice, sftp=REFERENCE_PARAMETERS, policy=lambda offer: record.secret)
        core.hub.sftp = REFERENCE_PARAMETERS
        core.receive([(record.wire(INIT1), PEER)], 1.0)
        derived = make_opener(9, 12, record.key("derived_key_48"), ReplayWindow())
        (init2,) = outbox(core, derived)
        same(init2, record.plain(INIT2))
        core.receive([(record.wire(INIT3), PEER)], 1.0)
        opener = make_opener(0, 14, record.key("key_server_to_client"), derived.window)
        (init4,) = outbox(core, opener)
        assert init4[:64] == self.clocked(record.plain(INIT4), init4)[:64]  # the rest means nothing
        (event,) = core.take_events()
        assert isinstance(event, Accepted)
        event.link.enable(1.0)
        return core, event.link, opener

    @staticmethod
    def clocked(theirs: bytes, ours: bytes) -> bytes:
        """Return their packet with our clocks."""
        return theirs[:44] + ours[44:48] + theirs[48:52] + ours[52:56] + theirs[56:]

    def test_plays_the_whole_session(self, record: Record) -> None:
        core, link, opener = self.bind(record)

        def hear(*indexes: int) -> Any:
            core.receive([(record.wire(index), PEER) for index in indexes], 1.0)
            return core.take_events()

        def answer(index: int, code: int = 0) -> None:
            header, body = split(record.plain(index))
            link.reply(code, body[: header.se_offset] if header.se_flags & 2 else body, 1.0)
            (reply,) = outbox(core, opener)
            same(reply, record.plain(index))

        for request, reply, code in ((2, 18, 0), (3, 19, 2), (4, 20, -3)):
            (arrived,) = hear(request)
            assert isinstance(arrived, Arrived)
            assert (arrived.opcode, arrived.body) == (
                split(record.plain(request))[0].opcode,
                split(record.plain(request))[1],
            )
            answer(reply, code)
        hear(5)
        core.handle_timers(1.2)
        (busy,) = outbox(core, opener)
        same(busy, record.plain(21))
        answer(22)
        self.fetches(core, link, opener, record, hear, answer)
        self.stores(core, link, opener, record, hear, answer)

    def fetches(
        self, core: Core, link: ServerLink, opener: Any, record: Record, hear: Any, answer: Any
    ) -> None:
        hear(6)
        assert link.send_file(BytesSource(file_of(3000)), 1.0) is None
        ours = outbox(core, opener)
        for packet, index in zip(ours, (23, 24, 25), strict=True):
            same(packet, record.plain(index))
        (moved,) = hear(7)
        assert isinstance(moved, Moved)
        assert moved.outcome == 3000
        answer(26)
        hear(8)
        assert link.send_file(BytesSource(file_of(300)), 1.0) == 300
        answer(27)

    def stores(
        self, core: Core, link: ServerLink, opener: Any, record: Record, hear: Any, answer: Any
    ) -> None:
        hear(9)
        sink = BytesSink()
        assert link.receive_file(sink, 300, 1.0) == 300
        assert sink.data == split(record.plain(9))[1][4:]
        answer(28)
        hear(10)
        sink = BytesSink()
        assert link.receive_file(sink, 3000, 1.0) is None
        (start,) = outbox(core, opener)
        assert start[84:] == record.plain(29)[84:]
        assert (
            DATA_HEADER.unpack_from(record.plain(11))[3] & RETRY
        )  # the first packet comes twice (sftp.md §8)
        (moved,) = hear(11, 12, 13, 14)
        assert moved.outcome == 3000
        assert sink.data == b"".join(record.plain(index)[60:] for index in (12, 13, 14))
        (ack,) = outbox(core, opener)
        same(ack, record.plain(30))
        answer(31)
        hear(15)
        assert link.send_file(BytesSource(b""), 1.0) == 0
        answer(32)
        assert split(record.plain(32))[0].opcode == Op.REPLY
