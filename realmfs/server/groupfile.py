"""`group.json`: how the servers of a realm find and believe each other the first time.

    {"realm": ..., "secret": 32 hex digits, "count": 3, "founded": true,
     "servers": {"1": ["127.0.0.1", 2432], ...}}

Servers that share the data directory share the file; for a server on another machine it is copied there once
(whoever has it is a server of the realm: guard it like the data). Afterwards the servers tell each other
their addresses. `founded` says that server 1 has made the realm: from then on an empty store is not a new
realm but a lost disk, to be filled by the others.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from realmfs.server.database import StoreError
from realmfs.vice.types import VSG_MEMBERS

NAME: Final = "group.json"
_SECRET: Final = 16


@dataclass(slots=True)
class GroupFile:
    """The file's contents. Change them inside `editing`."""

    realm: str
    count: int
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(_SECRET), repr=False)
    founded: bool = False
    servers: dict[int, tuple[str, int]] = field(default_factory=dict)

    @classmethod
    def read(cls, directory: Path) -> GroupFile | None:
        """Read the file, if there is one. Raises StoreError."""
        try:
            found: dict[str, Any] = json.loads((directory / NAME).read_text())
            servers = {int(number): (str(ip), int(port)) for number, (ip, port) in found["servers"].items()}
            secret = bytes.fromhex(found["secret"])
            return cls(str(found["realm"]), int(found["count"]), secret, bool(found["founded"]), servers)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{directory / NAME} cannot be read: {error}") from error

    def write(self, directory: Path) -> None:
        """Replace the file."""
        text = json.dumps(
            {
                "realm": self.realm,
                "secret": self.secret.hex(),
                "count": self.count,
                "founded": self.founded,
                "servers": {str(number): list(place) for number, place in sorted(self.servers.items())},
            },
            indent=1,
        )
        temporary = directory / f"{NAME}.{os.getpid()}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(fd)
        temporary.replace(directory / NAME)


@contextmanager
def editing(directory: Path, realm: str, count: int) -> Iterator[GroupFile]:
    """Read the file, or begin one, and write it back; alone among all that do so. Raises StoreError."""
    if not 1 <= count <= VSG_MEMBERS:
        raise StoreError(f"a realm has 1 to {VSG_MEMBERS} servers, not {count}")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(directory / f"{NAME}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        group = GroupFile.read(directory) or GroupFile(realm, count)
        if group.realm != realm:
            raise StoreError(f"{directory} is of the realm {group.realm}, not {realm}")
        group.count = max(group.count, count)
        yield group
        group.write(directory)
    finally:
        os.close(fd)


def store_directory(directory: Path, number: int) -> Path:
    """Return where a server of a group keeps its store."""
    return directory / f"server-{number}"
