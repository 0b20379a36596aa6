"""Why an operation of a simulation may be refused."""

from __future__ import annotations

import trio

from realmfs.vice.errors import Code
from tests.group import address
from tests.promises.holdings import names_in
from tests.promises.simulated import Ledger
from tests.promises.site import MortalClient, Site

LATELY = 60.0
"""Seconds for which trouble that is over excuses refusals: servers find each other, and make up."""
AWAY = frozenset({Code.ETIMEDOUT, Code.EWOULDBLOCK, Code.EAGAIN, Code.ENOSPC})
"""What servers out of reach may be answered for, ENOSPC by a cache full of what cannot be sent."""
CONFLICT = frozenset({Code.EISDIR, Code.EINCONS, Code.EROFS, Code.ENOTDIR, Code.ELOOP, Code.EIO})
"""What may happen to names that lead to several versions."""
TOP = (1, 1)
Node = tuple[int, int]


class Reasons:
    """Knows what is cut off, dead, taken away or in conflict, now and lately."""

    def __init__(self, site: Site, ledger: Ledger) -> None:
        self._site, self._ledger = site, ledger
        self._until = 0.0

    @property
    def is_trouble(self) -> bool:
        """Whether something is cut off or dead, or was not long ago."""
        return trio.current_time() < self._until

    def note_trouble(self) -> None:
        """Move the end of the present trouble, if there is any."""
        if self._site.net.is_cut or set(self._site.servers.running) != set(self._site.servers.numbers):
            self.note_crash()

    def note_crash(self) -> None:
        """There is trouble."""
        self._until = trio.current_time() + LATELY

    def explain(self, client: MortalClient, names: list[bytes], code: Code) -> bool:
        """Tell whether there is a reason for a refusal to work with a path."""
        return (
            (code in AWAY and self.is_trouble)
            or (code is Code.ENOENT and not self._ledger.replaced.isdisjoint(names))
            or (code in CONFLICT | AWAY | {Code.ENOENT} and self._in_conflict(client, names))
            or (code is Code.ENOENT and self.is_trouble and self._is_unheard_of(client, names))
        )

    def tell(self, client: MortalClient, names: list[bytes]) -> str:
        """Return all that is known of a path, for whoever has to find out why it was refused."""
        return (
            f"at {trio.current_time():.1f}, trouble until {self._until:.1f}, "
            f"in conflict: {client.venus.core.conflicts.all()}\n"
            f"{self._seen_by_servers(names)}\n{self._ledger.stories(names)}"
        )

    def _in_conflict(self, client: MortalClient, names: list[bytes]) -> bool:
        """Whether a client has an object of these names in conflict, or the root, or a server has any."""
        mine = {node.name for node in client.venus.core.conflicts.all()}
        theirs = any(self._site.servers.conflicts(n) for n in self._site.servers.numbers)
        files = {self._ledger.files.get(name, name) for name in mine}  # it may be shown under another name
        return theirs or b"" in mine or any(self._ledger.files.get(name, name) in files for name in names)

    def _is_unheard_of(self, client: MortalClient, names: list[bytes]) -> bool:
        """Whether a name is neither in what a client has of its directory, nor at a server that it reaches.

        Whoever goes to the other side of a partition finds the directory there, which is neither older nor
        newer than what he had of it.
        """
        servers, above = self._site.servers, {TOP}
        if len(names) > 1:
            entries = [entry for number in servers.numbers for entry in self._entries(number, {TOP})]
            above = {(vnode, unique) for name, vnode, unique in entries if name == names[0]}
        near = [n for n in servers.running if not self._site.net.are_cut(client.host, address(n))]
        known = {name for number in near for name, *_ in self._entries(number, above)}
        core = client.venus.core
        for ino, _ in core.cache.objects.hoard_after(0, 1 << 30):
            identity = core.cache.inodes.identity(ino)
            if identity is not None and identity[1][1:] in above:
                known |= {name for name, *_ in names_in(core, ino) or ()}
        return names[-1] not in known

    def _entries(self, number: int, nodes: set[Node]) -> list[tuple[bytes, int, int]]:
        """Return the entries of these directories at a server."""
        rows = self._site.servers.contents(number).items()
        return [entry for node, row in rows if node in nodes for entry in row[-1]]

    def _seen_by_servers(self, names: list[bytes]) -> str:
        """Tell what the servers have under these names, and of that."""
        found = []
        for number in self._site.servers.numbers:
            contents = self._site.servers.contents(number)
            entries = {entry for row in contents.values() if isinstance(row[-1], list) for entry in row[-1]}
            for name, *node in sorted(entry for entry in entries if entry[0] in names):
                found.append(f"server {number}: {name!r} {node} {contents.get(tuple(node))}")
        return "\n".join(found)
