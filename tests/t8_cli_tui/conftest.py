"""Commands as processes, with directories of their own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from realmfs.control.client import Client, NoDaemonError
from realmfs.fuse import mounts
from realmfs.fuse.mountpoint import obstacle

REPOSITORY = Path(__file__).resolve().parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = obstacle()
    for item in items:
        if reason is not None and "kernel" in item.keywords and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))


@dataclass
class Home:
    """A user of his own: configuration, cache, state and sockets below one directory."""

    top: Path

    @property
    def environment(self) -> dict[str, str]:
        kinds = {f"XDG_{kind}_HOME": str(self.top / kind.lower()) for kind in ("CACHE", "CONFIG", "STATE")}
        runtime = self.top / "run"
        runtime.mkdir(exist_ok=True)
        return os.environ | kinds | {"XDG_RUNTIME_DIR": str(runtime), "PYTHONPATH": str(REPOSITORY)}

    @property
    def socket(self) -> Path:
        return self.top / "run" / "realmfs" / "control.sock"

    def run(self, *argv: str, status: int = 0, prefix: tuple[str, ...] = (), stdin: str = "") -> str:
        """Run `realmfs ARGV` to its end; returns its output, errors included."""
        result = subprocess.run(
            [*prefix, sys.executable, "-m", "realmfs", *argv],
            check=False,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment,
            cwd=self.top,
            timeout=55,
        )
        assert result.returncode == status, f"{argv}: status {result.returncode}\n{result.stdout}"
        return result.stdout

    def daemon_pid(self) -> int:
        with Client(self.socket) as client:
            return int(client.call("daemon.status")["pid"])


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    with suppress(NoDaemonError), Client(home.socket, timeout=5) as client:
        client.call("daemon.stop", force=True)
    for mount in mounts.table():
        if tmp_path in mount.directory.parents:
            mounts.abort(mount.minor)
            subprocess.run(["fusermount3", "-uz", str(mount.directory)], check=False, capture_output=True)
