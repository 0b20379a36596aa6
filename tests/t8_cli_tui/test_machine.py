"""Sleep and networks: what the machine tells, on a bus with a made-up logind and in a network of its own."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from jeepney import HeaderFields, message_bus, new_method_return
from jeepney.io.trio import open_dbus_connection

from realmfs.host import sleep
from realmfs.host.conditions import Conditions
from realmfs.host.sleep import SleepWatch, seconds_asleep, watch_clocks
from tests.logind import bus


async def test_the_machine_sleeps_only_after_leave_was_taken(tmp_path: Path) -> None:
    said: list[str] = []
    release = trio.Event()

    async def fall_asleep() -> None:
        said.append("asleep")
        await release.wait()

    async with bus(tmp_path) as (address, logind), trio.open_nursery() as nursery:
        nursery.start_soon(SleepWatch(fall_asleep, lambda: said.append("awake"), address).run)
        for number in (1, 2):
            lock = await logind.lock_taken(number)
            release = trio.Event()
            await logind.tell(about_to_sleep=True)
            while len(said) < 2 * number - 1:  # noqa: ASYNC110  # the other side of a real socket
                await trio.sleep(0.01)
            with trio.move_on_after(0.05) as waiting:
                await lock.receive_some(1)
            assert waiting.cancelled_caught, "the lock was given back before leave was taken"
            release.set()
            assert await lock.receive_some(1) == b""
            await logind.tell(about_to_sleep=False)
        await logind.lock_taken(3)
        assert said == ["asleep", "awake"] * 2
        nursery.cancel_scope.cancel()


async def test_a_bus_that_is_lost_ends_the_sleep_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sleep, "AGAIN", 0.01)
    awake = trio.Event()

    async def fall_asleep() -> None:
        await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        async with bus(tmp_path) as (address, logind):
            watch = SleepWatch(fall_asleep, awake.set, address)
            nursery.start_soon(watch.run)
            await logind.lock_taken(1)
            await logind.tell(about_to_sleep=True)
        with trio.fail_after(5):
            await awake.wait()


async def test_without_a_bus_the_watch_ends_with_a_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def fall_asleep() -> None:
        raise AssertionError

    with caplog.at_level("INFO"):
        await SleepWatch(fall_asleep, lambda: None, f"unix:path={tmp_path / 'nothing'}").run()
    assert "sleep of the machine is not noticed" in caplog.text


NETWORK = """
import subprocess, trio
from realmfs.host import network
async def main():
    changed = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(network.watch, changed.set)
        await trio.sleep(0.2)
        assert not changed.is_set()
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        with trio.fail_after(5):
            await changed.wait()
        nursery.cancel_scope.cancel()
    print("noticed")
trio.run(main)
"""


def test_a_change_of_the_network_is_noticed() -> None:
    made = subprocess.run(["unshare", "-n", "true"], check=False, capture_output=True)
    if made.returncode or shutil.which("ip") is None:
        pytest.skip("needs a network namespace and ip")
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-c", NETWORK], check=True, capture_output=True, text=True
    )
    assert done.stdout == "noticed\n"


async def test_the_clocks_tell_of_a_sleep_that_nobody_else_tells_of(autojump_clock: trio.abc.Clock) -> None:
    slept, woken = [7.0], list[float]()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_clocks, lambda: woken.append(trio.current_time()), lambda: slept[0])
        await trio.sleep(100)
        assert not woken, "it has slept before we came"
        for number in (1, 2):
            start = trio.current_time()
            slept[0] += 3600
            await trio.sleep(100)
            assert len(woken) == number
            assert woken[-1] - start <= sleep.LOOK
        slept[0] += 0.1
        await trio.sleep(100)
        assert len(woken) == 2
        nursery.cancel_scope.cancel()


def test_the_clocks_of_this_machine_agree() -> None:
    assert abs(seconds_asleep() - seconds_asleep()) < 1


async def test_a_bus_without_a_network_manager_is_no_hindrance(tmp_path: Path) -> None:
    """As on machines that have another one: the answer is an error."""
    async with bus(tmp_path) as (address, _):
        conditions = Conditions(address, tmp_path)
        await conditions.look()
        assert conditions.hindrance() == ""
    await conditions.look()
    assert conditions.hindrance() == ""


@pytest.mark.parametrize(("value", "metered"), [(0, False), (1, True), (2, False), (3, True), (4, False)])
async def test_a_metered_connection_is_a_hindrance(tmp_path: Path, value: int, metered: bool) -> None:
    async with bus(tmp_path) as (address, _), trio.open_nursery() as nursery:
        manager = await open_dbus_connection(address)
        async with manager.router() as router:
            await router.send_and_get_reply(message_bus.RequestName("org.freedesktop.NetworkManager"))

        async def serve() -> None:
            while True:
                message = await manager.receive()
                if message.header.fields.get(HeaderFields.member) == "Get":
                    assert message.body == ("org.freedesktop.NetworkManager", "Metered")
                    await manager.send(new_method_return(message, "v", (("u", value),)))

        nursery.start_soon(serve)
        conditions = Conditions(address, tmp_path)
        await conditions.look()
        assert conditions.hindrance() == ("the network connection is metered" if metered else "")
        nursery.cancel_scope.cancel()
    manager.socket.close()
