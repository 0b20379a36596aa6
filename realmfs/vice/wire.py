"""How the bodies of calls and log records are declared: dataclasses whose annotations name the wire form.

A message class lists its parameters in wire order. The annotation of each says both the Python type and the
codec:

    @message
    class AllocFids(Request["AllocFids.Reply"]):
        OPCODE = 36
        volume: U32
        type: ObjectType
        range: FidRange

        @message
        class Reply(Results):
            range: FidRange

`U32` is `Annotated[int, <codec>]`; a class with `pack`, `unpack` and `zero` of its own (Fid, Status...) is
its own codec. The codecs of a message are looked up once per class, at its first use.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import (
    Annotated,
    Any,
    ClassVar,
    Generic,
    Protocol,
    Self,
    TypeVar,
    cast,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.marshal import Packer, Unpacker

MAX_BUFFER = 4500
"""Largest buffer a caller may ask a server to fill (rpc2.md §14)."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Codec(Generic[T]):
    """One wire form: how to append a value, to read one (BadPacket only), and what a failed call sends."""

    pack: Callable[[Packer, T], None]
    unpack: Callable[[Unpacker], T]
    zero: T


class Packable(Protocol):
    """A value type that brings its own wire form."""

    def pack(self, packer: Packer) -> None:
        """Append the wire bytes."""

    @classmethod
    def unpack(cls, unpacker: Unpacker) -> Self:
        """Read one value. Raises BadPacket."""

    @classmethod
    def zero(cls) -> Self:
        """Return the value that stands for nothing."""


P = TypeVar("P", bound=Packable)


def own_codec(kind: type[P]) -> Codec[P]:
    """Return the codec of a type with its own pack, unpack and zero."""
    return Codec(lambda packer, value: value.pack(packer), kind.unpack, kind.zero())


def array(element: Codec[T], limit: int) -> Codec[tuple[T, ...]]:
    """A hidden count, then that many elements; more than `limit` is a bad packet (rpc2.md §14)."""

    def pack(packer: Packer, values: tuple[T, ...]) -> None:
        packer.u32(len(values))
        for value in values:
            element.pack(packer, value)

    def unpack(unpacker: Unpacker) -> tuple[T, ...]:
        count = unpacker.u32()
        if count > limit:
            raise BadPacket(f"{count} elements where {limit} may come")
        return tuple(element.unpack(unpacker) for _ in range(count))

    return Codec(pack, unpack, ())


def counted(limit: int) -> Codec[bytes]:
    """CountedBS of at most `limit` bytes."""
    return Codec(Packer.counted, lambda unpacker: unpacker.counted(limit), b"")


def bounded(limit: int) -> Codec[bytes]:
    """BoundedBS of which the receiver takes at most `limit` bytes; also the maximum that is announced."""
    return Codec(
        lambda packer, value: packer.bounded(value, max(limit, len(value))),
        lambda unpacker: unpacker.bounded(limit),
        b"",
    )


def _pack_room(packer: Packer, size: int) -> None:
    packer.u32(size)
    packer.u32(0)


def _unpack_room(unpacker: Unpacker) -> int:
    size = unpacker.u32()
    unpacker.counted(MAX_BUFFER)  # what an IN OUT buffer holds on the way in; no call here reads it
    if size > MAX_BUFFER:
        raise BadPacket(f"a buffer of {size} bytes asked for; at most {MAX_BUFFER}")
    return size


def _enum_codec(kind: type[enum.IntEnum]) -> Codec[enum.IntEnum]:
    def unpack(unpacker: Unpacker) -> enum.IntEnum:
        number = unpacker.u32()
        try:
            return kind(number)
        except ValueError:
            raise BadPacket(f"{number} is no {kind.__name__}") from None

    return Codec(Packer.u32, unpack, kind(0))


def raw(size: int) -> Codec[bytes]:
    """A fixed number of bytes."""
    return Codec(Packer.raw, lambda unpacker: unpacker.raw(size), bytes(size))


WORD: Codec[int] = Codec(Packer.u32, Unpacker.u32, 0)
U32 = Annotated[int, WORD]
I32 = Annotated[int, Codec(Packer.i32, Unpacker.i32, 0)]
Flag = Annotated[bool, Codec(Packer.u32, lambda unpacker: unpacker.u32() != 0, False)]
"""A u32 of which only zero or not zero counts."""
Promise = Annotated[bool, Codec(Packer.u32, lambda unpacker: unpacker.u32() == 1, False)]
"""CallBackStatus: 1 = the server promises to call back."""
Text = Annotated[bytes, Codec(Packer.string, Unpacker.string, b"")]
"""RPC2_String: the bytes without the NUL that closes them on the wire."""
Room = Annotated[int, Codec(_pack_room, _unpack_room, 0)]
"""An OUT BoundedBS as the request shows it: the size of the caller's buffer, and no bytes (rpc2.md §14)."""


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(dataclasses.field,))
def message(cls: type[T]) -> type[T]:
    """Make a class of annotated parameters an immutable message; arguments are given by keyword."""
    return dataclass(frozen=True, slots=True, kw_only=True)(cls)


class Message:
    """A sequence of parameters with wire forms."""

    __slots__ = ()

    def pack_into(self, packer: Packer) -> None:
        """Append all parameters in order."""
        for name, codec in codecs(type(self)):
            codec.pack(packer, getattr(self, name))

    @classmethod
    def unpack_from(cls, unpacker: Unpacker) -> Self:
        """Read all parameters in order. Raises BadPacket."""
        return cls(**{name: codec.unpack(unpacker) for name, codec in codecs(cls)})

    def pack(self) -> bytes:
        """Return the body of the packet."""
        packer = Packer()
        self.pack_into(packer)
        return packer.done()


_CODECS: dict[type, tuple[tuple[str, Codec[Any]], ...]] = {}


def codecs(kind: type[Message]) -> tuple[tuple[str, Codec[Any]], ...]:
    """Return name and codec of each parameter of a message class, in wire order."""
    known = _CODECS.get(kind)
    if known is None:
        hints = get_type_hints(kind, include_extras=True)
        names = [field.name for field in dataclasses.fields(cast("Any", kind))]
        known = _CODECS[kind] = tuple((name, _codec_of(hints[name])) for name in names)
    return known


def _codec_of(hint: Any) -> Codec[Any]:
    if get_origin(hint) is Annotated:
        return cast("Codec[Any]", get_args(hint)[1])
    if issubclass(hint, enum.IntEnum):
        return cast("Codec[Any]", _enum_codec(hint))
    return own_codec(hint)


class Results(Message):
    """The body of a reply: the OUT and IN OUT parameters of a call."""

    __slots__ = ()

    @classmethod
    def zero(cls) -> Self:
        """What accompanies an error: the parameters must be in the reply whatever the code (rpc2.md §14)."""
        return cls(**{name: codec.zero for name, codec in codecs(cls)})

    @classmethod
    def unpack(cls, body: bytes, code: int = 0) -> Self:
        """Read the body of a reply with return code `code`.

        Bytes behind the last parameter are ignored, as the reference does. With code 0 raises BadPacket for
        anything else that is wrong. With any other code nothing is raised: parameters from the first
        unreadable one on are zero, and the others may be garbage unless the call documents them.
        """
        unpacker = Unpacker(body)
        if code == 0:
            return cls.unpack_from(unpacker)
        values = {name: codec.zero for name, codec in codecs(cls)}
        with contextlib.suppress(BadPacket):  # an error's body may end anywhere
            for name, codec in codecs(cls):
                values[name] = codec.unpack(unpacker)
        return cls(**values)


class Transfer(enum.Enum):
    """What else travels with a call: bulk data as a side effect."""

    NONE = "none"
    TO_SERVER = "client to server"
    TO_CLIENT = "server to client"


R = TypeVar("R", bound=Results)


class Request(Message, Generic[R]):
    """The body of a request: the IN and IN OUT parameters of a call. Each class has its `Reply`."""

    __slots__ = ()

    OPCODE: ClassVar[int]
    TRANSFER: ClassVar[Transfer] = Transfer.NONE
    """Direction of bulk data in terms of RPC2 roles: the client is who sends the request."""

    @classmethod
    def unpack(cls, body: bytes) -> Self:
        """Read the body of a request, ignoring bytes behind the last parameter. Raises BadPacket."""
        return cls.unpack_from(Unpacker(body))

    @classmethod
    def reply_type(cls) -> type[R]:
        """Return the class of the replies to this request: `.Reply`, typed for generic callers."""
        return cast("type[R]", vars(cls)["Reply"])


def service(*requests: type[Request[Any]]) -> dict[int, type[Request[Any]]]:
    """Return the calls of one subsystem by opcode."""
    return {request.OPCODE: request for request in requests}


@message
class NoResults(Results):
    """The empty body."""
