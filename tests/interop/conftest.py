"""The rig for tests against real servers and the real client; without it every test here is skipped.

docs/how-to/test-with-real-servers.md tells how to get one running. Tests work in directories of their own,
which they remove again; the rig can be used by one test run at a time.
"""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.ournode import mounted
from bench.rig import OUR_NODE, Rig
from tests.interop.nodes import PASSWORDS, REALM, Place
from tests.interop.people import Person


@pytest.fixture(scope="session")
def rig() -> Rig:
    found = Rig.from_environment()
    reason = found.missing()
    if reason is not None:
        pytest.skip(f"needs three real Coda servers: {reason}")
    return found


@pytest.fixture(scope="module")
def ours(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The realm mounted by realmfs on the bare node, as nobody, found by the node's DNS alone."""
    files = tmp_path_factory.mktemp("ours")
    point = files / "coda"
    point.mkdir()
    with mounted(rig, point, files / "run"):
        yield Place(rig, OUR_NODE, f"{point}/{REALM}")


@pytest.fixture(scope="module")
def alice(rig: Rig) -> Place:
    """The realm as the reference client shows it to alice, who may write."""
    rig.login("client", "alice", PASSWORDS["alice"])
    return Place(rig, "client", f"/coda/{REALM}", "alice")


@pytest.fixture(params=["alice", "solo", "pair"])
def volume(request: pytest.FixtureRequest) -> str:
    """A directory in each of the three volumes: of three replicas, of one, of two. Alice may write there."""
    name: str = request.param
    return name


@pytest.fixture
def written(alice: Place, volume: str) -> Iterator[tuple[Place, str]]:
    """A new directory that alice made in one of the volumes, and its path below the realm."""
    path = f"{volume}/t{secrets.token_hex(4)}"
    alice.run("mkdir", path)
    yield alice.below(path), path
    alice.run("rm", "-rf", path)
    alice.below(volume).integrate()


@pytest.fixture
def public(ours: Place) -> Iterator[str]:
    """A new directory that realmfs made as nobody, where anybody may write; its path below the realm."""
    path = f"public/t{secrets.token_hex(4)}"
    ours.run("mkdir", path)
    yield path
    ours.run("rm", "-rf", path)


@pytest.fixture(scope="module")
def room(rig: Rig) -> Iterator[Path]:
    """A mount that all users of our node may enter."""
    room = Path(tempfile.mkdtemp(prefix="realmfs-login-"))
    room.chmod(0o755)
    point = room / "coda"
    point.mkdir()
    point.chmod(0o755)
    try:
        with mounted(rig, point, room / "run", "--allow-other", "--socket", os.fspath(room / "socket")):
            yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)


@pytest.fixture
def persons(rig: Rig, room: Path) -> Iterator[dict[str, Person]]:
    """Alice, bob and admin, all logged out."""
    found = {name: Person(rig, room, name) for name in PASSWORDS}
    yield found
    for person in found.values():
        person.realmfs("logout")
