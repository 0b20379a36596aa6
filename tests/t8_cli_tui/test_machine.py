"""Sleep and networks: what the machine tells, on a bus with a made-up logind and in a network of its own."""

import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from jeepney import DBusAddress, HeaderFields, Message, message_bus, new_method_return, new_signal
from jeepney.io.trio import DBusConnection, open_dbus_connection

from realmfs.host import sleep
from realmfs.host.sleep import SleepWatch

LOGIND = DBusAddress(
    "/org/freedesktop/login1", "org.freedesktop.login1", interface="org.freedesktop.login1.Manager"
)
BUS = """<busconfig><type>session</type><listen>unix:path={path}</listen><policy context="default">
<allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>"""


class Pretended:
    """A logind that nobody else has: gives out locks, and waits for them before it sleeps."""

    def __init__(self, connection: DBusConnection) -> None:
        self.connection = connection
        self.locks: list[trio.SocketStream] = []
        self.changed = trio.Condition()

    async def serve(self) -> None:
        while True:
            message = await self.connection.receive()
            if message.header.fields.get(HeaderFields.member) == "Inhibit":
                assert message.body[0] == "sleep"
                assert message.body[3] == "delay"
                ours, theirs = trio.socket.socketpair()
                with theirs:
                    await self.connection.send(new_method_return(message, "h", (theirs.fileno(),)))
                self.locks.append(trio.SocketStream(ours))

    async def tell(self, about_to_sleep: bool) -> None:
        signal: Message = new_signal(LOGIND, "PrepareForSleep", "b", (about_to_sleep,))
        await self.connection.send(signal)

    async def lock_taken(self, number: int) -> trio.SocketStream:
        while len(self.locks) < number:  # noqa: ASYNC110  # the other side of a real socket
            await trio.sleep(0.01)
        return self.locks[number - 1]


@asynccontextmanager
async def bus(tmp_path: Path) -> AsyncIterator[tuple[str, Pretended]]:
    if shutil.which("dbus-daemon") is None:
        pytest.skip("needs dbus-daemon")
    (tmp_path / "bus.conf").write_text(BUS.format(path=tmp_path / "bus"))
    command = ["dbus-daemon", f"--config-file={tmp_path / 'bus.conf'}", "--nofork"]
    with subprocess.Popen(command) as process:  # noqa: ASYNC220  # starting it takes no time
        try:
            with trio.fail_after(10):
                while not (tmp_path / "bus").exists():  # noqa: ASYNC110  # another process
                    await trio.sleep(0.01)
                address = f"unix:path={tmp_path / 'bus'}"
                connection = await open_dbus_connection(address, enable_fds=True)
                async with connection.router() as router:
                    await router.send_and_get_reply(message_bus.RequestName(LOGIND.bus_name))
                async with trio.open_nursery() as nursery:
                    pretended = Pretended(connection)
                    nursery.start_soon(pretended.serve)
                    yield address, pretended
                    nursery.cancel_scope.cancel()
                connection.socket.close()
                for lock in pretended.locks:
                    await lock.aclose()
        finally:
            process.terminate()


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
