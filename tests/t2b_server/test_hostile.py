"""Bytes that no honest client sends: never a crash, a leaked container or a broken store."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import trio
from trio.testing import MockClock

from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.errors import RpcError
from realmfs.rpc2.service import Address
from realmfs.rpc2.transfer import BytesSink, BytesSource
from realmfs.server.check import check_store
from realmfs.vice import calls, log
from realmfs.vice.log import pack_log, thread
from realmfs.vice.tokens import Token
from realmfs.vice.types import (
    ClientId,
    Fid,
    FidAndVector,
    FidRange,
    ObjectType,
    ReintHandle,
    Status,
    StoreId,
    VolumeStatus,
)
from realmfs.vice.wire import Request, Transfer
from tests.seeds import first_seed
from tests.t2b_server.harness import ALL, SERVER, Client, Realm, dump, serving


async def call(
    client: Client, opcode: int, body: bytes, transfer: Transfer, data: bytes, token: Token | None = None
) -> int:
    """Make a call whatever happens; bind again if that was the end of the connection."""
    source = BytesSource(data) if transfer is Transfer.TO_SERVER else None
    sink = BytesSink() if transfer is Transfer.TO_CLIENT else None
    try:
        with trio.fail_after(120):
            code = (await client.connection.call(opcode, body, source=source, sink=sink)).code
    except RpcError as error:
        code = error.code
    if not client.connection.usable:
        await client.bind(token)
        await client.introduce()
    return code


def samples(realm: Realm, fid: Fid, handle: ReintHandle, status: Status) -> list[Request[Any]]:
    """Return a well-formed request of every kind that a client may send without losing its connection."""
    volume, root, vv, store_id = realm.volume, realm.root, status.vv, StoreId(7, 7)
    files = FidRange.request(3)
    return [
        calls.NewConnectFS(client=ClientId.zero()),
        calls.GetRootVolume(),
        calls.GetVolumeInfo(name=b"/"),
        calls.GetVolumeStatus(volume=volume),
        calls.SetVolumeStatus(
            volume=volume, status=VolumeStatus.request(volume, max_quota=9999), store_id=store_id
        ),
        calls.GetVolumeLocation(volume=realm.store.volumes.all()[0].id),
        calls.GetVolVS(volume=volume),
        calls.ValidateVols(volumes=(volume, volume), stamps=bytes(8)),
        calls.AllocFids(volume=volume, type=ObjectType.FILE, range=files),
        calls.OldAllocFids(volume=volume, type=ObjectType.FILE, range=files, host=0x0A000001),
        calls.GetAttr(fid=fid, piggy_cop2=bytes(52)),
        calls.ValidateAttrs(primary=root, piggies=(FidAndVector(fid, vv),) * 3),
        calls.FetchPartial(fid=fid, vv=vv, offset=1, count=2),
        calls.Fetch(fid=root),
        calls.GetAcl(fid=root),
        calls.SetAcl(fid=root, acl=b"1\n0\nSystem:AnyUser\t127\n\0", status=status, store_id=store_id),
        calls.Cop2(entries=bytes(104)),
        calls.Resolve(fid=fid),
        calls.Repair(fid=fid, status=status, store_id=store_id),
        calls.Reintegrate(volume=volume, log_size=99),
        calls.OpenReintHandle(fid=fid),
        calls.QueryReintHandle(volume=volume, handle=handle),
        calls.SendReintFragment(volume=volume, handle=handle, length=50),
        calls.CloseReintHandle(volume=volume, log_size=99, handle=handle),
    ]


ODD = (0, 1, 2, 3, 4, 52, 0x7F, 0x80, 0x1000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def spoiled(rng: random.Random, body: bytes) -> bytes:
    """Return a body with some words replaced by odd ones, or cut, or longer."""
    words = bytearray(body)
    for _ in range(rng.choice((0, 1, 1, 2, 5))):
        at = 4 * rng.randrange(len(words) // 4 + 1)
        words[at : at + 4] = rng.choice((*ODD, rng.getrandbits(32))).to_bytes(4, "big")
    cut = rng.randrange(len(words) + 1) if rng.random() < 0.1 else len(words)
    return bytes(words[:cut]) + rng.randbytes(rng.choice((0, 0, 0, 7)))


async def test_random_bodies_are_survived(tmp_path: Path, autojump_clock: MockClock) -> None:
    rng = random.Random(first_seed())
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        user = realm.add_user("admin", administrator=True)
        admin, token = await realm.client(nursery, user), realm.token(user)
        fid = await admin.make_file(b"f", b"data")
        handle = (await admin.ask(calls.OpenReintHandle(fid=fid))).handle
        requests = samples(realm, fid, handle, await admin.status(realm.root))
        answers: Counter[bool] = Counter()
        for _ in range(600):
            request = rng.choice(requests)
            data = rng.randbytes(rng.choice((0, 50, 99, 300)))
            code = await call(
                admin, request.OPCODE, spoiled(rng, request.pack()), request.TRANSFER, data, token
            )
            assert code != Rpc2Code.FAIL or request.OPCODE == calls.NewConnectFS.OPCODE
            answers[code == 0] += 1
        assert min(answers.values()) > 50, "or it tries nothing"
        assert (await admin.status(realm.root)).type is ObjectType.DIRECTORY
        assert check_store(realm.store, contents=True) == []


async def test_mutated_logs_change_all_or_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    rng = random.Random(first_seed())
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery)
        for _ in range(150):
            fid, directory = await client.new_fid(), await client.new_fid(ObjectType.DIRECTORY)
            records: list[log.AnyRecord] = [
                client.mkdir(b"d%d" % rng.randrange(9), directory),
                client.create(b"f%d" % rng.randrange(9), fid, directory),
                client.chmod(fid, 0o600),
                client.rename((directory, b"f"), (realm.root, b"r%d" % rng.randrange(9)), fid),
            ]
            packed = bytearray(pack_log(thread(records[: rng.randint(1, 4)], await client.vectors(records))))
            for _ in range(rng.randrange(3)):
                packed[rng.randrange(len(packed))] = rng.randrange(256)
            before = dump(realm.store)
            request = calls.Reintegrate(volume=realm.volume, log_size=len(packed))
            code = await call(client, request.OPCODE, request.pack(), request.TRANSFER, bytes(packed))
            if code:
                assert dump(realm.store) == before
        assert check_store(realm.store) == []


async def test_more_log_than_announced_is_not_taken(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery)
        for size, announced in ((100_000, 10), (10, 1 << 30), (5_000, 0)):
            request = calls.Reintegrate(volume=realm.volume, log_size=announced)
            code = await call(client, request.OPCODE, request.pack(), request.TRANSFER, bytes(size))
            assert code not in (0, Rpc2Code.FAIL), (size, announced)


async def test_a_client_that_goes_in_the_middle_leaves_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client, other = await realm.client(nursery), await realm.client(nursery)
        fid = await client.new_fid()
        client.data[fid] = bytes(1_000_000)
        before = dump(realm.store)
        realm.net.latency = 0.01
        async with trio.open_nursery() as going:
            records: list[log.AnyRecord] = [client.create(b"f", fid), client.store(fid, 1_000_000)]
            going.start_soon(client.replay, records)
            await client.on_call.wait()
            await trio.sleep(0.1)
            realm.net.partition(client.endpoint.address[0])
            going.cancel_scope.cancel()
        await trio.sleep(100)
        after = dump(realm.store)
        after["reintegrated"] = before["reintegrated"]
        assert after == before
        assert realm.containers() == set()
        await other.make_file(b"f", b"x")


async def test_a_replayed_reintegration_changes_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Every packet of three reintegrations comes again: backwards, shuffled, from elsewhere, later."""
    rng = random.Random(first_seed())
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery)
        recorded: list[bytes] = []

        def tap(datagram: bytes, sender: Address, receiver: Address) -> bool:
            if receiver == SERVER:
                recorded.append(datagram)
            return True

        fid, other = await client.new_fid(), await client.new_fid()
        client.data[fid] = bytes(50_000)
        realm.net.tap = tap
        await client.replay([client.create(b"f", fid), client.store(fid, 50_000)])
        await client.replay([client.create(b"g", other), client.chmod(other, 0o600)])
        await client.replay([client.rename((realm.root, b"g"), (realm.root, b"h"), other)])
        realm.net.tap = None
        before, calls_before = dump(realm.store), realm.server.state.counters["total_vice_calls"]
        home, elsewhere = client.endpoint.address, realm.net.transport(("10.6.6.6", 6))
        replays = [recorded, recorded[::-1], rng.sample(recorded, len(recorded))]
        for again in replays:
            for datagram in again:
                realm.net.carry(datagram, home, SERVER)
                elsewhere.send([datagram], SERVER)
            await trio.sleep(rng.random())
            assert dump(realm.store) == before
        assert realm.server.state.counters["total_vice_calls"] == calls_before
        await client.make_file(b"undisturbed", b"x")
        for datagram in recorded:  # also when the connection has gone on
            realm.net.carry(datagram, home, SERVER)
        await trio.sleep(1)
        assert realm.names(await client.fetch(realm.root)).count(b"f") == 1
        assert check_store(realm.store, contents=True) == []
