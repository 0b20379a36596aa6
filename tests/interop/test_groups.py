"""Three real servers, of which some die: nobody notices, and in the end all hold the same."""

import json
import os
import random
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from bench.ournode import NodeMount, mounted, private_environment
from bench.process import StepError
from bench.rig import OUR_NODE, Rig
from tests.interop.nodes import PASSWORDS, REALM, Place, seconds_until
from tests.interop.onebyone import through_each_server

SIZE = int(os.environ.get("GROUP_TEST_MIB", "512")) << 20
TOGETHER = float(os.environ.get("GROUP_TEST_SECONDS", "300"))
STALL = 3.0
SENT_WITHIN = 200.0
HOSTS = ("10.79.0.11", "10.79.0.12", "10.79.0.13")
SERVERS = (1, 2, 3)
PROMISES = 1000
SLOW = "8mbit"
"""What the servers may send that shall not be the one that data comes from."""
ROUND_TRIPS = 10
TRIES = 3
"""How often a copy is begun until the server that shall die is the one that sends at 30 %."""


@pytest.fixture
def mount(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeMount]:
    files = tmp_path_factory.mktemp("ours")
    point = files / "coda"
    point.mkdir()
    with mounted(rig, point, files / "run", "--cache-size", "2G") as made:
        yield made


def tree(rig: Rig, mount: NodeMount) -> Place:
    return Place(rig, OUR_NODE, f"{mount.point}/{REALM}")


def drained(mount: NodeMount, within: float = SENT_WITHIN) -> float:
    return seconds_until(lambda: mount.command("changes", "--json").strip() == "[]", within)


def up(mount: NodeMount) -> int:
    servers = json.loads(mount.command("servers", "--json"))
    return sum(server["state"] == "up" for server in servers)


def python(rig: Rig, mount: NodeMount, *argv: str, within: float = 200.0) -> str:
    environment = [f"{key}={value}" for key, value in private_environment(mount.files).items()]
    return rig.exec(OUR_NODE, "env", *environment, sys.executable, "-m", *argv, within=within)


def replicas(rig: Rig, mount: NodeMount, path: str) -> dict[str, object]:
    """What each server by itself has of an object: version vector, store id, contents."""
    stat = json.loads(mount.command("stat", "--json", f"{mount.point}/{REALM}/{path}"))
    fid = stat["details"]["fid"]
    found: dict[str, object] = json.loads(python(rig, mount, "tests.interop.single", fid, *HOSTS))
    return found


def assert_equal(rig: Rig, mount: NodeMount, path: str, within: float = 60.0) -> None:
    def equal() -> bool:
        tree(rig, mount).run("ls", "-ld", path)
        found = replicas(rig, mount, path)
        same = all(isinstance(one, list) and one == found[HOSTS[0]] for one in found.values())
        if not same:
            print(path, found)
            time.sleep(1)
        return same

    seconds_until(equal, within)


def sent_bytes(rig: Rig) -> list[int]:
    counters = "cat /sys/class/net/[!l]*/statistics/tx_bytes"
    return [sum(map(int, rig.shell(f"s{n}", counters).split())) for n in (1, 2, 3)]


def limit_sending(rig: Rig, numbers: Iterable[int], rate: str | None) -> None:
    """Let servers send no faster than `rate`; None: as fast as they can."""
    change = f"replace dev $d root tbf rate {rate} burst 128k limit 2m" if rate else "del dev $d root"
    for number in numbers:
        rig.shell(f"s{number}", f"for d in $(ls /sys/class/net | grep -v lo); do tc qdisc {change}; done")


def crash_the_sender(rig: Rig, signal: Path, others: Iterable[int], crashed: list[int]) -> None:
    """At the signal crash whoever sends most, and let the others send as fast as they can from then on."""
    while not signal.exists():
        time.sleep(0.01)
    before = sent_bytes(rig)
    time.sleep(0.1)
    grown = [after - now for now, after in zip(before, sent_bytes(rig), strict=True)]
    number = grown.index(max(grown)) + 1
    rig.control("server", str(number), "crash")
    crashed.append(number)
    limit_sending(rig, others, None)


def differences(one: Path, other: Path) -> list[tuple[int, int]]:
    """The ranges in which two files differ, in blocks of 4 KiB."""
    found: list[tuple[int, int]] = []
    size, at = 4096, 0
    with one.open("rb") as a, other.open("rb") as b:
        while (pair := (a.read(size), b.read(size))) != (b"", b""):
            if pair[0] != pair[1]:
                start = found.pop()[0] if found and found[-1][1] == at else at
                found.append((start, at + size))
            at += size
    return found


@pytest.mark.timeout(1500)
def test_nobody_notices_the_death_of_the_server_that_sends(
    rig: Rig, mount: NodeMount, tmp_path: Path
) -> None:
    top = tree(rig, mount)
    name = f"public/big{time.time_ns():x}"
    source, copy = tmp_path / "source", tmp_path / "copy"
    with source.open("wb") as file:
        for number in range(SIZE >> 20):  # no two blocks are alike: one from another place is seen
            file.write(random.Random(number).randbytes(1 << 20))
    start = time.monotonic()
    top.run("cp", str(source), name)
    print(f"{SIZE >> 20} MiB written: {time.monotonic() - start:.1f} s; sent: {drained(mount):.1f} s")
    for _ in range(ROUND_TRIPS):  # they were long while so much was written, and nobody has asked since
        mount.command("servers", "--check")
    for number in SERVERS:
        for attempt in range(TRIES):
            mount.command("cache", "flush", f"{top.top}/{name}")
            signal = tmp_path / f"signal{number}{attempt}"
            sender, found = _copy_with_a_death(rig, mount, f"{top.top}/{name}", copy, signal, number)
            print(f"s{sender} crashed at 30 %: {found['seconds']:.1f} s for the copy, longest stall "
                  f"{found['gap']:.2f} s at {found['at'] / SIZE:.0%}")  # fmt: skip
            assert differences(source, copy) == []
            assert found["gap"] < STALL
            rig.control("server", str(sender), "start")
            seconds_until(lambda: up(mount) == len(HOSTS), 60.0)
            if sender == number:
                break
        assert sender == number, "each in its turn, the SCM among them"
    top.run("rm", name)
    drained(mount)


def _copy_with_a_death(
    rig: Rig, mount: NodeMount, path: str, copy: Path, signal: Path, number: int
) -> tuple[int, dict[str, float]]:
    """Copy a file, and crash its sender at 30 %: server `number`, since the others are made slow until then.

    Return who it was, and what the copier tells. The client notices within some 15 s for each of the others
    whom it took for faster; that is a tenth of the file at their rate.
    """
    others = [other for other in SERVERS if other != number]
    crashed: list[int] = []
    limit_sending(rig, others, SLOW)
    killer = threading.Thread(target=crash_the_sender, args=(rig, signal, others, crashed))
    killer.start()
    try:
        told = python(rig, mount, "tests.interop.copier", path, os.fspath(copy), os.fspath(signal), "0.3")
    finally:
        signal.touch()
        killer.join()
    found: dict[str, float] = json.loads(told)
    return crashed[0], found


@pytest.mark.timeout(400)
def test_one_server_of_three_is_enough(rig: Rig, mount: NodeMount) -> None:
    top = tree(rig, mount)
    name = f"public/one{time.time_ns():x}"
    top.run("mkdir", name)
    here = top.below(name)
    for number in range(20):
        here.write(f"old{number}", b"%d" % number * 3000)
    drained(mount)
    for left in (1, 2, 3):
        away = [number for number in (1, 2, 3) if number != left]
        for number in away:
            rig.control("server", str(number), "crash")
        start = time.monotonic()
        assert here.read("old3")
        here.write("old4", b"written with s%d alone" % left * 1000)
        here.write(f"new{left}", b"new" * 5000)
        here.run("mkdir", f"dir{left}")
        print(
            f"s{left} alone: read, written in {time.monotonic() - start:.2f} s, sent {drained(mount):.1f} s"
        )
        assert here.read("old4").startswith(b"written with s%d alone" % left)
        for number in away:
            rig.control("server", str(number), "start")
        took = seconds_until(lambda: up(mount) == len(HOSTS), 60.0)
        print(f"all servers are up again for us {took:.1f} s after their start")
        here.run("ls", "-lR")
        for path in ("", "/old4", f"/new{left}", f"/dir{left}"):
            assert_equal(rig, mount, name + path)
    there = Place(rig, "client2", f"/coda/{REALM}/{name}")

    def look() -> tuple[str, str]:
        return there.run("ls", "-R"), there.run("sh", "-c", "sha256sum old* new*")

    wanted = here.run("ls", "-R"), here.run("sh", "-c", "sha256sum old* new*")
    seen = through_each_server(rig, 2, look, lambda: None)
    print(f"{len(here.names())} names through each server alone, sums equal: {seen == [wanted] * 3}")
    assert seen == [wanted] * len(HOSTS)
    top.run("rm", "-r", name)
    drained(mount)


@pytest.fixture
def writer(rig: Rig) -> Iterator[Place]:
    """Alice at the reference client, which sends files to all servers at once and not to one by handle.

    As it comes it has to have every file resolved that it sends, and ends in conflicts of its own beside
    any other writer, its own kind included (docs/reference/protocol-notes.md).
    """
    rig.control("client", "1", "restart", "--init", "--set", "allow_backfetch=1")
    try:
        rig.login("client", "alice", PASSWORDS["alice"])
        yield Place(rig, "client", f"/coda/{REALM}", "alice")
    finally:
        rig.control("client", "1", "restart", "--init")


@pytest.mark.timeout(TOGETHER + 200)
def test_two_clients_fill_one_directory_without_a_conflict(rig: Rig, mount: NodeMount, writer: Place) -> None:
    top = tree(rig, mount)
    name = f"public/both{time.time_ns():x}"
    top.run("mkdir", name)
    drained(mount)
    here, there = top.below(name), writer.below(name)
    seconds_until(lambda: _usable(there), 30.0)  # it was started a moment ago
    script = (  # short names: the reference client sends lengths that end servers (realmfs/vice/detours.py)
        "exec 2>/dev/null; end=$(($(date +%s) + $1)); n=0; bad=0; "
        "while [ $(date +%s) -lt $end ]; do n=$((n+1)); "
        "(echo $0 $n > $0$n) && { [ $((n % 5)) != 0 ] || mv $0$n $0v$n; } || bad=$((bad+1)); "
        "[ $((n % 7)) = 0 ] && rm -f $0$((n-3)); sleep 0.2; done; echo $n $bad"
    )
    counts: dict[str, list[int]] = {}

    def work(place: Place, who: str) -> None:
        inside = f"cd \"$0\" && exec sh -c '{script}' {who} {TOGETHER:.0f}"
        argv = ("sh", "-c", inside, place.top)
        told = place.rig.exec(place.node, *argv, user=place.user, within=TOGETHER + 60)
        counts[who] = [int(word) for word in told.split()]

    theirs = threading.Thread(target=work, args=(there, "t"))
    theirs.start()
    work(here, "o")
    theirs.join()
    assert counts.keys() == {"o", "t"}, "the servers may have died (docs/reference/protocol-notes.md)"
    print(f"names made, and failures, here {counts['o']}, at the reference client {counts['t']}")
    assert counts["o"][1] == 0
    there.integrate()
    print(f"drained in {drained(mount):.1f} s")
    assert json.loads(mount.command("conflicts", "list", "--json")) == []
    seconds_until(lambda: here.names() == there.names(), 60.0)
    print(f"{len(here.names())} names on both sides")
    assert_equal(rig, mount, name)
    top.run("sh", "-c", f"rm -rf '{top.top}/{name}'")
    drained(mount)


def _usable(place: Place) -> bool:
    try:
        place.run("touch", "try")
    except StepError:
        return False
    return True


@pytest.mark.parametrize("how", ["unmount", "disconnect", "kill", "kill and start again"])
@pytest.mark.timeout(200)
def test_who_leaves_delays_no_writer(rig: Rig, mount: NodeMount, alice: Place, how: str) -> None:
    top = tree(rig, mount)
    name = f"public/many{time.time_ns():x}"
    top.run("mkdir", name)
    top.below(name).run("sh", "-c", f"for i in $(seq {PROMISES}); do echo $i > f$i; done")
    print(f"{PROMISES} files sent: {drained(mount):.1f} s")
    top.below(name).run("sh", "-c", "ls -l > /dev/null; cat f* > /dev/null")
    there = alice.below(name)
    seconds_until(there.exists, 30.0)
    there.run("cat", "f17")
    there.write("before", b"servers that were restarted lately are waited for here, and not below")
    there.integrate()
    if how.startswith("kill"):
        inner = (mount.files / "mount.pid").read_text().strip()
        rig.exec(OUR_NODE, "kill", "-KILL", inner)
        rig.exec(OUR_NODE, "umount", "-l", os.fspath(mount.point))
    else:
        mount.command(how)
    again = NodeMount(rig, mount.point, mount.files) if how.endswith("again") else None
    time.sleep(2.0)  # for the new run to take leave in the name of the old one
    start = time.monotonic()
    there.write("f17", b"written when the other had gone")
    there.integrate()
    spent = time.monotonic() - start
    print(f"{how}: the reference client's write was at the servers after {spent:.2f} s")
    if again is not None:
        again.stop()
    if how != "kill":
        assert spent < 3.0
