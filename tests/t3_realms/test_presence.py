"""Off line by hand or asleep: servers are told at once, nothing is sent, one realm touches no other."""

from pathlib import Path

import pytest
import trio

from realmfs.realms.memory import Memory
from realmfs.realms.presence import EVERYWHERE
from realmfs.realms.server import State
from realmfs.realms.types import ANYUSER
from realmfs.vice.calls import TokenExpired
from realmfs.vice.errors import CodaError, Code
from tests.t3_realms.vicepeer import FILE
from tests.t3_realms.world import HOSTS, World


async def off_line(servers: World) -> None:
    group = await servers.group()
    with pytest.raises(CodaError) as caught:
        await group.get_attr(FILE, ANYUSER)
    assert caught.value.code is Code.ETIMEDOUT


async def test_one_realm_is_taken_off_line_and_the_others_go_on(servers: World, tmp_path: Path) -> None:
    with (tmp_path / "realms").open("a") as file:
        file.write(f"other.test {HOSTS[1]}:2432\n")
    await (await servers.group()).get_attr(FILE, ANYUSER)
    other = await servers.realms.realm("other.test")
    (there,) = other.root_servers
    assert await there.reach()
    await servers.realms.disconnect("R.test")
    await off_line(servers)
    assert there.state is State.UP
    assert servers.realms.presence.why("r.test") == "disconnected by hand"
    assert servers.realms.presence.why("other.test") == ""
    await trio.sleep(600)
    await off_line(servers)
    await servers.realms.reconnect("r.test")
    await trio.sleep(1)
    assert (await (await servers.group()).get_attr(FILE, ANYUSER)).promised


async def test_leave_is_taken_within_a_second_even_if_a_server_is_silent(servers: World) -> None:
    await (await servers.group()).get_attr(FILE, ANYUSER)
    servers.net.partition(HOSTS[0])
    started = trio.current_time()
    await servers.realms.disconnect()
    assert trio.current_time() - started <= 1.01
    assert [bool(peer.asked(TokenExpired)) for peer in servers.peers] == [False, True, True]


async def test_a_sleeping_machine_is_off_line_until_it_wakes(servers: World) -> None:
    await (await servers.group()).get_attr(FILE, ANYUSER)
    await servers.realms.fall_asleep()
    assert all(peer.asked(TokenExpired) for peer in servers.peers)
    await off_line(servers)
    servers.realms.wake_up()
    await trio.sleep(1)
    assert (await (await servers.group()).get_attr(FILE, ANYUSER)).promised


async def test_waking_up_does_not_undo_what_was_done_by_hand(servers: World) -> None:
    await (await servers.group()).get_attr(FILE, ANYUSER)
    await servers.realms.disconnect()
    await servers.realms.fall_asleep()
    servers.realms.wake_up()
    await trio.sleep(60)
    await off_line(servers)


async def test_nobody_is_looked_up_off_line(servers: World) -> None:
    await servers.realms.disconnect()
    with pytest.raises(CodaError) as caught:
        await servers.realms.realm("elsewhere.test")
    assert caught.value.code is Code.ETIMEDOUT


async def test_asking_all_servers_by_hand_does_not_take_them_on_line(servers: World) -> None:
    await (await servers.group()).get_attr(FILE, ANYUSER)
    await servers.realms.disconnect()
    await servers.realms.check()
    await off_line(servers)


async def test_it_is_remembered_over_a_restart(tmp_path: Path) -> None:
    first = Memory(tmp_path)
    first.off.update({"r.test", EVERYWHERE})
    first.touch()
    await first.save()
    assert Memory(tmp_path).off == {"r.test", EVERYWHERE}
