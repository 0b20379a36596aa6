"""What waits to be sent, record by record, and why: the method `changes.list`."""

import os
from collections.abc import Iterator

from realmfs.cache.cache import Cache
from realmfs.cache.log import FIRST, LogEntry, State
from realmfs.control import messages
from realmfs.control.pages import ChangePage, breathe, numbers_of, size_of
from realmfs.control.service import Method
from realmfs.realms.realms import Realms
from realmfs.rpc2.errors import BadPacket
from realmfs.vice.errors import Code
from realmfs.vice.log import unpack_log


class Pending:
    """The method."""

    def __init__(self, cache: Cache, realms: Realms) -> None:
        self._cache = cache
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
                found.append(self._change(row.name, realm, entry))
                await breathe(len(found))
            if len(found) == limit:
                return ChangePage(found, f"{key}.{found[-1].sequence}")
        return ChangePage(found, None)

    def _change(self, volume: str, realm: str, entry: LogEntry) -> messages.Change:
        what, name = _describe(entry.record)
        return messages.Change(
            volume=volume,
            realm=realm,
            sequence=entry.sequence,
            made=float(entry.time),
            uid=entry.uid,
            what=what,
            path=name or self._name_of(entry),
            size=entry.length,
            state=self._state(realm, entry),
        )

    def _state(self, realm: str, entry: LogEntry) -> str:
        """Say in a few words why a record is still here."""
        held = self._realms.tokens.get(realm, entry.uid)
        identity = held.identity if held is not None and held.usable else ""
        if not entry.frozen and not entry.state & State.BLOCKED:
            if entry.identity not in ("", identity):
                return f"waits for a login as {entry.identity}"
            if not identity and entry.reason in (Code.EACCES, Code.EPERM):
                return "waits for a login"
        return _state(entry)

    def _name_of(self, entry: LogEntry) -> str:
        """A store and the like name no file: the object's last known name will do."""
        for number, _ in entry.about:
            row = self._cache.objects.load(number)
            if row is not None and row.name:
                return os.fsdecode(row.name)
        return "?"


def _describe(record: bytes) -> tuple[str, str]:
    """Return the kind of a record, and the name in it if it has one."""
    try:
        (change,) = unpack_log(record)
    except (BadPacket, ValueError) as error:
        return f"unreadable ({error})", ""
    names = [os.fsdecode(name) for name in _names(change)]
    return type(change).__name__.lower(), " -> ".join(names)


def _names(change: object) -> Iterator[bytes]:
    for field in ("name", "new_name"):
        name = getattr(change, field, None)
        if isinstance(name, str):
            yield os.fsencode(name)
        elif isinstance(name, bytes):
            yield name


def _state(entry: LogEntry) -> str:
    """Say in a word or two why a record is still here."""
    if entry.state & State.BLOCKED:
        return f"refused: {Code(entry.reason).name}" if entry.reason in set(Code) else "refused"
    if entry.frozen:
        return "being sent"
    return "waits" if entry.safe or entry.container is None else "waits, not yet safe against power loss"
