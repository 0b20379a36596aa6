"""Our realm on three servers, used by the reference client, while servers of ours die and return."""

import json
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.ournode import MOUNT_PATIENCE, NodeMount, mounted, private_environment, realmfs
from bench.rig import OUR_NODE, NodeProgram, Rig, succeeds
from tests.interop.nodes import Place, seconds_until

ADDRESSES = ("10.79.0.32", "10.79.0.33", "10.79.0.34")  # more of the bare node
NUMBERS = (1, 2, 3)
SERVED = "group.test"
CLIENT = "client2"
PASSWORD = "a-long-password"
NOTICED_WITHIN = 30.0
EQUAL_WITHIN = 60.0
LARGE = random.Random(4).randbytes(3_000_001)

pytestmark = pytest.mark.timeout(240)


@dataclass
class Group:
    """Three servers of ours on the bare node, each a process, and a mount of ours beside them."""

    rig: Rig
    files: Path
    programs: dict[int, NodeProgram]
    mount: NodeMount | None = None

    def start(self, number: int, *options: str) -> None:
        argv = realmfs("serve", "--realm", SERVED, "--data", os.fspath(self.files / "data"), "--verbose")
        argv += ["--server", f"{number}/3", "--address", ADDRESSES[number - 1], "--anyuser", "rl", *options]
        name = f"serve{number}"
        (self.files / f"{name}.log").unlink(missing_ok=True)
        program = NodeProgram(
            self.rig, OUR_NODE, argv, self.files, name, private_environment(self.files / "private")
        )
        self.programs[number] = program
        ready = f"serving {SERVED} as server {number} "
        program.wait_until(
            lambda: ready in program.log.read_text(errors="replace"), MOUNT_PATIENCE, "the start"
        )

    def kill(self, number: int) -> None:
        self.programs[number].signal("KILL")
        self.programs[number].wait(10.0)

    def admin(self, *argv: str, stdin: str = "") -> str:
        data = ("--data", os.fspath(self.files / "data"))
        environment = [f"{key}={value}" for key, value in private_environment(self.files / "private").items()]
        argv = (argv[0], argv[1], *data, *argv[2:])
        return self.rig.exec(OUR_NODE, "env", *environment, *realmfs("admin", *argv), stdin=stdin)

    @property
    def ours(self) -> Place:
        assert self.mount is not None
        return Place(self.rig, OUR_NODE, f"{self.mount.point}/{SERVED}")

    def up(self) -> int:
        """How many servers our mount finds up."""
        assert self.mount is not None
        found: list[dict[str, Any]] = json.loads(self.mount.command("servers", "--check", "--json"))
        return sum(one["state"] == "up" for one in found)

    def replicas(self, path: str) -> list[object]:
        """What each server has of an object, asked one by one."""
        assert self.mount is not None
        stat = json.loads(self.mount.command("stat", "--json", f"{self.mount.point}/{SERVED}/{path}"))
        asked = ("-m", "tests.interop.single", stat["details"]["fid"], *ADDRESSES)
        environment = [f"{key}={value}" for key, value in private_environment(self.files).items()]
        python = realmfs()[0]
        found = json.loads(self.rig.exec(OUR_NODE, "env", *environment, python, *asked))
        return [found[address] for address in ADDRESSES]

    def equal(self, path: str) -> bool:
        found = self.replicas(path)
        return isinstance(found[0], list) and found == [found[0]] * 3


@pytest.fixture(scope="module")
def group(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    files = tmp_path_factory.mktemp("group")
    tree, point = files / "tree", files / "coda"
    for directory in (tree / "sub", point, files / "private"):
        directory.mkdir(parents=True)
    (tree / "line").write_bytes(b"one line\n")
    (tree / "large").write_bytes(LARGE)
    (tree / "sub" / "link").symlink_to("../line")
    line = f"{SERVED} {' '.join(ADDRESSES)}\n"
    (files / "realms").write_text(line)
    for address in ADDRESSES:
        rig.exec(OUR_NODE, "ip", "address", "replace", f"{address}/24", "dev", "eth0")
    made = Group(rig, files, {})
    try:
        made.start(1, "--import", os.fspath(tree))
        made.start(2)
        made.start(3)
        made.admin("user", "add", "--administrator", "alice", stdin=PASSWORD + "\n")
        rig.control("client", CLIENT.removeprefix("client"), "restart", "--init")
        rig.shell(CLIENT, f'echo "{line.strip()}" >> {os.environ["CODA_PREFIX"]}/etc/realms')
        with mounted(rig, point, files / "run", "--realms", os.fspath(files / "realms")) as made.mount:
            yield made
    finally:
        for program in made.programs.values():
            program.stop()
        for address in ADDRESSES:
            succeeds(rig, OUR_NODE, "ip", "address", "delete", f"{address}/24", "dev", "eth0")
        rig.control("client", CLIENT.removeprefix("client"), "restart", "--init")


@pytest.fixture
def theirs(rig: Rig, group: Group) -> Place:
    """The realm as the reference client shows it to alice."""
    there = Place(rig, CLIENT, f"/coda/{SERVED}", "alice")
    seconds_until(lambda: there.below("").exists(), 30)  # its first look may come before it knows our servers
    rig.login(CLIENT, "alice", PASSWORD, SERVED)
    return there


def test_the_reference_client_lists_reads_and_writes(group: Group, theirs: Place) -> None:
    assert theirs.names() == ["large", "line", "sub"]
    assert theirs.read("large") == LARGE
    assert theirs.read("sub/link") == b"one line\n"
    theirs.run("mkdir", "made")
    theirs.write("made/large", LARGE[::-1])
    theirs.write("made/small", b"small")
    theirs.run("mv", "made/small", "made/moved")
    theirs.run("ln", "made/moved", "made/other")
    theirs.integrate()
    seconds_until(group.ours.below("made").exists, NOTICED_WITHIN)
    assert group.ours.names("made") == ["large", "moved", "other"]
    assert group.ours.read("made/large") == LARGE[::-1]
    for path in ("", "made", "made/large", "made/moved"):
        seconds_until(lambda path=path: group.equal(path), EQUAL_WITHIN)  # type: ignore[misc]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_server_dies_and_returns(group: Group, theirs: Place, number: int) -> None:
    name = f"died{number}"
    theirs.run("mkdir", name)
    theirs.write(f"{name}/file", b"before\n")
    theirs.integrate()
    group.kill(number)
    start = time.monotonic()
    theirs.write(f"{name}/file", b"while it was dead\n")
    theirs.write(f"{name}/new", LARGE[:200_000])
    theirs.integrate()
    print(f"server {number} dead: written, and at the others, after {time.monotonic() - start:.1f} s")
    assert theirs.names(name) == ["file", "new"]
    seconds_until(group.ours.below(f"{name}/new").exists, NOTICED_WITHIN)
    assert group.ours.read(f"{name}/file") == b"while it was dead\n"
    group.start(number)
    seconds_until(lambda: group.up() == 3, NOTICED_WITHIN)
    theirs.rig.exec(CLIENT, "cfs", "checkservers", within=60.0)
    theirs.write(f"{name}/again", b"all are back\n")
    theirs.run("rm", f"{name}/new")
    theirs.integrate()
    seconds_until(lambda: group.ours.names(name) == ["again", "file"], NOTICED_WITHIN)
    for path in ("", name, f"{name}/file", f"{name}/again"):
        took = seconds_until(lambda path=path: group.equal(path), EQUAL_WITHIN)  # type: ignore[misc]
        print(f"{path or '/'} is equal at all three after {took:.1f} s")
    assert group.mount is not None
    assert json.loads(group.mount.command("conflicts", "list", "--json")) == []
