"""The FUSE layer by itself, over a file system in memory: what reaches the kernel, and what survives."""

import ctypes
import errno
import json
import mmap
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.t6_fuse.conftest import Mounted, eventually

pytestmark = pytest.mark.kernel

Mount = Callable[..., Mounted]


def calls(directory: Path) -> dict[str, int]:
    counted: dict[str, int] = json.loads(os.getxattr(directory, "user.test.calls"))
    return counted


def lookups(directory: Path) -> dict[str, int]:
    counted: dict[str, int] = json.loads(os.getxattr(directory, "user.test.lookups"))
    return counted


def drop_caches() -> None:
    """Make the kernel forget every inode it can (root only)."""
    Path("/proc/sys/vm/drop_caches").write_text("2")


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may make the kernel forget")


def test_files_links_and_directories(memory_mount: Mount) -> None:
    top = memory_mount().directory
    (top / "d").mkdir(mode=0o750)
    file = top / "d" / "file"
    file.write_bytes(b"abc" * 1000)
    file.chmod(0o640)
    os.utime(file, ns=(1, 1_234_567_890_123_456_789))
    (top / "link").symlink_to("d/file")
    os.link(file, top / "d" / "other")
    assert (top / "link").read_bytes() == b"abc" * 1000
    found = file.stat()
    assert (found.st_size, stat.S_IMODE(found.st_mode), found.st_nlink) == (3000, 0o640, 2)
    assert found.st_mtime_ns == 1_234_567_890_123_456_789
    assert stat.S_IMODE((top / "d").stat().st_mode) == 0o750
    assert sorted(os.listdir(top)) == ["d", "link"]
    with pytest.raises(FileExistsError):
        os.mkdir(top / "d")
    with pytest.raises(OSError, match="not empty"):
        (top / "d").rmdir()
    with pytest.raises(PermissionError):
        os.mkfifo(top / "pipe")
    os.mknod(top / "plain", stat.S_IFREG | 0o600)
    assert (top / "plain").stat().st_size == 0


def test_listing_shows_the_dots_and_resumes(memory_mount: Mount) -> None:
    top = memory_mount().directory
    names = {f"name-{number:05}" for number in range(3000)}
    for name in names:
        os.mknod(top / name, stat.S_IFREG | 0o600)
    listed = subprocess.run(["ls", "-fa", top], check=True, capture_output=True, text=True).stdout.split()
    assert len(listed) == 3002
    assert set(listed) == names | {".", ".."}


@needs_root
@pytest.mark.parametrize("unknown", [False, True], ids=["status-known", "status-unknown"])
def test_lookup_counts_return_to_nothing(memory_mount: Mount, unknown: bool) -> None:
    """Whatever listing and looking did, after the kernel has forgotten no count is left."""
    top = memory_mount().directory
    for number in range(500):
        (top / f"f{number}").write_text("x")
    os.setxattr(top, "user.test.unknown-status", b"1" if unknown else b"0")
    for _ in range(3):
        with os.scandir(top) as entries:
            types = [entry.is_file(follow_symlinks=False) for entry in entries]
        assert types == [True] * 500
        drop_caches()

    def forgotten() -> bool:
        drop_caches()
        return sum(lookups(top).values()) == 0

    eventually(forgotten)


def test_entries_of_unknown_status_cost_no_inode(memory_mount: Mount) -> None:
    top = memory_mount().directory
    for number in range(100):
        os.mknod(top / f"f{number}", stat.S_IFREG | 0o600)
    os.setxattr(top, "user.test.unknown-status", b"1")
    os.sync()
    before = calls(top)["lookup"]
    assert len(os.listdir(top)) == 100
    assert calls(top)["lookup"] == before, "a listing asks for nobody's status"


@pytest.mark.parametrize(
    ("name", "number"), [("raises", errno.EIO), ("group", errno.EDQUOT), ("bad-reply", errno.EIO)]
)
def test_no_exception_kills_the_mount(memory_mount: Mount, name: str, number: int) -> None:
    mount = memory_mount()
    with pytest.raises(OSError) as caught:
        os.stat(mount.directory / name)
    assert caught.value.errno == number
    assert os.listdir(mount.directory) == []
    assert ("Traceback" in mount.logged()) == (number == errno.EIO)


def test_a_stuck_request_ends_and_others_go_on(memory_mount: Mount) -> None:
    mount = memory_mount(deadline=1.0)
    (mount.directory / "d").mkdir()
    start = time.monotonic()
    outcome: list[OSError] = []

    def ask() -> None:
        try:
            os.stat(mount.directory / "hangs")
        except OSError as error:
            outcome.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    (mount.directory / "d" / "file").write_text("meanwhile")
    assert time.monotonic() - start < 0.9
    thread.join(10.0)
    assert [error.errno for error in outcome] == [errno.ETIMEDOUT]
    assert 0.9 < time.monotonic() - start < 5.0


def test_pages_are_kept_until_invalidated(memory_mount: Mount) -> None:
    top = memory_mount().directory
    file = top / "file"
    file.write_bytes(b"old" * 1000)
    assert file.read_bytes() == b"old" * 1000
    before = calls(top)["read"]
    assert file.read_bytes() == b"old" * 1000
    assert calls(top)["read"] == before, "the kernel reads its own pages"
    os.setxattr(file, "user.test.data", b"new, and of another length")
    os.setxattr(file, "user.test.invalidate-inode", b"all")
    eventually(lambda: file.stat().st_size == 26)
    assert file.read_bytes() == b"new, and of another length"


def test_a_name_is_kept_until_invalidated(memory_mount: Mount) -> None:
    top = memory_mount().directory
    (top / "old").write_text("x")
    os.setxattr(top, "user.test.rename-behind", b"old/new")
    assert (top / "old").exists(), "trusted for an hour"
    os.setxattr(top, "user.test.invalidate-entry", b"old")
    eventually(lambda: not (top / "old").exists())
    assert (top / "new").read_text() == "x"


def test_invalidations_during_requests_do_not_deadlock(memory_mount: Mount) -> None:
    """A request hangs in the directory whose names are invalidated: the daemon keeps answering."""
    mount = memory_mount(deadline=2.0)
    top = mount.directory
    for number in range(300):
        (top / f"f{number}").write_text("x")
    hanging = subprocess.Popen(["stat", top / "hangs"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    descriptors = [os.open(top / f"f{number}", os.O_RDONLY) for number in range(300)]
    for number in range(300):
        os.setxattr(top, "user.test.invalidate-entry", b"f%d" % number)
        os.setxattr(top / f"f{number}", "user.test.invalidate-inode", b"all")
    assert all(os.read(descriptor, 10) == b"x" for descriptor in descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    assert hanging.wait(10.0) == 1
    assert len(os.listdir(top)) == 300
    assert "Traceback" not in mount.logged()


def test_flags_of_open(memory_mount: Mount) -> None:
    file = memory_mount().directory / "file"
    descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND, 0o600)
    os.write(descriptor, b"one")
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, b"two")
    assert os.pread(descriptor, 10, 0) == b"onetwo"
    os.ftruncate(descriptor, 2)
    os.fsync(descriptor)
    os.close(descriptor)
    assert file.read_bytes() == b"on"
    os.close(os.open(file, os.O_WRONLY | os.O_TRUNC))
    assert file.stat().st_size == 0
    os.truncate(file, 10)
    assert file.read_bytes() == bytes(10)
    with pytest.raises(FileExistsError):
        os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR)


def test_shared_mapping_is_written(memory_mount: Mount) -> None:
    file = memory_mount().directory / "file"
    file.write_bytes(bytes(3 * mmap.PAGESIZE))
    with file.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as mapping:
        mapping[mmap.PAGESIZE : mmap.PAGESIZE + 5] = b"paged"
        mapping.flush()
        assert os.pread(stream.fileno(), 5, mmap.PAGESIZE) == b"paged"
    assert file.read_bytes()[mmap.PAGESIZE :].startswith(b"paged\0")


def rename(old: Path, new: Path, flags: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags) == 0:
        return 0
    return ctypes.get_errno()


def test_rename_flags(memory_mount: Mount) -> None:
    top = memory_mount().directory
    (top / "a").write_text("A")
    (top / "b").write_text("B")
    assert rename(top / "a", top / "b", 1) == errno.EEXIST
    assert rename(top / "a", top / "b", 2) == 0
    assert ((top / "a").read_text(), (top / "b").read_text()) == ("B", "A")
    assert rename(top / "a", top / "b", 4) == errno.EINVAL
    assert rename(top / "a", top / "b", 0) == 0
    assert os.listdir(top) == ["b"]


def test_attributes_outside_user_stay_here(memory_mount: Mount) -> None:
    top = memory_mount().directory
    file = top / "file"
    file.write_text("x")
    before = calls(top)["getxattr"]
    with file.open("w") as stream:
        for _ in range(20):
            stream.write("line\n")
            stream.flush()
    assert calls(top)["getxattr"] == before + 1, "the kernel's questions before each write end in the layer"
    with pytest.raises(OSError) as caught:
        os.setxattr(file, "trusted.x", b"1")
    assert caught.value.errno in (errno.EOPNOTSUPP, errno.EPERM)
    for name in ("security.selinux", "system.posix_acl_access"):  # ENODATA would make `ls -l` ask each file
        with pytest.raises(OSError) as caught:
            os.getxattr(file, name)
        assert caught.value.errno == errno.EOPNOTSUPP
    assert os.listxattr(file) == []


def test_statfs(memory_mount: Mount) -> None:
    room = os.statvfs(memory_mount().directory)
    assert (room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize) == (1 << 30, 1 << 29)
    assert (room.f_files, room.f_ffree, room.f_namemax) == (1000, 900, 255)


def test_lazy_unmount_serves_open_files_to_their_close(memory_mount: Mount) -> None:
    mount = memory_mount()
    file = mount.directory / "file"
    with file.open("w+b", buffering=0) as stream:
        subprocess.run(["fusermount3", "-u", "-z", mount.directory], check=True)
        stream.write(b"still here")
        assert os.pread(stream.fileno(), 20, 0) == b"still here"
        assert mount.process.poll() is None
    assert mount.ended() == 0


def test_contents_come_with_an_open(memory_mount: Mount) -> None:
    """No read follows; what was put into the pages ends where the file ends."""
    top = memory_mount().directory
    contents = os.urandom(10_000)
    (top / "file").write_bytes(contents)
    assert (top / "file").read_bytes() == contents, "after which the kernel knows the time of the change"
    os.setxattr(top, "user.test.push", b"1")
    before = calls(top)
    for _ in range(3):
        assert (top / "file").read_bytes() == contents
    with (top / "file").open("rb") as stream, mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as mapping:
        assert mapping[:] == contents
    after = calls(top)
    assert after["read"] == before["read"]


def test_a_vanished_request_does_not_put_the_loop_to_sleep(memory_mount: Mount) -> None:
    """Kill callers between the moment their request is readable and the moment it is read."""
    top = memory_mount().directory
    absent = str(top / "absent")
    code = f"import os\nprint(flush=True)\nwhile True:\n try: os.stat({absent!r})\n except OSError: pass"
    os.setxattr(top, "user.test.doze", b"1")
    for round_ in range(6):
        with subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE) as caller:
            assert caller.stdout is not None
            caller.stdout.readline()
            time.sleep(0.15 + 0.03 * round_)  # anywhere in the loop's rhythm
            caller.kill()
        time.sleep(0.8)  # nobody else asks: only the heartbeat can wake the loop
    assert float(os.getxattr(top, "user.test.gap")) < 0.75


@pytest.mark.skipif(not os.access("/sys/class/bdi", os.W_OK), reason="only root may set the read-ahead")
def test_a_large_file_is_asked_for_in_large_requests(memory_mount: Mount) -> None:
    top = memory_mount().directory
    contents = os.urandom(8 << 20)
    (top / "file").write_bytes(contents)
    with (top / "file").open("rb", buffering=0) as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        before = calls(top).get("read", 0)
        assert b"".join(iter(lambda: stream.read(1 << 17), b"")) == contents
    assert calls(top)["read"] - before < 24, "128 KiB at once would be 64"
