"""An object of the file system in memory, and when what we hold of it may be used.

How servers tell us of changes
------------------------------
A reply about an object may carry a *promise*: the servers will call back before anybody else's change of it
is acknowledged. Four things end a promise:

  1. a callback for the object itself;
  2. a server of the volume comes (back) up: it may have missed or forgotten everything;
  3. we leave the servers (disconnect, sleep);
  4. our memory ends: promises are not kept on disk. After a start every object is suspect, and revalidated
     by its version vector, fifty at a time, instead of fetched again.

A boolean "promised" would lose the race in which the callback arrives while the reply that carries the
promise is still on its way or still being digested. So ends are counted, and a promise remembers the counts
it was asked under:

     volume.lost      one more at 2, 3       node.promise = (volume.lost, node.breaks), sampled *before* the
     node.breaks      one more at 1          call; it holds as long as both counters stand still

A break that races the call moved a counter after the sample, so the promise is stillborn; nobody must
remember to clear anything. (realms applies the same rule across one call with its global counter; the rule
here covers the time until the reply has been taken in, and objects whose answers come in batches.)

When status may be used (client.md §2)
--------------------------------------
     no status at all                      never
     the volume is not reachable           always: what is cached is all there is
     the log has records of the object     always: what is here is newer than what the servers have
     a promise that holds                  yes
     otherwise                             ask: `realmfs.venus.validity`

Data (contents, directory, symlink text) is always of the version that the status names, or was changed here:
in memory and on disk a new version of the status and the loss of the old data are one step. So data may be
used if the status may. Whoever breaks this shows old contents as new ones, and what is then written over them
is accepted by the servers: somebody's change is lost. Therefore

  * the status of another version is taken in by `Nodes.take_version` alone, which lets go of the data, of the
    container that is open (`content`) as well as of the row's; or by a fetch that is filling `content` with
    the new data, and has forgotten there what it had of the old (`Validator.absorb`);
  * who was filling or reading a container that the node has let go of may go on with it, but finds by
    `node.content is content` that it is not the object's any more, and does not attach it;
  * a transaction that is rolled back gives back status and data together, and the status is in doubt then;
  * who lends a container out does so by `Fetcher.contents`, and then the node has it no more.

Editions
--------
`edition` is raised by every change made here (an operation, a commit, a new status). Whoever asked the
servers something compares it before and after: an answer about an older edition is about another object and
is dropped.

A node is the same Python object as long as anybody holds it: the table knows nodes weakly, and beside it a
bounded list holds the most recently used. A node that fell off that list and that nobody holds is gone from
memory, not from the cache; it comes back without a promise, and the kernel is told to ask again.
"""

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Fid, ObjectType, Order, Status, VersionVector

if TYPE_CHECKING:
    from realmfs.cache.containers import Container
    from realmfs.venus.volume import VolumeState
    from realmfs.vice.directory import Directory


class Promise(NamedTuple):
    """The counters under which a promise was asked for."""

    lost: int
    breaks: int


class Reason(Enum):
    """Why a node is valid, or not; the words are for traces and `stat`."""

    NOTHING = "nothing is known of it"
    UNREACHABLE = "the servers are away"
    DIRTY = "changed here, not yet sent"
    PROMISED = "the servers promised to call back"
    SUSPECT = "must be asked for"

    @property
    def valid(self) -> bool:
        """Whether the status may be used without asking."""
        return self in (Reason.UNREACHABLE, Reason.DIRTY, Reason.PROMISED)


class Node:
    """One object. `ino` is its number for the kernel; `status` is None until a server has told (a *runt*)."""

    __slots__ = (
        "__weakref__",
        "breaks",
        "conflict",
        "container",
        "content",
        "directory",
        "dirty",
        "doubted",
        "edition",
        "fid",
        "gone",
        "ino",
        "kernel_names",
        "kernel_version",
        "link",
        "lookups",
        "name",
        "newer",
        "parent",
        "promise",
        "readers",
        "replaced",
        "rights",
        "said",
        "shows",
        "stale",
        "status",
        "stored",
        "told",
        "version",
        "volume",
        "writers",
    )

    def __init__(self, volume: "VolumeState", fid: Fid, ino: int) -> None:
        self.volume = volume
        self.fid = fid
        self.ino = ino
        self.status: Status | None = None
        self.rights: dict[int, int] = {}  # by local uid; ANYUSER is -1
        self.doubted: frozenset[int] = frozenset()  # users who logged in or out since `rights` were told
        self.told: tuple[bytes, VersionVector] | None = None  # SHA-1, and of which version (lookaside.py)
        self.parent = 0  # inode number of the directory it was last found in
        self.name = b""
        self.link: bytes | None = None
        self.stored = False  # the cache has a row
        self.directory: Directory | None = None  # a cache of the stored pages: may be dropped at any time
        self.container: int | None = None  # contents on disk, whole or in part
        self.content: Container | None = None  # the same or what is being fetched, while anybody uses it
        self.version = 0  # raised when the contents change otherwise than through this kernel
        self.kernel_version = -1  # the version whose pages the kernel may hold
        self.promise: Promise | None = None
        self.said: tuple[float, Promise] | None = None  # when servers last told of it but promised nothing
        self.breaks = 0
        self.edition = 0
        self.stale = (
            False  # the servers said that our version is not theirs; what theirs is we have not asked
        )
        self.dirty = False  # changes made here wait to be sent
        self.readers = 0
        self.writers = 0
        self.lookups = 0  # what the kernel holds
        self.kernel_names: set[bytes] = set()  # of a directory: names the kernel may know for long
        self.conflict = False  # the servers cannot agree on it
        self.shows: Node | None = None  # of a made-up directory: the object in conflict that it shows
        self.newer = False  # the reachable servers are behind what is cached
        self.replaced = (
            False  # gone because the servers have a newer version: nothing made here can get there
        )
        self.gone = False  # removed, or replaced by a newer node of the same fid; waits for its last close

    @property
    def type(self) -> ObjectType:
        """The type, as far as the fid tells if no status is there."""
        if self.status is not None:
            return self.status.type
        return ObjectType.DIRECTORY if self.fid.is_directory else ObjectType.FILE

    @property
    def is_directory(self) -> bool:
        """Whether this is a directory."""
        return self.fid.is_directory

    @property
    def ours(self) -> bool:
        """Whether what is here is newer than what the servers have: pending changes, or being written."""
        return self.dirty or (self.content is not None and self.content.writing)

    def require_current(self) -> None:
        """Refuse to change what was replaced, rather than lose the change. Raises CodaError EIO."""
        if self.replaced:
            raise CodaError(Code.EIO, f"{self.label} has been changed elsewhere since it was opened here")

    @property
    def open(self) -> bool:
        """Whether anybody has it open."""
        return self.readers + self.writers > 0

    def reason(self) -> Reason:
        """Say whether the status may be used, and why."""
        if self.status is None:
            return Reason.NOTHING
        if self.volume.away:
            return Reason.UNREACHABLE
        if self.ours:
            return Reason.DIRTY
        if self.promise == (self.volume.lost, self.breaks):
            return Reason.PROMISED
        return Reason.SUSPECT

    @property
    def valid(self) -> bool:
        """Whether the status may be used without asking."""
        if self.promise == (self.volume.lost, self.breaks) and self.status is not None:
            return True  # the reason that is found most often, and quickest
        return self.reason().valid

    def knows(self, uid: int) -> bool:
        """Tell whether the user's rights are those that servers would tell now."""
        return uid in self.rights and uid not in self.doubted

    def sample(self) -> Promise:
        """Return the counters to note before a call that may bring a promise."""
        return Promise(self.volume.lost, self.breaks)

    def current_since(self, time: float) -> bool:
        """Tell whether servers have told of it since then, without a promise, and called nothing back."""
        return self.said is not None and self.said[0] >= time and self.said[1] == self.sample()

    @property
    def sha(self) -> bytes:
        """The SHA-1 of the contents, if a server told one to trust for this version; else nothing."""
        if self.told is None or self.ours or not self.same_version(self.told[1]):
            return b""
        return self.told[0]

    def same_version(self, vv: VersionVector | None) -> bool:
        """Tell whether `vv` names the contents that our status speaks of.

        Equal counters alone do not say so: servers that lost updates may count to the same again, and servers
        that resolve a directory may make another of it than our update did.
        Equal store ids say so even where the counters differ (vice.md §6.1), but not of a directory in one
        place only: others change it in between, and the store id of our own last change stays on top. Where
        there are several replicas, servers give it an id of their own then (reintegration.md §2.7).
        """
        if vv is None or self.status is None:
            return False
        ours = self.status.vv
        if ours.compare(vv, ignore_inconsistent=True) is Order.EQUAL:
            return ours.store_id == vv.store_id or (self.is_directory and self.volume.replicas <= 1)
        telling = not self.is_directory or self.volume.replicas > 1
        return telling and ours.weakly_equal(vv) and ours.store_id != (0, 0)

    # What transactions that are rolled back put right.

    def mark_clean(self) -> None:
        """No record is about it after all."""
        self.dirty = False

    def mark_dirty(self) -> None:
        """A record is still about it."""
        self.dirty = True

    def forget_directory(self) -> None:
        """The pages on disk are what counts."""
        self.directory = None

    def hold(self, container: int | None, link: bytes | None) -> None:
        """These are its contents."""
        self.container, self.link = container, link

    def hold_open(self, content: "Container | None") -> None:
        """This is the container that is open."""
        self.content = content

    def return_to(self, status: Status | None) -> None:
        """This is the status, as far as we know."""
        self.status = status
        self.promise = self.said = None
        self.stale = status is not None
        self.edition += 1

    def put(self, parent: int, name: bytes) -> None:
        """It is found under that name."""
        self.parent, self.name = parent, name

    @property
    def blocks(self) -> int:
        """Length in KiB."""
        return (self.status.length + 1023) // 1024 if self.status is not None else 0

    @property
    def label(self) -> str:
        """How to call it in events: the last name it was seen under, else the fid."""
        return self.name.decode("utf-8", "replace") or str(self.fid)

    def __repr__(self) -> str:
        return f"<Node {self.label} {self.fid} ino {self.ino}: {self.reason().name}>"
