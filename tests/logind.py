"""A made-up logind on a bus of its own: tells of sleep, and waits for those who delay it."""

import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from jeepney import DBusAddress, HeaderFields, Message, message_bus, new_method_return, new_signal
from jeepney.io.trio import DBusConnection, open_dbus_connection

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
