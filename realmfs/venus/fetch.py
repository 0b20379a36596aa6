"""Bringing data here: directories, link texts, and file contents that readers follow as they stream in.

One fetch per object, however many wait for it. It runs detached from whoever wanted it, so it survives a
reader's loss of patience, and the next reader finds it further on. A file's bytes go straight into its
container; readers wait for the range they want, and for the answers of all servers, which tell of what
version the first piece is. What has arrived when a fetch breaks is kept, and the next fetch goes on from
there if the servers still have that version.

Status comes along with data. So an object of which nothing is known is fetched at once, in one round; and
when the answer says that the version is another one than the status we had, status and data change together.

Of an object whose attributes or names were changed here, and not yet sent, the status is ours, but its data
may still have to be fetched: what comes is kept if it is of the version that was changed.
"""

import logging
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from realmfs.cache.containers import Container
from realmfs.cache.errors import ContainerLost
from realmfs.cache.log import Role
from realmfs.realms.fetching import PIECE, VersionChangedError
from realmfs.realms.sweep import Found
from realmfs.realms.types import Attributes
from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.transfer import BytesSink
from realmfs.venus.core import Core
from realmfs.venus.flights import Flight
from realmfs.venus.lookaside import Lookaside
from realmfs.venus.node import Node, Promise
from realmfs.venus.ranges import Course
from realmfs.venus.rounds import Rounds
from realmfs.venus.runs import Into, fetch_run, room_for
from realmfs.venus.validity import Validator
from realmfs.vice.directory import MAX_PAGES, PAGE, Directory
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.log import Create, MakeDir, Store, SymLink
from realmfs.vice.types import ObjectType

log = logging.getLogger(__name__)

_DATA = frozenset(kind.OPCODE for kind in (Store, Create, MakeDir, SymLink))
ROUNDS = 4  # how often an object may change under a fetch before the caller is told to try again


class Fetcher:
    """Brings data into the cache and hands it out."""

    def __init__(self, core: Core, validator: Validator) -> None:
        self._core = core
        self._validator = validator
        self._parsed: OrderedDict[Node, None] = OrderedDict()
        self.lookaside = Lookaside(core.cache.containers, core.settings.lookaside)

    # -- directories and links -------------------------------------------------------------------------

    async def directory(self, node: Node, uid: int) -> Directory:
        """Return the contents of a directory, valid for `uid`.

        Raises CodaError as `Validator.status` does.
        """
        rounds = Rounds(self._core.settings.patience)
        while await rounds.another():
            if node.status is not None and not (node.stale and self.present(node) is None):
                await self._validator.status(node, uid)
            directory = self.present(node)
            if directory is not None:
                return directory
            self._refuse_hopeless(node)
            if not await self._validator.swept(node):
                await self._join(node, uid)
        raise CodaError(Code.EWOULDBLOCK, f"{node.label} changes all the time")

    def present(self, node: Node) -> Directory | None:
        """Return the contents of a directory as they are here, valid or not; None if they are not here."""
        if node.directory is None and node.stored:
            image = self._core.cache.directories.load(node.ino)
            if image is not None:
                try:
                    node.directory = Directory.parse(image)
                except BadPacket:
                    log.warning("%s: the cached directory is damaged and fetched again", node.label)
                    with self._core.cache.transaction():
                        self._core.nodes.drop_data(node)
        if node.directory is not None:
            self._remember(node)
        return node.directory

    def _remember(self, node: Node) -> None:
        self._parsed[node] = None
        self._parsed.move_to_end(node)
        while len(self._parsed) > self._core.settings.directories_in_memory:
            oldest, _ = self._parsed.popitem(last=False)
            oldest.directory = None

    async def link(self, node: Node, uid: int) -> bytes:
        """Return the text of a symbolic link, valid for `uid`."""
        rounds = Rounds(self._core.settings.patience)
        while await rounds.another():
            await self._validator.status(node, uid)
            if node.link is not None:
                return node.link
            self._refuse_hopeless(node)
            if not await self._validator.swept(node):
                await self._join(node, uid)
        raise CodaError(Code.EWOULDBLOCK, f"{node.label} changes all the time")

    async def _join(self, node: Node, uid: int) -> None:
        """Fetch the whole, or wait for whoever does. That another user was refused says nothing."""
        flight = self._core.flights.start(("data", node.ino), lambda: self._fetch_whole(node, uid), uid)
        await self._landed(flight, uid)

    async def _landed(self, flight: Flight, uid: int) -> bool:
        """Wait for a fetch; tell whether it came to anything. Raises CodaError if it failed for this user."""
        try:
            await self._core.flights.land(flight)
        except CodaError:
            if flight.user == uid:
                raise
            return False
        return True

    async def _fetch_whole(self, node: Node, uid: int) -> None:
        """Fetch a directory or a link: small, and only of use as a whole."""
        core = self._core
        await core.enter(node.volume)
        await core.room(objects=not node.stored, size=0)
        sink = _Whole()
        sample, edition = node.sample(), node.edition
        try:
            with core.call("Fetch", node.label):
                answer = await core.group(node.volume).fetch(node.fid, uid, sink.at)
        except CodaError as error:
            self._validator.failed(node, error)
            raise
        data = sink.data
        if len(data) != answer.status.length:
            raise CodaError(Code.EIO, f"{node.label}: {len(data)} bytes of {answer.status.length} came")
        directory = self._parse(node, data) if node.is_directory else None
        with core.cache.transaction():
            if not self._counts(node, uid, answer, sample, edition, filling=False):
                return
            if directory is not None:
                self._keep_directory(node, directory, data)
            else:
                node.link = data
                core.nodes.save(node)

    def _keep_directory(self, node: Node, directory: Directory, image: bytes) -> None:
        node.directory = directory
        self._core.cache.directories.replace(node.ino, image)
        self._remember(node)

    def _parse(self, node: Node, image: bytes) -> Directory:
        try:
            return Directory.parse(image)
        except BadPacket as error:
            raise CodaError(
                Code.EIO, f"{node.label}: the servers sent a damaged directory: {error}"
            ) from error

    def _refuse_hopeless(self, node: Node) -> None:
        """Do not ask the servers for what only we can have."""
        if node.gone or node.conflict:
            raise CodaError(Code.EINCONS if node.conflict else Code.ENOENT, node.label)
        if self._data_is_ours(node):
            raise CodaError(Code.EIO, f"{node.label} was changed here, but its data is not")

    def _data_is_ours(self, node: Node) -> bool:
        """Tell whether the data was made here: not if only attributes and names wait to be sent."""
        if node.content is not None and node.content.writing:
            return True
        return node.dirty and any(
            role & Role.PARENT or entry.opcode in _DATA
            for entry, role in self._core.cache.log.about(node.ino)
        )

    def _counts(
        self, node: Node, uid: int, answer: Attributes, sample: Promise, edition: int, *, filling: bool
    ) -> bool:
        """Take in the status that came with data; tell whether the data is of the version we then have."""
        if node.dirty and not node.gone and not self._data_is_ours(node):
            return node.same_version(answer.status.vv)  # the status stays as it was changed here
        counts = self._validator.absorb(node, uid, answer, sample, edition, filling=filling)
        return counts and node.same_version(answer.status.vv)

    # -- files -----------------------------------------------------------------------------------------

    async def begin(self, node: Node, uid: int, offset: int = 0, count: int = 1) -> Container:
        """Return the open container of a file: whole, being filled from now on, or partial with this range.

        The status must be usable. Waits for the range if a fetch must be begun, so that what the servers
        refuse is known. The container belongs to the node (`node.content`) until `settle`.
        """
        content = self.at_hand(node)
        if content is not None and not content.filling and self._suffices(node, content, offset, count):
            return content
        if await self._validator.swept(node):
            return await self.begin(node, uid, offset, count)
        if not self._core.flights.flying(("data", node.ino)):
            if self._is_ours_and_empty(node):
                return self._empty(node)
            self._refuse_hopeless(node)
            await self._core.room(objects=not node.stored, size=self._size(node))
            content = self.at_hand(node)  # who got in while we waited may have brought it, or begun to write
            if content is not None and not content.filling and self._suffices(node, content, offset, count):
                return content
        flight = self.start(node, uid)
        while (content := self._filling(node)) is not None and not content.has(offset, count):
            await content.wait(offset, count)
        if content is None:
            if not await self._landed(flight, uid):
                return await self.begin(node, uid, offset, count)
            content = self.at_hand(node)
        if content is None:
            raise CodaError(Code.ETIMEDOUT, node.label)
        return content

    def _suffices(self, node: Node, content: Container, offset: int, count: int) -> bool:
        return content.whole or (self._is_partial(node) and content.has(offset, count))

    def _is_partial(self, node: Node) -> bool:
        """Tell whether only the ranges that are read are brought (client.md §5)."""
        return (
            node.status is not None
            and self._by_ranges(node)
            and (
                node.status.length >= self._core.settings.partial_size
                or node.status.length > self._core.cache.limits.bytes // 2
            )
        )

    def _by_ranges(self, node: Node) -> bool:
        """Tell whether a file is large enough to come in runs, and its servers can do that."""
        if node.status is None or node.status.length <= PIECE:
            return False
        place = node.volume.place
        return place is None or all(
            replica.server.fetches_partially is not False for replica in place.replicas
        )

    def _size(self, node: Node) -> int:
        """Return the room that a fetch takes at once; that of partial files takes it run by run."""
        return 0 if node.status is None or self._is_partial(node) else node.status.length

    def _is_ours_and_empty(self, node: Node) -> bool:
        """Tell whether a file made here is empty: its container may be lost, its contents are not."""
        return (
            node.status is not None
            and not node.status.length
            and not (node.gone or node.conflict)
            and self._data_is_ours(node)
        )

    def _empty(self, node: Node) -> Container:
        cache = self._core.cache
        content = cache.containers.hold(b"")
        try:
            with cache.transaction():
                cache.objects.attach(node.ino, content)
        except BaseException:
            content.close()
            raise
        node.container, node.content = content.id, content
        return content

    def _filling(self, node: Node) -> Container | None:
        """Return the container that a fetch fills, of the length that the file will have."""
        content = node.content
        if content is None or not content.filling:
            return None
        if node.status is not None and content.length < node.status.length:
            content.resize(node.status.length)  # the fetch began before the length was known
        return content

    async def fill(self, node: Node, uid: int) -> None:
        """Bring the contents of a file or link whose status is known: the work of somebody else's flight."""
        if node.type is not ObjectType.FILE:
            await self._fetch_whole(node, uid)
            return
        await self._core.room(objects=not node.stored, size=node.status.length if node.status else 0)
        content = self._container(node, 0).share()
        content.filling = True
        await self._fetch_file(node, uid, content, None)

    def take_in_small(self, node: Node, uid: int, found: Found, sample: Promise, edition: int) -> None:
        """Take in an object that came whole, in a sweep.

        Inside a transaction. Raises CodaError, also when there is no room.
        """
        data, answer = found.data or b"", found.attributes
        if node.content is not None or node.container is not None or node.ours or node.gone:
            return
        directory = self._parse(node, data) if node.is_directory else None
        filling = answer.status.type is ObjectType.FILE
        if not self._counts(node, uid, answer, sample, edition, filling=filling):
            return
        if directory is not None:
            self._keep_directory(node, directory, data)
        elif not filling:
            node.link = data
            self._core.nodes.save(node)
        else:
            self._keep_small(node, data)

    def _keep_small(self, node: Node, data: bytes) -> None:
        try:
            content = node.content = self._core.cache.containers.hold(data)
            self._arrived(node, content)
        except OSError as error:
            raise CodaError.from_oserror(error) from error
        finally:
            self.settle(node)

    def start(self, node: Node, uid: int, limit: int | None = None) -> Flight:
        """Begin to fetch a file's contents without waiting, unless that is going on."""
        flights, key = self._core.flights, ("data", node.ino)
        if flights.flying(key):
            return flights.start(key, _nothing)
        content = self._container(
            node, limit or 0
        ).share()  # the flight's, whatever becomes of the node meanwhile
        content.filling = True
        return flights.start(key, lambda: self._fetch_file(node, uid, content, limit), uid)

    def at_hand(self, node: Node) -> Container | None:
        """Return the file's container, open, if there is any; None if nothing of the contents is here."""
        if node.content is None and node.container is not None:
            try:
                node.content = self._core.cache.containers.open(node.container)
            except ContainerLost as lost:
                log.warning("%s: %s", node.label, lost.strerror)
                with self._core.cache.transaction():
                    self._core.nodes.drop_data(node)
        return node.content

    def settle(self, node: Node) -> None:
        """Close the container if nobody uses it any more."""
        content = node.content
        if content is not None and not node.open and not content.filling:
            node.content = None
            content.close()

    @asynccontextmanager
    async def contents(self, node: Node, uid: int) -> AsyncIterator[Container]:
        """Lend out the container of a file when all of it is here, as to somebody who has opened it.

        The status of the node is that of these contents when the block is entered.
        """
        node.readers += 1
        try:
            yield await self.whole(node, uid)
        finally:
            node.readers -= 1
            self.left(node)

    def left(self, node: Node) -> None:
        """Do what is to be done when somebody has closed a file."""
        if node.open:
            return
        self.settle(node)
        if node.gone:
            self._core.nodes.leave(node)

    async def whole(self, node: Node, uid: int) -> Container:
        """Return the container of a file when all of it is here, to somebody who has it open."""
        while True:
            content = await self.begin(node, uid)
            if content.whole and not content.filling:
                return content
            if self._is_partial(node):
                await self._core.room(size=content.length - content.present.total)
            flight = self.start(node, uid)
            await content.wait(0, content.length)  # so a partial file comes entirely
            await self._landed(flight, uid)

    async def wait(self, node: Node, uid: int, offset: int, count: int) -> Container:
        """Return the container once a range of it is here. Ends when nothing has come for `patience` seconds.

        Raises CodaError: ETIMEDOUT, or what the servers said.
        """
        patience = self._core.settings.patience
        while True:
            content = self._filling(node) or await self.begin(node, uid, offset, count)
            content.position = offset + count
            if content.has(offset, count):
                return content
            before = content.present.total
            with trio.move_on_after(patience):
                if not await content.wait(offset, count):
                    await self._landed(self.start(node, uid), uid)
            if content.filling and content.present.total == before:
                raise CodaError(Code.ETIMEDOUT, f"{node.label}: nothing came for {patience:.0f} s")

    async def ahead(self, node: Node, uid: int) -> None:
        """Fetch a file that nobody asked for yet; give up if it turns out to be large."""
        limit = self._core.settings.data_ahead_size
        await self._core.room(objects=not node.stored, size=node.status.length if node.status else limit)
        if node.content is None and node.container is None and not node.gone:
            await self._core.flights.land(self.start(node, uid, limit))

    async def _fetch_file(self, node: Node, uid: int, content: Container, limit: int | None) -> None:
        scope = trio.CancelScope()
        into = Into(self._core, node, content, limit, scope)
        try:
            if node.status is not None and node.status.length == 0:
                self._arrived(node, content)
                return
            if await self._from_aside(node, content):
                return
            await self._core.enter(node.volume)
            with scope:
                if limit is None and self._by_ranges(node):
                    await self._receive_runs(node, uid, content, into)
                else:
                    await self._receive(node, uid, content, into)
            if scope.cancelled_caught:
                raise CodaError(Code.EFBIG, f"{node.label} is too large to bring it unasked")
        except CodaError as error:
            self._validator.failed(node, error)
            if into.checked:
                self._keep_part(node, content)
            raise
        finally:
            content.settle()
            content.close()
            self.settle(node)

    async def _receive(self, node: Node, uid: int, content: Container, into: Into) -> None:
        """Fetch, and begin anew if the servers have another version than the one we knew."""
        core = self._core
        for _ in range(ROUNDS):
            sample, edition, status = node.sample(), node.edition, node.status
            try:
                with core.call("FetchPartial", f"{node.label} [{node.blocks}]"):
                    answer = await core.group(node.volume).fetch(
                        node.fid,
                        uid,
                        into.at,
                        vv=status.vv if status is not None else None,
                        length=status.length if status is not None else None,
                        offset=content.present.total,
                    )
            except VersionChangedError as changed:
                self._begin_anew(node, uid, content, changed, sample, edition)
                continue
            into.prove()
            self._take_in(node, uid, content, answer, sample, edition)
            return
        raise CodaError(Code.EWOULDBLOCK, f"{node.label} changes all the time")

    async def _from_aside(self, node: Node, content: Container) -> bool:
        """Use contents that are here under another name, instead of fetching; tell whether there are any."""
        status, edition = node.status, node.edition
        if not node.sha or status is None or status.data_version != 1 or node.ours or content.present.total:
            return False
        if not self._core.cache.replacement.fits(size=status.length if self._is_partial(node) else 0):
            return False
        content.resize(status.length)
        if not await self.lookaside.fill(node.sha, status.length, content):
            return False
        if node.edition != edition or node.content is not content or not node.same_version(status.vv):
            content.truncate(0)
            content.resize(node.status.length if node.status is not None else 0)
            return False
        content.remember_range(0, content.length)
        self._arrived(node, content)
        return True

    async def _receive_runs(self, node: Node, uid: int, content: Container, into: Into) -> None:
        """Fetch a large file run by run, turning to where readers wait (ranges.py)."""
        for _ in range(ROUNDS):
            sample, edition = node.sample(), node.edition
            partial = self._is_partial(node)
            course = Course(content, partial=partial)
            answer: Attributes | None = None
            try:
                while (run := course.next()) is not None:
                    if partial:
                        await room_for(self._core, content, run)
                    came = await fetch_run(self._core, node, uid, into, run, ask_all=answer is None)
                    answer = answer or came
            except VersionChangedError as changed:
                self._begin_anew(node, uid, content, changed, sample, edition)
                continue
            if answer is None:
                return
            if partial and answer.status.length == content.length:
                with self._core.cache.transaction():
                    if self._counts(node, uid, answer, sample, edition, filling=True):
                        self._arrived(node, content)
            else:
                self._take_in(node, uid, content, answer, sample, edition)
            return
        raise CodaError(Code.EWOULDBLOCK, f"{node.label} changes all the time")

    def _begin_anew(
        self,
        node: Node,
        uid: int,
        content: Container,
        changed: VersionChangedError,
        sample: Promise,
        edition: int,
    ) -> None:
        """Forget an older version, on the disk too: a crash must not leave it under a new status."""
        with self._core.cache.transaction():
            content.forget_range(0, content.length)
            if content.saved:
                self._core.cache.containers.save(content)
            self._validator.absorb(node, uid, changed.attributes, sample, edition, filling=True)
        if node.status is not None and node.content is content:
            content.resize(node.status.length)

    def _container(self, node: Node, unknown: int) -> Container:
        """Return the container to fill: a new one, or one that holds the first part already."""
        content = self.at_hand(node)
        if content is None or content.whole:
            length = node.status.length if node.status is not None else 0
            reserve = self._size(node) if node.status is not None else unknown
            content = node.content = self._core.cache.containers.create(length, reserve=reserve)
        return content

    def _take_in(
        self, node: Node, uid: int, content: Container, answer: Attributes, sample: Promise, edition: int
    ) -> None:
        if answer.status.type is not ObjectType.FILE:
            self._take_in_link(node, uid, content, answer, sample, edition)
            return
        if content.length != answer.status.length:
            content.resize(answer.status.length)
        if not content.whole:
            raise CodaError(Code.EIO, f"{node.label}: {content.present.total} bytes of {content.length} came")
        with self._core.cache.transaction():
            if self._counts(node, uid, answer, sample, edition, filling=True):
                self._arrived(node, content)

    def _take_in_link(
        self, node: Node, uid: int, content: Container, answer: Attributes, sample: Promise, edition: int
    ) -> None:
        """Keep what was brought ahead, when nobody knew yet that it is a link. Raises CodaError."""
        length = answer.status.length
        if answer.status.type is not ObjectType.SYMLINK or content.length != length:
            raise CodaError(Code.EIO, f"{node.fid} is not the file it was")
        text = content.read(0, length)
        with self._core.cache.transaction():
            if self._counts(node, uid, answer, sample, edition, filling=True):
                node.link = text
                self._core.nodes.save(node)

    def _arrived(self, node: Node, content: Container) -> None:
        if node.content is not content or node.gone:
            return  # somebody has cut the file meanwhile, or removed it
        self.lookaside.note(node.sha, content)
        with self._core.cache.transaction():
            if not node.stored:  # else `absorb` has just written it
                self._core.nodes.save(node)
            self._core.cache.objects.attach(node.ino, content)
        node.container = content.id

    def _keep_part(self, node: Node, content: Container) -> None:
        """Keep what has come of a file whose fetch broke, to go on from there."""
        if content.present.total and node.status is not None and node.stored and not node.ours:
            content.resize(node.status.length)
            self._arrived(node, content)


async def _nothing() -> None:
    """What need not be started, since it is going on."""


class _Whole:
    """Collects what is of use only as a whole; begins anew when told to."""

    def __init__(self) -> None:
        self._sinks: list[tuple[int, BytesSink]] = []

    def at(self, offset: int) -> BytesSink:
        self._sinks = [(start, sink) for start, sink in self._sinks if start < offset]
        sink = BytesSink(MAX_PAGES * PAGE)  # the largest directory; links are smaller
        self._sinks.append((offset, sink))
        return sink

    @property
    def data(self) -> bytes:
        """All that came, in order."""
        return b"".join(bytes(sink.data) for _, sink in self._sinks)
