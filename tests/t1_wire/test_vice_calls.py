"""Every call of the three services: round trips in both directions, golden bodies, hostile bodies."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realmfs.rpc2.errors import BadPacket
from realmfs.vice import calls
from realmfs.vice.auth import AUTH_SERVICE, GetTokens, NameToId
from realmfs.vice.callbacks import CALLBACK_SERVICE
from realmfs.vice.types import ClientId, Fid, ObjectType, ReintHandle, Status
from realmfs.vice.wire import Request, Transfer
from tests.t1_wire import strategies

CML = json.loads((Path(__file__).parent.parent / "data" / "cml.json").read_text())
ALL = [
    pytest.param(request, id=request.__qualname__)
    for service in (calls.FILE_SERVICE, CALLBACK_SERVICE, AUTH_SERVICE)
    for request in service.values()
]


@pytest.mark.parametrize("kind", ALL)
@settings(max_examples=30)
@given(data=st.data())
def test_requests_survive_the_wire(kind: type[Request[Any]], data: st.DataObject) -> None:
    request = data.draw(strategies.messages(kind))
    body = request.pack()
    assert len(body) % 4 == 0
    assert kind.unpack(body) == request
    assert kind.unpack(body + b"later versions may say more") == request


@pytest.mark.parametrize("kind", ALL)
@settings(max_examples=30)
@given(data=st.data())
def test_replies_survive_the_wire(kind: type[Request[Any]], data: st.DataObject) -> None:
    reply_type = kind.reply_type()
    reply = data.draw(strategies.messages(reply_type))
    assert reply_type.unpack(reply.pack()) == reply
    assert reply_type.unpack(reply.pack(), code=22) == reply


@pytest.mark.parametrize("kind", ALL)
@settings(max_examples=30)
@given(data=st.data())
def test_hostile_bodies_raise_bad_packet_and_nothing_else(
    kind: type[Request[Any]], data: st.DataObject
) -> None:
    for message_type in (kind, kind.reply_type()):
        good = data.draw(strategies.messages(message_type)).pack()
        start, patch = data.draw(st.integers(0, len(good))), data.draw(st.binary(max_size=12))
        hostile = data.draw(
            st.sampled_from([good[:start], patch + good, good[:start] + patch + good[start + len(patch) :]])
        )
        with contextlib.suppress(BadPacket):
            assert isinstance(message_type.unpack(hostile), message_type)


@pytest.mark.parametrize("kind", ALL)
@settings(max_examples=30)
@given(body=st.binary(max_size=200), code=st.sampled_from([1, 113, 4711, -2001]))
def test_the_reply_to_a_failed_call_never_raises(kind: type[Request[Any]], body: bytes, code: int) -> None:
    reply = kind.reply_type().unpack(body, code)
    assert isinstance(reply, kind.reply_type())


@pytest.mark.parametrize("kind", ALL)
def test_errors_travel_with_all_parameters(kind: type[Request[Any]]) -> None:
    zero = kind.reply_type().zero()
    assert kind.reply_type().unpack(zero.pack(), code=1) == zero
    assert kind.reply_type().unpack(b"", code=1) == zero


def test_opcodes_are_those_of_the_document() -> None:
    live = {
        2,
        3,
        5,
        15,
        17,
        18,
        19,
        20,
        21,
        23,
        24,
        26,
        29,
        30,
        33,
        34,
        36,
        37,
        40,
        41,
        42,
        *range(55, 60),
        63,
        64,
        65,
    }
    assert set(calls.FILE_SERVICE) == live
    assert set(CALLBACK_SERVICE) == {1, 2}
    assert set(AUTH_SERVICE) == {1, 2, 3, 4, 5, 6, 7}
    moving = {request for request in calls.FILE_SERVICE.values() if request.TRANSFER is not Transfer.NONE}
    assert {request.OPCODE for request in moving} == {3, 65, 33, 57, 58, 59}


def golden(name: str) -> bytes:
    return next(bytes.fromhex(body["hex"]) for body in CML["rpc_bodies"] if body["name"] == name)


def test_reintegrate_as_the_reference_sends_it() -> None:
    stamps = bytes.fromhex("050000000500000005000000" + "00" * 20)
    request = calls.Reintegrate(volume=0x7F000001, log_size=992, old_stamps=stamps)
    assert request.pack() == golden("ViceReintegrate_request_body")
    reply = calls.Reintegrate.Reply(
        index=9,
        stale_dirs=(Fid(0x7F000001, 1, 1), Fid(0x7F000001, 3, 1025)),
        new_stamp=0,
        promised=False,
    )
    assert reply.pack() == golden("ViceReintegrate_response_body")


def test_handle_calls_as_the_reference_sends_them() -> None:
    handle = ReintHandle(1699990000, 3, 77)
    closing = calls.CloseReintHandle(volume=0x7F000001, log_size=76, handle=handle)
    assert closing.pack() == golden("ViceCloseReintHandle_request_body")
    fragment = calls.SendReintFragment(volume=0x7F000001, handle=handle, length=65536)
    assert fragment.pack() == golden("ViceSendReintFragment_request_body")


def test_a_failed_reintegration_still_names_its_record() -> None:
    body = bytes.fromhex("00000002deadbeef0000")
    reply = calls.Reintegrate.Reply.unpack(body, code=198)
    assert (reply.index, reply.stale_dirs, reply.promised) == (2, (), False)
    with pytest.raises(BadPacket):
        calls.Reintegrate.Reply.unpack(body)


def test_out_buffers_are_announced_empty() -> None:
    body = calls.GetAttr(fid=Fid(0x7F000001, 2, 3)).pack()
    assert body.hex() == "7f00000100000002000000030000000000000014000000000000000000000000"


def test_a_status_of_no_type_is_no_answer_but_a_fine_argument() -> None:
    nothing = Status.zero()
    with pytest.raises(BadPacket):
        calls.Fetch.Reply.unpack(calls.Fetch.Reply(status=nothing).pack())
    request = calls.ValidateAttrs(primary=Fid(1, 2, 3), piggies=())
    assert calls.ValidateAttrs.unpack(request.pack()).status.type is ObjectType.INVALID


def test_too_many_stale_directories_are_a_bad_packet() -> None:
    reply = calls.Reintegrate.Reply(index=1, stale_dirs=(Fid(1, 1, 1),) * 51, new_stamp=0, promised=False)
    with pytest.raises(BadPacket):
        calls.Reintegrate.Reply.unpack(reply.pack())


def test_texts_come_with_a_nul() -> None:
    assert calls.GetRootVolume.Reply(volume=b"/\0").name == b"/"


def test_auth_bodies_as_the_reference_tools_send_them() -> None:
    assert NameToId(name=b"alice").pack() == bytes.fromhex("00000005616c696365000000")
    assert NameToId.unpack(bytes.fromhex("00000005616c69636500000e")).name == b"alice"
    assert len(GetTokens.Reply(secret=bytes(56), clear=bytes(24)).pack()) == 80


def test_the_client_introduces_itself_as_the_reference_does() -> None:
    client = ClientId(b"UID=00000501", b"host.example", b"venus", bytes(range(16)))
    assert calls.NewConnectFS(client=client).pack()[:8] == bytes.fromhex("000000030000000c")
