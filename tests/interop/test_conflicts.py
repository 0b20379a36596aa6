"""Conflicts with real servers and the reference client: found, shown, settled, and the same for both then."""

import json
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench.ournode import NodeMount, mounted, private_environment, realmfs
from bench.process import StepError
from bench.rig import OUR_NODE, Rig
from tests.interop.fallen import eventually, start_fallen
from tests.interop.nodes import PASSWORDS, REALM, Place
from tests.interop.onebyone import through_each_server

pytestmark = pytest.mark.timeout(480)  # the reference client waits 15 s for each server it has not missed yet
SENT_WITHIN = 30.0
FOUND_WITHIN = 40.0
NOTICED_WITHIN = 30.0  # a server that was cut off


class Ours:
    """Our mount on the bare node, logged in as alice, and the commands that talk to it."""

    def __init__(self, rig: Rig, mount: NodeMount) -> None:
        self.rig = rig
        self.mount = mount
        self.place = Place(rig, OUR_NODE, f"{mount.point}/{REALM}")

    def realmfs(self, *argv: str, stdin: str = "") -> str:
        environment = [f"{key}={value}" for key, value in private_environment(self.mount.files).items()]
        return self.rig.exec(OUR_NODE, "env", *environment, *realmfs(*argv), stdin=stdin)

    def json(self, *argv: str) -> Any:
        return json.loads(self.realmfs(*argv, "--json"))

    def pending(self) -> int:
        return int(self.json("status")["pending"])

    def conflicts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.json("conflicts", "list")
        return found

    def resolve(self, path: str, *argv: str) -> dict[str, Any]:
        (result,) = self.json("conflicts", "resolve", f"{REALM}/{path}", *argv)
        assert isinstance(result, dict)
        return result

    def servers(self, state: str) -> int:
        return sum(one["state"] == state for one in self.json("servers", "--check"))


@pytest.fixture(scope="module")
def ours(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ours]:
    files = tmp_path_factory.mktemp("conflicts")
    point = files / "coda"
    point.mkdir()
    with mounted(rig, point, files / "run") as mount:
        found = Ours(rig, mount)
        found.realmfs("login", f"alice@{REALM}", stdin=PASSWORDS["alice"] + "\n")
        yield found
    rig.control("join")


@pytest.fixture(scope="module")
def alice2(rig: Rig) -> Place:
    """The reference client on the second node."""
    rig.login("client2", "alice", PASSWORDS["alice"])
    return Place(rig, "client2", f"/coda/{REALM}", "alice")


@pytest.fixture
def room(rig: Rig, ours: Ours, alice: Place) -> Iterator[str]:
    """A new directory of alice's with the file `f`, which everybody has seen; its path below the realm."""
    start_fallen(rig)
    path = f"alice/t{secrets.token_hex(4)}"
    alice.run("mkdir", path)
    alice.write(f"{path}/f", b"common\n")
    alice.below(path).integrate()
    eventually(rig, lambda: _has(ours.place.below(path), "f", b"common\n"), 30)
    yield path
    rig.control("join")


def apart(rig: Rig, ours: Ours, work: Callable[[], None], elsewhere: Callable[[], None]) -> None:
    """Do something here and something elsewhere while our node is cut off from everybody."""
    rig.control("split", OUR_NODE)
    try:
        work()
        elsewhere()
    finally:
        rig.control("join")
    eventually(rig, lambda: bool(ours.conflicts()), FOUND_WITHIN)


@pytest.mark.parametrize("keep", ["local", "server", "both"])
def test_two_clients_edit_one_file(rig: Rig, ours: Ours, alice: Place, room: str, keep: str) -> None:
    here, there = ours.place.below(room), alice.below(room)

    def work() -> None:
        here.write("f", b"edited here\n")
        here.run("sh", "-c", "for i in $(seq 100); do echo $i > later$i; done")

    def elsewhere() -> None:
        there.write("f", b"edited by the reference client\n")
        there.integrate()

    apart(rig, ours, work, elsewhere)
    start = time.monotonic()
    (conflict,) = ours.conflicts()
    assert (conflict["kind"], conflict["type"], conflict["path"]) == ("local", "file", f"{REALM}/{room}/f")
    eventually(rig, lambda: ours.pending() == 1, SENT_WITHIN)
    print(
        f"100 later files were sent beside the conflict, {time.monotonic() - start:.1f} s after it was found"
    )
    eventually(rig, lambda: len(there.names()) == 101, SENT_WITHIN)
    assert here.names("f") == ["_localcache", "s1.rig.test", "s2.rig.test", "s3.rig.test"]
    assert here.read("f/_localcache") == b"edited here\n"
    for server in (1, 2, 3):
        assert here.read(f"f/s{server}.rig.test") == b"edited by the reference client\n"
    assert here.run("getfattr", "-n", "user.coda.state", "--only-values", "f") == "conflict"
    with pytest.raises(StepError, match="edited here"):
        ours.realmfs("conflicts", "diff", f"{REALM}/{room}/f")
    result = ours.resolve(f"{room}/f", "--keep", keep)
    assert (result["kind"], result["sent"]) == ("no", True)
    assert ours.conflicts() == []
    wanted = {
        "local": {"f": b"edited here\n"},
        "server": {"f": b"edited by the reference client\n"},
        "both": {"f": b"edited by the reference client\n", "f.local": b"edited here\n"},
    }[keep]
    for place in (here, there):
        for name, data in wanted.items():
            eventually(rig, lambda place=place, name=name, data=data: _has(place, name, data), 20)  # type: ignore[misc]
        assert len([name for name in place.names() if not name.startswith("later")]) == len(wanted)


def _has(place: Place, name: str, data: bytes) -> bool:
    return name in _names(place) and place.read(name) == data


def split_servers(rig: Rig, ours: Ours) -> None:
    """S1 with our node here, s2 and s3 with the second reference client there."""
    rig.control("split", "s2", "s3", "client2")
    rig.exec("client2", "cfs", "checkservers")
    eventually(rig, lambda: ours.servers("down") == 2, NOTICED_WITHIN)


def join_servers(rig: Rig, ours: Ours) -> None:
    rig.control("join")
    rig.exec("client2", "cfs", "checkservers")
    eventually(rig, lambda: ours.servers("up") == 3, NOTICED_WITHIN)


@pytest.mark.parametrize("keep", ["s1.rig.test", "s2.rig.test", "both"])
def test_one_file_is_written_on_both_sides_of_a_split_of_the_servers(
    rig: Rig, ours: Ours, alice2: Place, room: str, keep: str
) -> None:
    here, there = ours.place.below(room), alice2.below(room)
    assert there.read("f") == b"common\n"
    split_servers(rig, ours)
    here.write("f", b"written through s1\n")
    there.write("f", b"written through s2 and s3\n")
    there.integrate()
    eventually(rig, lambda: ours.pending() == 0, SENT_WITHIN)
    join_servers(rig, ours)
    eventually(rig, lambda: "s1.rig.test" in _entries(here, "f"), FOUND_WITHIN)
    servers = ["s1.rig.test", "s2.rig.test", "s3.rig.test"]
    eventually(rig, lambda: _entries(here, "f") == servers, FOUND_WITHIN)
    assert here.read("f/s1.rig.test") == b"written through s1\n"
    for server in (2, 3):
        assert here.read(f"f/s{server}.rig.test") == b"written through s2 and s3\n"
    (conflict,) = ours.conflicts()
    assert (conflict["kind"], conflict["path"]) == ("server", f"{REALM}/{room}/f")
    how = ("--keep", "both") if keep == "both" else ("--keep", "server", "--server", keep)
    result = ours.resolve(f"{room}/f", *how)
    assert result["kind"] == "no"
    if keep == "both":
        (other,) = result["names"]
        contents = {here.read("f"), here.read(other)}
        assert contents == {b"written through s1\n", b"written through s2 and s3\n"}
        kept = here.read("f")
    else:
        kept = b"written through s1\n" if keep.startswith("s1") else b"written through s2 and s3\n"
    assert here.read("f") == kept
    eventually(rig, lambda: _has(there, "f", kept), 20)
    assert versions(rig, alice2, f"{room}/f") == [kept] * 3


def test_both_sides_make_the_same_name_in_one_directory(
    rig: Rig, ours: Ours, alice2: Place, room: str
) -> None:
    here, there = ours.place.below(room), alice2.below(room)
    assert there.names() == ["f"]
    split_servers(rig, ours)
    here.write("same", b"through s1\n")
    here.write("one", b"1\n")
    there.write("same", b"through s2 and s3\n")
    there.write("two", b"2\n")
    there.integrate()
    eventually(rig, lambda: ours.pending() == 0, SENT_WITHIN)
    join_servers(rig, ours)
    above, name = ours.place.below("alice"), room.rpartition("/")[2]
    eventually(rig, lambda: "s1.rig.test" in _entries(above, name), FOUND_WITHIN)
    # What does not collide the servers may have put together before they gave up.
    assert {"f", "one", "same"} <= set(above.names(f"{name}/s1.rig.test"))
    assert {"f", "same", "two"} <= set(above.names(f"{name}/s2.rig.test"))
    assert above.read(f"{name}/s1.rig.test/same") == b"through s1\n"
    assert above.read(f"{name}/s3.rig.test/same") == b"through s2 and s3\n"
    fix = ours.realmfs("conflicts", "fix", f"{REALM}/{room}")
    print(fix)
    assert "replica s1.rig.test" in fix
    result = ours.resolve(room, "--keep", "both")
    assert result["kind"] == "no"
    names = here.names()
    assert {"f", "one", "two", "same"} < set(names)
    (other,) = set(names) - {"f", "one", "two", "same"}
    wanted = {"one": b"1\n", "two": b"2\n", "f": b"common\n"}
    assert {here.read("same"), here.read(other)} == {b"through s1\n", b"through s2 and s3\n"}
    for place in (here, there):
        eventually(rig, lambda place=place: _names(place) == names, 20)  # type: ignore[misc]
        assert {name: place.read(name) for name in wanted} == wanted
    assert there.read("same") == here.read("same")
    assert versions(rig, alice2, f"{room}/{other}") == [here.read(other)] * 3


def versions(rig: Rig, place: Place, path: str) -> list[bytes]:
    """What the reference client reads when it sees only one of the servers, for each of them."""

    def login() -> None:
        rig.login("client2", "alice", PASSWORDS["alice"])

    return through_each_server(rig, 2, lambda: place.read(path), login)


def _names(place: Place) -> list[str]:
    try:
        return place.names()
    except StepError:
        return []


def _entries(place: Place, name: str) -> list[str]:
    """The names in a directory; none if it is something else yet."""
    try:
        return place.names(f"{name}/")
    except StepError:
        return []
