"""The reference's own, unmodified tools on our mount: cfs, hoard, clog, ctokens, cunlog, codacon."""

import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.ournode import mounted
from bench.rig import OUR_NODE, Rig
from tests.interop.nodes import PASSWORDS, REALM, Place, seconds_until

TOP = f"/coda/{REALM}"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where our daemon keeps everything, its sockets in `realmfs`."""
    return tmp_path_factory.mktemp("habits")


@pytest.fixture(scope="module")
def here(rig: Rig, files: Path) -> Iterator[Place]:
    """Our mount where the tools look for it."""
    with mounted(rig, Path("/coda"), files):
        place = Place(rig, OUR_NODE, TOP)
        seconds_until(place.exists, 20)  # something else may be mounted there: that ours is does not say much
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
    found = re.search(r"[0-9a-f]+\.[0-9a-f]+\.[0-9a-f]+@\S+", here.run("cfs", "getfid", "public"))
    assert found is not None
    assert "public" in here.run("cfs", "getpath", found[0])
    here.run("cfs", "waitforever", "-on", REALM)
    here.run("cfs", "waitforever", "-off", REALM)


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


def test_codacon(here: Place, files: Path) -> None:
    """It shows what we do, and finds us by the socket in its venus.conf."""
    (files / "venus.conf").write_text(f'marinersocket="{files / "realmfs" / "control.events"}"\n')
    shown = files / "codacon.log"
    here.run("sh", "-c", f"CODACONFPATH={files} timeout 60 codacon > {shown} 2>&1 &")
    name = f"public/c{secrets.token_hex(4)}"

    def said() -> bool:
        here.run("sh", "-c", f"echo text >> {name}")
        here.run("cfs", "forcereintegrate", "public")
        return "Reintegrate" in shown.read_text()

    seconds_until(said, 30)
    here.run("rm", name)
    lines = shown.read_text().splitlines()
    assert all(re.search(r" \( \d\d:\d\d:\d\d \)$", line) for line in lines), lines
    assert not any("::" in line.split(" ")[0] for line in lines), "it takes the kind away"
