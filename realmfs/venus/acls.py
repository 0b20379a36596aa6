"""Reading and setting the access lists of directories (directories.md §5, vice.md §5.2, ops 2 and 5).

A list is never kept here: it is read from the servers when somebody asks, and set there at once, in no log.
Only they know which names exist and who may set it, so nothing is judged here beforehand. What is kept are
the rights that follow from it for each user; those are asked again before the next use.

    read ──► edit ──► set, with the version that was read ──► read back and compare ──► rights in doubt
      ▲                 │
      └─ another's ─────┘  a set with an old version is refused (ERETRY): nobody's change is undone

A set beside waiting changes of the same directory would make them look like a conflict, so it waits until
they are sent; and a directory made here has to be at the servers first. Reference servers may mix up a list
with several negative entries (directories.md §5.4): therefore the reading back.
"""

import logging
from collections.abc import Callable

from realmfs.cache.log import Role
from realmfs.venus.core import Core
from realmfs.venus.face import Caller
from realmfs.venus.node import Node
from realmfs.venus.validity import Validator
from realmfs.vice.acl import AccessList
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.log import MakeDir
from realmfs.vice.types import Status

log = logging.getLogger(__name__)

ROUNDS = 4


class AccessLists:
    """Asks and tells the servers."""

    def __init__(self, core: Core, validator: Validator) -> None:
        self._core = core
        self._validator = validator

    async def text(self, caller: Caller, node: Node) -> str:
        """Return the access list of a directory, a line for each entry. Raises CodaError."""
        self._require_directory(node)
        await self._core.enter(node.volume)
        if self._is_new(node):
            await self._sent(node)
        return (await self._read(caller, node))[0].text

    async def set_text(self, caller: Caller, node: Node, text: str) -> None:
        """Replace the access list of a directory by one in the form that `text` returns.

        Raises CodaError: EINVAL for what is no list, and as `change` does.
        """
        try:
            wanted = AccessList.from_text(text)
        except ValueError as error:
            raise CodaError(Code.EINVAL, str(error)) from error
        await self.change(caller, node, lambda _: wanted)

    async def change(
        self, caller: Caller, node: Node, edit: Callable[[AccessList], AccessList]
    ) -> AccessList:
        """Set the list that `edit` makes of the present one; return what then stands at the servers.

        Raises CodaError: EOPNOTSUPP no directory; EINVAL, E2BIG no list for a server; ENOENT a name that no
        server knows; EACCES, EPERM not allowed; ETIMEDOUT no server answers, or waiting changes cannot be
        sent; EIO the servers made something else of it.
        """
        self._require_directory(node)
        await self._core.enter(node.volume)
        await self._sent(node)
        for _ in range(ROUNDS):
            present, status = await self._read(caller, node)
            wanted = edit(present).checked()
            try:
                await self._set(caller, node, wanted, status)
            except CodaError as error:
                if error.code not in (Code.ERETRY, Code.EINCOMPATIBLE):
                    raise
                continue
            return await self._verified(caller, node, wanted)
        raise CodaError(Code.EWOULDBLOCK, f"{node.label}: others change its access list all the time")

    def _require_directory(self, node: Node) -> None:
        if not node.is_directory or node.conflict or node is self._core.top:
            raise CodaError(Code.EOPNOTSUPP, "only directories have access lists")

    def _is_new(self, node: Node) -> bool:
        """Tell whether the servers have not got the directory yet."""
        about = self._core.cache.log.about(node.ino) if node.dirty else ()
        return any(entry.opcode == MakeDir.OPCODE and role & Role.OBJECT for entry, role in about)

    async def _sent(self, node: Node) -> None:
        """Wait until no change of the directory waits to be sent; the caller's patience bounds it."""
        while node.dirty:
            if not node.volume.reachable:
                raise CodaError(Code.ETIMEDOUT, f"{node.label} has changes that are not sent yet")
            await node.volume.drained.park()

    async def _read(self, caller: Caller, node: Node) -> tuple[AccessList, Status]:
        with self._core.call("GetACL", node.label):
            answer = await self._core.group(node.volume).get_acl(node.fid, caller.uid)
        return AccessList.parse(answer.text), answer.status

    async def _set(self, caller: Caller, node: Node, wanted: AccessList, status: Status) -> None:
        core = self._core
        text = wanted.format().removesuffix(b"\0")
        with core.call("setacl", node.label):
            new = await core.group(node.volume).set_acl(
                node.fid, text, status, core.cache.log.new_store_id(), caller.uid
            )
        node.doubted |= node.rights.keys()
        node.breaks += 1  # our own update ends promises as anybody's does, unheard
        if node.dirty and node.same_version(status.vv):
            with core.cache.transaction():  # what was logged meanwhile builds on the version that now is
                core.nodes.change_status(node, vv=new.vv)
        core.kernel_forget(node)
        log.info("uid %d set the access list of %s", caller.uid, node.fid)

    async def _verified(self, caller: Caller, node: Node, wanted: AccessList) -> AccessList:
        """Read back what stands; have the caller's rights asked again at once."""
        stands, _ = await self._read(caller, node)
        await self._validator.get_attr(node, caller.uid)
        if not stands.same_entries(wanted):
            raise CodaError(Code.EIO, f"the servers made another list of it: {stands.text!r}")
        return stands
