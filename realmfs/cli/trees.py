"""Two ways to the same tree: through the kernel, and through the control socket where there is no mount."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from realmfs.cli.daemon import entries
from realmfs.cli.transfer import pieces, store
from realmfs.control.client import Client


class Tree(Protocol):
    """What the tour does with a tree; paths are relative to its top."""

    def names(self, path: str) -> list[str]:
        """Return the names in a directory, in order."""
        ...

    def read(self, path: str) -> bytes:
        """Return a file's contents."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Make or replace a file."""
        ...

    def mkdir(self, path: str) -> None:
        """Make a directory."""
        ...

    def rename(self, path: str, new_path: str) -> None:
        """Move a name."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file or an empty directory."""
        ...


class MountedTree:
    """A tree below a mount point: what every program sees."""

    def __init__(self, top: Path) -> None:
        """Use `top`."""
        self._top = top

    def names(self, path: str) -> list[str]:
        """See Tree."""
        return sorted(entry.name for entry in (self._top / path).iterdir())

    def read(self, path: str) -> bytes:
        """See Tree."""
        return (self._top / path).read_bytes()

    def write(self, path: str, data: bytes) -> None:
        """See Tree."""
        (self._top / path).write_bytes(data)

    def mkdir(self, path: str) -> None:
        """See Tree."""
        (self._top / path).mkdir()

    def rename(self, path: str, new_path: str) -> None:
        """See Tree."""
        (self._top / path).rename(self._top / new_path)

    def remove(self, path: str) -> None:
        """See Tree."""
        target = self._top / path
        if target.is_dir() and not target.is_symlink():
            target.rmdir()
        else:
            target.unlink()


class SocketTree:
    """A tree through the control socket: what `realmfs ls`, `cat`, `get` and `put` do."""

    def __init__(self, client: Client, top: str) -> None:
        """Use the tree below `top`."""
        self._client = client
        self._top = top

    def names(self, path: str) -> list[str]:
        """See Tree."""
        found = entries(self._client, f"{self._top}/{path}", False)
        return sorted(str(entry["name"]) for entry in found)

    def read(self, path: str) -> bytes:
        """See Tree."""
        return b"".join(pieces(self._client, f"{self._top}/{path}"))

    def write(self, path: str, data: bytes) -> None:
        """See Tree."""
        store(self._client, io.BytesIO(data), f"{self._top}/{path}", 0o644)

    def mkdir(self, path: str) -> None:
        """See Tree."""
        self._client.call("path.mkdir", path=f"{self._top}/{path}")

    def rename(self, path: str, new_path: str) -> None:
        """See Tree."""
        self._client.call("path.move", path=f"{self._top}/{path}", new_path=f"{self._top}/{new_path}")

    def remove(self, path: str) -> None:
        """See Tree."""
        self._client.call("path.remove", path=f"{self._top}/{path}")


_LEFT_OUT = (
    "__pycache__",
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idlelib",
    "ensurepip",
    "*.so",
    "*.a",
)


def copy_library(target: Path) -> None:
    """Copy the running Python's standard library, without what is compiled or installed, to `target`."""
    import sysconfig

    ignore = shutil.ignore_patterns(*_LEFT_OUT, "config-*")
    shutil.copytree(sysconfig.get_paths()["stdlib"], target, symlinks=True, ignore=ignore)


def files_below(top: Path) -> Iterator[str]:
    """Yield the plain files below a local directory, relative to it, in order."""
    for path in sorted(top.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield str(path.relative_to(top))
