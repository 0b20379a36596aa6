"""Access lists over the control socket: read, edited by name, set, and read back.

They travel as the attribute `user.coda.acl`, so that a list is the same whoever sets it and by what means.
The servers judge who may do that, and which names there are.
"""

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from realmfs.control import messages
from realmfs.control.protocol import INVALID_PARAMS, ControlError
from realmfs.control.walk import Walk
from realmfs.venus.face import Caller, FileSystem
from realmfs.vice.acl import AccessList
from realmfs.vice.errors import CodaError, Code

ATTRIBUTE = b"user.coda.acl"

_TELLING = {
    Code.ENOENT: "the servers know no user or group of that name",
    Code.EACCES: "only its owner, administrators, and who has the right `a` may do that. Are you logged in?",
    Code.EPERM: "only its owner, administrators, and who has the right `a` may do that. Are you logged in?",
    Code.EOPNOTSUPP: "only directories of a realm have access lists; that of a file is its directory's",
}


class Acls:
    """The access lists, for one caller."""

    def __init__(self, files: FileSystem, caller: Caller) -> None:
        """Serve `files` to `caller`."""
        self._files = files
        self._caller = caller

    async def get(self, params: messages.PathOf) -> messages.Acl:
        """Return the access list of a directory."""
        async with self._directory(params.path) as ino:
            return _message(await self._read(ino))

    async def set(self, params: messages.SetAcl) -> messages.Acl:
        """Change the access list of a directory; returns what then stands at the servers."""
        wanted = _whole(params.text) if params.text else None
        async with self._directory(params.path) as ino:
            if wanted is None:
                present = AccessList() if params.clear else await self._read(ino)
                wanted = _edited(present, params)
            await self._files.setxattr(self._caller, ino, ATTRIBUTE, _bytes(wanted))
            return _message(await self._read(ino))

    async def _read(self, ino: int) -> AccessList:
        value = await self._files.getxattr(self._caller, ino, ATTRIBUTE)
        return AccessList.from_text(value.decode("utf-8", "surrogateescape"))

    @asynccontextmanager
    async def _directory(self, path: str) -> AsyncIterator[int]:
        """Walk to an object; errors behind that are about its list, and told so."""
        walk = Walk(self._files, self._caller)
        try:
            try:
                ino = (await walk.to(path)).ino
            except CodaError as error:
                raise ControlError.of_errno(error.errno, f"/{path}: {os.strerror(error.errno)}") from error
            try:
                yield ino
            except CodaError as error:
                reason = _TELLING.get(error.code) or str(error)
                raise ControlError.of_errno(error.errno, f"/{path}: {reason}") from error
        finally:
            walk.give_back()


def _whole(text: str) -> AccessList:
    try:
        return AccessList.from_text(text)
    except ValueError as error:
        raise ControlError(INVALID_PARAMS, str(error), number=errno.EINVAL) from None


def _edited(acl: AccessList, params: messages.SetAcl) -> AccessList:
    for entry in params.entries:
        ((_, rights),) = _whole(f"{entry.name.removeprefix('-')} {entry.rights or 'none'}").positive
        acl = acl.changed(entry.name, rights, negative=params.negative)
    return acl


def _bytes(acl: AccessList) -> bytes:
    return acl.text.encode("utf-8", "surrogateescape")


def _message(acl: AccessList) -> messages.Acl:
    positive, negative = (
        [messages.AclEntry(*line.rsplit(" ", 1)) for line in half.text.splitlines()]
        for half in (AccessList(acl.positive), AccessList(acl.negative))
    )
    return messages.Acl(positive, negative)
