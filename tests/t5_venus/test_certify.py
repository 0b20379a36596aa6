"""What is kept from servers that would die of refusing it: rights, quota, stale versions (certify.py)."""

from dataclasses import replace
from pathlib import Path

import pytest
import trio

from realmfs.cache.log import State
from realmfs.realms.group import Group
from realmfs.realms.types import Attributes
from realmfs.realms.volumecalls import VolumeState
from realmfs.vice.calls import Reintegrate
from realmfs.vice.errors import Code
from realmfs.vice.types import Fid, Rights
from tests.t5_venus.world import REALM, until, world

ROOT = f"/{REALM}"


async def test_creations_wait_for_room_in_the_quota(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Group.volume_status
    room = 1

    async def nearly_full(self: Group, user: int) -> VolumeState:
        told = await ask(self, user)
        quota = told.status.blocks_in_use + room
        return replace(told, status=replace(told.status, max_quota=quota))

    monkeypatch.setattr(Group, "volume_status", nearly_full)
    async with world(tmp_path) as w:
        a = await w.client(own_servers=False)
        await a.ls(ROOT)
        await a.mkdir(f"{ROOT}/d")
        await trio.sleep(120)
        assert a.pending == 1
        assert not w.realm.calls[Reintegrate.OPCODE]
        (key,) = a.cache.log.volumes()
        assert a.venus.core.volumes.by_key(key).waiting_for == "room in the volume's quota"
        (entry,) = a.cache.log.entries(key)
        assert (entry.state, entry.reason) == (State.PENDING, Code.EDQUOT)
        room = 10_000
        await a.drained(300)


async def test_a_right_that_was_taken_is_noticed_before_servers_must_refuse(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Group.get_attr

    async def no_insert(self: Group, fid: Fid, user: int) -> Attributes:
        told = await ask(self, fid, user)
        rights = told.status.my_rights & ~Rights.INSERT
        return replace(told, status=replace(told.status, my_rights=rights))

    async with world(tmp_path) as w:
        a = await w.client(own_servers=False)
        await a.ls(ROOT)
        a.venus.reintegrator.policies.default.age = 3600.0
        await a.mkdir(f"{ROOT}/d")
        await trio.sleep(10)  # silence: the servers may have given the promise up
        monkeypatch.setattr(Group, "get_attr", no_insert)
        a.venus.reintegrator.policies.default.age = 0.0
        a.venus.reintegrator.wake_all()
        await trio.sleep(5)
        assert not w.realm.calls[Reintegrate.OPCODE]
        (entry,) = a.cache.log.entries(a.cache.log.volumes()[0])
        assert entry.reason == Code.EACCES


async def test_a_batch_of_unknown_outcome_is_compared_with_what_others_did(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(own_servers=False), await w.client()
        for name in "fg":
            await a.write(f"{ROOT}/{name}", b"common")
        await a.drained()
        await b.read(f"{ROOT}/g")
        w.net.tap = lambda datagram, sender, receiver: a.host not in (sender[0], receiver[0])
        await a.write(f"{ROOT}/f", b"by a")
        await a.write(f"{ROOT}/g", b"by a")
        await until(lambda: bool(a.cache.log.frozen(a.cache.log.volumes()[0])))
        await trio.sleep(60)
        await b.write(f"{ROOT}/g", b"by b")
        await b.drained()
        w.net.tap = None
        w.realm.counted()
        a.realms.network_changed()
        await until(lambda: a.pending == 1)
        assert w.realm.counted()[Reintegrate.OPCODE] == 1, "only what can be executed was sent"
        (entry,) = a.cache.log.entries(a.cache.log.volumes()[0])
        assert (entry.state, entry.reason) == (State.BLOCKED, Code.EINCOMPATIBLE)
        assert await b.read(f"{ROOT}/f") == b"by a"
