"""Pending changes as a plain tar file: what they are in JSON, the contents of stores beside it.

    changes.json        what was changed where, in the order it was done; every name, fid, time and attribute
    contents/<number>   the contents of the store record of that number

Names are UTF-8; bytes that are none travel as lone surrogates (PEP 383). An archive can be read with any
tool, and its changes can be made again, here or elsewhere (reenact.py): objects made in it are found by the
fids in it, all others by their fids at the servers.
"""

import io
import json
import os
import tarfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from realmfs import __version__
from realmfs.cache.container import Container
from realmfs.cache.errors import ContainerLost
from realmfs.cache.log import LogEntry
from realmfs.venus.core import Core
from realmfs.venus.flight import full_record
from realmfs.venus.node import Node
from realmfs.vice.log import AnyRecord
from realmfs.vice.types import Fid, StoreId, VersionVector

FORMAT = 1
INDEX = "changes.json"
INDEX_LIMIT = 256 << 20
_AT_ONCE = 20
"""Records that are described before others may run."""


class ArchiveError(Exception):
    """A file that is no archive of changes, or damaged."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: records, and bytes of the file."""

    changes: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Saved:
    """A file that is given up though nothing of it waits to be sent: written as if it were made anew.

    That is what a program wrote and renamed onto a name, when the renaming is given up.
    """

    node: Node
    above: Node
    name: bytes
    content: Container

    def changes(self, core: Core, number: int) -> list[dict[str, Any]]:
        """Return the changes that make it again, numbered from `number`."""
        node, volume = self.node, self.node.volume
        common = {"realm": volume.realm, "volume": volume.name, "fid": str(node.fid)}
        mode = node.status.mode if node.status is not None else 0o644
        place = {"parent": str(self.above.fid), "name": os.fsdecode(self.name), "mode": mode}
        path = core.path(self.above) + "/" + os.fsdecode(self.name)
        return [
            {"number": number, **common, "change": "Create", **place, "path": path, "contents": None},
            {
                "number": number + 1, **common, "change": "Store", "length": self.content.length,
                "path": path, "contents": f"contents/{number + 1}",
            },
        ]  # fmt: skip


async def export(core: Core, entries: Sequence[LogEntry], path: Path, saved: Saved | None = None) -> Written:
    """Write records to a new file; those that are sent meanwhile may be missing.

    Raises OSError, FileExistsError among them; then there is no file.
    """
    contents: dict[int, Container] = {}
    lost: list[int] = []
    changes: list[dict[str, Any]] = []
    try:
        for count, entry in enumerate(entries, 1):
            if count % _AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            if core.cache.log.get(entry.volume, entry.sequence) is None:
                continue
            if entry.container is not None:
                try:
                    contents[entry.sequence] = core.cache.containers.open(entry.container)
                except ContainerLost:
                    lost.append(entry.sequence)
            changes.append(_described(core, entry, entry.sequence in contents))
        done = len(changes)
        if saved is not None:
            number = max((entry.sequence for entry in entries), default=0) + 1
            changes += saved.changes(core, number)
            contents[number + 1] = saved.content.share()
        index = {
            "format": FORMAT,
            "program": f"realmfs {__version__}",
            "made": int(time.time()),
            "lost": lost,
            "changes": changes,
        }
        size = await trio.to_thread.run_sync(_write, path, index, contents)
    finally:
        for content in contents.values():
            content.close()
    return Written(done, size)


def _write(path: Path, index: Mapping[str, Any], contents: Mapping[int, Container]) -> int:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                text = json.dumps(index, indent=1).encode("ascii")
                _add(archive, INDEX, len(text), io.BytesIO(text))
                for sequence, content in contents.items():
                    with content.reader() as source:
                        _add(archive, f"contents/{sequence}", content.length, source)
            file.flush()
            os.fsync(descriptor)
        return path.stat().st_size
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _add(archive: tarfile.TarFile, name: str, size: int, source: Any) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o600, int(time.time())
    archive.addfile(member, source)


def _described(core: Core, entry: LogEntry, has_contents: bool) -> dict[str, Any]:
    record = full_record(core, entry)
    volume = core.volumes.by_key(entry.volume)
    fields = {name: _plain(getattr(record, name)) for name in _fields(record)}
    number = next((number for number, _ in entry.about), 0)
    return {
        "number": entry.sequence,
        "realm": volume.realm,
        "volume": volume.name,
        "change": type(record).__name__,
        **fields,
        "made": entry.time,
        "uid": entry.uid,
        "identity": entry.identity,
        "path": core.path(core.nodes.by_number(number)) if number else "",
        "contents": f"contents/{entry.sequence}" if has_contents else None,
    }


def _fields(record: AnyRecord) -> Iterable[str]:
    return (
        name
        for name in record.__dataclass_fields__
        if not isinstance(getattr(record, name), VersionVector | StoreId)
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Fid):
        return str(value)
    return os.fsdecode(value) if isinstance(value, bytes) else value


# -- reading ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Change:
    """One change of an archive; `contents` is where they begin in the file, and their length."""

    kind: str
    fields: Mapping[str, Any]
    contents: tuple[int, int] | None

    def text(self, field: str) -> str:
        """Return a text. Raises ArchiveError."""
        value = self.fields.get(field)
        if not isinstance(value, str):
            raise ArchiveError(f"change {self.fields.get('number')} has no {field}")
        return value

    def number(self, field: str) -> int:
        """Return a number. Raises ArchiveError."""
        value = self.fields.get(field)
        if type(value) is not int:
            raise ArchiveError(f"change {self.fields.get('number')} has no {field}")
        return value

    def name(self, field: str) -> bytes:
        """Return a name, or the text of a link. Raises ArchiveError."""
        return os.fsencode(self.text(field))

    def fid(self, field: str) -> Fid:
        """Return a fid. Raises ArchiveError."""
        try:
            volume, vnode, unique = (int(word, 16) for word in self.text(field).split("."))
        except ValueError:
            raise ArchiveError(f"{self.fields.get(field)!r} is no fid") from None
        return Fid(volume, vnode, unique)


def read(path: Path) -> list[Change]:
    """Read an archive. Raises ArchiveError, OSError."""
    try:
        with tarfile.open(path, "r:") as archive:
            members = {member.name: member for member in archive.getmembers() if member.isfile()}
            index = members.get(INDEX)
            if index is None or index.size > INDEX_LIMIT:
                raise ArchiveError(f"{path} holds no {INDEX}")
            stream = archive.extractfile(index)
            assert stream is not None
            listed = json.loads(stream.read())
    except (tarfile.TarError, ValueError, RecursionError) as error:
        raise ArchiveError(f"{path} is no archive of changes: {error}") from error
    if not isinstance(listed, dict) or listed.get("format") != FORMAT:
        raise ArchiveError(f"{path} is of a format that this version does not know")
    changes = []
    for fields in listed.get("changes", ()):
        if not isinstance(fields, dict) or not isinstance(fields.get("change"), str):
            raise ArchiveError(f"{path} holds what is no change")
        member = members.get(str(fields.get("contents")))
        place = (member.offset_data, member.size) if member is not None else None
        changes.append(Change(fields["change"], fields, place))
    return changes
