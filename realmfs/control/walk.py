"""A walk along a path for one caller, lookup by lookup, giving back each in the end.

Links to absolute paths lead out of the tree, and the walk ends there: only the kernel knows what is there.
"""

import errno
import os
import stat

from realmfs.control.protocol import FAILED, INVALID_PARAMS, ControlError
from realmfs.venus.face import ROOT_INODE, Attr, Caller, FileSystem

_MOST_LINKS = 40


def no_realm(name: str) -> str:
    """Say that a realm is not known, and what to do."""
    why = "neither DNS nor the realms file names its servers"
    return (
        f"there is no realm {name}: {why}. Is it spelt so? The file is named by `realmfs config get realms`"
    )


def split(path: str) -> list[bytes]:
    """Return the components of a path. Raises ControlError for a NUL byte, which no name can hold."""
    if "\0" in path:
        raise ControlError(INVALID_PARAMS, "a path holds no NUL")
    return [os.fsencode(name) for name in path.split("/") if name not in ("", ".")]


class _MissingError(ControlError):
    """A name that is not in a directory."""

    def __init__(self, parent: int, name: str) -> None:
        super().__init__(FAILED, f"{name}: {os.strerror(errno.ENOENT)}", number=errno.ENOENT)
        self._realm = name if parent == ROOT_INODE else None

    def on_the_way(self, path: str) -> ControlError:
        """Return the error for who wanted to go to `path`."""
        text = f"/{path}: {os.strerror(errno.ENOENT)}" if self._realm is None else no_realm(self._realm)
        return ControlError.of_errno(errno.ENOENT, text)


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
            raise _MissingError(parent, os.fsdecode(name))
        self.took(attr)
        return attr

    def took(self, attr: Attr) -> None:
        """Remember that an answer counted a lookup."""
        self._taken.append(attr.ino)

    async def to(self, path: str, *, follow: bool = True) -> Attr:
        """Return the attributes of the object at `path`."""
        return (await self._from_the_top(path, split(path), follow))[-1]

    async def to_parent(self, path: str) -> tuple[Attr, bytes]:
        """Return the directory that holds the last name of `path`, and that name."""
        names = split(path)
        if not names or names[-1] == b"..":
            raise ControlError.of_errno(errno.EINVAL, f"/{path}: names no entry of a directory")
        return (await self._from_the_top(path, names[:-1], True))[-1], names[-1]

    async def _from_the_top(self, path: str, names: list[bytes], follow: bool) -> list[Attr]:
        try:
            return await self._along([], names, follow)
        except _MissingError as missing:
            raise missing.on_the_way(path) from None

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
