"""Volumes and connections: location, status, stamps, fids, statistics, channels (vice.md §2, §5.1)."""

from __future__ import annotations

import os
import re
import resource
import struct
import time
from typing import Final

from realmfs.rpc2.codes import Rpc2Code
from realmfs.server.locations import Location
from realmfs.server.state import Caller, Refusal, ServerState
from realmfs.server.volumes import ROOT_VOLUME, Volume
from realmfs.vice import calls
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import (
    VICE_VERSION,
    Disk,
    Fid,
    FidRange,
    ObjectType,
    Rights,
    Statistics,
    VolumeStatus,
    VolumeType,
)
from realmfs.vice.volumes import COUNTERS
from realmfs.vice.wire import NoResults

_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,8}|[0-9]{1,12}")
_WORD: Final = struct.Struct(">I")
_MAX_BLOCKS: Final = 0x7FFFFFFF
_NO_STAMP, _CURRENT, _STALE = 0, 1, 255


class VolumeCalls:
    """The handlers."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    # connections

    async def new_connection(self, caller: Caller, args: calls.NewConnectFS) -> NoResults:
        """Build the callback channel before answering.

        A wrong version loses the client all its connections.
        """
        if args.version != VICE_VERSION:
            self._state.hosts.drop(caller.host, f"it speaks version {args.version}")
            raise Refusal(Rpc2Code.FAIL, NoResults())
        await self._state.hosts.connect(caller.host)
        return NoResults()

    async def get_time(self, caller: Caller, args: calls.GetTime) -> calls.GetTime.Reply:
        """Tell the time, after checking the callback channel."""
        await self._state.hosts.connect(caller.host)
        now = self._state.clock()
        return calls.GetTime.Reply(seconds=int(now), microseconds=int(now % 1 * 1e6))

    async def disconnect(self, caller: Caller, args: calls.DisconnectFS) -> NoResults:
        """End one connection; the client unbinds by itself."""
        return NoResults()

    # location

    async def get_root_volume(self, caller: Caller, args: calls.GetRootVolume) -> calls.GetRootVolume.Reply:
        """Return the name of the root volume, with its NUL."""
        name = ROOT_VOLUME.encode() + b"\0"
        if args.volume_room < len(name):
            raise CodaError(Code.VNOVOL)
        return calls.GetRootVolume.Reply(volume=name)

    async def get_volume_info(self, caller: Caller, args: calls.GetVolumeInfo) -> calls.GetVolumeInfo.Reply:
        """Say where a volume lives, by name or id; the empty name is the root volume's."""
        found = self._locate(args.name.decode("utf-8", "replace") or ROOT_VOLUME)
        if found is None:
            raise CodaError(Code.VNOVOL)
        location, asked = found
        return calls.GetVolumeInfo.Reply(info=location.info(asked, self._state.store.servers()))

    async def get_volume_location(
        self, caller: Caller, args: calls.GetVolumeLocation
    ) -> calls.GetVolumeLocation.Reply:
        """Say which host, and port, serves a replica."""
        found = self._state.store.locations.find(args.volume)
        holders = [replica.server for replica in found.replicas if replica.id == args.volume] if found else []
        server = self._state.store.servers().get(holders[0]) if holders else None
        if server is None:
            raise CodaError(Code.VNOSERVICE)
        text = f"{server.address}:{server.port}".encode()
        if len(text) + 1 > args.host_room:
            raise CodaError(Code.ENAMETOOLONG)
        return calls.GetVolumeLocation.Reply(host_port=text)

    # status

    async def get_volume_status(
        self, caller: Caller, args: calls.GetVolumeStatus
    ) -> calls.GetVolumeStatus.Reply:
        """Return quota and texts; needs READ on the volume's root."""
        rooms = (args.name_room, args.offline_room, args.motd_room)
        if any(room < size for room, size in zip(rooms, (32, 128, 128), strict=True)):
            raise CodaError(Code.EINVAL)
        volume = self._state.group(args.volume) if args.is_replicated else self._state.volume(args.volume)
        root = self._state.find(Fid.root(args.volume), inconsistent_ok=True)
        if not caller.identity.may(self._state.acl_of(root.vnode), Rights.READ):
            raise CodaError(Code.EACCES)
        return calls.GetVolumeStatus.Reply(
            status=self._status(volume),
            name=volume.replica_name.encode() + b"\0",
            offline=volume.offline_message + b"\0",
            motd=volume.motd + b"\0",
        )

    async def set_volume_status(
        self, caller: Caller, args: calls.SetVolumeStatus
    ) -> calls.SetVolumeStatus.Reply:
        """Set quotas and texts, for administrators. A new quota is an update of the root directory."""
        state = self._state
        state.cop2(args.piggy_cop2)
        async with state.exclusive(state.volume(args.volume)):
            root = state.find(Fid.root(args.volume), inconsistent_ok=True)
            caller.require_administrator()
            volume, vnode = root.volume, root.vnode
            changes: dict[str, int | bytes] = {}
            quotas = {"min_quota": args.status.min_quota, "max_quota": args.status.max_quota}
            changes.update({column: value for column, value in quotas.items() if value > -1})
            texts = {"offline_message": calls.until_nul(args.offline), "motd": calls.until_nul(args.motd)}
            changes.update({column: text for column, text in texts.items() if text})
            with state.store.transaction():
                state.store.volumes.set_status(volume.id, **changes)
                if "max_quota" in changes:
                    vnodes = state.store.vnodes
                    store_id = vnodes.id_upon(vnode.fid, vnode.vv, args.store_id)
                    vnode.vv = vnodes.count_update(vnode.fid, vnode.vv, volume.slot, store_id)
                    state.store.vnodes.write([vnode])
                    state.store.volumes.settle(volume.id, 1, 0)
            await state.store.database.durable()
        if "max_quota" in changes:
            await state.hosts.break_promises(volume, [vnode.fid], caller.host)
        now = state.volume(args.volume)
        return calls.SetVolumeStatus.Reply(
            status=self._status(now),
            name=args.name,
            offline=now.offline_message + b"\0",
            motd=now.motd + b"\0",
        )

    # stamps and fids

    async def get_vol_vs(self, caller: Caller, args: calls.GetVolVS) -> calls.GetVolVS.Reply:
        """Return this server's stamp of a volume, and promise to tell of any change in it."""
        volume = self._state.group(args.volume)
        promised = self._state.hosts.promise(caller.host, Fid(args.volume, 0, 0))
        return calls.GetVolVS.Reply(stamp=volume.stamp, promised=promised)

    async def validate_vols(self, caller: Caller, args: calls.ValidateVols) -> calls.ValidateVols.Reply:
        """Say whether each volume has the given stamp: 1 with a promise, 0 without, 255 not."""
        if args.flags_room < len(args.volumes) or len(args.stamps) % 4:
            raise CodaError(Code.EINVAL)
        stamps = [word[0] for word in _WORD.iter_unpack(args.stamps)]
        flags = bytes(self._check_stamp(caller, number, at, stamps) for at, number in enumerate(args.volumes))
        return calls.ValidateVols.Reply(flags=flags)

    async def alloc_fids(self, caller: Caller, args: calls.AllocFids) -> calls.AllocFids.Reply:
        """Hand out fids for new objects, at most 32."""
        return calls.AllocFids.Reply(range=await self._allocate(args.volume, args.type, args.range.count))

    async def old_alloc_fids(self, caller: Caller, args: calls.OldAllocFids) -> calls.OldAllocFids.Reply:
        """Hand out fids if this server is the one that was picked."""
        self._state.cop2(args.piggy_cop2)
        address = bytes(map(int, self._state.store.address.address.split(".")))
        if int.from_bytes(address, "big") != args.host:
            return calls.OldAllocFids.Reply(range=FidRange(0, 0, 0, 0))
        return calls.OldAllocFids.Reply(range=await self._allocate(args.volume, args.type, args.range.count))

    # the server itself

    async def get_statistics(self, caller: Caller, args: calls.GetStatistics) -> calls.GetStatistics.Reply:
        """Return what the server counts of its life."""
        state = self._state
        usage, network = resource.getrusage(resource.RUSAGE_SELF), state.endpoint.statistics()
        free, total = state.store.containers.space()
        hosts = state.hosts.all()
        values = dict(state.counters) | {
            "current_time": int(state.clock()),
            "boot_time": int(state.clock() - time.clock_gettime(time.CLOCK_BOOTTIME)),
            "start_time": state.started,
            "current_connections": sum(len(host.sessions) for host in hosts),
            "rpc_packets_sent": network.get("packets_out", 0),
            "rpc_packets_received": network.get("packets_in", 0),
            "rpc_bytes_sent": network.get("bytes_out", 0),
            "rpc_bytes_received": network.get("bytes_in", 0),
            "rpc_bogus_packets": network.get("bad", 0),
            "workstations": len(hosts),
            "active_workstations": sum(1 for host in hosts if host.sessions),
            "minor_faults": usage.ru_minflt,
            "major_faults": usage.ru_majflt,
            "user_time": int(usage.ru_utime * 100),
            "system_time": int(usage.ru_stime * 100),
            "resident_size": usage.ru_maxrss,
        }
        counters = tuple(values.get(name, 0) & 0xFFFFFFFF for name in COUNTERS)
        name = os.fsencode(state.store.directory.name)[:31]
        disks = (Disk(min(free >> 10, _MAX_BLOCKS), min(total >> 10, _MAX_BLOCKS), name),)
        return calls.GetStatistics.Reply(statistics=Statistics(counters, disks))

    def _status(self, volume: Volume) -> VolumeStatus:
        free, total = (min(size >> 10, _MAX_BLOCKS) for size in self._state.store.containers.space())
        return VolumeStatus(
            volume.id, volume.id, True, True, True, False, VolumeType.READ_WRITE, volume.min_quota,
            volume.max_quota, min(volume.blocks, _MAX_BLOCKS), free, total,
        )  # fmt: skip

    def _check_stamp(self, caller: Caller, number: int, at: int, stamps: list[int]) -> int:
        """Return the flag of one volume; `at` is its place among those asked about."""
        volume = self._state.store.volumes.find(number)
        if volume is None or volume.filling or volume.group_id != number:
            return _STALE
        place = at * self._state.store.volumes.replicas(volume) + volume.slot
        if place >= len(stamps) or stamps[place] != volume.stamp:
            return _STALE
        return _CURRENT if self._state.hosts.promise(caller.host, Fid(number, 0, 0)) else _NO_STAMP

    async def _allocate(self, number: int, kind: ObjectType, count: int) -> FidRange:
        if kind is ObjectType.INVALID or count <= 0:
            raise CodaError(Code.EINVAL)
        volume = self._state.group(number)
        granted = self._state.store.volumes.allocate(volume, kind is ObjectType.DIRECTORY, count)
        await self._state.store.database.durable()  # what is handed out must be known after a crash
        return granted

    def _locate(self, name: str) -> tuple[Location, int] | None:
        """Return the volume that a name or number denotes, and the id meant: the group's or a replica's."""
        locations = self._state.store.locations
        found = locations.named(name)
        if found is not None:
            return found, found.group_id
        number = _as_number(name)
        if number is None:
            volume, _, slot = name.rpartition(".")
            found = locations.named(volume)
            ids = [one.id for one in found.replicas if str(one.slot) == slot] if found is not None else []
            return (found, ids[0]) if found is not None and ids else None
        found = locations.find(number)
        return (found, number) if found is not None else None


def _as_number(text: str) -> int | None:
    """Read a volume id as C does: decimal, 0x hexadecimal, 0 octal."""
    if not _NUMBER.fullmatch(text):
        return None
    octal = len(text) > 1 and text[0] == "0" and text[1] not in "xX"
    try:
        return int(text, 8 if octal else 0)
    except ValueError:
        return None
