"""The store: imports equal what they came from, and at no crash is anything half done."""

from __future__ import annotations

import functools
import itertools
import os
import random
import shutil
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from realmfs.server.check import check_store
from realmfs.server.database import Database, StoreError
from realmfs.server.imports import import_tree
from realmfs.server.mounts import make_mount, mount_points
from realmfs.server.protection import Protection
from realmfs.server.store import ServerStore
from realmfs.server.volumes import ROOT_VOLUME
from realmfs.vice import calls, log
from realmfs.vice.directory import Directory
from realmfs.vice.errors import Code
from realmfs.vice.types import Fid, ObjectType, StoreId
from tests.seeds import first_seed
from tests.t2b_server.harness import ALL, Client, dump, serving

# imports


def make_tree(top: Path) -> None:
    rng = random.Random(5)
    for path in ("a/b/c", "a/d", "empty", "many"):
        (top / path).mkdir(parents=True)
    for number, path in enumerate(("x", "a/x", "a/b/y", "a/b/c/z", "with blank", "ümläut", "a/d/..."), 1):
        (top / path).write_bytes(rng.randbytes(rng.randrange(10_000)))
        (top / path).chmod(rng.randrange(0o1000) | 0o400)
        os.utime(top / path, (0, number * 1000))
    for number in range(1200):
        (top / "many" / f"file {number}").write_bytes(b"%d" % number)
    (top / "nothing").touch()
    (top / "a" / "link").symlink_to("b/c/z")
    (top / "dangling").symlink_to("/no/such/thing")
    os.link(top / "a" / "x", top / "a" / "same")
    os.utime(top / "a", (0, 123456))


def tree_of(store: ServerStore, fid: Fid) -> dict[bytes, tuple[object, ...]]:
    """Return what is below a directory: path to (kind, mode, time, contents or links)."""
    found: dict[bytes, tuple[object, ...]] = {}
    for name, *entry in Directory.parse(store.vnodes.image(fid)).items():
        if name in (b".", b".."):
            continue
        vnode = store.vnodes.find(Fid(fid.volume, *entry))
        assert vnode is not None
        if vnode.type is ObjectType.DIRECTORY:
            found[name] = ("directory", vnode.mode, vnode.mtime)
            found |= {name + b"/" + path: what for path, what in tree_of(store, vnode.fid).items()}
        elif vnode.type is ObjectType.SYMLINK:
            found[name] = ("link", vnode.target)
        else:
            data = store.containers.path(vnode.container).read_bytes() if vnode.container else b""
            found[name] = ("file", vnode.mode, vnode.mtime, vnode.links, data)
    return found


def tree_on_disk(top: Path) -> dict[bytes, tuple[object, ...]]:
    found: dict[bytes, tuple[object, ...]] = {}
    for path in top.rglob("*"):
        info, name = path.lstat(), os.fsencode(path.relative_to(top))
        mode, mtime = stat.S_IMODE(info.st_mode), int(info.st_mtime)
        if path.is_symlink():
            found[name] = ("link", os.fsencode(os.readlink(path)))
        elif path.is_dir():
            found[name] = ("directory", mode, mtime)
        else:
            found[name] = ("file", mode, mtime, info.st_nlink, path.read_bytes())
    return found


def test_an_import_equals_its_source(tmp_path: Path) -> None:
    make_tree(tmp_path / "source")
    with ServerStore.create(tmp_path / "data", "test.realm", "127.0.0.1") as store:
        done = import_tree(store, "/", tmp_path / "source", owner=7)
        volume = store.volumes.all()[0]
        assert tree_of(store, store.root_of(volume)) == tree_on_disk(tmp_path / "source")
        assert (done.directories, done.links, done.files, done.skipped) == (6, 2, 1208, [])
        assert check_store(store, contents=True) == []
        before = dump(store)
    with ServerStore.open(tmp_path / "data") as store:
        assert dump(store) == before
        assert check_store(store, contents=True) == []
        volume = store.volumes.all()[0]
        files = store.volumes.allocate(volume, False, 32)
        directories = store.volumes.allocate(volume, True, 32)
        for granted in (files, directories):
            for fid in granted.fids(volume.id):
                assert store.vnodes.find(fid) is None
                assert not store.database.rows("SELECT 1 FROM vnode WHERE uniq = ?", fid.unique)


def test_what_coda_cannot_have_is_reported_and_left_out(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("ok", "bin@sys", "@cpu", "@00000001.00000002.00000003@conflict"):
        (source / name).touch()
    os.mkfifo(source / "pipe")
    (source / "long").symlink_to("x" * 2000)
    (source / "huge").touch()
    os.truncate(source / "huge", 1 << 31)
    with ServerStore.create(tmp_path / "data", "test.realm", "127.0.0.1") as store:
        done = import_tree(store, "/", source)
        left = {path for path, _ in done.skipped}
        assert left == {"bin@sys", "@cpu", "@00000001.00000002.00000003@conflict", "pipe", "long", "huge"}
        assert check_store(store) == []


def test_a_directory_too_large_is_cut(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(900):
        (source / f"{number:0255d}").write_bytes(b"x")
    with ServerStore.create(tmp_path / "data", "test.realm", "127.0.0.1") as store:
        done = import_tree(store, "/", source)
        assert (done.files, len(done.skipped)) == (894, 6)
        assert check_store(store) == []
        assert len([path for path in (tmp_path / "data/containers").rglob("*") if path.is_file()]) == 894


def test_only_empty_volumes_are_filled_and_broken_imports_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tree(tmp_path / "source")
    with ServerStore.create(tmp_path / "data", "test.realm", "127.0.0.1") as store:
        for volume, path in (("none", tmp_path / "source"), ("/", tmp_path / "nothing")):
            with pytest.raises(StoreError):
                import_tree(store, volume, path)
        with monkeypatch.context() as patch:
            patch.setattr("os.sync", lambda: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                import_tree(store, "/", tmp_path / "source")
        assert check_store(store) == ["/: off line, its import was broken off"]
        import_tree(store, "/", tmp_path / "source")
        assert check_store(store, contents=True) == []
        with pytest.raises(StoreError):
            import_tree(store, "/", tmp_path / "source")


@pytest.mark.logs("broken off")
async def test_a_volume_being_filled_is_off_line(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery)
        realm.store.volumes.begin_filling(realm.store.volumes.all()[0])
        assert (await client.ask_code(calls.GetAttr(fid=realm.root)))[0] == Code.VOFFLINE
        assert (await client.replay_code([]))[0] == Code.VOFFLINE
        await realm.restart(nursery)


# mounts and volumes


def test_volumes_are_made_mounted_and_removed(tmp_path: Path) -> None:
    with ServerStore.create(tmp_path / "data", "test.realm", "127.0.0.1") as store:
        (tmp_path / "s/usr").mkdir(parents=True)
        (tmp_path / "s/usr/f").write_bytes(b"x")
        import_tree(store, "/", tmp_path / "s")
        volume = store.create_volume("jan", owner=5)
        make_mount(store, "jan", "/usr/jan")
        make_mount(store, "jan", "again")
        assert sorted(mount_points(store)["jan"]) == ["/again", "/usr/jan"]
        for name, path in (
            ("none", "x"),
            ("jan", "usr/jan"),
            ("jan", "no/such/place"),
            ("/", "x"),
            ("jan", "/"),
        ):
            with pytest.raises(StoreError):
                make_mount(store, name, path)
        for name in ("jan", "", "x" * 32, "a@b", "12", " x", "a\nb"):
            with pytest.raises(StoreError):
                store.create_volume(name)
        assert check_store(store) == []
        store.remove_volume(volume)
        assert store.volumes.named("jan") is None
        assert check_store(store) == []


def test_who_may_open_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        ServerStore.open(tmp_path / "data")
    for address, number in (("0.0.0.0", 1), ("nowhere", 1), ("::1", 1), ("127.0.0.1", 0), ("127.0.0.1", 127)):
        with pytest.raises(StoreError):
            ServerStore.create(tmp_path / f"{address}{number}", "test.realm", address, number=number)
    with ServerStore.create(tmp_path / "data", "test.realm", "127.0.0.1") as store:
        assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "data/store.db").stat().st_mode) == 0o600
        with pytest.raises(StoreError):
            ServerStore.open(tmp_path / "data")
        with pytest.raises(StoreError):
            ServerStore.create(tmp_path / "data", "test.realm", "127.0.0.1")
        ServerStore.open(tmp_path / "data", lock=False).close()
        old = store.token_keys()
        store.change_token_key()
        assert store.token_keys()[1:] == old
    with sqlite3.connect(tmp_path / "data/store.db") as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError):
        ServerStore.open(tmp_path / "data")
    (tmp_path / "data/store.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError):
        ServerStore.open(tmp_path / "data")


def test_a_store_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks while it is made sees none and harms none; what a crash leaves is no obstacle."""
    data = tmp_path / "data"
    initialise = Protection.initialise

    def looked_at(protection: Protection) -> None:
        with pytest.raises(StoreError, match="does not exist"):
            ServerStore.open(data, lock=False)
        initialise(protection)

    class CrashError(Exception):
        pass

    def crashing(_: Protection) -> None:
        raise CrashError

    monkeypatch.setattr(Protection, "initialise", crashing)
    with pytest.raises(CrashError):
        ServerStore.create(data, "test.realm", "127.0.0.1")
    assert not (data / "store.db").exists()
    (data / "store.new").write_bytes(b"half of a database")
    (data / "store.new-wal").write_bytes(b"and of its log")
    monkeypatch.setattr(Protection, "initialise", looked_at)
    ServerStore.create(data, "test.realm", "127.0.0.1").close()
    with ServerStore.open(data) as store:
        assert store.volumes.named(ROOT_VOLUME) is not None
        assert check_store(store, contents=True) == []
    assert not list(data.glob("store.new*"))


def test_two_programs_bring_up_an_old_store_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ServerStore.create(tmp_path / "data", "test.realm", "127.0.0.1").close()
    with sqlite3.connect(tmp_path / "data/store.db") as database:
        database.executescript("DROP TABLE past; PRAGMA user_version = 2;")
    upgrade = Database._upgrade

    def overtaken(database: Database, script: str, version: int) -> None:
        monkeypatch.setattr(Database, "_upgrade", upgrade)
        ServerStore.open(tmp_path / "data", lock=False).close()
        upgrade(database, script, version)

    monkeypatch.setattr(Database, "_upgrade", overtaken)
    ServerStore.open(tmp_path / "data").close()


def test_a_store_of_version_2_is_brought_up(tmp_path: Path) -> None:
    ServerStore.create(tmp_path / "data", "test.realm", "127.0.0.1").close()
    with sqlite3.connect(tmp_path / "data/store.db") as database:
        database.executescript("DROP TABLE past; PRAGMA user_version = 2;")
    with ServerStore.open(tmp_path / "data") as store:
        fid = Fid(1, 2, 3)
        store.elements.note_past(fid, [StoreId(1, 1), StoreId(1, 2), StoreId(1, 1)])
        assert store.elements.past(fid) == (StoreId(1, 1), StoreId(1, 2))


# crashes


def reopened(directory: Path, copy: Path) -> ServerStore:
    """Return the store as a crash at this instant would leave it to the next start."""
    shutil.copytree(directory, copy, ignore=shutil.ignore_patterns("lock"))
    return ServerStore.open(copy)


async def test_a_crash_at_any_instant_leaves_whole_batches(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Copies of the store, taken at every callback and reply, each equal a state between batches."""
    copies = (tmp_path / f"copy{number}" for number in itertools.count())
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client, reader = await realm.client(nursery), await realm.client(nursery)
        states = [dump(realm.store)]
        fids = [await client.new_fid() for _ in range(4)]
        directory = await client.new_fid(ObjectType.DIRECTORY)
        client.data |= {fid: bytes([number]) * 3000 for number, fid in enumerate(fids)}
        batches: list[list[log.AnyRecord]] = [
            [client.create(b"0", fids[0]), client.store(fids[0], 3000)],
            [
                client.mkdir(b"d", directory),
                client.create(b"1", fids[1], directory),
                client.store(fids[1], 3000),
            ],
            [client.store(fids[0], 3000), client.store(fids[1], 3000), client.chmod(fids[0], 0)],
            [
                client.rename((directory, b"1"), (realm.root, b"moved"), fids[1]),
                client.rmdir(b"d", directory),
            ],
            [client.remove(b"0", fids[0])],
        ]

        async def send(batch: list[log.AnyRecord]) -> None:
            await client.replay(batch)

        for batch in batches:
            await reader.status(realm.root)
            client.may_answer, reader.may_answer = trio.Event(), trio.Event()
            client.on_call, reader.on_call = trio.Event(), trio.Event()
            fetches = any(isinstance(record, log.Store) for record in batch)
            async with trio.open_nursery() as sending:
                sending.start_soon(send, batch)
                if fetches:
                    await client.on_call.wait()
                    with reopened(realm.directory, next(copies)) as copy:
                        assert dump(copy) == states[-1], "contents are on their way: nothing has happened"
                        assert check_store(copy, contents=True) == []
                client.may_answer.set()
                if any(fid == realm.root for record in batch for fid in record.objects()):
                    await reader.on_call.wait()
                    with reopened(realm.directory, next(copies)) as copy:
                        assert dump(copy) == dump(realm.store), "it is told only after it is done"
                reader.may_answer.set()
            states.append(dump(realm.store))
            with reopened(realm.directory, next(copies)) as copy:
                assert dump(copy) == states[-1]
                assert check_store(copy, contents=True) == []
        assert len({repr(state) for state in states}) == len(states)


async def test_containers_are_synced_before_and_the_log_after_the_commit(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client, reader = await realm.client(nursery), await realm.client(nursery)
        await reader.status(realm.root)
        order: list[str] = []
        commit, fsync, fdatasync = realm.store.database.transaction, os.fsync, os.fdatasync

        def traced(sync: Callable[[int], None], fd: int) -> None:
            path = os.readlink(f"/proc/self/fd/{fd}")
            kind = "name" if os.path.isdir(path) else "container"
            order.append(kind if "/containers/" in path else Path(path).name)
            sync(fd)

        def traced_commit() -> object:
            order.append("commit")
            return commit()

        monkeypatch.setattr(os, "fsync", functools.partial(traced, fsync))
        monkeypatch.setattr(os, "fdatasync", functools.partial(traced, fdatasync))
        monkeypatch.setattr(realm.store.database, "transaction", traced_commit)
        fid = await client.new_fid()
        client.data[fid] = b"data"
        order.clear()
        reader.broken.clear()
        records: list[log.AnyRecord] = [client.create(b"f", fid), client.store(fid, 4)]
        await client.replay(records)
        assert order[:3] == ["container", "name", "commit"]
        assert "store.db-wal" in order[3:]
        assert reader.broken == [realm.root]


async def test_random_batches_against_a_model(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What a dictionary says must happen, happens; what it says cannot, changes nothing."""
    rng = random.Random(first_seed())
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery)
        model: dict[bytes, Fid] = {}
        data: dict[Fid, bytes] = {}
        names = [b"n%d" % number for number in range(12)]
        for _ in range(150):
            trial, contents, records, fails = dict(model), dict(data), [], -1
            for index in range(rng.randint(1, 4)):
                record, code = await _random_record(rng, client, trial, contents, names)
                records.append(record)
                if code:
                    fails = index
                    break
            client.data |= contents
            code, reply = await client.replay_code(records)
            assert (code != 0, reply.index) == (fails >= 0, fails if fails >= 0 else len(records))
            if not code:
                model, data = trial, contents
            image = Directory.parse(await client.fetch(realm.root))
            found = {name: Fid(realm.volume, *entry) for name, *entry in image.items() if name[0] != ord(".")}
            assert found == model
        for fid in set(model.values()):
            assert await client.fetch(fid) == data.get(fid, b"")
        assert check_store(realm.store, contents=True) == []


async def _random_record(
    rng: random.Random, client: Client, model: dict[bytes, Fid], data: dict[Fid, bytes], names: list[bytes]
) -> tuple[log.AnyRecord, int]:
    """Make a record and do to the model what it does; the second is whether it must fail."""
    name, other = rng.choice(names), rng.choice(names)
    root = client.root
    fid = model.get(name)
    kind = rng.choice(("create", "store", "remove", "rename", "link"))
    if kind == "create" or fid is None:
        fresh = await client.new_fid()
        if kind == "remove":
            return client.remove(name, fresh), 1
        record = client.create(name, fresh)
        failed = int(name in model)
        model.setdefault(name, fresh)
        return record, failed
    if kind == "store":
        data[fid] = rng.randbytes(rng.randrange(3000))
        return client.store(fid, len(data[fid])), 0
    if kind == "remove":
        del model[name]
        return client.remove(name, fid), 0
    failed = int(other in model)
    if not failed:
        model[other] = fid
        if kind == "rename":
            del model[name]
    if kind == "rename":
        return client.rename((root, name), (root, other), fid), failed
    return client.link(other, fid), failed
