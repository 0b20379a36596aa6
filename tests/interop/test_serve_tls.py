"""The embedded realm through TLS: the reference client with its tunnel, and realmfs, which prefers it."""

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.ournode import NodeMount, Served
from bench.rig import OUR_NODE, Rig
from tests.interop.capture import Capture
from tests.interop.nodes import Place, seconds_until

pytestmark = pytest.mark.timeout(120)
ADDRESS = "10.79.0.33"  # one more of the bare node
SERVED = "embedded-tls.test"
CLIENT = "client2"
PASSWORD = "a-long-password"
CONTENTS = {"line": b"one line\n", "large": random.Random(2).randbytes(3_000_001)}
VISIBLE_WITHIN = 5.0


@dataclass(frozen=True)
class Realm:
    """The realm, the reference client's view of it, and every datagram to the file service."""

    server: Served
    theirs: Place
    datagrams: Capture


@pytest.fixture(scope="module")
def realm(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    """The client trusts our authority, and may use nothing but TCP."""
    files = tmp_path_factory.mktemp("served")
    tree = files / "tree"
    tree.mkdir()
    for name, data in CONTENTS.items():
        (tree / name).write_bytes(data)
    number, prefix = CLIENT.removeprefix("client"), os.environ["CODA_PREFIX"]
    rig.exec(OUR_NODE, "ip", "address", "replace", f"{ADDRESS}/24", "dev", "eth0")
    try:
        with (
            Capture(rig, files / "udp.pcap", f"udp port 2432 and host {ADDRESS}") as datagrams,
            Served(rig, SERVED, ADDRESS, files / "server", tree, tls="prefer") as server,
        ):
            server.add_user("alice", PASSWORD)
            rig.shell(CLIENT, f"cat > {prefix}/etc/ssl/ours_CA.crt", stdin=server.authority.read_text())
            rig.control("client", number, "restart", "--init", "--tunnel", "--set", "onlytcp=1")
            rig.shell(CLIENT, f'echo "{SERVED} {ADDRESS}" >> {prefix}/etc/realms')
            yield Realm(server, Place(rig, CLIENT, f"/coda/{SERVED}", "alice"), datagrams)
    finally:
        rig.shell(CLIENT, f"rm -f {prefix}/etc/ssl/ours_CA.crt")
        rig.control("client", number, "restart", "--init", "--no-tunnel")
        rig.exec(OUR_NODE, "ip", "address", "delete", f"{ADDRESS}/24", "dev", "eth0")


def test_the_reference_client_uses_the_realm_through_tls(rig: Rig, realm: Realm) -> None:
    there = realm.theirs
    seconds_until(lambda: there.below("").exists(), 30)
    assert there.names() == sorted(CONTENTS)
    assert {name: there.read(name) for name in CONTENTS} == CONTENTS
    rig.login(CLIENT, "alice", PASSWORD, SERVED)
    data = random.Random(3).randbytes(2_000_000)
    there.run("mkdir", "made")
    there.write("made/large", data)
    there.write("made/small", b"small")
    there.integrate()
    assert "comes through TLSv1." in realm.server.log()


def test_realmfs_prefers_tls_to_a_server_of_its_own_kind(rig: Rig, realm: Realm, tmp_path: Path) -> None:
    """Nothing is said but who vouches for the realm; then all goes through TLS but the first bind."""
    (tmp_path / "coda").mkdir()
    (tmp_path / "ca").mkdir()
    (tmp_path / "ca" / f"{SERVED}.pem").write_bytes(realm.server.authority.read_bytes())
    (tmp_path / "realms").write_text(f"{SERVED} {ADDRESS}\n")
    options = ("--ca-dir", os.fspath(tmp_path / "ca"), "--realms", os.fspath(tmp_path / "realms"))
    mount = NodeMount(rig, tmp_path / "coda", tmp_path / "run", *options)
    try:
        here = Place(rig, OUR_NODE, f"{tmp_path}/coda/{SERVED}")
        assert here.read("large") == CONTENTS["large"]
        seconds_until(lambda: here.below("made/small").exists(), VISIBLE_WITHIN)
        assert here.read("made/large") == random.Random(3).randbytes(2_000_000)
        assert "TLSv1.3" in mount.command("servers")
        there = realm.theirs
        there.run("sh", "-c", "echo more > made/more")
        there.integrate()
        seconds_until(lambda: here.below("made").names() == ["large", "more", "small"], VISIBLE_WITHIN)
    finally:
        mount.stop()


def test_the_reference_client_sent_no_datagram_there(rig: Rig, realm: Realm) -> None:
    realm.datagrams.stop()
    theirs = [line for line in realm.datagrams.lines() if "10.79.0.22" in line]
    assert theirs == []
