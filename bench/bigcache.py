"""A cache of many objects, written straight into its database: as if all of it had been read once.

r.test/d000 ... d999     directories, each with FILES files of one short line
known00.test ...         realms that were reached once
"""

import json
import sqlite3
from pathlib import Path

from realmfs.cache.cache import Cache
from realmfs.cache.inodes import volume_key
from realmfs.cache.limits import Limits
from realmfs.rpc2.marshal import Packer
from realmfs.vice.directory import Directory
from realmfs.vice.types import ObjectType, Status, StoreId, VersionVector

REALM = "r.test"
SERVER = "192.0.2.1"  # nobody has this address
VOLUME = 0x7F000001
FILES = 99
REALMS = [f"known{number:02}.test" for number in range(20)]
CACHE_SIZE = 40 << 30
"""A cache of this size may hold 100 000 objects."""

_OBJECT = (
    "INSERT INTO object (number, parent, name, status, rights, container, flags, mount, hoard, hoard_uid,"
    " tick) VALUES (?, ?, ?, ?, ?, ?, 0, 0, 0, -1, ?)"
)
_CONTAINER = "INSERT INTO container (id, length, bytes, writing, logged, synced) VALUES (?, ?, ?, 0, 0, 1)"


def contents(directory: int, file: int) -> bytes:
    return b"file %d of directory %d\n" % (file, directory)


def fill(cache: Path, state: Path, directories: int) -> int:
    """Make a cache and the memory of its realms; return how many objects are in it."""
    Cache(cache, Limits.for_size(CACHE_SIZE, reserve=0)).close()
    database = sqlite3.connect(cache / "cache.db")
    with database:
        count = _Filler(database, cache / "containers").fill(directories)
        database.execute("UPDATE state SET clean = 1, next_number = ?", (count + 10,))
    database.close()
    _remember(state)
    return count


class _Filler:
    def __init__(self, database: sqlite3.Connection, containers: Path) -> None:
        self._database = database
        self._containers = containers
        self._key = volume_key(1, VOLUME)
        self._next = 2

    def fill(self, directories: int) -> int:
        write = self._database.execute
        for number, name in enumerate([REALM, *REALMS], 1):
            write("INSERT INTO realm VALUES (?, ?, '/')", (number, name))
            key = volume_key(number, VOLUME)
            write(
                "INSERT INTO volume VALUES (?, '/', 3, ?, '[]', ?, '{}')",
                (key, json.dumps([[0, 0x1000001, f"{SERVER}:2432"]]), 1 << 19),
            )
            if number > 1:
                self._object(key, 1, 0, b"", _status(ObjectType.DIRECTORY, 2048, (0, 0)))
        root = self._directory(1, 0, b"", (0, 0), [(b"d%03d" % n, 3 + 2 * n) for n in range(directories)])
        for place in range(directories):
            self._directory_of_files(root, place)
        return self._next - 2

    def _directory_of_files(self, root: int, place: int) -> None:
        vnode = 3 + 2 * place
        first = 2 + 2 * FILES * place
        names = [(b"f%02d" % n, first + 2 * n) for n in range(FILES)]
        parent = self._directory(vnode, root, b"d%03d" % place, (1, 1), names)
        for number, (name, file) in enumerate(names):
            data = contents(place, number)
            container = place * FILES + number + 1
            path = self._containers / f"{container & 0xFF:02x}" / f"{container:x}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
            self._database.execute(_CONTAINER, (container, len(data), len(data)))
            status = _status(ObjectType.FILE, len(data), (vnode, 1))
            self._object(self._key, file, parent, name, status, container)

    def _directory(
        self, vnode: int, parent: int, name: bytes, above: tuple[int, int], names: list[tuple[bytes, int]]
    ) -> int:
        directory = Directory.new((vnode, 1), above if above != (0, 0) else (vnode, 1))
        for entry, child in names:
            directory.insert(entry, child, 1)
        status = _status(ObjectType.DIRECTORY, directory.length, above)
        number = self._object(self._key, vnode, parent, name, status)
        for page in range(directory.pages):
            row = (number << 7 | page, directory.page(page))
            self._database.execute("INSERT INTO page VALUES (?, ?)", row)
        return number

    def _object(
        self, key: int, vnode: int, parent: int, name: bytes, status: bytes, container: int | None = None
    ) -> int:
        number, self._next = self._next, self._next + 1
        self._database.execute("INSERT INTO inode VALUES (?, ?, ?, 1, 0)", (number, key, vnode))
        rights = (-1).to_bytes(4, "little", signed=True) + (127).to_bytes(4, "little")
        self._database.execute(_OBJECT, (number, parent, name, status, rights, container, number))
        return number


def _status(kind: ObjectType, length: int, parent: tuple[int, int]) -> bytes:
    vv = VersionVector((1, 0, 0, 0, 0, 0, 0, 0), StoreId(1, 1))
    mode = 0o755 if kind is ObjectType.DIRECTORY else 0o644
    packer = Packer()
    Status(
        kind, 1, length, 1, vv, 1_700_000_000, 1, 1, False, 127, 127, mode, parent
    ).pack(packer)  # fmt: skip
    return packer.done()


def _remember(state: Path) -> None:
    place = {"id": VOLUME, "name": "/", "type": 3, "replicas": [[0, 0x1000001, SERVER]]}
    server = {"name": "", "address": [SERVER, 2432], "priority": 0, "weight": 0}
    known = {"servers": [server], "reached": True, "root_volume": "/", "volumes": {"/": place}}
    state.mkdir(parents=True, exist_ok=True)
    memory = {"version": 1, "realms": dict.fromkeys([REALM, *REALMS], known)}
    (state / "realms.json").write_text(json.dumps(memory))
