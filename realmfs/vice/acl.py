"""Access lists: who may do what in a directory and with the files in it (directories.md §5).

On the wire a list is text: the numbers of positive and of negative entries on a line each, then one line per
entry, name TAB rights, and a NUL that counts. Names are those of the servers' protection database.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from typing import Final

from realmfs.rpc2.errors import BadPacket
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Rights

ANYUSER: Final = "System:AnyUser"
ADMINISTRATORS: Final = "System:Administrators"
MAX_ENTRIES: Final = 20
MAX_NAME: Final = 100
"""Servers do not check the length of names; ours stay below what is safe (directories.md §5.2)."""

_LETTERS: Final = "rlidwka"
_BITS: Final = {"r": 1, "w": 2, "i": 4, "l": 8, "d": 16, "k": 32, "a": 64}
_MAX_RIGHTS: Final = 2**31 - 1
_ENTRY: Final = re.compile(r"\s*((?P<name>\S+)\s+(?P<rights>\S+)\s*)?", re.ASCII)
_SILLY: Final = 1000
"""Entries beyond which a text from a server is not worth reading."""


def rights_text(rights: int) -> str:
    """Return the letters of a set of rights, in the order `rlidwka`; "none" for the empty set."""
    return "".join(letter for letter in _LETTERS if rights & _BITS[letter]) or "none"


def parse_rights(text: str) -> Rights:
    """Read letters in any order, "all" or "none". Raises ValueError."""
    words = {"all": Rights.ALL, "none": Rights.NONE, "": Rights.NONE}
    if text in words:
        return words[text]
    unknown = set(text) - _BITS.keys()
    if unknown:
        raise ValueError(f"{text!r} is no set of rights: use letters of {_LETTERS}, all, or none")
    return Rights(sum(_BITS[letter] for letter in set(text)))


@dataclass(frozen=True, slots=True)
class AccessList:
    """An access list: names with rights granted, and names with rights taken away."""

    positive: tuple[tuple[str, int], ...] = ()
    negative: tuple[tuple[str, int], ...] = ()

    @classmethod
    def parse(cls, text: bytes) -> AccessList:
        """Read the text of a GetACL reply or a SetACL argument, with or without its NUL.

        The tolerance is that of servers: any white space separates, lines behind the last entry are ignored.
        Raises BadPacket. Whether there are too many entries is for `checked` to say.
        """
        words = text.partition(b"\0")[0].split()
        if len(words) < 2:
            raise BadPacket("an access list without its two counts")
        counts = [_number(word, _SILLY) for word in words[:2]]
        total = sum(counts)
        names, rights = words[2 : 2 + 2 * total : 2], words[3 : 3 + 2 * total : 2]
        if len(rights) < total:
            raise BadPacket(f"an access list of {len(rights)} entries that promises {total}")
        entries = tuple(
            (name.decode("utf-8", "surrogateescape"), _number(word, _MAX_RIGHTS))
            for name, word in zip(names, rights, strict=True)
        )
        return cls(entries[: counts[0]], entries[counts[0] :])

    def format(self) -> bytes:
        """Return the text with its NUL, as it goes into calls and replies."""
        lines = [str(len(self.positive)), str(len(self.negative))]
        lines += [f"{name}\t{rights}" for name, rights in self.positive + self.negative]
        return "\n".join([*lines, "\0"]).encode("utf-8", "surrogateescape")

    @property
    def text(self) -> str:
        """The list for people, a line for each entry: `name letters`, or `-name letters` where taken away.

        Bits that have no letter are kept as a number behind a plus: `alice rl+128`.
        """
        positive = [f"{name} {_letters(rights)}" for name, rights in self.positive]
        return "\n".join([*positive, *(f"-{name} {_letters(rights)}" for name, rights in self.negative)])

    @classmethod
    def from_text(cls, text: str) -> AccessList:
        """Read what `text` returns, or what `cfs listacl` prints, where a minus is before negative rights.

        Raises ValueError.
        """
        halves: tuple[list[tuple[str, int]], list[tuple[str, int]]] = ([], [])
        for line in text.split("\n"):
            found = _ENTRY.fullmatch(line)
            if found is None:
                raise ValueError(f"{line!r} is no entry of an access list: NAME RIGHTS, or -NAME RIGHTS")
            name, rights = found["name"], found["rights"]
            if name is None:
                continue
            negative = name.startswith("-") or rights.startswith("-")
            halves[negative].append((name.removeprefix("-"), _from_letters(rights.removeprefix("-"))))
        return cls(tuple(halves[0]), tuple(halves[1]))

    def changed(self, name: str, rights: int, *, negative: bool = False) -> AccessList:
        """Return the list with what a name has replaced; without rights the entry goes.

        Servers know names exactly, people do not: an entry there is found whatever the case.
        """
        half = self.negative if negative else self.positive
        known = next((one for one, _ in half if one.casefold() == name.casefold()), name)
        entries = dict(half) | {known: rights}
        kept = tuple((one, granted) for one, granted in entries.items() if granted)
        return replace(self, negative=kept) if negative else replace(self, positive=kept)

    def checked(self) -> AccessList:
        """Return this list without empty entries if it is safe to send; raises CodaError otherwise.

        E2BIG: more than 20 entries. EINVAL: a name that no server could read; or several negative entries and
        fewer positive ones, which overruns memory in reference servers. With two or more negative entries
        those may even mix up the halves: read the list back and compare (directories.md §5.4).
        """
        positive, negative = (
            tuple((name, rights) for name, rights in half if rights)
            for half in (self.positive, self.negative)
        )
        if len(positive) + len(negative) > MAX_ENTRIES:
            raise CodaError(Code.E2BIG, f"an access list takes at most {MAX_ENTRIES} entries")
        if len(negative) > max(len(positive), 1):
            raise CodaError(
                Code.EINVAL, "an access list must not have more negative entries than positive ones"
            )
        for name, _ in positive + negative:
            word = name.encode("utf-8", "surrogateescape")
            if len(word) > MAX_NAME or b"\0" in word or word.split() != [word]:
                raise CodaError(Code.EINVAL, f"{name!r} can be no user or group")
        return AccessList(positive, negative)

    def rights(self, names: Container[str]) -> Rights:
        """Return the rights of somebody who is all of `names`: a user, and every group he belongs to.

        Duplicates accumulate. What System:AnyUser has, a negative entry can not take away: one could just
        drop the token (directories.md §5.3).
        """
        granted = _union(self.positive, names.__contains__) & ~_union(self.negative, names.__contains__)
        return Rights(granted | self.any_rights)

    @property
    def any_rights(self) -> Rights:
        """The rights of everybody, tokens or not."""
        granted = _union(self.positive, ANYUSER.__eq__) & ~_union(self.negative, ANYUSER.__eq__)
        return Rights(granted)

    def same_entries(self, other: AccessList) -> bool:
        """Whether both grant and deny the same, in whatever order."""
        ours, theirs = ((sorted(acl.positive), sorted(acl.negative)) for acl in (self, other))
        return ours == theirs


def _letters(rights: int) -> str:
    other = rights & ~int(Rights.ALL)
    return f"{rights_text(rights)}+{other}" if other else rights_text(rights)


def _from_letters(text: str) -> int:
    letters, plus, other = text.partition("+")
    if plus and not (other.isdigit() and len(other) <= 10 and int(other) <= _MAX_RIGHTS):
        raise ValueError(f"{text!r} is no set of rights")
    return int(parse_rights(letters)) | int(other or 0)


def _number(word: bytes, maximum: int) -> int:
    if not (word.isdigit() and len(word) <= 10 and int(word) <= maximum):
        raise BadPacket(f"{word[:40]!r} in an access list where a number should be")
    return int(word)


def _union(entries: tuple[tuple[str, int], ...], matches: Callable[[str], bool]) -> int:
    """Return all rights of the entries whose names match."""
    rights = 0
    for name, granted in entries:
        if matches(name):
            rights |= granted
    return rights
