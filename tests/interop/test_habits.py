"""The reference's own, unmodified tools on our mount: cfs, hoard, clog, ctokens, cunlog."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.ournode import mounted
from bench.rig import OUR_NODE, Rig
from tests.interop.nodes import PASSWORDS, REALM, Place, seconds_until

TOP = f"/coda/{REALM}"


@pytest.fixture(scope="module")
def here(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Our mount where the tools look for it."""
    with mounted(rig, Path("/coda"), tmp_path_factory.mktemp("habits")):
        place = Place(rig, OUR_NODE, TOP)
        place.names()
        yield place
        place.run("cunlog", f"@{REALM}")


def on_terminal(place: Place, command: str) -> str:
    """`hoard` opens /dev/tty before it prints."""
    return place.run("script", "-qec", command, "/dev/null").replace("\r", "")


def test_volumes_servers_and_objects(here: Place, alice: Place) -> None:
    said = here.run("cfs", "lv", ".")
    assert 'named "/"' in said
    assert "Connection State is Reachable" in said
    assert "maximum quota is" in said
    assert "All servers up" in here.run("cfs", "cs")
    assert {f"s{n}.rig.test" for n in (1, 2, 3)} == set(here.run("cfs", "whereis", ".").split())
    assert here.run("cfs", "getfid", "public") == alice.run("cfs", "getfid", "public")
    assert '"solo."' in here.run("cfs", "lsmount", f"{TOP}/solo")


def test_log_in_set_rights_log_out(here: Place, alice: Place) -> None:
    here.run("clog", "-pipe", f"admin@{REALM}", stdin=PASSWORDS["admin"] + "\n")
    assert "501" in here.run("ctokens", f"@{REALM}")
    name = f"h{secrets.token_hex(4)}"
    here.run("mkdir", f"public/{name}")
    here.run("cfs", "sa", f"public/{name}", "bob", "rl")
    ours, theirs = here.run("cfs", "la", f"public/{name}"), alice.run("cfs", "la", f"public/{name}")
    assert "bob" in ours
    assert ours.split() == theirs.split()
    here.run("rmdir", f"public/{name}")
    here.run("cunlog", f"@{REALM}")
    assert "Not Authenticated" in here.run("sh", "-c", f"ctokens @{REALM} || true")  # it exits with 1


def test_off_line_and_back(here: Place) -> None:
    name = f"public/o{secrets.token_hex(4)}"
    here.run("cfs", "disconnect")
    here.run("sh", "-c", f"echo text > {name}")
    assert "still down" in here.run("cfs", "cs")
    assert "pending for reintegration" in here.run("cfs", "lv", "public")
    here.run("cfs", "reconnect")
    assert "All servers up" in here.run("cfs", "cs")
    here.run("cfs", "forcereintegrate", "public")
    assert "pending" not in here.run("cfs", "lv", "public")
    here.run("rm", name)


def test_hoard(here: Place) -> None:
    name = f"public/w{secrets.token_hex(4)}"
    here.run("mkdir", name)
    here.run("sh", "-c", f"echo text > {name}/file")
    here.run("cfs", "forcereintegrate", "public")
    here.run("hoard", "add", f"{TOP}/{name}", "600:d+")
    assert name.rsplit("/", 1)[1] in on_terminal(here, "hoard list")
    on_terminal(here, "hoard walk")
    here.run("cfs", "disconnect")
    assert here.read(f"{name}/file") == b"text\n"
    here.run("cfs", "reconnect")
    here.run("hoard", "delete", f"{TOP}/{name}")
    assert name.rsplit("/", 1)[1] not in on_terminal(here, "hoard list")
    seconds_until(lambda: "All servers up" in here.run("cfs", "cs"), 20)
    here.run("rm", "-r", name)
