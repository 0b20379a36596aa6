"""What is remembered of realms across restarts, so that a start without network knows where everything lives.

One JSON file, replaced atomically. It holds only what DNS and servers told: the last good servers of each
realm, the name of its root volume, the location of each volume used. A file that cannot be read is set
aside under another name and told in the log; the realms are then found anew.
"""

import json
import logging
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import trio

from realmfs.realms.lookup import RootServer

log = logging.getLogger(__name__)

FILE_NAME = "realms.json"
_VERSION = 1
MAX_REALMS = 1000
MAX_VOLUMES = 10000  # of one realm


@dataclass(frozen=True, slots=True)
class Location:
    """Where a volume lives.

    Its type and, per replica, (slot, id of the replica, IPv4 address of its server).
    """

    id: int
    name: str
    type: int
    replicas: tuple[tuple[int, int, str], ...]


@dataclass(slots=True)
class RealmMemory:
    """What is known of one realm. `reached`: one of its servers has answered at least once."""

    servers: tuple[RootServer, ...] = ()
    reached: bool = False
    root_volume: str | None = None
    volumes: dict[str, Location] = field(default_factory=dict)

    def by_id(self, volume: int) -> Location | None:
        """Return the location of a volume by its id."""
        return next((place for place in self.volumes.values() if place.id == volume), None)

    def remember(self, place: Location) -> None:
        """Keep a location under its name.

        Another volume of that name or this volume's old name is forgotten.
        """
        for name in [name for name, old in self.volumes.items() if old.id == place.id]:
            del self.volumes[name]
        while len(self.volumes) >= MAX_VOLUMES:
            del self.volumes[next(iter(self.volumes))]
        self.volumes[place.name] = place


class Memory:
    """The file and what is in it. Changes are told by `touch` and written by `save`."""

    def __init__(self, state_dir: Path | None) -> None:
        self._path = state_dir / FILE_NAME if state_dir else None
        self._dirty = False
        self._saving = trio.Lock()
        self.realms: dict[str, RealmMemory] = {}
        self.off: set[str] = set()
        """Where we are off line by hand (presence.py)."""
        self.port = 0
        """Of the client that has not taken leave: ours, or after a crash that of the run before; 0: none."""
        if self._path is not None:
            self.realms, self.off, self.port = _load(self._path)

    def touch(self) -> None:
        """Tell that something has changed; the next `save` writes."""
        self._dirty = True

    def realm(self, name: str) -> RealmMemory:
        """Return what is known of a realm, made empty at need.

        The oldest unreached ones give way to new ones.
        """
        known = self.realms.get(name)
        if known is None:
            while len(self.realms) >= MAX_REALMS:
                del self.realms[
                    next((n for n, r in self.realms.items() if not r.reached), next(iter(self.realms)))
                ]
            known = self.realms[name] = RealmMemory()
        return known

    async def save(self) -> None:
        """Write the file if anything changed, in a thread.

        A failure is logged and tried again at the next save.
        """
        async with self._saving:
            if self._dirty and self._path is not None:
                self._dirty = False
                try:
                    await self._write(self._path)
                except trio.Cancelled:
                    self._dirty = True  # it may not even have begun
                    raise

    async def _write(self, path: Path) -> None:
        text = json.dumps(
            {
                "version": _VERSION,
                "off": sorted(self.off),
                "port": self.port,
                "realms": {name: asdict(known) for name, known in self.realms.items() if known.servers},
            },
            indent=1,
        )
        try:
            await trio.to_thread.run_sync(_replace, path, text)
        except OSError as error:
            self._dirty = True
            log.warning("%s: cannot be written: %s", path, error.strerror)


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _load(path: Path) -> tuple[dict[str, RealmMemory], set[str], int]:
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["version"] != _VERSION:
            raise ValueError(f"version {content['version']}")
        realms = {str(name): _realm(known) for name, known in content["realms"].items()}
        return realms, {str(name) for name in content.get("off", ())}, int(content.get("port", 0))
    except FileNotFoundError:
        return {}, set(), 0
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("%s: cannot be read (%s); realms are found anew", path, error)
    try:
        path.replace(path.with_suffix(".bad"))
    except OSError as error:
        log.warning("%s: cannot be set aside: %s", path, error.strerror)
    return {}, set(), 0


def _realm(known: dict[str, Any]) -> RealmMemory:
    servers = tuple(
        RootServer(str(s["name"]), _address(*s["address"]), int(s["priority"]), int(s["weight"]))
        for s in known["servers"]
    )
    root = known["root_volume"]
    volumes = {str(name): _location(place) for name, place in known["volumes"].items()}
    return RealmMemory(servers, bool(known["reached"]), None if root is None else str(root), volumes)


def _location(place: dict[str, Any]) -> Location:
    replicas = tuple((int(slot), int(volume), str(address)) for slot, volume, address in place["replicas"])
    return Location(int(place["id"]), str(place["name"]), int(place["type"]), replicas)


def _address(host: Any, port: Any) -> tuple[str, int]:
    return str(host), int(port)
