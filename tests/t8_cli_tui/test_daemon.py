"""The daemon's life as a user sees it: mounting, what stands in the way, and the end."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio
import trio.testing

from realmfs.daemon import Daemon
from realmfs.fuse import mounts
from realmfs.host.paths import Paths
from realmfs.host.settings import settle
from tests.t8_cli_tui.conftest import REPOSITORY, Home

NOWHERE = ("--dns", "127.0.0.1:9")

kernel = pytest.mark.kernel
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may hide a device in a mount namespace")
WITHOUT_DEVICE = ("unshare", "-m", "sh", "-c", 'mount --bind /dev/null /dev/fuse && exec "$0" "$@"')


def wait_until_gone(home: Home, within: float = 10.0) -> None:
    limit = time.monotonic() + within
    while home.socket.exists():
        assert time.monotonic() < limit, "the daemon has not ended"
        time.sleep(0.02)


@kernel
def test_mount_status_unmount(home: Home) -> None:
    top = home.top / "coda"
    top.mkdir()
    said = home.run("mount", str(top), *NOWHERE)
    assert f"mounted on {top}" in said
    status = json.loads(home.run("status", "--json"))
    assert status["mount_point"] == str(top)
    assert status["pending"] == 0
    assert os.listdir(top) == [], "no realm was ever reached, and nobody was asked"
    assert "unmounted" in home.run("unmount", str(top))
    assert mounts.find(top) is None
    with (home.top / "cache" / "realmfs" / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the next mount finds the cache free
    assert home.run("status", status=3)


@kernel
def test_what_stands_in_the_way_of_a_mount(home: Home) -> None:
    top = home.top / "coda"
    assert "mkdir -p" in home.run("mount", str(top), status=1)
    top.write_text("")
    assert "not a directory" in home.run("mount", str(top), status=1)
    top.unlink()
    (top / "something").mkdir(parents=True)
    assert "not empty" in home.run("mount", str(top), status=1)
    (top / "something").rmdir()
    home.run("mount", str(top), *NOWHERE)
    assert "already mounted" in home.run(
        "mount", str(top), "--cache-dir", str(home.top / "c2"), "--socket", str(home.top / "s2"), status=1
    )
    (home.top / "other").mkdir()
    assert "in use" in home.run("mount", str(home.top / "other"), "--socket", str(home.top / "s2"), status=1)
    assert "already listens" in home.run(
        "mount", str(home.top / "other"), "--cache-dir", str(home.top / "c2"), status=1
    )


@kernel
def test_a_dead_mount_is_detached(home: Home) -> None:
    top = home.top / "coda"
    top.mkdir()
    home.run("mount", str(top), *NOWHERE)
    os.kill(home.daemon_pid(), signal.SIGKILL)
    limit = time.monotonic() + 5
    while time.monotonic() < limit:
        try:
            os.listdir(top)
        except OSError:
            break
    with pytest.raises(OSError, match=r"not connected|abort"):
        os.listdir(top)
    assert "mounted on" in home.run("mount", str(top), *NOWHERE)
    assert os.listdir(top) == []
    os.kill(home.daemon_pid(), signal.SIGKILL)
    assert "detached" in home.run("unmount", str(top))
    assert mounts.find(top) is None


@kernel
def test_open_files_keep_the_daemon_until_they_are_closed(home: Home) -> None:
    top = home.top / "coda"
    top.mkdir()
    home.run("mount", str(top), *NOWHERE)
    descriptor = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    assert "still open" in home.run("unmount", str(top))
    assert os.listdir(descriptor) == []
    assert home.run("status", "--json")
    os.close(descriptor)
    wait_until_gone(home)


@kernel
@needs_root
def test_a_sandbox_with_a_copy_of_the_mount_does_not_keep_the_daemon(home: Home) -> None:
    top = home.top / "coda"
    top.mkdir()
    home.run("mount", str(top), *NOWHERE)
    holder = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; exec sleep 60"]
    with subprocess.Popen(holder, stdout=subprocess.PIPE) as sandbox:
        assert sandbox.stdout is not None
        sandbox.stdout.readline()
        try:
            assert "unmounted" in home.run("unmount", str(top))
        finally:
            sandbox.kill()


@kernel
def test_force_cuts_off(home: Home) -> None:
    top = home.top / "coda"
    top.mkdir()
    home.run("mount", str(top), *NOWHERE)
    descriptor = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert "unmounted" in home.run("unmount", "--force")
        with pytest.raises(OSError, match=r"not connected|abort"):
            os.listdir(descriptor)
    finally:
        os.close(descriptor)


@kernel
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(home: Home, number: int) -> None:
    top = home.top / "coda"
    top.mkdir()
    home.run("mount", str(top), *NOWHERE)
    os.kill(home.daemon_pid(), number)
    wait_until_gone(home)
    limit = time.monotonic() + 5
    while mounts.find(top) is not None:
        assert time.monotonic() < limit
    log = (home.top / "state" / "realmfs" / "realmfs.log").read_text()
    assert "Traceback" not in log
    assert "ERROR" not in log


async def test_a_second_signal_leaves_no_time(tmp_path: Path) -> None:
    daemon = Daemon(settle(Paths(*[tmp_path] * 5), None, {}), kernel=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(daemon._watch_signals)
        await trio.testing.wait_all_tasks_blocked()
        os.kill(os.getpid(), signal.SIGTERM)
        await daemon._hurry.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert not daemon._at_once.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        with trio.fail_after(10):
            await daemon._at_once.wait()
        nursery.cancel_scope.cancel()


def test_a_damaged_cache_is_named(home: Home) -> None:
    cache = home.top / "cache" / "realmfs"
    cache.mkdir(parents=True)
    (cache / "cache.db").write_bytes(b"no database" * 1000)
    said = home.run("mount", "--no-kernel", *NOWHERE)
    assert f"warning: the cache database {cache / 'cache.db'} is damaged" in said
    assert "is damaged" in home.run("status")


def test_secrets_stay_in(home: Home) -> None:
    home.run("mount", "--no-kernel", *NOWHERE)
    pid = home.daemon_pid()
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert any(line.split()[4:6] == ["0", "0"] for line in limits.splitlines() if "core file" in line)
    assert home.socket.stat().st_mode & 0o777 == 0o600
    assert home.socket.parent.stat().st_mode & 0o777 == 0o700
    for path in [*(home.top / "cache").rglob("*"), *(home.top / "state").rglob("*")]:
        private = path.stat().st_mode & 0o077 == 0 or any(
            parent.stat().st_mode & 0o077 == 0 for parent in path.parents if home.top in parent.parents
        )
        assert private, path


def test_without_a_mount_files_still_work(home: Home) -> None:
    assert "without a mount" in home.run("mount", "--no-kernel", *NOWHERE)
    assert home.run("ls") == ""
    assert "without a mount" in home.run("status")
    assert home.run("ls", "no-such-name", status=1)
    assert home.run("realms", "--json").strip() == "[]"
    assert home.run("changes", "--json").strip() == "[]"
    assert home.run("volumes", "--json").strip() == "[]"
    assert "unmounted" in home.run("unmount")


@kernel
@needs_root
def test_without_the_device_it_says_what_to_do(home: Home) -> None:
    top = home.top / "coda"
    top.mkdir()
    said = home.run("mount", str(top), *NOWHERE, status=1, prefix=WITHOUT_DEVICE)
    assert "/dev/fuse" in said
    assert "--no-kernel" in said


def test_the_foreground_logs_to_stderr_and_ends_by_a_signal(home: Home) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "realmfs", "mount", "--no-kernel", "--foreground", *NOWHERE],
        stderr=subprocess.PIPE,
        text=True,
        env=home.environment,
        cwd=REPOSITORY,
    ) as daemon:
        assert daemon.stderr is not None
        assert any("without a mount" in line for line in iter(daemon.stderr.readline, ""))
        daemon.send_signal(signal.SIGINT)
        assert daemon.wait(10) == 0


def test_off_line_by_hand(home: Home) -> None:
    assert "On line" not in home.run("mount", "--no-kernel", *NOWHERE)
    assert "off line" not in home.run("status")
    assert "never been reached" in home.run("disconnect", "exmaple.org", status=1)
    assert "Off line everywhere" in home.run("disconnect")
    assert json.loads(home.run("disconnect", "--json")) == {"everywhere": True, "realms": [], "pending": 0}
    assert "off line everywhere: disconnected by hand" in home.run("status")
    home.run("unmount")
    wait_until_gone(home)
    home.run("mount", "--no-kernel", *NOWHERE)
    assert "off line everywhere: disconnected by hand" in home.run("status")
    assert "On line. 0 changes wait" in home.run("reconnect")
    assert "off line" not in home.run("status")


def test_a_realms_file_that_is_not_there_is_named(home: Home) -> None:
    file = home.top / "realms"
    said = f"warning: the realms file {file} does not exist"
    assert said in home.run("mount", "--no-kernel", "--realms", str(file), *NOWHERE)
    assert said in home.run("status")
    file.write_text("")
    assert said not in home.run("status")


@kernel
def test_a_lazy_unmount_shows_in_the_status(home: Home) -> None:
    top = home.top / "coda"
    top.mkdir()
    home.run("mount", str(top), *NOWHERE)
    descriptor = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    subprocess.run(["fusermount3", "-uz", str(top)], check=True, capture_output=True)
    status = home.run("status")
    assert "without a mount" in status
    assert f"{top} was unmounted" in status
    os.close(descriptor)
    wait_until_gone(home)
