"""The value types: the reference's bytes, round trips, fids and fid ranges."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.marshal import Packer, Unpacker
from realmfs.vice.types import (
    ClientId,
    Disk,
    Fid,
    FidAndVector,
    FidRange,
    ObjectType,
    Replica,
    Rights,
    Statistics,
    Status,
    StoreId,
    VersionVector,
    VolumeInfo,
    VolumeStatus,
    VolumeType,
)
from realmfs.vice.volumes import is_replicated_id
from tests.t1_wire import strategies
from tests.t1_wire.vectors import load

STRUCTS = load("vice")["marshalled_structs"]
OWN = [kind for kind in strategies.VALUES if isinstance(kind, type) and not strategies.is_enum(kind)]

EXAMPLES = {
    "ViceStatus": Status(
        ObjectType.FILE,
        links=1,
        length=4711,
        data_version=3,
        vv=VersionVector((2, 2, 1, 0, 0, 0, 0, 0), StoreId(0xDEADBEEF, 17), 8),
        date=1610612736,
        author=501,
        owner=502,
        callback=True,
        my_rights=127,
        any_rights=9,
        mode=0o644,
        parent=(1, 1),
    ),
    "VolumeInfo": VolumeInfo(
        0x7F000001,
        VolumeType.REPLICATED,
        (0, 0, 0, 0x7F000001, 0),
        (0x0A000001, 0x0A000002, 0x0A000003),
        (0x01000001, 0x02000001, 0x03000005, 0, 0, 0, 0, 0),
    ),
    "VolumeStatus": VolumeStatus(
        16777217, 16777217, True, True, True, False, 0, 0, 10000, 42, 123456, 999999
    ),
    "ViceStatistics": Statistics(tuple(range(1, 46)), (Disk(100, 200, b"/vicepa"),)),
    "ViceClient": ClientId(b"UID=00000501", b"host.example", b"venus", bytes(range(16))),
    "ViceFidRange": FidRange(18, 837, 6, 32),
    "ViceFidAndVV": FidAndVector(
        Fid(0x7F000001, 2, 3), VersionVector((1, 1, 0, 0, 0, 0, 0, 0), StoreId(5, 6))
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_bytes_are_those_of_the_reference(name: str) -> None:
    value: Any = EXAMPLES[name]
    packer = Packer()
    value.pack(packer)
    reference = bytearray.fromhex(STRUCTS[name]["hex"])
    assert type(value).unpack(Unpacker(bytes(reference))) == value
    if name == "VolumeStatus":
        reference[23] = 0  # padding, which the reference leaves uninitialised
    assert packer.done() == reference


@pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.__name__)
@settings(max_examples=40)
@given(data=st.data())
def test_values_survive_the_wire(kind: Any, data: st.DataObject) -> None:
    value = data.draw(strategies.VALUES[kind])
    packer = Packer()
    value.pack(packer)
    unpacker = Unpacker(packer.done() + b"next")
    assert kind.unpack(unpacker) == value
    assert unpacker.raw(4) == b"next"
    with pytest.raises(BadPacket):
        kind.unpack(Unpacker(packer.done()[:-1]))


@pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.__name__)
def test_zero_is_all_zero_bytes(kind: Any) -> None:
    packer = Packer()
    kind.zero().pack(packer)
    body = packer.done()
    if kind is Status:
        body = bytes(4) + body[4:]  # the interface version stays 1
    assert not any(body[offset] for offset in range(len(body)))


def test_the_counters_have_names() -> None:
    named = Statistics(tuple(range(1, 46)), ()).named()
    assert (named["current_time"], named["workstations"], named["data_size"]) == (3, 36, 45)


def test_fids_know_what_they_name() -> None:
    assert str(Fid(0x7F000001, 0x13, 0x24)) == "7f000001.13.24"
    assert Fid(1, 3, 7).is_directory
    assert not Fid(1, 2, 7).is_directory
    assert Fid.root(0x7F000001).is_root
    assert Fid.root(0x7F000001).is_directory
    assert Fid(5, 0, 0).names_volume
    assert Fid(5, 2, 0).names_volume
    assert not Fid(5, 2, 1).names_volume
    assert Fid(5, 2, 1).in_volume(6) == (6, 2, 1)
    assert hash(Fid(5, 2, 1)) == hash((5, 2, 1))


def test_groups_are_read_from_a_volume_info() -> None:
    info = EXAMPLES["VolumeInfo"]
    assert isinstance(info, VolumeInfo)
    assert info.is_replicated
    assert info.replicated_id == info.id
    assert is_replicated_id(info.id)
    assert info.replicas == (
        Replica(0, 0x01000001, "10.0.0.1"),
        Replica(1, 0x02000001, "10.0.0.2"),
        Replica(2, 0x03000005, "10.0.0.3"),
    )


def test_a_lone_volume_is_its_own_replica() -> None:
    info = VolumeInfo(
        0x01000003, VolumeType.NON_REPLICATED, (0x01000003, 0, 0, 0, 0x01000003), (0x0A000001,), (0,) * 8
    )
    assert info.replicas == (Replica(0, 0x01000003, "10.0.0.1"),)
    assert not info.replicated_id
    assert not is_replicated_id(info.id)


def test_a_slot_without_a_server_keeps_the_others_in_place() -> None:
    info = VolumeInfo(0x7F000001, VolumeType.REPLICATED, (0,) * 5, (1, 0, 3), (11, 0, 13, 0, 0, 0, 0, 0))
    assert [(one.slot, one.volume) for one in info.replicas] == [(0, 11), (2, 13)]


@pytest.mark.parametrize(("offset", "word"), [(4, 5), (28, 9)])
def test_senseless_volume_infos_are_bad_packets(offset: int, word: int) -> None:
    body = bytearray.fromhex(STRUCTS["VolumeInfo"]["hex"])
    body[offset : offset + 4] = word.to_bytes(4, "big")
    with pytest.raises(BadPacket):
        VolumeInfo.unpack(Unpacker(bytes(body)))


def test_fid_ranges_name_their_fids() -> None:
    granted = FidRange(18, 837, 6, 3).checked(wanted=32, directories=False)
    assert list(granted.fids(7)) == [Fid(7, 18, 837), Fid(7, 24, 838), Fid(7, 30, 839)]
    assert list(granted.rest(2).fids(7)) == [Fid(7, 30, 839)]
    assert list(FidRange.zero().checked(32, True).fids(7)) == []
    assert FidRange.request(5).count == 5


@pytest.mark.parametrize(
    "granted",
    [
        FidRange(18, 1, 6, 33),
        FidRange(18, 1, 6, -1),
        FidRange(18, 1, 0, 2),
        FidRange(18, 1, -6, 2),
        FidRange(18, 1, 3, 2),
        FidRange(17, 1, 6, 2),
        FidRange(0, 1, 6, 2),
        FidRange(0xFFFFFFFE, 1, 2, 2),
        FidRange(18, 0xFFFFFFFF, 2, 2),
    ],
    ids=str,
)
def test_senseless_fid_ranges_are_bad_packets(granted: FidRange) -> None:
    with pytest.raises(BadPacket):
        granted.checked(wanted=32, directories=False)


def test_rights_keep_unknown_bits() -> None:
    assert int(Rights(255)) == 255
