"""A scripted file server on the fake network: answers as told, remembers what it was asked, can be slow or
die.

It has a small idea of objects (status, data) so that ordinary calls need no script. `on[Call]` replaces
the answer of a call: a function of the request that returns a code, or a code and a reply; it may be
async. `delay[Call]` is in seconds. `calls` is what was asked, in order.
"""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import trio

from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.endpoint import Connection, Endpoint
from realmfs.rpc2.errors import RpcError
from realmfs.rpc2.service import ANONYMOUS, Address, BindOffer, Reply, Request, ServerConnection
from realmfs.rpc2.transfer import BytesSink, BytesSource
from realmfs.vice import calls as vice
from realmfs.vice.callbacks import CallBack, CallBackFetch
from realmfs.vice.calls import FILE_SERVICE
from realmfs.vice.cop2 import unpack_entries
from realmfs.vice.errors import Code
from realmfs.vice.types import (
    CALLBACK_SUBSYSTEM,
    FILE_SUBSYSTEM,
    Fid,
    FidRange,
    ObjectType,
    ReintHandle,
    Status,
    StoreId,
    VersionVector,
    VolumeInfo,
    VolumeStatus,
    VolumeType,
)
from realmfs.vice.wire import Results

VOLUME = 0x7F000000
ROOT = Fid(VOLUME, 1, 1)
FILE = Fid(VOLUME, 2, 2)
DIRECTORY = Fid(VOLUME, 3, 3)

Script = Callable[..., Any]


def vector(*versions: int, store: int = 1, flags: int = 0) -> VersionVector:
    """A version vector whose store id is (9, store)."""
    return VersionVector(tuple(versions) + (0,) * (8 - len(versions)), StoreId(9, store), flags)


def status(fid: Fid, vv: VersionVector, length: int = 0) -> Status:
    kind = ObjectType.DIRECTORY if fid.is_directory else ObjectType.FILE
    return Status(kind, 1, length, 1, vv, 1_000_000_000, 7, 7, True, 9, 9, 0o644, (1, 1))


@dataclass
class Object:
    vv: VersionVector
    data: bytes = b""


@dataclass
class VicePeer:
    """One server. `slot` is its place in the group."""

    endpoint: Endpoint
    slot: int = 0
    objects: dict[Fid, Object] = field(default_factory=dict)
    volumes: dict[str, VolumeInfo] = field(default_factory=dict)
    root_volume: str = "/"
    on: dict[type[Any], Script] = field(default_factory=dict)
    delay: dict[type[Any], float] = field(default_factory=lambda: defaultdict(float))
    calls: list[Any] = field(default_factory=list)
    cop2: list[Any] = field(default_factory=list)
    logs: list[bytes] = field(default_factory=list)
    containers: dict[int, bytearray] = field(default_factory=dict)
    secrets: dict[bytes, bytes] = field(default_factory=dict)
    """Secret tokens that are accepted, and their handshake keys."""
    channels: dict[Address, Connection] = field(default_factory=dict)
    offers: list[BindOffer] = field(default_factory=list)
    probes_back: bool = True
    fetched_back: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.endpoint.serve(FILE_SUBSYSTEM, self)

    # what a test asks and does

    def asked(self, kind: type[Any]) -> list[Any]:
        """The requests of one kind so far."""
        return [request for request in self.calls if isinstance(request, kind)]

    async def break_promise(self, fid: Fid) -> None:
        """Tell every client."""
        for channel in list(self.channels.values()):
            await channel.call(CallBack.OPCODE, CallBack(fid=fid).pack())

    async def fetch_back(self, fid: Fid) -> tuple[int, bytes]:
        """Get contents from the first client."""
        sink = BytesSink()
        channel = next(iter(self.channels.values()))
        reply = await channel.call(CallBackFetch.OPCODE, CallBackFetch(fid=fid).pack(), sink=sink)
        return reply.code, sink.data

    # the service

    def secret(self, offer: BindOffer) -> bytes | None:
        self.offers.append(offer)
        if offer.level == ANONYMOUS.level:
            return bytes(8)
        return self.secrets.get(offer.ident)

    async def connected(self, connection: ServerConnection) -> None:
        connection.data = None

    def closed(self, connection: ServerConnection) -> None:
        pass

    async def call(self, connection: ServerConnection, request: Request) -> Reply:
        kind = FILE_SERVICE.get(request.opcode)
        if kind is None:
            return Reply(Rpc2Code.INVALIDOPCODE)
        asked = kind.unpack(request.body)
        self.calls.append(asked)
        self.cop2 += unpack_entries(getattr(asked, "piggy_cop2", b""))
        await trio.sleep(self.delay[kind])
        script = self.on.get(kind) or getattr(self, f"do_{_lower(kind.__name__)}")
        parameters = len(inspect.signature(script).parameters)
        answer = script(*(asked, connection, request)[:parameters])
        if isinstance(answer, Awaitable):
            answer = await answer
        code, reply = answer if isinstance(answer, tuple) else (answer, None)
        reply = reply or kind.reply_type().zero()
        return Reply(int(code), reply.pack())

    # ordinary answers

    async def do_new_connect_fs(self, _: Any, connection: ServerConnection) -> Code:
        return await self._probe_back(connection.peer)

    async def do_get_time(self, _: Any, connection: ServerConnection) -> Code:
        if connection.peer not in self.channels:
            return Code.ENOTCONN
        return await self._probe_back(connection.peer) if self.probes_back else Code.SUCCESS

    async def _probe_back(self, client: Address) -> Code:
        try:
            if client not in self.channels:
                self.channels[client] = await self.endpoint.bind(client, CALLBACK_SUBSYSTEM, ANONYMOUS)
            await self.channels[client].call(CallBack.OPCODE, CallBack(fid=Fid.zero()).pack())
        except RpcError:
            self.channels.pop(client, None)
            return Code.EPIPE
        return Code.SUCCESS

    def do_token_expired(self, _: Any, connection: ServerConnection) -> Rpc2Code:
        self.channels.pop(connection.peer, None)
        return Rpc2Code.NAKED

    def do_get_root_volume(self, _: Any) -> tuple[Code, Results]:
        return Code.SUCCESS, vice.GetRootVolume.Reply(volume=self.root_volume.encode() + b"\0")

    def do_get_volume_info(self, request: vice.GetVolumeInfo) -> tuple[Code, Results] | Code:
        info = self.volumes.get(request.name.decode())
        return (Code.SUCCESS, vice.GetVolumeInfo.Reply(info=info)) if info else Code.VNOVOL

    def do_get_volume_status(self, request: vice.GetVolumeStatus) -> tuple[Code, Results]:
        state = VolumeStatus(self.slot, 0, True, True, True, False, 0, 0, 5000, 100 + self.slot, 1, 2)
        return Code.SUCCESS, vice.GetVolumeStatus.Reply(
            status=state, name=b"/.0\0", offline=b"\0", motd=b"hello\0"
        )

    def _status(self, fid: Fid) -> Status:
        found = self.objects[fid]
        return status(fid, found.vv, len(found.data))

    def do_get_attr(self, request: vice.GetAttr) -> tuple[Code, Results] | Code:
        if request.fid not in self.objects:
            return Code.VNOVNODE
        return Code.SUCCESS, vice.GetAttr.Reply(status=self._status(request.fid), sha=b"")

    def do_get_acl(self, request: vice.GetAcl) -> tuple[Code, Results] | Code:
        if request.fid not in self.objects:
            return Code.VNOVNODE
        reply = vice.GetAcl.Reply(acl=b"1\n0\nadam 127\n\0", status=self._status(request.fid))
        return Code.SUCCESS, reply

    def do_validate_attrs(self, request: vice.ValidateAttrs) -> tuple[Code, Results] | Code:
        if request.primary not in self.objects:
            return Code.VNOVNODE
        flags = bytes(
            p.fid in self.objects and self.objects[p.fid].vv.versions == p.vv.versions
            for p in request.piggies
        )
        reply = vice.ValidateAttrs.Reply(status=self._status(request.primary), sha=b"", flags=flags)
        return Code.SUCCESS, reply

    async def do_fetch_partial(
        self, request: vice.FetchPartial, _: ServerConnection, transfer: Request
    ) -> tuple[Code, Results] | Code:
        if request.fid == Fid.zero():
            return Code.EINVAL
        if request.fid not in self.objects:
            return Code.VNOVNODE
        found = self.objects[request.fid]
        if request.offset and request.vv.versions != found.vv.versions:
            return Code.EAGAIN
        if request.primary_host == 0:
            count = len(found.data) if request.count == vice.WHOLE else request.count
            assert count or not found.data, "vice.md §5.2: never ask for 0 bytes"
            assert request.count == vice.WHOLE or request.offset + count <= len(found.data)
            await transfer.send(BytesSource(found.data[request.offset : request.offset + count]))
        return Code.SUCCESS, vice.FetchPartial.Reply(status=self._status(request.fid))

    def do_get_vol_vs(self, _: Any) -> tuple[Code, Results]:
        return Code.SUCCESS, vice.GetVolVS.Reply(stamp=100 + self.slot, promised=True)

    def do_validate_vols(self, request: vice.ValidateVols) -> tuple[Code, Results]:
        return Code.SUCCESS, vice.ValidateVols.Reply(flags=bytes([1] * len(request.volumes)))

    def do_alloc_fids(self, request: vice.AllocFids) -> tuple[Code, Results]:
        assert request.range.count > 0, "kills a real server"
        odd = request.type is ObjectType.DIRECTORY
        granted = FidRange(200 + self.slot * 2 + odd, 300, 6, request.range.count)
        return Code.SUCCESS, vice.AllocFids.Reply(range=granted)

    def do_cop2(self, request: vice.Cop2) -> Code:
        self.cop2 += unpack_entries(request.entries)
        return Code.SUCCESS

    def do_resolve(self, _: Any) -> Code:
        return Code.SUCCESS

    def do_set_acl(self, request: vice.SetAcl) -> tuple[Code, Results] | Code:
        found = self.objects[request.fid]
        if request.status.vv.versions != found.vv.versions:
            return Code.EINCOMPATIBLE
        found.vv = found.vv.raised([self.slot]).with_store_id(request.store_id)
        new = replace(self._status(request.fid), callback=False)
        return Code.SUCCESS, vice.SetAcl.Reply(status=new, new_stamp=0, promised=False)

    async def do_reintegrate(
        self, request: vice.Reintegrate, _: ServerConnection, transfer: Request
    ) -> tuple[Code, Results]:
        sink = BytesSink()
        await transfer.receive(sink, request.log_size)
        self.logs.append(sink.data)
        reply = vice.Reintegrate.Reply(index=1, stale_dirs=(), new_stamp=0, promised=False)
        return Code.SUCCESS, reply

    def do_open_reint_handle(self, _: Any) -> tuple[Code, Results]:
        number = len(self.containers) + 1
        self.containers[number] = bytearray()
        return Code.SUCCESS, vice.OpenReintHandle.Reply(handle=ReintHandle(1, self.slot, number))

    def do_query_reint_handle(self, request: vice.QueryReintHandle) -> tuple[Code, Results] | Code:
        if request.handle.inode not in self.containers:
            return Code.EBADF
        size = len(self.containers[request.handle.inode])
        return Code.SUCCESS, vice.QueryReintHandle.Reply(length=size)

    async def do_send_reint_fragment(
        self, request: vice.SendReintFragment, _: ServerConnection, transfer: Request
    ) -> Code:
        sink = BytesSink()
        await transfer.receive(sink, request.length)
        self.containers[request.handle.inode] += sink.data
        return Code.SUCCESS

    async def do_close_reint_handle(
        self, request: vice.CloseReintHandle, _: ServerConnection, transfer: Request
    ) -> Code:
        sink = BytesSink()
        await transfer.receive(sink, request.log_size)
        self.logs.append(sink.data)
        return Code.SUCCESS


def _lower(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def replicated(volume: int, *hosts: str) -> dict[str, VolumeInfo]:
    """The location entries of a replicated volume: of itself by name and id, of each replica by id."""
    numbers = tuple(int.from_bytes(bytes(map(int, host.split("."))), "big") for host in hosts)
    ids = tuple((slot + 1) << 24 | (volume & 0xFFFFFF) | 1 for slot in range(len(hosts)))
    padded = ids + (0,) * (8 - len(ids))
    whole = VolumeInfo(volume, VolumeType.REPLICATED, (0, 0, 0, volume, 0), numbers, padded)
    entries = {f"v{volume:x}": whole, str(volume): whole}
    for replica, number in zip(ids, numbers, strict=True):
        related = (replica, 0, 0, volume, 0)
        entries[str(replica)] = VolumeInfo(replica, VolumeType.READ_WRITE, related, (number,), (0,) * 8)
    return entries


def says(code: int, _: Any) -> int:
    """A script, with `partial`: always this code."""
    return code
