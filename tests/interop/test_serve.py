"""The embedded realm served by realmfs, used by the reference client: mount, list, read, log in, write."""

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from bench.ournode import Served, mounted
from bench.process import StepError
from bench.rig import OUR_NODE, Rig
from tests.interop.nodes import Place, seconds_until

ADDRESS = "10.79.0.32"  # one more of the bare node, so that nobody else serves there
SERVED = "embedded.test"
CLIENT = "client2"
PASSWORD = "a-long-password"
VISIBLE_WITHIN = 5.0
CONTENTS = {
    "empty": b"",
    "line": b"one line\n",
    "page": random.Random(1).randbytes(4096),
    "large": random.Random(2).randbytes(3_000_001),
}


@dataclass(frozen=True)
class Realm:
    """The served realm as the reference client shows it to alice, and as realmfs shows it to nobody."""

    theirs: Place
    ours: Place


@pytest.fixture(scope="module")
def address(rig: Rig) -> Iterator[str]:
    rig.exec(OUR_NODE, "ip", "address", "replace", f"{ADDRESS}/24", "dev", "eth0")
    yield ADDRESS
    rig.exec(OUR_NODE, "ip", "address", "delete", f"{ADDRESS}/24", "dev", "eth0")


@pytest.fixture(scope="module")
def realm(rig: Rig, address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    files = tmp_path_factory.mktemp("served")
    tree = files / "tree"
    (tree / "sub").mkdir(parents=True)
    for name, data in CONTENTS.items():
        (tree / name).write_bytes(data)
    (tree / "sub" / "link").symlink_to("../line")
    (files / "coda").mkdir()
    realms = files / "realms"
    realms.write_text(f"{SERVED} {address}\n")
    with Served(rig, SERVED, address, files / "server", tree) as server:
        server.add_user("alice", PASSWORD)
        rig.control("client", CLIENT.removeprefix("client"), "restart", "--init")
        try:
            rig.shell(CLIENT, f'echo "{SERVED} {address}" >> {os.environ["CODA_PREFIX"]}/etc/realms')
            theirs = Place(rig, CLIENT, f"/coda/{SERVED}", "alice")
            with mounted(rig, files / "coda", files / "run", "--realms", os.fspath(realms)):
                yield Realm(theirs, Place(rig, OUR_NODE, f"{files}/coda/{SERVED}"))
        finally:
            rig.control("client", CLIENT.removeprefix("client"), "restart", "--init")


def test_the_reference_client_lists_and_reads_what_was_imported(realm: Realm) -> None:
    there = realm.theirs
    seconds_until(lambda: there.below("").exists(), 20)  # its first look may come before it knows our server
    assert there.names() == sorted([*CONTENTS, "sub"])
    assert {name: there.read(name) for name in CONTENTS} == CONTENTS
    assert there.run("readlink", "sub/link").strip() == "../line"
    assert there.read("sub/link") == CONTENTS["line"]


def test_the_reference_client_logs_in_and_writes(rig: Rig, realm: Realm) -> None:
    with pytest.raises(StepError):
        rig.login(CLIENT, "alice", "a-wrong-password", SERVED)
    rig.login(CLIENT, "alice", PASSWORD, SERVED)
    there, here = realm.theirs, realm.ours
    data = random.Random(3).randbytes(200_000)
    there.run("mkdir", "made")
    there.write("made/large", data)
    there.write("made/small", b"small")
    there.run("ln", "-s", "small", "made/link")
    there.run("mv", "made/small", "made/moved")
    there.run("ln", "made/moved", "made/other")
    there.integrate()
    seconds_until(lambda: here.below("made").exists(), VISIBLE_WITHIN)
    assert here.names("made") == ["large", "link", "moved", "other"]
    assert here.read("made/large") == data
    assert here.read("made/other") == b"small"
    there.write("made/large", data[::-1])
    there.run("rm", "made/moved")
    there.integrate()
    seconds_until(lambda: here.names("made") == ["large", "link", "other"], VISIBLE_WITHIN)
    seconds_until(lambda: here.read("made/large") == data[::-1], VISIBLE_WITHIN)


def test_the_reference_client_reads_and_sets_access_lists(rig: Rig, realm: Realm) -> None:
    rig.login(CLIENT, "alice", PASSWORD, SERVED)
    there = realm.theirs
    there.run("mkdir", "closed")
    there.integrate()
    there.run("cfs", "setacl", "closed", "System:AnyUser", "none")
    there.run("cfs", "setacl", "closed", "alice", "all")
    listing = there.run("cfs", "listacl", "closed")
    assert "System:AnyUser" not in listing
    assert "alice" in listing
    with pytest.raises(StepError, match="Permission denied"):
        realm.ours.run("ls", "closed")


def test_the_reference_client_sees_a_change_by_another_client(rig: Rig, realm: Realm) -> None:
    rig.login(CLIENT, "alice", PASSWORD, SERVED)
    there = realm.theirs
    there.run("mkdir", "shared")
    there.integrate()
    there.run("cfs", "setacl", "shared", "System:AnyUser", "all")
    assert there.names("shared") == []
    realm.ours.write("shared/ours", b"from realmfs")
    seconds_until(lambda: there.names("shared") == ["ours"], VISIBLE_WITHIN + 15)
    seconds_until(lambda: there.read("shared/ours") == b"from realmfs", VISIBLE_WITHIN)
