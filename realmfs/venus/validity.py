"""Making status usable: ask the servers what node.py says must be asked, and take in what they answer.

Three ways to ask, from the cheapest on:

* ValidateAttrs, when we have a status: one call tells for up to fifty objects whether our version is
  theirs. So the node that somebody waits for takes along its suspect siblings: first those that the cache
  has in the same directory, for whoever looks at one will look at the next.
* GetAttr, when we have none, or ours is stale, or when the rights in a directory are wanted of a user
  who has not been here, has logged in or out, or may have been given others.
* Fetch brings status along with data (fetch.py).

An answer is taken in only if nothing was changed here since the question (`edition`) and nothing waits in
the log. Contents are thrown away only when the servers have *another* version, and never from under somebody
who has them open: then the name gets a new node, and the old one lives on for its users (design, row
"inodes").
"""

import functools
import logging
from collections.abc import Hashable, Sequence

import trio

from realmfs.cache.objects import MAX_RIGHTS
from realmfs.realms.types import ANYUSER, Attributes
from realmfs.venus.access import Access
from realmfs.venus.core import Core
from realmfs.venus.lookaside import trusted_sha
from realmfs.venus.node import Node, Promise
from realmfs.venus.stamps import VolumeStamps
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Fid, ObjectType, Order, Status, VersionVector

log = logging.getLogger(__name__)

_GONE = frozenset({Code.ENOENT, Code.VNOVNODE})
DOUBT = 0.4
SWEEP_PATIENCE = 2.0  # s that an object is left to a sweep
ROUNDS = (
    3  # how often one request asks again because a callback raced the answer; then the answer is fresh enough
)


class Validator:
    """Asks for status on behalf of whoever needs it."""

    def __init__(self, core: Core, access: Access) -> None:
        self._core = core
        self._access = access
        self.stamps: VolumeStamps | None = None
        """What may spare asking about objects one by one."""
        self._in_batch: dict[int, Hashable] = {}  # inode number: the flight that asks for it among others

    async def status(self, node: Node, uid: int) -> None:
        """Return when `node.status` may be used for user `uid`.

        Raises CodaError: ENOENT if the object is gone, EINCONS for a conflict, ETIMEDOUT if nothing is cached
        and no server answers. With something cached and no answer in good time, what is cached is used
        (promise 4 of the design).
        """
        judge = self._judge(node)
        if judge is not node and not self._is_usable(judge, uid):
            try:
                await self._bring(judge, uid)
            except CodaError as error:  # what is known of it counts, or the object's own rights do
                log.debug("%s: %s", judge, error)
        await self._bring(node, uid)

    def _judge(self, node: Node) -> Node:
        """Return whose rights count for a node: of a file, those of the directory that it is in."""
        if node.is_directory or not node.parent:
            return node
        try:
            return self._core.nodes.by_number(node.parent)
        except CodaError:  # nothing is known of it any more
            return node

    def _is_usable(self, node: Node, uid: int) -> bool:
        if node.gone:
            return True
        return node.valid and (self._knows(node, uid) or node.volume.away or node.ours)

    def _knows(self, node: Node, uid: int) -> bool:
        """Tell whether the user's rights need not be asked for with the status."""
        return self._access.judge(node) is not node or self._access.knows(node, uid)

    async def _bring(self, node: Node, uid: int) -> None:
        self._core.nodes.touch(node)
        began = trio.current_time()
        for _ in range(ROUNDS):
            if self._is_usable(node, uid) or (node.current_since(began) and self._knows(node, uid)):
                return
            if node.status is None:
                await self._round(node, uid)
                continue
            try:
                with trio.move_on_after(self._time_for_doubt()) as doubt:
                    await self._round(node, uid)
            except CodaError as error:
                if error.code in (Code.ETIMEDOUT, Code.EWOULDBLOCK):
                    return
                raise
            if doubt.cancelled_caught:
                return  # the question goes on, and its answer serves the next request
        if node.status is None:
            raise CodaError(Code.EWOULDBLOCK, f"{node.label} changes all the time")

    def _time_for_doubt(self) -> float:
        """Return how long to wait for news of what is cached: a part of the caller's time."""
        left = trio.current_effective_deadline() - trio.current_time()
        return float(DOUBT * min(max(left, 0.0), self._core.settings.patience))

    async def _round(self, node: Node, uid: int) -> None:
        """Ask once, or wait for others who ask."""
        if await self._comes_by_itself(node):
            return
        await self._core.enter(node.volume)
        if self.stamps is not None and self._knows(node, uid) and await self.stamps.covers(node, uid):
            return
        await self._core.flights.join(("status", node.ino, uid), lambda: self._ask(node, uid))

    async def _comes_by_itself(self, node: Node) -> bool:
        """Wait for a fetch or a batch that is under way and tells of the node, too; tell whether it did."""
        flights = self._core.flights
        if await self.swept(node) and node.valid:
            return True
        if node.status is None:
            await flights.wait(("data", node.ino))
            return node.status is not None
        if node.ino in self._in_batch:
            await flights.wait(self._in_batch[node.ino])
            return node.valid
        return False

    async def swept(self, node: Node) -> bool:
        """Wait for a sweep that is to bring the node, if there is one, but not for long; tell whether."""
        key = ("sweep", node.ino)
        if not self._core.flights.flying(key):
            return False
        with trio.move_on_after(SWEEP_PATIENCE):
            await self._core.flights.wait(key)
        return True

    async def _ask(self, node: Node, uid: int) -> None:
        if node.status is None or node.stale or not self._knows(node, uid):
            await self.get_attr(node, uid)
            return
        if await self._comes_by_itself(node):
            return
        batch = self._batch(node)
        self._in_batch.update(dict.fromkeys((member.ino for member in batch), ("status", node.ino, uid)))
        try:
            stale = await self._validate(batch, uid)
        finally:
            for member in batch:
                self._in_batch.pop(member.ino, None)
        if node in stale:
            await self.get_attr(node, uid)

    def _batch(self, node: Node) -> list[Node]:
        """Return the node with others of its volume that are suspect, in the order of their fids."""
        limit = self._core.settings.validate_batch
        batch = [node]
        for other in self._core.siblings(node, 4 * limit):
            if len(batch) == limit:
                break
            if other is not node and self._is_suspect(other):
                batch.append(other)
        return sorted(batch, key=lambda member: member.fid)

    def _is_suspect(self, node: Node) -> bool:
        return (
            node.status is not None and not node.valid and not node.stale and node.ino not in self._in_batch
        )

    async def look_ahead(self, nodes: Sequence[Node], uid: int) -> None:
        """Ask for suspect nodes of one volume that will be wanted soon, under the key ("suspect", number)."""
        await self._core.enter(nodes[0].volume)
        batch = sorted((node for node in nodes if self._is_suspect(node)), key=lambda member: member.fid)
        if not batch:
            return
        self._in_batch.update({node.ino: ("suspect", node.ino) for node in batch})
        try:
            await self._validate(batch, uid)
        finally:
            for node in batch:
                self._in_batch.pop(node.ino, None)

    async def renew(self, nodes: Sequence[Node], uid: int) -> None:
        """Get promises for nodes of one volume whose versions we believe to be the servers'."""
        batch = [node for node in nodes if node.status is not None and not node.valid and not node.gone]
        if batch:
            await self._validate(sorted(batch, key=lambda node: node.fid), uid)

    async def _validate(self, batch: Sequence[Node], uid: int) -> list[Node]:
        """Ask which versions are still the servers'; return the nodes whose are not."""
        group = self._core.group(batch[0].volume)
        asked = [(node, node.sample(), node.edition, node.status) for node in batch]
        question = [(node.fid, status.vv) for node, _, _, status in asked if status is not None]
        with self._core.call("ValidateAttrsPlusSHA", f"{batch[0].label}({batch[0].fid}) [{len(batch)}]"):
            answers = await group.validate(question, uid)
        stale = []
        for node, sample, edition, _ in asked:
            if node.edition != edition:
                continue
            if answers.get(node.fid, False):
                node.promise = sample
            else:
                node.stale = True
                stale.append(node)
        return stale

    async def get_attr(self, node: Node, uid: int) -> None:
        """Ask for the status of one object and take it in."""
        group = self._core.group(node.volume)
        sample, edition = node.sample(), node.edition
        try:
            with self._core.call("GetAttr", node.label):
                answer = await group.get_attr(node.fid, uid)
        except CodaError as error:
            if error.code in _GONE and await self._is_missed(node, uid):
                raise CodaError(Code.ETIMEDOUT, f"{node.label}: who has it is not there") from error
            self.failed(node, error)
            raise
        self.absorb(node, uid, answer, sample, edition)

    async def _is_missed(self, node: Node, uid: int) -> bool:
        """Tell whether servers do not know a cached object because they are behind: so is its directory.

        Nobody asks for that one while a change of ours waits in it, or if it was asked for just before others
        were cut off.
        """
        parent = self._core.nodes.in_memory(node.parent)
        if node.status is None or parent is None or parent.status is None or parent.newer:
            return node.status is not None and parent is not None and parent.newer
        known = parent.status.vv
        try:
            theirs = (await self._core.group(node.volume).get_attr(parent.fid, uid)).status.vv
        except CodaError as error:
            return error.code in (Code.ETIMEDOUT, Code.EWOULDBLOCK)
        return theirs.compare(known, ignore_inconsistent=True) is Order.SUBMITS

    def failed(self, node: Node, error: CodaError) -> None:
        """Take in that the servers refuse to tell about an object."""
        if error.code in _GONE and not node.ours:
            self._core.vanish(node)
        elif error.code is Code.EINCONS and not node.conflict:
            self._core.in_conflict(node)

    def absorb(
        self,
        node: Node,
        uid: int,
        answer: Attributes,
        sample: Promise,
        edition: int,
        *,
        filling: bool = False,
    ) -> bool:
        """Take in what the servers say of an object; tell whether it counts (see the head of the file).

        `filling`: its data came along, or comes into `node.content`, where what was of another version has
        been forgotten: that container stays the object's.
        """
        if node.edition != edition or node.ours or node.gone:
            return False
        new, old = answer.status, node.status
        if (new.type is ObjectType.DIRECTORY) != node.is_directory:
            raise CodaError(Code.EIO, f"{node.fid} is said to be a {new.type.name}")
        if old is not None and not node.same_version(new.vv):
            if new.vv.compare(old.vv, ignore_inconsistent=True) is Order.SUBMITS:
                self._older(node, new.vv)
                self._promise(node, answer, sample)
                return True
            node.edition += 1
            with self._core.cache.transaction():
                node = self._let_go(node, filling=filling)
        sha = trusted_sha(answer)
        if sha:
            node.told = sha, new.vv
        self._know(node, uid, new)
        self._promise(node, answer, sample)
        return True

    def _let_go(self, node: Node, *, filling: bool) -> Node:
        """Forget data of another version than the servers'. Inside a transaction; returns the fid's node."""
        content = node.content
        if not filling or not (content is None or content.filling):
            return self._core.replaced_elsewhere(node)
        self._core.kernel_forget(node, pages=True)
        if content is None:
            self._core.nodes.drop_data(node)
        else:
            self._core.nodes.drop_other_data(node, content)
        return node

    @staticmethod
    def _promise(node: Node, answer: Attributes, sample: Promise) -> None:
        node.promise = sample if answer.promised else None
        node.said = None if answer.promised else (trio.current_time(), sample)

    def _know(self, node: Node, uid: int, status: Status) -> None:
        node.stale = node.newer = False
        if node.conflict:
            self._core.settled(node, "by the servers")
        if not node.same_version(status.vv):
            node.doubted = frozenset(node.rights)  # its access list may be another
        self._learn_rights(node, uid, status)
        before, node.status = node.status, status
        if status.parent != (0, 0) and not node.parent:
            parent = Fid(node.fid.volume, *status.parent)
            node.parent = self._core.cache.inodes.find(node.volume.realm_id, parent) or 0
        self._core.place(node)
        with self._core.cache.transaction():
            self._core.cache.on_rollback(functools.partial(node.return_to, before))
            self._core.nodes.save(node)

    def _learn_rights(self, node: Node, uid: int, status: Status) -> None:
        """Keep what the user may do, if servers knew who asked; without a token they spoke of anybody."""
        told = {ANYUSER: status.any_rights}
        if self._access.judge(node) is node and self._core.volumes.has_token(node.volume, uid):
            told[uid] = status.my_rights
            while len(node.rights) >= MAX_RIGHTS and uid not in node.rights:
                del node.rights[next(user for user in node.rights if user != ANYUSER)]
        node.rights.update(told)
        node.doubted -= told.keys()

    def _older(self, node: Node, theirs: VersionVector) -> None:
        """Keep what is cached: those servers that can be reached are behind it (promise 4)."""
        if not node.newer:
            log.info("%s: the servers have %s, we have newer", node, theirs)
        node.newer = True
