"""The demonstration, as `make demo` runs it: without a terminal, to status 0, and nothing left behind."""

import functools
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from realmfs.fuse import mounts
from tests.t8_cli_tui.conftest import REPOSITORY, Home
from tests.t8_cli_tui.test_daemon import WITHOUT_DEVICE, needs_root

pytestmark = [pytest.mark.timeout(150), pytest.mark.usefixtures("room")]


@pytest.fixture
def room(home: Home) -> Iterator[Path]:
    """A temporary directory of the demonstration's own: another one may run on the same machine."""
    with tempfile.TemporaryDirectory(prefix="demo-") as name:
        home.environment["TMPDIR"] = name
        yield Path(name)
        assert not list(Path(name).iterdir())
        assert not [mount for mount in mounts.table() if mount.directory.is_relative_to(name)]


def demo(home: Home, *argv: str, prefix: tuple[str, ...] = ()) -> str:
    result = subprocess.run(
        [*prefix, sys.executable, "-m", "realmfs", "demo", *argv],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=home.environment,
        timeout=140,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.mark.kernel
def test_with_a_mount(home: Home) -> None:
    said = demo(home, "--no-tui")
    assert "Another client" in said
    assert "seen by the first client" in said
    assert "may I unplug? yes" in said
    assert "22 changes wait; what cancelled out is not among them" in said
    assert "the other client sees travel/ with 10 files" in said
    assert "is reached by TLSv1.3" in said
    assert "now bob reads it" in said
    assert "all 3 servers hold the same" in said


@needs_root
def test_without_the_device(home: Home) -> None:
    prefix = WITHOUT_DEVICE if Path("/dev/fuse").exists() else ()
    said = demo(home, "--no-tui", prefix=prefix)
    assert "control socket instead" in said
    assert "seen by the first client" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_broken_off_it_cleans_up(home: Home, number: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "realmfs", "demo"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=home.environment,
        cwd=REPOSITORY,
        # In the background of a shell SIGINT is ignored, and children inherit that.
        preexec_fn=functools.partial(signal.signal, number, signal.SIG_DFL),  # noqa: PLW1509
    ) as process:
        assert process.stdout is not None
        assert any("A client" in line for line in iter(process.stdout.readline, ""))
        process.send_signal(number)
        start = time.monotonic()
        assert process.wait(40) == 1
        assert "broken off" in process.stdout.read()
    assert time.monotonic() - start < 40
