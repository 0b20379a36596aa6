"""Real `kill -9` of the daemon of a real mount, at a random moment under load, again and again.

Two writers make, write, rewrite, rename and remove through the kernel and note what was acknowledged. The
daemon is killed, started again on its cache, and asked for everything; meanwhile its server may have been
stopped, so that nothing of it can be anywhere but in the log. In the end a new, empty cache asks the server.
`make test` kills five times, `make soak` twenty.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from realmfs.cli.stage import Program
from realmfs.control.client import Client
from realmfs.fuse import mounts
from tests.loopback import own_address
from tests.seeds import first_seed

pytestmark = pytest.mark.kernel

REALM = "kills.test"
HOST = own_address()
PORT = 24410
KILLS = 20 if os.environ.get("REALMFS_SLOW") else 5
GONE = {errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.EINTR}
"""What a call gets whose daemon has just died."""


class Node:
    """A mounted daemon that can be killed, and started again on the same cache or on a new one."""

    def __init__(self, room: Path, realms: Path) -> None:
        self.room = room
        self.realms = realms
        self.top = room / "coda"
        self.top.mkdir(parents=True)
        self.lives = 0
        self.program: Program | None = None

    def start(self, cache: str = "cache") -> None:
        """Mount."""
        self.lives += 1
        room = self.room
        argv = [
            "mount",
            str(self.top),
            "--foreground",
            "--socket",
            str(room / "s"),
            "--realms",
            str(self.realms),
        ]
        argv += ["--cache-dir", str(room / cache), "--state-dir", str(room / "state")]
        self.program = Program(room / f"log{self.lives}", *argv)
        self.program.wait_for("mounted on", "the client")

    def kill(self) -> None:
        """Kill it at whatever it does."""
        assert self.program is not None
        self.program.process.send_signal(signal.SIGKILL)
        self.program.process.wait(10)

    def stop(self) -> None:
        """Stop it in order; unmount what is left."""
        if self.program is not None:
            self.program.end()
        with contextlib.suppress(OSError):
            mount = mounts.find(self.top)
            if mount is not None:
                mounts.abort(mount.minor)
        subprocess.run(["fusermount3", "-uz", str(self.top)], check=False, capture_output=True)

    def pending(self) -> int:
        """Return how many records wait."""
        with Client(self.room / "s") as client:
            return int(client.call("daemon.status")["pending"])


class Writer:
    """Works in one directory until the daemon dies; knows what was acknowledged and what is in doubt."""

    def __init__(self, top: Path, seed: int) -> None:
        self.top = top
        self.rng = random.Random(seed)
        self.files: dict[str, bytes] = {}
        self.doubt: dict[str, list[bytes | None]] = {}
        """Names whose state nobody knows: what they may hold, None for nothing."""
        self.done = 0
        self.trouble: BaseException | None = None
        self._count = 0

    def work(self) -> None:
        """Change things until a call says that nobody serves it any more."""
        try:
            while True:
                self.doubt = {}
                self._change()
                self.done += 1
        except OSError as error:
            if error.errno not in GONE:
                self.trouble = error
        except BaseException as error:  # to be raised in the test
            self.trouble = error

    def _change(self) -> None:
        kinds: list[Callable[[], None]] = [self._create]
        if self.files:
            kinds += [self._rewrite, self._rename, self._remove]
        self.rng.choice(kinds)()

    def _new_name(self) -> str:
        self._count += 1
        return f"f{self._count}"

    def _data(self) -> bytes:
        return self.rng.randbytes(self.rng.choice([0, 10, 3000, 70_000, 300_000]))

    def _write(self, name: str, data: bytes) -> None:
        descriptor = os.open(self.top / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            for start in range(0, len(data), 65536):
                os.write(descriptor, data[start : start + 65536])
        finally:
            os.close(descriptor)

    def _create(self) -> None:
        name, data = self._new_name(), self._data()
        self.doubt = {name: [None, b"", data]}
        self._write(name, data)
        self.files[name] = data

    def _rewrite(self) -> None:
        name, data = self.rng.choice(sorted(self.files)), self._data()
        self.doubt = {name: [self.files[name], b"", data]}
        self._write(name, data)
        self.files[name] = data

    def _rename(self) -> None:
        old = self.rng.choice(sorted(self.files))
        new = self._new_name() if self.rng.random() < 0.5 else self.rng.choice(sorted(self.files))
        if old == new:
            return
        data = self.files[old]
        self.doubt = {old: [data, None], new: [self.files.get(new), data]}
        (self.top / old).rename(self.top / new)
        del self.files[old]
        self.files[new] = data

    def _remove(self) -> None:
        name = self.rng.choice(sorted(self.files))
        self.doubt = {name: [self.files[name], None]}
        (self.top / name).unlink()
        del self.files[name]

    def check(self) -> None:
        """Compare with what there is; what was in doubt is from now on what there is."""
        there = {path.name: path.read_bytes() for path in self.top.iterdir()}
        for name, allowed in self.doubt.items():
            found = there.get(name)
            assert found in allowed, f"{name} has neither its old contents nor its new ones"
            if found is None:
                self.files.pop(name, None)
            else:
                self.files[name] = found
        self.doubt = {}
        lost = {name for name, data in self.files.items() if there.get(name) != data}
        assert not lost, f"acknowledged, and not there: {sorted(lost)}"
        assert there.keys() == self.files.keys(), f"too many: {sorted(there.keys() - self.files)}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Program]:
    argv = ["serve", "--realm", REALM, "--data", str(tmp_path / "server"), "--address", f"{HOST}:{PORT}"]
    program = Program(tmp_path / "server.log", *argv, "--anyuser", "rlidwk")
    program.wait_for("serving", "the server")
    yield program
    program.process.send_signal(signal.SIGCONT)
    program.end()


@pytest.mark.timeout(600)
def test_what_was_acknowledged_survives_real_kills(tmp_path: Path, server: Program) -> None:
    seed = first_seed()
    rng = random.Random(seed)
    realms = tmp_path / "realms"
    realms.write_text(f"{REALM} {HOST}:{PORT}\n")
    node = Node(tmp_path / "node", realms)
    try:
        node.start()
        writers = [Writer(node.top / REALM / f"w{number}", seed + number) for number in range(2)]
        for writer in writers:
            writer.top.mkdir()
        for _ in range(KILLS):
            _load_and_kill(node, server, writers, rng)
            node.start()
            for writer in writers:
                writer.check()
        _wait_until_sent(node)
        node.stop()
        shutil.rmtree(tmp_path / "node" / "state", ignore_errors=True)
        node.start("another")
        for writer in writers:
            writer.check()
        print(f"{KILLS} kills, {sum(writer.done for writer in writers)} changes")
        assert sum(writer.done for writer in writers) > 10 * KILLS
    finally:
        server.process.send_signal(signal.SIGCONT)
        node.stop()


def _load_and_kill(node: Node, server: Program, writers: list[Writer], rng: random.Random) -> None:
    threads = [threading.Thread(target=writer.work, daemon=True) for writer in writers]
    for thread in threads:
        thread.start()
    time.sleep(rng.random() * 0.4)
    if rng.random() < 0.5:
        server.process.send_signal(signal.SIGSTOP)
    time.sleep(rng.random() * 0.8)
    node.kill()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "a call hangs although its daemon is dead"
    server.process.send_signal(signal.SIGCONT)
    for writer in writers:
        if writer.trouble is not None:
            raise writer.trouble


def _wait_until_sent(node: Node) -> None:
    limit = time.monotonic() + 60
    while node.pending():
        assert time.monotonic() < limit, "the log does not drain"
        time.sleep(0.05)
