"""Contents that are here already under another name: found by the SHA-1 that a server told (client.md §5).

Looked for among the files of the cache and in a directory of the user's. A server may tell the SHA-1 of
*older* contents (vice.md §5.2, op 63), so it counts only for files that were stored once (data version 1),
and length and version must be right, too. What is found proves nothing either, since it may have changed: it
is copied first, and the copy is what is hashed and then used.

The directory is walked at the first need, and again after `KEEP` seconds; files are told apart by their
length, and only those of the length that is wanted are opened.
"""

import hashlib
import logging
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import trio

from realmfs.cache import disk
from realmfs.cache.container import Container
from realmfs.cache.containers import Containers
from realmfs.realms.types import Attributes
from realmfs.vice.types import ObjectType

log = logging.getLogger(__name__)

SHA_SIZE = 20
KEEP = 600.0
FILES = 100_000
"""Most files of the directory that are known."""
REMEMBERED = 20_000
"""Most contents of the cache that are known."""
TRIES = 4
"""Files of the right length that are copied and hashed, at most, for one that is wanted."""
_PIECE = 1 << 20


def trusted_sha(answer: Attributes) -> bytes:
    """Return the SHA-1 of an answer if it can be that of the present contents, else nothing."""
    status = answer.status
    if status.type is ObjectType.FILE and status.data_version == 1 and len(answer.sha) == SHA_SIZE:
        return answer.sha if any(answer.sha) else b""
    return b""


class Lookaside:
    """Finds contents. `files` and `bytes` count what needed no fetch."""

    def __init__(self, containers: Containers, directory: Path | None) -> None:
        self._containers = containers
        self._directory = directory
        self._kept: OrderedDict[bytes, int] = OrderedDict()  # SHA-1: container
        self._by_length: dict[int, list[str]] = {}
        self._walked = -KEEP
        self.files = 0
        self.bytes = 0

    def reused(self) -> tuple[int, int]:
        """Return how many files, and bytes, needed no fetch."""
        return self.files, self.bytes

    def note(self, sha: bytes, content: Container) -> None:
        """Remember a whole container whose contents should have this SHA-1, if it is a file.

        Smaller ones cost no more to fetch.
        """
        if sha and content.whole and content.length and content.inline is None:
            self._kept[sha] = content.id
            self._kept.move_to_end(sha)
            while len(self._kept) > REMEMBERED:
                self._kept.popitem(last=False)

    async def fill(self, sha: bytes, length: int, target: Container) -> bool:
        """Fill an empty container with contents of this SHA-1 and length; tell whether there were any.

        The container's ranges are left alone: the caller tells what is present.
        """
        for source in await self._candidates(sha, length):
            try:
                if await trio.to_thread.run_sync(_copied, source, target.fd, sha, length):
                    self.files += 1
                    self.bytes += length
                    return True
            finally:
                os.close(source)
        return False

    async def _candidates(self, sha: bytes, length: int) -> list[int]:
        """Return descriptors of what may have the contents; the caller closes them."""
        found: list[int] = []
        number = self._kept.get(sha)
        if number is not None:
            self._add(found, str(self._containers.path(number)), length)
        if self._directory is not None:
            now = trio.current_time()
            if now - self._walked >= KEEP:
                self._walked = now
                self._by_length = await trio.to_thread.run_sync(_walk, self._directory)
            for path in self._by_length.get(length, ())[:TRIES]:
                self._add(found, path, length)
        return found

    def _add(self, found: list[int], path: str, length: int) -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:  # gone, or not ours to read: fetched then
            log.debug("%s is not used: %s", path, error)
            return
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_size == length:
            found.append(descriptor)
        else:
            os.close(descriptor)


def _copied(source: int, target: int, sha: bytes, length: int) -> bool:
    """Copy, sharing blocks where the file system can; tell whether the copy is what is wanted. Blocks."""
    if not disk.clone(source, target):
        disk.copy(source, target)
    if os.fstat(target).st_size == length and _digest(target, length) == sha:
        return True
    os.ftruncate(target, 0)  # what is not wanted must not show through the holes of a file being fetched
    os.ftruncate(target, length)
    return False


def _digest(descriptor: int, length: int) -> bytes:
    digest = hashlib.sha1(usedforsecurity=False)
    for offset in range(0, length, _PIECE):
        digest.update(os.pread(descriptor, min(_PIECE, length - offset), offset))
    return digest.digest()


def _walk(directory: Path) -> dict[int, list[str]]:
    """Return the files below a directory by length. Blocks; what cannot be read is left out."""
    by_length: dict[int, list[str]] = {}
    for count, (path, length) in enumerate(_files(directory)):
        if count >= FILES:
            log.info("%s has more than %d files: only the first are known", directory, FILES)
            break
        by_length.setdefault(length, []).append(path)
    return by_length


def _files(directory: Path) -> Iterator[tuple[str, int]]:
    for top, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(top, name)
            try:
                status = os.lstat(path)
            except OSError:  # removed meanwhile
                continue
            if stat.S_ISREG(status.st_mode) and status.st_size:
                yield path, status.st_size
