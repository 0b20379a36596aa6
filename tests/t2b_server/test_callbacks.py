"""Callbacks: who is told of what, in which order, and what becomes of who cannot be told (vice.md §4)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.errors import RpcError
from realmfs.server import hosts
from realmfs.vice import calls, log
from realmfs.vice.errors import Code
from realmfs.vice.types import ClientId, Fid, FidAndVector
from tests.seeds import first_seed
from tests.t2b_server.harness import ALL, Client, serving


async def test_others_are_told_before_the_writer_has_his_answer(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        writer, reader = await realm.client(nursery), await realm.client(nursery)
        fid = await writer.make_file(b"f", b"old")
        for client in (writer, reader):
            await client.fetch(fid)
            await client.status(realm.root)
        writer.data[fid] = b"new"
        await writer.replay([writer.store(fid, 3)])
        assert reader.broken == [fid]
        assert writer.broken == []
        await writer.replay([writer.store(fid, 3)])
        assert reader.broken == [fid], "a promise is kept once"
        await reader.status(fid)
        await writer.replay([writer.remove(b"f", fid)])
        assert reader.broken[1:] in ([fid, realm.root], [realm.root, fid])


async def test_the_order_is_replica_then_group_and_object_then_volume(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        writer, reader = await realm.client(nursery), await realm.client(nursery)
        directory = await writer.make_directory(b"d")
        replica = realm.store.volumes.all()[0].id
        whole = Fid(realm.volume, 0, 0)
        await reader.ask(calls.GetVolVS(volume=realm.volume))
        await reader.status(realm.root.in_volume(replica))
        await reader.status(realm.root)
        await writer.make_file(b"f", b"")
        assert reader.broken == [realm.root.in_volume(replica), realm.root]
        await writer.make_file(b"g", b"")
        assert reader.broken[2:] == [], "the volume's promise went with the object's, without a message"
        await reader.ask(calls.GetVolVS(volume=realm.volume))
        await reader.status(directory)
        await writer.make_file(b"h", b"")
        assert reader.broken[2:] == [whole], "another object's promise is left alone"
        await writer.make_file(b"i", b"", directory)
        assert reader.broken[3:] == [directory]


async def test_every_kind_of_question_promises(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        writer, reader = await realm.client(nursery), await realm.client(nursery)
        fid = await writer.make_file(b"f", b"x")

        async def is_told() -> bool:
            reader.broken.clear()
            await writer.replay([writer.chmod(fid, 0o600)])
            return fid in reader.broken

        assert not await is_told()
        await reader.status(fid)
        assert await is_told()
        vv = (await writer.status(fid)).vv
        await reader.ask(calls.ValidateAttrs(primary=realm.root, piggies=(FidAndVector(fid, vv),)))
        assert await is_told()
        await reader.ask(calls.ValidateAttrs(primary=realm.root, piggies=(FidAndVector(fid, vv),)))
        assert not await is_told(), "no promise for a version that is not current"
        await reader.fetch(fid)
        assert await is_told()
        await reader.fetch(fid, primary_host=1)
        assert await is_told(), "also from the server that does not send the data"
        await reader.ask(calls.GetAcl(fid=realm.root))
        assert not await is_told()


async def test_nothing_is_promised_to_who_cannot_be_called(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery, introduce=False)
        assert not (await client.status(realm.root)).callback
        assert not (await client.ask(calls.GetVolVS(volume=realm.volume))).promised
        await client.introduce()
        assert (await client.status(realm.root)).callback


async def test_a_dead_holder_costs_a_bounded_time_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        writer = await realm.client(nursery)
        dead = [await realm.client(nursery) for _ in range(3)]
        for client in dead:
            await client.status(realm.root)
            realm.net.partition(client.endpoint.address[0])
        start = trio.current_time()
        await writer.make_file(b"f", b"")
        assert trio.current_time() - start <= hosts.PATIENCE + 1, "all of them together"
        start = trio.current_time()
        await writer.make_file(b"g", b"")
        assert trio.current_time() - start < 1
        realm.net.heal()
        assert (await dead[0].ask_code(calls.GetAttr(fid=realm.root)))[0] == Rpc2Code.NAKED
        with pytest.raises(RpcError):
            await dead[0].status(realm.root)
        await dead[0].bind()
        await dead[0].introduce()
        assert (await dead[0].status(realm.root)).callback


async def test_a_holder_who_hands_over_a_file_is_not_dead(tmp_path: Path, autojump_clock: MockClock) -> None:
    """His channel is busy, not silent: the writer waits for it, and he stays."""
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        busy, writer = await realm.client(nursery), await realm.client(nursery)
        other = realm.store.create_volume("other", anyuser=ALL)
        await busy.status(realm.root)
        fid = await busy.new_fid(volume=other.group_id)
        busy.data[fid] = random.Random(1).randbytes(6_000_000)
        realm.net.latency = 0.05
        records: list[log.AnyRecord] = [
            busy.create(b"big", fid, Fid.root(other.group_id)),
            busy.store(fid, 6_000_000),
        ]

        async def store() -> None:
            await busy.replay(records, volume=other.group_id)

        async with trio.open_nursery() as both:
            both.start_soon(store)
            await busy.on_call.wait()
            start = trio.current_time()
            await writer.make_file(b"f", b"")
            assert trio.current_time() - start > hosts.PATIENCE, "or the test shows nothing"
        assert busy.broken == [realm.root]
        assert len(await busy.fetch(fid)) == 6_000_000


async def test_silent_hosts_are_probed_and_dropped(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data") as (realm, nursery):
        alive, dead = await realm.client(nursery), await realm.client(nursery)
        realm.net.partition(dead.endpoint.address[0])
        await trio.sleep(hosts.SILENCE + 2 * hosts.PROBE_INTERVAL)
        assert alive.probes > 1
        assert [host.peer for host in realm.server.state.hosts.all()] == [alive.endpoint.address]


async def test_a_wrong_version_ends_all_connections_of_the_host(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with serving(tmp_path / "data") as (realm, nursery):
        client = await realm.client(nursery)
        old = client.connection
        await client.bind()
        request = calls.NewConnectFS(version=2, client=ClientId.zero())
        assert (await client.ask_code(request))[0] == Rpc2Code.FAIL
        assert (await client.ask_code(calls.GetAttr(fid=realm.root), connection=old))[0] == Rpc2Code.NAKED


async def test_who_cannot_be_called_back_is_sent_away(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data") as (realm, nursery):
        client = await realm.client(nursery, introduce=False)
        client.may_answer = trio.Event()
        code, _ = await client.ask_code(calls.NewConnectFS(client=ClientId.zero()))
        assert code == Code.EPIPE


async def test_an_expired_token_ends_the_whole_host(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        user = realm.add_user("user")
        client, writer = await realm.client(nursery, user), await realm.client(nursery)
        authenticated = client.connection
        await client.bind()
        anonymous = client.connection
        await client.introduce()
        await client.status(realm.root)
        realm.now += 90001
        request = calls.GetAttr(fid=realm.root)
        assert (await client.ask_code(request, connection=authenticated))[0] == Rpc2Code.NAKED
        assert (await client.ask_code(request, connection=anonymous))[0] == Rpc2Code.NAKED
        await writer.make_file(b"f", b"")
        assert client.broken == []


async def test_promises_are_bounded(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "MAX_PROMISES", 3)  # one is the root's
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery)
        fids = [await client.make_file(b"%d" % number, b"") for number in range(3)]
        assert [(await client.status(fid)).callback for fid in fids] == [True, True, False]
        assert (await client.status(fids[0])).callback, "it has that one"


async def test_hosts_are_bounded(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "MAX_HOSTS", 2)
    async with serving(tmp_path / "data") as (realm, nursery):
        clients = []
        for _ in range(3):
            clients.append(await realm.client(nursery))
            await trio.sleep(1)
        assert len(realm.server.state.hosts.all()) == 2
        assert (await clients[0].ask_code(calls.GetAttr(fid=realm.root)))[0] == Rpc2Code.NAKED
        assert (await clients[2].status(realm.root)).callback


async def test_what_an_administrator_changes_beside_the_server_is_told(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    from realmfs.server.mounts import make_mount
    from realmfs.server.store import ServerStore

    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery)
        await client.make_file(b"before", b"")
        await client.status(realm.root)
        await client.ask(calls.GetVolVS(volume=realm.volume))
        with ServerStore.open(realm.directory, lock=False) as beside:
            beside.create_volume("home")
            make_mount(beside, "home", "/home")
        await trio.sleep(2)
        assert client.broken == [realm.root, Fid(realm.volume, 0, 0)]
        await client.make_file(b"after", b"")
        names = {b".", b"..", b"before", b"home", b"after"}
        assert set(realm.names(await client.fetch(realm.root))) == names


async def test_no_break_is_lost_whatever_the_order(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Readers ask while writers write; whoever believes a promise at the end holds the current version."""
    rng = random.Random(first_seed())
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        realm.net.jitter = 0.02
        writers = [await realm.client(nursery) for _ in range(2)]
        readers = [await realm.client(nursery) for _ in range(3)]
        fids = [await writers[0].make_file(b"%d" % number, b"") for number in range(3)]
        believed: list[dict[Fid, tuple[int, int]]] = [{} for _ in readers]

        async def write(client: Client) -> None:
            for _ in range(15):
                fid = rng.choice(fids)
                await client.replay_code([client.chmod(fid, rng.randrange(0o777))])
                await trio.sleep(rng.random() * 0.02)

        async def read(client: Client, beliefs: dict[Fid, tuple[int, int]]) -> None:
            for _ in range(40):
                fid, breaks = rng.choice(fids), len(client.broken)
                status = await client.status(fid)
                if status.callback and breaks == len(client.broken):
                    beliefs[fid] = (status.vv.versions[0], breaks)
                await trio.sleep(rng.random() * 0.02)

        async with trio.open_nursery() as tasks:
            for client in writers:
                tasks.start_soon(write, client)
            for client, beliefs in zip(readers, believed, strict=True):
                tasks.start_soon(read, client, beliefs)
        counts = [len(client.broken) for client in readers]
        await trio.sleep(1)
        assert counts == [len(client.broken) for client in readers], "everything had been told already"
        current = {fid: (await writers[0].status(fid)).vv.versions[0] for fid in fids}
        for client, beliefs in zip(readers, believed, strict=True):
            for fid, (version, breaks) in beliefs.items():
                assert version == current[fid] or fid in client.broken[breaks:]


async def test_revoking_logins_ends_those_in_use(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A changed key alone ends nobody's; nor does a revocation that of clients who showed no token."""
    async with serving(tmp_path) as (realm, nursery):
        user = realm.add_user("ann")
        ann, nobody = await realm.client(nursery, user), await realm.client(nursery)
        request = calls.GetAttr(fid=realm.root)
        realm.store.change_token_key(now=realm.now)
        await trio.sleep(3)
        assert (await ann.ask_code(request))[0] == 0
        late = await realm.client(nursery, user)
        realm.store.change_token_key(now=realm.now, revoke=True)
        await trio.sleep(3)
        assert (await ann.ask_code(request))[0] == Rpc2Code.NAKED
        assert (await late.ask_code(request))[0] == Rpc2Code.NAKED
        assert (await nobody.ask_code(request))[0] == 0
        assert (await (await realm.client(nursery, user)).ask_code(request))[0] == 0
