"""Directories: the page images that servers send, read with distrust and edited byte for byte as servers do.

An image is 1 to 128 pages of 2048 bytes, and a page is 64 blobs of 32 bytes (directories.md §1):

    page 0    blob 0: page header | blobs 1..12: free counts of all pages, hash table | blobs 13..63: entries
    page p    blob 0: page header | blobs 1..63: entries

    page header        magic 4 | free count 1 | used bitmap 8 | zero
    entry, 1..9 blobs  flag 1 | - 1 | next blob 2 | vnode 4 | unique 4 | name, NUL | garbage

An entry never crosses the end of its page. The hash table's 128 words lead to chains of entries, linked by
blob number; new entries come first in their chain and into the first gap that is long enough. Directories
never shrink, and what was deleted stays in the bytes. The volume is not named: all entries are of the
directory's own.

`Directory` keeps the image itself, and beside it a dict from name to blob number, made once by walking the
chains with all the checks of directories.md §2.1. Free counts and bitmaps are recomputed from the chains,
never believed. The edits give exactly the bytes that the reference implementation would give, and remember
which pages they touched, so that a store on disk can write those alone.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Final

from realmfs.rpc2.errors import BadPacket
from realmfs.vice.errors import CodaError, Code

PAGE: Final = 2048
MAX_PAGES: Final = 128
MAX_NAME: Final = 255

_BLOB: Final = 32
_BLOBS: Final = PAGE // _BLOB
_BUCKETS: Final = 128
_FIRST_BLOB: Final = 13
_MAGIC: Final = struct.pack(">I", 1234)
_NO_PAGE: Final = 64
_MAP: Final = 32
_TABLE: Final = 160
_NAME: Final = 12
_FID = struct.Struct(">II")
_U16 = struct.Struct(">H")
_CHAINS = struct.Struct(">128H")
_HEADS = struct.Struct(">BxH28x")
_HEADER_BITS: Final = {0: (1 << _FIRST_BLOB) - 1}
_ALL_BITS: Final = (1 << _BLOBS) - 1
_DIGITS: Final = bytes.maketrans(b"\0\1", b"01")


def bucket_of(name: bytes) -> int:
    """Return the chain of a name: a hash over signed bytes in 32-bit arithmetic (directories.md §1.5)."""
    hashed = 0
    for byte in name:
        hashed = hashed * 173 + byte
    if not name.isascii():
        weight = 1
        for byte in reversed(name):
            if byte & 0x80:
                hashed -= weight << 8
            weight *= 173
    bucket = hashed & 127
    return _BUCKETS - bucket if bucket and hashed & 0x80000000 else bucket


def blobs_of(name: bytes) -> int:
    """Return how many blobs an entry of this name takes."""
    return 1 + (len(name) + 16 >> 5)


class Directory:
    """The contents of one directory."""

    __slots__ = ("_blobs", "_dirty", "_image", "_stale", "_used")

    def __init__(self, image: bytearray, blobs: dict[bytes, int], used: list[int]) -> None:
        """Take parts that belong together; callers use `parse` or `new`."""
        self._image = image
        self._blobs = blobs
        """Blob number by name, in the order of the chains and then of insertion."""
        self._used = used
        """Per page the bitmap of blobs in use, as an integer."""
        self._dirty: set[int] = set()
        self._stale = [page for page in range(len(used)) if self._header_differs(page)]
        """Pages whose stored counts contradict the chains: rewritten with the first edit."""

    @classmethod
    def new(cls, self_fid: tuple[int, int], parent: tuple[int, int]) -> Directory:
        """Make an empty directory: `.` and `..` as (vnode, unique). All its pages are dirty."""
        directory = cls(bytearray(), {}, [])
        directory._add_page()
        directory._image[_MAP : _MAP + MAX_PAGES] = bytes([0]) + bytes([_NO_PAGE]) * (MAX_PAGES - 1)
        directory._write_header(0)
        directory.insert(b".", *self_fid)
        directory.insert(b"..", *parent)
        return directory

    @classmethod
    def parse(cls, image: bytes) -> Directory:
        """Read an image that came from a server or a disk. Raises BadPacket if any check fails.

        That `.` and `..` are there and right is not checked: believe your own idea of them (directories.md
        §2.1).
        """
        pages = _check_frame(image)
        blobs, taken = _walk_chains(image, pages)
        used = [_bitmap(taken[page * _BLOBS : (page + 1) * _BLOBS]) for page in range(pages)]
        return cls(bytearray(image), blobs, used)

    # reading

    def lookup(self, name: bytes) -> tuple[int, int] | None:
        """Return (vnode, unique) of a name, or None."""
        blob = self._blobs.get(name)
        return None if blob is None else self._fid(blob)

    def __contains__(self, name: bytes) -> bool:
        return name in self._blobs

    def __len__(self) -> int:
        """Count the entries, `.` and `..` included."""
        return len(self._blobs)

    def names(self) -> Iterator[bytes]:
        """Yield all names, `.` and `..` included: in the order of the chains, later insertions last."""
        return iter(self._blobs)

    def items(self) -> Iterator[tuple[bytes, int, int]]:
        """Yield (name, vnode, unique) of all entries, in the order of `names`."""
        unpack, image = _FID.unpack_from, self._image
        for name, blob in self._blobs.items():
            yield name, *unpack(image, blob * _BLOB + 4)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing besides `.` and `..`."""
        return not self._blobs.keys() - {b".", b".."}

    @property
    def image(self) -> bytes:
        """All the pages."""
        return bytes(self._image)

    @property
    def length(self) -> int:
        """Bytes of the image: what a status gives as the directory's length."""
        return len(self._image)

    def page(self, number: int) -> bytes:
        """Return one page."""
        return bytes(self._image[number * PAGE : (number + 1) * PAGE])

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return len(self._used)

    @property
    def dirty(self) -> frozenset[int]:
        """Numbers of the pages that edits have touched since `take_dirty`."""
        return frozenset(self._dirty)

    def take_dirty(self) -> Mapping[int, bytes]:
        """Return the touched pages by number, and count them as clean from now on."""
        taken = {number: self.page(number) for number in sorted(self._dirty)}
        self._dirty.clear()
        return taken

    # editing

    def insert(self, name: bytes, vnode: int, unique: int) -> None:
        """Add an entry (directories.md §2.3).

        Raises CodaError: ENAMETOOLONG, EINVAL (an empty name, or one with a slash or NUL in it), EEXIST, and
        EFBIG if the directory is full.
        """
        if len(name) > MAX_NAME:
            raise CodaError(Code.ENAMETOOLONG)
        if not name or b"/" in name or b"\0" in name:
            raise CodaError(Code.EINVAL)
        if name in self._blobs:
            raise CodaError(Code.EEXIST)
        page, slot = self._allocate(blobs_of(name))
        blob = page * _BLOBS + slot
        slot_of_table = _TABLE + 2 * bucket_of(name)
        offset = blob * _BLOB
        following = _U16.unpack_from(self._image, slot_of_table)[0]
        self._image[offset] = 1  # the byte after it stays as it was, as in the reference
        _U16.pack_into(self._image, offset + 2, following)
        _FID.pack_into(self._image, offset + 4, vnode, unique)
        self._image[offset + _NAME : offset + _NAME + len(name) + 1] = name + b"\0"
        _U16.pack_into(self._image, slot_of_table, blob)
        self._blobs[name] = blob
        self._dirty |= {0, page}

    def delete(self, name: bytes) -> tuple[int, int]:
        """Remove an entry and return its (vnode, unique) (directories.md §2.4).

        Raises CodaError: ENOENT, and EINVAL for `.` and `..`.
        """
        if name in (b".", b".."):
            raise CodaError(Code.EINVAL)
        return self._remove(name)

    def rebind(self, name: bytes, vnode: int, unique: int) -> None:
        """Let an existing name denote another object, as when a local fid is replaced by a real one.

        Raises CodaError: ENOENT.
        """
        blob = self._blobs.get(name)
        if blob is None:
            raise CodaError(Code.ENOENT)
        self._begin_edit()
        _FID.pack_into(self._image, blob * _BLOB + 4, vnode, unique)
        self._dirty.add(blob // _BLOBS)

    def move_to(self, parent: tuple[int, int]) -> None:
        """Let `..` be another directory; as in the reference the entry may move (directories.md §2.5)."""
        if b".." in self._blobs:
            self._remove(b"..")
        self.insert(b"..", *parent)

    # the pages

    def _fid(self, blob: int) -> tuple[int, int]:
        vnode, unique = _FID.unpack_from(self._image, blob * _BLOB + 4)
        return vnode, unique

    def _remove(self, name: bytes) -> tuple[int, int]:
        blob = self._blobs.get(name)
        if blob is None:
            raise CodaError(Code.ENOENT)
        self._begin_edit()
        link = self._link_to(blob, bucket_of(name))
        self._image[link : link + 2] = self._image[blob * _BLOB + 2 : blob * _BLOB + 4]
        page, slot = divmod(blob, _BLOBS)
        self._used[page] &= ~(_run(blobs_of(name)) << slot)
        self._write_header(page)
        self._dirty |= {0, page, link // PAGE}
        del self._blobs[name]
        return self._fid(blob)

    def _link_to(self, blob: int, bucket: int) -> int:
        """Return the offset of the word that leads to `blob` in its chain."""
        link = _TABLE + 2 * bucket
        while (found := _U16.unpack_from(self._image, link)[0]) != blob:
            link = found * _BLOB + 2
        return int(link)

    def _allocate(self, count: int) -> tuple[int, int]:
        """Take the first gap of `count` blobs in one page, in a new page if need be."""
        self._begin_edit()
        for page, free in enumerate(self._image[_MAP : _MAP + self.pages]):
            slot = _first_gap(self._used[page], count) if free >= count else 0
            if slot:
                break
        else:
            if self.pages == MAX_PAGES:
                raise CodaError(Code.EFBIG)
            page, slot = self.pages, 1
            self._add_page()
        self._used[page] |= _run(count) << slot
        self._write_header(page)
        return page, slot

    def _add_page(self) -> None:
        self._used.append(_HEADER_BITS.get(self.pages, 1))
        self._image.extend(_MAGIC + bytes(PAGE - len(_MAGIC)))

    def _begin_edit(self) -> None:
        """Make bitmaps and counts agree with the chains before the first change rests on them."""
        while self._stale:
            self._write_header(self._stale.pop())

    def _header(self, page: int) -> bytes:
        used = self._used[page]
        return bytes([_BLOBS - used.bit_count()]) + used.to_bytes(8, "little")

    def _header_differs(self, page: int) -> bool:
        start = page * PAGE + 4
        header = self._header(page)
        return self._image[start : start + 9] != header or self._image[_MAP + page] != header[0]

    def _write_header(self, page: int) -> None:
        """Write a page's free count and bitmap, and the copy of the count in page 0."""
        start = page * PAGE + 4
        header = self._header(page)
        self._image[start : start + 9] = header
        self._image[_MAP + page] = header[0]
        self._dirty |= {0, page}


def _run(count: int) -> int:
    return (1 << count) - 1


def _first_gap(used: int, count: int) -> int:
    """Return the lowest slot from which `count` blobs are free; 0, which is never free, if there is none."""
    gaps = ~used & _ALL_BITS
    for _ in range(count - 1):
        gaps &= gaps >> 1
    return (gaps & -gaps).bit_length() - 1 if gaps else 0


def _bitmap(taken: bytearray) -> int:
    """Turn one byte 0 or 1 per blob into the page's bitmap."""
    return int(taken[::-1].translate(_DIGITS), 2)


def _check_frame(image: bytes) -> int:
    """Check length, magic numbers and map (directories.md §2.1, 1 to 3). Returns the number of pages."""
    pages, rest = divmod(len(image), PAGE)
    if rest or not 1 <= pages <= MAX_PAGES:
        raise BadPacket(f"a directory of {len(image)} bytes")
    if any(image[page * PAGE : page * PAGE + 4] != _MAGIC for page in range(pages)):
        raise BadPacket("a directory page without its magic number")
    free = image[_MAP : _MAP + MAX_PAGES]
    if free[0] > _BLOBS - _FIRST_BLOB or any(count >= _NO_PAGE for count in free[1:pages]):
        raise BadPacket("a directory page with too much free space")
    if any(count != _NO_PAGE for count in free[pages:]):
        raise BadPacket("a directory with a map of other pages than it has")
    return pages


def _walk_chains(image: bytes, pages: int) -> tuple[dict[bytes, int], bytearray]:
    """Follow all chains (directories.md §2.1, 4). Returns blob number by name, and a byte 1 per used blob.

    This runs once per entry of every directory that is read, up to 8050 times: hence one flat loop.
    """
    heads = list(_HEADS.iter_unpack(image))
    blobs: dict[bytes, int] = {}
    taken = bytearray(pages * _BLOBS)
    taken[:_FIRST_BLOB] = b"\1" * _FIRST_BLOB
    taken[::_BLOBS] = b"\1" * pages
    for bucket, blob in enumerate(_CHAINS.unpack_from(image, _TABLE)):
        while blob:
            if blob >= len(taken) or taken[blob]:
                raise BadPacket("a directory chain that leads to a header, outside, or where one was already")
            start = blob * _BLOB + _NAME
            end = image.find(0, start, start + MAX_NAME + 1)
            name = image[start:end]
            if end <= start or b"/" in name or name in blobs:
                raise BadPacket("a directory entry without a name of its own")
            if bucket_of(name) != bucket:
                raise BadPacket("a directory entry in the wrong chain")
            count = 1 + (end - start + 16 >> 5)
            if (blob & _BLOBS - 1) + count > _BLOBS or (count > 1 and any(taken[blob : blob + count])):
                raise BadPacket("a directory entry that overlaps another or the end of its page")
            taken[blob : blob + count] = b"\1" * count
            blobs[name] = blob
            flag, blob = heads[blob]
            if flag != 1:
                raise BadPacket("a directory chain that leads to a deleted entry")
    return blobs, taken
