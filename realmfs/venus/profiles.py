"""Hoard profiles: files of hoard(1) commands in one directory, each enabled or disabled as a whole.

Of the commands in a profile `add`, `modify` and `delete` say what its entries are, in that order; the others
(`clear`, `list`, `walk`...) are for command files that are loaded once, and are passed over. A profile whose
text changes is taken in anew before the next walk; one that has not changed is left alone, so that its
entries may follow what they name. Lines whose path cannot be found now, say because the realm is not known
yet, are tried again at each walk, and told with file, line and column.
"""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from realmfs.cache.cache import Cache
from realmfs.cache.hoard import Expand
from realmfs.venus.hoardlanguage import Command, Kind, Mistake, Wish, ordered, parse
from realmfs.venus.hoardplaces import Place
from realmfs.vice.errors import CodaError, Code

LARGEST = 1 << 20
"""Bytes of the largest profile."""
Finder = Callable[[int, Command], Awaitable[Sequence[tuple[Place, Wish]]]]
"""Finds the places a line means, for a user. Raises CodaError."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile; `mistakes` are those found when it was last read."""

    name: str
    path: str
    enabled: bool
    entries: int
    mistakes: tuple[Mistake, ...]


class Profiles:
    """The profiles in a directory. None: there is none, and so no profiles."""

    def __init__(self, cache: Cache, directory: Path | None) -> None:
        self._cache = cache
        self.directory = directory
        self._mistakes: dict[str, tuple[Mistake, ...]] = {}
        self._open: dict[str, list[Command]] = {}  # lines whose places are not known yet

    def names(self) -> list[str]:
        """Return the names of all profiles, of enabled ones also those whose file is gone."""
        found = set(self._cache.hoard.enabled())
        if self.directory is not None and self.directory.is_dir():
            found |= {
                path.name for path in self.directory.iterdir() if path.is_file() and _is_name(path.name)
            }
        return sorted(found)

    def all(self) -> list[Profile]:
        """Return all profiles."""
        enabled = self._cache.hoard.enabled()
        counts = self._cache.hoard.profile_sizes()
        return [
            Profile(name, str(self._path(name)), name in enabled, counts.get(name, 0), self.mistakes(name))
            for name in self.names()
        ]

    def mistakes(self, name: str) -> tuple[Mistake, ...]:
        """Return what was wrong with a profile when it was last read."""
        return self._mistakes.get(name, ())

    def enable(self, name: str, uid: int) -> None:
        """Enable a profile for a user. Raises CodaError ENOENT if there is no such file."""
        if not _is_name(name) or not self._path(name).is_file():
            known = ", ".join(self.names()) or "none"
            raise CodaError(Code.ENOENT, f"there is no profile {self._path(name)}. Those there are: {known}")
        with self._cache.transaction():
            self._cache.hoard.enable(name, uid)

    def disable(self, name: str) -> None:
        """Disable a profile; its entries go. Raises CodaError ENOENT if it is not enabled."""
        if name not in self._cache.hoard.enabled():
            raise CodaError(Code.ENOENT, f"the profile {name} is not enabled")
        with self._cache.transaction():
            self._cache.hoard.disable(name)
        self._mistakes.pop(name, None)
        self._open.pop(name, None)

    async def sync(self, find: Finder) -> None:
        """Take in what changed in the texts of enabled profiles, and lines that found no place before."""
        for name, (uid, digest) in self._cache.hoard.enabled().items():
            try:
                text = self._read(name)
            except OSError as error:
                place = str(self._path(name))
                self._mistakes[name] = (Mistake(place, 1, 1, f"cannot be read: {error.strerror or error}"),)
                continue  # what is hoarded stays hoarded
            now = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
            if now != digest:
                await self._take_in(name, uid, text, now, find)
            elif name not in self._mistakes:
                self._mistakes[name] = tuple(parse(text, str(self._path(name)))[1])
            elif self._open.get(name):
                await self._try_again(name, uid, find)

    async def _take_in(self, name: str, uid: int, text: str, digest: bytes, find: Finder) -> None:
        commands, mistakes = parse(text, str(self._path(name)))
        wanted: dict[Place, Wish] = {}
        still_open = []
        for command in ordered(commands):
            if command.kind not in (Kind.ADD, Kind.MODIFY, Kind.DELETE):
                continue
            try:
                places = await find(uid, command)
            except CodaError as error:
                mistakes.append(self._mistake(name, command, error))
                still_open.append(command)
                continue
            for place, wish in places:
                if command.kind is Kind.DELETE:
                    wanted.pop(place, None)
                else:
                    wanted[place] = wish
        self._enter(name, uid, wanted, digest)
        self._mistakes[name], self._open[name] = tuple(mistakes), still_open

    def _enter(self, name: str, uid: int, wanted: dict[Place, Wish], digest: bytes) -> None:
        """Have exactly the wanted entries; those that are there already stay as they are."""
        hoard = self._cache.hoard
        with self._cache.transaction():
            for entry in hoard.all():
                if entry.profile != name:
                    continue
                wish = wanted.get(Place(entry.volume, entry.path))
                if wish is not None and (wish.priority, wish.expand) == (entry.priority, entry.expand):
                    del wanted[Place(entry.volume, entry.path)]
                else:
                    hoard.remove([entry.id])
            for place, wish in wanted.items():
                hoard.add(place.volume, place.path, uid, wish.priority, wish.expand, 0, profile=name)
            hoard.enable(name, uid, digest)

    async def _try_again(self, name: str, uid: int, find: Finder) -> None:
        still_open = []
        for command in self._open[name]:
            try:
                places = await find(uid, command)
            except CodaError:
                still_open.append(command)
                continue
            with self._cache.transaction():
                for place, wish in places if command.kind is not Kind.DELETE else ():
                    self._cache.hoard.add(
                        place.volume, place.path, uid, wish.priority, wish.expand, 0, profile=name
                    )
        lines = {command.line for command in still_open}
        solved = {command.line for command in self._open[name]} - lines
        self._mistakes[name] = tuple(one for one in self._mistakes[name] if one.line not in solved)
        self._open[name] = still_open

    def _mistake(self, name: str, command: Command, error: CodaError) -> Mistake:
        return Mistake(
            str(self._path(name)), command.line, command.column, f"{command.path}: {error.text or error}"
        )

    def _path(self, name: str) -> Path:
        return (self.directory or Path()) / name

    def _read(self, name: str) -> str:
        with self._path(name).open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise OSError(27, f"a profile has at most {LARGEST} bytes")
        return data.decode("utf-8", "surrogateescape")


def _is_name(name: str) -> bool:
    return bool(name) and not name.startswith(".") and not name.endswith("~") and "/" not in name


def alone(place: Place, links: Sequence[Place], wish: Wish) -> list[tuple[Place, Wish]]:
    """Return the entries for a place: those of the links on the way have its priority, and nothing else."""
    return [(link, Wish(wish.priority, Expand.NONE)) for link in links] + [
        (place, Wish(wish.priority, wish.expand))
    ]
