"""From a clean file to a store in the modify log: which container may be written, and when.

States of a file's contents
---------------------------
    clean ────────── writable ──────────► writing ───── Store logged ─────► logged
    (fetched)   fork, or in place if big  (private to      (append)         (immutable, shared by
                                           the object)                       object and record)
                                              ▲                                     │
                                              └────────────── writable: fork ◄──────┘

Invariants
* What a store record refers to never changes. So after `kill -9` it holds what was acknowledged at its
  close or fsync, and while it is being sent nobody can change it.
* A container that is *writing* belongs to one object and holds what was not acknowledged. The object keeps
  its previous contents beside it until a store is logged. After a crash the new ones become a recovered copy
  and the object goes back to the previous ones.

Only a large clean file on a file system that cannot share blocks is written in place, after a sync of the
write-ahead log: without it, power loss could leave new bytes in a file whose row calls it clean. Such a file
has no previous contents; they are fetched again.

Races: `writable` may wait for a copy. Venus holds the object meanwhile, so there is one caller per object,
and nobody else writes to the source; readers keep the container that they opened.
"""

import os
from collections.abc import Awaitable, Callable

from realmfs.cache import disk
from realmfs.cache.container import Container
from realmfs.cache.containers import Containers
from realmfs.cache.database import Database
from realmfs.cache.objects import Objects

COPY_LIMIT = 16 << 20
"""Clean files up to this size are copied before the first write; larger ones are written in place."""


class Contents:
    """Gives out containers to write to."""

    def __init__(
        self,
        database: Database,
        objects: Objects,
        containers: Containers,
        sync: Callable[[], Awaitable[None]],
    ) -> None:
        self._database = database
        self._objects = objects
        self._containers = containers
        self._sync = sync

    async def writable(self, number: int, container: Container | None, *, empty: bool = False) -> Container:
        """Return a container that may be written, attached to the object.

        Call it before the first write after an open or a logged store.

        `container` is what the object has, opened by the caller and whole; None if it has none or `empty`
        asks for a new one of length 0. The caller goes on with what is returned: the same container, or
        another one; then the caller's use of the old one has been closed. CacheFull or OSError(ENOSPC), and
        nothing has changed.
        """
        if container is not None and container.writing:
            if empty:
                container.truncate(0)
            return container
        if container is None or empty:
            return self._adopt(number, container, self._containers.create())
        if not container.whole:
            raise ValueError(f"container {container.id:x} is not whole")
        if container.logged or container.length <= COPY_LIMIT:
            return self._adopt(number, container, await self._containers.fork(container))
        return await self._in_place_or_clone(number, container)

    async def _in_place_or_clone(self, number: int, container: Container) -> Container:
        twin = self._containers.create()
        if disk.clone(container.fd, twin.fd):
            twin.length = os.fstat(twin.fd).st_size
            twin.present.add(0, twin.length)
            twin.settle()
            return self._adopt(number, container, twin)
        twin.close()
        with self._database.transaction():
            self._mark(container)
        try:
            await self._sync()
        except BaseException:
            container.restore(writing=False, logged=False)
            with self._database.transaction():
                self._containers.save(container)
            raise
        return container

    def _adopt(self, number: int, old: Container | None, new: Container) -> Container:
        try:
            with self._database.transaction():
                self._mark(new)
                self._objects.attach(number, new)
        except BaseException:
            new.close()
            raise
        if old is not None:
            old.close()
        return new

    def _mark(self, container: Container) -> None:
        before = container.writing, container.logged
        container.writing, container.logged = True, False
        self._containers.save(container)
        self._database.on_rollback(lambda: container.restore(*before))
