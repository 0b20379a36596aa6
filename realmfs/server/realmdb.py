"""What all servers of a realm share: users, groups, passwords, token keys, and where the volumes live.

One server, the *keeper* (the one that founded the realm), is where this is changed; each change makes a new
version (triggers in schema_group.sql). Servers tell each other their versions when they meet, and who has an
older one fetches the whole from whoever has a newer one, keeper or not: so it also comes back to a keeper
that has lost its disk. It is small; it travels as JSON, sealed like everything else.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any, Final

from realmfs.rpc2.errors import BadPacket
from realmfs.server.store import ServerStore

_TABLES: Final = {"location": 6, "replica": 4, "principal": 3, "member": 2, "password": 2}
"""Columns of each table; in this order they can be filled, in the reverse one emptied."""
_SETTINGS: Final = ("realm", "keeper", "token_key", "old_token_key", "last_user", "last_group", "seal")


def version(store: ServerStore) -> int:
    """Return the version that a server has; 0 if it has none."""
    return int(store.get("realm_version") or 0)


def dump(store: ServerStore) -> bytes:
    """Return everything that is shared."""
    tables = {
        name: [[_plain(value) for value in row] for row in store.database.rows(f"SELECT * FROM {name}")]
        for name in _TABLES
    }
    settings = {name: _plain(value) for name in _SETTINGS if (value := store.get(name)) is not None}
    return json.dumps({"version": version(store), "settings": settings, "tables": tables}).encode()


def load(store: ServerStore, data: bytes) -> bool:
    """Take over what another server has, if it is newer; whether it is. Raises BadPacket."""
    try:
        found = json.loads(data)
        number, settings, tables = int(found["version"]), found["settings"], found["tables"]
        if number <= version(store):
            return False
        if settings["realm"] != store.realm:
            raise BadPacket(f"the other server is of the realm {settings['realm']}")
        with store.transaction():
            for name in reversed(_TABLES):
                store.database.execute(f"DELETE FROM {name}")
            for name, columns in _TABLES.items():
                holes = ", ".join("?" * columns)
                rows = [tuple(_value(value) for value in row) for row in tables[name]]
                store.database.executemany(f"INSERT INTO {name} VALUES ({holes})", rows)
            for name in _SETTINGS:
                if name in settings:
                    store.set(name, _value(settings[name]))
            store.set("realm_version", number)
    except (ValueError, KeyError, TypeError, AttributeError, sqlite3.Error) as error:
        raise BadPacket(f"no realm database: {error}") from error
    store.protection.forget_identities()
    return True


def _plain(value: Any) -> Any:
    return {"hex": value.hex()} if isinstance(value, bytes) else value


def _value(value: Any) -> Any:
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else value
