"""Reintegration: what a batch does, what refuses it, and that it is all or nothing (reintegration.md §2)."""

from __future__ import annotations

from pathlib import Path

import pytest

from realmfs.vice import calls, log
from realmfs.vice.directory import Directory
from realmfs.vice.errors import Code
from realmfs.vice.types import Fid, ObjectType
from tests.t2b_server.harness import ALL, NOW, Client, serving

pytestmark = pytest.mark.usefixtures("autojump_clock")


async def entries(client: Client, fid: Fid) -> dict[bytes, tuple[int, int]]:
    contents = Directory.parse(await client.fetch(fid))
    return {name: (vnode, unique) for name, vnode, unique in contents.items() if name not in (b".", b"..")}


async def test_a_file_is_made_stored_and_read_back(tmp_path: Path) -> None:
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


async def test_all_kinds_of_records_in_one_batch(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", anyuser=ALL) as (realm, nursery):
        client = await realm.client(nursery)
        directory = await client.new_fid(ObjectType.DIRECTORY)
        file, gone, link = (
            await client.new_fid(),
            await client.new_fid(),
            await client.new_fid(ObjectType.SYMLINK),
        )
        client.data[file] = b"second"
        root = realm.root
        records: list[log.AnyRecord] = [
            client.mkdir(b"dir", directory),
            client.create(b"file", file, directory),
            client.store(file, 3),
            client.store(file, 6),
            log.Chmod(mtime=NOW, store_id=client.store_id(), fid=file, mode=0o600),
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
        assert await entries(client, root) == {
            b"renamed": directory[1:],
            b"moved": file[1:],
            b"link": link[1:],
        }
        assert await entries(client, directory) == {}
        assert await client.fetch(file) == b"second"
        assert await client.fetch(link) == b"dir/file"
        status = await client.status(file)
        assert (status.mode, status.date, status.parent, status.links) == (0o600, 1234, root[1:], 1)
        assert (await client.status(root)).links == 3
        assert (await client.status(link)).mode == 0o777
        assert (await client.ask_code(calls.GetAttr(fid=gone)))[0] == Code.VNOVNODE
