"""A small population for cache tests."""

from dataclasses import dataclass, field
from typing import Self

from realmfs.cache import Cache, Container, Flags, Limits, ObjectRow, VolumeRow
from realmfs.vice.types import Fid, ObjectType, Status, VersionVector

LIMITS = Limits(bytes=1 << 20, objects=1000, log_records=1000, reserve=0)


def status(kind: ObjectType = ObjectType.FILE, length: int = 0, parent: tuple[int, int] = (1, 1)) -> Status:
    """Return some status."""
    return Status(
        kind, 1, length, 1, VersionVector((1, 1, 1, 0, 0, 0, 0, 0)), 1000, 7, 7, False, 127, 9, 0o644, parent
    )


@dataclass
class World:
    """A cache with a realm, a volume and its root directory."""

    cache: Cache
    realm: int
    volume: VolumeRow
    root: int
    _unique: int = field(default=100)

    @classmethod
    def make(cls, cache: Cache) -> Self:
        """Populate an empty cache."""
        with cache.transaction():
            realm = cache.realms.add("example.org").id
            volume = VolumeRow(realm, 0x7F000001, "root", 3)
            cache.volumes.save(volume)
            fid = Fid(volume.id, 1, 1)
            root = cache.inodes.new(realm, fid)
            row = ObjectRow(root, realm, fid, status=status(ObjectType.DIRECTORY, 2048, (0, 0)))
            cache.objects.add(row)
        return cls(cache, realm, volume, root)

    def fid(self) -> Fid:
        """Return a file's fid as a server would have made it."""
        self._unique += 1
        return Fid(self.volume.id, 2 * self._unique, self._unique)

    def fetched(self, name: bytes = b"file", data: bytes | None = None, parent: int = 0) -> int:
        """Put a clean file into the cache, with data or without; return its number."""
        fid = self.fid()
        with self.cache.transaction():
            number = self.cache.inodes.new(self.realm, fid)
            self.cache.objects.add(
                ObjectRow(number, self.realm, fid, parent or self.root, name, status(length=len(data or b"")))
            )
            if data is not None:
                with self.cache.containers.create(len(data)) as container:
                    container.sink().write(data)
                    container.settle()
                    self.cache.objects.attach(number, container)
        return number

    def swept(self, data: bytes, name: bytes = b"small") -> int:
        """Put a clean file into the cache whose contents came whole; return its number."""
        number = self.fetched(name)
        with self.cache.transaction():
            self.cache.objects.update(number, status=status(length=len(data)))
            with self.cache.containers.hold(data) as container:
                self.cache.objects.attach(number, container)
        return number

    def created(self, name: bytes = b"new") -> int:
        """Make a file here, with its log record; return its number."""
        with self.cache.transaction():
            fid = self.cache.volumes.local_fid(self.volume.key, ObjectType.FILE)
            number = self.cache.inodes.new(self.realm, fid)
            self.cache.objects.add(
                ObjectRow(number, self.realm, fid, self.root, name, status(), flags=Flags.LOCAL)
            )
            self.log(1, number, parents=[self.root])
        return number

    def log(
        self, opcode: int, number: int, *, parents: list[int] | None = None, contents: Container | None = None
    ) -> int:
        """Log something about an object; return the sequence number. Inside a transaction."""
        return self.cache.log.append(
            self.volume.key,
            opcode.to_bytes(4, "big") + bytes(72),
            uid=1000,
            identity="alice@example.org",
            time=5000,
            objects=[number],
            parents=parents or [],
            contents=contents,
        )

    async def write(self, number: int, data: bytes) -> Container:
        """Write a file as a process would that has not closed it yet; return its open container."""
        row = self.cache.objects.load(number)
        assert row is not None
        old = None if row.container is None else self.cache.containers.open(row.container)
        container = await self.cache.contents.writable(number, old, empty=True)
        container.write(0, data)
        return container

    async def store(self, number: int, data: bytes) -> int:
        """Write a file and close it; return the sequence number of its record."""
        container = await self.write(number, data)
        sequence = self.close(number, container)
        container.close()
        return sequence

    def close(self, number: int, container: Container) -> int:
        """Log a store of what is in the container."""
        with self.cache.transaction():
            self.cache.objects.update(number, status=status(length=container.length))
            return self.log(11, number, contents=container)

    def data(self, number: int) -> bytes | None:
        """Return a file's contents; None if they are not here."""
        row = self.cache.objects.load(number)
        if row is None or row.container is None:
            return None
        with self.cache.containers.open(row.container) as container:
            return container.read(0, container.length)
