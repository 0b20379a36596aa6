"""The daemon: builds every ring on the one below, and takes them down in the other order.

    below   cache, endpoint                 end last: whoever leaves still writes and sends
    above   realms, venus, control socket   end when the kernel has let go
    mount   the kernel's session            ends first: by unmounting, a signal, or the control socket

A signal or `stop` only begins the end: the mount is taken out of the tree, and the daemon serves on until
the last open file is closed (for a signal: a few seconds). Then it takes leave of the servers, so that no
writer waits for our callbacks, and closes the cache. What is not sent by then is in the modify log.
"""

import errno
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from realmfs.cache.cache import Cache
from realmfs.cache.errors import CacheError
from realmfs.cache.limits import Limits
from realmfs.control.controlfiles import with_control_files
from realmfs.control.eventsocket import EventSocket
from realmfs.control.facts import DaemonFacts
from realmfs.control.habits import Habits
from realmfs.control.listening import SocketError
from realmfs.control.logins import Logins
from realmfs.control.server import ControlServer
from realmfs.control.table import common_methods, topics
from realmfs.fuse.mountpoint import MountError, obstacle
from realmfs.host import network, process
from realmfs.host.conditions import Conditions
from realmfs.host.notices import Desktop, Notices
from realmfs.host.paths import safe_directory
from realmfs.host.settings import Settings
from realmfs.host.sleep import SleepWatch, watch_clocks
from realmfs.realms.realms import Realms
from realmfs.realms.settings import RealmSettings
from realmfs.rpc2.endpoint import Endpoint, udp_transport
from realmfs.venus.checkpoints import Checkpoints
from realmfs.venus.settings import VenusSettings
from realmfs.venus.venus import Venus

if TYPE_CHECKING:
    from realmfs.fuse.session import Session

log = logging.getLogger(__name__)

_LEAVE_WITHIN = 1.0
_SIGNAL_GRACE = 5.0
_LET_GO_WITHIN = 2.0  # s that the kernel gets after the last close
_CLOSE_WITHIN = 30.0


class StartError(Exception):
    """The daemon cannot start; the text says what happened, why, and what to do."""


class Daemon:
    """One daemon from start to end; `kernel` False: without a mount."""

    def __init__(self, settings: Settings, *, kernel: bool) -> None:
        """Nothing happens yet."""
        self._settings = settings
        self._kernel = kernel
        self._ending = trio.Event()
        self._hurry = trio.Event()
        self._at_once = trio.Event()

    async def run(self, ready: Callable[[str], None]) -> None:
        """Serve until the end. `ready` is told where. Raises StartError if it does not come to that."""
        reason = obstacle() if self._kernel else None
        if reason is not None:
            raise StartError(
                f"cannot mount: {reason}. Or do without a mount (realmfs mount --no-kernel): "
                "ls, cat, get and put work all the same"
            )
        cache = self._open_cache()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_signals)
                await self._serve_with(cache, ready)
                nursery.cancel_scope.cancel()
        except* (StartError, MountError, SocketError) as errors:
            raise StartError(str(_first(errors))) from None
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSE_WITHIN):
                await cache.aclose()

    def _open_cache(self) -> Cache:
        settings = self._settings
        with _for_want_of("cache_dir", settings.cache_dir):
            safe_directory(settings.cache_dir)
        with _for_want_of("state_dir", settings.state_dir):
            safe_directory(settings.state_dir)
        with _for_want_of("socket", settings.socket.parent):
            safe_directory(settings.socket.parent, shared=settings.allow_other)
        with _for_want_of("cache_dir", settings.cache_dir):
            cache = Cache(settings.cache_dir, Limits.for_size(settings.cache_size))
        for trouble in cache.troubles():
            log.error("%s", trouble)
        return cache

    async def _serve_with(self, cache: Cache, ready: Callable[[str], None]) -> None:
        settings = self._settings
        try:
            transport = await udp_transport(settings.local_address)
        except OSError as error:
            where = "{}:{}".format(*settings.local_address)
            raise StartError(f"no UDP socket at {where}: {error.strerror}. See --local-address") from None
        endpoint = Endpoint(transport)
        chosen = VenusSettings(
            patience=settings.patience,
            shared=settings.allow_other,
            lookaside=settings.lookaside,
            partial_size=settings.partial_size,
        )
        venus = Venus(cache, chosen)
        realms = Realms(endpoint, self._realm_settings(cache), venus, settings.state_dir)
        venus.attach(realms)
        conditions = Conditions()
        venus.hoard.hindrance = conditions.hindrance
        venus.hoard.use_profiles(settings.hoard_dir)
        venus.hoard.binder.mount_point = str(settings.mount_point) if self._kernel else None
        async with trio.open_nursery() as below:
            await below.start(endpoint.run)
            async with trio.open_nursery() as above:
                await above.start(realms.run)
                await above.start(venus.run)
                facts = DaemonFacts(cache, realms, _texts(settings), self._end)
                facts.callbacks_held = venus.callbacks_held
                facts.reused = venus.fetcher.lookaside.reused
                facts.waits_for = lambda key: venus.core.volumes.by_key(key).waiting_for
                facts.conflicts = venus.core.conflicts.count
                control = ControlServer(
                    settings.socket,
                    venus,
                    facts,
                    Logins(realms, cache, venus.logins.forget),
                    venus.events,
                    shared=settings.allow_other,
                    topics=topics(venus, settings.state_dir),
                    methods=common_methods(venus, realms, cache),
                )
                await above.start(control.run)
                watched = EventSocket(
                    settings.event_socket, venus.events, venus.volume_states, settings.event_port
                )
                await above.start(watched.run)
                above.start_soon(conditions.run)
                above.start_soon(Checkpoints(venus.core, settings.state_dir / "checkpoints").run)
                if settings.notices:
                    above.start_soon(Notices(cache, realms, venus, Desktop()).run)
                above.start_soon(network.watch, realms.network_changed)
                above.start_soon(SleepWatch(realms.fall_asleep, realms.wake_up).run)
                above.start_soon(watch_clocks, realms.network_changed)
                await self._until_the_end(venus, facts, Habits(control.session), ready)
                venus.commit_open_files()
                above.cancel_scope.cancel()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _LEAVE_WITHIN):
                await realms.leave(_LEAVE_WITHIN)
            below.cancel_scope.cancel()
        transport.close()

    def _realm_settings(self, cache: Cache) -> RealmSettings:
        settings = self._settings
        return RealmSettings(
            realms_file=settings.realms,
            name_server=settings.dns,
            uuid=cache.uuid,
            user_name=os.environ.get("USER", "realmfs")[:32],
            host_name=socket.gethostname(),
            patience=settings.patience,
            keep_tokens=settings.keep_tokens,
            tokens_in_keyring=settings.token_store == "keyring",
            channels=settings.channel_policy,
        )

    async def _until_the_end(
        self, venus: Venus, facts: DaemonFacts, habits: Habits, ready: Callable[[str], None]
    ) -> None:
        if not self._kernel:
            ready(_with_warnings("serving without a mount", facts.status().troubles))
            await self._ending.wait()
            return
        # Only here, so that everything but the mount works without pyfuse3.
        from realmfs.fuse.session import MountSettings, Session

        settings = self._settings
        session = Session(
            MountSettings(
                settings.mount_point,
                allow_other=settings.allow_other,
                create_directory=settings.default_mount_point,
                deadline=2 * settings.patience,
            )
        )
        venus.attach_kernel(session.notifier)
        facts.kernel = session
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as mounted:
                await mounted.start(session.run, with_control_files(venus, habits))
                nursery.start_soon(self._unmount_at_the_end, session)
                ready(_with_warnings(f"mounted on {session.directory}", facts.status().troubles))
            nursery.cancel_scope.cancel()

    async def _unmount_at_the_end(self, session: "Session") -> None:
        """Detach; whoever still has a file open keeps the daemon, unless there is a hurry."""
        await self._ending.wait()
        reason = await session.detach()
        if reason is not None:
            log.error("cannot unmount %s (%s): cutting the connection", session.directory, reason)
            session.abort()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._last_close, session, nursery.cancel_scope)
            await self._hurry.wait()
            with trio.move_on_after(_SIGNAL_GRACE):
                await self._at_once.wait()
            nursery.cancel_scope.cancel()
        if session.open_files():
            log.warning("files are still open on %s: cutting them off", session.directory)
        session.abort()

    async def _last_close(self, session: "Session", scope: trio.CancelScope) -> None:
        """Cancel `scope` when nothing has been open on the detached mount for a while.

        The kernel lets go by itself then, unless the mount lives on where we cannot detach it: a container
        or a sandbox that was started meanwhile has a copy of it, perhaps for days.
        """
        idle = 0.0
        while idle < _LET_GO_WITHIN:
            await trio.sleep(0.25)
            idle = 0.0 if session.open_files() else idle + 0.25
        log.info("another mount namespace or a working directory holds %s: cutting it off", session.directory)
        scope.cancel()

    def _end(self, force: bool) -> None:
        """Begin the end on behalf of a command."""
        if force:
            self._hurry.set()
            self._at_once.set()
        self._ending.set()

    async def _watch_signals(self) -> None:
        """A signal leaves open files a few seconds, the second one none."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for number in signals:
                log.info("ending: %s", signal.Signals(number).name)
                if self._hurry.is_set():
                    self._at_once.set()
                self._hurry.set()
                self._ending.set()


@contextmanager
def _for_want_of(setting: str, directory: Path) -> Iterator[None]:
    """Raise StartError if a directory cannot be used, or the cache in it."""
    try:
        yield
    except CacheError as error:
        raise StartError(error.strerror or str(error)) from error
    except OSError as error:
        why = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise StartError(f"{directory} cannot be used: {why}. See the setting {setting}") from error


def _with_warnings(text: str, troubles: Sequence[str]) -> str:
    return "\n".join([text, *(f"warning: {trouble}" for trouble in troubles)])


def _texts(settings: Settings) -> dict[str, str]:
    return {field.name: str(getattr(settings, field.name)) for field in fields(settings)}


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error in nested groups."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def run(settings: Settings, ready: Callable[[str], None], *, kernel: bool) -> None:
    """Run a daemon in this process until its end. Raises StartError."""
    process.collect_seldom()
    trio.run(lambda: Daemon(settings, kernel=kernel).run(ready))
