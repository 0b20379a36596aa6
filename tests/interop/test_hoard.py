"""Hoarding a tree of three volumes from real servers, and living on it when they have gone."""

import hashlib
import json
import random
import secrets
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench.ournode import NodeMount, mounted
from bench.rig import OUR_NODE, Rig
from tests.interop.nodes import REALM, Place, seconds_until

VOLUMES = {"alice": 1800, "solo": 1600, "pair": 1600}
"""Files in each volume: 5 000 in all."""
PER_DIRECTORY = 100


@pytest.fixture(scope="module")
def source() -> Iterator[Path]:
    """A tree for each volume, on the local disk, where everybody may look."""
    contents = random.Random(2026)
    with tempfile.TemporaryDirectory(prefix="realmfs-hoard-") as name:
        top = Path(name)
        top.chmod(0o755)
        for volume, files in VOLUMES.items():
            for number in range(files):
                file = top / volume / f"d{number // PER_DIRECTORY:02d}" / f"f{number:04d}"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(contents.randbytes(contents.choice([0, 100, 2000, 5000])))
            (top / volume / "large").write_bytes(contents.randbytes(1_000_000))
        yield top


@pytest.fixture
def tree(alice: Place, source: Path) -> str:
    """The trees in their volumes, written by the reference client; the name that each has there.

    They stay: after a split the reference client takes minutes to remove some thousand files.
    """
    name = f"h{secrets.token_hex(4)}"
    for volume in VOLUMES:
        alice.run("cp", "-r", str(source / volume), f"{volume}/{name}", within=180.0)
        alice.below(volume).integrate()
    return name


@pytest.fixture
def hoarder(rig: Rig, tmp_path: Path) -> Iterator[NodeMount]:
    """A mount with an empty cache of its own."""
    point = tmp_path / "coda"
    point.mkdir()
    with mounted(rig, point, tmp_path / "run") as mount:
        yield mount


@pytest.mark.timeout(580)
def test_a_tree_of_three_volumes_is_there_without_servers(
    rig: Rig, alice: Place, tree: str, source: Path, hoarder: NodeMount
) -> None:
    hoarder.command("hoard", "add", f"/coda/{REALM}", "600:d+")
    assert _walk(hoarder) >= sum(VOLUMES.values())
    for volume in VOLUMES:
        alice.write(f"{volume}/{tree}/new", volume.encode() * 1000)
        alice.run("mkdir", f"{volume}/{tree}/later")
        alice.write(f"{volume}/{tree}/later/deep", b"deep in " + volume.encode())
        alice.below(volume).integrate()
    assert _walk(hoarder) >= 6, "the new files came without being asked for"
    for server in ("1", "2", "3"):
        rig.control("server", server, "partition")
    try:
        _compare(rig, hoarder, source, tree)
    finally:
        rig.control("join")
    seconds_until(lambda: _up(hoarder), 120.0)


def _walk(mount: NodeMount) -> int:
    """Walk once, after which nothing may be missing; return how many objects came.

    The reference client leaves what it writes at one server of a group, to be made equal later: of such
    files nobody promises anything, but what is newest is known.
    """
    walks = int(_status(mount)["walks"]) + 1
    mount.command("hoard", "walk", "--background")
    seconds_until(partial(_has_walked, mount, walks), 180.0)
    status = _status(mount)
    last = status["last"]
    print(f"walked {last['files']} objects, {last['bytes']} bytes in {last['seconds']:.2f} s")
    assert status["ready"], f"{status['missing']} are missing: {status['reasons']}"
    mount.command("hoard", "verify")  # exit status 0: one may go
    return int(last["files"])


def _has_walked(mount: NodeMount, walks: int) -> bool:
    return int(_status(mount)["walks"]) >= walks


def _status(mount: NodeMount) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(mount.command("hoard", "status", "--json"))
    return status


def _up(mount: NodeMount) -> bool:
    servers = json.loads(mount.command("servers", "--check", "--json"))
    return bool(servers) and all(server["state"] == "up" for server in servers)


def _compare(rig: Rig, mount: NodeMount, source: Path, tree: str) -> None:
    """`find | xargs sha256sum` over the hoarded trees equals the source and what came later."""
    for volume in VOLUMES:
        here = Place(rig, OUR_NODE, f"{mount.point}/{REALM}/{volume}/{tree}")
        listed = here.run("sh", "-c", "find . -type f -print0 | xargs -0 sha256sum")
        found = {line.split(maxsplit=1)[1]: line.split()[0] for line in listed.splitlines()}
        wanted = {
            f"./{file.relative_to(source / volume)}": hashlib.sha256(file.read_bytes()).hexdigest()
            for file in (source / volume).rglob("*")
            if file.is_file()
        }
        wanted["./new"] = hashlib.sha256(volume.encode() * 1000).hexdigest()
        wanted["./later/deep"] = hashlib.sha256(b"deep in " + volume.encode()).hexdigest()
        assert found == wanted
