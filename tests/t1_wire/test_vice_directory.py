"""Directory pages: what the reference reads and writes, a model of random edits, hostile images."""

from __future__ import annotations

import contextlib
import hashlib
import random
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from realmfs.rpc2.errors import BadPacket
from realmfs.vice.directory import PAGE, Directory, blobs_of, bucket_of
from realmfs.vice.errors import CodaError, Code
from tests.t1_wire.vectors import load

CASES = load("vice")["directories"]["cases"]
SEQUENCES = load("vice")["directory_op_sequences"]["cases"]
CAPACITY = load("vice")["directories"]["capacity"]
names = st.binary(min_size=1, max_size=255).filter(lambda name: not set(name) & set(b"/\0"))


@pytest.mark.parametrize(("name", "bucket"), load("vice")["dir_hash"]["cases"])
def test_names_hash_to_the_reference_chains(name: str, bucket: int) -> None:
    assert bucket_of(bytes.fromhex(name)) == bucket


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_reference_images_list_their_entries(case: dict[str, Any]) -> None:
    image = bytes.fromhex(case["hex"])
    directory = Directory.parse(image)
    expected = [
        (bytes.fromhex(entry["name_hex"]), entry["vnode"], entry["unique"])
        for entry in case["entries_in_hash_order"]
    ]
    assert list(directory.items()) == expected
    assert [directory.lookup(name) for name, _, _ in expected] == [
        (vnode, unique) for _, vnode, unique in expected
    ]
    assert directory.lookup(b"no such name") is None
    assert directory.is_empty == case["empty"]
    assert directory.image == image
    assert not directory.dirty


@pytest.mark.parametrize(
    "key", ["fetch_root_directory", "fetch_directory_public", "fetch_directory_sub_80_files"]
)
def test_images_of_a_running_server(key: str) -> None:
    case = load("vice")["live_server"][key]
    directory = Directory.parse(bytes.fromhex(case["hex"]))
    expected = [(entry["name"].encode(), entry["vnode"], entry["unique"]) for entry in case["entries"]]
    assert list(directory.items()) == expected


def test_a_new_directory_is_the_reference_one() -> None:
    root = next(case for case in CASES if case["name"] == "empty_root")
    directory = Directory.new((1, 1), (1, 1))
    assert directory.image.hex() == root["hex"]
    assert directory.is_empty
    assert directory.dirty == {0}


@pytest.mark.parametrize("reparse", [False, True])
@pytest.mark.parametrize("case", SEQUENCES, ids=lambda case: f"{len(case['ops'])} operations")
def test_edits_give_the_reference_bytes(case: dict[str, Any], reparse: bool) -> None:
    directory = Directory.new(tuple(case["self"]), tuple(case["parent"]))
    disk = bytearray()
    for number, (op, code) in enumerate(zip(case["ops"], case["return_codes"], strict=True)):
        got = 0
        try:
            if op[0] == "create":
                directory.insert(bytes.fromhex(op[1]), op[2], op[3])
            else:
                directory.delete(bytes.fromhex(op[1]))
        except CodaError as error:
            got = error.errno
        assert got == code
        disk.extend(bytes(directory.length - len(disk)))
        for page, data in directory.take_dirty().items():
            disk[page * PAGE : (page + 1) * PAGE] = data
        if reparse and number % 50 == 0:
            directory = Directory.parse(bytes(disk))
    assert directory.length == case["final_length"]
    assert hashlib.sha256(directory.image).hexdigest() == case["final_sha256"]
    assert disk == directory.image, "the dirty pages must be all that changed"


@pytest.mark.parametrize("case", CAPACITY, ids=lambda case: f"names of {case['name_length']}")
def test_a_full_directory_takes_what_the_reference_takes(case: dict[str, Any]) -> None:
    size = case["name_length"] if isinstance(case["name_length"], int) else 0
    directory = Directory.new((3, 7), (1, 1))
    for number in range(case["entries_besides_dots"]):
        directory.insert(b"%0*d" % (size, number), 2 * number + 2, number)
    with pytest.raises(CodaError) as full:
        directory.insert(b"%0*d" % (size, 9000), 2, 2)
    assert full.value.code is Code.EFBIG
    assert directory.length == case["final_length"]
    assert set(Directory.parse(directory.image).items()) == set(directory.items())


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (b"n" * 256, Code.ENAMETOOLONG),
        (b"", Code.EINVAL),
        (b"a/b", Code.EINVAL),
        (b"a\0b", Code.EINVAL),
        (b"there", Code.EEXIST),
        (b"..", Code.EEXIST),
    ],
)
def test_names_that_can_not_be_inserted(name: bytes, code: Code) -> None:
    directory = Directory.new((3, 7), (1, 1))
    directory.insert(b"there", 2, 2)
    before = directory.image
    with pytest.raises(CodaError) as refused:
        directory.insert(name, 4, 4)
    assert refused.value.code is code
    assert directory.image == before


@pytest.mark.parametrize(
    ("name", "code"), [(b".", Code.EINVAL), (b"..", Code.EINVAL), (b"gone", Code.ENOENT)]
)
def test_names_that_can_not_be_deleted(name: bytes, code: Code) -> None:
    directory = Directory.new((3, 7), (1, 1))
    with pytest.raises(CodaError) as refused:
        directory.delete(name)
    assert refused.value.code is code


def test_moving_a_directory_changes_its_parent_only() -> None:
    directory = Directory.new((3, 7), (1, 1))
    directory.insert(b"child", 4, 4)
    directory.move_to((5, 9))
    assert {name: fid for name, *fid in Directory.parse(directory.image).items()} == {
        b".": [3, 7],
        b"..": [5, 9],
        b"child": [4, 4],
    }


class Edits(RuleBasedStateMachine):
    """A directory beside a plain dict: whatever is done to both, they agree, on the wire as well."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Directory.new((1, 1), (1, 1))
        self.model: dict[bytes, tuple[int, int]] = {b".": (1, 1), b"..": (1, 1)}
        self.disk: dict[int, bytes] = {}

    @initialize(count=st.integers(0, 60), seed=st.integers(0, 2**32 - 1))
    def fill(self, count: int, seed: int) -> None:
        rng = random.Random(seed)
        for number in range(count):
            name = b"%d" % number + b"x" * rng.choice([0, 5, 14, 40, 200])
            self.directory.insert(name, number, seed)
            self.model[name] = (number, seed)

    @rule(name=names, vnode=st.integers(0, 2**32 - 1), unique=st.integers(0, 2**32 - 1))
    def insert(self, name: bytes, vnode: int, unique: int) -> None:
        if name in self.model:
            with pytest.raises(CodaError):
                self.directory.insert(name, vnode, unique)
        else:
            self.directory.insert(name, vnode, unique)
            self.model[name] = (vnode, unique)

    @precondition(lambda self: len(self.model) > 2)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model.keys() - {b".", b".."})))
        assert self.directory.delete(name) == self.model.pop(name)

    @rule(data=st.data(), fid=st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)))
    def rebind(self, data: st.DataObject, fid: tuple[int, int]) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        self.directory.rebind(name, *fid)
        self.model[name] = fid

    @rule(parent=st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)))
    def move(self, parent: tuple[int, int]) -> None:
        self.directory.move_to(parent)
        self.model[b".."] = parent

    @rule()
    def reread(self) -> None:
        self.directory = Directory.parse(self.directory.image)

    @rule(data=st.data())
    def wrong_counts(self, data: st.DataObject) -> None:
        """Free counts and bitmaps are not believed."""
        image = bytearray(self.directory.image)
        page = data.draw(st.integers(0, self.directory.pages - 1))
        image[page * PAGE + 4 : page * PAGE + 13] = data.draw(st.binary(min_size=9, max_size=9))
        image[32 + page] = data.draw(st.integers(0, 51))
        self.disk.clear()
        self.directory = Directory.parse(bytes(image))
        for number in range(self.directory.pages):
            self.disk[number] = self.directory.page(number)

    @invariant()
    def same(self) -> None:
        found = {name: (vnode, unique) for name, vnode, unique in self.directory.items()}
        assert found == self.model
        assert all(self.directory.lookup(name) == fid for name, fid in self.model.items())
        again = Directory.parse(self.directory.image)
        assert {name: (vnode, unique) for name, vnode, unique in again.items()} == self.model
        self.disk.update(self.directory.take_dirty())
        assert b"".join(self.disk[number] for number in sorted(self.disk)) == self.directory.image


TestEdits = Edits.TestCase
TestEdits.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)


def damaged(image: bytearray, how: str) -> bytearray:
    """Return an image with one of the defects of directories.md §2.1."""
    first = image.index(b"a\0") // 32
    entry = 32 * first
    slot = 160 + 2 * bucket_of(b"a")
    if how == "loop":
        struct.pack_into(">H", image, entry + 2, first)
    elif how == "leads to the page header":
        struct.pack_into(">H", image, slot, 12)
    elif how == "leads outside":
        struct.pack_into(">H", image, slot, 64)
    elif how == "leads to a deleted entry":
        image[entry] = 0
    elif how == "wrong chain":
        image[entry + 12] = ord("b")
    elif how == "slash":
        image[entry + 12] = ord("/")
    elif how == "empty name":
        image[entry + 12] = 0
    elif how == "no NUL":
        image[entry + 12 :] = b"a" * (len(image) - entry - 12)
    elif how == "magic":
        image[3] = 0
    elif how == "too free":
        image[32] = 52
    elif how == "another page":
        image[33] = 3
    return image


@pytest.mark.parametrize(
    "how",
    [
        "loop",
        "leads to the page header",
        "leads outside",
        "leads to a deleted entry",
        "wrong chain",
        "slash",
        "empty name",
        "no NUL",
        "magic",
        "too free",
        "another page",
    ],
)
def test_defects_are_bad_packets(how: str) -> None:
    directory = Directory.new((3, 7), (1, 1))
    directory.insert(b"a", 2, 2)
    good = directory.image
    bad = bytes(damaged(bytearray(good), how))
    assert bad != good
    with pytest.raises(BadPacket):
        Directory.parse(bad)


def test_the_same_name_twice_is_a_bad_packet() -> None:
    directory = Directory.new((3, 7), (1, 1))
    directory.insert(b"one", 2, 2)
    image = bytearray(directory.image)
    slot = 160 + 2 * bucket_of(b"one")
    blob = struct.unpack_from(">H", image, slot)[0]
    copy = blob + 5
    image[32 * copy : 32 * copy + 32] = image[32 * blob : 32 * blob + 32]
    struct.pack_into(">H", image, 32 * copy + 2, blob)
    struct.pack_into(">H", image, slot, copy)
    with pytest.raises(BadPacket):
        Directory.parse(bytes(image))


def test_overlapping_entries_are_a_bad_packet() -> None:
    directory = Directory.new((3, 7), (1, 1))
    long = b"l" * 60
    directory.insert(long, 2, 2)
    image = bytearray(directory.image)
    blob = struct.unpack_from(">H", image, 160 + 2 * bucket_of(long))[0]
    inside = 32 * (blob + 1)
    image[inside : inside + 14] = struct.pack(">BxHII", 1, 0, 4, 4) + b"x\0"
    struct.pack_into(">H", image, 160 + 2 * bucket_of(b"x"), blob + 1)
    with pytest.raises(BadPacket):
        Directory.parse(bytes(image))


def test_an_entry_over_the_end_of_its_page_is_a_bad_packet() -> None:
    directory = Directory.new((3, 7), (1, 1))
    for number in range(60):
        directory.insert(b"%02d" % number + b"n" * 20, 2, 2)
    image = bytearray(directory.image)
    name = b"q" * 40
    offset = 63 * 32
    image[offset : offset + 12 + 41] = struct.pack(">BxHII", 1, 0, 4, 4) + name + b"\0"
    struct.pack_into(">H", image, 160 + 2 * bucket_of(name), 63)
    with pytest.raises(BadPacket):
        Directory.parse(bytes(image))


@pytest.mark.parametrize("size", [0, 1, 2047, 2049, 129 * 2048])
def test_odd_lengths_are_bad_packets(size: int) -> None:
    with pytest.raises(BadPacket):
        Directory.parse(bytes(size))


@given(
    case=st.sampled_from(CASES),
    patches=st.lists(st.tuples(st.integers(0, 2**14), st.binary(min_size=1, max_size=4)), max_size=8),
    cut=st.one_of(st.none(), st.integers(0, 2**14)),
)
def test_fuzzed_images_raise_bad_packet_and_nothing_else(
    case: dict[str, Any], patches: list[tuple[int, bytes]], cut: int | None
) -> None:
    image = bytearray.fromhex(case["hex"])[:cut]
    for offset, patch in patches:
        place = offset % (len(image) + 1)
        image[place : place + len(patch)] = patch
    with contextlib.suppress(BadPacket):
        directory = Directory.parse(bytes(image))
        for name, vnode, unique in list(directory.items()):
            assert directory.lookup(name) == (vnode, unique)
            if name not in (b".", b".."):
                directory.delete(name)
        directory.insert(b"after the storm", 2, 2)
        assert Directory.parse(directory.image).lookup(b"after the storm") == (2, 2)


@given(name=names)
def test_entries_fit_the_blobs_they_take(name: bytes) -> None:
    assert len(name) + 1 <= 32 * blobs_of(name) - 12 <= 252 + 24
