"""The kernel's FUSE protocol: the layouts of <linux/fuse.h>, as far as we speak it. Pure; no input or output.

Every message from the kernel is a header and a body, every answer another header and a body; both are in the
machine's own byte order. The protocol is versioned by minor numbers. We ask for 7.31 (Linux 5.4) and speak
at most 7.38; all layouts here are the same in between. A kernel never sends what its INIT did not agree on.
"""

import struct
from enum import IntEnum, IntFlag
from typing import Final, NamedTuple

MAJOR: Final = 7
OLDEST_MINOR: Final = 31
NEWEST_MINOR: Final = 38


class Opcode(IntEnum):
    """What the kernel can ask; what is missing here is answered with ENOSYS."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    READDIRPLUS = 44
    RENAME2 = 45


class Feature(IntFlag):
    """What INIT agrees on."""

    ASYNC_READ = 1 << 0
    ATOMIC_O_TRUNC = 1 << 3
    BIG_WRITES = 1 << 5
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    ASYNC_DIO = 1 << 15
    PARALLEL_DIROPS = 1 << 18
    MAX_PAGES = 1 << 22
    HANDLE_KILLPRIV_V2 = 1 << 28


class OpenFlag(IntFlag):
    """What the answer to an open tells the kernel."""

    KEEP_CACHE = 1 << 1
    CACHE_DIR = 1 << 3
    NOFLUSH = 1 << 5


class Set(IntFlag):
    """Which fields a SETATTR sets."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    MTIME = 1 << 5
    HANDLE = 1 << 6
    MTIME_NOW = 1 << 8


class Notice(IntEnum):
    """What we can tell the kernel unasked."""

    INVALIDATE_INODE = 2
    INVALIDATE_ENTRY = 3
    STORE = 4


# -- headers ---------------------------------------------------------------------------------------------

HEADER: Final = struct.Struct("=IIQQIIIHH")
"""Of a request: length, opcode, unique, node, uid, gid, pid, length of extensions, padding."""
ANSWER: Final = struct.Struct("=IiQ")
"""Of an answer: length, negative errno (or the number of a notice), unique (0: a notice)."""

# -- bodies of requests ----------------------------------------------------------------------------------

FORGET: Final = struct.Struct("=Q")
FORGETS: Final = struct.Struct("=II")
FORGET_ONE: Final = struct.Struct("=QQ")
SETATTR: Final = struct.Struct("=I4xQQQqqqIIIIIII4x")
"""Fields, handle, size, lock owner, atime, mtime, ctime, their nanoseconds, mode, unused, uid, gid."""
MKNOD: Final = struct.Struct("=IIII")
MKDIR: Final = struct.Struct("=II")
RENAME: Final = struct.Struct("=Q")
RENAME2: Final = struct.Struct("=QII")
LINK: Final = struct.Struct("=Q")
OPEN: Final = struct.Struct("=II")
CREATE: Final = struct.Struct("=IIII")
HANDLE: Final = struct.Struct("=Q")
"""The beginning of RELEASE, RELEASEDIR, FLUSH and FSYNC."""
READ: Final = struct.Struct("=QQIIQII")
WRITE: Final = struct.Struct("=QQIIQII")
FSYNC: Final = struct.Struct("=QII")
SETXATTR: Final = struct.Struct("=II")
GETXATTR: Final = struct.Struct("=II")
ACCESS: Final = struct.Struct("=II")
INIT: Final = struct.Struct("=IIII")
INTERRUPT: Final = struct.Struct("=Q")

# -- bodies of answers -----------------------------------------------------------------------------------

ATTR: Final = struct.Struct("=QQQQQQIIIIIIIIII")
"""Number, size, blocks, three times, their nanoseconds, mode, links, uid, gid, device, block size, flags."""
ENTRY: Final = struct.Struct("=QQQQII" + ATTR.format[1:])
"""Node, generation, validity of name and attributes in s, the same in ns, then as ATTR."""
ATTR_OUT: Final = struct.Struct("=QII" + ATTR.format[1:])
OPEN_OUT: Final = struct.Struct("=QII")
WRITE_OUT: Final = struct.Struct("=II")
XATTR_OUT: Final = struct.Struct("=II")
STATFS_OUT: Final = struct.Struct("=QQQQQIIII24x")
INIT_OUT: Final = struct.Struct("=IIIIHHIIHHII24x")
DIRENT: Final = struct.Struct("=QQII")
"""Number, position of the next one, length of the name, type; then the name, padded to 8 bytes."""
NOTE_INODE: Final = struct.Struct("=Qqq")
NOTE_ENTRY: Final = struct.Struct("=QII")
NOTE_STORE: Final = struct.Struct("=QQII")

NO_ENTRY: Final = bytes(ENTRY.size)
"""In a listing with attributes: the kernel takes the name and makes no inode of it."""


class Request(NamedTuple):
    """One message from the kernel. `node`: the inode number it is about; `body` has no header."""

    opcode: int
    unique: int
    node: int
    uid: int
    gid: int
    pid: int
    body: bytes


def strings(body: bytes, count: int) -> list[bytes]:
    """Return the zero-ended strings of a body. ValueError if there are others than `count`."""
    parts = body.split(b"\0", count)
    if len(parts) != count + 1 or parts[count]:
        raise ValueError(f"{len(parts) - 1} strings instead of {count}")
    return parts[:count]


def dirent(ino: int, position: int, name: bytes, kind: int) -> bytes:
    """Return one entry of a listing; `kind` is DT_..., 0 if unknown."""
    return DIRENT.pack(ino, position, len(name), kind) + name + bytes(-len(name) & 7)


def answer_to_init(body: bytes, features: Feature, max_write: int, pages: int) -> bytes:
    """Return what we agree on: the wanted features as far as the kernel has them.

    Raises ValueError for a kernel that is too old or speaks another protocol.
    """
    major, minor, read_ahead, offered = INIT.unpack_from(body)
    if major != MAJOR or minor < OLDEST_MINOR:
        raise ValueError(
            f"this kernel speaks FUSE {major}.{minor}; {MAJOR}.{OLDEST_MINOR} (Linux 5.4) is needed"
        )
    return INIT_OUT.pack(
        MAJOR,
        min(minor, NEWEST_MINOR),
        read_ahead,
        offered & features,
        _BACKGROUND,
        _BACKGROUND * 3 // 4,
        max_write,
        1,  # times are kept to the nanosecond
        pages,
        0,
        0,
        0,
    )


_BACKGROUND: Final = 64  # requests that nobody waits for (read-ahead) which the kernel has under way at once
