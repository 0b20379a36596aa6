"""The defects and stalls of reference servers, each with a switch, over the embedded server.

    server = QuirkyServer(store, endpoint, Quirks({Quirk.WOULD_BLOCK, Quirk.STALE_SHA}, seed=1))

A client that was only ever tried with our own server shares its mistakes. These are the habits that were
seen in the real one, named by where the protocol documents (not part of this repository) describe them.
What a real server does not survive calls `Quirks.died`: whoever runs the server restarts it.
docs/explanation/promises.md has them as a table; a test holds the two together.
"""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final

import trio

from realmfs.rpc2.endpoint import Endpoint
from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.service import Reply, Request, ServerConnection
from realmfs.rpc2.transfer import BytesSink, Sink, Source
from realmfs.server.fileserver import FileServer
from realmfs.server.store import ServerStore
from realmfs.vice import calls
from realmfs.vice.detours import is_fatal
from realmfs.vice.errors import Code
from realmfs.vice.log import AnyRecord, Chmod, Chown, Create, MakeDir, Store, SymLink, Utimes, unpack_log
from realmfs.vice.types import Fid, StoreId, VersionFlags

HALF_KEEP_ALIVE: Final = 7.5
"""Seconds that a server waits for a client that has gone: half of its RPC2 timeout."""
TO_THE_END: Final = 0xFFFFFFFF


class Quirk(Enum):
    """A habit of reference servers; the value says where it is documented."""

    GARBAGE_RESULTS = "vice.md 5, reintegration.md 2.1"
    WOULD_BLOCK = "reintegration.md 2.2"
    SLOW_BREAKS = "vice.md 4.3"
    SLOW_BIND = "vice.md 2.2"
    LOCKED_READS = "reintegration.md 2.2, locks"
    VOLATILE_DUPLICATES = "reintegration.md 2.6"
    STALE_SHA = "vice.md 5.2, GetAttr"
    FETCH_EDGES = "vice.md 5.2, FetchPartial"
    PARENT_RAISED = "reintegration.md 2.7"
    DEATH_ON_ROLL_BACK = "reintegration.md 2.2, defect"
    DEATH_BY_NAME = "protocol-notes.md, names that kill"
    DEATH_AT_RANDOM = "FINDINGS.md a.2"


RATES: Final = {
    Quirk.WOULD_BLOCK: 0.1,
    Quirk.SLOW_BREAKS: 0.05,
    Quirk.SLOW_BIND: 0.1,
    Quirk.DEATH_AT_RANDOM: 0.003,
}
"""How often; all others always."""

_LOCKING: Final = frozenset(
    kind.OPCODE for kind in (calls.Reintegrate, calls.CloseReintHandle, calls.Resolve, calls.SetAcl)
)
_LOGS: Final = frozenset((calls.Reintegrate.OPCODE, calls.CloseReintHandle.OPCODE))
_READS: Final = frozenset(
    kind.OPCODE for kind in (calls.GetAttr, calls.ValidateAttrs, calls.Fetch, calls.FetchPartial)
)
_UNTOUCHED: Final = frozenset((0, Code.EWOULDBLOCK, Code.VLOGSTALE))
"""Answers to a batch that take nothing back."""
_Creation = Create | MakeDir | SymLink
_OfFiles = Store | Utimes | Chmod | Chown


def _nothing() -> None:
    """Nobody waits for a death."""


class Quirks:
    """Which habits servers have; one object may be shared by several servers."""

    def __init__(self, on: Iterable[Quirk] = (), seed: int = 0, **rates: float) -> None:
        self.on = frozenset(on)
        self.rng = random.Random(seed)
        self.rates = RATES | {Quirk[name.upper()]: rate for name, rate in rates.items()}
        self.shown: Counter[Quirk] = Counter()
        """How often each was shown."""
        self.sins: list[str] = []
        """What no client should send."""

    def __contains__(self, quirk: Quirk) -> bool:
        return quirk in self.on

    def strikes(self, quirk: Quirk) -> bool:
        """Decide whether it is shown this time."""
        if quirk not in self.on or self.rng.random() >= self.rates.get(quirk, 1.0):
            return False
        self.shown[quirk] += 1
        return True


class QuirkyServer(FileServer):
    """The embedded server with habits, and with a ledger of what it has executed."""

    def __init__(
        self, store: ServerStore, endpoint: Endpoint, quirks: Quirks, *,
        died: Callable[[], None] = _nothing, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(store, endpoint, **options)
        self.quirks = quirks
        self.died = died
        self.calls: Counter[int] = Counter()
        self.executed: Counter[StoreId] = Counter()
        self._shas: dict[Fid, bytes] = {}
        self._executing = 0
        self._done = trio.Event()
        if quirks.strikes(Quirk.VOLATILE_DUPLICATES):
            with store.transaction():
                store.database.execute("DELETE FROM reintegrated")

    async def call(self, connection: ServerConnection, request: Request) -> Reply:
        """Answer a call as a reference server would."""
        self.calls[request.opcode] += 1
        if self.quirks.strikes(Quirk.DEATH_AT_RANDOM):
            if self.quirks.rng.random() < 0.5:
                await super().call(connection, request)
            await self._die()
        if request.opcode in _LOCKING and self.quirks.strikes(Quirk.WOULD_BLOCK):
            return self._failed(request, Code.EWOULDBLOCK)
        if request.opcode == calls.NewConnectFS.OPCODE and self.quirks.strikes(Quirk.SLOW_BIND):
            await trio.sleep(HALF_KEEP_ALIVE)
        if request.opcode in _LOGS:
            reply = await self._update(connection, request)
        else:
            if request.opcode in _READS:
                await self._unlocked()
            reply = await super().call(connection, request)
        return self._spoiled(request, reply)

    async def _die(self) -> None:
        self.died()
        await trio.sleep_forever()

    async def _unlocked(self) -> None:
        while Quirk.LOCKED_READS in self.quirks and self._executing:
            self.quirks.shown[Quirk.LOCKED_READS] += 1
            await self._done.wait()

    async def _update(self, connection: ServerConnection, request: Request) -> Reply:
        overheard = Overheard(request)
        self._executing += 1
        try:
            reply = await super().call(connection, overheard)
        finally:
            self._executing -= 1
            self._done.set()
            self._done = trio.Event()
        records = overheard.records
        if reply.code == 0:
            self.executed.update(record.store_id for record in records)
            if self.quirks.on & {Quirk.DEATH_BY_NAME} and any(map(is_fatal, records)):
                self.quirks.sins.append(f"names that kill: {records}")
                await self._die()
            self._raise_parents(records)
            if self.quirks.strikes(Quirk.SLOW_BREAKS):
                await trio.sleep(HALF_KEEP_ALIVE)
        rolled_back = reply.code not in _UNTOUCHED and any(isinstance(one, _Creation) for one in records)
        if rolled_back and self.quirks.strikes(Quirk.DEATH_ON_ROLL_BACK):
            await self._die()
        return reply

    def _raise_parents(self, records: list[AnyRecord]) -> None:
        """A file's change raises the version of its directory: nobody is told (reintegration.md §2.7)."""
        if Quirk.PARENT_RAISED not in self.quirks:
            return
        store, raised = self.state.store, set()
        for fid in {record.fid for record in records if isinstance(record, _OfFiles)}:
            volume = store.volumes.find(fid.volume)
            file = store.vnodes.find(fid.in_volume(volume.id)) if volume is not None else None
            if volume is None or file is None or file.is_directory:
                continue
            above = store.vnodes.find(Fid(volume.id, *file.parent))
            if above is None or above.fid in raised or any(above.fid[1:] in _places(one) for one in records):
                continue
            raised.add(above.fid)
            vv = above.vv.raised([volume.slot])
            above.vv = vv.with_flags(vv.flags | VersionFlags.COP2PENDING)
            with store.transaction():
                store.vnodes.write([above])
            self.quirks.shown[Quirk.PARENT_RAISED] += 1

    def _failed(self, request: Request, code: Code) -> Reply:
        kind = calls.FILE_SERVICE[request.opcode]
        body = kind.reply_type().zero().pack()
        if request.opcode == calls.Reintegrate.OPCODE:
            body = b"\xff\xff\xff\xff" + body[4:]  # no record is to blame
        return self._spoiled(request, Reply(code.value, body))

    def _spoiled(self, request: Request, reply: Reply) -> Reply:
        if reply.code != 0:
            if not self.quirks.strikes(Quirk.GARBAGE_RESULTS):
                return reply
            kept = 8 if request.opcode == calls.Reintegrate.OPCODE else 0  # Index, and how many are stale
            garbage = self.quirks.rng.randbytes(len(reply.body[kept:]))
            return reply._replace(body=reply.body[:kept] + garbage)
        if request.opcode == calls.FetchPartial.OPCODE:
            self._watch_edges(calls.FetchPartial.unpack(request.body))
        if request.opcode == calls.GetAttr.OPCODE and Quirk.STALE_SHA in self.quirks:
            asked, answer = calls.GetAttr.unpack(request.body), calls.GetAttr.Reply.unpack(reply.body)
            if answer.sha:
                first = self._shas.setdefault(asked.fid, answer.sha)
                self.quirks.shown[Quirk.STALE_SHA] += first != answer.sha
                return reply._replace(body=dataclasses.replace(answer, sha=first).pack())
        return reply

    def _watch_edges(self, asked: calls.FetchPartial) -> None:
        """Note what ends in errors and closed connections there."""
        if Quirk.FETCH_EDGES in self.quirks and (
            asked.count == 0
            or (asked.offset and asked.count == TO_THE_END)
            or (asked.offset and asked.fid.is_directory)
        ):
            self.quirks.shown[Quirk.FETCH_EDGES] += 1
            self.quirks.sins.append(f"at the edge: {asked}")


def _places(record: AnyRecord) -> set[tuple[int, int]]:
    values = (getattr(record, field.name) for field in dataclasses.fields(record))
    return {value[1:] for value in values if isinstance(value, Fid)}


class Overheard:
    """A request of which the log that it brings is read, too."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._log = b""

    @property
    def opcode(self) -> int:
        return self._request.opcode

    @property
    def body(self) -> bytes:
        return self._request.body

    async def receive(self, sink: Sink, limit: int) -> int:
        """Receive into both."""
        heard = BytesSink(limit)
        count = await self._request.receive(heard, limit)
        self._log = bytes(heard.data)
        sink.write(self._log)
        return count

    async def send(self, source: Source) -> None:
        await self._request.send(source)

    @property
    def records(self) -> list[AnyRecord]:
        """The records of the log that came, if it can be read."""
        volume = int.from_bytes(self.body[:4], "big")
        try:
            return unpack_log(self._log, {volume})
        except BadPacket:
            return []
