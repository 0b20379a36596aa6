"""What the daemon tells about itself, gathered from the rings below: `Facts` for the control socket."""

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import trio

from realmfs import __version__
from realmfs.cache.cache import Cache
from realmfs.cache.volumes import VolumeRow
from realmfs.control import messages
from realmfs.control.messages.pages import Paged, VolumePage
from realmfs.control.pages import breathe, numbers_of, size_of
from realmfs.control.protocol import ControlError
from realmfs.realms import realmsfile
from realmfs.realms.realms import Realms
from realmfs.realms.server import Server
from realmfs.realms.server import State as ServerState
from realmfs.vice.types import VolumeType

_NAMED = 3
"""Mistakes in the realms file that are told at once; `doctor` tells all."""
_SLOW = 1.0


class Kernel(Protocol):
    """What the kernel's side can tell: where it is mounted, and its requests."""

    @property
    def directory(self) -> Path: ...
    @property
    def mounted(self) -> bool:
        """Whether the mount is in the tree: a lazy unmount takes it out while files on it are open."""
        ...

    def answered(self) -> Mapping[str, int]:
        """Return how many requests of each operation were answered."""
        ...

    def under_way(self) -> Sequence[tuple[str, float]]:
        """Return operation and age in seconds of each request that waits."""
        ...

    def be_patient(self, uid: int, patient: bool) -> None:
        """Let a user's requests wait for ever rather than fail because nobody answers, or no more."""
        ...

    def is_patient(self, uid: int) -> bool:
        """Tell whether they do."""
        ...

    def open_files(self) -> int:
        """Return how many files and directories are open on the mount."""
        ...


class DaemonFacts:
    """The facts of a running daemon; `kernel` is None without a mount."""

    def __init__(
        self,
        cache: Cache,
        realms: Realms,
        settings: Mapping[str, str],
        end: Callable[[bool], None],
    ) -> None:
        """`end(force)` begins the end of the daemon."""
        self.kernel: Kernel | None = None
        self.callbacks_held: Callable[[Server], int] = lambda server: 0
        """How many promises of a server stand."""
        self.reused: Callable[[], tuple[int, int]] = lambda: (0, 0)
        """Files and bytes that needed no fetch, being here under another name."""
        self.waits_for: Callable[[int], str] = lambda volume: ""
        """What keeps back the changes of a volume, given by its key."""
        self.conflicts: Callable[[], int] = lambda: 0
        """How many objects are in conflict."""
        self._cache = cache
        self._realms = realms
        self._settings = settings
        self._end = end
        self._started = trio.current_time()

    def status(self) -> messages.Status:
        """Return the daemon at a glance."""
        servers = [server.state for server in self._realms.servers()]
        pending, pending_bytes = self.pending()
        kernel = self.kernel
        slow = [] if kernel is None else [each for each in kernel.under_way() if each[1] >= _SLOW]
        return messages.Status(
            version=__version__,
            pid=os.getpid(),
            uptime=trio.current_time() - self._started,
            mount_point=str(kernel.directory) if kernel is not None and kernel.mounted else None,
            cache_dir=str(self._cache.directory),
            cache_size=self._cache.limits.bytes,
            cache_used=self._cache.containers.used,
            objects=self._cache.objects.count,
            objects_limit=self._cache.limits.objects,
            realms=len(self._realms.known()),
            servers_up=servers.count(ServerState.UP),
            servers_down=servers.count(ServerState.DOWN),
            pending=pending,
            pending_bytes=pending_bytes,
            requests={} if kernel is None else dict(kernel.answered()),
            waiting=[f"{operation} for {age:.0f} s" for operation, age in slow],
            channels=[_channel(server) for server in self._realms.servers() if server.contacted],
            troubles=self._troubles(),
            off_line=self._off_line(),
            reused_files=self.reused()[0],
            reused_bytes=self.reused()[1],
            conflicts=self.conflicts(),
        )

    def _troubles(self) -> list[str]:
        troubles = list(self._cache.troubles())
        file = self._realms.context.settings.realms_file
        if file is not None and not file.exists():
            troubles.append(f"the realms file {file} does not exist: realms are looked up in DNS only")
        elif wrong := realmsfile.mistakes(realmsfile.read(file)):
            troubles.append(f"the realms file {file}: {'; '.join(wrong[:_NAMED])}")
        if self.kernel is not None and not self.kernel.mounted:
            troubles.append(f"{self.kernel.directory} was unmounted; what is open there is still served")
        return troubles

    def _off_line(self) -> list[str]:
        presence = self._realms.presence
        if not presence.anywhere:
            return [f"everywhere: {presence.why('')}"]
        return [f"{realm}: {presence.why(realm)}" for realm in sorted(presence.off)]

    def pending(self) -> tuple[int, int]:
        """Return how many changes wait, and their bytes."""
        log = self._cache.log
        return log.count, sum(log.summary(volume).bytes for volume in log.volumes())

    def realms(self) -> list[messages.RealmInfo]:
        """Return the realms that were ever reached."""
        return [self._realm(name) for name in self._realms.known()]

    def _realm(self, name: str) -> messages.RealmInfo:
        realm = self._realms.realm_named(name)
        servers = [] if realm is None else realm.servers
        up = any(server.state is ServerState.UP for server in servers)
        return messages.RealmInfo(name, [_address(server.address) for server in servers], up)

    async def servers(self, check: bool) -> list[messages.ServerInfo]:
        """Return the servers, after asking each if `check`."""
        if check:
            await self._realms.check()
        return [_server(server, self.callbacks_held(server)) for server in self._realms.servers()]

    async def volumes(self, params: Paged) -> VolumePage:
        """Return volumes known here; not the single replicas that conflicts were looked at in."""
        (after,) = numbers_of(params.cursor)
        rows = [row for row in self._cache.volumes.all() if row.type != VolumeType.READ_WRITE]
        rows = sorted((row for row in rows if row.key > after), key=lambda row: row.key)
        blocked = self._cache.log.refusals()
        page = []
        for row in rows[: size_of(params.limit)]:
            page.append(self._volume(row, blocked))
            await breathe(len(page))
        return VolumePage(page, str(rows[len(page) - 1].key) if len(page) < len(rows) else None)

    def _volume(self, row: VolumeRow, blocked: Mapping[int, int]) -> messages.volumes.VolumeInfo:
        realm = self._realm_name(row)
        known = self._realms.realm_named(realm)
        up = set()
        if known is not None:
            up = {_address(server.address) for server in known.servers if server.state is ServerState.UP}
        servers = [replica.server for replica in row.replicas]
        reachable = any(server in up for server in servers)
        waiting = self._cache.log.summary(row.key)
        return messages.volumes.VolumeInfo(
            realm=realm,
            name=row.name,
            id=f"{row.id:x}",
            type=_type(row.type),
            servers=servers,
            reachable=reachable,
            pending=waiting.records,
            state=self._volume_state(row, reachable=reachable),
            why=self._realms.presence.why(realm),
            pending_bytes=waiting.bytes,
            oldest=float(waiting.oldest) if waiting.records else None,
            refused=blocked.get(row.key, 0),
            waits_for=self.waits_for(row.key) if waiting.records else "",
        )

    def _volume_state(self, row: VolumeRow, *, reachable: bool) -> str:
        known = self._realms.realm_named(self._realm_name(row))
        place = known.known_volume(row.id) if known is not None else None
        if reachable and place is not None and place.group.resolving:
            return "resolving"
        return "reachable" if reachable else "unreachable"

    def _realm_name(self, row: VolumeRow) -> str:
        return self._cache.realms.get(row.realm).name

    def settings(self) -> dict[str, str]:
        """Return the settings in effect."""
        return dict(self._settings)

    def patience(self, uid: int, wanted: bool | None) -> bool:
        """Let a user's programs wait for servers for ever, or no more; return what holds now."""
        if self.kernel is None:
            text = "there is no mount: only programs on it can wait. Start one: realmfs mount"
            raise ControlError.of_errno(errno.ENODEV, text)
        if wanted is not None:
            self.kernel.be_patient(uid, wanted)
        return self.kernel.is_patient(uid)

    def stopping(self) -> messages.Stopping:
        """Return what will be left when the daemon ends."""
        busy = self.kernel is not None and self.kernel.open_files() > 0
        pending, size = self.pending()
        return messages.Stopping(pending, busy, size)

    def end(self, force: bool) -> None:
        """Begin the end."""
        self._end(force)


def _type(number: int) -> str:
    try:
        return VolumeType(number).name.lower().replace("_", "-")
    except ValueError:
        return str(number)


def _address(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"


def _server(server: Server, callbacks: int) -> messages.ServerInfo:
    heard = server.last_heard
    return messages.ServerInfo(
        realm=server.realm,
        address=_address(server.address),
        state=server.state.value,
        round_trip=server.round_trip,
        bandwidth=server.bandwidth,
        last_heard=None if heard is None else max(0.0, trio.current_time() - heard),
        protection=server.protection,
        name=server.name,
        reason=server.reason,
        ours=server.ours,
        callbacks=callbacks,
    )


def _channel(server: Server) -> str:
    """Say how packets to a server travel, or why they do not."""
    where = server.name if server.name == server.address[0] else f"{server.name} ({server.address[0]})"
    what = f"down: {server.reason}" if server.reason else server.protection
    return f"{where} of {server.realm}: {what}"
