"""Servers of a group that die in the middle: of an update, of a resolution, of being filled."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import trio

from realmfs.rpc2.errors import RpcError
from realmfs.vice.errors import CodaError
from tests.fakenet import Address
from tests.group import GroupClient, Servers, address, group

EVERYBODY = (1, 2, 3)
Clock = trio.abc.Clock


class Fuse:
    """Kills a server at the n-th datagram that it sends to, or gets from, another server."""

    def __init__(self, servers: Servers, victim: int, count: int) -> None:
        self._servers = servers
        self._victim = victim
        self._left = count
        self.blown = False
        servers.net.tap = self.see

    def see(self, datagram: bytes, sender: Address, receiver: Address) -> bool:
        """Count; when the time has come nothing of the victim gets out any more."""
        hosts = {sender[0], receiver[0]}
        if address(self._victim) in hosts and all(host.startswith("10.0.0.") for host in hosts):
            self._left -= 1
            if self._left <= 0 and not self.blown:
                self.blown = True
                self._servers.kill_now(self._victim)
        return not (self.blown and address(self._victim) in hosts)

    async def renew(self, nursery: trio.Nursery) -> None:
        """Start the victim again, on what it had on its disk."""
        self._servers.net.tap = None
        await self._servers.stop(self._victim)
        await self._servers.start(self._victim, nursery)


async def diverge(servers: Servers, ann: GroupClient) -> None:
    """Leave three different replicas of some things."""
    kept = await ann.new_file(b"kept", b"old", EVERYBODY)
    home = await ann.new_directory(b"home", EVERYBODY)
    moved = await ann.new_file(b"moved", b"m" * 9000, EVERYBODY)
    await ann.write(kept, b"n" * 20_000, (1,))
    await ann.update([ann.rename((ann.root, b"moved"), (home, b"here"), moved)], (2,))
    await ann.new_file(b"three", b"3" * 5000, (3,))
    below = await ann.new_directory(b"below", (2, 3), home)
    await ann.new_file(b"deep", b"d" * 5000, (3,), below)


@pytest.mark.parametrize("count", [1, 5, 12, 23, 38])
@pytest.mark.parametrize("victim", [1, 2])
async def test_a_server_dies_in_a_resolution(
    tmp_path: Path, autojump_clock: Clock, victim: int, count: int
) -> None:
    """Wherever it dies, coordinator or not: afterwards all come together, and nothing is lost."""
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        await diverge(servers, ann)
        fuse = Fuse(servers, victim, count)
        with contextlib.suppress(CodaError, RpcError), trio.move_on_after(60):
            await ann.resolve(1, ann.root)
        await fuse.renew(nursery)
        assert fuse.blown or count > 12
        await trio.sleep(120)
        await servers.settled()
        servers.assert_equal()
        assert servers.names(1) == [b"home", b"kept", b"three"]
        assert not servers.conflicts(1)


@pytest.mark.parametrize("count", [5, 60])
async def test_a_server_dies_while_it_is_filled(tmp_path: Path, autojump_clock: Clock, count: int) -> None:
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        for number in range(5):
            home = await ann.new_directory(b"dir%d" % number, EVERYBODY)
            await ann.new_file(b"file", b"data" * 2000, EVERYBODY, home)
        await servers.stop(3)
        servers.lose_disk(3)
        fuse = Fuse(servers, 3, count)
        await servers.start(3, nursery)
        await trio.sleep(60)
        await fuse.renew(nursery)
        assert fuse.blown or count > 12
        await trio.sleep(120)
        await servers.settled()
        servers.assert_equal()


@pytest.mark.parametrize("victim", EVERYBODY)
async def test_an_update_that_one_server_did_not_survive(
    tmp_path: Path, autojump_clock: Clock, victim: int
) -> None:
    """Killed between commit and answer, or before: the group ends with one outcome."""
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        others = tuple(number for number in EVERYBODY if number != victim)
        fid = await ann.new_file(b"name", b"old", EVERYBODY)
        ann.data[fid] = b"new"
        record = ann.store(fid, 3)
        await ann.update([record], (victim,), cop2=False)
        await servers.stop(victim)
        await ann.update([record], others, cop2=False)
        await servers.start(victim, nursery)
        await trio.sleep(120)
        await servers.settled()
        servers.assert_equal()
        assert servers.data(victim, fid) == b"new"
        assert not servers.conflicts(victim)
