"""Two users on one mount (`allow_other`), kernel caches included: every way to an object, and who gets what.

The rows are those of the table in docs/reference/access.md. Alice uses all of a directory that is hers alone,
so that every cache is warm; then bob tries. Both have a token of their own; carol, who is nobody, has none.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.loopback import own_address
from tests.t6_fuse.conftest import REPOSITORY, take_down
from tests.t6_fuse.people import OK, Attempt, Person, be_for_now, become, names_heard

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become two other users"),
]

REALM = "users.test"
PASSWORD = "s3cr3tpw"
ALICE, BOB, CAROL = 51001, 51002, 51003  # local users, who need not exist
SECRET = b"alice's own words\n"
SOON = 10.0


@dataclass(frozen=True)
class Shared:
    """A mount that several users share, a second client of the same realm, and the people."""

    top: Path
    alice: Person
    bob: Person
    carol: Person
    elsewhere: Person

    @property
    def private(self) -> Path:
        return self.top / "private"

    def set_list(self, person: Person, path: str, *entries: str) -> None:
        """Give a directory exactly these entries."""
        pairs = [
            {"name": name, "rights": rights} for name, rights in zip(entries[::2], entries[1::2], strict=True)
        ]
        done = person.calls("acl.set", path=f"{REALM}/{path}", entries=pairs, clear=True)
        assert isinstance(done, dict), done


def realmfs(top: Path, *argv: str, stdin: str = "") -> str:
    """Run a command to its end, as root."""
    done = subprocess.run(
        [sys.executable, "-m", "realmfs", *argv],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        timeout=60,
        env=os.environ | {"XDG_CONFIG_HOME": str(top / "none")},
    )
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def room() -> Iterator[Path]:
    """A directory that other users can reach, unlike pytest's own."""
    made = Path(tempfile.mkdtemp(prefix="realmfs-users-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def shared(room: Path) -> Iterator[Shared]:
    host = own_address()
    (room / "realms").write_text(f"{REALM} {host}:24330\n")
    with ExitStack() as stack:
        serve = ("serve", "--realm", REALM, "--data", str(room / "server"), "--address", f"{host}:24330")
        stack.enter_context(running(room / "server.log", "serving", None, *serve))
        for name, options in (("alice", ()), ("bob", ()), ("boss", ("--administrator",))):
            argv = ("admin", "user", "add", "--data", str(room / "server"), *options, name)
            realmfs(room, *argv, stdin=PASSWORD + "\n")
        sockets = [start(stack, room, name, mount) for name, mount in (("here", True), ("there", False))]
        alice, bob, carol = (Person(uid, sockets[0]) for uid in (ALICE, BOB, CAROL))
        made = Shared(room / "coda" / REALM, alice, bob, carol, Person(0, sockets[1]))
        boss = Person(0, sockets[0])
        for person, user in ((alice, "alice"), (bob, "bob"), (boss, "boss"), (made.elsewhere, "alice")):
            info = person.calls("tokens.login", realm=REALM, user=user, password=PASSWORD)
            assert isinstance(info, dict), info
        for name in ("private", "open"):
            assert boss.calls("path.mkdir", path=f"{REALM}/{name}") == {}
        made.set_list(boss, "private", "alice", "all")
        made.set_list(boss, "open", "System:AnyUser", "rl", "alice", "all")
        yield made


def start(stack: ExitStack, room: Path, name: str, mount: bool) -> Path:
    """Start a daemon whose control socket all users reach."""
    place, socket = room / name, room / f"{name}.sock"
    argv = ["mount", "--foreground", "--allow-other", "--socket", str(socket)]
    argv += [
        "--realms",
        str(room / "realms"),
        "--cache-dir",
        str(place / "c"),
        "--state-dir",
        str(place / "s"),
    ]
    if mount:
        (room / "coda").mkdir()
        argv.insert(1, str(room / "coda"))
    else:
        argv.append("--no-kernel")
    point = room / "coda" if mount else None
    words = "mounted on" if mount else "without a mount"
    stack.enter_context(running(room / f"{name}.log", words, point, *argv))
    return socket


class running:  # noqa: N801  # reads as a verb
    """A realmfs program that runs during a `with`."""

    def __init__(self, log: Path, words: str, mount: Path | None, *argv: str) -> None:
        self._log, self._words, self._mount, self._argv = log, words, mount, argv

    def __enter__(self) -> None:
        with self._log.open("wb") as output:
            self._process: subprocess.Popen[Any] = subprocess.Popen(
                [sys.executable, "-m", "realmfs", *self._argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=REPOSITORY,
            )
        limit = time.monotonic() + 30
        while self._words not in self._log.read_text():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < limit, self._log.read_text()
            time.sleep(0.02)

    def __exit__(self, *_: object) -> None:
        if self._mount is not None:
            take_down(self._mount, self._process)
        else:
            self._process.terminate()
            self._process.wait(10)


@pytest.fixture
def warm(shared: Shared) -> Shared:
    """Alice has made and used everything in her directory."""
    private = shared.private

    def use() -> None:
        if not (private / "f").exists():
            (private / "f").write_bytes(SECRET)
            (private / "run").write_text("#!/bin/sh\necho ran\n")
            (private / "run").chmod(0o755)
            (private / "l").symlink_to("f")
            (private / "sub").mkdir()
            (private / "sub" / "g").write_bytes(b"open, but out of reach\n")
        assert sorted(os.listdir(private)) == ["f", "l", "run", "sub"]
        for entry in os.scandir(private):
            entry.stat(follow_symlinks=False)
        assert (private / "f").read_bytes() == SECRET
        assert os.readlink(private / "l") == "f"
        assert subprocess.check_output([private / "run"]) == b"ran\n"
        assert (private / "sub" / "g").read_bytes()
        assert not (private / "none").exists()

    assert shared.alice.does(use) == OK
    shared.set_list(shared.alice, "private/sub", "System:AnyUser", "rl", "alice", "all")
    assert shared.alice.does(use) == OK
    return shared


def ways(private: Path) -> dict[str, Attempt]:
    """Every way into a directory by its names."""
    f = private / "f"
    new = private / "new"
    return {
        "list": lambda: os.listdir(private),
        "open the directory": lambda: os.open(private, os.O_DIRECTORY) and None,
        "chdir": lambda: os.chdir(private),
        "stat": lambda: os.stat(f) and None,
        "stat of a link": lambda: os.lstat(private / "l") and None,
        "stat of no name": lambda: os.stat(private / "none") and None,
        "open": lambda: os.open(f, os.O_RDONLY) and None,
        "open for its path only": lambda: os.open(f, os.O_PATH) and None,
        "open for writing": lambda: os.open(f, os.O_WRONLY) and None,
        "open and cut": lambda: os.open(f, os.O_WRONLY | os.O_TRUNC) and None,
        "readlink": lambda: os.readlink(private / "l"),
        "follow a link": lambda: (private / "l").read_bytes().decode(),
        "exec": lambda: subprocess.check_output([private / "run"]).decode(),
        "getxattr": lambda: os.getxattr(f, "user.coda.fid").decode(),
        "setxattr": lambda: os.setxattr(private, "user.coda.acl", b"bob all"),
        "truncate": lambda: os.truncate(f, 0),
        "chmod": lambda: os.chmod(f, 0o777),
        "utime": lambda: os.utime(f),
        "create": lambda: os.open(new, os.O_CREAT | os.O_WRONLY) and None,
        "create what is there": lambda: os.open(f, os.O_CREAT | os.O_EXCL | os.O_WRONLY) and None,
        "mkdir": lambda: os.mkdir(new),
        "mkdir what is there": lambda: os.mkdir(private / "sub"),
        "symlink": lambda: os.symlink("x", new),
        "hard link": lambda: os.link(f, new),
        "rename": lambda: os.rename(f, new),
        "rename out": lambda: os.rename(f, private.parent / "open" / "f"),
        "rename over": lambda: os.rename(private.parent / "open", private / "sub"),
        "unlink": lambda: os.unlink(f),
        "unlink no name": lambda: os.unlink(private / "none"),
        "rmdir": lambda: os.rmdir(private / "sub"),
        "a name below, open to all": lambda: (private / "sub" / "g").read_bytes().decode(),
        "list below, open to all": lambda: os.listdir(private / "sub"),
    }


def test_another_user_finds_no_name_and_no_byte(warm: Shared) -> None:
    for stranger in (warm.bob, warm.carol):
        assert stranger.tries(ways(warm.private)) == dict.fromkeys(ways(warm.private), "EACCES")
        beside = {
            "its own name": lambda: os.stat(warm.private) and None,
            "statfs": lambda: os.statvfs(warm.private) and None,
            "may he": lambda: [os.access(warm.private, mode) for mode in (os.R_OK, os.W_OK, os.X_OK)],
        }
        assert stranger.tries(beside) == {"its own name": OK, "statfs": OK, "may he": [False] * 3}
    assert warm.alice.does(lambda: (warm.private / "f").read_bytes().decode()) == SECRET.decode()


def test_over_the_control_socket_neither(warm: Shared) -> None:
    place = f"{REALM}/private"
    for stranger in (warm.bob, warm.carol):
        for method, path in (("path.list", place), ("path.stat", f"{place}/f"), ("file.open", f"{place}/f")):
            assert stranger.calls(method, path=path) == "EACCES"
        for method in ("events.watch", "changes.list", "daemon.stop"):
            assert stranger.calls(method) == "EPERM"
        tokens = stranger.calls("tokens.list")["entries"]
        assert [one["uid"] for one in tokens] == [stranger.uid] * len(tokens)
        assert stranger.calls("tokens.list", everybody=True) == "EPERM"


def test_what_an_inherited_descriptor_gives(warm: Shared) -> None:
    """A descriptor is a permission that somebody gave away; what is opened anew is judged anew."""
    opened: dict[str, int] = {}

    def as_alice() -> None:
        be_for_now(ALICE)
        opened["file"] = os.open(warm.private / "f", os.O_RDONLY)
        opened["directory"] = os.open(warm.private, os.O_DIRECTORY)
        os.chdir(warm.private)
        be_for_now(0)

    found = warm.bob.tries(
        {
            "fstat": lambda: os.fstat(opened["file"]).st_size,
            "read": lambda: os.pread(opened["file"], 100, 0).decode(),
            "open anew": lambda: os.open(f"/proc/self/fd/{opened['file']}", os.O_RDONLY) and None,
            "open to write": lambda: os.open(f"/proc/self/fd/{opened['file']}", os.O_WRONLY) and None,
            "open the directory anew": lambda: os.listdir(f"/proc/self/fd/{opened['directory']}"),
            "open a name in it": lambda: os.open("f", os.O_RDONLY, dir_fd=opened["directory"]) and None,
            "stat a name in it": lambda: os.stat("f", dir_fd=opened["directory"]) and None,
            "fchdir": lambda: os.chdir(opened["directory"]),
            "a name in the working directory": lambda: os.stat("f") and None,
            "list the working directory": lambda: os.listdir("."),
            "fsetxattr": lambda: os.setxattr(opened["directory"], "user.coda.acl", b"bob all"),
        },
        before=as_alice,
    )
    given = {"fstat": len(SECRET), "read": SECRET.decode()}
    assert found == dict.fromkeys(found, "EACCES") | given


def test_processes_of_others_are_closed(warm: Shared) -> None:
    reading, writing = os.pipe()
    holder = os.fork()
    if holder == 0:
        become(ALICE)
        os.write(writing, b"%4d" % os.open(warm.private / "f", os.O_RDONLY))
        signal.pause()
    try:
        place = Path(f"/proc/{holder}/fd/{int(os.read(reading, 4))}")
        attempts: dict[str, Attempt] = {
            "open": lambda: os.open(place, os.O_RDONLY),
            "where": lambda: os.readlink(place),
            "list": lambda: os.listdir(place.parent),
        }
        assert set(warm.bob.tries(attempts).values()) <= {"EACCES", "EPERM"}
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        os.close(reading)
        os.close(writing)


def eventually(see: Callable[[], Any], wanted: Any) -> float:
    """Wait until a look gives what is wanted; return for how long."""
    start = time.monotonic()
    while (found := see()) != wanted:
        assert time.monotonic() - start < SOON, found
        time.sleep(0.01)
    return time.monotonic() - start


def test_a_list_changed_by_another_client(warm: Shared) -> None:
    f = warm.private / "f"
    everything = {
        "look": lambda: os.stat(f) and None,
        "read": lambda: f.read_bytes().decode(),
        "list": lambda: sorted(os.listdir(warm.private)) and None,
    }
    shut = dict.fromkeys(everything, "EACCES")
    assert warm.bob.tries(everything) == shut
    warm.set_list(warm.elsewhere, "private", "alice", "all", "bob", "rl")
    given = eventually(lambda: warm.bob.tries(everything)["read"], SECRET.decode())
    assert warm.carol.tries(everything) == shut

    warm.set_list(warm.elsewhere, "private", "alice", "all", "bob", "l")
    partly = eventually(lambda: warm.bob.tries(everything)["read"], "EACCES")
    assert warm.bob.tries(everything) == {"look": OK, "read": "EACCES", "list": OK}, "pages are in the kernel"

    warm.set_list(warm.elsewhere, "private", "alice", "all")
    taken = eventually(lambda: warm.bob.tries(everything), shut)
    print(f"given after {given:.2f} s, reading taken after {partly:.2f} s, all taken after {taken:.2f} s")
    assert warm.alice.tries(everything)["read"] == SECRET.decode()


def test_what_anybody_could_see_is_taken_out_of_the_kernel(warm: Shared) -> None:
    place = warm.top / "open"
    assert warm.alice.does(lambda: (place / "f").write_bytes(b"public") and None) == OK
    sees = {"stat": lambda: os.stat(place / "f") and None, "list": lambda: os.listdir(place)}
    for person in (warm.alice, warm.bob, warm.carol):
        assert person.tries(sees) == {"stat": OK, "list": ["f"]}
    for setter in (warm.elsewhere, warm.alice):
        warm.set_list(setter, "open", "alice", "all")
        for stranger in (warm.bob, warm.carol):
            eventually(partial(stranger.tries, sees), dict.fromkeys(sees, "EACCES"))
        assert warm.alice.tries(sees) == {"stat": OK, "list": ["f"]}
        warm.set_list(setter, "open", "alice", "all", "System:AnyUser", "rl")
        eventually(lambda: warm.bob.tries(sees), {"stat": OK, "list": ["f"]})


def test_after_a_logout_nothing_is_left(warm: Shared) -> None:
    eventually(lambda: warm.alice.calls("daemon.status")["pending"], 0)
    assert len(warm.alice.calls("tokens.logout", realm=REALM)) == 1
    try:
        for person in (warm.alice, warm.bob):
            assert person.tries(ways(warm.private)) == dict.fromkeys(ways(warm.private), "EACCES")
    finally:
        warm.alice.calls("tokens.login", realm=REALM, user="alice", password=PASSWORD)
    assert warm.alice.does(lambda: (warm.private / "f").read_bytes().decode()) == SECRET.decode()


def test_who_may_watch(warm: Shared) -> None:
    """The kernel lets watch what can be reached: the known limit that docs/reference/access.md names."""
    busy = os.fork()
    if busy == 0:
        become(ALICE)
        while True:
            (warm.private / "f").read_bytes()
            (warm.private / "sub" / "g").read_bytes()
            time.sleep(0.02)
    try:
        found = warm.bob.tries(
            {
                "the directory": lambda: names_heard(warm.private, lambda: time.sleep(0.3)),
                "one below": lambda: names_heard(warm.private / "sub", lambda: time.sleep(0.3)),
                "a file": lambda: names_heard(warm.private / "f", lambda: time.sleep(0.3)),
            }
        )
    finally:
        os.kill(busy, signal.SIGKILL)
        os.waitpid(busy, 0)
    assert found["one below"] == found["a file"] == "EACCES"
    assert found["the directory"] in (["f"], "EACCES")


def test_a_list_is_read_and_set_as_an_attribute(warm: Shared) -> None:
    name = "user.coda.acl"
    seen = {
        "look": lambda: os.stat(warm.private / "f") and None,
        "read": lambda: os.listdir(warm.private)[:0],
    }
    assert warm.alice.does(lambda: os.setxattr(warm.private, name, b"alice all\nbob l\n-bob r")) == OK
    try:
        text = warm.bob.does(lambda: os.getxattr(warm.private, name).decode())
        assert sorted(text.splitlines()) == ["-bob r", "alice rlidwka", "bob l"]
        assert warm.bob.tries(seen) == {"look": OK, "read": []}
        assert warm.bob.does(lambda: (warm.private / "f").read_bytes().decode()) == "EACCES"
        wrong = {
            "no such user": lambda: os.setxattr(warm.private, name, b"alice all\nnobody-here rl"),
            "no list": lambda: os.setxattr(warm.private, name, b"alice"),
            "of a file": lambda: os.setxattr(warm.private / "f", name, b"alice all"),
            "taken away": lambda: os.removexattr(warm.private, name),
            "another": lambda: os.setxattr(warm.private, "user.coda.fid", b"1.1.1"),
        }
        assert warm.alice.tries(wrong) == {
            "no such user": "ENOENT",
            "no list": "EINVAL",
            "of a file": "ENOTSUP",
            "taken away": "ENOTSUP",
            "another": "ENOTSUP",
        }
    finally:
        warm.set_list(warm.alice, "private", "alice", "all")
    assert warm.bob.does(lambda: os.stat(warm.private / "f") and None) == "EACCES"
