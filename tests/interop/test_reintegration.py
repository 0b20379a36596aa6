"""The log on its way to real servers: beside large stores, past conflicts, with the cable cut."""

import secrets
import time
from collections.abc import Iterator
from functools import partial

import pytest

from bench.ournode import NodeMount
from bench.rig import OUR_NODE, REALM, Rig
from tests.interop.nodes import PASSWORDS, Place, seconds_until

pytestmark = pytest.mark.timeout(240)  # each step starts programs on other nodes
SENT_WITHIN = 60.0
SUMS = ("sh", "-c", "find . -type f -print0 | sort -z | xargs -0 sha256sum")


@pytest.fixture
def client(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeMount]:
    """A mount of this test's own; root on its node is alice to the servers."""
    files = tmp_path_factory.mktemp("sender")
    point = files / "coda"
    point.mkdir()
    mount = NodeMount(rig, point, files / "run")
    try:
        rig.exec(OUR_NODE, "ls", f"{point}/{REALM}")
        mount.command("login", f"alice@{REALM}", stdin=PASSWORDS["alice"] + "\n")
        yield mount
    finally:
        rig.control("join")
        mount.stop()


@pytest.fixture
def here(rig: Rig, client: NodeMount) -> Iterator[Place]:
    """A new directory of alice's, as realmfs shows it."""
    top = Place(rig, OUR_NODE, f"{client.point}/{REALM}/alice")
    name = f"t{secrets.token_hex(4)}"
    top.run("mkdir", name)
    yield top.below(name)
    top.run("rm", "-rf", name)


def there(here: Place, alice: Place) -> Place:
    """The same directory, as the reference client shows it."""
    return alice.below("alice/" + here.top.rpartition("/")[2])


def same(one: Place, other: Place) -> bool:
    return other.exists() and one.run(*SUMS) == other.run(*SUMS)


def servers_live(rig: Rig) -> bool:
    return rig.missing() is None


def test_five_hundred_records_go_beside_a_store_of_200_mib(
    rig: Rig, client: NodeMount, here: Place, alice: Place
) -> None:
    here.run("sh", "-c", "head -c 209715200 /dev/urandom > big")
    here.run("sh", "-c", "for i in $(seq 250); do echo $i > small$i; done")
    far = there(here, alice)
    beside = seconds_until(lambda: far.exists() and len(far.names()) == 251, SENT_WITHIN)
    early = far.run("stat", "-c", "%s", "big").strip() == "0"
    client.command("changes", "send", "--within", "120")
    seconds_until(partial(same, here, far), SENT_WITHIN)
    print(f"500 records were there after {beside:.1f} s, {'before' if early else 'with'} the large store")
    assert servers_live(rig)


def test_a_conflict_is_held_while_a_hundred_records_go(
    rig: Rig, client: NodeMount, here: Place, alice: Place
) -> None:
    here.write("both", b"common\n")
    client.command("changes", "send")
    far = there(here, alice)
    seconds_until(lambda: far.exists() and far.read("both") == b"common\n", SENT_WITHIN)
    client.command("disconnect")
    here.write("both", b"by realmfs\n")
    here.run("sh", "-c", "for i in $(seq 50); do echo $i > later$i; done")
    far.write("both", b"by the reference client\n")
    far.integrate()
    client.command("reconnect")
    seconds_until(lambda: len(far.names()) == 51, SENT_WITHIN)
    seconds_until(lambda: far.read("later50") == b"50\n", SENT_WITHIN)
    assert far.read("both") == b"by the reference client\n"
    assert "EINCOMPATIBLE" in client.command("changes")
    assert here.read("both/_localcache") == b"by realmfs\n", "nothing is lost"
    assert servers_live(rig)
    client.command("conflicts", "resolve", "--keep", "server", "--all")
    seconds_until(lambda: here.read("both") == b"by the reference client\n", SENT_WITHIN)


@pytest.mark.parametrize("wait", [0.1, 0.6])
def test_the_cable_cut_while_servers_fetch_back(
    rig: Rig, client: NodeMount, here: Place, alice: Place, wait: float
) -> None:
    client.command("writeback", "--age", "10000")
    here.run("sh", "-c", "for i in $(seq 30); do head -c 2000000 /dev/urandom > f$i; done")
    client.command("writeback", "--age", "0")
    time.sleep(wait)
    rig.control("split", OUR_NODE)
    time.sleep(5.0)
    rig.control("join")
    seconds_until(partial(same, here, there(here, alice)), SENT_WITHIN)
    assert there(here, alice).run("find", ".", "-type", "l") == "", "no conflict"
    assert servers_live(rig)
