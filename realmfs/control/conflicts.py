"""Conflicts and pending changes over the control socket: shown, settled, exported, imported, discarded.

Contents of versions are read like any file, by `file.open` at the path of the version. What gives changes up
writes them to a file in the state directory first; the newest of those files are kept (`_MOST_KEPT`), and the
caller is told which.
"""

import errno
import functools
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import trio

from realmfs.cache.log import LogEntry
from realmfs.control import messages
from realmfs.control.conflictwords import TYPES, version_info, why_refused
from realmfs.control.messages.pages import PAGE, ConflictPage
from realmfs.control.pages import breathe, numbers_of, size_of
from realmfs.control.protocol import INVALID_PARAMS, ControlError
from realmfs.control.service import Method
from realmfs.control.walk import Walk
from realmfs.venus import archive
from realmfs.venus.conflicts import VIEW_BIT, object_of, place_of
from realmfs.venus.face import Caller
from realmfs.venus.flight import full_record
from realmfs.venus.node import Node
from realmfs.venus.reenact import Importer
from realmfs.venus.venus import Venus
from realmfs.vice.errors import CodaError
from realmfs.vice.fixfile import FixFileError, format_fix_file, parse_fix_file
from realmfs.vice.types import ObjectType

P = TypeVar("P")
R = TypeVar("R")

_MOST_KEPT = 20
_MOST_KEPT_BYTES = 1 << 30
_CONTENTS_LIMIT = 64 << 20
_SENT_WITHIN = 8.0


class Conflicts:
    """The methods; `state` is the directory for copies of what was given up."""

    def __init__(self, venus: Venus, state: Path) -> None:
        self._venus = venus
        self._core = venus.core
        self._kept = state / "discarded"

    def methods(self, caller: Caller) -> Mapping[str, Method]:
        """Return the methods for one caller."""

        def of(run: Callable[[Caller, P], Awaitable[R]]) -> Callable[[P], Awaitable[R]]:
            @functools.wraps(run)
            async def method(params: P) -> R:
                try:
                    return await run(caller, params)
                except CodaError as error:
                    raise ControlError.of_errno(error.errno, str(error)) from error

            return method

        return {
            "conflicts.list": Method(messages.Conflicts, of(self._list)),
            "conflicts.show": Method(messages.ConflictAt, of(self._show)),
            "conflicts.settle": Method(messages.Settle, of(self._settle)),
            "conflicts.fixfile": Method(messages.FixFile, of(self._fix_file)),
            "changes.export": Method(messages.Export, of(self._export), owner_only=True),
            "changes.import": Method(messages.Import, of(self._import), owner_only=True),
            "changes.discard": Method(messages.Discard, of(self._discard)),
        }

    # -- what there is ---------------------------------------------------------------------------------

    def _may_see(self, caller: Caller, node: Node) -> bool:
        """The owner of the daemon sees all conflicts, others those of their own changes."""
        if caller.uid in (0, os.geteuid()):
            return True
        return any(entry.uid == caller.uid for entry in self._core.conflicts.held(node.ino))

    async def _list(self, caller: Caller, params: messages.Conflicts) -> ConflictPage:
        (after,) = numbers_of(params.cursor)
        found: list[messages.ConflictInfo] = []
        limit = size_of(params.limit)
        for count, number in enumerate(await self._numbers(), 1):
            await breathe(count)
            node = self._core.nodes.by_number(number)
            volume = f"{node.volume.name}@{node.volume.realm}"
            if number > after and params.volume in (None, volume) and self._may_see(caller, node):
                found.append(self._info(node, []))
                await trio.lowlevel.checkpoint()
            if len(found) == limit:
                return ConflictPage(found, str(number))
        return ConflictPage(found, None)

    async def _numbers(self) -> list[int]:
        """Return the numbers of all objects in conflict, in order."""
        numbers: set[int] = set()
        for count, number in enumerate(self._core.conflicts.each(), 1):
            numbers.add(number)
            await breathe(count)
        return sorted(numbers)

    async def _show(self, caller: Caller, params: messages.ConflictAt) -> messages.ConflictInfo:
        node = await self._find(caller, params.id, params.path)
        versions = await self._venus.versions.all(caller, node)
        path = self._path(node)
        shown = self._core.conflicts.shown(node) is not node
        realms = self._core.volumes.realms
        known = realms.tokens.all() if realms is not None else []
        tokens = [held for held in known if held.uid == caller.uid]
        return self._info(node, [version_info(path, one, shown, tokens) for one in versions])

    def _info(self, node: Node, versions: list[messages.VersionInfo]) -> messages.ConflictInfo:
        core = self._core
        held = core.conflicts.held(node.ino)
        heir = core.conflicts.heir(node.ino)
        given = [heir[1]] if heir is not None else []
        resting = len(self._venus.discarder.resting_on(node.ino)) - len(held) - len(given) if held else 0
        reasons = [why_refused(entry.reason) for entry in held[:1]]
        if node.conflict:
            reasons.append("the servers have different versions and cannot merge them")
        return messages.ConflictInfo(
            id=node.ino,
            path=self._path(node),
            realm=node.volume.realm,
            volume=node.volume.name,
            fid=str(node.fid),
            kind=core.conflicts.kind(node),
            type=TYPES[int(node.type)],
            reason="; ".join(reasons),
            changes=[type(full_record(core, entry)).__name__.lower() for entry in [*held, *given]],
            uid=held[0].uid if held else None,
            since=float(held[0].time) if held else None,
            waiting=max(resting, 0),
            versions=versions,
        )

    def _path(self, node: Node) -> str:
        return self._core.path(self._core.conflicts.shown(node)).lstrip("/")

    async def _find(self, caller: Caller, number: int | None, path: str | None) -> Node:
        if (number is None) == (path is None):
            raise ControlError(INVALID_PARAMS, "a conflict is named by its id or by its path")
        if path is not None:
            number = await self._walk(caller, path)
        node = self._in_conflict(number or 0)
        walked = node is not None and node.conflict and path is not None  # with his own rights
        if node is None or not (walked or self._may_see(caller, node)):
            what = f"/{path}" if path is not None else f"object {number}"
            raise ControlError.of_errno(errno.ENOENT, f"{what} is not in conflict. See `realmfs conflicts`")
        return node

    def _in_conflict(self, number: int) -> Node | None:
        try:
            node = self._core.nodes.by_number(number)
        except CodaError:
            return None
        return None if self._core.conflicts.kind(node) == "no" else node

    async def _walk(self, caller: Caller, path: str) -> int:
        walk = Walk(self._venus, caller)
        try:
            return (await walk.to(path, follow=False)).ino & ~VIEW_BIT
        finally:
            walk.give_back()

    # -- settling --------------------------------------------------------------------------------------

    async def _settle(self, caller: Caller, params: messages.Settle) -> messages.Settled:
        node = await self._find(caller, params.id, params.path)
        given = [one for one in (params.keep, params.contents, params.fix) if one is not None]
        if len(given) != 1 or params.keep not in (None, "local", "server", "both"):
            raise ControlError(
                INVALID_PARAMS, "say one of: keep (local, server or both), contents, a fix file"
            )
        path = self._path(node)
        heir = self._core.conflicts.heir(node.ino)
        with trio.CancelScope(shield=True):  # a caller who goes away leaves nothing half done
            names, kept = await self._do(caller, node, params)
            kind, sent = await self._outcome([node] if heir is None else [node, heir[0]])
        return messages.Settled(path, names, str(kept) if kept else None, kind, sent)

    async def _do(self, caller: Caller, node: Node, params: messages.Settle) -> tuple[list[str], Path | None]:
        repairer = self._venus.repairer
        if params.fix is not None:
            try:
                sections = parse_fix_file(params.fix)
            except FixFileError as error:
                raise ControlError.of_errno(errno.EINVAL, str(error)) from None
            await repairer.apply_fix_file(caller, node, sections)
            return [], None
        if params.contents is not None:
            await repairer.keep_contents(caller, node, _read(Path(params.contents)))
            return [], None
        if node.conflict:
            return await self._between_servers(caller, node, params)
        if params.keep == "local":
            await self._venus.settler.keep_local(caller, node)
            return [], None
        kept = await self._keep_ours(caller, node)
        if params.keep == "server":
            await self._venus.settler.keep_server(caller, node)
            return [], kept
        name = await self._venus.settler.keep_both(caller, node)
        self._drop(kept)
        return [name] if name else [], None

    async def _keep_ours(self, caller: Caller, node: Node) -> Path | None:
        """Write our version of a conflict to a file, also if it is at the servers under another name."""
        entries = self._venus.discarder.resting_on(node.ino)
        heir = self._core.conflicts.heir(node.ino)
        if heir is None or heir[0].type is not ObjectType.FILE or any(e.container for e in entries):
            return await self._keep_copy(entries)
        ours, rename = heir
        gone = {rename.sequence, *(entry.sequence for entry in self._core.conflicts.held(node.ino))}
        above, name = place_of(self._core.conflicts.held(node.ino)[0])
        async with self._venus.fetcher.contents(ours, caller.uid) as content:
            saved = archive.Saved(ours, self._core.nodes.by_number(above), name, content)
            return await self._keep_copy([entry for entry in entries if entry.sequence not in gone], saved)

    async def _between_servers(
        self, caller: Caller, node: Node, params: messages.Settle
    ) -> tuple[list[str], Path | None]:
        """Settle what the servers cannot agree on, and then what they refused of ours, if anything."""
        repairer, held = self._venus.repairer, bool(self._core.conflicts.held(node.ino))
        entries = self._venus.discarder.resting_on(node.ino) if held else []
        if params.keep == "local":
            if not held:
                text = "there is no local version: name a server with --server"
                raise ControlError.of_errno(errno.EINVAL, text)
            await repairer.keep_contents(caller, node, node)
            await self._venus.settler.keep_server(caller, node)
            return [], None
        if params.keep == "both":
            names = await repairer.keep_both(caller, node)
            if held:
                ours = await self._venus.settler.keep_both(caller, node)
                names += [ours] if ours else []
            return names, None
        kept = await self._keep_copy(entries)
        await repairer.keep_server(caller, node, params.server)
        if held:
            await self._venus.settler.keep_server(caller, node)
        return [], kept

    async def _outcome(self, nodes: Sequence[Node]) -> tuple[str, bool]:
        """Wait a while for the servers to have it; return what is left, and whether they have."""
        conflicts = self._core.conflicts

        def waits(node: Node) -> bool:
            return bool(conflicts.about(node.ino)) and not conflicts.held(node.ino)

        with trio.move_on_after(_SENT_WITHIN):
            while any(map(waits, nodes)):  # noqa: ASYNC110
                await trio.sleep(0.05)  # records have no event of their own
        kind = next((kind for kind in map(conflicts.kind, nodes) if kind != "no"), "no")
        return kind, not any(conflicts.about(node.ino) for node in nodes)

    async def _fix_file(self, caller: Caller, params: messages.FixFile) -> messages.FixText:
        node = await self._find(caller, params.id, params.path)
        if not node.is_directory or not node.conflict:
            text = f"{node.label} is no directory that the servers cannot agree on"
            raise ControlError.of_errno(errno.ENOTDIR, text)
        plan = await self._venus.repairer.plan(caller, node, params.server)
        place = node.volume.place
        servers = {one.volume_id: str(one.server) for one in place.replicas} if place is not None else {}
        return messages.FixText(format_fix_file(plan.sections, servers))

    # -- pending changes -------------------------------------------------------------------------------

    async def _entries(self, volume: str | None) -> list[LogEntry]:
        found: list[LogEntry] = []
        for key in self._core.cache.log.volumes():
            state = self._core.volumes.by_key(key)
            if volume in (None, f"{state.name}@{state.realm}"):
                for entry in self._core.cache.log.walk(key, PAGE):
                    found.append(entry)
                    await breathe(len(found))
        return found

    async def _export(self, caller: Caller, params: messages.Export) -> messages.Kept:
        entries = await self._entries(params.volume)
        if not entries:
            return messages.Kept(None, 0, 0)
        path = _absolute(params.file)
        with _explained(path):
            written = await archive.export(self._core, entries, path)
        return messages.Kept(str(path), written.changes, written.bytes)

    async def _import(self, caller: Caller, params: messages.Import) -> messages.Imported:
        path = _absolute(params.file)
        with _explained(path):
            changes = await trio.to_thread.run_sync(archive.read, path)
        result = await Importer(self._venus.tools, self._venus.files, caller, path).run(changes)
        return messages.Imported(result.done, result.failed)

    async def _discard(self, caller: Caller, params: messages.Discard) -> messages.Kept:
        entries = await self._entries(params.volume)
        if params.sequence is not None:
            chosen = [entry for entry in entries if entry.sequence == params.sequence]
            if not chosen:
                raise ControlError.of_errno(
                    errno.ENOENT, f"no change {params.sequence} waits. See `realmfs changes --json`"
                )
            entries = self._venus.discarder.resting_on(object_of(chosen[0]))
        if any(entry.uid != caller.uid for entry in entries) and caller.uid not in (0, os.geteuid()):
            raise ControlError.of_errno(errno.EPERM, "these changes are another user's. Ask him, or root")
        kept = await self._keep_copy(entries)
        size = sum(entry.size for entry in entries)
        try:
            for key in {entry.volume for entry in entries}:
                ours = [entry for entry in entries if entry.volume == key]
                author = Caller(ours[0].uid, caller.gid, caller.pid, kernel=False)
                await self._venus.discarder.discard(author, ours)
        except CodaError:
            if all(self._core.cache.log.get(entry.volume, entry.sequence) for entry in entries):
                self._drop(kept)  # nothing was given up
            raise
        for number in {object_of(entry) for entry in entries}:
            node = self._core.nodes.by_number(number)
            if self._core.conflicts.shown(node) is not node and not node.conflict:
                self._core.settled(node, "discarded")
        return messages.Kept(str(kept) if kept else None, len(entries), size)

    async def _keep_copy(
        self, entries: Sequence[LogEntry], saved: archive.Saved | None = None
    ) -> Path | None:
        """Write what will be given up to a file of its own, and forget the oldest of such files."""
        if not entries and saved is None:
            return None
        self._kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        now = time.time_ns()
        stem = time.strftime("%Y%m%d-%H%M%S", time.localtime(now / 1e9))
        path = self._kept / f"{stem}-{now % 10**9:09}.tar"
        with _explained(path):
            await archive.export(self._core, entries, path, saved)
        self._prune(path)
        return path

    def _prune(self, newest: Path) -> None:
        """Keep the newest files, so many and of so many bytes; the newest one in any case."""
        files = sorted((path.stat().st_mtime_ns, path) for path in self._kept.glob("*.tar") if path != newest)
        left = _MOST_KEPT_BYTES - newest.stat().st_size
        for count, (_, path) in enumerate(reversed(files), 2):
            left -= path.stat().st_size
            if count > _MOST_KEPT or left < 0:
                path.unlink(missing_ok=True)

    def _drop(self, path: Path | None) -> None:
        if path is not None:
            path.unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    with _explained(path):
        if path.stat().st_size > _CONTENTS_LIMIT:
            raise ControlError.of_errno(errno.EFBIG, f"{path} is too large to be given this way")
        return path.read_bytes()


def _absolute(name: str) -> Path:
    path = Path(name)
    if not path.is_absolute():
        raise ControlError(INVALID_PARAMS, "the daemon has a working directory of its own: name a full path")
    return path


class _explained:  # noqa: N801  # used like a function
    """Turn what goes wrong with a local file into a ControlError that names it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, archive.ArchiveError):
            raise ControlError.of_errno(errno.EINVAL, str(error)) from error
        if isinstance(error, OSError):
            number = error.errno or errno.EIO
            raise ControlError.of_errno(number, f"{self._path}: {error.strerror}") from error
