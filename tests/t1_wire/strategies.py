"""Random values of every type of the file service, for round trips."""

from __future__ import annotations

import enum
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from realmfs.vice import calls, wire
from realmfs.vice.types import (
    ClientId,
    Disk,
    Fid,
    FidAndVector,
    FidRange,
    ObjectType,
    ReintHandle,
    Statistics,
    Status,
    StoreId,
    VersionVector,
    VolumeInfo,
    VolumeStatus,
    VolumeType,
)

u32 = st.integers(0, 2**32 - 1)
i32 = st.integers(-(2**31), 2**31 - 1)
fids = st.builds(Fid, u32, u32, u32)
store_ids = st.builds(StoreId, u32, u32)
vectors = st.builds(VersionVector, st.tuples(*[i32] * 8), store_ids, u32)
real_types = st.sampled_from([ObjectType.FILE, ObjectType.DIRECTORY, ObjectType.SYMLINK])
statuses = st.builds(
    Status,
    type=real_types,
    links=i32,
    length=u32,
    data_version=u32,
    vv=vectors,
    date=u32,
    author=u32,
    owner=u32,
    callback=st.booleans(),
    my_rights=i32,
    any_rights=i32,
    mode=u32,
    parent=st.tuples(u32, u32),
)
texts = st.binary(max_size=40)


def _bytes16() -> st.SearchStrategy[bytes]:
    return st.binary(min_size=16, max_size=16)


VALUES: dict[Any, st.SearchStrategy[Any]] = {
    Fid: fids,
    StoreId: store_ids,
    VersionVector: vectors,
    Status: statuses,
    ObjectType: st.sampled_from(ObjectType),
    FidRange: st.builds(FidRange, u32, u32, i32, i32),
    FidAndVector: st.builds(FidAndVector, fids, vectors),
    ClientId: st.builds(ClientId, texts, texts, texts, _bytes16()),
    ReintHandle: st.builds(ReintHandle, i32, i32, i32),
    VolumeInfo: st.builds(
        VolumeInfo,
        u32,
        st.sampled_from(VolumeType),
        st.tuples(*[u32] * 5),
        st.lists(u32, max_size=8).map(tuple),
        st.tuples(*[u32] * 8),
    ),
    VolumeStatus: st.builds(VolumeStatus, u32, u32, *[st.booleans()] * 4, u32, i32, i32, i32, i32, i32),
    Statistics: st.builds(
        Statistics,
        st.tuples(*[u32] * 45),
        st.lists(
            st.builds(
                Disk, i32, i32, st.binary(min_size=1, max_size=32).filter(lambda name: b"\0" not in name)
            ),
            max_size=10,
        ).map(tuple),
    ),
    wire.U32: u32,
    wire.I32: i32,
    wire.Flag: st.booleans(),
    wire.Promise: st.booleans(),
    wire.Room: st.integers(0, wire.MAX_BUFFER),
    wire.Text: texts,
    calls.PiggyCop2: st.binary(max_size=104),
    calls.VersionStamps: st.binary(max_size=32),
    calls.StatusArgument: statuses,
    calls.StatusResult: statuses,
    calls.VolumeName: st.binary(max_size=32),
    calls.Notice: st.binary(max_size=128),
    calls.Sha: st.binary(max_size=20),
    calls.ValidityFlags: st.binary(max_size=60),
}


def messages(kind: type[wire.Message]) -> st.SearchStrategy[Any]:
    """Random messages of one class, from its annotations."""
    hints = get_type_hints(kind, include_extras=True)
    return st.builds(kind, **{name: _value(hints[name]) for name, _ in wire.codecs(kind)})


def _value(hint: Any) -> st.SearchStrategy[Any]:
    if hint in VALUES:
        return VALUES[hint]
    assert get_origin(hint) is Annotated, hint
    plain = get_args(hint)[0]
    if plain is bytes:
        zero = get_args(hint)[1].zero
        return st.binary(min_size=len(zero), max_size=len(zero) or 60)
    if plain in VALUES:
        return VALUES[plain]
    element = get_args(plain)[0]
    return st.lists(u32 if element is int else VALUES[element], max_size=6).map(tuple)


def is_enum(hint: Any) -> bool:
    """Whether an annotation is one of the protocol's enumerations."""
    return isinstance(hint, type) and issubclass(hint, enum.IntEnum)
