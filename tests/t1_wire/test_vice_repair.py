"""Repair files for directories."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmfs.rpc2.errors import BadPacket
from realmfs.vice.repair import RepairCommand, RepairOp, ReplicaRepair, pack_repair, unpack_repair
from realmfs.vice.types import Fid
from tests.t1_wire.strategies import u32
from tests.t1_wire.vectors import load

CASE = load("cml")["dir_repair_file"]
TEXT_NAMES = {
    "createf": RepairOp.CREATE_FILE, "created": RepairOp.CREATE_DIRECTORY, "creates": RepairOp.CREATE_SYMLINK,
    "createl": RepairOp.CREATE_LINK, "removefsl": RepairOp.REMOVE, "removed": RepairOp.REMOVE_DIRECTORY,
    "setacl": RepairOp.SET_ACL, "setnacl": RepairOp.SET_NEGATIVE_ACL, "setmode": RepairOp.SET_MODE,
    "setowner": RepairOp.SET_OWNER, "setmtime": RepairOp.SET_MTIME, "mv": RepairOp.MOVE,
}  # fmt: skip
names = st.binary(max_size=253).filter(lambda name: b"\n" not in name)
commands = st.builds(RepairCommand, st.sampled_from(RepairOp), names, names, st.tuples(*[u32] * 5))
files = st.lists(st.builds(ReplicaRepair, u32, st.lists(commands, max_size=4).map(tuple)), max_size=8)


def command(op: dict[str, Any]) -> RepairCommand:
    """Build a command from its JSON form."""
    assert TEXT_NAMES[op["op"]] == op["opcode"]
    return RepairCommand(
        RepairOp(op["opcode"]), op["name"].encode(), op["newname"].encode(), tuple(op["parms"])
    )


def test_the_file_is_the_reference_one() -> None:
    replicas = [ReplicaRepair(one["volume"], tuple(map(command, one["ops"]))) for one in CASE["parsed"]]
    assert pack_repair(replicas).hex() == CASE["hex"]
    assert unpack_repair(bytes.fromhex(CASE["hex"])) == replicas
    assert replicas[0].commands[0].fid == Fid(0x7F000001, 0x44, 0x102)


@given(replicas=files)
def test_files_survive_the_wire(replicas: list[ReplicaRepair]) -> None:
    assert unpack_repair(pack_repair(replicas)) == replicas


@pytest.mark.parametrize("name", [b"a\nb", b"x" * 254])
def test_names_that_can_not_be_in_a_file(name: bytes) -> None:
    for bad in (RepairCommand(RepairOp.REMOVE, name), RepairCommand(RepairOp.MOVE, b"a", name)):
        with pytest.raises(ValueError, match="can not be named"):
            pack_repair([ReplicaRepair(1, (bad,))])


@given(data=st.data())
def test_hostile_files_raise_bad_packet_and_nothing_else(data: st.DataObject) -> None:
    good = bytes.fromhex(CASE["hex"])
    start, patch = data.draw(st.integers(0, len(good))), data.draw(st.binary(max_size=8))
    hostile = data.draw(
        st.sampled_from([good[:start] + patch, good[:start] + patch + good[start + len(patch) :]])
    )
    with contextlib.suppress(BadPacket):
        assert pack_repair(unpack_repair(hostile)) == hostile


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0000000a",
        "000000010100000100000001" + "0002a8fc" + "0a0a" + "00" * 20,
        "00000000ff",
        "0000000101000001ffffffff",
    ],
)
def test_senseless_files_are_bad_packets(text: str) -> None:
    with pytest.raises(BadPacket):
        unpack_repair(bytes.fromhex(text))
