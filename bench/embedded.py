"""realmfs over an embedded realm: one server process and one mount, both on loopback."""

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from bench.ournode import MOUNT_PATIENCE, private_environment, realmfs
from bench.process import Program, StepError, run
from bench.subject import Subject, unmount, wait_for_mount

REALM = "bench.test"
ADDRESS = "127.0.0.1"


class EmbeddedRealm(Subject):
    """Both programs are started as a user would start them; nothing is imported from realmfs here."""

    name = "realmfs"
    keeps_cache = True

    def __init__(self, data: Path, room: Path) -> None:
        self._data = data
        self._room = room / "realmfs"
        self._point = room / "realmfs-mount"
        self._port = 0
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
        argv = ["serve", "--realm", REALM, "--data", os.fspath(self._room / "server")]
        argv += ["--address", f"{ADDRESS}:{self._port}", "--import", os.fspath(self._data)]
        self._server = Program(realmfs(*argv), self._room / "server.log", private_environment(self._room))
        self._server.wait_until(self._served, MOUNT_PATIENCE, "the start of the server")

    def _served(self) -> bool:
        return "serving" in (self._room / "server.log").read_text(errors="replace")

    def mount(self, *, fresh: bool) -> None:
        self._unmount()
        self._generation += fresh
        argv = ["mount", os.fspath(self._point), "--foreground", "--realms", os.fspath(self._room / "realms")]
        argv += ["--cache-dir", os.fspath(self._room / f"cache{self._generation}")]
        self._client = Program(realmfs(*argv), self._room / "mount.log", private_environment(self._room))
        wait_for_mount(self._client, self._point)

    @property
    def data(self) -> str:
        return os.fspath(self._point / REALM)

    @property
    def scratch(self) -> str:
        return self.data

    def drain(self, within: float) -> bool:
        limit = time.monotonic() + within
        while self._pending():
            if time.monotonic() > limit:
                raise StepError(f"changes still wait after {within:.0f} s")
            time.sleep(0.05)
        return True

    def _pending(self) -> int:
        out = run(realmfs("changes", "--json"), 10, env=private_environment(self._room))
        return len(json.loads(out))

    def describe(self) -> dict[str, Any]:
        return {"transport": "RPC2 over UDP"}

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
