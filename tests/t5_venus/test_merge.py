"""What makes the replicas of a directory equal: done to each, the edits leave the same names everywhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmfs.venus.copies import free_name
from realmfs.venus.merge import MisfitError, ReplicaView, merge, rounds, union
from realmfs.vice.acl import AccessList
from realmfs.vice.detours import is_fatal
from realmfs.vice.fixfile import parse_fix_file
from realmfs.vice.log import Create
from realmfs.vice.repair import RepairOp, ReplicaRepair
from realmfs.vice.types import Fid, ObjectType, StoreId

VOLUME, DIRECTORY = 0x7F000000, (1, 1)
NO_ACL = AccessList()
names = st.sampled_from([b"a", b"b", b"c", b"d", b"e"])
files = st.tuples(st.sampled_from([2, 4, 6, 8]), st.just(1))
directories = st.tuples(st.sampled_from([3, 5]), st.just(1))


@st.composite
def listings(draw: st.DrawFn) -> dict[bytes, tuple[int, int]]:
    """Files may have several names, directories one."""
    found: dict[bytes, tuple[int, int]] = {}
    for name in draw(st.lists(names, unique=True)):
        fid = draw(st.one_of(files, directories))
        if fid[0] % 2 == 0 or fid not in found.values():
            found[name] = fid
    return found


def view(slot: int, listing: dict[bytes, tuple[int, int]], mode: int = 0o755) -> ReplicaView:
    return ReplicaView(slot, b"s%d" % slot, listing, mode, 7, NO_ACL)


def types(views: list[ReplicaView]) -> dict[tuple[int, int], ObjectType]:
    kinds = {0: ObjectType.FILE, 1: ObjectType.DIRECTORY}
    return {fid: kinds[fid[0] % 2] for one in views for fid in one.names.values()}


def apply(listing: dict[bytes, tuple[int, int]], section: ReplicaRepair) -> dict[bytes, tuple[int, int]]:
    """Do what a server does, and refuse what it refuses."""
    found = dict(listing)
    for command in section.commands:
        if command.op in (RepairOp.REMOVE, RepairOp.REMOVE_DIRECTORY):
            assert found.pop(command.name)[0] % 2 == (command.op is RepairOp.REMOVE_DIRECTORY)
        elif command.op is RepairOp.MOVE:
            assert command.new_name not in found
            assert command.parameters == (VOLUME, *DIRECTORY, *DIRECTORY)
            found[command.new_name] = found.pop(command.name)
        elif command.op in (RepairOp.SET_MODE, RepairOp.SET_OWNER, RepairOp.SET_ACL):
            continue
        else:
            assert command.name not in found
            assert (command.fid[1:] in found.values()) == (command.op is RepairOp.CREATE_LINK)
            found[command.name] = command.fid[1:]
    return found


@given(st.lists(listings(), min_size=2, max_size=3), st.integers(0, 1))
def test_all_become_as_the_model(found: list[dict[bytes, tuple[int, int]]], model: int) -> None:
    views = [view(slot, listing) for slot, listing in enumerate(found)]
    plan = merge(views, found[model], views[model], types(views), VOLUME, DIRECTORY)
    for listing, section in zip(found, plan.sections, strict=True):
        assert apply(listing, section) == found[model]
    assert plan.sections[model].commands == ()


@given(st.lists(listings(), min_size=2, max_size=3))
def test_a_union_loses_nothing(found: list[dict[bytes, tuple[int, int]]]) -> None:
    views = [view(slot, listing) for slot, listing in enumerate(found)]
    target = union(views, free_name)
    plan = merge(views, target, views[0], types(views), VOLUME, DIRECTORY)
    for listing, section in zip(found, plan.sections, strict=True):
        assert apply(listing, section) == target
        assert not any(
            command.op in (RepairOp.REMOVE_DIRECTORY, RepairOp.REMOVE)
            and listing[command.name] not in target.values()
            for command in section.commands
        )
    assert set(target.values()) == {fid for listing in found for fid in listing.values()}
    one_name = [fid for fid in target.values() if fid[0] % 2]
    assert len(one_name) == len(set(one_name)), "a directory with two names"


def test_a_name_made_on_both_sides_is_kept_twice() -> None:
    views = [view(0, {b"same.txt": (2, 1)}), view(1, {b"same.txt": (4, 1), b"other": (6, 1)})]
    assert union(views, free_name) == {b"same.txt": (2, 1), b"same.s1.txt": (4, 1), b"other": (6, 1)}


def test_access_lists_and_modes_follow_the_model() -> None:
    ours = ReplicaView(0, b"s0", {}, 0o755, 7, AccessList((("alice", 127), ("bob", 9))))
    theirs = ReplicaView(1, b"s1", {}, 0o700, 7, AccessList((("alice", 1), ("eve", 127))))
    plan = merge([ours, theirs], {}, ours, {}, VOLUME, DIRECTORY)
    told = [(one.op, one.name, one.parameters[0]) for one in plan.sections[1].commands]
    assert told == [
        (RepairOp.SET_ACL, b"alice", 127),
        (RepairOp.SET_ACL, b"bob", 9),
        (RepairOp.SET_ACL, b"eve", 0),
        (RepairOp.SET_MODE, b"", 0o755),
    ]


@given(st.binary(min_size=1, max_size=255), st.sets(st.binary(max_size=20)))
def test_a_free_name_is_free_short_and_survived_by_servers(name: bytes, taken: set[bytes]) -> None:
    for _ in range(3):
        fresh = free_name(name, b"local", taken)
        assert fresh not in taken
        assert 0 < len(fresh) <= 255
        nothing = Fid.zero()
        assert not is_fatal(
            Create(mtime=0, store_id=StoreId(0, 0), parent=nothing, name=fresh, owner=0, mode=0, fid=nothing)
        )
        taken = taken | {fresh}


@given(st.lists(listings(), min_size=2, max_size=3), st.integers(0, 2))
def test_each_repair_fits_the_directory_as_it_was_before_it(
    found: list[dict[bytes, tuple[int, int]]], model: int
) -> None:
    """Reference servers check all edits first, and die of a rename of what is not there."""
    views = [view(slot, listing) for slot, listing in enumerate(found)]
    target = union(views, free_name) if model == 2 else found[model]
    plan = merge(views, target, views[0], types(views), VOLUME, DIRECTORY)
    left = [dict(listing) for listing in found]
    for step in rounds(views, plan.sections, DIRECTORY):
        assert [section.volume for section in step] == [one.volume for one in views]
        for slot, section in enumerate(step):
            before = dict(left[slot])
            for command in section.commands:
                if command.op in (RepairOp.REMOVE, RepairOp.REMOVE_DIRECTORY, RepairOp.MOVE):
                    assert command.name in before
                if command.op is RepairOp.MOVE:
                    assert command.new_name not in before
                if command.op is RepairOp.CREATE_LINK:
                    assert command.fid[1:] in before.values()
                elif command.op in (RepairOp.CREATE_FILE, RepairOp.CREATE_DIRECTORY):
                    assert command.name not in before
            left[slot] = apply(before, section)
    assert left == [dict(target)] * len(found)


@pytest.mark.parametrize(
    "text",
    [
        "mv gone new 7f000000 1 1 1 1",
        "mv a b 7f000000 1 1 1 1",
        "mv a new 7f000000 1 1 3 1",
        "removefsl gone",
        "removed a",
        "createf b 7f000000 6 1",
        "removefsl a\n removefsl a",
    ],
)
def test_edits_that_do_not_fit_are_not_sent(text: str) -> None:
    views = [view(1, {b"a": (2, 1), b"b": (4, 1)}), view(2, {})]
    with pytest.raises(MisfitError):
        rounds(views, parse_fix_file(f"replica s1 1\n{text}"), DIRECTORY)
    with pytest.raises(MisfitError):
        rounds(views, parse_fix_file("replica s9 9\nremovefsl a"), DIRECTORY)
