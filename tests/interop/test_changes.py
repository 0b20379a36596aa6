"""What waits for real servers: given up with a copy kept, made again, and sent right after a login."""

import json
import secrets
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

from bench.ournode import NodeMount, mounted
from bench.rig import OUR_NODE, Rig
from tests.interop.nodes import PASSWORDS, REALM, Place, seconds_until

HELD = "100000"
SENT_WITHIN = 20.0


@pytest.fixture(scope="module")
def mount(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeMount]:
    files = tmp_path_factory.mktemp("ours")
    point = files / "coda"
    point.mkdir()
    with mounted(rig, point, files / "run") as made:
        login(made)
        yield made


def login(mount: NodeMount) -> None:
    mount.command("login", f"alice@{REALM}", stdin=PASSWORDS["alice"] + "\n")


def waiting(mount: NodeMount) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(mount.command("changes", "--json"))
    return found


@pytest.fixture
def room(rig: Rig, mount: NodeMount) -> Iterator[str]:
    """A directory of alice's in which the servers have the file `f`; its path below the realm."""
    path = f"alice/c{secrets.token_hex(4)}"
    here = Place(rig, OUR_NODE, f"{mount.point}/{REALM}")
    here.run("mkdir", path)
    here.write(f"{path}/f", b"at the servers\n")
    mount.command("changes", "send")
    yield path
    mount.command("writeback", "--age", "0")
    here.run("rm", "-rf", path)
    mount.command("changes", "send")


def test_changes_are_given_up_and_made_again(rig: Rig, mount: NodeMount, room: str, alice: Place) -> None:
    here, there = Place(rig, OUR_NODE, f"{mount.point}/{REALM}/{room}"), alice.below(room)
    mount.command("writeback", "--age", HELD)
    here.write("f", b"changed here\n")
    here.write("new", b"made here\n")
    here.write("kept", b"sent later\n")
    here.run("mkdir", "d")
    assert {one["path"] for one in waiting(mount)} == {
        f"{REALM}/{room}/{name}" for name in ("f", "new", "kept", "d")
    }
    unwanted = [one["sequence"] for one in waiting(mount) if not one["path"].endswith("kept")]
    said = mount.command("changes", "discard", "--yes", "--json", *map(str, unwanted))
    given_up = json.loads(said[said.index("[") :])  # behind what goes to standard error
    assert len(given_up) < len(unwanted), "what rests on a change goes with it"
    assert here.names() == ["f", "kept"]
    assert here.read("f") == b"at the servers\n"
    assert {one["path"] for one in waiting(mount)} == {f"{REALM}/{room}/kept"}
    contents = []
    for one in given_up:
        with tarfile.open(one["file"]) as archive:
            contents += [file.read() for part in archive if (file := archive.extractfile(part))]
    assert {b"changed here\n", b"made here\n"} <= set(contents)
    mount.command("changes", "send")
    assert there.names() == ["f", "kept"]
    assert there.read("f") == b"at the servers\n"
    for one in given_up:
        mount.command("changes", "import", one["file"])
    mount.command("changes", "send")
    assert waiting(mount) == []
    seconds_until(lambda: there.names() == ["d", "f", "kept", "new"], SENT_WITHIN)
    assert there.read("f") == b"changed here\n"


def test_what_waits_for_a_login_goes_right_after_it(
    rig: Rig, mount: NodeMount, room: str, alice: Place
) -> None:
    here, there = Place(rig, OUR_NODE, f"{mount.point}/{REALM}/{room}"), alice.below(room)
    mount.command("writeback", "--age", HELD)
    here.write("f", b"written with a token\n")
    mount.command("logout", f"{REALM}")
    try:
        mount.command("writeback", "--age", "0")
        (one,) = waiting(mount)
        assert "login" in one["state"]
        assert there.read("f") == b"at the servers\n"
    finally:
        login(mount)
    print(f"sent {seconds_until(lambda: not waiting(mount), SENT_WITHIN):.2f} s after the login")
    seconds_until(lambda: there.read("f") == b"written with a token\n", SENT_WITHIN)
    assert here.read("f") == b"written with a token\n"
