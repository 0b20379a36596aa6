"""Away from three real servers and back: the log drains, and the reference client agrees."""

import json
import time
from collections.abc import Iterator

import pytest

from bench.ournode import NodeMount, mounted
from bench.rig import OUR_NODE, Rig
from tests.interop.nodes import REALM, Place, seconds_until
from tests.interop.test_groups import HOSTS, python

FILES = 1000
GIT = ("git", "-c", "safe.directory=*", "-c", "user.name=t", "-c", "user.email=t@rig.test")
DRAINED_WITHIN = 120.0
SEEN_WITHIN = 60.0
COMMAND_WITHIN = 300.0
"""Seconds; the reference client opens some 25 files a second for the first time."""
EQUAL_WITHIN = 5.0
"""Seconds after the drain; other clients have replicas that differ resolved, one by one."""


@pytest.fixture
def mount(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeMount]:
    files = tmp_path_factory.mktemp("ours")
    point = files / "coda"
    point.mkdir()
    with mounted(rig, point, files / "run") as made:
        yield made


def drained(mount: NodeMount) -> float:
    """Wait until nothing waits; return for how many seconds."""
    try:
        return seconds_until(lambda: mount.command("changes", "--json").strip() == "[]", DRAINED_WITHIN)
    except AssertionError:
        print("\n".join(mount.command("changes").splitlines()[:10]), mount.command("status"), sep="\n")
        print(mount.program.log.read_text()[-3000:])
        raise


def differing(rig: Rig, mount: NodeMount, path: str) -> dict[str, object]:
    """Return what differs between the servers in a tree, of each its version by server."""
    stat = json.loads(mount.command("stat", "--json", f"{mount.point}/{REALM}/{path}"))
    compared = json.loads(python(rig, mount, "tests.interop.replicas", stat["details"]["fid"], *HOSTS))
    assert compared["objects"] > FILES
    found: dict[str, object] = compared["differ"]
    return found


def git(place: Place, *argv: str) -> str:
    return place.rig.exec(
        place.node, "env", "-C", place.top, *GIT, *argv, user=place.user, within=COMMAND_WITHIN
    )


def checksum(place: Place) -> str:
    """Return the checksum of all files that git knows."""
    script = f"cd {place.top} && {' '.join(GIT)} ls-files -z | xargs -0 cat | sha256sum"
    return place.rig.shell(place.node, script, user=place.user, within=COMMAND_WITHIN)


@pytest.mark.timeout(540)
def test_a_git_repository_edited_while_split_away(rig: Rig, mount: NodeMount, alice: Place) -> None:
    name = f"public/git{time.time_ns():x}"
    top = Place(rig, OUR_NODE, f"{mount.point}/{REALM}")
    top.run("mkdir", name)
    here = top.below(name)
    here.run(
        "sh",
        "-c",
        f"for d in 0 1 2 3 4 5 6 7 8 9; do mkdir $d; for i in $(seq {FILES // 10}); "
        "do echo $d $i > $d/f$i; done; done",
    )
    git(here, "init", "-q", "-b", "main")
    git(here, "add", ".")
    git(here, "commit", "-q", "-m", "a thousand files")
    print(f"the repository of {FILES} files was at the servers {drained(mount):.1f} s after its commit")
    rig.control("split", OUR_NODE)
    try:
        here.run(
            "sh",
            "-c",
            "for d in 0 1 2; do for f in $d/*; do echo edited >> $f; done; done;"
            " mkdir new; for i in $(seq 50); do echo $i > new/g$i; done;"
            " rm -r 9; mv 8 eight; ln -s new/g1 link; chmod 755 3/f1",
        )
        git(here, "add", "-A")
        git(here, "commit", "-q", "-m", "edited on the way")
        assert git(here, "status", "--porcelain") == ""
        waiting = mount.command("status")
        print(waiting)
        assert mount.command("changes", "--json").strip() != "[]"
    finally:
        rig.control("join")
    print(f"the log had drained {drained(mount):.1f} s after the network was back")
    time.sleep(EQUAL_WITHIN)
    assert differing(rig, mount, name) == {}
    there = Place(rig, "client", f"/coda/{REALM}/{name}", "alice")
    seen = seconds_until(there.exists, SEEN_WITHIN)
    print(f"the reference client saw the repository {seen:.1f} s later")
    assert git(there, "fsck", "--full", "--strict").strip() == ""
    assert git(there, "log", "--format=%H %s") == git(here, "log", "--format=%H %s")
    assert git(there, "log", "--format=%s").splitlines() == ["edited on the way", "a thousand files"]
    assert git(there, "ls-files", "-s") == git(here, "ls-files", "-s")
    assert checksum(there) == checksum(here)
    assert rig.missing() is None, "a server has died"
