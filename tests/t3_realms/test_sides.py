"""Servers with two networks: a client in either of them works, whichever address it is told."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from realmfs.realms.realm import Realm
from realmfs.realms.types import ANYUSER
from realmfs.vice import calls as vice
from realmfs.vice.errors import Code
from tests.t3_realms.vicepeer import FILE, ROOT, VOLUME, VicePeer, replicated
from tests.t3_realms.world import HOSTS, World, world

OTHERS = ("10.1.0.1", "10.1.0.2", "10.1.0.3")
"""The same servers in the other network: what they tell of themselves."""


def attributes(peer: VicePeer, request: vice.GetAttr) -> Any:
    """Answer as a server does that has one replica: the others' ids are nothing to it."""
    slot = (request.fid.volume >> 24) - 1
    if slot < len(HOSTS):
        if slot != peer.slot:
            return Code.VNOVOL
        assert request.fid.volume == (slot + 1) << 24 | 1
        return Code.SUCCESS, vice.GetAttr.Reply(status=peer._status(ROOT), sha=b"")
    return peer.do_get_attr(request)


@asynccontextmanager
async def two_networks(tmp_path: Path, *named: str) -> AsyncIterator[World]:
    """Run servers at HOSTS and OTHERS, told as OTHERS, named to the client as `named`."""
    async with world(tmp_path) as made:
        (tmp_path / "realms").write_text(f"r.test {' '.join(named)}\n")
        for slot, other in enumerate(OTHERS):
            peer = await made.start_peer(other, slot, made.peers[slot])
            made.peers.append(peer)
        told = replicated(VOLUME, *OTHERS)
        told["/"] = told[f"v{VOLUME:x}"]
        for peer in made.peers:
            peer.volumes = dict(told)
            peer.on[vice.GetAttr] = partial(attributes, peer)
        yield made


def away(servers: World, *hosts: str) -> None:
    for host in hosts:
        servers.net.partition(host)


def hosts_of(realm: Realm) -> tuple[str, ...]:
    (volume,) = realm.known_volumes()
    return tuple(replica.server.address[0] for replica in volume.replicas)


async def test_told_addresses_out_of_reach(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with two_networks(tmp_path, *HOSTS) as servers:
        away(servers, *OTHERS)
        start = trio.current_time()
        group = await servers.group()
        assert (await group.get_attr(FILE, ANYUSER)).promised
        assert trio.current_time() - start < 5
        assert hosts_of(await servers.realm()) == HOSTS
        start = trio.current_time()
        for _ in range(10):
            await group.get_attr(FILE, ANYUSER)
        assert trio.current_time() - start < 1
        # No address that fails is gone back to, however often the location is asked for again.
        await trio.sleep(700)
        await servers.volume()
        await trio.sleep(10)
        assert hosts_of(await servers.realm()) == HOSTS


async def test_told_addresses_within_reach_are_taken(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with two_networks(tmp_path, *HOSTS) as servers:
        group = await servers.group()
        assert (await group.get_attr(FILE, ANYUSER)).promised
        assert hosts_of(await servers.realm()) == OTHERS


async def test_one_server_is_within_reach_on_the_other_side_only(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with two_networks(tmp_path, *HOSTS) as servers:
        away(servers, OTHERS[1])
        group = await servers.group()
        assert (await group.get_attr(FILE, ANYUSER)).promised
        assert hosts_of(await servers.realm()) == (OTHERS[0], HOSTS[1], OTHERS[2])


@pytest.mark.parametrize("first", [HOSTS, OTHERS])
async def test_a_client_changes_sides(
    tmp_path: Path, autojump_clock: trio.abc.Clock, first: tuple[str, ...]
) -> None:
    second = OTHERS if first is HOSTS else HOSTS
    async with two_networks(tmp_path, *HOSTS, *OTHERS) as servers:
        away(servers, *second)
        volume = await servers.volume()
        assert (await volume.group.get_attr(FILE, ANYUSER)).promised
        assert hosts_of(await servers.realm()) == first
        servers.net.heal()
        away(servers, *first)
        servers.realms.network_changed()
        await trio.sleep(20)
        assert hosts_of(await servers.realm()) == second
        assert (await volume.group.get_attr(FILE, ANYUSER)).promised


async def test_a_dead_server_is_not_taken_for_another(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with two_networks(tmp_path, *HOSTS) as servers:
        away(servers, HOSTS[1], OTHERS[1])
        group = await servers.group()
        assert (await group.get_attr(FILE, ANYUSER)).promised
        assert group.slots_up == (0, 2)
        assert hosts_of(await servers.realm())[1] == OTHERS[1]
