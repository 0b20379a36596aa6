"""Access lists: the reference's texts and evaluations, round trips, hostile texts."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from realmfs.rpc2.errors import BadPacket
from realmfs.vice.acl import AccessList, parse_rights, rights_text
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Rights
from tests.t1_wire.vectors import load

CASES = load("vice")["acl"]["cases"]
GOOD = [case for case in CASES if case["internalize_rc"] == 0]
MIXED_UP = {"3 plus 2 minus", "4 plus 2 minus"}
"""Where the reference mixes up its entries (directories.md §5.4)."""
IDS = {
    "-101": "System:AnyUser",
    "-204": "System:Administrators",
    "777": "System",
    "501": "alice",
    "502": "bob",
}
IDS |= {"503": "carol", "504": "dave", "-300": "staff", "-301": "friends"}

entries = st.lists(
    st.tuples(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(
            lambda name: name.encode().split() == [name.encode()] and "\0" not in name
        ),
        st.integers(0, 2**31 - 1),
    ),
    max_size=12,
).map(tuple)
lists = st.builds(AccessList, entries, entries)


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case["desc"])
def test_texts_of_the_reference(case: dict[str, Any]) -> None:
    acl = AccessList.parse(case["external_in"].encode() + b"\0")
    assert (len(acl.positive), len(acl.negative)) == (case["plus"], case["minus"])
    stored = AccessList.parse(case["external_out"].encode())
    assert stored.format() == case["external_out"].encode() + b"\0"
    if case["desc"] not in MIXED_UP:
        assert acl.same_entries(stored)


@pytest.mark.parametrize(
    "case", [one for one in GOOD if one["desc"] not in MIXED_UP], ids=lambda case: case["desc"]
)
def test_evaluation_by_the_reference(case: dict[str, Any]) -> None:
    acl = AccessList.parse(case["external_in"].encode())
    anybody = case["rights"]["anyuser"]
    assert acl.any_rights == anybody
    for who, rights in case["rights"].items():
        ids = who.partition("(")[2].rstrip(")").split(",") if "(" in who else ["-101"]
        assert acl.rights({IDS[one] for one in ids}) == rights | anybody, who


def test_a_negative_entry_takes_rights_away() -> None:
    acl = AccessList((("alice", 31), ("staff", 64)), (("alice", 2), ("staff", 16)))
    assert acl.rights({"alice"}) == 29
    assert acl.rights({"alice", "staff"}) == 31 + 64 - 2 - 16
    assert acl.rights({"bob"}) == Rights.NONE


@pytest.mark.parametrize(
    "text", [b"", b"hello", b"2\n0\nalice\t9\n", b"1\n0\nalice\t-1\n", b"1\n0\nalice\t2147483648\n"]
)
@pytest.mark.parametrize("end", [b"", b"\0"])
def test_unreadable_texts_are_bad_packets(text: bytes, end: bytes) -> None:
    with pytest.raises(BadPacket):
        AccessList.parse(text + end)


def test_absurd_counts_are_bad_packets() -> None:
    with pytest.raises(BadPacket):
        AccessList.parse(b"1001\n0\n" + b"alice\t9\n" * 1001)


@pytest.mark.parametrize(
    ("acl", "code"),
    [
        (AccessList((("alice", 1),) * 21), Code.E2BIG),
        (AccessList((("alice", 1),), (("bob", 1), ("carol", 1))), Code.EINVAL),
        (AccessList((("two words", 1),)), Code.EINVAL),
        (AccessList((("", 1),)), Code.EINVAL),
        (AccessList((("x" * 101, 1),)), Code.EINVAL),
    ],
)
def test_lists_no_server_should_get(acl: AccessList, code: Code) -> None:
    with pytest.raises(CodaError) as refused:
        acl.checked()
    assert refused.value.code is code


def test_entries_without_rights_are_not_sent() -> None:
    assert AccessList((("alice", 0), ("bob", 9)), (("carol", 0),)).checked() == AccessList((("bob", 9),))


@given(acl=lists)
def test_lists_survive_the_wire(acl: AccessList) -> None:
    assert AccessList.parse(acl.format()) == acl


@given(text=st.one_of(st.binary(max_size=60), st.text("0123456789\n\t a", max_size=40).map(str.encode)))
def test_hostile_texts_raise_bad_packet_and_nothing_else(text: bytes) -> None:
    with contextlib.suppress(BadPacket):
        acl = AccessList.parse(text)
        assert AccessList.parse(acl.format()) == acl


@given(rights=st.integers(0, 127))
def test_letters_are_read_back(rights: int) -> None:
    assert parse_rights(rights_text(rights)) == rights


def test_letters_words_and_nonsense() -> None:
    assert rights_text(127) == "rlidwka"
    assert rights_text(9) == "rl"
    assert rights_text(0) == "none"
    assert parse_rights("all") == Rights.ALL
    assert parse_rights("none") == Rights.NONE
    assert parse_rights("wr") == Rights.READ | Rights.WRITE
    with pytest.raises(ValueError, match="no set of rights"):
        parse_rights("rx")


def test_a_running_server_answers_text_with_its_nul() -> None:
    text = bytes.fromhex(load("vice")["live_server"]["getacl_reply"]["AccessList_hex"])
    acl = AccessList.parse(text)
    assert acl == AccessList((("System:AnyUser", 9), ("System:Administrators", 127)))
    assert acl.format() == text


def test_reading_a_list_back_shows_what_the_reference_made_of_it() -> None:
    case = load("vice")["live_server"]["acl_bug_on_running_server"]
    sent, stored = (AccessList.parse(case[key].encode()) for key in ("sent", "read_back"))
    assert sent.checked() == sent
    assert not sent.same_entries(stored)


@given(acl=lists)
def test_lists_survive_being_told_to_people(acl: AccessList) -> None:
    assume(not any(name.startswith("-") for name, _ in acl.positive + acl.negative))
    assert AccessList.from_text(acl.text) == acl


def test_the_text_that_the_reference_prints_is_read() -> None:
    text = "      System:AnyUser  rl\n               alice  rlidwka\n\n                 bob  -w\n"
    assert AccessList.from_text(text) == AccessList((("System:AnyUser", 9), ("alice", 127)), (("bob", 2),))
    for wrong in ("alice", "alice rl more", "alice xyz", "alice rl+x"):
        with pytest.raises(ValueError):
            AccessList.from_text(wrong)


def test_entries_are_changed_by_name_whatever_the_case() -> None:
    acl = AccessList((("alice", 127), ("System:AnyUser", 9)), (("bob", 2),))
    assert acl.changed("ALICE", 1).positive == (("alice", 1), ("System:AnyUser", 9))
    assert acl.changed("system:anyuser", 0).positive == (("alice", 127),)
    assert acl.changed("carol", 9).positive[-1] == ("carol", 9)
    assert acl.changed("bob", 0, negative=True) == AccessList(acl.positive)
