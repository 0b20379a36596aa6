"""Accepting a bind as a server (rpc2.md §4.2).

    INIT1 ──▶ half open: INIT2 sent, repeated a few times ──INIT3──▶ INIT4 sent, a ServerLink takes over
                 └── nothing for a while: forgotten, the client never learns

INIT1 proves nothing about its sender. A half-open bind therefore costs little, is answered with fewer bytes
than it brought, and is counted against limits (`WaitingRoom`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from realmfs.rpc2.errors import BadPacket, RpcError
from realmfs.rpc2.estimate import Host
from realmfs.rpc2.events import Accepted
from realmfs.rpc2.handshake import (
    LONGEST_KEY,
    SECURE_VERSION,
    SHORTEST_KEY,
    Init1,
    KeyOffer,
    pack_init4,
    salt,
)
from realmfs.rpc2.header import RETRY, Header, Op
from realmfs.rpc2.hub import Hub
from realmfs.rpc2.kdf import derive_key
from realmfs.rpc2.link import Identity, Link
from realmfs.rpc2.parameters import Limits
from realmfs.rpc2.secure import (
    AUTH_NONE,
    AUTH_XCBC,
    CIPHER_CBC,
    CIPHER_CCM_8,
    ReplayWindow,
    Sealer,
    make_opener,
    make_sealer,
)
from realmfs.rpc2.serve import ServerLink
from realmfs.rpc2.service import Address, BindOffer, Level

BindKey = tuple[Address, int, int]
"""What tells a repeated INIT1: the sender, its handle, its uniquefier."""

_MOST_REPEATS = 3
_COLOR = 0x00FF0000


@dataclass(frozen=True, slots=True)
class Asked:
    """An INIT1 that a service has agreed to."""

    header: Header
    init1: Init1
    offer: BindOffer
    secret: bytes


class WaitingRoom:
    """All half-open binds of an endpoint, oldest first, and how many each host has."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waiting: dict[BindKey, HalfOpen] = {}
        self._hosts: Counter[str] = Counter()

    def get(self, key: BindKey) -> HalfOpen | None:
        """Return the bind that an INIT1 repeats, if any."""
        return self._waiting.get(key)

    def make_room(self, host: str) -> bool:
        """Tell whether a host may have one more bind.

        When all places are taken the oldest bind goes: somebody floods us, and real clients ask again.
        """
        if self._hosts[host] >= self._limits.half_open_per_host:
            return False
        if len(self._waiting) >= self._limits.half_open:
            next(iter(self._waiting.values())).drop()
        return True

    def enter(self, bind: HalfOpen) -> None:
        """Take in a bind."""
        self._waiting[bind.key] = bind
        self._hosts[bind.key[0][0]] += 1

    def leave(self, bind: HalfOpen) -> None:
        """Let a bind go; it may have gone before."""
        if self._waiting.get(bind.key) is not bind:
            return
        del self._waiting[bind.key]
        host = bind.key[0][0]
        self._hosts[host] -= 1
        if not self._hosts[host]:
            del self._hosts[host]


class HalfOpen(Link):
    """A client that has asked and must still show that it knows the secret."""

    def __init__(self, hub: Hub, room: WaitingRoom, asked: Asked, now: float) -> None:
        header, init1, peer = asked.header, asked.init1, asked.offer.peer
        length = min(max(init1.key_length, SHORTEST_KEY), LONGEST_KEY)
        offer = KeyOffer(SECURE_VERSION, AUTH_NONE, CIPHER_CCM_8, hub.rng.randbytes(length))
        identity = Identity(
            hub.new_handle(), header.local, header.uniquefier, header.subsystem, header.flags & _COLOR
        )
        derived = derive_key(asked.secret, salt(init1.xrandom, header.uniquefier))
        sealer = make_sealer(AUTH_XCBC, CIPHER_CBC, derived, header.local, hub.rng.getrandbits(128))
        opener = make_opener(offer.auth, offer.cipher, offer.key, ReplayWindow())
        # The sender's address may be forged: it gets no place among the hosts yet.
        super().__init__(hub, peer, identity, opener, sealer, host=Host())
        self.key: BindKey = (peer, header.local, header.uniquefier)
        self._room = room
        room.enter(self)
        self._init2_sealer: Sealer = sealer
        self._init2 = offer.pack()
        self._asked = asked
        self._stamp = header.timestamp
        self._repeats = 0
        self._began = now
        self._give_up = now + hub.limits.half_open_for
        self._transmit(now)

    def drop(self) -> None:
        """Leave the tables, and the waiting room."""
        super().drop()
        self._room.leave(self)

    def abandon(self, error: RpcError) -> None:
        """Forget the client."""
        self.drop()

    def repeated(self, header: Header, now: float) -> None:
        """Answer another copy of INIT1, unless there were too many."""
        if self._repeats < _MOST_REPEATS:
            self._repeats += 1
            self._stamp = header.timestamp
            self._transmit(now)

    def receive(self, header: Header, body: bytes, now: float) -> None:
        """Take INIT3: the client knows the secret, and names the key it wants to hear. Raises BadPacket."""
        identity = self.identity
        sender = (header.local, header.uniquefier)
        if header.opcode != Op.INIT3 or sender != (identity.remote, identity.uniquefier):
            raise BadPacket("not the INIT3 that this bind waits for")
        offer = KeyOffer.unpack(body)
        if offer.version != SECURE_VERSION:
            raise BadPacket(f"version {offer.version} of the secure layer")
        rng, asked = self.hub.rng, self._asked
        sealer = make_sealer(
            offer.auth,
            offer.cipher,
            offer.key,
            identity.remote,
            rng.getrandbits(128),
            self._init2_sealer.sequence,
        )
        first = 0 if asked.offer.level == Level.OPENKIMONO else rng.getrandbits(32)
        self.drop()
        link = ServerLink(
            self.hub, self.peer, self.identity, self.opener, sealer, first, asked.offer, self.key
        )
        link.host.last_heard = now
        if not self._repeats:
            link.host.sample(now - self._began)
        link.send_init4(pack_init4(first, identity.uniquefier), header, now)
        self.hub.events.append(Accepted(link))

    def on_timer(self, now: float) -> None:
        """Repeat INIT2, or forget the client."""
        if now >= self._give_up:
            self.drop()
            self.hub.counters["half_open_expired"] += 1
        elif self._repeats < _MOST_REPEATS:
            self._repeats += 1
            self._transmit(now)
        else:
            self.hub.timers.set(self, self._give_up)

    def _transmit(self, now: float) -> None:
        flags = RETRY if self._repeats else 0
        self.transmit(self.packet(Op.INIT2, self._init2, stamp=self._stamp, flags=flags))
        wait = self.hub.schedule.wait(self._repeats, self.host.rto)
        self.hub.timers.set(self, min(now + wait, self._give_up))
