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
from realmfs.server.protection import password_key
from realmfs.server.store import ServerStore

REALM = "demo.realmfs"
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

    def serve(self, tree: Path) -> str:
        """Start an embedded realm filled with `tree`; returns its address."""
        address = _free_address()
        self.realms.write_text(f"{REALM} {address}\n")
        data = self.room / "server"
        certificates = Certificates(data / CERTIFICATES)
        certificates.make(REALM, [address.partition(":")[0]])
        self.authorities.mkdir()
        shutil.copy(certificates.authority, self.authorities / f"{REALM}.pem")
        argv = ["serve", "--realm", REALM, "--data", str(data)]
        argv += ["--address", address, "--import", str(tree), "--anyuser", "rlidwk"]
        with _undisturbed():
            server = Program(self.room / "server.log", *argv)
            self._programs.append(server)
        server.wait_for("serving", "the server")
        return address

    def add_user(self, name: str, password: str) -> int:
        """Let somebody log in to the realm; returns his number there."""
        with ServerStore.open(self.room / "server", lock=False) as store:
            made = store.protection.add_user(name, password_key(password))
            store.database.sync()
        return made

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


def _free_address() -> str:
    """Return a loopback address of our own with a port that is free now."""
    host = f"127.0.0.{os.getpid() % 200 + 20}"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:  # not everywhere is all of 127/8 ours
            host = "127.0.0.1"
            probe.bind((host, 0))
        return f"{host}:{probe.getsockname()[1]}"
