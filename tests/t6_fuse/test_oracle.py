"""The same random operations on a plain directory and a real mount: equal trees, results and errnos.

What may differ is in the table "Differences" of docs/reference/semantics.md, row by row; each row has its
judge here, and no other difference passes. Seeds are printed; `REALMFS_SEED` repeats one.
"""

import errno
import hashlib
import os
import random
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.seeds import first_seed
from tests.t5_venus.world import REALM
from tests.t6_fuse.conftest import REPOSITORY, RealmMount

pytestmark = pytest.mark.kernel

PAGE = REPOSITORY / "docs" / "reference" / "semantics.md"
STEPS = 300
NAMES = "abc"
HANDLES = 3
MODES = (0o600, 0o640, 0o755, 0o444, 0o4755)

Arguments = tuple[object, ...]


@dataclass
class Result:
    """What an operation came to: an errno, or what it returned."""

    number: int = 0
    value: object = None

    def __str__(self) -> str:
        return errno.errorcode[self.number] if self.number else f"ok {self.value!r:.60}"


@dataclass
class Side:
    """One of the two trees, with the files that are open on it."""

    top: Path
    handles: dict[int, int] = field(default_factory=dict)

    def do(self, kind: str, arguments: Arguments) -> Result:
        """Do an operation."""
        try:
            return Result(0, getattr(self, kind)(*arguments))
        except OSError as error:
            return Result(error.errno or errno.EIO)

    def write(self, path: str, data: bytes) -> None:
        with open(self.top / path, "wb", opener=_maker) as file:
            file.write(data)

    def append(self, path: str, data: bytes) -> None:
        descriptor = os.open(self.top / path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)

    def make_new(self, path: str) -> None:
        os.close(os.open(self.top / path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))

    def read(self, path: str) -> bytes:
        return (self.top / path).read_bytes()

    def mkdir(self, path: str) -> None:
        (self.top / path).mkdir()

    def rmdir(self, path: str) -> None:
        (self.top / path).rmdir()

    def unlink(self, path: str) -> None:
        (self.top / path).unlink()

    def rename(self, old: str, new: str) -> None:
        os.rename(self.top / old, self.top / new)

    def link(self, old: str, new: str) -> None:
        os.link(self.top / old, self.top / new, follow_symlinks=False)

    def symlink(self, path: str, text: str) -> None:
        os.symlink(text, self.top / path)

    def readlink(self, path: str) -> str:
        return os.readlink(self.top / path)

    def chmod(self, path: str, mode: int) -> None:
        (self.top / path).chmod(mode)

    def chown(self, path: str, uid: int) -> None:
        os.chown(self.top / path, uid, -1, follow_symlinks=False)

    def utime(self, path: str, nanoseconds: int) -> int:
        os.utime(self.top / path, ns=(nanoseconds, nanoseconds))
        return (self.top / path).stat().st_mtime_ns

    def truncate(self, path: str, size: int) -> None:
        os.truncate(self.top / path, size)

    def mkfifo(self, path: str) -> None:
        os.mkfifo(self.top / path)

    def listdir(self, path: str) -> list[str]:
        return sorted(os.listdir(self.top / path))

    def stat(self, path: str) -> tuple[int, int, int]:
        found = (self.top / path).lstat()
        if stat.S_ISDIR(found.st_mode):
            return found.st_mode, 0, found.st_nlink
        return found.st_mode if stat.S_ISREG(found.st_mode) else 0, found.st_size, found.st_nlink

    # -- open files

    def open(self, path: str, number: int, flags: int) -> None:
        self.close(number)
        self.handles[number] = os.open(self.top / path, flags)

    def close(self, number: int) -> None:
        if number in self.handles:
            os.close(self.handles.pop(number))

    def write_at(self, number: int, offset: int, data: bytes) -> int | None:
        return os.pwrite(self.handles[number], data, offset) if number in self.handles else None

    def read_at(self, number: int, offset: int) -> bytes | None:
        return os.pread(self.handles[number], 9000, offset) if number in self.handles else None

    def cut(self, number: int, size: int) -> None:
        if number in self.handles:
            os.ftruncate(self.handles[number], size)

    def sync(self, number: int) -> None:
        if number in self.handles:
            os.fsync(self.handles[number])

    def tree(self) -> dict[str, list[object]]:
        """Return everything, as realm_mount.py does."""
        found: dict[str, list[object]] = {}
        for path in sorted(self.top.rglob("*")):
            info = path.lstat()
            place = str(path.relative_to(self.top))
            if stat.S_ISDIR(info.st_mode):
                found[place] = ["directory", "", 0, 0]
            elif stat.S_ISLNK(info.st_mode):
                found[place] = ["link", os.readlink(path), 0, 0]
            else:
                contents = hashlib.sha256(path.read_bytes()).hexdigest()
                found[place] = ["file", contents, stat.S_IMODE(info.st_mode), info.st_nlink]
        return found


def _maker(path: str, flags: int) -> int:
    return os.open(path, flags, 0o644)


# -- what may differ -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """An operation about to be done on the plain side."""

    plain: Side
    kind: str
    arguments: Arguments

    def path(self, number: int = 0) -> Path:
        return self.plain.top / str(self.arguments[number])

    def info(self, number: int = 0, *, follow: bool = True) -> os.stat_result | None:
        try:
            return self.path(number).stat() if follow else self.path(number).lstat()
        except OSError:
            return None

    def other_directory(self) -> bool:
        try:
            return self.path(0).parent.resolve() != self.path(1).parent.resolve()
        except (OSError, RuntimeError):
            return False


def _many_names(case: Case) -> bool:
    info = case.info(follow=False)
    several = info is not None and not stat.S_ISDIR(info.st_mode) and info.st_nlink > 1
    return case.kind == "rename" and several and case.other_directory()


def _is_link(case: Case) -> bool:
    info = case.info(follow=False)
    return case.kind == "link" and info is not None and stat.S_ISLNK(info.st_mode)


def _not_writable(case: Case) -> bool:
    """Root may write what nobody may, on a plain directory."""
    info = case.info()
    if info is None or not stat.S_ISREG(info.st_mode) or info.st_mode & 0o200:
        return False
    if case.kind == "open":
        flags = case.arguments[2]
        assert isinstance(flags, int)
        return bool(flags & (os.O_WRONLY | os.O_RDWR))
    return case.kind in ("write", "append", "truncate")


DIFFERENCES: dict[str, tuple[int, Callable[[Case], bool]]] = {
    "link-other-directory": (errno.EXDEV, lambda case: case.kind == "link" and case.other_directory()),
    "link-symlink": (errno.EXDEV, _is_link),
    "rename-many-names": (errno.EXDEV, _many_names),
    "set-user-id": (errno.EPERM, lambda case: case.kind == "chmod" and case.arguments[1] == 0o4755),
    "owner": (errno.EPERM, lambda case: case.kind == "chown"),
    "owner-bits": (errno.EACCES, _not_writable),
    "special-files": (errno.EPERM, lambda case: case.kind == "mkfifo"),
}
IN_RESULTS = {"whole-seconds", "directory-links"}


def test_the_page_lists_these_differences_and_no_others() -> None:
    section = PAGE.read_text().partition("## Differences")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|.*?\| ([A-Z]*) ?\|", section, re.MULTILINE)
    assert {name: number for name, number in rows if number} == {
        name: errno.errorcode[number] for name, (number, _) in DIFFERENCES.items()
    }
    assert {name for name, number in rows if not number} == IN_RESULTS


def same(kind: str, here: object, plain: object) -> bool:
    """Compare two results, but for what IN_RESULTS names."""
    if kind == "utime" and isinstance(here, int) and isinstance(plain, int):
        return here == plain // 10**9 * 10**9
    if kind == "stat" and isinstance(here, tuple) and isinstance(plain, tuple) and stat.S_ISDIR(plain[0]):
        return bool(here[:2] == plain[:2] and here[2] == 1)
    return here == plain


# -- both sides ------------------------------------------------------------------------------------------


class Oracle:
    """Does the same on both sides and compares."""

    def __init__(self, here: Side, plain: Side, rng: random.Random) -> None:
        self.here = here
        self.plain = plain
        self.rng = rng
        self.done = 0
        self.differed: set[str] = set()
        self.history: list[str] = []

    def path(self) -> str:
        return "/".join(self.rng.choice(NAMES) for _ in range(self.rng.choice([1, 1, 1, 2, 2, 3])))

    def data(self) -> bytes:
        return self.rng.randbytes(self.rng.choice([0, 1, 100, 5000]))

    def choose(self) -> tuple[str, Arguments]:
        rng, number = self.rng, self.rng.randrange(HANDLES)
        choices: list[tuple[str, Callable[[], Arguments]]] = [
            *[("write", lambda: (self.path(), self.data()))] * 3,
            *[("mkdir", lambda: (self.path(),))] * 3,
            *[("rename", lambda: (self.path(), self.path()))] * 3,
            *[("open", lambda: (self.path(), number, rng.choice([os.O_RDONLY, os.O_RDWR, os.O_WRONLY])))] * 2,
            *[("write_at", lambda: (number, rng.randrange(6000), self.data()))] * 2,
            ("append", lambda: (self.path(), self.data())),
            ("make_new", lambda: (self.path(),)),
            ("read", lambda: (self.path(),)),
            ("rmdir", lambda: (self.path(),)),
            ("unlink", lambda: (self.path(),)),
            ("link", lambda: (self.path(), self.path())),
            ("symlink", lambda: (self.path(), rng.choice(["a", "b/c", "b/../a", "nowhere/to/go"]))),
            ("readlink", lambda: (self.path(),)),
            ("chmod", lambda: (self.path(), rng.choice(MODES))),
            ("chown", lambda: (self.path(), 4711)),
            ("utime", lambda: (self.path(), rng.randrange(2**31 * 10**9))),
            ("truncate", lambda: (self.path(), rng.choice([0, 3, 200, 9000]))),
            ("mkfifo", lambda: (self.path(),)),
            ("listdir", lambda: (rng.choice([".", self.path()]),)),
            ("stat", lambda: (self.path(),)),
            ("read_at", lambda: (number, rng.randrange(6000))),
            ("cut", lambda: (number, rng.randrange(6000))),
            ("sync", lambda: (number,)),
            ("close", lambda: (number,)),
        ]
        kind, arguments = rng.choice(choices)
        return kind, arguments()

    def step(self) -> None:
        kind, arguments = self.choose()
        case = Case(self.plain, kind, arguments)
        allowed = {name: number for name, (number, applies) in DIFFERENCES.items() if applies(case)}
        here = self.here.do(kind, arguments)
        self.history.append(f"{kind} {arguments!r:.90}: {here}")
        if here.number and here.number in allowed.values():
            self.differed |= {name for name, number in allowed.items() if number == here.number}
            if kind == "open":
                assert not isinstance(arguments[1], str)
                self.plain.do("close", (arguments[1],))
            return
        plain = self.plain.do(kind, arguments)
        assert here.number == plain.number, self.story(f"a plain directory: {plain}")
        assert same(kind, here.value, plain.value), self.story(f"a plain directory: {plain}")
        self.done += not here.number

    def story(self, end: str) -> str:
        return "\n".join([*self.history[-25:], end])

    def compare(self) -> None:
        assert self.here.tree() == self.plain.tree(), self.story("the trees differ")


def flap(mount: RealmMount, rng: random.Random, orders: list[str]) -> None:
    """Now and then change the state of the network."""
    chance = rng.random()
    if chance < 0.10:
        orders.append("off" if not orders or orders[-1] in ("on", "heal") else "on")
        mount.order(orders[-1])


@pytest.mark.parametrize("network", ["connected", "disconnected", "flapping"])
def test_a_mount_is_like_a_plain_directory(realm_mount: RealmMount, tmp_path: Path, network: str) -> None:
    seed = first_seed()
    rng = random.Random(seed)
    plain = tmp_path / "plain"
    plain.mkdir()
    oracle = Oracle(Side(realm_mount.top / REALM), Side(plain), rng)
    oracle.compare()
    if network == "disconnected":
        realm_mount.order("off")
    orders: list[str] = []
    for number in range(STEPS):
        if network == "flapping":
            flap(realm_mount, rng, orders)
        oracle.step()
        if number % 50 == 49:
            oracle.compare()
    for number in range(HANDLES):
        oracle.here.close(number)
        oracle.plain.close(number)
    oracle.compare()
    realm_mount.order("on")
    assert realm_mount.order("drain") == "done"
    assert realm_mount.order("tree") == oracle.plain.tree(), oracle.story("another client sees another tree")
    oracle.compare()
    assert oracle.done > STEPS / 10
    print(
        f"{network}: {oracle.done} of {STEPS} succeeded; seen of the differences: {sorted(oracle.differed)}"
    )
