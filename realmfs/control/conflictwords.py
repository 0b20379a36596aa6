"""What is said of conflicts: why a change was refused, what a version is and who made it."""

import os
import pwd
from collections.abc import Iterable

from realmfs.control.messages import VersionInfo
from realmfs.realms.tokens import Held
from realmfs.venus.versions import Version
from realmfs.vice.errors import CodaError, Code

TYPES = {1: "file", 2: "directory", 3: "link"}
_MEANWHILE = {
    Code.ENOENT: "it was removed, or replaced by another of its name, at the servers meanwhile",
    Code.VNOVNODE: "it was removed, or replaced by another of its name, at the servers meanwhile",
    Code.EEXIST: "something else was given this name at the servers meanwhile",
    Code.ENOTEMPTY: "something was put into the directory at the servers meanwhile",
    Code.ENOTDIR: "what was a directory is none at the servers now",
}
"""Refusals that mean a change by others; what the number says by itself would mislead."""
_GROUPS = 1 << 31
"""From here on ids are of groups, System:AnyUser among them (negative numbers, as words)."""


def why_refused(reason: int) -> str:
    """Return why servers refused a change, by the number they gave."""
    code = Code.of(reason)
    known = _MEANWHILE.get(code)
    return f"{known} ({code.name})" if known else str(CodaError(code))


def version_info(path: str, version: Version, shown: bool, tokens: Iterable[Held]) -> VersionInfo:
    """Describe a version of what is at `path`; without a view (`shown` False) ours is the object itself."""
    status = version.node.status
    assert status is not None
    name = os.fsdecode(version.name)
    realm, replica = version.node.volume.realm, version.replica
    return VersionInfo(
        name=name,
        path=f"{path}/{name}" if shown else path,
        server=str(replica.server) if replica is not None else None,
        type=TYPES[int(status.type)],
        size=status.length,
        mtime=float(status.date),
        author=status.author,
        owner=status.owner,
        mode=status.mode,
        version=str(status.vv),
        by=local_author(status.author) if replica is None else author(status.author, realm, tokens),
    )


def local_author(uid: int) -> str:
    """Return who a local user is."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def author(vice_id: int, realm: str, tokens: Iterable[Held]) -> str:
    """Return who has a Vice id in a realm; a name only if somebody here is logged in as him."""
    if vice_id >= _GROUPS:
        return "somebody not logged in"
    names = (held.user for held in tokens if held.realm == realm and held.token.clear.vice_id == vice_id)
    name = next(filter(None, names), "")
    return f"{name} ({vice_id})" if name else f"id {vice_id}"
