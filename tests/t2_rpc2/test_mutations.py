"""A hundred thousand packets that nobody sent, at a secure connection of either role: none of them counts.

Whoever is on the way has every packet of a connection, may change, cut, repeat and reorder them, and has a
connection and keys of his own. Here he does so while the victim rests, waits for a reply, takes a file and
sends one, against the state machines themselves, without network and clock.
"""

from __future__ import annotations

import gc
import random
import sys
from collections import Counter
from collections.abc import Callable

import pytest

from realmfs.rpc2.accept import HalfOpen
from realmfs.rpc2.call import ClientLink
from realmfs.rpc2.core import Core
from realmfs.rpc2.events import Accepted, Arrived, BindDone, CallDone, Moved
from realmfs.rpc2.filelink import FileLink
from realmfs.rpc2.header import DATA_HEADER, Header, Op, SftpOp, naked
from realmfs.rpc2.secure import AUTH_NONE, CIPHER_CCM_8, WINDOW, make_sealer
from realmfs.rpc2.serve import ServerLink
from realmfs.rpc2.service import Address, Credentials, Level
from realmfs.rpc2.transfer import BytesSink, BytesSource
from tests.seeds import first_seed

PACKETS = 100_000
CLIENT, SERVER, VILLAIN = ("10.0.0.1", 1), ("10.0.0.2", 2), ("10.6.6.6", 6)
ALICE = Credentials(Level.SECURE, b"alice", b"8 bytes!", 1)
ECHO, FETCH, STORE = 1, 2, 3
FILE = random.Random(5).randbytes(120_000)
SCENES = ("idle", "calling", "fetching", "storing")
_GROWTH = 400
"""Memory blocks that the interpreter may have more of at the end; one for each packet would be 100 000."""


class Bound:
    """A client and a server, bound, and every packet that ever went to either."""

    def __init__(self, seed: int) -> None:
        self.now = 100.0
        self.client = Core(rng=random.Random(seed))
        self.server = Core(rng=random.Random(seed + 1), policy=lambda offer: ALICE.secret)
        self.sent: dict[Address, list[bytes]] = {CLIENT: [], SERVER: []}
        self.sunk = BytesSink()
        self.fetched = BytesSink()
        self.replies: list[CallDone] = []
        self.client.bind(SERVER, 1, ALICE, side_effects=True, give_up=200.0, now=self.now)
        self.client_link, self.server_link = self._handshake()

    def _handshake(self) -> tuple[ClientLink, ServerLink]:
        near: list[ClientLink] = []
        far: list[ServerLink] = []
        while not (near and far):
            self.pass_on(self.client, SERVER)
            far += [event.link for event in self.server.take_events() if isinstance(event, Accepted)]
            self.pass_on(self.server, CLIENT)
            for event in self.client.take_events():
                assert isinstance(event, BindDone)
                assert isinstance(event.outcome, ClientLink)
                near.append(event.outcome)
        far[0].enable(self.now)
        return near[0], far[0]

    def core(self, address: Address) -> Core:
        return self.client if address == CLIENT else self.server

    def link(self, address: Address) -> FileLink:
        return self.client_link if address == CLIENT else self.server_link

    def pass_on(self, sender: Core, to: Address, keep: int = 0) -> None:
        """Deliver what a side has to send; the last `keep` packets are lost on the way."""
        outbox, sender.hub.outbox = sender.hub.outbox, []
        packets = [packet for _, batch in outbox for packet in batch]
        self.sent[to] += packets
        origin = SERVER if to == CLIENT else CLIENT
        self.core(to).receive([(packet, origin) for packet in packets[: len(packets) - keep]], self.now)

    def exchange(self, rounds: int = 1000) -> None:
        """Carry packets until there are none, or for so many rounds; serve what arrives."""
        while rounds and (self.client.hub.outbox or self.server.hub.outbox):
            rounds -= 1
            self.pass_on(self.client, SERVER)
            self.serve_what_came()
            self.pass_on(self.server, CLIENT)
            self.replies += [event for event in self.client.take_events() if isinstance(event, CallDone)]

    def serve_what_came(self) -> None:
        for event in self.server.take_events():
            if isinstance(event, Moved):
                event.link.reply(0, b"done", self.now)
            elif isinstance(event, Arrived):
                self.serve(event)

    def serve(self, event: Arrived) -> None:
        if event.opcode == STORE:
            event.link.receive_file(self.sunk, len(FILE), self.now)
        elif event.opcode == FETCH:
            event.link.send_file(BytesSource(FILE), self.now)
        else:
            event.link.reply(0, event.body, self.now)

    def call(self, opcode: int) -> None:
        self.fetched, self.sunk = BytesSink(), BytesSink()
        source = BytesSource(FILE) if opcode == STORE else None
        sink = self.fetched if opcode == FETCH else None
        self.client_link.call(opcode, b"four" * 9, source, sink, 900.0, self.now)

    def play(self, scene: str) -> None:
        """Come to where the scene begins: everything is in the middle, and nothing is on the way."""
        self.call({"storing": STORE, "fetching": FETCH}.get(scene, ECHO))
        if scene == "calling":
            self.client.hub.outbox.clear()
        else:
            self.exchange(3 if scene != "idle" else 1000)

    def end(self, scene: str) -> None:
        """Bring the call under way to its end, and see that nothing was spoilt."""
        for _ in range(200):
            self.exchange()
            if not self.client_link.calling:
                break
            self.now += 0.5
            self.client.handle_timers(self.now)
            self.server.handle_timers(self.now)
            self.serve_what_came()
        assert not self.client_link.calling
        assert not isinstance(self.replies[-1].outcome, Exception), self.replies[-1].outcome
        assert scene != "storing" or self.sunk.data == FILE
        assert scene != "fetching" or self.fetched.data == FILE


class Villain:
    """Makes packets for one victim out of what was sent, and of what he can make himself."""

    def __init__(self, bound: Bound, victim: Address, seed: int) -> None:
        self.random = random.Random(f"villain {seed}")  # not the victims', or he would guess their keys
        link = bound.link(victim)
        self.identity = link.identity
        self.mine = bound.sent[victim]
        self.others = bound.sent[SERVER if victim == CLIENT else CLIENT]
        self.window = link.opener.window
        keys = (self.random.randbytes(19) for _ in range(3))
        self.sealers = [make_sealer(AUTH_NONE, CIPHER_CCM_8, key, self.identity.handle, 7) for key in keys]
        self.kinds: list[Callable[[], bytes]] = [
            self.flipped, self.cut, self.lengthened, self.replayed, self.renumbered, self.spliced,
            self.reflected, self.of_another_key, self.in_the_clear, self.noise,
        ]  # fmt: skip

    def packet(self) -> tuple[str, bytes]:
        kind = self.random.choice(self.kinds)
        return kind.__name__, kind()

    def old(self) -> bytes:
        """Any packet that the victim had, or may not have again: it is older than the window."""
        return self.random.choice(self.mine)

    def flipped(self) -> bytes:
        data = bytearray(self.old())
        for _ in range(self.random.choice((1, 1, 1, 2, 8))):
            data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
        return self._not_genuine(bytes(data))

    def cut(self) -> bytes:
        data = self.old()
        return data[: self.random.randrange(len(data))]

    def lengthened(self) -> bytes:
        return self.old() + self.random.randbytes(self.random.randrange(1, 40))

    def replayed(self) -> bytes:
        """As it was: repeated, and in whatever order."""
        return self.old()

    def renumbered(self) -> bytes:
        """An old packet under a number that is stale, or just right."""
        data, highest = self.old(), self.window._highest
        number = self.random.choice(
            (highest + 1, highest, highest - WINDOW, 1, 0, highest + 1000, 0xFFFFFFFF)
        )
        return self._not_genuine(data[:4] + max(number, 0).to_bytes(4, "big") + data[8:])

    def spliced(self) -> bytes:
        """The front of one packet, the end of another; or two blocks exchanged."""
        one, other = self.old(), self.old()
        at = 16 + 16 * self.random.randrange(4)
        return self._not_genuine(one[:at] + other[at:])

    def reflected(self) -> bytes:
        """What the victim sent itself, addressed to it."""
        return self.identity.handle.to_bytes(4, "big") + self.random.choice(self.others)[4:]

    def of_another_key(self) -> bytes:
        sealer = self.random.choice(self.sealers)
        sealer.sequence = self.window._highest + self.random.randrange(5)
        return sealer.seal(self._plain())

    def in_the_clear(self) -> bytes:
        """What would be a reply, a request, an ACK or a NAK, if it were sealed."""
        return self._plain()

    def noise(self) -> bytes:
        return self.identity.handle.to_bytes(4, "big") + self.random.randbytes(self.random.randrange(200))

    def _plain(self) -> bytes:
        who, word = self.identity, self.random.getrandbits(32)
        if self.random.random() < 0.5:
            opcode = self.random.choice((Op.REPLY, Op.BUSY, Op.NAKED, Op.INIT3, Op.INIT4, ECHO, STORE))
            sequence = self.random.choice((0, 1, 2, 3, word))
            header = Header(
                remote=who.handle, local=who.remote, opcode=opcode, sequence=sequence,
                uniquefier=who.uniquefier, subsystem=who.subsystem,
            )  # fmt: skip
            return self.random.choice((header.pack() + bytes(24), naked(who.handle)))
        opcode = self.random.choice((SftpOp.DATA, SftpOp.ACK, SftpOp.START, SftpOp.NAK))
        words = [3, who.handle, who.remote, 0, 0, word & 63, opcode, 0, word & 63, 1189, 0, 0, 2, 1, 1]
        return DATA_HEADER.pack(*words)

    def _not_genuine(self, data: bytes) -> bytes:
        """Exchange what came out as it went in: a packet that the victim never got may well count."""
        return data if data not in self._sent else self.noise()

    @property
    def _sent(self) -> frozenset[bytes]:
        if self._known_size != len(self.mine):
            self._known, self._known_size = frozenset(self.mine), len(self.mine)
        return self._known

    _known: frozenset[bytes] = frozenset()
    _known_size = -1


def attack(bound: Bound, victim: Address, villain: Villain, count: int) -> Counter[str]:
    """Deliver packets and lose what comes of them, as a network would; return how many there were of each."""
    core, tally = bound.core(victim), Counter[str]()
    for _ in range(count):
        kind, packet = villain.packet()
        tally[kind] += 1
        core.receive([(packet, VILLAIN if villain.random.random() < 0.5 else CLIENT)], bound.now)
        core.hub.outbox.clear()
    return tally


@pytest.mark.parametrize("victim", [CLIENT, SERVER], ids=["client", "server"])
def test_a_hundred_thousand_mutated_packets(victim: Address) -> None:
    seed = first_seed()
    bound = Bound(seed)
    core, link = bound.core(victim), bound.link(victim)
    for scene in ("storing", "fetching", "idle"):  # so that there is something to repeat
        bound.play(scene)
        bound.end(scene)
    tally = Counter[str]()
    attack(bound, victim, Villain(bound, victim, seed), 2000)  # tables and caches find their size
    gc.collect()
    blocks = sys.getallocatedblocks()
    for number, scene in enumerate(SCENES):
        bound.play(scene)
        window, link.host.last_heard = link.opener.window, -1.0
        highest, bits = window._highest, window._bits
        transfer = bound.link(victim).transfer
        moved = 0 if transfer is None else transfer.moved
        tally += attack(bound, victim, Villain(bound, victim, seed + number + 1), PACKETS // len(SCENES))
        assert core.take_events() == []
        strangers = [other for other in core.hub.links.values() if other is not link]
        assert (
            len(strangers) <= core.hub.limits.half_open_per_host
        )  # INIT1 proves nothing, and may come again
        assert all(isinstance(stranger, HalfOpen) for stranger in strangers)
        assert (window._highest, window._bits, link.host.last_heard) == (highest, bits, -1.0), "one counted"
        assert link.peer == (SERVER if victim == CLIENT else CLIENT)
        assert transfer is None or transfer.moved == moved
        bound.end(scene)
    gc.collect()
    grown = sys.getallocatedblocks() - blocks
    print(f"{dict(tally)}, {grown} blocks more")
    assert sum(tally.values()) == PACKETS
    assert min(tally.values()) > PACKETS // 20
    # What went to and fro in between is kept by this test itself: two objects a packet.
    assert grown < _GROWTH + 3 * sum(map(len, bound.sent.values()))
    assert core.hub.counters["bad"] > PACKETS // 2
