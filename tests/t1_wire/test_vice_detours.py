"""Ways around the changes that kill 64-bit reference servers: the sizes seen on them, and that nothing is
lost.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmfs.vice.detours import is_fatal, steps
from realmfs.vice.log import AnyRecord, Create, Link, MakeDir, Remove, RemoveDir, Rename, Store, SymLink
from realmfs.vice.types import Fid, StoreId

FID = Fid(0x7F000000, 0x184, 0xAD)
PARENT, OTHER = Fid(0x7F000000, 1, 1), Fid(0x7F000000, 3, 5)
UNSENT = StoreId(0, 0)
FATAL = {Create: 18, SymLink: 18, MakeDir: 18, Link: 42, Remove: 42, RemoveDir: 58}
names = st.integers(1, 255).map(lambda size: b"n" * size)


def named(kind: Any, name: bytes, fid: Fid = FID) -> AnyRecord:
    more: dict[str, Any] = {}
    if kind in (Create, SymLink, MakeDir):
        more = {"owner": 7, "mode": 0o644}
    if kind is SymLink:
        more["content"] = b"text"
    record: AnyRecord = kind(mtime=9, store_id=UNSENT, parent=PARENT, name=name, fid=fid, **more)
    return record


def rename(old: bytes, new: bytes, fid: Fid = FID) -> Rename:
    return Rename(
        mtime=9, store_id=UNSENT, old_parent=PARENT, old_name=old, new_parent=OTHER, new_name=new, fid=fid
    )


@pytest.mark.parametrize(("kind", "middle"), FATAL.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_three_lengths_of_sixty_four_are_fatal(kind: Any, middle: int) -> None:
    fatal = [size for size in range(1, 256) if is_fatal(named(kind, b"n" * size))]
    assert fatal == [size for size in range(1, 256) if abs((size - middle + 32) % 64 - 32) <= 1]


def test_renames_count_both_names() -> None:
    assert [size for size in range(2, 65) if is_fatal(rename(b"a", b"b" * (size - 1)))] == [23, 24, 25]
    assert is_fatal(rename(b"a" * 12, b"b" * 12))


def test_what_changes_no_name_is_harmless() -> None:
    store = Store(mtime=9, store_id=UNSENT, fid=FID, length=3)
    assert steps(store) == (store,)


@given(st.sampled_from([*FATAL, Rename]), names, names, st.integers(1, 2**32 - 1), st.integers(1, 2**32 - 1))
def test_steps_are_harmless_and_end_at_the_same_names(
    kind: Any, name: bytes, other: bytes, vnode: int, unique: int
) -> None:
    fid = Fid(PARENT.volume, vnode, unique)
    record = rename(other, name, fid) if kind is Rename else named(kind, name, fid)
    way = steps(record)
    assert not any(is_fatal(step) for step in way)
    assert len(way) == (2 if is_fatal(record) else 1)
    before = {} if kind in (Create, SymLink, MakeDir, Link) else {(PARENT, old_name(record)): fid}
    assert replay(way, dict(before)) == replay((record,), dict(before))
    assert all(step.mtime == record.mtime for step in way)


def old_name(record: AnyRecord) -> bytes:
    return record.old_name if isinstance(record, Rename) else getattr(record, "name", b"")


def replay(records: tuple[AnyRecord, ...], entries: dict[tuple[Fid, bytes], Fid]) -> Any:
    """Do what a server does to its directories; names that should be free or there are."""
    for record in records:
        if isinstance(record, Rename):
            assert (record.new_parent, record.new_name) not in entries
            entries[record.new_parent, record.new_name] = entries.pop((record.old_parent, record.old_name))
        elif isinstance(record, Remove | RemoveDir):
            del entries[record.parent, record.name]
        elif isinstance(record, Create | SymLink | MakeDir | Link):
            assert (record.parent, record.name) not in entries
            entries[record.parent, record.name] = record.fid
    return entries
