"""realmfs programs on the rig's bare node: the mount and the embedded realm, started as a user would start
them.
"""

import compileall
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.process import StepError
from bench.rig import OUR_NODE, NodeProgram, Rig, succeeds

REPOSITORY = Path(__file__).resolve().parent.parent
MOUNT_PATIENCE = 20.0
"""Seconds for a mount to appear and to go, and for a server to be ready."""


def realmfs(*argv: str) -> list[str]:
    """The command line of a realmfs command, run by this interpreter."""
    return [sys.executable, "-m", "realmfs", *argv]


def compile_as_installed() -> None:
    """Give this checkout the byte code that an installation has; each start makes it anew otherwise."""
    compileall.compile_dir(REPOSITORY / "realmfs", quiet=2)


def private_environment(files: Path) -> dict[str, str]:
    """Environment of a realmfs process that shares nothing with another: every directory below `files`."""
    kinds = ("CACHE", "CONFIG", "STATE", "DATA")
    return {
        "PYTHONPATH": os.fspath(REPOSITORY),
        "PYTHONDONTWRITEBYTECODE": "1",
        "XDG_RUNTIME_DIR": os.fspath(files),
        **{f"XDG_{kind}_HOME": os.fspath(files / kind.lower()) for kind in kinds},
    }


class NodeMount:
    """realmfs mounted in the foreground on its node; found realms come from the node's own DNS."""

    def __init__(self, rig: Rig, point: Path, files: Path, *options: str) -> None:
        """Mount; returns once it is there. `files` keeps cache, state and log; may exist."""
        self._rig = rig
        self.point = point
        self.files = files
        files.mkdir(exist_ok=True)
        argv = realmfs("mount", os.fspath(point), "--foreground", *options)
        self.program = NodeProgram(rig, OUR_NODE, argv, files, "mount", private_environment(files))
        try:
            self.program.wait_until(self._is_mounted, MOUNT_PATIENCE, "the mount")
        except StepError:
            self.stop()
            raise

    def _is_mounted(self) -> bool:
        return succeeds(self._rig, OUR_NODE, "mountpoint", "-q", os.fspath(self.point))

    def command(self, *argv: str, stdin: str = "", within: float = 120.0) -> str:
        """Run another realmfs command that talks to this daemon."""
        environment = [f"{key}={value}" for key, value in private_environment(self.files).items()]
        return self._rig.exec(OUR_NODE, "env", *environment, *realmfs(*argv), stdin=stdin, within=within)

    def stop(self) -> None:
        """End the daemon and see to it that nothing stays mounted. Never raises."""
        self.program.stop()
        if self._is_mounted():
            succeeds(self._rig, OUR_NODE, "umount", "-l", os.fspath(self.point))


@contextmanager
def mounted(rig: Rig, point: Path, files: Path, *options: str) -> Iterator[NodeMount]:
    """A mount for the time of a with block."""
    mount = NodeMount(rig, point, files, *options)
    try:
        yield mount
    finally:
        mount.stop()


class Served:
    """An embedded realm served by realmfs on its node, with the standard ports, filled from a directory."""

    def __init__(
        self, rig: Rig, realm: str, address: str, data: Path, tree: Path, *, tls: str = "off"
    ) -> None:
        """Start serving. `data` is the server's directory and is made; `tree` is imported.

        With `tls` prefer or require also through TLS; `authority` is then what clients have to know.
        """
        self._rig = rig
        self._realm = realm
        self._data = data
        data.mkdir()
        self._environment = private_environment(data)
        store = os.fspath(data / "store")
        self.authority = data / "store" / "tls" / "ca.crt"
        if tls != "off":
            making = ("admin", "certificates", "--data", store, "--realm", realm, "--address", address)
            environment = [f"{key}={value}" for key, value in self._environment.items()]
            rig.exec(OUR_NODE, "env", *environment, *realmfs(*making))
        argv = realmfs("serve", "--realm", realm, "--data", store, "--tls", tls, "--verbose")
        argv += ["--address", address, "--import", os.fspath(tree)]
        self.program = NodeProgram(rig, OUR_NODE, argv, data, "serve", self._environment)
        try:
            self.program.wait_until(self._ready, MOUNT_PATIENCE, "the start of the server")
        except StepError:
            self.stop()
            raise

    def _ready(self) -> bool:
        return f"serving {self._realm} at " in self.program.log.read_text(errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def add_user(self, name: str, password: str) -> None:
        """Make a user who may do anything in the realm."""
        store = os.fspath(self._data / "store")
        environment = [f"{key}={value}" for key, value in self._environment.items()]
        argv = realmfs("admin", "user", "add", "--administrator", "--data", store, name)
        self._rig.exec(OUR_NODE, "env", *environment, *argv, stdin=password + "\n")

    def log(self) -> str:
        """What the server has said so far."""
        return self.program.log.read_text(errors="replace")

    def stop(self) -> None:
        """End the server. Never raises."""
        self.program.stop()
