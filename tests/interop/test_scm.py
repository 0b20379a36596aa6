"""With the SCM away (s1, which takes changes of passwords and of volumes) everything else goes on."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.ournode import NodeMount, mounted
from bench.process import StepError
from bench.rig import OUR_NODE, Rig
from tests.interop.nodes import PASSWORDS, REALM, Place, seconds_until
from tests.interop.test_groups import HOSTS, assert_equal, drained, up

SCM = "1"
FOUND_WITHIN = 10.0


@pytest.fixture
def without(rig: Rig, alice: Place, tmp_path: Path) -> Iterator[NodeMount]:
    """Our mount, started when the SCM was away already."""
    there = alice.below("alice")
    there.write("before", b"written before\n")
    there.integrate()
    rig.control("server", SCM, "partition")
    point = tmp_path / "coda"
    point.mkdir()
    try:
        start = time.monotonic()
        with mounted(rig, point, tmp_path / "run") as mount:
            print(f"mounted: {time.monotonic() - start:.2f} s")
            yield mount
    finally:
        rig.control("server", SCM, "heal")


def timed(what: str, start: float) -> None:
    print(f"{what}: {time.monotonic() - start:.2f} s")


@pytest.mark.timeout(240)
def test_only_passwords_wait_for_the_scm(rig: Rig, without: NodeMount) -> None:
    here = Place(rig, OUR_NODE, f"{without.point}/{REALM}/alice")
    start = time.monotonic()
    assert "before" in here.names()
    timed("the first lookup", start)
    start = time.monotonic()
    without.command("login", f"alice@{REALM}", stdin=PASSWORDS["alice"] + "\n")
    timed("login", start)
    start = time.monotonic()
    assert here.read("before") == b"written before\n"
    timed("read", start)
    start = time.monotonic()
    name = f"scm{time.time_ns():x}"
    here.run("mkdir", name)
    here.write(f"{name}/file", b"without the SCM\n" * 1000)
    here.run("rm", "before")
    timed("written", start)
    print(f"sent: {drained(without):.1f} s")
    start = time.monotonic()
    with pytest.raises(StepError, match="read-only now"):
        without.command("passwd", f"alice@{REALM}", stdin=f"{PASSWORDS['alice']}\nanother1\n")
    timed("passwd refused", start)
    rig.control("server", SCM, "heal")
    print(f"the SCM is back for us after {seconds_until(lambda: up(without) == len(HOSTS), 60.0):.1f} s")
    for path in (name, f"{name}/file"):
        assert_equal(rig, without, f"alice/{path}")
    here.run("rm", "-r", name)
    drained(without)


@pytest.mark.timeout(120)
def test_servers_tells_who_is_up_and_how(rig: Rig, tmp_path: Path) -> None:
    point = tmp_path / "coda"
    point.mkdir()
    with mounted(rig, point, tmp_path / "run") as mount:
        here = Place(rig, OUR_NODE, f"{point}/{REALM}")
        here.run("ls", "-l")
        seconds_until(lambda: up(mount) == len(HOSTS), FOUND_WITHIN)
        rig.control("server", "3", "crash")
        try:
            start = time.monotonic()
            print(mount.command("servers", "--check"))
            timed("servers --check with one dead", start)
            found = {one["address"].partition(":")[0]: one for one in _servers(mount)}
        finally:
            rig.control("server", "3", "start")
        assert [found[host]["state"] for host in HOSTS] == ["up", "up", "down"]
        assert found[HOSTS[2]]["reason"]
        for host in HOSTS[:2]:
            one = found[host]
            assert one["round_trip"] < 1.0
            assert one["callbacks"] > 0
            assert one["last_heard"] < FOUND_WITHIN
            assert "AES" in one["protection"]
        mount.command("servers", "--check")
        print(mount.command("servers"))
        seconds_until(lambda: up(mount) == len(HOSTS), FOUND_WITHIN)


def _servers(mount: NodeMount) -> list[dict[str, Any]]:
    answer: list[dict[str, Any]] = json.loads(mount.command("servers", "--json"))
    return answer
