"""Reading objects: status, validation, contents.

And access lists, the one change that is no log record (vice.md §5.2).
"""

from __future__ import annotations

import os
from typing import Final

from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.transfer import BytesSource, FileSource
from realmfs.server.access import MAX_ENTRIES, Acl
from realmfs.server.state import Caller, Found, ServerState
from realmfs.server.views import ACL
from realmfs.vice import calls
from realmfs.vice.acl import AccessList
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Fid, ObjectType, Order, Rights, StoreId, VersionVector

_OWNER_READ: Final = 0o400


class ObjectCalls:
    """The handlers."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    async def get_attr(self, caller: Caller, args: calls.GetAttr) -> calls.GetAttr.Reply:
        """Return the status of an object, with a promise. Needs no right."""
        self._state.cop2(args.piggy_cop2)
        found = self._state.find(args.fid, args.inconsistent_ok)
        status = self._state.status(caller, found, promise=True)
        return calls.GetAttr.Reply(status=status, sha=_sha(found, args.sha_room))

    async def validate_attrs(self, caller: Caller, args: calls.ValidateAttrs) -> calls.ValidateAttrs.Reply:
        """Return the status of one object, and whether others of its volume still have these versions."""
        self._state.cop2(args.piggy_cop2)
        found = self._state.find(args.primary)
        status = self._state.status(caller, found, promise=True)
        if args.flags_room < len(args.piggies):
            raise CodaError(Code.EINVAL)
        flags = bytes(self._still_has(caller, args.primary, fid, vv) for fid, vv in args.piggies)
        return calls.ValidateAttrs.Reply(status=status, sha=_sha(found, args.sha_room), flags=flags)

    async def fetch(self, caller: Caller, args: calls.Fetch) -> calls.Fetch.Reply:
        """Send the contents of an object from an offset to the end."""
        whole = calls.FetchPartial(
            fid=args.fid, vv=args.vv, inconsistent_ok=args.inconsistent_ok, primary_host=args.primary_host,
            offset=args.offset, piggy_cop2=args.piggy_cop2,
        )  # fmt: skip
        reply = await self.fetch_partial(caller, whole)
        return calls.Fetch.Reply(status=reply.status)

    async def fetch_partial(self, caller: Caller, args: calls.FetchPartial) -> calls.FetchPartial.Reply:
        """Send at most `count` bytes of an object: exactly min(count, what there is after the offset).

        The status is that of the version that is sent: the container stays open whatever happens to the file
        meanwhile, and a change in between breaks the promise this reply carries.
        """
        state = self._state
        state.cop2(args.piggy_cop2)
        found = state.find(args.fid, args.inconsistent_ok)
        vnode = found.vnode
        self._check_fetch(caller, found)
        if args.offset and vnode.vv.compare(args.vv, ignore_inconsistent=True) is not Order.EQUAL:
            raise CodaError(Code.EAGAIN, "the object is not the version that was begun with")
        status = state.status(caller, found, promise=True)
        state.counters["total_fetches"] += 1
        if args.primary_host and found.replicated and not self._is_me(args.primary_host):
            return calls.FetchPartial.Reply(status=status)
        size = min(args.count, max(0, vnode.length - args.offset))
        state.counters["fetch_datas"] += 1
        state.counters["fetched_bytes"] += size
        if vnode.container is None:
            contents = state.store.vnodes.image(vnode.fid) if vnode.is_directory else vnode.target or b""
            await caller.request.send(BytesSource(contents[args.offset : args.offset + size]))
        else:
            fd = state.store.containers.open(vnode.container)
            try:
                await caller.request.send(FileSource(fd, args.offset, size))
            finally:
                os.close(fd)
        return calls.FetchPartial.Reply(status=status)

    async def get_acl(self, caller: Caller, args: calls.GetAcl) -> calls.GetAcl.Reply:
        """Return a directory's access list as text. Needs no right, gives no promise."""
        state = self._state
        state.cop2(args.piggy_cop2)
        found = state.find(args.fid, args.inconsistent_ok)
        status = state.status(caller, found, promise=False)
        acl = found.vnode.acl
        if acl is None:
            raise CodaError(Code.ENOTDIR)
        text = self._text(acl)
        if args.acl_room == 0:
            raise CodaError(Code.EINVAL)
        if len(text) > args.acl_room:
            raise CodaError(Code.E2BIG)
        return calls.GetAcl.Reply(acl=text, status=status)

    async def set_acl(self, caller: Caller, args: calls.SetAcl) -> calls.SetAcl.Reply:
        """Replace a directory's access list: for those with the right `a`, its owner, and administrators."""
        state = self._state
        state.cop2(args.piggy_cop2)
        async with state.exclusive(state.find(args.fid).volume):
            found = state.find(args.fid)
            vnode = found.vnode
            if vnode.acl is None:
                raise CodaError(Code.ENOTDIR)
            acl = self._parsed(args.acl)
            self._check_version(found, args.status.vv, args.status.data_version)
            may = caller.identity.may(vnode.acl, Rights.ADMINISTER)
            if not may and (caller.identity.user != vnode.owner or caller.session.user is None):
                raise CodaError(Code.EACCES)
            vnode.acl = acl
            vnode.author = caller.identity.user & 0xFFFFFFFF
            slot, store_id = found.volume.slot, args.store_id
            if vnode.vv.store_id != args.status.vv.store_id:
                store_id = state.store.vnodes.id_upon(vnode.fid, vnode.vv, store_id)
            vnode.vv = state.store.vnodes.count_update(vnode.fid, vnode.vv, slot, store_id)
            with state.store.transaction():
                state.store.vnodes.write([vnode])
                state.store.note_attribute(found.volume, vnode, ACL, args.store_id)
                state.store.volumes.settle(found.volume.id, 1, 0)
            await state.store.database.durable()
        await state.hosts.break_promises(found.volume, [vnode.fid], caller.host)
        status = state.status(caller, found, promise=False)
        return calls.SetAcl.Reply(status=status, new_stamp=0, promised=False)

    def _still_has(self, caller: Caller, primary: Fid, fid: Fid, vv: VersionVector) -> bool:
        """Whether the version is current; promises a callback if so.

        False, too, for what cannot be promised.
        """
        if fid.volume != primary.volume:
            return False
        try:
            found = self._state.find(fid)
        except CodaError:
            return False
        ours = found.vnode.vv
        # Who names the last update must name the right one; clients may leave it out.
        same = ours.compare(vv) is Order.EQUAL and vv.store_id in (ours.store_id, StoreId.zero())
        return same and self._state.hosts.promise(caller.host, found.named)

    def _check_fetch(self, caller: Caller, found: Found) -> None:
        """Raise CodaError EACCES unless the caller may read the object (directories.md §5.1)."""
        vnode, identity = found.vnode, caller.identity
        wanted = Rights.LOOKUP if vnode.is_directory else Rights.READ
        if not identity.may(self._state.acl_of(vnode), wanted):
            raise CodaError(Code.EACCES)
        owner = caller.session.user is not None and vnode.owner == identity.user
        if (
            vnode.type is ObjectType.FILE
            and not vnode.mode & _OWNER_READ
            and not owner
            and not identity.administrator
        ):
            raise CodaError(Code.EACCES, "the file's owner may not read it")

    def _check_version(self, found: Found, vv: VersionVector, data_version: int) -> None:
        """Raise CodaError EINCOMPATIBLE unless the client's version is the server's (vice.md §3)."""
        current = found.vnode
        if found.replicated:
            same = current.vv.compare(vv) is Order.EQUAL
        else:
            same = current.data_version == data_version
        if not same:
            raise CodaError(Code.EINCOMPATIBLE)

    def _is_me(self, address: int) -> bool:
        ours = bytes(map(int, self._state.store.address.address.split(".")))
        return int.from_bytes(ours, "big") == address

    def _text(self, acl: Acl) -> bytes:
        label = self._state.store.protection.label
        positive = tuple((label(who), rights) for who, rights in acl.positive)
        negative = tuple((label(who), rights) for who, rights in acl.negative)
        return AccessList(positive, negative).format()

    def _parsed(self, text: bytes) -> Acl:
        """Read a list of names. Raises CodaError EINVAL, E2BIG, ENOENT (a name nobody has)."""
        try:
            named = AccessList.parse(text)
        except BadPacket as error:
            raise CodaError(Code.EINVAL, str(error)) from error
        if len(named.positive) + len(named.negative) > MAX_ENTRIES:
            raise CodaError(Code.E2BIG)
        return Acl(tuple(map(self._entry, named.positive)), tuple(map(self._entry, named.negative)))

    def _entry(self, entry: tuple[str, int]) -> tuple[int, int]:
        who = self._state.store.protection.id_of(entry[0])
        if who is None:
            raise CodaError(Code.ENOENT, f"there is no user or group {entry[0]!r}")
        return who, entry[1]


def _sha(found: Found, room: int) -> bytes:
    known = found.vnode.sha if found.vnode.type is ObjectType.FILE else None
    return known if known is not None and room >= calls.SHA_SIZE else b""
