"""Operations: every change is one object, the same with and without servers (design, "mutating calls").

    prepare   bring here what the decision rests on; may wait                     ─┐ repeated until
    ready     is it all still here? (a break may have come while we waited)       ─┘ it is
    check     may it be done? raises CodaError and has changed nothing            ─┐
    apply     edit the cached directory and objects, log the record               │ no checkpoint:
              — one transaction of the cache; rolled back, memory follows          │ nobody sees it half done
    announce  tell the kernel, if the change did not come from there, and wake    │
              the sender                                                          ─┘

So an operation that got an errno has not been applied, and one that returned is in the log. Nothing is
locked while `prepare` waits, hence nothing can deadlock.

Waiting records that the new one makes pointless go in the same transaction (optimise.py).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from time import time

from realmfs.cache.containers import Container
from realmfs.cache.log import Role, State
from realmfs.rpc2.marshal import Packer
from realmfs.venus.access import Access
from realmfs.venus.core import Core
from realmfs.venus.face import Caller
from realmfs.venus.fetch import Fetcher
from realmfs.venus.fids import Fids
from realmfs.venus.node import Node
from realmfs.venus.optimise import Past, plan
from realmfs.venus.resolve import Resolver
from realmfs.venus.rounds import Rounds
from realmfs.venus.validity import Validator
from realmfs.venus.volume import VolumeState
from realmfs.vice import detours
from realmfs.vice.directory import Directory
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.log import AnyRecord, Remove, RemoveDir
from realmfs.vice.types import StoreId

UNSENT = StoreId(0, 0)  # a record gets its store id when it is frozen for sending


class Tools:
    """What operations work with."""

    def __init__(
        self,
        core: Core,
        validator: Validator,
        fetcher: Fetcher,
        resolver: Resolver,
        access: Access,
        fids: Fids,
    ) -> None:
        self.core = core
        self.validator = validator
        self.fetcher = fetcher
        self.resolver = resolver
        self.access = access
        self.fids = fids


class Operation(ABC):
    """One change by one caller in one volume. Subclasses name the steps at the head of the file."""

    new_objects = 0
    new_records = 1

    def __init__(self, tools: Tools, caller: Caller, volume: VolumeState) -> None:
        self.tools = tools
        self.core = tools.core
        self.caller = caller
        self.volume = volume
        self.now = int(time())

    async def run(self) -> None:
        """Do it. Raises CodaError or OSError (ENOSPC), and then nothing has been changed."""
        core = self.core
        rounds = Rounds(core.settings.patience)
        while await rounds.another():
            await core.authors.turn(self.volume, self.caller)
            await self.prepare()
            await core.room(objects=self.new_objects, records=self.new_records)
            if self.ready() and core.authors.is_turn(self.volume, self.caller):
                break
        else:
            raise CodaError(Code.EWOULDBLOCK, "what it rests on changes all the time")
        self.do()

    def do(self) -> None:
        """Check, apply and announce; the caller has prepared. No checkpoint."""
        self.check()
        with self.core.cache.transaction():
            self.apply()
        self.announce()
        self.core.logged(self.volume)

    @abstractmethod
    async def prepare(self) -> None:
        """Bring here what the decision rests on."""

    @abstractmethod
    def ready(self) -> bool:
        """Tell whether everything is still here."""

    @abstractmethod
    def check(self) -> None:
        """Raise CodaError if it may not be done."""

    @abstractmethod
    def apply(self) -> None:
        """Make the change. Inside a transaction."""

    def announce(self) -> None:
        """Tell the kernel about a change that did not come from there."""
        return

    # -- the log; inside a transaction -----------------------------------------------------------------

    def log(
        self,
        record: AnyRecord,
        *,
        objects: Sequence[Node],
        parents: Sequence[Node] = (),
        contents: Container | None = None,
        last_name: bool = True,
    ) -> None:
        """Cancel what the record makes pointless, and log it unless that leaves nothing to do."""
        target = objects[0]
        author = self.caller.uid, self.core.authors.identity(self.volume, self.caller)
        waiting = {entry.sequence: (entry, role) for entry, role in self.core.cache.log.about(target.ino)}
        past = [
            Past(
                number,
                entry.opcode,
                bool(role & Role.OBJECT),
                frozen=entry.frozen,
                blocked=bool(entry.state & State.BLOCKED) or (entry.uid, entry.identity) != author,
            )
            for number, (entry, role) in sorted(waiting.items())
        ]
        todo = plan(record.OPCODE, past, last_name=last_name)
        removal = isinstance(record, Remove | RemoveDir)
        steps = (record,) if self.core.settings.own_servers else detours.steps(record)
        if todo.log and removal:  # first: an object that nothing is about would go
            self._append(steps, author, objects, parents, contents)
        for sequence in todo.cancel:
            self._cleaned(self.core.cache.log.cancel(waiting[sequence][0]))
        if todo.log and not removal:
            self._append(steps, author, objects, parents, contents)

    def _append(
        self,
        records: Sequence[AnyRecord],
        author: tuple[int, str],
        objects: Sequence[Node],
        parents: Sequence[Node],
        contents: Container | None,
    ) -> None:
        core = self.core
        uid, identity = author
        for record in records:
            packer = Packer()
            record.pack_into(packer)
            core.cache.log.append(
                self.volume.key,
                packer.done(),
                uid=uid,
                identity=identity,
                time=self.now,
                objects=[node.ino for node in objects],
                parents=[node.ino for node in parents],
                contents=contents,
            )
        for node in (*objects, *parents):
            if not node.dirty:
                node.dirty = True
                core.cache.on_rollback(node.mark_clean)

    def _cleaned(self, numbers: Sequence[int]) -> None:
        self.core.nodes.cleaned(numbers)

    # -- common parts ----------------------------------------------------------------------------------

    async def open_directory(self, node: Node) -> None:
        """Bring a directory's contents here."""
        if not node.is_directory or node.conflict:
            raise CodaError(Code.ENOTDIR, node.label)
        if node.shows is not None:
            raise CodaError(Code.EROFS, f"{node.label} shows a conflict")
        if node is not self.core.top:
            await self.tools.fetcher.directory(node, self.caller.uid)

    def directory(self, node: Node) -> Directory:
        """Return the contents of a directory that `open_directory` brought and `ready` saw."""
        directory = self.tools.fetcher.present(node)
        if directory is None:
            raise CodaError(Code.EWOULDBLOCK, node.label)
        return directory

    def editing(self, node: Node) -> Directory:
        """Return the contents of a directory to edit; if the transaction fails the edit is forgotten."""
        self.core.cache.on_rollback(node.forget_directory)
        return self.directory(node)

    def is_here(self, node: Node) -> bool:
        """Tell whether a directory's contents are here."""
        return node is self.core.top or self.tools.fetcher.present(node) is not None

    def check_directory(self, node: Node) -> None:
        """Refuse to change directories that cannot be changed. Raises CodaError: ENOENT, EROFS."""
        if node.gone:
            raise CodaError(Code.ENOENT, node.label)
        self.tools.access.require_writable(node)

    def edited(self, node: Node, links: int = 0) -> None:
        """Write an edited directory back, with its new length and time."""
        directory = self.directory(node)
        status = node.status
        assert status is not None
        self.core.nodes.change_status(
            node, length=directory.length, date=self.now, links=status.links + links
        )
        self.core.nodes.save_directory(node, directory)

    def tell_name(self, parent: Node, name: bytes) -> None:
        """Tell the kernel that a name changed, unless it knows."""
        if not self.caller.kernel:
            self.core.kernel_forget_name(parent.ino, name)
            if self.core.kernel is not None and parent.lookups:
                self.core.kernel.invalidate_inode(parent.ino, attr_only=True)
