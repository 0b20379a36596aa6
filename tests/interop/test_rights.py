"""Access lists and rights at real servers, beside the reference client: each sees what the other sets."""

import json
import os
from collections.abc import Iterator

import pytest

from bench.process import StepError
from tests.interop.nodes import REALM, Place, seconds_until
from tests.interop.people import SENT_WITHIN, Person

SEEN_WITHIN = 10.0


@pytest.fixture
def hers(persons: dict[str, Person], alice: Place) -> Iterator[str]:
    """A new directory of alice's, made through our mount, with a file in it; its path below the realm."""
    persons["alice"].login()
    path = f"alice/t{os.urandom(4).hex()}"
    here = persons["alice"].place
    here.run("mkdir", path)
    here.below(path).write("f", b"hers")
    yield path
    persons["alice"].login()
    set_list(persons["alice"], path, "--clear", "alice", "all")
    here.run("rm", "-rf", path)
    seconds_until(lambda: not alice.below(path).exists(), SENT_WITHIN)


def set_list(person: Person, path: str, *argv: str) -> str:
    return person.realmfs("acl", "set", *argv[: argv[0].startswith("-")], f"{REALM}/{path}",
                          *argv[argv[0].startswith("-") :])  # fmt: skip


def our_list(person: Person, path: str) -> dict[str, str]:
    found = json.loads(person.realmfs("acl", "get", "--json", f"{REALM}/{path}"))
    positive = {entry["name"]: entry["rights"] for entry in found["positive"]}
    return positive | {f"-{entry['name']}": entry["rights"] for entry in found["negative"]}


def their_list(there: Place, path: str) -> dict[str, str]:
    """What `cfs listacl` prints, negative rights with a minus."""
    words = [line.split() for line in there.run("cfs", "listacl", path).splitlines()]
    found = {}
    for entry in (line for line in words if len(line) == 2):
        negative = entry[1].startswith("-")
        found["-" * negative + entry[0]] = entry[1].lstrip("-")
    return found


def may_read(person: Person, path: str) -> bool:
    said = person.place.run("sh", "-c", f"cat {path}/f 2>&1 || true")
    assert said == "hers" or "Permission denied" in said, said
    return said == "hers"


def test_lists_set_here_are_seen_by_the_reference_and_the_other_way_round(
    persons: dict[str, Person], hers: str, alice: Place
) -> None:
    set_list(persons["alice"], hers, "bob", "rl", "System:AnyUser", "none", "rig:team", "rlidw")
    seconds_until(lambda: alice.below(hers).exists(), SENT_WITHIN)
    wanted = {"alice": "rlidwka", "bob": "rl", "rig:team": "rlidw", "System:Administrators": "rlidwka"}
    ours = our_list(persons["alice"], hers)
    assert {name: ours.get(name) for name in ("alice", "bob", "rig:team")} == {
        name: wanted[name] for name in ("alice", "bob", "rig:team")
    }
    assert "System:AnyUser" not in ours
    assert their_list(alice, hers) == ours
    alice.run("cfs", "setacl", hers, "bob", "none", "System:AnyUser", "l")
    alice.run("cfs", "setacl", "-negative", hers, "bob", "d")
    theirs = their_list(alice, hers)
    assert our_list(persons["bob"], hers) == theirs
    assert theirs["System:AnyUser"] == "l"
    assert theirs["-bob"] == "d"
    assert "bob" not in theirs


def test_a_list_that_the_reference_prints_can_be_set_here(
    persons: dict[str, Person], hers: str, alice: Place
) -> None:
    set_list(persons["alice"], hers, "bob", "rlk")
    set_list(persons["alice"], hers, "-negative", "rig:team", "w")
    seconds_until(lambda: alice.below(hers).exists(), SENT_WITHIN)
    printed = alice.run("cfs", "listacl", hers)
    before = our_list(persons["alice"], hers)
    set_list(persons["alice"], hers, "--clear", "alice", "all")
    persons["alice"].realmfs("acl", "set", f"{REALM}/{hers}", "--file", "-", stdin=printed)
    assert our_list(persons["alice"], hers) == before == their_list(alice, hers)


def test_what_the_reference_takes_away_is_gone_here(
    persons: dict[str, Person], hers: str, alice: Place
) -> None:
    persons["bob"].login()
    seconds_until(lambda: alice.below(hers).exists(), SENT_WITHIN)
    seconds_until(lambda: alice.below(hers).names() == ["f"], SENT_WITHIN)
    assert may_read(persons["bob"], hers), "anybody may read there"
    alice.run("cfs", "setacl", hers, "System:AnyUser", "none")
    taken = seconds_until(lambda: not may_read(persons["bob"], hers), SEEN_WITHIN)
    assert may_read(persons["alice"], hers)
    alice.run("cfs", "setacl", hers, "bob", "rlidw")
    given = seconds_until(lambda: may_read(persons["bob"], hers), SEEN_WITHIN)
    print(f"taken after {taken:.2f} s, given after {given:.2f} s, process starts included")
    persons["bob"].place.below(hers).write("his", b"bob's")
    seconds_until(lambda: "his" in alice.below(hers).names(), SENT_WITHIN)
    assert alice.below(hers).read("his") == b"bob's"


def test_who_may_not_is_told_so(persons: dict[str, Person], hers: str) -> None:
    persons["bob"].login()
    with pytest.raises(StepError, match="Permission denied"):
        persons["bob"].place.below(hers).write("his", b"")
    with pytest.raises(StepError, match="only its owner"):
        set_list(persons["bob"], hers, "bob", "all")
    with pytest.raises(StepError, match="know no user"):
        set_list(persons["alice"], hers, "nobody-here", "rl")
    persons["admin"].login()
    set_list(persons["admin"], hers, "bob", "rlidw")
    persons["bob"].place.below(hers).write("his", b"bob's")
    persons["alice"].realmfs("logout")
    with pytest.raises(StepError, match="Permission denied"):
        persons["alice"].place.below(hers).write("late", b"")


def test_a_group_counts(persons: dict[str, Person], hers: str) -> None:
    """Alice is in rig:team."""
    set_list(persons["alice"], hers, "--clear", "rig:team", "rlidwka")
    persons["alice"].place.below(hers).write("as-a-member", b"1")
    persons["bob"].login()
    assert not may_read(persons["bob"], hers)
    set_list(persons["alice"], hers, "alice", "all", "bob", "rlidw")
    set_list(persons["alice"], hers, "--negative", "bob", "r")
    assert not may_read(persons["bob"], hers)
    assert "f" in persons["bob"].place.below(hers).names()
