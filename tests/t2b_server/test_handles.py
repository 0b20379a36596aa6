"""Stores in pieces, the second phase, and repair (reintegration.md §3, vice.md §6.4, conflicts.md §5.4)."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.transfer import BytesSource
from realmfs.server import handles
from realmfs.server.check import check_store
from realmfs.vice import calls, log
from realmfs.vice.cop2 import Cop2Entry, pack_entries
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.log import pack_log, thread
from realmfs.vice.types import Fid, ObjectType, ReintHandle, Status, StoreId, VersionFlags
from tests.t2b_server.harness import ALL, NOW, Client, Realm, dump, serving


async def send(client: Client, handle: ReintHandle, data: bytes, announced: int | None = None) -> int:
    length = len(data) if announced is None else announced
    request = calls.SendReintFragment(volume=client.volume, handle=handle, length=length)
    code, _ = await client.ask_code(request, source=BytesSource(data))
    return code


async def close(client: Client, handle: ReintHandle, records: list[log.AnyRecord]) -> int:
    packed = pack_log(thread(records, await client.vectors(records)))
    request = calls.CloseReintHandle(volume=client.volume, log_size=len(packed), handle=handle)
    code, reply = await client.ask_code(request, source=BytesSource(packed))
    assert (reply.new_stamp, reply.promised) == (0, False)
    return code


async def length_of(client: Client, handle: ReintHandle) -> tuple[int, int]:
    code, reply = await client.ask_code(calls.QueryReintHandle(volume=client.volume, handle=handle))
    return code, reply.length


async def test_a_store_in_pieces(tmp_path: Path, autojump_clock: MockClock) -> None:
    data = bytes(range(256)) * 100
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client, reader = await realm.client(nursery), await realm.client(nursery)
        fid = await client.make_file(b"f", b"old")
        await reader.fetch(fid)
        handle = (await client.ask(calls.OpenReintHandle(fid=fid))).handle
        assert await length_of(client, handle) == (0, 0)
        for start in range(0, len(data), 5000):
            assert await send(client, handle, data[start : start + 5000]) == 0
        assert await length_of(client, handle) == (0, len(data))
        assert await reader.fetch(fid) == b"old"
        assert reader.broken == []
        assert await close(client, handle, [client.store(fid, len(data))]) == 0
        assert reader.broken == [fid]
        assert await reader.fetch(fid) == data
        assert (await reader.ask(calls.GetAttr(fid=fid))).sha == hashlib.sha1(data).digest()
        assert await length_of(client, handle) == (Code.EBADF, 0xFFFFFFFF)
        assert len(realm.containers()) == 1
        assert check_store(realm.store, contents=True) == []


async def test_a_piece_that_does_not_arrive_whole_leaves_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery)
        fid = await client.make_file(b"f", b"")
        handle = (await client.ask(calls.OpenReintHandle(fid=fid))).handle
        assert await send(client, handle, b"first") == 0
        assert await send(client, handle, b"short", announced=9) == Code.EINVAL
        assert await length_of(client, handle) == (0, 5)
        assert await send(client, handle, b"far too long" * 100, announced=9) == Rpc2Code.SEFAIL3
        await client.bind()
        assert await length_of(client, handle) == (0, 5)
        assert await send(client, handle, b"second") == 0
        assert await close(client, handle, [client.store(fid, 11)]) == 0
        assert await client.fetch(fid) == b"firstsecond"
        assert (await client.ask(calls.GetAttr(fid=fid))).sha == hashlib.sha1(b"firstsecond").digest()


async def test_what_a_handle_refuses(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery)
        fid = await client.make_file(b"f", b"")
        handle = (await client.ask(calls.OpenReintHandle(fid=fid))).handle
        await send(client, handle, b"data")
        for wrong in (handle._replace(birth_time=1), handle._replace(inode=99), ReintHandle(0, 0, 0)):
            assert await send(client, wrong, b"x") == Code.EBADF
            assert await close(client, wrong, [client.store(fid, 4)]) == Code.EBADF
        before = dump(realm.store)
        assert await close(client, handle, [client.store(fid, 5)]) == Code.EINVAL, "not the handle's length"
        assert await close(client, handle, [client.chmod(fid, 0)]) == Code.EINVAL
        assert await close(client, handle, [client.store(fid, 4), client.store(fid, 4)]) == Code.EINVAL
        assert await close(client, handle, []) == Code.EINVAL
        assert await send(client, handle, b"x" * 10, announced=0x7FFFFFFF) == Code.EFBIG
        assert dump(realm.store) == before
        missing = calls.OpenReintHandle(fid=Fid(realm.volume, 98, 98))
        assert (await client.ask_code(missing))[0] == Code.VNOVNODE
        assert await close(client, handle, [client.store(fid, 4)]) == 0
        assert await client.fetch(fid) == b"data"


async def test_handles_die_with_the_server_and_of_neglect(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery)
        fid = await client.make_file(b"f", b"")
        handle = (await client.ask(calls.OpenReintHandle(fid=fid))).handle
        await send(client, handle, b"data")
        assert len(realm.containers()) == 1
        realm.now += 10
        await realm.restart(nursery)
        await client.bind()
        assert realm.containers() == set()
        assert await send(client, handle, b"data") == Code.EBADF
        monkeypatch.setattr(handles, "MAX_HANDLES", 3)
        opened = [(await client.ask(calls.OpenReintHandle(fid=fid))).handle for _ in range(4)]
        codes = [(await length_of(client, one))[0] for one in opened]
        assert codes == [Code.EBADF, 0, 0, 0]
        await trio.sleep(handles.IDLE + 1)
        opened.append((await client.ask(calls.OpenReintHandle(fid=fid))).handle)
        codes = [(await length_of(client, one))[0] for one in opened]
        assert codes == [Code.EBADF] * 4 + [0]
        assert len(realm.containers()) == 1


async def test_a_duplicate_close_is_found_out(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery)
        fid = await client.make_file(b"f", b"")
        record = client.store(fid, 4)
        for expected in (0, Code.VLOGSTALE):
            handle = (await client.ask(calls.OpenReintHandle(fid=fid))).handle
            await send(client, handle, b"data")
            assert await close(client, handle, [record]) == expected


# the second phase


async def test_cop2_settles_what_its_server_executed(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery)
        fid = await client.new_fid()
        create, store = client.create(b"f", fid), client.store(fid, 0)
        await client.replay([create, store])
        pending = await client.status(fid)
        assert pending.vv.cop2_pending
        for entry in (
            Cop2Entry(StoreId(1, 2), (0,)),
            Cop2Entry(create.store_id, (1, 2)),
            Cop2Entry(store.store_id, (1,)),
        ):
            await client.ask(calls.Cop2(entries=pack_entries([entry])))
        assert (await client.status(fid)).vv == pending.vv, "unknown, or not executed here"
        entries = pack_entries([Cop2Entry(create.store_id, (0,)), Cop2Entry(store.store_id, (0,))])
        for _ in range(2):
            await client.ask(calls.GetAttr(fid=fid, piggy_cop2=entries))
            settled = await client.status(fid)
            assert settled.vv == pending.vv.with_flags(0)
        assert not (await client.status(realm.root)).vv.cop2_pending
        await client.replay([client.chmod(fid, 0o600)], piggy_cop2=b"")
        assert (await client.ask_code(calls.Resolve(fid=fid)))[0] == 0
        assert not (await client.status(fid)).vv.cop2_pending


async def test_other_slots_are_counted_where_there_are_other_replicas(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery)
        fid = await client.make_file(b"f", b"")
        before = await client.status(fid)
        entry = Cop2Entry(before.vv.store_id, (0, 1, 2))
        await client.ask(calls.Cop2(entries=pack_entries([entry])))
        after = await client.status(fid)
        assert after.vv.versions[:4] == (before.vv.versions[0], 1, 1, 0)
        assert realm.store.volumes.all()[0].versions[1:4] == (1, 1, 0)


# conflicts


async def in_conflict(realm: Realm, admin: Client, fid: Fid) -> Status:
    status = await admin.status(fid)
    await admin.ask(calls.SetVV(fid=fid, vv=status.vv.with_flags(VersionFlags.INCON)))
    return status


async def test_objects_in_conflict_are_shown_only_on_request(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        admin = await realm.client(nursery, realm.add_user("admin", administrator=True))
        client = await realm.client(nursery)
        fid = await client.make_file(b"f", b"data")
        await client.status(fid)
        request = calls.SetVV(fid=fid, vv=(await client.status(fid)).vv)
        assert (await client.ask_code(request))[0] == Code.EACCES
        await in_conflict(realm, admin, fid)
        assert client.broken == [fid]
        requests: list[Any] = [
            calls.GetAttr(fid=fid),
            calls.FetchPartial(fid=fid),
            calls.OpenReintHandle(fid=fid),
        ]
        for asked in requests:
            assert (await client.ask_code(asked))[0] == Code.EINCONS
        shown = await client.ask(calls.GetAttr(fid=fid, inconsistent_ok=True))
        assert shown.status.vv.inconsistent
        assert await client.fetch(fid, inconsistent_ok=True) == b"data"
        for record in (client.store(fid, 0), client.chmod(fid, 0), client.remove(b"f", fid)):
            code, reply = await client.replay_code([record])
            assert (code, reply.index) == (Code.EINCONS, 0)


@pytest.mark.parametrize("kind", [ObjectType.FILE, ObjectType.SYMLINK])
async def test_repair_gives_new_contents(tmp_path: Path, autojump_clock: MockClock, kind: ObjectType) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        admin = await realm.client(nursery, realm.add_user("admin", administrator=True))
        client = await realm.client(nursery)
        if kind is ObjectType.FILE:
            fid = await client.make_file(b"f", b"old contents")
        else:
            fid = await client.new_fid(ObjectType.SYMLINK)
            await client.replay([client.symlink(b"f", b"old", fid)])
        clean = await client.status(fid)
        wanted = dataclasses.replace(clean, length=3, date=NOW + 5, mode=0o640, owner=7, author=8)

        async def repair(who: Client, status: Status, data: bytes = b"new") -> int:
            request = calls.Repair(fid=fid, status=status, store_id=StoreId(5, 6))
            code, _ = await who.ask_code(request, source=BytesSource(data))
            return code

        assert await repair(admin, wanted) == Code.EINVAL, "it is not in conflict"
        await in_conflict(realm, admin, fid)
        assert await repair(client, wanted) == Code.EACCES
        older = dataclasses.replace(wanted, vv=dataclasses.replace(clean.vv, versions=(0,) * 8))
        assert await repair(admin, older) == Code.EINCOMPATIBLE
        assert await repair(admin, wanted, b"longer than that")
        await admin.bind(realm.token(realm.store.protection.id_of("admin") or 0))
        assert await repair(admin, wanted, b"ab") == Code.EINVAL
        assert await repair(admin, wanted) == 0
        after = await client.status(fid)
        assert (after.length, after.date, after.mode, after.owner, after.author) == (3, NOW + 5, 0o640, 7, 8)
        assert after.vv.store_id == (5, 6)
        assert not after.vv.inconsistent
        assert after.vv.versions[0] == clean.vv.versions[0] + 1
        assert await client.fetch(fid) == b"new"
        assert check_store(realm.store, contents=True) == []
        assert len(realm.containers()) == (kind is ObjectType.FILE)


async def test_directories_are_not_repaired(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        admin = await realm.client(nursery, realm.add_user("admin", administrator=True))
        status = await in_conflict(realm, admin, realm.root)
        with pytest.raises(CodaError) as caught:
            await admin.ask(calls.Repair(fid=realm.root, status=status, store_id=StoreId(1, 1)))
        assert caught.value.code == Code.EOPNOTSUPP
        await admin.ask(calls.SetVV(fid=realm.root, vv=status.vv))
        assert (await admin.status(realm.root)).vv == status.vv
