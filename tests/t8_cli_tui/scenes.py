"""What fake daemons say in each state: the scenes of the golden frames."""

import time
from collections.abc import Mapping
from typing import Any

from realmfs.control.protocol import FAILED, ControlError

REALM = "example.org"


def status(**changes: Any) -> dict[str, Any]:
    return {
        "mount_point": "/coda", "cache_size": 1 << 30, "cache_used": 300 << 20, "servers_up": 3,
        "servers_down": 0, "conflicts": 0, "pending": 0, "pending_bytes": 0, "troubles": [], "off_line": [],
    } | changes  # fmt: skip


def entry(name: str, kind: str = "file", state: str = "cached", hoard: str = "0", **more: Any) -> Any:
    attributes = {"type": kind, "size": 1234}
    return {"name": name, "attributes": attributes, "kind": kind, "state": state, "hoard": hoard} | more


TREE = {
    "": [entry(REALM, "directory", volume="root")],
    REALM: [
        entry("alice", "directory", volume="u.alice", hoard="600:d+"),
        entry("paper.txt", hoard="600"),
        entry("draft.txt", state="dirty"),
        entry("plan.txt", state="conflict"),
        entry("film.mp4", state="partial"),
        entry(
            "a name that is so long that it cannot be shown in the tree of 80 columns.tar.gz", state="absent"
        ),
    ],
}


def listing(params: Mapping[str, Any]) -> Any:
    return {"entries": TREE.get(params["path"], []), "position": None}


def stat(params: Mapping[str, Any]) -> Any:
    conflict = "plan" in params["path"]
    kind = "file" if "." in params["path"].partition("/")[2] else "directory"
    return {
        "path": params["path"],
        "attributes": {"type": kind, "mode": 0o644, "size": 18, "mtime": 1_700_000_000 * 10**9},
        "target": None,
        "details": {
            "fid": "7f000001.2.5", "vv": "[3 3 2][a.7]", "state": "conflict" if conflict else "cached",
            "conflict": "server" if conflict else "no", "hoard": "600:d+", "rights": "rlidwk",
            "volume": "root", "servers": "10.0.0.1:2432 10.0.0.2:2432 10.0.0.3:2432",
            "valid": "the servers promised to call back",
        },
    }  # fmt: skip


def server(number: int, state: str = "up", reason: str = "") -> Any:
    return {
        "realm": REALM, "address": f"10.0.0.{number}:2432", "name": f"coda{number}.{REALM}", "state": state,
        "round_trip": 0.0123 if state == "up" else None, "bandwidth": 3e6 if state == "up" else None,
        "last_heard": 2.0 if state == "up" else 400.0, "protection": "UDP, AES-CCM", "reason": reason,
        "callbacks": 42 if state == "up" else 0,
    }  # fmt: skip


def token(state: str = "valid") -> Any:
    ends = time.time() + 24.9 * 3600
    return {"realm": REALM, "user": "alice", "id": 700, "state": state, "ends": ends, "pending": 3}


def change(number: int, state: str = "waits") -> Any:
    return {
        "volume": "u.alice", "realm": REALM, "sequence": number, "made": time.time() - 140, "uid": 1000,
        "what": "store", "path": f"alice/thesis/chapter{number}.tex", "size": 4096 * number, "state": state,
    }  # fmt: skip


def changes(params: Mapping[str, Any]) -> Any:
    return [change(1, "being sent"), change(2), change(3, "refused")]


def volume(pending: int = 0, state: str = "reachable", why: str = "") -> Any:
    return {
        "realm": REALM, "name": "u.alice", "id": "7f000002", "pending": pending, "state": state, "why": why,
        "reachable": state == "reachable", "pending_bytes": 24576, "oldest": time.time() - 140,
        "refused": 1 if pending else 0, "servers": [f"10.0.0.{number}:2432" for number in (1, 2, 3)],
    }  # fmt: skip


def hoard_status(**changes: Any) -> Any:
    return {
        "on": True, "walking": False, "entries": 2, "phase": "", "percent": 0, "files": 0, "bytes": 0,
        "files_left": 0, "bytes_left": 0, "eta": None, "seconds": 0.0,
    } | changes  # fmt: skip


def hoard_entry(number: int, path: str, attributes: str, present: int, **changes: Any) -> Any:
    return {
        "id": number, "path": path, "attributes": attributes, "priority": int(attributes.partition(":")[0]),
        "profile": "", "state": "valid", "trouble": "", "bound": True, "objects": 40, "bytes": 9 << 20,
        "present": present, "present_bytes": 5 << 20,
    } | changes  # fmt: skip


HOARDED = [
    hoard_entry(1, f"/{REALM}/alice/thesis", "600:d+", 40),
    hoard_entry(2, f"/{REALM}/lib", "100:c+", 10, state="indigent", profile="travel"),
    hoard_entry(3, f"/{REALM}/gone", "10", 0, objects=0, bound=False),
]
PROBLEM = {"path": f"{REALM}/lib/big.so", "priority": 100, "why": "not fetched yet", "size": 3 << 20}
VERIFIED = {"reachable": True, "objects": 80, "present": 50, "present_bytes": 14 << 20}
USAGE = {"size": 1 << 30, "used": 300 << 20, "hoarded_bytes": 100 << 20}
PLAN = {
    "fetch": [PROBLEM], "short": [PROBLEM | {"why": "larger than the cache"}],
    "evict": [{"path": f"{REALM}/old.iso", "size": 9 << 20}], "fetched": {"files": 30, "bytes": 40 << 20},
    "evicted": {"files": 1, "bytes": 9 << 20}, "lacking": {"files": 1, "bytes": 3 << 20}, "unknown": 2,
    "free": 700 << 20,
}  # fmt: skip

CONFLICTS = [
    {
        "id": number, "path": f"{REALM}/alice/{name}", "kind": kind,
        "changes": [] if kind == "server" else ["store"], "since": time.time() - 7300, "waiting": number - 1,
    }
    for number, name, kind in ((1, "plan.txt", "local"), (2, "list.txt", "server"))
]  # fmt: skip


def shown(params: Mapping[str, Any]) -> Any:
    versions = [
        {
            "name": name, "path": name, "server": who, "type": "file", "size": 18, "mtime": 1_700_000_000.0,
            "author": 700,
        }
        for name, who in (("local", None), ("coda1", "10.0.0.1"))
    ]  # fmt: skip
    return CONFLICTS[params["id"] - 1] | {"versions": versions, "reason": "it has been changed meanwhile"}


def contents(params: Mapping[str, Any]) -> bytes:
    return b"one\n2\nthree\n" if params["path"] == "local" else b"one\ntwo\nthree\n"


EMPTY: dict[str, Any] = {
    "daemon.status": status(servers_up=0, cache_used=0),
    "path.list": {"entries": [], "position": None},
    "servers.list": [], "tokens.list": [], "volumes.list": [], "changes.list": [], "conflicts.list": [],
    "writeback": {"age": 0.0, "time": 5.0, "paused": False},
    "hoard.list": [], "hoard.profiles": [], "cache.usage": USAGE,
    "hoard.status": hoard_status(entries=0),
    "hoard.verify": VERIFIED | {"ready": True, "problems": [], "count": 0},
    "file.open": contents,
}  # fmt: skip

BUSY: dict[str, Any] = EMPTY | {
    "daemon.status": status(pending=3, pending_bytes=24576),
    "path.list": listing, "path.stat": stat, "servers.list": [server(1), server(2), server(3)],
    "tokens.list": lambda _: [token()], "volumes.list": lambda _: [volume(3)], "conflicts.list": CONFLICTS,
    "conflicts.show": shown, "changes.list": changes,
    "hoard.list": HOARDED, "hoard.status": hoard_status(),
    "hoard.profiles": [{"name": "travel", "enabled": True, "entries": 1, "mistakes": []}],
    "hoard.verify": VERIFIED | {"ready": False, "problems": [PROBLEM], "count": 30}, "hoard.plan": PLAN,
}  # fmt: skip

WALKING = BUSY | {
    "hoard.status": hoard_status(
        walking=True, phase="data", percent=40, files_left=12, bytes_left=30 << 20, bytes=20 << 20,
        eta=75.0, seconds=50.0,
    ),
}  # fmt: skip

READY = BUSY | {"hoard.verify": VERIFIED | {"ready": True, "problems": [], "count": 0, "present": 80}}

OFFLINE = BUSY | {
    "daemon.status": status(
        servers_up=0, servers_down=3, pending=3, pending_bytes=24576,
        off_line=["everywhere: disconnected by hand"],
    ),
    "servers.list": [server(number, "down", "disconnected by hand") for number in (1, 2, 3)],
    "tokens.list": lambda _: [token("expired")],
    "volumes.list": lambda _: [volume(3, "unreachable", "disconnected by hand")],
    "hoard.verify": VERIFIED | {"ready": True, "reachable": False, "problems": [], "count": 0},
}  # fmt: skip

_REFUSED = ControlError(FAILED, "the database is damaged: [realm/file] is read only")
_REFUSING = ("path.list", "servers.list", "volumes.list", "conflicts.list", "hoard.status")
ERROR = BUSY | dict.fromkeys(_REFUSING, _REFUSED)
ERROR["daemon.status"] = status(troubles=["the database is damaged"])


def sending(todo: int) -> Mapping[str, Any]:
    text = f"u.alice, {todo}/10"
    fields = {"event": "Reintegrating", "volume": "u.alice", "todo": todo, "total": 10}
    return fields | {"kind": "reintegrate", "line": f"reintegrate::{text}", "text": text, "time": 0}


EVENTS: list[Mapping[str, Any]] = [
    sending(10),
    sending(3),
    {"kind": "connection", "line": "connection::unreachable coda1.example.org", "time": 60},
]

_QUARREL = status(pending=1, pending_bytes=4096, conflicts=2)
CONFLICT = BUSY | {"daemon.status": _QUARREL, "changes.list": lambda _: [change(3, "refused")]}
CONFLICT |= {"volumes.list": lambda _: [volume(1)]}
SCENES = {
    "empty": EMPTY,
    "busy": BUSY,
    "offline": OFFLINE,
    "error": ERROR,
    "conflict": CONFLICT,
    "walking": WALKING,
    "ready": READY,
}
