"""The orders of the reference's tools (`cfs`, `hoard`, `clog`, `ctokens`, `cunlog`), done by our methods.

Each is a translation: what came in C's layout and this machine's byte order becomes parameters of a method of
the control socket, with the rights of whoever gave the order, and the result goes back in C's layout. Orders
that are not in the table answer EOPNOTSUPP. Where the tool names a file for a list (hoardhabits.py), the list
is written there, mode 0600, owned by the caller.

An order is carried out within one request of the kernel, which must end within the patience: what takes
longer (sending a long log) goes on after `_WITHIN` seconds, and the tool is told that changes are left.
"""

import errno
import re
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

from realmfs.control import hoardhabits, messages
from realmfs.control.job import Job
from realmfs.control.pioctl import Order
from realmfs.control.protocol import ControlError
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
_WITHIN = 8.0


class Habits:
    """The table of orders; `session_of` gives the methods of the control socket for a caller."""

    def __init__(self, session_of: Callable[[Caller], Session]) -> None:
        self._session_of = session_of
        self._orders: dict[int, Callable[[Job], Awaitable[bytes]]] = {
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
            205: _wait_forever,
            208: _path_of,
            212: _purge,
            216: _disconnect,
            217: _reconnect,
            220: _write_disconnect,
            238: _write_disconnect_all,
            239: _force_all,
            **hoardhabits.ORDERS,
        }

    async def __call__(self, caller: Caller, order: Order) -> bytes:
        """Carry an order out. Raises CodaError."""
        todo = self._orders.get(order.command)
        if todo is None:
            raise CodaError(Code.EOPNOTSUPP, f"order {order.command}")
        job = Job(self._session_of(Caller(caller.uid, caller.gid, caller.pid, kernel=False)), caller, order)
        try:
            return await todo(job)
        except ControlError as error:
            raise CodaError(from_errno(error.number or errno.EINVAL), error.text) from error
        except (struct.error, BadPacket, ValueError) as error:
            raise CodaError(Code.EINVAL, str(error)) from error


async def _nothing(job: Job) -> bytes:
    """What the order asks for is so anyway."""
    return b""


# access


async def _get_acl(job: Job) -> bytes:
    found: messages.Acl = await job.call("acl.get", path=job.path)
    positive = tuple((entry.name, int(parse_rights(entry.rights))) for entry in found.positive)
    negative = tuple((entry.name, int(parse_rights(entry.rights))) for entry in found.negative)
    return AccessList(positive, negative).format().rstrip(b"\0") + b"\0"


async def _set_acl(job: Job) -> bytes:
    wanted = AccessList.parse(job.data.split(b"\0", 1)[0] + b"\0")
    await job.call("acl.set", path=job.path, entries=[], text=wanted.text, clear=True)
    return b""


# tokens


async def _set_token(job: Job) -> bytes:
    secret_size, secret, clear_size = _TOKEN.unpack_from(job.data)
    if secret_size != 56 or clear_size != _CLEAR_SIZE:
        raise CodaError(Code.EINVAL, "a token of another size")
    clear = job.data[_TOKEN.size : _TOKEN.size + _CLEAR_SIZE]
    _, key, vice_id, begin, end = _CLEAR.unpack(clear)
    realm = job.data[_TOKEN.size + _CLEAR_SIZE :].split(b"\0", 1)[0].decode("ascii", "replace")
    contents = format_token_file(Token(ClearToken(key, vice_id, begin, end), secret)).decode("ascii")
    await job.call("tokens.set", realm=realm, contents=contents)
    return b""


async def _get_token(job: Job) -> bytes:
    known = await job.pages("tokens.list")
    if not any(one.realm == job.text and one.state == "valid" for one in known):
        raise CodaError(Code.ENOTCONN, f"not logged in to {job.text}")
    given: messages.TokenFile = await job.call("tokens.get", realm=job.text)
    token = parse_token_file(given.contents.encode("ascii"))
    own = token.clear
    clear = _CLEAR.pack(-1, own.handshake_key, own.vice_id, own.begin, own.end)
    return _TOKEN.pack(len(token.secret), token.secret, len(clear)) + clear


async def _unlog(job: Job) -> bytes:
    await job.call("tokens.logout", realm=job.text)
    return b""


# volumes and servers


async def _volume_status(job: Job) -> bytes:
    local = len(job.data) == 4 and struct.unpack("=i", job.data) == (1,)
    told: messages.volumes.VolumeStatus = await job.call("volumes.status", path=job.path, local=local)
    policy: messages.volumes.Writeback = await job.call("writeback", volume=f"{told.name}@{told.realm}")
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


async def _where_is(job: Job) -> bytes:
    told: messages.volumes.VolumeStatus = await job.call("volumes.status", path=job.path, local=True)
    hosts, ids = [bytes(4)] * _SLOTS, [0] * _SLOTS
    for replica in told.replicas:
        hosts[replica.slot] = socket.inet_aton(replica.address)
        ids[replica.slot] = int(replica.id, 16)
    return b"".join(hosts) + struct.pack("=8I", *ids)


async def _check_servers(job: Job) -> bytes:
    found = await job.pages("servers.list", check=True)
    down = {socket.inet_aton(one.address.rsplit(":", 1)[0]) for one in found if one.state == "down"}
    if len(job.data) >= 4:
        (count,) = struct.unpack_from("=i", job.data)
        asked = {job.data[4 + 4 * place : 8 + 4 * place] for place in range(max(0, min(count, 64)))}
        down &= asked
    return b"".join(sorted(down)) + bytes(4)


async def _fid(job: Job) -> bytes:
    told: messages.Object = await job.call("path.stat", path=job.path, follow=job.follow)
    volume, vnode, unique = (int(part, 16) for part in told.details["fid"].split("."))
    words = _FID_AND_VECTOR.pack(volume, vnode, unique, *_vector(told.details.get("vv", "")))
    return words + told.details["realm"].encode().ljust(_REALM_FIELD, b"\0")


async def _path_of(job: Job) -> bytes:
    volume, vnode, unique = struct.unpack_from("=3I", job.data)
    realm = job.data[12:].split(b"\0", 1)[0].decode("ascii", "replace")
    told = await job.call("path.of_fid", fid=f"{volume:x}.{vnode:x}.{unique:x}", realm=realm)
    return _c(told.path.partition("/")[2] or ".")


async def _wait_forever(job: Job) -> bytes:
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


async def _mount_point(job: Job) -> bytes:
    told: messages.Object = await job.call("path.stat", path=f"{job.path}/{job.text}")
    if told.details.get("mount", "").strip("/") != f"{job.path}/{job.text}".strip("/"):
        raise CodaError(Code.ENOTDIR, "no mount point")
    return _c(f"#{told.details['volume']}.")


async def _force(job: Job) -> bytes:
    told: messages.volumes.VolumeStatus = await job.call("volumes.status", path=job.path, local=True)
    left = await job.call("changes.send", volume=f"{told.name}@{told.realm}", within=_WITHIN)
    return _left(left)


async def _force_all(job: Job) -> bytes:
    return _left(await job.call("changes.send", within=_WITHIN))


def _left(left: list[messages.Unsent]) -> bytes:
    if any(one.pending for one in left):
        raise CodaError(Code.ETIMEDOUT, "not all changes were sent")
    return b""


async def _purge(job: Job) -> bytes:
    told: messages.volumes.VolumeStatus = await job.call("volumes.status", path=job.path, local=True)
    await job.call("changes.discard", volume=f"{told.name}@{told.realm}")
    return b""


async def _disconnect(job: Job) -> bytes:
    await job.call("connection.disconnect")
    return b""


async def _reconnect(job: Job) -> bytes:
    await job.call("connection.reconnect")
    return b""


async def _write_disconnect(job: Job) -> bytes:
    """Set when changes of the volume at the path are sent."""
    told: messages.volumes.VolumeStatus = await job.call("volumes.status", path=job.path, local=True)
    await _set_writeback(job, volume=f"{told.name}@{told.realm}")
    return b""


async def _write_disconnect_all(job: Job) -> bytes:
    """Set when changes are sent, of all volumes alike."""
    await _set_writeback(job, default=True)
    return b""


async def _set_writeback(job: Job, **whose: Any) -> None:
    age, milliseconds = struct.unpack_from("=II", job.data)
    unchanged = 0xFFFFFFFF
    await job.call(
        "writeback",
        age=None if age == unchanged else float(age),
        time=None if milliseconds == unchanged else milliseconds / 1000,
        **whose,
    )


# the cache


async def _flush(job: Job) -> bytes:
    await job.call("cache.flush", path=job.path)
    return b""


async def _flush_all(job: Job) -> bytes:
    await job.call("cache.flush")
    return b""


async def _prefetch(job: Job) -> bytes:
    await job.call("cache.fetch", path=job.path)
    return b""


def _c(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape") + b"\0"


def _u32(number: float) -> int:
    return min(int(number), 0xFFFFFFFF)
