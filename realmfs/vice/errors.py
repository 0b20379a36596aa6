"""Error numbers: on the wire, inside the client, and as a user of the file system sees them.

The wire numbers are those of 4.4BSD plus some of Coda's own; they are *not* Linux's, though many coincide
(vice.md §7.1). Three ways lead through this module:

* a server's answer, or what the transport found instead of one, becomes a Code by `translate` (vice.md §7.2);
* a Code becomes an exception, CodaError, whose `errno` is what the kernel and the user get;
* an errno of this machine becomes a wire number by `from_errno`, for a server.
"""

from __future__ import annotations

import enum
import errno as local
import os

from realmfs.rpc2.codes import Rpc2Code, is_fatal

UNKNOWN_CODE = 4711
"""What servers send for an error that has no number, and what a number without an error becomes."""


class Code(enum.IntEnum):
    """Every error that can be answered, and three that only clients know (vice.md §7.1)."""

    SUCCESS = 0
    EPERM = 1
    ENOENT = 2
    ESRCH = 3
    EINTR = 4
    EIO = 5
    ENXIO = 6
    E2BIG = 7
    ENOEXEC = 8
    EBADF = 9
    ECHILD = 10
    EDEADLK = 11
    ENOMEM = 12
    EACCES = 13
    EFAULT = 14
    ENOTBLK = 15
    EBUSY = 16
    EEXIST = 17
    EXDEV = 18
    ENODEV = 19
    ENOTDIR = 20
    EISDIR = 21
    EINVAL = 22
    ENFILE = 23
    EMFILE = 24
    ENOTTY = 25
    ETXTBSY = 26
    EFBIG = 27
    ENOSPC = 28
    ESPIPE = 29
    EROFS = 30
    EMLINK = 31
    EPIPE = 32
    EDOM = 33
    ERANGE = 34
    EAGAIN = 35
    EWOULDBLOCK = 35
    EALREADY = 37
    ENOSYS = 38
    EPROTONOSUPPORT = 43
    EOPNOTSUPP = 45
    ENOBUFS = 55
    ENOTCONN = 57
    ESHUTDOWN = 58
    ETOOMANYREFS = 59
    ETIMEDOUT = 60
    ELOOP = 62
    ENAMETOOLONG = 63
    ENOTEMPTY = 66
    EDQUOT = 69
    VSALVAGE = 101
    VNOVNODE = 102
    VNOVOL = 103
    VVOLEXISTS = 104
    VNOSERVICE = 105
    VOFFLINE = 106
    VONLINE = 107
    VBUSY = 110
    VMOVED = 111
    VNOSERVER = 112
    VLOGSTALE = 113
    ESYNRESOLVE = 155
    """Never sent. Replicas differ: resolve now, then ask again."""
    EASYRESOLVE = 156
    """Never sent. Success, but resolve in the background."""
    ERETRY = 157
    """Never sent. Nothing was changed; ask again."""
    EVOLUME = 158
    EINCOMPATIBLE = 198
    EINCONS = 199
    VFAIL = 200
    UNKNOWN = UNKNOWN_CODE

    @classmethod
    def of(cls, number: int) -> Code:
        """Return the code of a number from the wire; UNKNOWN if there is none."""
        try:
            return cls(number)
        except ValueError:
            return cls.UNKNOWN


_FOR_USERS = {
    Code.VSALVAGE: local.EIO,
    Code.VNOVNODE: local.ENOENT,
    Code.VNOVOL: local.ENXIO,
    Code.VVOLEXISTS: local.EEXIST,
    Code.VNOSERVICE: local.EHOSTDOWN,
    Code.VOFFLINE: local.ENXIO,
    Code.VONLINE: local.EINVAL,
    Code.VBUSY: local.EAGAIN,
    Code.VMOVED: local.ENXIO,
    Code.VNOSERVER: local.EHOSTDOWN,
    Code.VLOGSTALE: local.EALREADY,
    Code.ESYNRESOLVE: local.EAGAIN,
    Code.EASYRESOLVE: local.EAGAIN,
    Code.ERETRY: local.EAGAIN,
    Code.EVOLUME: local.EIO,
    Code.EINCOMPATIBLE: local.EAGAIN,
    Code.EINCONS: local.EUCLEAN,
    Code.VFAIL: local.EREMOTEIO,
    Code.UNKNOWN: local.EREMOTEIO,
}
_TO_ERRNO: dict[Code, int] = {
    code: _FOR_USERS.get(code, 0) or getattr(local, code.name) for code in Code if code is not Code.SUCCESS
}
_FROM_ERRNO: dict[int, Code] = {getattr(local, code.name): code for code in Code if hasattr(local, code.name)}

_TEXTS = {
    Code.EACCES: "the access list of the directory does not allow it (see `realmfs acl get`)",
    Code.EPERM: "the server does not accept this user's token",
    Code.ETIMEDOUT: "no server of the volume answers",
    Code.EWOULDBLOCK: "the volume is locked by a resolution or another reintegration; try again later",
    Code.EDQUOT: "the quota of the volume is used up",
    Code.EFBIG: "the file or directory would become larger than Coda allows",
    Code.EXDEV: "links and renames across volumes, and hard links across directories, are impossible in Coda",
    Code.VSALVAGE: "the volume is damaged; its server must salvage it",
    Code.VNOVNODE: "the object is gone from the server",
    Code.VNOVOL: "the server does not have the volume",
    Code.VVOLEXISTS: "the volume exists already",
    Code.VNOSERVICE: "the volume is not in service",
    Code.VOFFLINE: "the volume is off line",
    Code.VONLINE: "the volume is on line",
    Code.VBUSY: "the volume is busy",
    Code.VMOVED: "the volume has moved to another server",
    Code.VNOSERVER: "the volume's server is not known",
    Code.VLOGSTALE: "the server has replayed this part of the modify log already",
    Code.ESYNRESOLVE: "the replicas differ and must be resolved first",
    Code.EASYRESOLVE: "some replicas are behind and are being resolved",
    Code.ERETRY: "the group of servers changed meanwhile; try again",
    Code.EVOLUME: "the volume is in a state that does not allow it",
    Code.EINCOMPATIBLE: "the object has been changed on the servers meanwhile",
    Code.EINCONS: "the replicas are in conflict (see `realmfs conflicts`)",
    Code.VFAIL: "the server failed",
    Code.UNKNOWN: "the server answered with an unknown error",
}


def to_errno(code: int) -> int:
    """Return the errno of this machine for a wire number; 0 for success."""
    return _TO_ERRNO[Code.of(code)] if code else 0


def from_errno(number: int) -> Code:
    """Return the wire number for an errno of this machine; UNKNOWN where the protocol has none."""
    return _FROM_ERRNO.get(number, Code.UNKNOWN) if number else Code.SUCCESS


class CodaError(Exception):
    """An operation failed: which wire number says how, `errno` is what the user gets."""

    def __init__(self, code: int, text: str = "") -> None:
        """Take the number as it came; `text` says what was being done, or knows the reason better."""
        super().__init__(code, text)
        self.code = Code.of(code)
        self.number = int(code)
        self.text = text
        self.errno = to_errno(code) or local.EIO

    @classmethod
    def from_oserror(cls, error: OSError, text: str = "") -> CodaError:
        """Return what a failure of this machine is to a user of the file system."""
        return cls(from_errno(error.errno or local.EIO), text or str(error))

    def __str__(self) -> str:
        known = self.code is not Code.UNKNOWN
        name = self.code.name if known else f"error {self.number}"
        reason = _TEXTS.get(self.code) or os.strerror(self.errno)
        return f"{self.text}: {reason} ({name})" if self.text else f"{reason} ({name})"


_TRANSPORT: dict[int, Code] = {
    Rpc2Code.FAIL: Code.ETIMEDOUT,
    Rpc2Code.NOCONNECTION: Code.ETIMEDOUT,
    Rpc2Code.TIMEOUT: Code.ETIMEDOUT,
    Rpc2Code.DEAD: Code.ETIMEDOUT,
    Rpc2Code.SEFAIL2: Code.ETIMEDOUT,
    Rpc2Code.NAKED: Code.ERETRY,
    Rpc2Code.NOTCLIENT: Code.ERETRY,
    Rpc2Code.SEFAIL1: Code.EIO,
    Rpc2Code.SEFAIL3: Code.EIO,
    Rpc2Code.SEFAIL4: Code.EIO,
    Rpc2Code.NOTAUTHENTICATED: Code.EPERM,  # at bind
    Rpc2Code.INVALIDOPCODE: Code.EOPNOTSUPP,
}
_TRANSLATED = {
    Code.VBUSY: Code.EWOULDBLOCK,
    Code.VNOVOL: Code.ENXIO,
    Code.VNOVNODE: Code.ENOENT,
    Code.VLOGSTALE: Code.EALREADY,
    Code.VSALVAGE: Code.EINVAL,
    Code.VVOLEXISTS: Code.EINVAL,
    Code.VNOSERVICE: Code.EINVAL,
    Code.VOFFLINE: Code.EINVAL,
    Code.VONLINE: Code.EINVAL,
    Code.VNOSERVER: Code.EINVAL,
    Code.VMOVED: Code.EINVAL,
    Code.VFAIL: Code.EINVAL,
    Code.EINCOMPATIBLE: Code.ERETRY,
    # a server that sends the numbers only clients know shall not steer them
    Code.ESYNRESOLVE: Code.UNKNOWN,
    Code.EASYRESOLVE: Code.UNKNOWN,
    Code.ERETRY: Code.UNKNOWN,
}


def translate(result: int, reintegrating: bool = False) -> Code:
    """Return what one server's result means to a client that collates several (vice.md §7.2).

    `result` is the return code of a reply, or the negative number that the transport found. In a Reintegrate
    EINCOMPATIBLE is a conflict of that record; elsewhere it means that something changed: retry.
    """
    if result < 0:
        return _TRANSPORT.get(result, Code.ETIMEDOUT if is_fatal(result) else Code.EINVAL)
    code = Code.of(result)
    if reintegrating and code is Code.EINCOMPATIBLE:
        return code
    return _TRANSLATED.get(code, code)
