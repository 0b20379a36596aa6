"""Recorded calls between the reference client and its servers: we read them, and would send the same."""

from __future__ import annotations

from typing import Any

import pytest

from realmfs.vice.auth import AUTH_SERVICE
from realmfs.vice.callbacks import CALLBACK_SERVICE
from realmfs.vice.calls import FILE_SERVICE, FetchPartial, GetVolumeInfo, NewConnectFS, OldAllocFids
from realmfs.vice.types import Fid, ObjectType, Replica, VolumeType
from realmfs.vice.wire import Message, Request
from tests.t1_wire.vectors import load

CALLS: dict[str, type[Request[Any]]] = {
    kind.__name__: kind
    for service in (FILE_SERVICE, CALLBACK_SERVICE, AUTH_SERVICE)
    for kind in service.values()
}
CASES = load("calls")


def assert_same(sent: Message, body: bytes, free: list[int]) -> None:
    """Compare bodies but for `free`: padding, buffer sizes in replies, odd flags, unused fields."""
    ours = sent.pack()
    assert len(ours) == len(body)
    assert [offset for offset in range(len(ours)) if ours[offset] != body[offset]] == free


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['capture']}-{case['call']}-{case['code']}")
def test_recorded_calls(case: dict[str, Any]) -> None:
    kind = CALLS[case["call"]]
    request = bytes.fromhex(case["request"])
    assert_same(kind.unpack(request), request, case["request_free"])
    reply = bytes.fromhex(case["reply"])
    result = kind.reply_type().unpack(reply, case["code"])
    if case["code"] == 0:
        assert_same(result, reply, case["reply_free"])


def recorded(kind: type[Request[Any]], code: int = 0) -> list[tuple[Any, Any]]:
    """Return requests and replies of one call."""
    return [
        (
            kind.unpack(bytes.fromhex(case["request"])),
            kind.reply_type().unpack(bytes.fromhex(case["reply"]), code),
        )
        for case in CASES
        if case["call"] == kind.__name__ and case["code"] == code
    ]


def test_the_group_of_the_recorded_root_volume() -> None:
    found = {request.name: reply.info for request, reply in recorded(GetVolumeInfo)}
    root = found[b"/"]
    assert root.type is VolumeType.REPLICATED
    assert root.replicas == tuple(
        Replica(slot, 0x01000001 + 0x01000000 * slot, f"10.79.0.{11 + slot}") for slot in range(3)
    )


def test_the_recorded_client_introduces_itself() -> None:
    request, _ = recorded(NewConnectFS)[0]
    assert (request.version, request.client.venus, len(request.client.uuid)) == (3, b"venus", 16)


def test_recorded_fids_are_sound() -> None:
    for request, reply in recorded(OldAllocFids):
        assert reply.range.checked(request.range.count, request.type is ObjectType.DIRECTORY).count > 0


def test_the_recorded_probe_for_partial_fetches() -> None:
    assert all(request.fid == Fid.zero() for request, _ in recorded(FetchPartial, code=22))
    assert recorded(FetchPartial, code=22)
