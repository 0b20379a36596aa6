"""The orders of the reference's tools (`cfs`, `hoard`, `clog`, `ctokens`, `cunlog`), done by our methods.

Each is a translation: what came in C's layout and this machine's byte order becomes parameters of a method of
the control socket, with the rights of whoever gave the order, and the result goes back in C's layout. Orders
that are not in the table answer EOPNOTSUPP. Where the tool names a file for a list, the list is written
there, mode 0600, owned by the caller.

An order is carried out within one request of the kernel, which must end within the patience: what takes
longer (a hoard walk, sending a long log) goes on after `_WITHIN` seconds, and the tool is told that all is
well, or that changes are left.
"""

import errno
import os
import re
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import trio

from realmfs.control import hoardmessages, messages, volumemessages
from realmfs.control.pioctl import Order
from realmfs.control.protocol import ControlError, Request
from realmfs.control.service import Session
from realmfs.rpc2.errors import BadPacket
from realmfs.venus.face import Caller
from realmfs.vice.acl import AccessList, parse_rights
from realmfs.vice.errors import CodaError, Code, from_errno
from realmfs.vice.tokens import ClearToken, Token, format_token_file, parse_token_file

_SLOTS = 8
_VOLUME_STATUS = struct.Struct("=II4BI6i")
_AFTER_NAME = struct.Struct("=iii")
_AT_THE_END = struct.Struct("=IIQ")
_STATES = {"unreachable": 1, "reachable": 2, "resolving": 3}
_FID_AND_VECTOR = struct.Struct("=3I11I")
_REALM_FIELD = 65
_TOKEN = struct.Struct("=I56sI")
_CLEAR = struct.Struct("=i8siii")
_CLEAR_SIZE = 24
_REALM_OF_TOKEN = 64
_HOARD_ADD = struct.Struct("=I65s1024s3xii")
_HOARD_DELETE = struct.Struct("=I65s1024s")
_OUT_FILE = 1024
_ATTRIBUTES: Final = {2: "c", 3: "c+", 4: "d", 5: "d+", 6: "d", 7: "d+"}
"""By the bits of the tool: 1 new ones too, 2 children, 4 all below."""
_WITHIN = 8.0
_POLL = 0.2


class Habits:
    """The table of orders; `session_of` gives the methods of the control socket for a caller."""

    def __init__(self, session_of: Callable[[Caller], Session]) -> None:
        self._session_of = session_of
        self._orders: dict[int, Callable[[_Job], Awaitable[bytes]]] = {
            1: _set_acl,
            2: _get_acl,
            3: _set_token,
            4: _volume_status,
            6: _flush,
            8: _get_token,
            9: _unlog,
            10: _check_servers,
            11: _nothing,
            14: _where_is,
            15: _prefetch,
            29: _mount_point,
            34: _nothing,
            37: _flush,
            140: _force,
            197: _fid,
            198: _flush_all,
            200: _hoard_add,
            201: _hoard_delete,
            203: _hoard_clear,
            204: _hoard_list,
            205: _wait_forever,
            206: _hoard_walk,
            208: _path_of,
            212: _purge,
            216: _disconnect,
            217: _reconnect,
            220: _write_disconnect,
            222: _hoard_verify,
            224: _hoard_on,
            225: _hoard_off,
            238: _write_disconnect_all,
            239: _force_all,
        }

    async def __call__(self, caller: Caller, order: Order) -> bytes:
        """Carry an order out. Raises CodaError."""
        todo = self._orders.get(order.command)
        if todo is None:
            raise CodaError(Code.EOPNOTSUPP, f"order {order.command}")
        job = _Job(self._session_of(Caller(caller.uid, caller.gid, caller.pid, kernel=False)), caller, order)
        try:
            return await todo(job)
        except ControlError as error:
            raise CodaError(from_errno(error.number or errno.EINVAL), error.text) from error
        except (struct.error, BadPacket, ValueError) as error:
            raise CodaError(Code.EINVAL, str(error)) from error


class _Job:
    """One order under way."""

    def __init__(self, session: Session, caller: Caller, order: Order) -> None:
        self._session = session
        self.caller = caller
        self.path = order.path
        self.follow = order.follow
        self.data = order.data

    async def call(self, method: str, **params: Any) -> Any:
        """Call a method; its result as plain values. Raises ControlError."""
        result, _ = await self._session.call(Request(None, method, params))
        return result

    async def pages(self, method: str, *, cursor: str | None = None, **params: Any) -> list[Any]:
        """Return all that a method lists. Raises ControlError."""
        entries: list[Any] = []
        while True:
            page = await self.call(method, cursor=cursor, **params)
            entries += page.entries
            cursor = page.cursor
            if cursor is None:
                return entries

    @property
    def text(self) -> str:
        """The in-bytes as a C string."""
        return self.data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


async def _nothing(job: _Job) -> bytes:
    """What the order asks for is so anyway."""
    return b""


# access


async def _get_acl(job: _Job) -> bytes:
    found: messages.Acl = await job.call("acl.get", path=job.path)
    positive = tuple((entry.name, int(parse_rights(entry.rights))) for entry in found.positive)
    negative = tuple((entry.name, int(parse_rights(entry.rights))) for entry in found.negative)
    return AccessList(positive, negative).format().rstrip(b"\0") + b"\0"


async def _set_acl(job: _Job) -> bytes:
    wanted = AccessList.parse(job.data.split(b"\0", 1)[0] + b"\0")
    await job.call("acl.set", path=job.path, entries=[], text=wanted.text, clear=True)
    return b""


# tokens


async def _set_token(job: _Job) -> bytes:
    secret_size, secret, clear_size = _TOKEN.unpack_from(job.data)
    if secret_size != 56 or clear_size != _CLEAR_SIZE:
        raise CodaError(Code.EINVAL, "a token of another size")
    clear = job.data[_TOKEN.size : _TOKEN.size + _CLEAR_SIZE]
    _, key, vice_id, begin, end = _CLEAR.unpack(clear)
    realm = job.data[_TOKEN.size + _CLEAR_SIZE :].split(b"\0", 1)[0].decode("ascii", "replace")
    contents = format_token_file(Token(ClearToken(key, vice_id, begin, end), secret)).decode("ascii")
    await job.call("tokens.set", realm=realm, contents=contents)
    return b""


async def _get_token(job: _Job) -> bytes:
    known = await job.pages("tokens.list")
    if not any(one.realm == job.text and one.state == "valid" for one in known):
        raise CodaError(Code.ENOTCONN, f"not logged in to {job.text}")
    given: messages.TokenFile = await job.call("tokens.get", realm=job.text)
    token = parse_token_file(given.contents.encode("ascii"))
    own = token.clear
    clear = _CLEAR.pack(-1, own.handshake_key, own.vice_id, own.begin, own.end)
    return _TOKEN.pack(len(token.secret), token.secret, len(clear)) + clear


async def _unlog(job: _Job) -> bytes:
    await job.call("tokens.logout", realm=job.text)
    return b""


# volumes and servers


async def _volume_status(job: _Job) -> bytes:
    local = len(job.data) == 4 and struct.unpack("=i", job.data) == (1,)
    told: volumemessages.VolumeStatus = await job.call("volumes.status", path=job.path, local=local)
    policy: volumemessages.Writeback = await job.call("writeback", volume=f"{told.name}@{told.realm}")
    status = _VOLUME_STATUS.pack(
        told.id, 0, 1, 1, 1, 0, told.type, 0, told.max_quota or 0, told.blocks_used or 0,
        told.partition_free or 0, told.partition_size or 0, 0,
    )  # fmt: skip
    return b"".join(
        (
            status,
            _c(told.name),
            _AFTER_NAME.pack(_STATES[told.state], told.conflict, told.pending),
            _c(told.offline),
            _c(told.motd),
            _AT_THE_END.pack(_u32(policy.age), _u32(1000 * policy.time), told.pending_bytes),
        )
    )


async def _where_is(job: _Job) -> bytes:
    told: volumemessages.VolumeStatus = await job.call("volumes.status", path=job.path, local=True)
    hosts, ids = [bytes(4)] * _SLOTS, [0] * _SLOTS
    for replica in told.replicas:
        hosts[replica.slot] = socket.inet_aton(replica.address)
        ids[replica.slot] = int(replica.id, 16)
    return b"".join(hosts) + struct.pack("=8I", *ids)


async def _check_servers(job: _Job) -> bytes:
    found = await job.pages("servers.list", check=True)
    down = {socket.inet_aton(one.address.rsplit(":", 1)[0]) for one in found if one.state == "down"}
    if len(job.data) >= 4:
        (count,) = struct.unpack_from("=i", job.data)
        asked = {job.data[4 + 4 * place : 8 + 4 * place] for place in range(max(0, min(count, 64)))}
        down &= asked
    return b"".join(sorted(down)) + bytes(4)


async def _fid(job: _Job) -> bytes:
    told: messages.Object = await job.call("path.stat", path=job.path, follow=job.follow)
    volume, vnode, unique = (int(part, 16) for part in told.details["fid"].split("."))
    words = _FID_AND_VECTOR.pack(volume, vnode, unique, *_vector(told.details.get("vv", "")))
    return words + told.details["realm"].encode().ljust(_REALM_FIELD, b"\0")


async def _path_of(job: _Job) -> bytes:
    volume, vnode, unique = struct.unpack_from("=3I", job.data)
    realm = job.data[12:].split(b"\0", 1)[0].decode("ascii", "replace")
    told = await job.call("path.of_fid", fid=f"{volume:x}.{vnode:x}.{unique:x}", realm=realm)
    return _c(told.path.partition("/")[2] or ".")


async def _wait_forever(job: _Job) -> bytes:
    (wanted,) = struct.unpack_from("=i", job.data)
    await job.call("connection.wait", on=bool(wanted))
    return b""


def _vector(text: str) -> list[int]:
    """Return the eleven words of a version vector from its text; zeros where it is not known."""
    found = re.fullmatch(r"\[([\d ]+)\]\[([\da-f]+)\.([\da-f]+)\](?: flags ([\da-f]+))?", text)
    if found is None:
        return [0] * (_SLOTS + 3)
    versions = [int(word) for word in found[1].split()]
    words = [
        *versions,
        *[0] * (_SLOTS - len(versions)),
        *(int(word or "0", 16) for word in found.groups()[1:]),
    ]
    return [word & 0xFFFFFFFF for word in words]


async def _mount_point(job: _Job) -> bytes:
    told: messages.Object = await job.call("path.stat", path=f"{job.path}/{job.text}")
    if told.details.get("mount", "").strip("/") != f"{job.path}/{job.text}".strip("/"):
        raise CodaError(Code.ENOTDIR, "no mount point")
    return _c(f"#{told.details['volume']}.")


async def _force(job: _Job) -> bytes:
    told: volumemessages.VolumeStatus = await job.call("volumes.status", path=job.path, local=True)
    left = await job.call("changes.send", volume=f"{told.name}@{told.realm}", within=_WITHIN)
    return _left(left)


async def _force_all(job: _Job) -> bytes:
    return _left(await job.call("changes.send", within=_WITHIN))


def _left(left: list[messages.Unsent]) -> bytes:
    if any(one.pending for one in left):
        raise CodaError(Code.ETIMEDOUT, "not all changes were sent")
    return b""


async def _purge(job: _Job) -> bytes:
    told: volumemessages.VolumeStatus = await job.call("volumes.status", path=job.path, local=True)
    await job.call("changes.discard", volume=f"{told.name}@{told.realm}")
    return b""


async def _disconnect(job: _Job) -> bytes:
    await job.call("connection.disconnect")
    return b""


async def _reconnect(job: _Job) -> bytes:
    await job.call("connection.reconnect")
    return b""


async def _write_disconnect(job: _Job) -> bytes:
    """Set when changes of the volume at the path are sent."""
    told: volumemessages.VolumeStatus = await job.call("volumes.status", path=job.path, local=True)
    await _set_writeback(job, volume=f"{told.name}@{told.realm}")
    return b""


async def _write_disconnect_all(job: _Job) -> bytes:
    """Set when changes are sent, of all volumes alike."""
    await _set_writeback(job, default=True)
    return b""


async def _set_writeback(job: _Job, **whose: Any) -> None:
    age, milliseconds = struct.unpack_from("=II", job.data)
    unchanged = 0xFFFFFFFF
    await job.call(
        "writeback",
        age=None if age == unchanged else float(age),
        time=None if milliseconds == unchanged else milliseconds / 1000,
        **whose,
    )


# the cache


async def _flush(job: _Job) -> bytes:
    await job.call("cache.flush", path=job.path)
    return b""


async def _flush_all(job: _Job) -> bytes:
    await job.call("cache.flush")
    return b""


async def _prefetch(job: _Job) -> bytes:
    await job.call("cache.fetch", path=job.path)
    return b""


# the hoard


async def _place(job: _Job, volume: int, realm: bytes, name: bytes) -> str:
    """Return the path of a name that is told from the root of its volume."""
    where = realm.split(b"\0", 1)[0].decode("ascii", "replace")
    top: messages.PathOf = await job.call("volumes.path", id=volume, realm=where)
    below = name.split(b"\0", 1)[0].decode("utf-8", "surrogateescape").removeprefix(".").strip("/")
    return f"{top.path}/{below}".strip("/")


async def _hoard_add(job: _Job) -> bytes:
    volume, realm, name, priority, attributes = _HOARD_ADD.unpack_from(job.data)
    wish = f"{priority}:{_ATTRIBUTES.get(attributes, '')}".rstrip(":")
    path = await _place(job, volume, realm, name)
    await job.call("hoard.add", path=path, attributes=wish, uid=job.caller.uid)
    return b""


async def _hoard_delete(job: _Job) -> bytes:
    volume, realm, name = _HOARD_DELETE.unpack_from(job.data)
    await job.call("hoard.remove", path=await _place(job, volume, realm, name))
    return b""


async def _hoard_clear(job: _Job) -> bytes:
    await job.call("hoard.clear", uid=job.caller.uid)
    return b""


async def _hoard_list(job: _Job) -> bytes:
    entries = await job.pages("hoard.list")
    entries.sort(key=lambda one: (-one.priority, one.place))
    lines = [f"<{one.volume}, {one.place}>, {one.attributes}, {one.uid}\n" for one in entries]
    _write_list(job, lines)
    return b""


async def _hoard_verify(job: _Job) -> bytes:
    told: hoardmessages.Verified = await job.call("hoard.verify")
    problems = [*told.problems]
    if told.cursor is not None:
        problems += await job.pages("hoard.problems", cursor=told.cursor)
    lines = [f"{one.verdict} {one.path} ({one.priority}): {one.why}\n" for one in problems]
    _write_list(job, lines)
    return b""


async def _hoard_walk(job: _Job) -> bytes:
    """Have a walk, and wait a while for its end."""
    before = (await job.call("hoard.walk")).walks
    for _ in range(int(_WITHIN / _POLL)):
        if (await job.call("hoard.status")).walks > before:
            break
        await trio.sleep(_POLL)
    return b""


async def _hoard_on(job: _Job) -> bytes:
    await job.call("hoard.switch", on=True)
    return b""


async def _hoard_off(job: _Job) -> bytes:
    await job.call("hoard.switch", on=False)
    return b""


def _write_list(job: _Job, lines: list[str]) -> None:
    """Write a list where the tool wants it. Raises OSError."""
    path = Path(os.fsdecode(job.data[:_OUT_FILE].split(b"\0", 1)[0]))
    flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        if os.geteuid() == 0 and os.fstat(descriptor).st_uid not in (0, job.caller.uid):
            raise PermissionError(errno.EACCES, "the list would go into another user's file")
        os.fchown(descriptor, job.caller.uid, -1)
        file.writelines(lines)


def _c(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape") + b"\0"


def _u32(number: float) -> int:
    return min(int(number), 0xFFFFFFFF)
