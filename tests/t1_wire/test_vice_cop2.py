"""COP2 strings."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmfs.rpc2.errors import BadPacket
from realmfs.vice.cop2 import ENTRY_SIZE, Cop2Entry, pack_entries, unpack_entries
from realmfs.vice.types import StoreId
from tests.t1_wire.strategies import store_ids
from tests.t1_wire.vectors import load

entries = st.lists(st.builds(Cop2Entry, store_ids, st.sets(st.integers(0, 7)).map(sorted).map(tuple)))


def test_an_entry_is_the_reference_one() -> None:
    case = load("vice")["cop2_entry"]
    slots = tuple(slot for slot, executed in enumerate(case["updateset_sites"]) if executed)
    assert pack_entries([Cop2Entry(StoreId(*case["storeid"]), slots)]).hex() == case["hex"]
    case = next(body for body in load("cml")["rpc_bodies"] if body["name"] == "COP2_entry")
    assert pack_entries([Cop2Entry(StoreId(*case["fields"]["StoreId"]), (0, 1, 2))]).hex() == case["hex"]


@given(some=entries)
def test_entries_survive_the_wire(some: list[Cop2Entry]) -> None:
    data = pack_entries(some)
    assert len(data) == ENTRY_SIZE * len(some)
    assert unpack_entries(data) == some


@given(data=st.binary(max_size=120))
def test_only_whole_entries_are_read(data: bytes) -> None:
    if len(data) % ENTRY_SIZE:
        with pytest.raises(BadPacket):
            unpack_entries(data)
    else:
        with contextlib.suppress(BadPacket):
            assert len(unpack_entries(data)) == len(data) // ENTRY_SIZE
