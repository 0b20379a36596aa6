"""realmfs over three real servers, with the reference client as the other user of the same realm."""

import random
import secrets
from functools import partial

import pytest

from bench.rig import Rig
from tests.interop.nodes import Place, seconds_until
from tests.seeds import first_seed

VISIBLE_WITHIN = 1.0
"""Seconds from the reference client's word that a change is at the servers until it shows here."""
SENT_WITHIN = 20.0
"""Seconds until what was written here is at the servers."""
ROUNDS = 8
SIZES = [0, 1, 2047, 2048, 4096, 65_537, 3_000_001]


def test_root_is_found_by_dns_and_listed(ours: Place, alice: Place) -> None:
    assert {"alice", "bob", "pair", "public", "solo"} <= set(ours.names())
    assert ours.names() == alice.names()


def test_files_of_every_volume_come_byte_for_byte(ours: Place, written: tuple[Place, str]) -> None:
    theirs, path = written
    source = random.Random(1987)
    contents = {f"size-{size}": source.randbytes(size) for size in SIZES}
    for name, data in contents.items():
        theirs.write(name, data)
    theirs.run("mkdir", "sub")
    theirs.run("ln", "-s", "../size-1", "sub/link")
    theirs.integrate()
    here = ours.below(path)
    assert here.names() == sorted([*contents, "sub"])
    assert {name: here.read(name) for name in contents} == contents
    assert here.run("readlink", "sub/link").strip() == "../size-1"
    assert here.read("sub/link") == contents["size-1"]
    for name, data in contents.items():
        assert here.run("stat", "-c", "%s", name).strip() == str(len(data))


def test_attributes_are_those_that_the_reference_client_shows(
    ours: Place, written: tuple[Place, str]
) -> None:
    theirs, path = written
    theirs.write("script", b"#!/bin/sh\n")
    theirs.run("chmod", "755", "script")
    theirs.run("touch", "-d", "@1000000000", "script")
    theirs.integrate()
    wanted = ("stat", "-c", "%A %Y %s %F", "script")
    assert ours.below(path).run(*wanted) == theirs.run(*wanted)


def test_a_file_written_here_has_the_same_bytes_there(ours: Place, alice: Place, public: str) -> None:
    data = random.Random(1995).randbytes(300_000)
    ours.below(public).write("ours", data)
    there = alice.below(public)
    seconds_until(lambda: _same(there, "ours", data), SENT_WITHIN)
    assert ours.below(public).read("ours") == data


def test_names_changed_here_are_changed_there(ours: Place, alice: Place, public: str) -> None:
    here, there = ours.below(public), alice.below(public)
    here.run("mkdir", "a", "b")
    here.write("a/old", b"text")
    here.run("mv", "a/old", "b/new")
    here.run("ln", "-s", "new", "b/link")
    here.run("ln", "b/new", "b/other")
    here.run("rmdir", "a")
    seconds_until(lambda: _names(there) == ["b"], SENT_WITHIN)
    seconds_until(lambda: _names(there.below("b")) == ["link", "new", "other"], SENT_WITHIN)
    assert there.read("b/link") == b"text"
    assert there.run("stat", "-c", "%h", "b/new").strip() == "2"


def test_a_change_made_there_shows_here_within_a_second(ours: Place, written: tuple[Place, str]) -> None:
    theirs, path = written
    theirs.write("file", b"first")
    theirs.integrate()
    here = ours.below(path)
    assert here.read("file") == b"first"
    theirs.write("file", b"the second version")
    theirs.integrate()
    spent = seconds_until(lambda: here.read("file") == b"the second version", VISIBLE_WITHIN)
    print(f"the new contents showed after {spent:.2f} s")
    theirs.run("sh", "-c", "echo x > second; rm file")
    theirs.integrate()
    spent = seconds_until(lambda: here.names() == ["second"], VISIBLE_WITHIN)
    print(f"the new name showed after {spent:.2f} s")


def test_large_and_many_files_written_here_are_the_same_there(ours: Place, alice: Place, public: str) -> None:
    here, there = ours.below(public), alice.below(public)
    here.run("sh", "-c", "head -c 31457280 /dev/urandom > large; mkdir many")
    here.run("sh", "-c", "cd many; for i in $(seq 300); do echo $i > f$i; done; mv f1 g1; rm f2; ln f3 h3")
    sums = ("sh", "-c", "find . -type f -print0 | sort -z | xargs -0 sha256sum")
    wanted = here.run(*sums)
    assert wanted.count("\n") == 301
    seconds_until(lambda: there.exists() and there.run(*sums) == wanted, SENT_WITHIN)


@pytest.mark.parametrize(
    ("step", "name"),
    [("touch", 17), ("touch", 18), ("touch", 19), ("mkdir", 18), ("rm", 42), ("rmdir", 58), ("mv", 23)],
)
def test_names_of_every_length_leave_the_servers_alive(
    rig: Rig, ours: Place, alice: Place, public: str, step: str, name: int
) -> None:
    """Some lengths kill reference servers at the next change of the directory (vice/detours.py)."""
    here, there = ours.below(public), alice.below(public)
    first, long = ("mkdir" if step == "rmdir" else "touch"), "n" * name
    script = f"{step} {long}" if step in ("touch", "mkdir") else f"{first} {long}; {step} {long}"
    here.run("sh", "-c", f"{script} x" if step == "mv" else script)
    for later in ("one", "two"):
        here.run("touch", later)
        seconds_until(partial(_has, there, later), SENT_WITHIN)
    assert there.names() == here.names()
    assert rig.missing() is None


@pytest.mark.timeout(300)
def test_files_overwritten_in_turn_are_read_old_or_new_never_short(
    ours: Place, alice: Place, public: str
) -> None:
    here, there = ours.below(public), alice.below(public)
    source = random.Random(first_seed())
    seconds_until(there.exists, SENT_WITHIN)
    held: dict[str, bytes] = {}
    for turn in range(ROUNDS):
        writer, reader = (here, there) if turn % 2 else (there, here)
        new = {
            f"f{n}": source.randbytes(source.choice([1, 700, 4096, 70_000]))
            for n in source.sample(range(20), 6)
        }
        for name, data in new.items():
            writer.write(name, data)
        if writer is there:
            there.integrate()
        for name in sorted({*new, *source.sample(sorted(held), len(held) // 2)}):
            old, wanted = held.get(name), new.get(name, held.get(name))
            within = VISIBLE_WITHIN if reader is here else SENT_WITHIN

            def arrived(name: str = name, old: bytes | None = old, wanted: bytes | None = wanted) -> bool:
                found = reader.read(name) if name in _names(reader) else None  # noqa: B023 - asked in this turn
                assert found in (old, wanted), f"{name} has {len(found or b'')} other bytes in turn {turn}"  # noqa: B023
                return found == wanted

            seconds_until(arrived, within)
        held |= new


def test_both_clients_change_different_names_of_one_directory(ours: Place, alice: Place, public: str) -> None:
    here, there = ours.below(public), alice.below(public)
    seconds_until(there.exists, SENT_WITHIN)
    for round_ in range(3):
        here.run("sh", "-c", f"for i in 1 2 3; do echo o > o{round_}$i; mv o{round_}$i p{round_}$i; done")
        there.run("sh", "-c", f"for i in 1 2 3; do echo t > t{round_}$i; mv t{round_}$i u{round_}$i; done")
        there.integrate()
    wanted = sorted(f"{kind}{round_}{i}" for kind in "pu" for round_ in range(3) for i in (1, 2, 3))
    seconds_until(lambda: here.names() == wanted, VISIBLE_WITHIN)
    seconds_until(lambda: _names(there) == wanted, SENT_WITHIN)
    assert there.run("find", ".", "-type", "l") == "", "no conflict"


def test_nobody_may_write_where_only_alice_may(ours: Place) -> None:
    with pytest.raises(Exception, match="Permission denied"):
        ours.run("mkdir", f"alice/{secrets.token_hex(4)}")


def _same(place: Place, name: str, data: bytes) -> bool:
    """Tell whether the file is there with these bytes; a client that does not see it yet fails to read it."""
    return name in _names(place) and place.read(name) == data


def _has(place: Place, name: str) -> bool:
    return name in _names(place)


def _names(place: Place) -> list[str]:
    return place.names() if place.exists() else []
