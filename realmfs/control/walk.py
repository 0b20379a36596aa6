"""A walk along a path for one caller, lookup by lookup, giving back each in the end.

Links to absolute paths lead out of the tree, and the walk ends there: only the kernel knows what is there.
"""

import errno
import os
import stat

from realmfs.control.protocol import INVALID_PARAMS, ControlError
from realmfs.venus.face import ROOT_INODE, Attr, Caller, FileSystem

_MOST_LINKS = 40


def split(path: str) -> list[bytes]:
    """Return the components of a path. Raises ControlError for a NUL byte, which no name can hold."""
    if "\0" in path:
        raise ControlError(INVALID_PARAMS, "a path holds no NUL")
    return [os.fsencode(name) for name in path.split("/") if name not in ("", ".")]


class Walk:
    """A walk through the tree for one caller, which remembers the lookups it must give back."""

    def __init__(self, files: FileSystem, caller: Caller) -> None:
        """Walk `files` with the rights of `caller`."""
        self.files = files
        self.caller = caller
        self._taken: list[int] = []
        self._links = 0

    async def root(self) -> Attr:
        """Return the root's attributes."""
        return await self.files.getattr(self.caller, ROOT_INODE)

    async def step(self, parent: int, name: bytes) -> Attr:
        """Look up one name. Raises CodaError; ENOENT as ControlError."""
        attr = await self.files.lookup(self.caller, parent, name)
        if attr.ino == 0:
            raise ControlError.of_errno(errno.ENOENT, f"{os.fsdecode(name)}: {os.strerror(errno.ENOENT)}")
        self.took(attr)
        return attr

    def took(self, attr: Attr) -> None:
        """Remember that an answer counted a lookup."""
        self._taken.append(attr.ino)

    async def to(self, path: str, *, follow: bool = True) -> Attr:
        """Return the attributes of the object at `path`."""
        return (await self._along([], split(path), follow))[-1]

    async def to_parent(self, path: str) -> tuple[Attr, bytes]:
        """Return the directory that holds the last name of `path`, and that name."""
        names = split(path)
        if not names or names[-1] == b"..":
            raise ControlError.of_errno(errno.EINVAL, f"/{path}: names no entry of a directory")
        return (await self._along([], names[:-1], True))[-1], names[-1]

    async def _along(self, trail: list[Attr], names: list[bytes], follow: bool) -> list[Attr]:
        """Go on along `names` from the end of `trail`, the directories passed; returns the whole trail."""
        trail = trail or [await self.root()]
        for index, name in enumerate(names):
            if name == b"..":
                trail = trail[:-1] or trail
                continue
            attr = await self.step(trail[-1].ino, name)
            if stat.S_ISLNK(attr.mode) and (follow or index + 1 < len(names)):
                trail = await self._through(trail, attr)
            else:
                trail = [*trail, attr]
        return trail

    async def _through(self, trail: list[Attr], link: Attr) -> list[Attr]:
        self._links += 1
        if self._links > _MOST_LINKS:
            raise ControlError.of_errno(errno.ELOOP, os.strerror(errno.ELOOP))
        target = os.fsdecode(await self.files.readlink(self.caller, link.ino))
        if target.startswith("/"):
            raise ControlError.of_errno(
                errno.EXDEV, f"a link leads out of the tree, to {target}. Follow it on the mount"
            )
        return await self._along(trail, split(target), True)

    def give_back(self) -> None:
        """Forget all lookups of this walk."""
        for ino in self._taken:
            self.files.forget(ino, 1)
        self._taken.clear()
