"""The door of the server role: who may bind, and how many at a time (rpc2.md §4, §16).

INIT1 may come from anybody and with any sender address. What it costs us is bounded: half-open binds are
few and short-lived, and a refusal keeps no state at all.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from enum import Enum

from realmfs.rpc2.accept import Asked, BindKey, HalfOpen, WaitingRoom
from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.handshake import LEVEL_OF_OPCODE, SECURE_VERSION, VERSION_TEXT, Init1
from realmfs.rpc2.header import FIRST_HANDLE, SECURE_CAPABLE, SFTP_SIDE_EFFECT, WORD, Header, Op
from realmfs.rpc2.hub import Hub
from realmfs.rpc2.serve import ServerLink
from realmfs.rpc2.service import Address, BindOffer, Level

log = logging.getLogger(__name__)


class Verdict(Enum):
    """What a policy may say instead of a secret."""

    REFUSED = "refused"
    NOBODY = "nobody serves that subsystem"


Policy = Callable[[BindOffer], bytes | Verdict]
"""Returns the secret shared with a client that wants to bind, or why there is none."""


def serve_nobody(offer: BindOffer) -> Verdict:
    """Be a client only."""
    return Verdict.NOBODY


class Reception:
    """Takes every INIT1, and keeps the list of those who were let in."""

    def __init__(self, hub: Hub, policy: Policy) -> None:
        self._hub = hub
        self._policy = policy
        self._waiting = WaitingRoom(hub.limits)
        self._served: dict[BindKey, ServerLink] = {}
        self._served_from: Counter[Address] = Counter()

    def receive_init1(self, header: Header, body: bytes, sender: Address, now: float) -> None:
        """Answer a client that wants to be bound. Raises BadPacket."""
        key: BindKey = (sender, header.local, header.uniquefier)
        known = self._waiting.get(key)
        if known is not None:
            known.repeated(header, now)
            return
        if key in self._served:
            self._hub.counters["late_init1"] += 1
            return
        init1 = Init1.unpack(body)
        if header.local < FIRST_HANDLE:
            raise BadPacket("a handle that cannot be addressed")
        offer = BindOffer(
            sender,
            header.subsystem,
            LEVEL_OF_OPCODE[header.opcode],
            init1.auth_type,
            init1.encryption_type,
            init1.ident,
            init1.side_effect == SFTP_SIDE_EFFECT,
        )
        if not header.flags & SECURE_CAPABLE or init1.secure_version < SECURE_VERSION:
            log.info("refused a bind from %s:%d, which speaks only the old handshake (XOR)", *sender)
            self._refuse(header, sender, Rpc2Code.WRONGVERSION)
        elif init1.version_text != VERSION_TEXT:
            self._refuse(header, sender, Rpc2Code.OLDVERSION)
        else:
            self._judge(header, init1, offer, now)

    def admit(self, link: ServerLink) -> None:
        """Enter a client that has shown its secret; idle ones, the longest unused first, make room for it."""
        limits, peer = self._hub.limits, link.key[0]
        if self._served_from[peer] >= limits.connections_per_peer:
            self._evict([known for known in self._served.values() if known.key[0] == peer])
        elif len(self._served) >= limits.connections:
            self._evict(list(self._served.values()))
        self._served[link.key] = link
        self._served_from[peer] += 1

    def dismiss(self, link: ServerLink) -> None:
        """Strike off a client that is gone."""
        if self._served.get(link.key) is link:
            del self._served[link.key]
            self._served_from[link.key[0]] -= 1
            if not self._served_from[link.key[0]]:
                del self._served_from[link.key[0]]

    def _evict(self, crowd: list[ServerLink]) -> None:
        self._hub.counters["evicted"] += 1
        min(crowd, key=lambda link: (not link.idle, link.used)).close()

    def _judge(self, header: Header, init1: Init1, offer: BindOffer, now: float) -> None:
        verdict = self._policy(offer)
        if verdict is Verdict.NOBODY:
            self._reply(header, offer.peer, Op.BUSY, sequence=WORD)
        elif verdict is Verdict.REFUSED:
            self._refuse(header, offer.peer, Rpc2Code.NOTAUTHENTICATED)
        elif not self._waiting.make_room(offer.peer[0]):
            self._hub.counters["binds_over_limit"] += 1
        elif isinstance(verdict, bytes):
            secret = bytes(8) if offer.level == Level.OPENKIMONO else verdict
            HalfOpen(self._hub, self._waiting, Asked(header, init1, offer, secret), now)

    def _refuse(self, asked: Header, peer: Address, code: Rpc2Code) -> None:
        self._hub.counters["binds_refused"] += 1
        self._reply(asked, peer, Op.INIT2, code=code)

    def _reply(self, asked: Header, peer: Address, opcode: Op, *, sequence: int = 0, code: int = 0) -> None:
        """Answer without keys. The body that the reference sends here is stale memory; ours is empty."""
        header = Header(
            remote=asked.local,
            local=self._hub.new_handle(),
            sequence=sequence,
            opcode=opcode,
            subsystem=asked.subsystem,
            return_code=code,
            uniquefier=asked.uniquefier,
            timestamp=asked.timestamp,
        )
        self._hub.send(peer, [header.pack()])
