"""What happens in the cache manager, for whoever watches: TUI, log, `realmfs events`, metrics, codacon.

Each event is a small frozen class with two forms: `line()` is the reference's `kind::text` (client.md §13,
cut at 255 bytes), `json()` a mapping of plain values. All watchers read the same stream; one that is slow
loses events and is told how many. Nothing here waits.
"""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import ClassVar

import trio

LINE_LIMIT = 255
_FLAGS = {"tokens": "unauth", "a decision": "conflict"}
"""What records wait for, in the reference's words; that servers are away says the state already."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened; `time` is Unix seconds."""

    kind: ClassVar[str] = ""
    time: float = field(default_factory=time.time, kw_only=True)

    def text(self) -> str:
        """Say it in the words of codacon, without the kind."""
        raise NotImplementedError

    def line(self) -> str:
        """Return the line of the reference's event socket, at most 255 bytes."""
        whole = f"{self.kind}::{self.text()}" if self.kind else self.text()
        return whole.encode("utf-8", "replace")[:LINE_LIMIT].decode("utf-8", "ignore")

    def json(self) -> dict[str, object]:
        """Return the fields with the name of the event, its kind and its text."""
        return {"event": type(self).__name__, "kind": self.kind, "text": self.text(), **asdict(self)}


@dataclass(frozen=True, slots=True)
class CallMade(Event):
    """A call to the servers that reads (`GetAttr`, `Fetch`...) begins or has ended."""

    kind: ClassVar[str] = "fetch"
    call: str
    object: str
    done: bool = False

    def text(self) -> str:
        """`GetAttr name`, and `getattr name done` at the end."""
        return f"{self.call} {self.object} done".lower() if self.done else f"{self.call} {self.object}"


@dataclass(frozen=True, slots=True)
class ChangeSent(CallMade):
    """A call to the servers that changes something (`Reintegrate`, `SendReintFragment`, `SetAcl`...)."""

    kind: ClassVar[str] = "store"


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """A file is on its way here, `have` of `size` bytes."""

    kind: ClassVar[str] = "progress"
    object: str
    have: int
    size: int
    since: int

    def text(self) -> str:
        """`fetching (name) 40% (4Bs/10Bs) [2 - 4]`."""
        percent = 100 * self.have // self.size if self.size else 100
        return (
            f"fetching ({self.object}) {percent}% ({self.have}Bs/{self.size}Bs) [{self.since} - {self.have}]"
        )


@dataclass(frozen=True, slots=True)
class StoreProgress(Event):
    """A large file is on its way to the servers: the slowest has `have` of `size` bytes, `rate` bytes/s."""

    kind: ClassVar[str] = "progress"
    object: str
    have: int
    size: int
    rate: float

    def text(self) -> str:
        """`storing (name) 40% (4Bs/10Bs) 2 KiB/s`."""
        percent = 100 * self.have // self.size if self.size else 100
        return (
            f"storing ({self.object}) {percent}% ({self.have}Bs/{self.size}Bs) {self.rate / 1024:.0f} KiB/s"
        )


@dataclass(frozen=True, slots=True)
class CallbackBroken(Event):
    """A server says that an object or (vnode 0) something in a volume changed."""

    kind: ClassVar[str] = "callback"
    server: str
    fid: str

    def text(self) -> str:
        """`Callback server (fid)`."""
        return f"Callback {self.server} ({self.fid})"


@dataclass(frozen=True, slots=True)
class BackFetch(Event):
    """A server takes the contents of a pending store."""

    kind: ClassVar[str] = "callback"
    server: str
    object: str
    size: int

    def text(self) -> str:
        """`BackFetch server, name [blocks]`."""
        return f"BackFetch {self.server}, {self.object} [{(self.size + 1023) // 1024}]"


@dataclass(frozen=True, slots=True)
class ServerChanged(Event):
    """A server came up or went away."""

    kind: ClassVar[str] = "connection"
    server: str
    up: bool
    protection: str = ""
    """How packets to it are protected, if it is up."""
    reason: str = ""
    """Why it went away, or is refused: a wrong certificate, old encryption, silence."""

    def text(self) -> str:
        """`up server` or `unreachable server`."""
        return f"{'up' if self.up else 'unreachable'} {self.server}"


@dataclass(frozen=True, slots=True)
class ServerMoved(Event):
    """The name of a server leads to another address now."""

    kind: ClassVar[str] = "connection"
    server: str
    address: str

    def text(self) -> str:
        """`moved server address`."""
        return f"moved {self.server} {self.address}"


@dataclass(frozen=True, slots=True)
class Reintegrating(Event):
    """A volume's log is being sent; `todo` of `total` records are left."""

    kind: ClassVar[str] = "reintegrate"
    volume: str
    todo: int
    total: int

    def text(self) -> str:
        """`volume, 3/10`."""
        return f"{self.volume}, {self.todo}/{self.total}"


@dataclass(frozen=True, slots=True)
class VolumeChanged(Event):
    """A volume's state (reachable, unreachable, resolving), how many records wait, and what for (`flags`)."""

    kind: ClassVar[str] = "volstate"
    volume: str
    realm: str
    state: str
    records: int
    flags: tuple[str, ...] = ()

    def text(self) -> str:
        """`volume@realm reachable 3 unauth`."""
        flags = (_FLAGS[flag] for flag in self.flags if flag in _FLAGS)
        return " ".join((f"{self.volume}@{self.realm} {self.state} {self.records}", *flags))


@dataclass(frozen=True, slots=True)
class LogHeld(Event):
    """A change of `uid` was refused: the changes of another author wait in the volume, and why they do.

    `identity` is whom the servers take the holder for, "" nobody.
    """

    kind: ClassVar[str] = "volstate"
    volume: str
    realm: str
    uid: int
    holder: int
    identity: str
    reason: str

    def text(self) -> str:
        """`volume@realm holds changes of uid 1000 as nobody (they wait for tokens); uid 7 must wait`."""
        why = f" (they wait for {self.reason})" if self.reason else ""
        return (
            f"{self.volume}@{self.realm} holds changes of uid {self.holder} as {self.identity or 'nobody'}"
            f"{why}; uid {self.uid} must wait"
        )


@dataclass(frozen=True, slots=True)
class Conflict(Event):
    """Servers disagree about an object, or refuse a change made here."""

    path: str
    fid: str
    local: bool

    def line(self) -> str:
        """Both kinds of conflict have a kind word of their own."""
        return f"{'ClientModifyLog' if self.local else 'fsobj'}::{self.text()}"[:LINE_LIMIT]

    def text(self) -> str:
        """`CONFLICT (local/global): path (fid)`."""
        return f"CONFLICT ({'local/global' if self.local else 'server/server'}): {self.path} ({self.fid})"


@dataclass(frozen=True, slots=True)
class ConflictSettled(Event):
    """A conflict is over: `how` is which version was kept, or who settled it."""

    kind: ClassVar[str] = "fsobj"
    path: str
    fid: str
    how: str

    def text(self) -> str:
        """`SETTLED (local): path (fid)`."""
        return f"SETTLED ({self.how}): {self.path} ({self.fid})"


@dataclass(frozen=True, slots=True)
class Replaced(Event):
    """An object made room: `what` is `status`, `data` or `status/data`."""

    kind: ClassVar[str] = "cache"
    what: str
    object: str
    blocks: int

    def text(self) -> str:
        """`Replace [data] name [12]`."""
        return f"Replace [{self.what}] {self.object} [{self.blocks}]"


@dataclass(frozen=True, slots=True)
class HoardWalk(Event):
    """A part of a hoard walk begins or has ended: `BeginStatusWalk`, `EndDataWalk`..., with its figures."""

    kind: ClassVar[str] = "cache"
    part: str
    figures: str

    def text(self) -> str:
        """`BeginStatusWalk [120] [3, 1, 0, 0] [2]`."""
        return f"{self.part} {self.figures}"


@dataclass(frozen=True, slots=True)
class HoardProgress(Event):
    """How far a hoard walk is; sizes in bytes, `eta` in seconds if one can tell."""

    kind: ClassVar[str] = "progress"
    phase: str
    percent: int
    files: int
    bytes: int
    files_left: int = 0
    bytes_left: int = 0
    eta: float | None = None

    def text(self) -> str:
        """`hoarding 40%`."""
        return f"hoarding {self.percent}%"


@dataclass(frozen=True, slots=True)
class HoardFetched(Event):
    """An object has come on a hoard walk."""

    kind: ClassVar[str] = "hoard"
    path: str
    size: int

    def text(self) -> str:
        """`hoarded path [blocks]`."""
        return f"hoarded {self.path} [{(self.size + 1023) // 1024}]"


@dataclass(frozen=True, slots=True)
class Waiting(Event):
    """The changes of a volume wait for something a person can give."""

    volume: str
    uid: int
    reason: str

    def text(self) -> str:
        """`Reintegrate volume pending tokens for uid = 1000`."""
        return f"Reintegrate {self.volume} pending {self.reason} for uid = {self.uid}"


@dataclass(frozen=True, slots=True)
class TokenNews(Event):
    """A user's token in a realm was `taken` (he logged in), `dropped` (out) or `refused` by a server."""

    kind: ClassVar[str] = "token"
    realm: str
    uid: int
    identity: str
    news: str

    def text(self) -> str:
        """`Token of uid 1000 as 501@realm taken`."""
        return f"Token of uid {self.uid} as {self.identity} {self.news}"


@dataclass(frozen=True, slots=True)
class TokenEnds(Event):
    """A user's token will be of no use in `seconds`; 0: it is of none any more."""

    kind: ClassVar[str] = "token"
    realm: str
    uid: int
    identity: str
    seconds: float

    def text(self) -> str:
        """Say it in the words of the reference's console."""
        if self.seconds <= 0:
            return f"Coda token for user {self.uid} in {self.realm} has expired"
        return (
            f"Coda token for user {self.uid} in {self.realm} "
            f"will be rejected by the servers in +/- {self.seconds / 60:.0f} minutes"
        )


@dataclass(frozen=True, slots=True)
class Dropped(Event):
    """This watcher was too slow."""

    count: int

    def text(self) -> str:
        """`dropped 7 queued messages`."""
        return f"dropped {self.count} queued messages"


class Watcher:
    """One reader of the stream: at most `limit` events wait for it, later ones are counted and lost."""

    def __init__(self, limit: int) -> None:
        self._send, self._receive = trio.open_memory_channel[Event](limit)
        self._lost = 0

    def offer(self, event: Event) -> None:
        """Queue an event; when there is no room, count it as lost."""
        try:
            if self._lost:
                self._send.send_nowait(Dropped(self._lost))
                self._lost = 0
            self._send.send_nowait(event)
        except trio.WouldBlock:
            self._lost += 1

    async def __aiter__(self) -> AsyncIterator[Event]:
        async for event in self._receive:
            yield event

    async def next(self) -> Event:
        """Wait for the next event."""
        return await self._receive.receive()

    def waiting(self) -> list[Event]:
        """Return the events that wait, without waiting for more."""
        events = []
        while True:
            try:
                events.append(self._receive.receive_nowait())
            except trio.WouldBlock:
                return events

    def close(self) -> None:
        """End the iteration once the queue is empty."""
        self._send.close()


class EventStream:
    """A bounded fan-out: publishing never waits, each watcher has its own queue."""

    def __init__(self, watchers: int = 64) -> None:
        self._limit = watchers
        self._watchers: list[Watcher] = []

    def publish(self, event: Event) -> None:
        """Give the event to all who watch."""
        for watcher in self._watchers:
            watcher.offer(event)

    @property
    def watched(self) -> bool:
        """Whether anybody watches: else an event need not even be made."""
        return bool(self._watchers)

    @contextmanager
    def watch(self, limit: int = 1000) -> Iterator[Watcher]:
        """Watch from now on. Raises OverflowError when too many watch already."""
        if len(self._watchers) >= self._limit:
            raise OverflowError(f"{self._limit} watch already")
        watcher = Watcher(limit)
        self._watchers.append(watcher)
        try:
            yield watcher
        finally:
            self._watchers.remove(watcher)
            watcher.close()


KINDS = tuple(sorted({event.kind for event in Event.__subclasses__() if event.kind}))
"""The kinds of the classes above."""
