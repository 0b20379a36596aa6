"""Reintegration: what a batch does, what refuses it, and that it is all or nothing (reintegration.md §2)."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from realmfs.rpc2.transfer import BytesSource
from realmfs.server.check import check_store
from realmfs.vice import calls, log
from realmfs.vice.directory import Directory
from realmfs.vice.errors import Code
from realmfs.vice.log import pack_log
from realmfs.vice.types import Fid, ObjectType, Rights, StoreId, VersionVector
from tests.t2b_server.harness import ALL, NOW, Client, Realm, dump, serving


async def entries(client: Client, fid: Fid) -> dict[bytes, tuple[int, int]]:
    contents = Directory.parse(await client.fetch(fid))
    return {name: (vnode, unique) for name, vnode, unique in contents.items() if name not in (b".", b"..")}


async def test_a_file_is_made_stored_and_read_back(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery)
        before = await client.status(realm.root)
        fid = await client.make_file(b"hello", b"contents" * 1000)
        assert await client.fetch(fid) == b"contents" * 1000
        status = await client.status(fid)
        assert (status.type, status.length, status.links) == (ObjectType.FILE, 8000, 1)
        assert (status.mode, status.date, status.data_version) == (0o644, NOW, 1)
        assert status.vv.versions[0] == 1
        assert status.vv.cop2_pending
        assert status.parent == (1, 1)
        after = await client.status(realm.root)
        assert after.vv.versions[0] == before.vv.versions[0] + 1
        assert after.date == NOW
        assert await entries(client, realm.root) == {b"hello": fid[1:]}


async def test_all_kinds_of_records_in_one_batch(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery)
        directory = await client.new_fid(ObjectType.DIRECTORY)
        file, gone = await client.new_fid(), await client.new_fid()
        link = await client.new_fid(ObjectType.SYMLINK)
        client.data[file] = b"second"
        root = realm.root
        records: list[log.AnyRecord] = [
            client.mkdir(b"dir", directory),
            client.create(b"file", file, directory),
            client.store(file, 3),
            client.store(file, 6),
            client.chmod(file, 0o600),
            log.Utimes(mtime=NOW, store_id=client.store_id(), fid=file, date=1234),
            client.link(b"other", file, directory),
            client.remove(b"other", file, directory),
            client.symlink(b"link", b"dir/file", link),
            client.create(b"gone", gone),
            client.remove(b"gone", gone),
            client.rename((directory, b"file"), (root, b"moved"), file),
            client.rename((root, b"dir"), (root, b"renamed"), directory),
        ]
        reply = await client.replay(records)
        assert reply.index == len(records)
        assert reply.stale_dirs == ()
        found = await entries(client, root)
        assert found == {b"renamed": directory[1:], b"moved": file[1:], b"link": link[1:]}
        assert await entries(client, directory) == {}
        assert await client.fetch(file) == b"second"
        assert await client.fetch(link) == b"dir/file"
        status = await client.status(file)
        assert (status.mode, status.date, status.parent, status.links) == (0o600, 1234, root[1:], 1)
        assert status.vv.versions[0] == 1, "once per object, not per record"
        assert status.vv.store_id == records[-2].store_id
        assert (await client.status(root)).links == 3
        assert (await client.status(link)).mode == 0o777
        assert (await client.ask_code(calls.GetAttr(fid=gone)))[0] == Code.VNOVNODE


async def test_a_directory_that_moves_gets_a_new_parent(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery)
        a, b = await client.make_directory(b"a"), await client.make_directory(b"b")
        await client.replay([client.rename((realm.root, b"a"), (b, b"inside"), a)])
        assert Directory.parse(await client.fetch(a)).lookup(b"..") == b[1:]
        links = [(await client.status(fid)).links for fid in (realm.root, a, b)]
        assert links == [3, 2, 3]
        code, reply = await client.replay_code([client.rename((realm.root, b"b"), (a, b"loop"), b)])
        assert (code, reply.index) == (Code.ELOOP, 0)


@dataclass
class Scene:
    """What the refusals are tried on: a file, a full and an empty directory, a link, a file of two names."""

    realm: Realm
    client: Client
    file: Fid
    full: Fid
    inside: Fid
    empty: Fid
    link: Fid
    twice: Fid
    mount: Fid

    @property
    def root(self) -> Fid:
        return self.realm.root


async def make_scene(realm: Realm, nursery: trio.Nursery) -> Scene:
    client = await realm.client(nursery, realm.add_user("maker", administrator=True))
    full, empty = await client.make_directory(b"full"), await client.make_directory(b"empty")
    file, inside = await client.make_file(b"file", b"x"), await client.make_file(b"inside", b"y", full)
    twice = await client.make_file(b"one", b"z")
    link, mount = await client.new_fid(ObjectType.SYMLINK), await client.new_fid(ObjectType.SYMLINK)
    await client.replay(
        [
            client.link(b"two", twice),
            client.symlink(b"link", b"file", link),
            client.symlink(b"mount", b"#home.", mount, 0o644),
        ]
    )
    return Scene(realm, client, file, full, inside, empty, link, twice, mount)


Refused = Callable[[Scene, Client, Fid], log.AnyRecord]
"""Makes a record that must be refused, from a scene, the client that sends it, and a fresh fid."""

STALE = VersionVector((9,) * 8, StoreId(1, 2))

REFUSALS: list[tuple[str, Refused, Code]] = [
    ("create a name that is taken", lambda s, c, f: c.create(b"file", f), Code.EEXIST),
    ("create a fid that exists", lambda s, c, f: c.create(b"new", s.inside), Code.EEXIST),
    ("create .", lambda s, c, f: c.create(b".", f), Code.EINVAL),
    ("create ..", lambda s, c, f: c.create(b"..", f), Code.EINVAL),
    ("create no name", lambda s, c, f: c.create(b"", f), Code.EINVAL),
    ("create a path", lambda s, c, f: c.create(b"a/b", f), Code.EINVAL),
    ("create a long name", lambda s, c, f: c.create(b"n" * 256, f), Code.ENAMETOOLONG),
    ("create in a file", lambda s, c, f: c.create(b"new", f, s.file), Code.ENOTDIR),
    ("create in nothing", lambda s, c, f: c.create(b"new", f, f), Code.VNOVNODE),
    ("create a directory's fid", lambda s, c, f: c.create(b"new", f._replace(vnode=99)), Code.EINVAL),
    ("create a local fid", lambda s, c, f: c.create(b"new", f._replace(vnode=0xFFFFFFFE)), Code.EINVAL),
    ("create a wild unique", lambda s, c, f: c.create(b"new", f._replace(unique=0xFFFFFFFF)), Code.EINVAL),
    ("create a wild vnode", lambda s, c, f: c.create(b"new", f._replace(vnode=0xFFFFFF00)), Code.EINVAL),
    ("mkdir a name that is taken", lambda s, c, f: c.mkdir(b"file", f._replace(vnode=99)), Code.EEXIST),
    ("mkdir a file's fid", lambda s, c, f: c.mkdir(b"new", f), Code.EINVAL),
    ("symlink a name that is taken", lambda s, c, f: c.symlink(b"file", b"x", f), Code.EEXIST),
    ("symlink to nothing", lambda s, c, f: c.symlink(b"new", b"", f), Code.EINVAL),
    ("link a name that is taken", lambda s, c, f: c.link(b"one", s.file), Code.EEXIST),
    ("link a directory", lambda s, c, f: c.link(b"new", s.empty), Code.EISDIR),
    ("link a symlink", lambda s, c, f: c.link(b"new", s.link), Code.EISDIR),
    ("link into another directory", lambda s, c, f: c.link(b"new", s.file, s.full), Code.EXDEV),
    ("link what is gone", lambda s, c, f: c.link(b"new", f), Code.VNOVNODE),
    ("remove what is not there", lambda s, c, f: c.remove(b"nothing", s.file), Code.ENOENT),
    ("remove a directory", lambda s, c, f: c.remove(b"empty", s.empty), Code.EISDIR),
    ("rmdir what is not there", lambda s, c, f: c.rmdir(b"nothing", s.empty), Code.ENOENT),
    ("rmdir a file", lambda s, c, f: c.rmdir(b"file", s.file), Code.ENOTDIR),
    ("rmdir a full directory", lambda s, c, f: c.rmdir(b"full", s.full), Code.ENOTEMPTY),
    ("rmdir .", lambda s, c, f: c.rmdir(b".", s.root), Code.EINVAL),
    ("rename what is not there",
     lambda s, c, f: c.rename((s.root, b"nothing"), (s.root, b"new"), s.file), Code.ENOENT),
    ("rename onto something", lambda s, c, f: c.rename((s.root, b"file"), (s.root, b"one"), s.file),
     Code.EINCOMPATIBLE),
    ("rename into itself", lambda s, c, f: c.rename((s.root, b"full"), (s.full, b"new"), s.full), Code.ELOOP),
    ("rename to ..", lambda s, c, f: c.rename((s.root, b"file"), (s.full, b".."), s.file), Code.EINVAL),
    ("rename a file of two names away",
     lambda s, c, f: c.rename((s.root, b"one"), (s.full, b"one"), s.twice), Code.EXDEV),
    ("rename into a file", lambda s, c, f: c.rename((s.root, b"one"), (s.file, b"a"), s.twice), Code.ENOTDIR),
    ("store to a directory", lambda s, c, f: c.store(s.full, 1), Code.EISDIR),
    ("store to a symlink", lambda s, c, f: c.store(s.link, 1), Code.EISDIR),
    ("store to what is gone", lambda s, c, f: c.store(f, 1), Code.VNOVNODE),
    ("store less than nothing", lambda s, c, f: c.store(s.file, -1), Code.EINVAL),
    ("chmod a symlink", lambda s, c, f: c.chmod(s.link, 0o600), Code.EACCES),
    ("chmod what is gone", lambda s, c, f: c.chmod(f, 0o600), Code.VNOVNODE),
]  # fmt: skip


@pytest.mark.parametrize(("what", "make", "code"), REFUSALS, ids=[what for what, _, _ in REFUSALS])
async def test_a_refused_record_undoes_its_batch(
    tmp_path: Path, autojump_clock: MockClock, what: str, make: Refused, code: Code
) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        scene = await make_scene(realm, nursery)
        client = scene.client
        before, containers = dump(realm.store), realm.containers()
        first, last, fresh = await client.new_fid(), await client.new_fid(), await client.new_fid()
        client.data[first] = b"data"
        records: list[log.AnyRecord] = [
            client.create(b"first", first),
            client.store(first, 4),
            client.chmod(scene.file, 0o700),
            make(scene, client, fresh),
            client.create(b"last", last),
        ]
        got, reply = await client.replay_code(records)
        assert (got, reply.index) == (code, 3)
        assert dump(realm.store) == before
        assert realm.containers() == containers
        assert check_store(realm.store) == []
        await client.replay(records[:3])
        assert await client.fetch(first) == b"data"


Stale = Callable[[Scene, Client], log.AnyRecord]

CONFLICTS: list[tuple[str, Stale]] = [
    ("store", lambda s, c: c.store(s.file, 1)),
    ("chmod", lambda s, c: c.chmod(s.file, 0o600)),
    ("utimes", lambda s, c: log.Utimes(mtime=NOW, store_id=c.store_id(), fid=s.file, date=1)),
    ("chown", lambda s, c: log.Chown(mtime=NOW, store_id=c.store_id(), fid=s.file, owner=5)),
    ("remove", lambda s, c: c.remove(b"file", s.file)),
    ("link", lambda s, c: c.link(b"new", s.file)),
    ("rename", lambda s, c: c.rename((s.root, b"file"), (s.full, b"new"), s.file)),
]


@pytest.mark.parametrize(("what", "make"), CONFLICTS, ids=[what for what, _ in CONFLICTS])
async def test_a_file_changed_by_others_is_a_conflict(
    tmp_path: Path, autojump_clock: MockClock, what: str, make: Stale
) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        scene = await make_scene(realm, nursery)
        client = scene.client
        record = make(scene, client)
        current = await client.vectors([record])
        stale = current | {scene.file: current[scene.file].with_store_id(StoreId(1, 2))}
        assert (await client.replay_code([record], stale))[0] == Code.EINCOMPATIBLE
        numbers = VersionVector((7, 7, 7, 7, 7, 7, 7, 7), current[scene.file].store_id)
        client.data[scene.file] = b"!"
        await client.replay([record], current | {scene.file: numbers})


async def test_directories_are_not_compared_but_reported_stale(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        scene = await make_scene(realm, nursery)
        one, other = scene.client, await realm.client(nursery)
        fids = [await one.new_fid() for _ in range(3)]
        vectors = await one.vectors([one.create(b"x", fids[0])]) | {fid: VersionVector() for fid in fids}
        await other.make_file(b"theirs", b"")
        reply = await one.replay([one.create(b"a", fids[0]), one.create(b"b", fids[1])], vectors)
        assert reply.stale_dirs == (realm.root,)
        assert {b"a", b"b", b"theirs"} <= (await entries(one, realm.root)).keys()
        reply = await one.replay([one.create(b"c", fids[2])], vectors, max_stale_dirs=0)
        assert reply.stale_dirs == ()


RightsCase = tuple[str, Callable[[Scene, Client, Fid], log.AnyRecord], Rights]

NEEDED: list[RightsCase] = [
    ("create", lambda s, c, f: c.create(b"new", f), Rights.INSERT),
    ("mkdir", lambda s, c, f: c.mkdir(b"new", f._replace(vnode=99)), Rights.INSERT),
    ("symlink", lambda s, c, f: c.symlink(b"new", b"x", f), Rights.INSERT),
    ("link", lambda s, c, f: c.link(b"new", s.file), Rights.INSERT),
    ("remove", lambda s, c, f: c.remove(b"file", s.file), Rights.DELETE),
    ("rmdir", lambda s, c, f: c.rmdir(b"empty", s.empty), Rights.DELETE),
    ("rename", lambda s, c, f: c.rename((s.root, b"file"), (s.root, b"new"), s.file),
     Rights.INSERT | Rights.DELETE),
    ("store", lambda s, c, f: c.store(s.file, 0), Rights.WRITE),
    ("chmod", lambda s, c, f: c.chmod(s.file, 0o600), Rights.WRITE),
]  # fmt: skip


@pytest.mark.parametrize(("what", "make", "needed"), NEEDED, ids=[what for what, _, _ in NEEDED])
async def test_each_change_needs_its_right(
    tmp_path: Path,
    autojump_clock: MockClock,
    what: str,
    make: Callable[[Scene, Client, Fid], log.AnyRecord],
    needed: Rights,
) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        scene = await make_scene(realm, nursery)
        user = realm.add_user("user")
        client = await realm.client(nursery, user)
        fresh = await client.new_fid()
        for right in Rights.ALL & needed:
            realm.set_root_acl(0, (user, ALL & ~right))
            record = make(scene, client, fresh)
            assert (await client.replay_code([record]))[0] == Code.EACCES, right
        realm.set_root_acl(0, (user, int(needed)))
        await client.replay([make(scene, client, fresh)])


async def test_owners_of_virgin_files_need_no_right(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data") as (realm, nursery):
        user, other = realm.add_user("user"), realm.add_user("other")
        client, stranger = await realm.client(nursery, user), await realm.client(nursery, other)
        realm.set_root_acl(0, (user, int(Rights.INSERT)), (other, int(Rights.INSERT)))
        fid = await client.new_fid()
        await client.replay([client.create(b"new", fid)])
        assert (await client.status(fid)).owner == user, "not the uid that the record gives"
        assert (await stranger.replay_code([stranger.store(fid, 0)]))[0] == Code.EACCES
        assert (await stranger.replay_code([stranger.chmod(fid, 0)]))[0] == Code.EACCES
        chown = log.Chown(mtime=NOW, store_id=client.store_id(), fid=fid, owner=other)
        assert (await client.replay_code([chown]))[0] == Code.EACCES
        await client.replay([client.chmod(fid, 0o600)])
        client.data[fid] = b"data"
        await client.replay([client.store(fid, 4)])
        assert (await client.replay_code([client.store(fid, 0)]))[0] == Code.EACCES, (
            "it is no virgin any more"
        )


async def test_what_only_administrators_may(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        scene = await make_scene(realm, nursery)
        admin, user = scene.client, await realm.client(nursery, realm.add_user("user"))
        assert (await admin.status(scene.mount)).mode == 0o644
        fid = await user.new_fid()
        await user.replay([user.symlink(b"mine", b"#home.", fid, 0o644)])
        assert (await user.status(fid)).mode == 0o777
        assert (await user.replay_code([user.remove(b"mount", scene.mount)]))[0] == Code.EACCES
        await admin.replay([admin.remove(b"mount", scene.mount)])
        chown = log.Chown(mtime=NOW, store_id=admin.store_id(), fid=fid, owner=4)
        await admin.replay([chown])
        assert (await admin.status(fid)).owner == 4
        realm.set_root_acl(0)
        assert (await admin.replay_code([admin.create(b"new", await admin.new_fid())]))[0] == Code.EACCES
        await admin.replay([admin.chmod(scene.file, 0o600)])


# the log and the call around it


async def test_unreadable_logs_name_the_first_bad_record(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery)
        good = pack_log([client.create(b"a", await client.new_fid())])
        foreign = pack_log([client.create(b"b", (await client.new_fid())._replace(volume=0x7F999999))])
        cases: list[tuple[bytes, Code, int]] = [
            (good + b"\0\0\0\1\0\0", Code.ENOMEM, 1),
            (good[:-1], Code.ENOMEM, 0),
            (good + b"\0\0\0\2" + bytes(40), Code.EINVAL, 1),
            (good + foreign, Code.EINVAL, 1),
            (b"\xff" * 50, Code.EINVAL, 0),
        ]
        before = dump(realm.store)
        for packed, code, index in cases:
            call = calls.Reintegrate(volume=realm.volume, log_size=len(packed))
            got, reply = await client.ask_code(call, source=BytesSource(packed))
            assert (got, reply.index) == (code, index)
            assert dump(realm.store) == before
        assert (await client.replay([])).index == 0
        for volume in (0x7F999999, realm.store.volumes.all()[0].id):
            got, reply = await client.replay_code([], volume=volume)
            assert (got, reply.index) == (Code.EINVAL, -1)
        got, reply = await client.ask_code(calls.Reintegrate(volume=realm.volume, log_size=-1))
        assert (got, reply.index) == (Code.EINVAL, -1)
        got, reply = await client.replay_code([], piggy_cop2=bytes(5))
        assert (got, reply.index) == (Code.EINVAL, -1)


async def test_a_second_batch_waits_a_moment_then_is_sent_away(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        slow, other = await realm.client(nursery), await realm.client(nursery)
        slow.may_answer = trio.Event()
        before = dump(realm.store)
        fid = await slow.new_fid()
        slow.data[fid] = b"data"
        async with trio.open_nursery() as both:
            records: list[log.AnyRecord] = [slow.create(b"slow", fid), slow.store(fid, 4)]
            both.start_soon(slow.replay, records)
            await slow.on_call.wait()
            code, reply = await other.replay_code([other.create(b"other", await other.new_fid())])
            assert (code, reply.index) == (Code.EWOULDBLOCK, -1)
            assert (await other.status(realm.root)).links == 2, "readers are not kept waiting"
            assert await entries(other, realm.root) == {}
            assert dump(realm.store)["vnode"] == before["vnode"]
            slow.may_answer.set()
        assert await other.fetch(fid) == b"data"
        await other.replay([other.create(b"other", await other.new_fid())])


BackFetch = Callable[[Realm, Client, Fid], Awaitable[None]]


async def _nothing(realm: Realm, client: Client, fid: Fid) -> None:
    client.data.pop(fid)


async def _too_short(realm: Realm, client: Client, fid: Fid) -> None:
    client.data[fid] = b"dat"


async def _too_long(realm: Realm, client: Client, fid: Fid) -> None:
    client.data[fid] = b"data!"


@pytest.mark.parametrize(
    ("spoil", "code"), [(_nothing, Code.ENOENT), (_too_short, Code.EINVAL), (_too_long, Code.EINVAL)]
)
async def test_contents_that_do_not_come_refuse_the_batch(
    tmp_path: Path, autojump_clock: MockClock, spoil: BackFetch, code: Code
) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery)
        one, two = await client.new_fid(), await client.new_fid()
        client.data |= {one: b"fine", two: b"data"}
        await spoil(realm, client, two)
        before, containers = dump(realm.store), realm.containers()
        records: list[log.AnyRecord] = [
            client.create(b"one", one),
            client.store(one, 4),
            client.create(b"two", two),
            client.store(two, 4),
        ]
        got, reply = await client.replay_code(records)
        assert (got, reply.index) == (code, -1)
        assert (dump(realm.store), realm.containers()) == (before, containers)


async def test_a_client_that_does_not_hand_over_is_dropped(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery)
        fid = await client.new_fid()
        client.data[fid] = b"data"
        client.may_answer = trio.Event()
        code, _ = await client.replay_code([client.create(b"f", fid), client.store(fid, 4)])
        assert code == Code.EIO
        code, _ = await client.ask_code(calls.GetAttr(fid=realm.root))
        assert code == -2016
        assert realm.containers() == set()


async def test_empty_files_and_files_only_created_are_not_fetched(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery)
        one, two = await client.new_fid(), await client.new_fid()
        await client.replay([client.create(b"one", one), client.create(b"two", two), client.store(two, 0)])
        assert await client.fetch(one) == await client.fetch(two) == b""
        assert [(await client.status(fid)).data_version for fid in (one, two)] == [0, 1]


# duplicates


async def test_a_batch_sent_twice_is_done_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery)
        fid = await client.new_fid()
        records: list[log.AnyRecord] = [client.create(b"f", fid), client.chmod(fid, 0o600)]
        vectors = await client.vectors(records)
        await client.replay(records, vectors)
        before = dump(realm.store)
        for repeated in (records, records[1:]):
            code, reply = await client.replay_code(repeated, vectors)
            assert (code, reply.index) == (Code.VLOGSTALE, records[1].store_id.uniquifier)
        await realm.restart(nursery)
        await client.bind()
        await client.introduce()
        code, reply = await client.replay_code(records, vectors)
        assert (code, reply.index) == (Code.VLOGSTALE, records[1].store_id.uniquifier)
        assert dump(realm.store)["vnode"] == before["vnode"]
        other = [dataclasses.replace(client.create(b"g", await client.new_fid()), store_id=StoreId(77, 1))]
        await client.replay(other)


async def test_duplicates_out_of_order_and_beyond_the_check(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery)

        async def code_of(uniquifier: int, name: bytes, *, out_of_order: bool = False) -> tuple[int, int]:
            record = client.create(name, await client.new_fid())
            record = dataclasses.replace(record, store_id=StoreId(9, uniquifier))
            code, reply = await client.replay_code([record], out_of_order=out_of_order)
            return code, reply.index

        assert await code_of(100, b"a", out_of_order=True) == (0, 1)
        assert await code_of(50, b"b") == (0, 1), "a batch out of order is not remembered"
        assert await code_of(50, b"c") == (Code.VLOGSTALE, 50)
        assert await code_of(0x80000001, b"d") == (0, 1)
        assert await code_of(0x80000000, b"e") == (0, 1), "never checked"
        assert await code_of(60, b"f") == (Code.VLOGSTALE, 0x80000000 - (1 << 32))


# quota


async def test_the_quota_is_kept(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery)
        with realm.store.transaction():
            realm.store.volumes.set_status(realm.store.volumes.all()[0].id, max_quota=20)
        fid = await client.make_file(b"f", bytes(10 * 1024))
        assert realm.store.volumes.all()[0].blocks == 12
        client.data[fid] = bytes(19 * 1024)
        code, reply = await client.replay_code([client.store(fid, 19 * 1024)])
        assert (code, reply.index) == (Code.EDQUOT, 0)
        client.data[fid] = bytes(18 * 1024)
        await client.replay([client.store(fid, 18 * 1024)])
        assert (await client.replay_code([client.create(b"g", await client.new_fid())]))[0] == Code.EDQUOT
        client.data[fid] = b""
        await client.replay([client.store(fid, 0)])
        await client.replay([client.remove(b"f", fid)])
        assert realm.store.volumes.all()[0].blocks == 2
        assert check_store(realm.store) == []


async def test_a_full_disk_refuses_stores(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery)
        fid = await client.new_fid()
        client.data[fid] = b"data"
        records: list[log.AnyRecord] = [client.create(b"f", fid), client.store(fid, 4)]
        with monkeypatch.context() as patch:
            patch.setattr(realm.store.containers, "space", lambda: (0, 1 << 30))
            assert (await client.replay_code(records))[0] == Code.ENOSPC
        await client.replay(records)


async def test_a_directory_can_be_filled(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery)
        made, code = 0, 0
        while not code:
            records: list[log.AnyRecord] = [
                client.create(b"%0255d" % (made + i), await client.new_fid()) for i in range(150)
            ]
            code, reply = await client.replay_code(records)
            made += len(records) if not code else 0
        assert code == Code.EFBIG
        assert made + reply.index == 894
        status = await client.status(realm.root)
        assert status.length <= 128 * 2048
        assert len(await entries(client, realm.root)) == made
        assert check_store(realm.store) == []
