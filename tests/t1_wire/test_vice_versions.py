"""Version vectors: the reference's comparisons and group checks, and the laws that hold for all vectors."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmfs.vice.versions import Order, StoreId, VersionFlags, VersionVector, check_group
from tests.t1_wire.strategies import store_ids, vectors
from tests.t1_wire.vectors import load, vector

CASES = load("vice")["version_vectors"]
small = st.builds(
    VersionVector,
    st.tuples(*[st.integers(0, 2)] * 8),
    store_ids,
    st.sampled_from([0, 0, 0, VersionFlags.COP2PENDING, VersionFlags.INCON]).map(int),
)
OPPOSITE = {
    Order.EQUAL: Order.EQUAL,
    Order.DOMINATES: Order.SUBMITS,
    Order.SUBMITS: Order.DOMINATES,
    Order.INCONSISTENT: Order.INCONSISTENT,
}


@pytest.mark.parametrize("case", CASES["cmp"])
def test_comparisons_of_the_reference(case: dict[str, Any]) -> None:
    ours, theirs = vector(case["a"]), vector(case["b"])
    assert ours.compare(theirs) is Order(case["cmp"])
    assert ours.compare(theirs, ignore_inconsistent=True) is Order(case["cmp_ignore_inc"])


@pytest.mark.parametrize("case", CASES["check"], ids=lambda case: case["desc"])
@pytest.mark.parametrize("equality_required", [False, True])
def test_group_checks_of_the_reference(case: dict[str, Any], equality_required: bool) -> None:
    group = [vector(one) if one else None for one in case["vvs"]]
    expected = case[f"check_eqreq{int(equality_required)}"]
    check = check_group(group, equality_required)
    assert check.consistent == bool(expected["consistent"])
    assert list(check.dominant) == expected["dominant"]


@pytest.mark.parametrize("case", CASES["is_runt"])
def test_runts_of_the_reference(case: dict[str, Any]) -> None:
    assert vector(case["vv"]).is_runt == bool(case["isrunt"])


@pytest.mark.parametrize("case", CASES["weakly_equal_merge"])
def test_weakly_equal_vectors_merge_as_in_the_reference(case: dict[str, Any]) -> None:
    ours, theirs = vector(case["a"]), vector(case["b"])
    assert ours.weakly_equal(theirs)
    assert ours.maximum(theirs) == vector(case["max"])


@given(ours=small, theirs=small)
def test_comparison_has_two_sides(ours: VersionVector, theirs: VersionVector) -> None:
    assert theirs.compare(ours) is OPPOSITE[ours.compare(theirs)]


@given(ours=small, theirs=small)
def test_the_maximum_is_never_behind(ours: VersionVector, theirs: VersionVector) -> None:
    for one in (ours, theirs):
        assert ours.maximum(theirs).compare(one, ignore_inconsistent=True) in (Order.EQUAL, Order.DOMINATES)


@given(ours=small, slots=st.sets(st.integers(0, 7)))
def test_raising_counts_once_per_slot(ours: VersionVector, slots: set[int]) -> None:
    raised = ours.raised(slots)
    assert sum(raised.versions) == sum(ours.versions) + len(slots)
    assert raised.compare(ours, ignore_inconsistent=True) is (Order.DOMINATES if slots else Order.EQUAL)
    assert (raised.store_id, raised.flags) == (ours.store_id, ours.flags)


@given(group=st.lists(st.one_of(st.none(), small), max_size=8))
def test_the_dominant_set_is_newer_than_all_others(group: list[VersionVector | None]) -> None:
    check = check_group(group)
    present = {slot: one for slot, one in enumerate(group) if one is not None}
    newest = [
        slot
        for slot, one in present.items()
        if all(
            one.compare(other) in (Order.EQUAL, Order.DOMINATES)
            for index, other in present.items()
            if index != slot
        )
    ]
    if len(present) < 2:
        newest = list(present)
    assert list(check.dominant) == newest
    assert check.consistent == (bool(newest) or not present)


@given(group=st.lists(small, min_size=1, max_size=8))
def test_equality_is_required_of_all(group: list[VersionVector]) -> None:
    equal = len(group) == 1 or all(one.compare(group[0]) is Order.EQUAL for one in group)
    assert check_group(group, equality_required=True).consistent == equal


@given(one=vectors)
def test_vectors_have_a_readable_form(one: VersionVector) -> None:
    assert str(one).startswith("[")


def test_how_vectors_and_store_ids_look() -> None:
    one = VersionVector((2, 1, 0, 0, 0, 0, 0, 0), StoreId(0xBEEF, 17), VersionFlags.COP2PENDING)
    assert str(one) == "[2 1][beef.11] flags 8"
    assert one.cop2_pending
    assert not one.inconsistent
    assert one.with_flags(0).with_store_id(StoreId(1, 2)) == VersionVector(one.versions, StoreId(1, 2))
