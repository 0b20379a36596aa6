"""The programs of the demonstration: an embedded realm and its clients, each a process of its own.

All of them live in one temporary directory and die with us: the kernel ends them should we be killed. `close`
takes everything down whatever state it is in, within a bounded time.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from realmfs.control.client import Client, NoDaemonError
from realmfs.control.protocol import ControlError
from realmfs.fuse import mounts
from realmfs.server.certificates import DIRECTORY as CERTIFICATES
from realmfs.server.certificates import Certificates
from realmfs.server.groupfile import store_directory
from realmfs.server.protection import password_key
from realmfs.server.store import ServerStore
from realmfs.server.volumes import ROOT_VOLUME
from realmfs.vice.directory import Directory

REALM = "demo.realmfs"
SERVERS = 3
_STARTS_WITHIN = 60.0
_ENDS_WITHIN = 8.0
_PR_SET_PDEATHSIG = 1
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)


class StageError(Exception):
    """A program of the demonstration did not do its part."""


def _prepare_child() -> None:
    """Run in the child before the program: have the kernel end it when we end, and let it hear signals."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold signals back, so that a process that was started is also known to whom it concerns."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


class Program:
    """A running realmfs command with its log."""

    def __init__(self, log: Path, *argv: str) -> None:
        """Start `realmfs ARGV`, output and errors going to `log`."""
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "realmfs", *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us, who end it in order
                preexec_fn=_prepare_child,  # noqa: PLW1509  # we have no threads
            )

    def wait_for(self, words: str, what: str) -> None:
        """Wait until the log holds `words`. Raises StageError with the end of the log."""
        limit = time.monotonic() + _STARTS_WITHIN
        while words not in (text := self.log.read_text(errors="replace")):
            if self.process.poll() is not None or time.monotonic() > limit:
                raise StageError(f"{what} did not start:\n{text[-2000:].strip()}")
            time.sleep(0.02)

    def end(self) -> None:
        """End it politely, then not."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_ENDS_WITHIN)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Player:
    """One client: a daemon with its own cache, mounted if `kernel`."""

    def __init__(self, room: Path, realms: Path, *options: str, kernel: bool) -> None:
        """Start it, with more options of `mount`; its files are below `room`."""
        room.mkdir()
        self.mount_point = room / "coda" if kernel else None
        if self.mount_point is not None:
            self.mount_point.mkdir()
        self._socket = room / "s"
        argv = ["mount", str(self.mount_point)] if kernel else ["mount", "--no-kernel"]
        argv += ["--foreground", "--socket", str(self._socket), "--realms", str(realms)]
        argv += ["--cache-dir", str(room / "cache"), "--state-dir", str(room / "state")]
        self.program = Program(room / "log", *argv, *options)

    def wait(self) -> None:
        """Wait until it serves. Raises StageError."""
        self.program.wait_for("mounted on" if self.mount_point else "without a mount", "the client")

    def client(self) -> Client:
        """Return a connection to its control socket."""
        return Client(self._socket)

    def pending(self) -> int:
        """Return how many changes it still has to send."""
        with self.client() as client:
            return int(client.call("daemon.status")["pending"])

    def end(self) -> None:
        """End it; a mount that stays behind is cut off and detached."""
        with contextlib.suppress(NoDaemonError, ControlError), self.client() as client:
            client.call("daemon.stop", force=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.program.process.wait(_ENDS_WITHIN)
        mount = mounts.find(self.mount_point) if self.mount_point is not None else None
        if mount is not None:
            mounts.abort(mount.minor)
            subprocess.run(
                ["fusermount3", "-u", "-z", "--", str(mount.directory)],
                check=False,
                capture_output=True,
                timeout=10,
            )
        self.program.end()


class Stage:
    """The temporary directory, the server and the clients."""

    def __init__(self) -> None:
        """Make the directory; nothing runs yet."""
        self.room = Path(tempfile.mkdtemp(prefix="realmfs-demo-"))
        self.realms = self.room / "realms"
        self.authorities = self.room / "ca"
        """Where a client finds who vouches for the realm."""
        self._programs: list[Program] = []
        self._players: list[Player] = []
        self._servers: dict[int, Program] = {}
        self._addresses: list[str] = []

    def serve(self, tree: Path) -> list[str]:
        """Start an embedded realm of SERVERS servers, filled with `tree`; returns their addresses."""
        self._addresses = _free_addresses(SERVERS)
        self.realms.write_text(f"{REALM} {' '.join(self._addresses)}\n")
        self._certify()
        self.start_server(1, "--import", str(tree), "--anyuser", "rlidwk")
        for number in range(2, SERVERS + 1):
            self.start_server(number)
        return self._addresses

    def _certify(self) -> None:
        """Make one certificate for all servers, and give its authority to who wants it."""
        homes = [
            store_directory(self.room / "realm", number) / CERTIFICATES for number in range(1, SERVERS + 1)
        ]
        certificates = Certificates(homes[0])
        certificates.make(REALM, [address.partition(":")[0] for address in self._addresses])
        for home in homes[1:]:
            shutil.copytree(homes[0], home)
        self.authorities.mkdir()
        shutil.copy(certificates.authority, self.authorities / f"{REALM}.pem")

    def start_server(self, number: int, *options: str) -> None:
        """Start a server, and wait until it serves."""
        argv = ["serve", "-v", "--realm", REALM, "--data", str(self.room / "realm")]
        argv += ["--server", f"{number}/{SERVERS}", "--address", self._addresses[number - 1], *options]
        with _undisturbed():
            program = Program(self.room / f"server-{number}.{len(self._programs)}.log", *argv)
            self._programs.append(program)
            self._servers[number] = program
        program.wait_for("serving", f"server {number}")

    def kill_server(self, number: int) -> None:
        """Kill a server without warning."""
        program = self._servers.pop(number)
        program.process.kill()
        program.process.wait()

    def holds(self, number: int, name: str, length: int) -> bool:
        """Whether a server's own replica has a file of this name (in some directory) and length."""
        with ServerStore.open(store_directory(self.room / "realm", number), lock=False) as store:
            root = store.volumes.named(ROOT_VOLUME)
            vnodes = store.vnodes.all(root.id) if root is not None else []
            nodes = {vnode.fid[1:] for vnode in vnodes if vnode.length == length and vnode.container}
            directories = (Directory.parse(store.vnodes.image(one.fid)) for one in vnodes if one.is_directory)
            return any(directory.lookup(name.encode()) in nodes for directory in directories)

    def wait_until_filled(self) -> None:
        """Wait until the servers that had nothing to begin with have everything."""
        for number in range(2, SERVERS + 1):
            self._servers[number].wait_for("is complete and on line", f"the replica at server {number}")

    def add_user(self, name: str, password: str) -> int:
        """Let somebody log in to the realm, at whichever server; returns his number there."""
        with ServerStore.open(store_directory(self.room / "realm", 1), lock=False) as store:
            made = store.protection.add_user(name, password_key(password))
            store.database.sync()
        limit = time.monotonic() + _STARTS_WITHIN
        while not all(self._knows(number, name) for number in self._servers):
            if time.monotonic() > limit:
                raise StageError(f"not all servers have heard of {name}")
            time.sleep(0.05)
        return made

    def _knows(self, number: int, name: str) -> bool:
        with ServerStore.open(store_directory(self.room / "realm", number), lock=False) as store:
            return store.protection.id_of(name) is not None

    def enter(self, name: str, *options: str, kernel: bool) -> Player:
        """Start a client."""
        with _undisturbed():
            player = Player(self.room / name, self.realms, *options, kernel=kernel)
            self._players.append(player)
        player.wait()
        return player

    def logs(self) -> list[Path]:
        """Return the logs of all programs."""
        return [program.log for program in (*self._programs, *(player.program for player in self._players))]

    def close(self, *, keep: bool = False) -> None:
        """Take all down; `keep` leaves the files."""
        for player in reversed(self._players):
            player.end()
        for program in reversed(self._programs):
            program.end()
        if not keep:
            shutil.rmtree(self.room, ignore_errors=True)


def _free_addresses(count: int) -> list[str]:
    """Return loopback addresses of our own, each with a port that is free now."""
    hosts = [f"127.0.{number}.{os.getpid() % 200 + 20}" for number in range(1, count + 1)]
    found = []
    for host in hosts:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
            found.append(f"{host}:{probe.getsockname()[1]}")
    return found
