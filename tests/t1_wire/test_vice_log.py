"""The modify log: the reference's records byte for byte, threading, and what can not be read."""

from __future__ import annotations

import contextlib
import dataclasses
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realmfs.rpc2.errors import BadPacket
from realmfs.vice import log
from realmfs.vice.errors import Code
from realmfs.vice.log import (
    AnyRecord,
    BadLog,
    committed,
    consulted,
    last_store_ids,
    pack_log,
    thread,
    unpack_log,
)
from realmfs.vice.types import Fid, StoreId, VersionVector
from tests.t1_wire import strategies
from tests.t1_wire.vectors import load, vector

CASES = load("cml")
ACCEPTED = [case for case in CASES["records"] if case["opcode"] in log.RECORDS]
REFUSED = [case for case in CASES["records"] if case["opcode"] not in log.RECORDS]
NAMES = {
    "Did": "parent", "pVV": "parent_vv", "Name": "name", "Owner": "owner", "Mode": "mode", "Fid": "fid",
    "NewDid": "fid", "StoreId": "store_id", "VV": "vv", "Content": "content", "Length": "length",
    "Date": "date",
}  # fmt: skip
RENAME_NAMES = {
    "OldDid": "old_parent", "spVV": "old_parent_vv", "OldName": "old_name", "NewDid": "new_parent",
    "tpVV": "new_parent_vv", "NewName": "new_name", "sVV": "vv", "StoreId": "store_id",
}  # fmt: skip


def record_of(case: dict[str, Any]) -> AnyRecord:
    """Build the record of a golden case."""
    names = RENAME_NAMES if case["op"] == "Rename" else NAMES
    values: dict[str, Any] = {"mtime": case["mtime"]}
    for field, value in case["fields"].items():
        if field.endswith("VV"):
            value = vector(value)
        elif field == "StoreId":
            value = StoreId(*value)
        elif isinstance(value, list):
            value = Fid(*value)
        elif isinstance(value, str):
            value = value.encode()
        values[names[field]] = value
    kind = log.RECORDS[case["opcode"]]
    assert kind.__name__ == case["op"]
    if case["op"] in ("Rename", "Remove", "RemoveDir"):
        values["fid"] = Fid.zero()
    return kind(**values)


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case["name"])
def test_records_are_the_reference_bytes(case: dict[str, Any]) -> None:
    record = record_of(case)
    assert record.pack().hex() == case["hex"]
    assert len(record.pack()) == case["length"]
    assert unpack_log(bytes.fromhex(case["hex"])) == [record]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case["name"])
def test_records_no_server_takes_are_invalid(case: dict[str, Any]) -> None:
    with pytest.raises(BadLog) as refused:
        unpack_log(bytes.fromhex(case["hex"]))
    assert (refused.value.code, refused.value.index) == (Code.EINVAL, 0)


@pytest.mark.parametrize("case", CASES["malformed"], ids=lambda case: case["desc"])
def test_malformed_logs_fail_as_in_the_reference(case: dict[str, Any]) -> None:
    good = record_of(ACCEPTED[0]).pack()
    for prefix, count in ((b"", 0), (good, 1), (good * 2, 2)):
        data = prefix + bytes.fromhex(case["hex"])
        if case["reference"] == "accepted":
            assert len(unpack_log(data)) == count + case["records_before"]
            continue
        with pytest.raises(BadLog) as refused:
            unpack_log(data)
        assert refused.value.code.name == case["reference"].rpartition(" ")[2]
        assert refused.value.index == count + case["records_before"]


def test_fids_of_other_volumes_are_invalid() -> None:
    data = pack_log([record_of(case) for case in ACCEPTED])
    assert len(unpack_log(data, {0x7F000001})) == len(ACCEPTED)
    assert len(unpack_log(data, {0x01000001, 0x7F000001})) == len(ACCEPTED)
    with pytest.raises(BadLog) as refused:
        unpack_log(data, {0x7F000002})
    assert (refused.value.code, refused.value.index) == (Code.EINVAL, 0)


# threading

THREADED = [record_of(case) for case in CASES["threaded_log"]["records"]]


def unthreaded() -> tuple[list[AnyRecord], dict[Fid, VersionVector]]:
    """Return the golden log without vectors but with the fids that are not sent, and the cached vectors."""
    file, old = Fid(0x7F000001, 4, 1026), Fid(0x7F000001, 2, 77)
    cached: dict[Fid, VersionVector] = {}
    records: list[AnyRecord] = []
    for record in THREADED:
        blank: dict[str, Any] = {vv: VersionVector() for _, vv in record.OBJECTS if vv}
        if isinstance(record, log.Rename):
            blank["fid"] = file
        elif isinstance(record, log.Remove):
            blank["fid"] = old
            cached[old] = record.vv
        records.append(dataclasses.replace(record, **blank))
    first = THREADED[0]
    assert isinstance(first, log.MakeDir)
    cached[first.parent] = first.parent_vv
    return records, cached


def test_threading_gives_the_reference_log() -> None:
    records, cached = unthreaded()
    assert pack_log(thread(records, cached)).hex() == CASES["threaded_log"]["log_hex"]
    assert len(unpack_log(bytes.fromhex(CASES["threaded_log"]["log_hex"]))) == 9


def test_an_object_without_a_vector_is_the_callers_mistake() -> None:
    records, _ = unthreaded()
    with pytest.raises(KeyError):
        thread(records, {})


records_of_few_objects = st.integers(0, 2**32).map(lambda seed: random_log(random.Random(seed)))


def random_log(rng: random.Random) -> list[AnyRecord]:
    """Return records that touch a handful of objects, each under its own store id."""
    fids = [Fid(7, vnode, vnode) for vnode in range(1, 6)]
    made: list[AnyRecord] = []
    for number in range(rng.randrange(12)):
        head: dict[str, Any] = {"mtime": number, "store_id": StoreId(99, number)}
        parent, other, child = rng.choices(fids, k=3)
        pair: dict[str, Any] = {"parent": parent, "name": b"n", "fid": child, **head}
        choices: list[AnyRecord] = [
            log.Store(fid=child, length=5, **head),
            log.Chmod(fid=child, mode=5, **head),
            log.Link(**pair),
            log.Remove(**pair),
            log.Rename(old_parent=parent, old_name=b"n", new_parent=other, new_name=b"m", fid=child, **head),
        ]
        made.append(rng.choice(choices))
    return made


@given(records=records_of_few_objects, vv=strategies.vectors)
def test_each_vector_names_the_record_before(records: list[AnyRecord], vv: VersionVector) -> None:
    cached = {Fid(7, vnode, vnode): vv for vnode in range(1, 6)}
    before = dict.fromkeys(cached, vv.store_id)
    for record in thread(records, cached):
        for fid, name in record.OBJECTS:
            sent: VersionVector = getattr(record, name)
            assert (sent.versions, sent.flags) == (vv.versions, vv.flags), "counters stand still in a batch"
            assert sent.store_id == before[getattr(record, fid)]
        before.update(dict.fromkeys(record.objects(), record.store_id))
    assert last_store_ids(records) == {fid: now for fid, now in before.items() if now != vv.store_id}


@given(records=records_of_few_objects, slots=st.sets(st.integers(0, 7)))
def test_a_committed_batch_counts_once_per_object(records: list[AnyRecord], slots: set[int]) -> None:
    vv = VersionVector((5,) * 8, StoreId(1, 1))
    after = committed(records, {Fid(7, vnode, vnode): vv for vnode in range(1, 6)}, slots)
    assert after.keys() == {fid for record in records for fid in record.objects()}
    for fid, new in after.items():
        assert new.versions == vv.raised(slots).versions
        assert new.store_id == last_store_ids(records)[fid]


def test_a_new_object_starts_from_nothing() -> None:
    file = Fid(7, 2, 2)
    made = log.Create(
        mtime=1, store_id=StoreId(9, 1), parent=Fid(7, 1, 1), name=b"f", owner=0, mode=0o644, fid=file
    )
    after = committed([made], {Fid(7, 1, 1): VersionVector()}, [0, 2])
    assert after[file] == VersionVector((1, 0, 1, 0, 0, 0, 0, 0), StoreId(9, 1))


def test_files_whose_directories_are_only_consulted() -> None:
    """reintegration.md §2.7: not those that the batch made, nor directories."""
    head: dict[str, Any] = {"mtime": 1, "store_id": StoreId(9, 1)}
    old, new, link, directory = Fid(7, 2, 2), Fid(7, 4, 4), Fid(7, 6, 6), Fid(7, 3, 3)
    pair: dict[str, Any] = {"parent": directory, "name": b"n", **head}
    records: list[AnyRecord] = [
        log.Create(fid=new, owner=0, mode=0o644, **pair),
        log.Store(fid=new, length=1, **head),
        log.Chmod(fid=directory, mode=0o755, **head),
        log.Utimes(fid=old, date=1, **head),
        log.Store(fid=old, length=1, **head),
        log.Link(fid=link, **pair),
        log.Chmod(fid=link, mode=0o600, **head),
        log.Remove(fid=Fid(7, 8, 8), **pair),
    ]
    assert consulted(records) == [old, link]


def test_local_fids_are_translated() -> None:
    local, real = Fid(7, 0xFFFFFFFE, 2**19), Fid(7, 2, 3)
    record = log.Store(mtime=1, store_id=StoreId(9, 1), fid=local, length=3)
    assert record.translated({local: real}).fid == real
    assert record.translated({}) == record
    made = log.Create(
        mtime=1, store_id=StoreId(9, 1), parent=Fid(7, 1, 1), name=b"f", owner=0, mode=0o644, fid=local
    )
    assert list(made.translated({local: real}).objects()) == [Fid(7, 1, 1), real]


# any record, any bytes


@pytest.mark.parametrize("kind", log.RECORDS.values(), ids=lambda kind: kind.__name__)
@settings(max_examples=40)
@given(data=st.data())
def test_records_survive_the_wire(kind: type[AnyRecord], data: st.DataObject) -> None:
    records = data.draw(st.lists(strategies.messages(kind), min_size=1, max_size=3))
    again = unpack_log(pack_log(records))
    for sent, received in zip(records, again, strict=True):
        hidden: dict[str, Any] = {}
        if isinstance(sent, log.Rename | log.Remove | log.RemoveDir):
            assert received.fid == Fid.zero()
            hidden = {"fid": Fid.zero()}
        assert received == dataclasses.replace(sent, **hidden)


@given(data=st.data())
def test_hostile_logs_raise_bad_log_and_nothing_else(data: st.DataObject) -> None:
    good = bytes.fromhex(CASES["threaded_log"]["log_hex"])
    start, patch = data.draw(st.integers(0, len(good))), data.draw(st.binary(max_size=8))
    hostile = data.draw(
        st.sampled_from([good[:start] + patch, good[:start] + patch + good[start + len(patch) :]])
    )
    with contextlib.suppress(BadLog):
        records = unpack_log(hostile)
        assert pack_log(records) is not None
    assert issubclass(BadLog, BadPacket)
