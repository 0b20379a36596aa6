"""Binding as a client (rpc2.md §4.2): INIT1 in the clear, INIT2 under the shared secret, INIT3, INIT4.

    INIT1 sent ──INIT2──▶ INIT3 sent ──INIT4──▶ bound (a ClientLink takes over the handle)
        │                     │
        └── plain INIT2 or NAK: refused, unless a valid INIT2 comes right after; silence: NOBINDING

Only INIT2 proves that the server knows the secret, so a plain refusal is believed after a moment's wait: on
the way anybody could have made it up. INIT2 packets that do not open mean that the server uses another
secret; two of them with one of our retries between end the bind as WrongSecret (auth.md §2.4).
"""

from __future__ import annotations

from realmfs.rpc2.call import ClientLink
from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.errors import BadPacket, RpcError, StaysBusy, WrongSecret
from realmfs.rpc2.events import BindDone
from realmfs.rpc2.handshake import (
    OPCODE_OF_LEVEL,
    SECURE_VERSION,
    XOR_ENCRYPTION,
    Init1,
    KeyOffer,
    salt,
    unpack_init4,
)
from realmfs.rpc2.header import (
    OP_BUSY,
    OP_NAKED,
    RETRY,
    SECURE_CAPABLE,
    SFTP_SIDE_EFFECT,
    WORD,
    Header,
    Op,
    timestamp,
)
from realmfs.rpc2.hub import Hub
from realmfs.rpc2.kdf import derive_key
from realmfs.rpc2.link import Identity, Link
from realmfs.rpc2.secure import AUTH_XCBC, CIPHER_CBC, ReplayWindow, make_opener, make_sealer
from realmfs.rpc2.service import Address, Credentials, Level

_DOUBT = 0.05
"""How long a plain refusal waits for something better, in seconds."""

_XOR_ONLY = (
    "the server offers only the old XOR encryption, which protects nothing, so it is refused. "
    "Cure: a release of Coda on the server whose RPC2 knows AES, as 8.x does"
)

_BUSY_SEQUENCE = WORD
_BUSY_FIRST, _BUSY_LONGEST = 0.02, 1.0
"""How long a server that had no worker free is left alone, in seconds: doubled each time."""


class Binding(Link):
    """A bind on its way. Ends in one BindDone event."""

    def __init__(
        self,
        hub: Hub,
        peer: Address,
        subsystem: int,
        credentials: Credentials,
        *,
        side_effects: bool,
        give_up: float,
        now: float,
    ) -> None:
        level = Level(credentials.level)
        is_open = level is Level.OPENKIMONO
        self._offer = Init1(
            side_effect=SFTP_SIDE_EFFECT if side_effects else 0,
            level=level,
            encryption_type=0 if is_open else XOR_ENCRYPTION,
            auth_type=credentials.auth_type,
            xrandom=hub.rng.getrandbits(32).to_bytes(4, "big"),
            ident=credentials.ident,
        )
        identity = Identity(hub.new_handle(), 0, hub.random_word(), subsystem)
        key = derive_key(
            bytes(8) if is_open else credentials.secret, salt(self._offer.xrandom, identity.uniquefier)
        )
        opener = make_opener(AUTH_XCBC, CIPHER_CBC, key, ReplayWindow())
        super().__init__(hub, peer, identity, opener, None)
        self._side_effects = side_effects
        self._opcode = OPCODE_OF_LEVEL[level]
        self._init3: bytes | None = None
        self._attempt = 0
        self._give_up = give_up
        self._refusal: RpcError | None = None
        self._bad_seal_at: int | None = None  # the attempt that the first one answered
        self._busy_wait = _BUSY_FIRST
        self._transmit(now)

    # What comes in

    def receive_plain(self, header: Header, body: bytes, now: float) -> None:
        """Take a refusal, or word that the server is busy; both count only before INIT2."""
        if self._init3 is not None or header.uniquefier not in {self.identity.uniquefier, 0}:
            return
        if header.opcode == OP_BUSY and header.sequence == _BUSY_SEQUENCE:
            self._wait_for_busy(now)
        elif header.opcode == OP_NAKED:
            self._refused(RpcError(Rpc2Code.NAKED, "the server knows nothing of this bind"), now)
        elif header.opcode == Op.INIT2 and header.return_code not in {Rpc2Code.SUCCESS, Rpc2Code.OLDVERSION}:
            self._refused(RpcError(header.return_code, "the server refuses this bind"), now)
        elif header.opcode == Op.INIT2:
            self._refused(RpcError(Rpc2Code.OLDVERSION, _XOR_ONLY), now)

    def receive(self, header: Header, body: bytes, now: float) -> None:
        """Take INIT2, INIT4 or BUSY. Raises BadPacket."""
        if header.uniquefier != self.identity.uniquefier:
            raise BadPacket("not of this bind")
        if header.opcode == OP_BUSY and header.sequence == _BUSY_SEQUENCE:
            self._wait_for_busy(now)
        elif header.opcode == Op.INIT2 and self._init3 is None:
            self._receive_init2(header, body, now)
        elif header.opcode == Op.INIT4 and self._init3 is not None:
            self._receive_init4(header, body, now)

    def bad_seal(self, now: float) -> None:
        """Count packets under another secret. After INIT2 they can only be late copies of it."""
        if self._init3 is not None:
            return
        if self._bad_seal_at is None:
            self._bad_seal_at = self._attempt
        elif self._attempt > self._bad_seal_at:
            self._end(WrongSecret())

    def _receive_init2(self, header: Header, body: bytes, now: float) -> None:
        if header.return_code:
            self._end(RpcError(header.return_code, "the server refuses this bind"))
            return
        offer = KeyOffer.unpack(body)
        if offer.version != SECURE_VERSION:
            raise BadPacket(f"version {offer.version} of the secure layer")
        rng, identity = self.hub.rng, self.identity
        self.identity = Identity(identity.handle, header.local, identity.uniquefier, identity.subsystem)
        self.sealer = make_sealer(offer.auth, offer.cipher, offer.key, header.local, rng.getrandbits(128))
        # The reference takes the same algorithms and key length for its own direction; so do we.
        answer = KeyOffer(offer.version, offer.auth, offer.cipher, rng.randbytes(len(offer.key)))
        self.opener = make_opener(answer.auth, answer.cipher, answer.key, self.opener.window)
        self._init3 = answer.pack()
        self._refusal = None
        self._attempt = 0
        self._transmit(now)

    def _receive_init4(self, header: Header, body: bytes, now: float) -> None:
        if header.return_code:
            self._end(RpcError(header.return_code, "the server refuses this bind"))
            return
        first, ours = unpack_init4(body, self.identity.uniquefier)
        self.drop()
        self.sample(header.timestamp, now)
        assert self.sealer is not None
        link = ClientLink(
            self.hub,
            self.peer,
            self.identity,
            self.opener,
            self.sealer,
            first,
            side_effects=self._side_effects,
        )
        link.ours = ours
        self.hub.events.append(BindDone(self, link))

    # Time

    def on_timer(self, now: float) -> None:
        """Believe a refusal, send again, or give up."""
        if self._refusal is not None:
            self._end(self._refusal)
        elif now >= self._give_up or self._attempt >= self.hub.schedule.retries:
            self._end(self._in_vain() if self._bad_seal_at is None else WrongSecret())
        else:
            self._attempt += 1
            self.hub.counters["retries"] += 1
            self._transmit(now)

    def _in_vain(self) -> RpcError:
        host, port = self.peer
        if self._busy_wait == _BUSY_FIRST:
            return RpcError(Rpc2Code.NOBINDING, f"no answer from {host}:{port}")
        return StaysBusy(f"{host}:{port} stays busy")

    def abandon(self, error: RpcError) -> None:
        """End the bind with an error of ours."""
        self._end(error)

    def _transmit(self, now: float) -> None:
        flags = RETRY if self._attempt else 0
        stamp = timestamp(now)
        if self._init3 is None:
            packet = self.packet(self._opcode, self._offer.pack(), stamp=stamp, flags=flags | SECURE_CAPABLE)
            self.hub.send(self.peer, [packet])
        else:
            self.transmit(self.packet(Op.INIT3, self._init3, stamp=stamp, flags=flags))
        self._arm(now + self.hub.schedule.wait(self._attempt, self.host.rto))

    def _wait_for_busy(self, now: float) -> None:
        """Ask again soon: unlike a request, an offer that is answered BUSY is forgotten (rpc2.md §4.4).

        The server had no worker free at that moment, which is over in milliseconds as a rule.
        """
        self._attempt = 0
        self._arm(now + max(self._busy_wait, self.host.rto))
        self._busy_wait = min(2 * self._busy_wait, _BUSY_LONGEST)

    def _refused(self, error: RpcError, now: float) -> None:
        if self._refusal is None:
            self._refusal = error
            self._arm(now + _DOUBT)

    def _arm(self, when: float) -> None:
        self.hub.timers.set(self, min(when, self._give_up))

    def _end(self, error: RpcError) -> None:
        self.drop()
        self.hub.events.append(BindDone(self, error))
