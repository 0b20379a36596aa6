"""Three servers as processes on loopback addresses of their own, one of which is killed at its work."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import trio

from realmfs.rpc2.endpoint import Endpoint, udp_transport
from realmfs.rpc2.service import Address
from realmfs.server.check import check_store
from realmfs.server.database import StoreError
from realmfs.server.groupfile import GroupFile, store_directory
from realmfs.server.store import ServerStore
from realmfs.server.volumes import ROOT_VOLUME
from realmfs.vice.tokens import Token
from tests.group import GroupClient, contents_of
from tests.loopback import own_address

REALM = "processes.test"
EVERYBODY = (1, 2, 3)
PORT = 24350


class Processes:
    """Three servers of a realm on this machine."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self.places = {number: (own_address(number), PORT) for number in EVERYBODY}

    def start(self, number: int, *options: str) -> None:
        """Start a server, without waiting for it."""
        where = "{}:{}".format(*self.places[number])
        argv = ["serve", "--realm", REALM, "--data", str(self.directory), "--server", f"{number}/3"]
        log = (self.directory / f"{number}.log").open("ab")
        with closing(log):
            self.running[number] = subprocess.Popen(
                [sys.executable, "-m", "realmfs", *argv, "--address", where, "--auth-port", "0", *options],
                stdout=log, stderr=log,
            )  # fmt: skip

    def kill(self, number: int) -> None:
        """Kill a server without warning."""
        process = self.running.pop(number)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def describe(self) -> str:
        """Return what the servers said, and in what their replicas differ."""
        said = [
            f"--- server {number}\n{(self.directory / f'{number}.log').read_text()}" for number in EVERYBODY
        ]
        with ExitStack() as stores:
            try:
                found = [contents_of(stores.enter_context(self.store(number))) for number in EVERYBODY]
            except (StoreError, OSError, AssertionError) as error:
                return "\n".join([*said, f"a store cannot be read: {error}"])
        unequal = [
            f"{fid}: {[repr(one.get(fid))[:200] for one in found]}"
            for fid in sorted(set().union(*found))
            if not found[0].get(fid) == found[1].get(fid) == found[2].get(fid)
        ]
        return "\n".join([*said, f"on line: {self.online()}", *unequal[:20]])

    def stop(self) -> None:
        """Stop all that run."""
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            process.wait(20)
        self.running.clear()

    @property
    def group_id(self) -> int:
        """The id of the root volume."""
        with self.store(1) as store:
            found = store.locations.named(ROOT_VOLUME)
            assert found is not None
            return found.group_id

    def place(self, number: int) -> Address:
        """Return where a server takes clients."""
        return self.places[number]

    def token(self, user: int) -> Token:
        """Nobody logs in here."""
        raise NotImplementedError

    def store(self, number: int) -> ServerStore:
        """Open the store of a server that may be running."""
        return ServerStore.open(store_directory(self.directory, number), lock=False)

    def online(self) -> bool:
        """Whether all have their replica of the root volume on line."""
        return all(self._is_online(number) for number in EVERYBODY)

    def _is_online(self, number: int) -> bool:
        announced = f"as server {number} of 3" in (self.directory / f"{number}.log").read_text()
        if not announced or not (store_directory(self.directory, number) / "store.db").exists():
            return False
        try:
            opened = self.store(number)
        except StoreError:  # it is just being made
            return False
        with opened as store:
            volume = store.volumes.named(ROOT_VOLUME)
            return volume is not None and not volume.filling

    def equal(self) -> bool:
        """Whether all replicas are equal."""
        with ExitStack() as stores:
            opened = [stores.enter_context(self.store(number)) for number in EVERYBODY]
            try:
                found = [contents_of(store) for store in opened]
            except FileNotFoundError:  # a container was replaced between two looks
                return False
            return found[0] == found[1] == found[2]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    made = Processes(tmp_path)
    for number in EVERYBODY:
        made.start(number, "--anyuser", "rlidwka")
    try:
        yield made
    finally:
        made.stop()


async def within(seconds: float, processes: Processes, true: Callable[[], bool]) -> float:
    """Wait until something is true that has no event; return for how long."""
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < seconds, processes.describe()
        await trio.sleep(0.1)
    return time.monotonic() - start


async def test_a_server_killed_while_it_writes_comes_back_equal(processes: Processes) -> None:
    """kill -9 in the middle of many updates; the others go on; an empty disk is filled."""
    print(f"on line after {await within(30, processes, processes.online):.1f} s")
    async with trio.open_nursery() as nursery:
        ann = GroupClient(processes, Endpoint(await udp_transport(("127.0.0.1", 0))))
        await nursery.start(ann.endpoint.run)
        await ann.new_file(b"before", b"data", EVERYBODY)

        async def write(count: int, at: tuple[int, ...]) -> None:
            for number in itertools.count() if count < 0 else range(count):
                await ann.new_file(b"%d-%d" % (len(at), number), os.urandom(20_000), at)

        with trio.move_on_after(0.7) as scope:
            await write(-1, (1, 2))
        assert scope.cancelled_caught
        writer = GroupClient(processes, Endpoint(await udp_transport(("127.0.0.1", 0))))
        await nursery.start(writer.endpoint.run)
        nursery.start_soon(_write_until_dead, writer)
        await trio.sleep(0.5)
        processes.kill(3)
        last = await ann.new_file(b"while 3 is down", b"x" * 100_000, (1, 2))
        processes.start(3)
        seconds = await within(30, processes, processes.equal)
        print(f"equal {seconds:.1f} s after the start")

        processes.kill(2)
        store_directory(processes.directory, 2).rename(processes.directory / "lost")
        processes.start(2)
        seconds = await within(30, processes, lambda: processes.online() and processes.equal())
        print(f"filled {seconds:.1f} s after the start")
        await ann.connect(2)
        assert await ann.fetch_at(2, last) == b"x" * 100_000
        nursery.cancel_scope.cancel()
    processes.stop()
    for number in EVERYBODY:
        with processes.store(number) as store:
            assert check_store(store, contents=True) == []
    found = GroupFile.read(processes.directory)
    assert found is not None
    assert found.founded


async def _write_until_dead(client: GroupClient) -> None:
    """Write at server 3 alone until it is gone."""
    with trio.CancelScope() as scope:
        for number in itertools.count():
            try:
                await client.new_file(b"alone %d" % number, os.urandom(20_000), (3,))
            except Exception:  # whatever it breaks off with
                scope.cancel()
