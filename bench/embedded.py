"""realmfs over an embedded realm: one server process and one mount, both on loopback."""

import os
import socket
import time
from pathlib import Path
from typing import Any

from bench.ournode import MOUNT_PATIENCE, private_environment, realmfs
from bench.process import Program, StepError
from bench.subject import Subject, unmount, wait_for_mount
from realmfs.control.client import Client

REALM = "bench.test"
ADDRESS = "127.0.0.1"
POLL = 0.02
"""Seconds between questions whether everything has been sent; it is the error of that figure."""


class EmbeddedRealm(Subject):
    """Both programs are started as a user would start them."""

    name = "realmfs"
    keeps_cache = True

    def __init__(self, data: Path, room: Path) -> None:
        self._data = data
        self._room = room / "realmfs"
        self._point = room / "realmfs-mount"
        self._port = 0
        self._socket = self._room
        self._generation = 0
        self._server: Program | None = None
        self._client: Program | None = None

    def missing(self) -> str | None:
        return None if os.access("/dev/fuse", os.R_OK | os.W_OK) else "/dev/fuse cannot be opened"

    def start(self) -> None:
        self._room.mkdir()
        self._point.mkdir()
        self._port = _free_port()
        (self._room / "realms").write_text(f"{REALM} {ADDRESS}:{self._port}\n")
        argv = ["serve", "--realm", REALM, "--data", os.fspath(self._room / "server"), "--anyuser", "rlidwk"]
        argv += ["--address", f"{ADDRESS}:{self._port}", "--import", os.fspath(self._data)]
        self._server = Program(realmfs(*argv), self._room / "server.log", private_environment(self._room))
        self._server.wait_until(self._served, MOUNT_PATIENCE, "the start of the server")

    def _served(self) -> bool:
        return f"serving {REALM} at " in (self._room / "server.log").read_text(errors="replace")

    def mount(self, *, fresh: bool) -> None:
        self._unmount()
        self._generation += fresh
        files = self._room / f"client{self._generation}"
        files.mkdir(exist_ok=True)
        self._socket = files / "control"
        options = ["--realms", os.fspath(self._room / "realms"), "--socket", os.fspath(self._socket)]
        argv = realmfs("mount", os.fspath(self._point), "--foreground", *options)
        self._client = Program(argv, files / "log", private_environment(files))
        wait_for_mount(self._client, self._point)

    @property
    def data(self) -> str:
        return os.fspath(self._point / REALM)

    @property
    def scratch(self) -> str:
        return self.data

    def drain(self, within: float) -> bool:
        limit = time.monotonic() + within
        with Client(self._socket, timeout=within) as daemon:
            while pending := daemon.call("daemon.status")["pending"]:
                if time.monotonic() > limit:
                    raise StepError(f"{pending} changes still wait after {within:.0f} s")
                time.sleep(POLL)
        return True

    def describe(self) -> dict[str, Any]:
        with Client(self._socket) as daemon:
            return {"transport": [server["protection"] for server in daemon.pages("servers.list")]}

    def _unmount(self) -> None:
        unmount(self._point)
        if self._client is not None:
            self._client.stop()
            self._client = None
        unmount(self._point)

    def stop(self) -> None:
        self._unmount()
        if self._server is not None:
            self._server.stop()


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((ADDRESS, 0))
        port: int = probe.getsockname()[1]
        return port
