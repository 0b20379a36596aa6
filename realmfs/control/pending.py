"""What waits to be sent, record by record, and why: the method `changes.list`."""

import os

from realmfs.cache.log import FIRST, LogEntry, State
from realmfs.cache.volumes import VolumeRow
from realmfs.control import messages
from realmfs.control.messages.pages import ChangePage
from realmfs.control.pages import breathe, numbers_of, size_of
from realmfs.control.service import Method
from realmfs.realms.realms import Realms
from realmfs.rpc2.errors import BadPacket
from realmfs.venus.batch import Why
from realmfs.venus.conflicts import object_of
from realmfs.venus.core import Core
from realmfs.venus.outcome import PAUSED
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.log import AnyRecord, Rename, unpack_log
from realmfs.vice.types import Fid

_OBSTACLES = {PAUSED: "paused", Why.YOUNG.value: "waits for its age"}
"""What keeps back a whole volume, and how a record says it."""


class Pending:
    """The method."""

    def __init__(self, core: Core, realms: Realms) -> None:
        self._core = core
        self._cache = core.cache
        self._realms = realms

    def methods(self) -> dict[str, Method]:
        """Return it by name."""
        return {"changes.list": Method(messages.Changes, self.list, owner_only=True)}

    async def list(self, params: messages.Changes) -> ChangePage:
        """List pending changes, volume by volume, in order."""
        first, sequence = numbers_of(params.cursor, 2)
        limit = size_of(params.limit)
        found: list[messages.Change] = []
        for key in sorted(self._cache.log.volumes()):
            row = self._cache.volumes.get(key)
            if row is None or key < first:
                continue
            realm = self._cache.realms.get(row.realm).name
            if params.volume not in (None, f"{row.name}@{realm}"):
                continue
            after = sequence if params.cursor is not None and key == first else FIRST
            for entry in self._cache.log.entries(key, after=after, limit=limit - len(found)):
                found.append(self._change(row, realm, entry))
                await breathe(len(found))
            if len(found) == limit:
                return ChangePage(found, f"{key}.{found[-1].sequence}")
        return ChangePage(found, None)

    def _change(self, volume: VolumeRow, realm: str, entry: LogEntry) -> messages.Change:
        try:
            (record,) = unpack_log(entry.record)
        except (BadPacket, ValueError) as error:
            what, path = f"unreadable ({error})", self._path(object_of(entry))
        else:
            what, path = type(record).__name__.lower(), self._path_in(volume.realm, entry, record)
        return messages.Change(
            volume=volume.name,
            realm=realm,
            sequence=entry.sequence,
            made=float(entry.time),
            uid=entry.uid,
            what=what,
            path=path,
            size=entry.length,
            state=self._state(volume.key, realm, entry),
        )

    def _state(self, volume: int, realm: str, entry: LogEntry) -> str:
        """Say in a few words why a record is still here."""
        if entry.state & State.BLOCKED:
            return f"refused: {Code(entry.reason).name}" if entry.reason in set(Code) else "refused"
        if entry.frozen:
            there = self._core.volumes.by_key(volume).reachable
            return "being sent" if there else "waits for servers, which may have it already"
        held = self._realms.tokens.get(realm, entry.uid)
        identity = held.identity if held is not None and held.usable else ""
        if entry.identity not in ("", identity):
            return f"waits for a login as {entry.identity}"
        if not identity and entry.reason in (Code.EACCES, Code.EPERM):
            return "waits for a login"
        safe = entry.safe or entry.container is None
        return self._obstacle(volume, realm) + ("" if safe else ", not yet safe against power loss")

    def _obstacle(self, key: int, realm: str) -> str:
        """Say what keeps back all that waits in a volume."""
        volume = self._core.volumes.by_key(key)
        if not volume.reachable:
            why = self._realms.presence.why(realm)
            return f"waits off line: {why}" if why else "waits for servers"
        return _OBSTACLES.get(volume.waiting_for, "waits")

    def _path_in(self, realm: int, entry: LogEntry, record: AnyRecord) -> str:
        """Return where a change was made, as its directory is called now; both places of a rename."""
        if isinstance(record, Rename):
            old = self._path_below(realm, record.old_parent, record.old_name)
            return f"{old} -> {self._path_below(realm, record.new_parent, record.new_name)}"
        parent, name = getattr(record, "parent", None), getattr(record, "name", None)
        if parent is None or name is None:  # a store and the like name no file
            return self._path(object_of(entry))
        return self._path_below(realm, parent, name)

    def _path_below(self, realm: int, directory: Fid, name: bytes) -> str:
        number = self._cache.inodes.find(realm, directory)
        above = self._path(number) if number is not None else "?"
        return f"{above}/{os.fsdecode(name)}"

    def _path(self, number: int) -> str:
        """Return the path below the mount as far as it is known."""
        try:
            return self._core.path(self._core.nodes.by_number(number)).lstrip("/")
        except CodaError:
            return "?"
