"""The cache manager: what the kernel's side and the control socket see, over the parts that do the work.

    lookup, getattr ...... resolve ── validity ─┐
    opendir, readdir ..... listing ── readahead ├── flights ──► realms (calls that outlive their callers)
    open, read ........... files ──── fetch ────┘
    write, mkdir ......... files, operation ──► cache (directory, contents and log in one transaction)
                                                   │
    callbacks, servers ──► Listener                └──► reintegrate ──► realms

Every public call ends within `patience`, with what it was asked for or a CodaError; one that raised has not
been applied, since operations contain no checkpoint from their first change on. What was asked of the
servers goes on and serves the next call. Only a read whose data advances may take longer.
"""

import functools
import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import trio

from realmfs.cache.cache import Cache
from realmfs.realms.realms import Realms
from realmfs.realms.server import Server
from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.transfer import Source
from realmfs.venus.access import Access
from realmfs.venus.acls import AccessLists
from realmfs.venus.attributes import attr_of, name_timeout, no_such_name
from realmfs.venus.changing import SetMode, SetOwner, SetTime, StoreContents
from realmfs.venus.commit import Committer
from realmfs.venus.copies import Copies
from realmfs.venus.core import Core
from realmfs.venus.discard import Discarder
from realmfs.venus.events import (
    BackFetch,
    CallbackBroken,
    EventStream,
    ServerChanged,
    ServerMoved,
    VolumeChanged,
)
from realmfs.venus.face import Attr, Caller, Changes, Entry, KernelNotifier, Opened, Space
from realmfs.venus.fetch import Fetcher
from realmfs.venus.fids import Fids
from realmfs.venus.files import Files
from realmfs.venus.hoard import Hoard
from realmfs.venus.listing import AT_ONCE, Listings
from realmfs.venus.logins import Logins
from realmfs.venus.making import CreateFile, MakeDirectory, MakeLink, MakeObject, MakeSymlink
from realmfs.venus.names import conflict_text
from realmfs.venus.node import Node
from realmfs.venus.operation import Tools
from realmfs.venus.programs import QuietPrograms
from realmfs.venus.readahead import ReadAhead
from realmfs.venus.reintegrate import Reintegrator
from realmfs.venus.removing import RemoveName, RenameName
from realmfs.venus.repairs import Repairer
from realmfs.venus.resolve import Resolver
from realmfs.venus.settings import VenusSettings
from realmfs.venus.settle import Settler
from realmfs.venus.states import States, state_of
from realmfs.venus.validity import Validator
from realmfs.venus.versions import Versions
from realmfs.venus.volume import VolumeState
from realmfs.venus.xattrs import ExtendedAttributes
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Fid, ObjectType, Rights

log = logging.getLogger(__name__)

TRIM = 30.0  # seconds between returns to the margins of the cache (client.md §6)
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
READ, WRITE, EXECUTE = 4, 2, 1

P = ParamSpec("P")
T = TypeVar("T")


def bounded(
    call: Callable[Concatenate["Venus", P], Awaitable[T]],
) -> Callable[Concatenate["Venus", P], Coroutine[Any, Any, T]]:
    """End a public call within the patience, and let only CodaError out of it."""

    @functools.wraps(call)
    async def within(self: "Venus", /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            # A bare scope: `fail_after` around it would cost a call a tenth of its time.
            with trio.CancelScope(deadline=trio.current_time() + self.settings.patience):
                return await call(self, *args, **kwargs)
            raise CodaError(Code.ETIMEDOUT, call.__name__)
        except (BadPacket, OSError) as error:
            raise _for_callers(error) from error

    return within


def _for_callers(error: BadPacket | OSError) -> CodaError:
    return CodaError.from_oserror(error) if isinstance(error, OSError) else CodaError(Code.EIO, str(error))


class Venus:
    """Implements `FileSystem` (face.py) and `realms.Listener`.

    Make it, `attach` it to realms and perhaps to a kernel, and `run` it. It serves what is cached without
    realms.
    """

    def __init__(self, cache: Cache, settings: VenusSettings) -> None:
        self.cache = cache
        self.settings = settings
        self.core = core = Core(cache, settings)
        self.rights = Access(core)
        self.validator = Validator(core, self.rights)
        self.fetcher = Fetcher(core, self.validator)
        self.versions = Versions(core, self.validator, self.fetcher)
        self.resolver = Resolver(core, self.validator, self.fetcher, self.rights, self.versions)
        self.fids = Fids(core)
        self.tools = Tools(core, self.validator, self.fetcher, self.resolver, self.rights, self.fids)
        self.files = Files(core, self.validator, self.fetcher, self.rights, self._store)
        self.listings = Listings(core, self.fetcher, self.rights, self.versions)
        self.readahead = ReadAhead(core, self.validator, self.fetcher)
        self.reintegrator = Reintegrator(core, self.fids, Committer(core, self.validator))
        self.discarder = Discarder(core, self.fetcher)
        copies = Copies(self.tools, self.files)
        self.settler = Settler(self.tools, self.discarder, copies)
        self.repairer = Repairer(self.tools, self.versions, copies)
        self.states = States(core.events)
        self.logins = Logins(core, self.reintegrator)
        self.acls = AccessLists(core, self.validator)
        self.hoard = Hoard(core, self.validator, self.fetcher, self.resolver, self.rights)
        self.validator.stamps = self.hoard.stamps
        self.xattrs = ExtendedAttributes(core, self.rights, self.acls, self.hoard)
        self.programs = QuietPrograms(settings.quiet_programs)
        self._unmet: Counter[int] = Counter()  # lookups by the kernel of inodes that were not in memory
        core.logged = self.reintegrator.logged
        core.unblocked = self.reintegrator.wake
        core.conflicts.load()

    @property
    def events(self) -> EventStream:
        """What happens here."""
        return self.core.events

    def attach(self, realms: Realms) -> None:
        """Use these servers from now on."""
        self.core.volumes.attach(realms)
        self.logins.attach(realms)

    def attach_kernel(self, kernel: KernelNotifier) -> None:
        """Tell this kernel what it must forget."""
        self.core.kernel = kernel

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry detached work, send the log, bring changes to the disk, keep the cache within its margins."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.core.flights.run)
            await nursery.start(self.cache.run)
            await nursery.start(self.reintegrator.run)
            nursery.start_soon(self._trim)
            nursery.start_soon(self.hoard.run)
            nursery.start_soon(self.logins.run)
            task_status.started()

    async def _trim(self) -> None:
        while True:
            await trio.sleep(TRIM)
            if self.cache.damage is None:
                try:
                    await self.core.trim()
                except OSError as error:  # a full disk; the next round tries again
                    log.error("cannot bring the cache back within its margins: %s", error)

    def commit_open_files(self) -> None:
        """Log what is written in open files, before an orderly stop."""
        self.files.commit_all()

    # -- realms.Listener: called in the middle of things, never waits ----------------------------------

    def callback_broken(self, server: Server, fid: Fid) -> None:
        """Another client changed an object: our promise for it is void."""
        self.events.publish(CallbackBroken(str(server), str(fid)))
        for volume in self.core.volumes.of_server(server):
            if not volume.has_id(fid.volume):
                continue
            self.hoard.stamps.broken(volume)
            node = volume.nodes.get(fid[1:])
            if node is not None:
                self.hoard.signal(node.ino)
                node.breaks += 1
                node.doubted |= node.rights.keys()  # its access list may be another now
                if not node.valid:
                    self.core.kernel_forget(node)

    def server_up(self, server: Server) -> None:
        """The server may have missed or forgotten anything: every object it has a part in is suspect."""
        self.events.publish(ServerChanged(str(server), up=True, protection=server.protection))
        for volume in self.core.volumes.of_server(server):
            volume.lost += 1
            for node in volume.in_memory():
                if not node.valid:
                    self.core.kernel_forget(node)
            self.reintegrator.wake(volume)
            self._look(volume)
        self.hoard.server_up()

    def server_down(self, server: Server) -> None:
        """What the others promised stands; without others, what is cached is all there is."""
        self.events.publish(ServerChanged(str(server), up=False, reason=server.reason))
        for volume in self.core.volumes.of_server(server):
            self.reintegrator.wake(volume)
            self._look(volume)

    def server_moved(self, server: Server, address: tuple[str, int]) -> None:
        """Tell people: what is promised and cached is looked after when its volumes are found there."""
        self.events.publish(ServerMoved(str(server), f"{address[0]}:{address[1]}"))

    def volume_states(self) -> list[VolumeChanged]:
        """Return the state of each volume as the event that told it."""
        volumes = [volume for volume in self.core.volumes if volume.key]
        return [state_of(volume, self.cache.log.summary(volume.key).records) for volume in volumes]

    def callbacks_held(self, server: Server) -> int:
        """Return for how many objects and volumes in memory the server has promised to call back."""
        if not server.promised:
            return 0
        return sum(
            sum(node.promise == node.sample() for node in volume.in_memory()) + self.hoard.stamps.hold(volume)
            for volume in self.core.volumes.of_server(server)
        )

    def resolution(self, server: Server, volume_id: int) -> None:
        """Servers have begun to make the replicas of a volume equal, or ended."""
        for volume in self.core.volumes.of_server(server):
            if volume.has_id(volume_id):
                self._look(volume)

    def _look(self, volume: VolumeState) -> None:
        self.states.look(volume, self.cache.log.summary(volume.key).records)

    def back_fetch(self, server: Server, fid: Fid) -> Source:
        """Return the frozen contents of a store that is being sent."""
        for volume in self.core.volumes.of_server(server):
            if volume.has_id(fid.volume):
                source = self.reintegrator.source(volume, Fid(volume.id, fid.vnode, fid.unique))
                self.events.publish(BackFetch(str(server), str(fid), source.size))
                return source
        raise CodaError(Code.ENOENT, str(fid))

    # -- names and attributes --------------------------------------------------------------------------

    @bounded
    async def lookup(self, caller: Caller, parent: int, name: bytes) -> Attr:
        """Return what a name means; `ino` 0 if there is no such name."""
        above = self.core.nodes.by_number(parent)
        self.readahead.looked_up(above, name, caller)
        node = await self.resolver.child(caller, above, name)
        if above.valid:
            above.kernel_names.add(name)
        if node is None:
            return no_such_name(above, self.settings)
        attr = attr_of(node, self.settings, name_timeout(above, self.settings))
        node.lookups += 1
        return attr

    def remember(self, ino: int) -> None:
        """Count one more lookup of an inode by the kernel.

        Directory entries of which nothing is known are given back at once: they are counted without a node,
        lest a long listing drives all other nodes out of memory.
        """
        node = self.core.nodes.in_memory(ino)
        if node is None:
            self._unmet[ino] += 1
        else:
            node.lookups += 1

    def forget(self, ino: int, count: int) -> None:
        """Take lookups back."""
        unmet = self._unmet.pop(ino, 0)
        if unmet > count:
            self._unmet[ino] = unmet - count
        node = self.core.nodes.in_memory(ino)
        if node is not None:
            node.lookups = max(0, node.lookups - max(0, count - unmet))

    @bounded
    async def getattr(self, caller: Caller, ino: int) -> Attr:
        """Return an object's attributes."""
        node = await self._known(caller, ino)
        return attr_of(node, self.settings)

    async def _known(self, caller: Caller, ino: int) -> Node:
        """Return the node of an inode number, with usable status or shown as a conflict."""
        node = self.core.nodes.by_number(ino)
        if caller.kernel and not node.lookups:
            node.lookups = 1  # it knows the number: what it looked up was counted before the node left memory
        if not node.gone:
            try:
                await self.validator.status(node, caller.uid)
            except CodaError as error:
                if error.code is not Code.EINCONS:
                    raise
        return node

    @bounded
    async def setattr(self, caller: Caller, ino: int, changes: Changes, handle: int | None = None) -> Attr:
        """Change attributes: one record each, in the order length, time, owner, mode."""
        node = await self._known(caller, ino)
        if node.type is ObjectType.SYMLINK and (changes.size is not None or changes.mode is not None):
            raise CodaError(Code.EOPNOTSUPP if changes.size is None else Code.EINVAL, node.label)
        if changes.size is not None:
            await self._truncate(caller, node, changes.size, handle)
        if changes.mtime_ns is not None:
            self.files.commit(node, caller)  # else the store at close would bring its own time
            await SetTime(self.tools, caller, node, changes.mtime_ns // 10**9).run()
        owner = node.status.owner if node.status is not None else None
        if changes.uid is not None and changes.uid != owner:
            await SetOwner(self.tools, caller, node, changes.uid).run()
        if changes.mode is not None:
            await SetMode(self.tools, caller, node, changes.mode).run()
        return attr_of(node, self.settings)

    async def _truncate(self, caller: Caller, node: Node, size: int, handle: int | None) -> None:
        if node.is_directory:
            raise CodaError(Code.EISDIR, node.label)
        if handle is None:
            self.rights.require_writable(node)
            if not self.rights.may_write(node, caller):
                raise CodaError(Code.EACCES, node.label)
        file = self.files.enter(node, caller, writer=False)
        try:
            await self.files.truncate(node, caller, size, at_once=handle is None)
        finally:
            self.files.leave(file)

    @bounded
    async def access(self, caller: Caller, ino: int, mask: int) -> bool:
        """Tell what access(2) asks: 4 read, 2 write, 1 execute or search."""
        node = await self._known(caller, ino)
        if node.conflict:
            return not mask & (WRITE | EXECUTE)
        return (
            (not mask & READ or self.rights.may_read(node, caller))
            and (not mask & WRITE or self.rights.may_write(node, caller))
            and (not mask & EXECUTE or self.rights.may_execute(node, caller))
        )

    @bounded
    async def readlink(self, caller: Caller, ino: int) -> bytes:
        """Return the text of a symbolic link, or that of the dangling link which shows a conflict."""
        node = await self._known(caller, ino)
        if node.conflict:
            return conflict_text(node.fid, node.volume.realm)
        if node.type is not ObjectType.SYMLINK:
            raise CodaError(Code.EINVAL, node.label)
        text = await self.fetcher.link(node, caller.uid)
        self.rights.require(node, caller, Rights.READ)
        return text

    # -- directories -----------------------------------------------------------------------------------

    @bounded
    async def opendir(self, caller: Caller, ino: int) -> Opened:
        """Open a directory."""
        node = self.core.nodes.by_number(ino)
        if self.fetcher.present(node) is None and node is not self.core.top:
            self.programs.check(caller)
        opened = await self.listings.open(caller, node)
        self.hoard.learner.opened(caller, node)
        self.readahead.opened(node, caller)
        return opened

    async def readdir(self, handle: int, position: int, limit: int = AT_ONCE) -> Sequence[Entry]:
        """Return the next entries; waits for no status."""
        if position == 0 and not self.listings.directory(handle).entries:
            await self._list_again(handle)
        try:
            entries = self.listings.read(handle, position, limit)
        except (BadPacket, OSError) as error:
            raise _for_callers(error) from error
        if len(entries) < limit:
            self.readahead.listed(self.listings.directory(handle).node)
        return entries

    @bounded
    async def _list_again(self, handle: int) -> None:
        await self.listings.fill(handle)

    async def releasedir(self, handle: int) -> None:
        """Close a directory."""
        self.listings.close(handle)

    @bounded
    async def fsyncdir(self, handle: int) -> None:
        """Wait until all changes so far are on the disk."""
        await self.cache.sync()

    # -- files -----------------------------------------------------------------------------------------

    @bounded
    async def open(self, caller: Caller, ino: int, flags: int) -> Opened:
        """Open a file."""
        node = self.core.nodes.by_number(ino)
        if node.container is None and node.content is None:
            self.programs.check(caller)
        opened = await self.files.open(caller, node, flags)
        self.hoard.learner.opened(caller, node)
        self.readahead.opened(node, caller)
        return opened

    @bounded
    async def create(
        self, caller: Caller, parent: int, name: bytes, mode: int, flags: int
    ) -> tuple[Opened, Attr]:
        """Make a file and open it."""
        above = self.core.nodes.by_number(parent)
        operation = CreateFile(self.tools, caller, above, name, mode)
        try:
            node = await self._make(operation)
        except CodaError as error:
            if error.code is not Code.EEXIST or flags & os.O_EXCL:
                raise
            return await self._open_existing(caller, above, name, flags)
        file = self.files.enter(node, caller, writer=True)
        self.fetcher.at_hand(node)
        return self.files.opened(file), self._entered(node, above, name)

    async def _open_existing(
        self, caller: Caller, above: Node, name: bytes, flags: int
    ) -> tuple[Opened, Attr]:
        """Open what another client has made since the kernel last looked, and what need not be new."""
        node = await self.resolver.child(caller, above, name)
        if node is None:
            raise CodaError(Code.ENOENT, repr(name))
        opened = await self.files.open(caller, node, flags)
        return opened, self._entered(node, above, name)

    async def _make(self, operation: MakeObject) -> Node:
        await operation.run()
        assert operation.node is not None
        await self.reintegrator.push(operation.volume)
        return operation.node

    def _entered(self, node: Node, parent: Node, name: bytes) -> Attr:
        node.lookups += 1
        parent.kernel_names.add(name)
        return attr_of(node, self.settings, name_timeout(parent, self.settings))

    async def read(self, handle: int, offset: int, size: int) -> bytes:
        """Read; goes on longer than the patience only while data comes."""
        try:
            return await self.files.read(handle, offset, size)
        except OSError as error:
            raise CodaError.from_oserror(error) from error

    async def write(self, handle: int, offset: int, data: bytes) -> int:
        """Write into the local copy; goes on longer than the patience only while the rest of it comes."""
        patience = self.settings.patience

        def advances() -> None:
            scope.deadline = trio.current_time() + patience

        try:
            with trio.CancelScope(deadline=trio.current_time() + patience) as scope:
                return await self.files.write(handle, offset, data, advances)
        except OSError as error:
            raise CodaError.from_oserror(error) from error
        raise CodaError(Code.ETIMEDOUT, "write")

    @bounded
    async def flush(self, handle: int) -> None:
        """Log what was written: the promise of close(2)."""
        if self.files.unlogged(handle):
            await self.core.room(records=1)
        self.files.flush(handle)
        await self.reintegrator.push(self.files.file(handle).node.volume)

    @bounded
    async def fsync(self, handle: int, data_only: bool) -> None:
        """Log what was written and wait until it is on the disk."""
        await self.core.room(records=1)
        await self.files.fsync(handle)

    async def release(self, handle: int) -> None:
        """Close a handle; what was written after the last flush is logged. The handle is gone in any case."""
        try:
            try:
                if self.files.unlogged(handle):
                    await self.core.room(records=1)
            finally:
                self.files.release(handle)
        except OSError as error:
            raise CodaError.from_oserror(error) from error

    def _store(self, node: Node, caller: Caller) -> None:
        StoreContents(self.tools, caller, node).do()

    # -- changes ---------------------------------------------------------------------------------------

    @bounded
    async def mkdir(self, caller: Caller, parent: int, name: bytes, mode: int) -> Attr:
        """Make a directory."""
        above = self.core.nodes.by_number(parent)
        node = await self._make(MakeDirectory(self.tools, caller, above, name, mode))
        return self._entered(node, above, name)

    @bounded
    async def symlink(self, caller: Caller, parent: int, name: bytes, target: bytes) -> Attr:
        """Make a symbolic link."""
        above = self.core.nodes.by_number(parent)
        node = await self._make(MakeSymlink(self.tools, caller, above, name, target))
        return self._entered(node, above, name)

    @bounded
    async def link(self, caller: Caller, ino: int, parent: int, name: bytes) -> Attr:
        """Give a file another name in the same directory."""
        node, above = self.core.nodes.by_number(ino), self.core.nodes.by_number(parent)
        await MakeLink(self.tools, caller, node, above, name).run()
        await self.reintegrator.push(above.volume)
        return self._entered(node, above, name)

    @bounded
    async def unlink(self, caller: Caller, parent: int, name: bytes) -> None:
        """Remove a name of a file or symbolic link."""
        above = self.core.nodes.by_number(parent)
        await RemoveName(self.tools, caller, above, name, directory=False).run()
        await self.reintegrator.push(above.volume)

    @bounded
    async def rmdir(self, caller: Caller, parent: int, name: bytes) -> None:
        """Remove an empty directory."""
        above = self.core.nodes.by_number(parent)
        await RemoveName(self.tools, caller, above, name, directory=True).run()
        await self.reintegrator.push(above.volume)

    @bounded
    async def rename(
        self, caller: Caller, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> None:
        """Move a name within a volume."""
        if flags & ~RENAME_NOREPLACE:
            raise CodaError(Code.EINVAL, "names cannot be exchanged")
        old, new = self.core.nodes.by_number(parent), self.core.nodes.by_number(new_parent)
        no_replace = bool(flags & RENAME_NOREPLACE)
        await RenameName(self.tools, caller, (old, name), (new, new_name), no_replace=no_replace).run()
        await self.reintegrator.push(old.volume)

    # -- the rest --------------------------------------------------------------------------------------

    async def statfs(self, caller: Caller) -> Space:
        """Return the size of the cache, and how much could be written: clean copies make room for it."""
        limits = self.cache.limits
        return Space(
            limits.bytes,
            self.cache.free(),
            limits.objects,
            max(limits.objects - self.cache.objects.count, 0),
        )

    @bounded
    async def getxattr(self, caller: Caller, ino: int, name: bytes) -> bytes:
        """Return an extended attribute; see xattrs.py."""
        return await self.xattrs.get(caller, self.core.nodes.by_number(ino), name)

    @bounded
    async def setxattr(self, caller: Caller, ino: int, name: bytes, value: bytes) -> None:
        """Set one of the few extended attributes that can be set; see xattrs.py."""
        await self.xattrs.set(caller, self.core.nodes.by_number(ino), name, value)

    async def removexattr(self, caller: Caller, ino: int, name: bytes) -> None:
        """Refuse: nothing can be removed."""
        raise CodaError(Code.EOPNOTSUPP, name.decode("utf-8", "replace"))

    async def listxattr(self, caller: Caller, ino: int) -> Sequence[bytes]:
        """Return nothing: copies by tools would try to set what they find."""
        return ()
