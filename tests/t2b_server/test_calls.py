"""Every call that changes nothing, as a client sees it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.errors import RpcError
from realmfs.rpc2.transfer import BytesSink
from realmfs.vice import calls
from realmfs.vice.directory import Directory
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Fid, FidAndVector, FidRange, ObjectType, Rights, VersionVector, VolumeStatus
from tests.t2b_server.harness import ALL, NOW, SERVER, Client, Realm, serving

NOWHERE = 0x7F123456


async def code_of(client: Client, request: Any) -> int:
    code, _ = await client.ask_code(request)
    return int(code)


async def test_a_client_finds_and_reads_the_root(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data") as (realm, nursery):
        client = await realm.client(nursery)
        assert client.probes == 1
        assert (await client.ask(calls.GetRootVolume())).name == b"/"
        info = (await client.ask(calls.GetVolumeInfo(name=b"/"))).info
        assert info.is_replicated
        assert [replica.server for replica in info.replicas] == [SERVER[0]]
        status = await client.status(Fid.root(info.id))
        assert (status.type, status.links, status.length) == (ObjectType.DIRECTORY, 2, 2048)
        assert (status.callback, status.my_rights, status.any_rights) == (True, 9, 9)
        contents = Directory.parse(await client.fetch(Fid.root(info.id)))
        assert set(contents.items()) == {(b".", 1, 1), (b"..", 1, 1)}


async def test_volumes_are_found_by_name_and_number(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data") as (realm, nursery):
        volume = realm.store.create_volume("home")
        client = await realm.client(nursery)

        async def ids(name: bytes) -> tuple[int, int, int]:
            info = (await client.ask(calls.GetVolumeInfo(name=name))).info
            return info.id, int(info.type), info.replicated_id

        group, replica = (volume.group_id, 3, volume.group_id), (volume.id, 0, volume.group_id)
        for name in (b"home", b"%d" % volume.group_id, b"0x%x" % volume.group_id, b"0%o" % volume.group_id):
            assert await ids(name) == group
        for name in (b"home.0", b"%d" % volume.id):
            assert await ids(name) == replica
        assert (await ids(b""))[0] == realm.volume
        for name in (b"nothing", b"home.1", b"12345678", b"99999999999999999999", b"\xff\xfe", b"0x", b"08"):
            assert await code_of(client, calls.GetVolumeInfo(name=name)) == Code.VNOVOL
        assert await code_of(client, calls.GetRootVolume(volume_room=1)) == Code.VNOVOL
        location = await client.ask(calls.GetVolumeLocation(volume=volume.id))
        assert location.host_port == b"10.0.0.1:2432"
        assert await code_of(client, calls.GetVolumeLocation(volume=volume.group_id)) == Code.VNOSERVICE
        assert (
            await code_of(client, calls.GetVolumeLocation(volume=volume.id, host_room=5)) == Code.ENAMETOOLONG
        )


ERRORS: list[tuple[str, Callable[[Realm], Any], int]] = [
    ("a null fid probes FetchPartial", lambda r: calls.FetchPartial(fid=Fid.zero()), Code.EINVAL),
    ("no volume in a fid", lambda r: calls.GetAttr(fid=Fid(0, 1, 1)), Code.EINVAL),
    ("no vnode in a fid", lambda r: calls.GetAttr(fid=Fid(r.volume, 0, 1)), Code.EINVAL),
    ("no unique in a fid", lambda r: calls.GetAttr(fid=Fid(r.volume, 1, 0)), Code.EINVAL),
    ("an unknown volume", lambda r: calls.GetAttr(fid=Fid(NOWHERE, 1, 1)), Code.VNOVOL),
    ("an unknown object", lambda r: calls.GetAttr(fid=Fid(r.volume, 7, 7)), Code.VNOVNODE),
    ("a reused vnode", lambda r: calls.GetAttr(fid=Fid(r.volume, 1, 2)), Code.VNOVNODE),
    ("status of an unknown volume", lambda r: calls.GetVolumeStatus(volume=NOWHERE), Code.VNOVOL),
    ("the same as a replicated one", lambda r: calls.GetVolumeStatus(volume=NOWHERE, is_replicated=True),
     Code.EINVAL),
    ("too small a buffer", lambda r: calls.GetVolumeStatus(volume=r.volume, motd_room=9), Code.EINVAL),
    ("stamp of an unknown volume", lambda r: calls.GetVolVS(volume=NOWHERE), Code.EINVAL),
    ("fids of an unknown volume",
     lambda r: calls.AllocFids(volume=NOWHERE, type=ObjectType.FILE, range=FidRange.request(1)), Code.EINVAL),
    ("no fids", lambda r: calls.AllocFids(volume=r.volume, type=ObjectType.FILE, range=FidRange.request(0)),
     Code.EINVAL),
    ("fids of no type",
     lambda r: calls.AllocFids(volume=r.volume, type=ObjectType.INVALID, range=FidRange.request(1)),
     Code.EINVAL),
    ("resolution elsewhere", lambda r: calls.Resolve(fid=Fid(NOWHERE, 1, 1)), Code.EINVAL),
    ("resolution of nothing", lambda r: calls.Resolve(fid=Fid(r.volume, 7, 7)), Code.VNOVNODE),
    ("half a COP2 entry", lambda r: calls.Cop2(entries=bytes(51)), Code.EINVAL),
    ("the same on another call", lambda r: calls.GetAttr(fid=r.root, piggy_cop2=bytes(53)), Code.EINVAL),
    ("no room for a list", lambda r: calls.GetAcl(fid=r.root, acl_room=0), Code.EINVAL),
    ("little room for a list", lambda r: calls.GetAcl(fid=r.root, acl_room=5), Code.E2BIG),
    ("a handle for a directory", lambda r: calls.OpenReintHandle(fid=r.root), Code.EISDIR),
]  # fmt: skip


async def test_what_cannot_be_answered_has_its_own_code(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data") as (realm, nursery):
        client = await realm.client(nursery)
        for what, request, code in ERRORS:
            assert await code_of(client, request(realm)) == code, what
        assert await client.ask_code(calls.Cop2(entries=b"")) == (0, calls.Cop2.Reply())


async def test_contents_come_in_exact_pieces(tmp_path: Path, autojump_clock: MockClock) -> None:
    data = bytes(range(256)) * 40
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery)
        fid = await client.make_file(b"f", data)
        status = await client.status(fid)
        for offset in (0, 1, 4096, len(data) - 1, len(data), len(data) + 7):
            for count in (0, 1, 100, len(data), calls.WHOLE):
                got = await client.fetch(fid, offset=offset, count=count, vv=status.vv)
                assert got == data[offset:][:count], (offset, count)
        sink = BytesSink()
        await client.ask(calls.Fetch(fid=fid, offset=100, vv=status.vv), sink=sink)
        assert sink.data == data[100:]
        other = status.vv.raised([0])
        assert await code_of(client, calls.FetchPartial(fid=fid, offset=1, vv=other)) == Code.EAGAIN
        ours, theirs = 0x0A000001, 0x0A000002
        assert await client.fetch(fid, primary_host=ours) == data
        assert await client.fetch(fid, primary_host=theirs) == b""


async def test_attributes_are_validated_many_at_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery)
        fids = [await client.make_file(b"f%d" % number, b"x") for number in range(3)]
        vectors = [(await client.status(fid)).vv for fid in fids]
        other = realm.store.create_volume("other")
        piggies = (
            FidAndVector(fids[0], vectors[0]),
            FidAndVector(fids[1], vectors[1].raised([0])),
            FidAndVector(fids[2], VersionVector(vectors[2].versions)),
            FidAndVector(Fid(realm.volume, 999, 999), VersionVector()),
            FidAndVector(Fid.root(other.group_id), VersionVector()),
            FidAndVector(Fid.zero(), VersionVector()),
        )
        reply = await client.ask(calls.ValidateAttrs(primary=realm.root, piggies=piggies))
        assert reply.flags == bytes([1, 0, 1, 0, 0, 0])
        assert reply.status.callback
        assert (
            await code_of(client, calls.ValidateAttrs(primary=realm.root, piggies=piggies, flags_room=5))
            == 22
        )
        missing = calls.ValidateAttrs(primary=Fid(realm.volume, 999, 1), piggies=())
        assert await code_of(client, missing) == Code.VNOVNODE


async def test_the_digest_is_that_of_the_contents_or_absent(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    import hashlib

    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery)
        fid = await client.make_file(b"f", b"one")
        for data in (b"one", b"two"):
            client.data[fid] = data
            await client.replay([client.store(fid, 3)])
            assert (await client.ask(calls.GetAttr(fid=fid))).sha == hashlib.sha1(data).digest()
        assert (await client.ask(calls.GetAttr(fid=fid, sha_room=19))).sha == b""
        assert (await client.ask(calls.GetAttr(fid=realm.root))).sha == b""


async def test_fids_are_never_handed_out_twice(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data") as (realm, nursery):
        seen: set[tuple[int, int]] = set()
        for _ in range(3):
            client = await realm.client(nursery)
            for kind in (ObjectType.FILE, ObjectType.DIRECTORY, ObjectType.SYMLINK) * 50:
                request = calls.AllocFids(volume=realm.volume, type=kind, range=FidRange.request(1000))
                granted = (await client.ask(request)).range
                assert (granted.count, granted.stride) == (32, 2)
                new = {(fid.vnode, fid.unique) for fid in granted.fids(realm.volume)}
                assert all(vnode % 2 == (kind is ObjectType.DIRECTORY) for vnode, _ in new)
                assert not new & seen
                seen |= new
            await realm.restart(nursery)


async def test_old_alloc_fids_obeys_only_its_own_address(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data") as (realm, nursery):
        client = await realm.client(nursery)

        async def granted(host: int) -> int:
            request = calls.OldAllocFids(
                volume=realm.volume, type=ObjectType.FILE, range=FidRange.request(8), host=host
            )
            return (await client.ask(request)).range.count

        assert await granted(0x0A000001) == 8
        assert await granted(0x0A000002) == 0


async def test_volume_stamps(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery)
        first = await client.ask(calls.GetVolVS(volume=realm.volume))
        assert first.promised
        await client.make_file(b"f", b"x")
        second = await client.ask(calls.GetVolVS(volume=realm.volume))
        assert second.stamp == first.stamp + 2, "one for the directory, one for the file"
        stamps = struct.pack(">3I", second.stamp, first.stamp, 0)
        request = calls.ValidateVols(volumes=(realm.volume, realm.volume, NOWHERE), stamps=stamps)
        assert (await client.ask(request)).flags == bytes([1, 255, 255])
        short = calls.ValidateVols(volumes=(realm.volume,) * 3, stamps=stamps, flags_room=2)
        assert await code_of(client, short) == Code.EINVAL
        stranger = await realm.client(nursery, introduce=False)
        request = calls.ValidateVols(volumes=(realm.volume,), stamps=stamps)
        assert (await stranger.ask(request)).flags == bytes([0]), (
            "current, but who cannot be called gets no promise"
        )


async def test_quota_and_texts_are_set_by_administrators(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data") as (realm, nursery):
        admin = await realm.client(nursery, realm.add_user("admin", administrator=True))
        nobody = await realm.client(nursery)
        request = calls.SetVolumeStatus(
            volume=realm.volume,
            status=VolumeStatus.request(realm.volume, max_quota=100),
            motd=b"hello\0",
            store_id=admin.store_id(),
        )
        assert await code_of(nobody, request) == Code.EACCES
        before = await nobody.status(realm.root)
        reply = await admin.ask(request)
        assert (reply.status.max_quota, calls.until_nul(reply.motd)) == (100, b"hello")
        assert nobody.broken == [realm.root]
        after = await nobody.status(realm.root)
        assert after.vv.versions == before.vv.raised([0]).versions
        assert after.vv.cop2_pending
        assert after.vv.store_id not in (before.vv.store_id, request.store_id)  # it was not said upon what
        status = await nobody.ask(calls.GetVolumeStatus(volume=realm.volume, is_replicated=True))
        assert (status.status.max_quota, status.status.blocks_in_use, status.name) == (100, 2, b"/.0\0")
        keep = calls.SetVolumeStatus(
            volume=realm.volume, status=VolumeStatus.request(realm.volume), store_id=admin.store_id()
        )
        assert (await admin.ask(keep)).status.max_quota == 100


async def test_status_of_a_volume_needs_the_right_to_read(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data", anyuser=0) as (realm, nursery):
        admin = await realm.client(nursery, realm.add_user("admin", administrator=True))
        nobody = await realm.client(nursery)
        request = calls.GetVolumeStatus(volume=realm.volume)
        assert await code_of(nobody, request) == Code.EACCES
        assert await code_of(admin, request) == 0


async def test_statistics(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data") as (realm, nursery):
        client = await realm.client(nursery)
        await client.fetch(realm.root)
        counters = (await client.ask(calls.GetStatistics())).statistics
        named = counters.named()
        assert named["current_time"] == NOW
        assert (named["total_fetches"], named["fetched_bytes"], named["workstations"]) == (1, 2048, 1)
        assert named["rpc_packets_received"] > 0
        assert counters.disks[0].blocks > counters.disks[0].available > 0


async def test_an_unknown_call_leaves_the_connection_alone(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data") as (realm, nursery):
        client = await realm.client(nursery)
        for opcode in (1, 4, 6, 16, 22, 25, 38, 45, 60, 66, 9999):
            assert (await client.connection.call(opcode, b"")).code == Rpc2Code.INVALIDOPCODE
        assert await client.status(realm.root)


async def test_leaving_ends_everything_of_the_host(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        leaver, other = await realm.client(nursery), await realm.client(nursery)
        await leaver.status(realm.root)
        assert (await leaver.connection.call(calls.TokenExpired.OPCODE)).code == Rpc2Code.NAKED
        await other.make_file(b"f", b"")
        assert leaver.broken == []
        with pytest.raises(RpcError):
            await leaver.status(realm.root)
        await leaver.bind()
        await leaver.introduce()
        assert (await leaver.status(realm.root)).callback


async def test_disconnecting_ends_nothing_but_the_connection(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client, other = await realm.client(nursery), await realm.client(nursery)
        await client.status(realm.root)
        assert await code_of(client, calls.DisconnectFS()) == 0
        await other.make_file(b"f", b"")
        assert client.broken == [realm.root]


async def test_time_is_told_only_to_who_can_be_called_back(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data") as (realm, nursery):
        client = await realm.client(nursery)
        reply = await client.ask(calls.GetTime())
        assert (reply.seconds, client.probes) == (NOW, 2)
        realm.net.partition(client.endpoint.address[0])
        with pytest.raises((RpcError, CodaError)):
            await client.ask(calls.GetTime())


async def test_rights_are_needed_to_read(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        writer = await realm.client(nursery, realm.add_user("writer"))
        reader = await realm.client(nursery)
        secret, plain = await writer.make_file(b"secret", b"s"), await writer.make_file(b"plain", b"p")
        await writer.replay([writer.chmod(secret, 0o200)])
        assert await reader.fetch(plain) == b"p"
        assert await code_of(reader, calls.FetchPartial(fid=secret)) == Code.EACCES
        assert await writer.fetch(secret) == b"s", "its owner may"
        realm.set_root_acl(anyuser=int(Rights.LOOKUP))
        assert await code_of(reader, calls.FetchPartial(fid=plain)) == Code.EACCES
        assert await reader.fetch(realm.root)
        realm.set_root_acl(anyuser=int(Rights.READ))
        assert await code_of(reader, calls.FetchPartial(fid=realm.root)) == Code.EACCES
        assert (await reader.status(plain)).my_rights == Rights.READ
