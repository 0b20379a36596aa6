"""The parameters that several calls of the file service share, and how much of each there may be."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Final

from realmfs.vice.types import Status
from realmfs.vice.wire import MAX_BUFFER, bounded, counted, own_codec

WHOLE: Final = 0xFFFFFFFF
"""The count that means "to the end" in FetchPartial."""
MAX_PIGGIES: Final = 50
"""Most objects that one ValidateAttrs may carry besides its primary one (vice.md §5.2)."""
MAX_STALE_DIRS: Final = 50
"""Most stale directories that a Reintegrate asks for (reintegration.md §2.1)."""
SHA_SIZE: Final = 20
VOLUME_NAME_SIZE: Final = 32
"""A volume name with its NUL."""
NOTICE_SIZE: Final = 128
"""Room for the off-line message, and for the message of the day; servers insist on it (vice.md §5.1)."""

PiggyCop2 = Annotated[bytes, counted(MAX_BUFFER)]
"""COP2 entries (`realmfs.vice.cop2`) that the server executes before the call itself."""
VersionStamps = Annotated[bytes, counted(32)]
"""OldVS: stamps in the sender's byte order, which no server can use; send it empty (vice.md §5.2, SetACL)."""
StatusArgument = Annotated[Status, replace(own_codec(Status), unpack=Status.unpack_argument)]
"""A status in a request, of which only the fields the call names count."""
StatusResult = Annotated[Status, own_codec(Status)]
VolumeName = Annotated[bytes, bounded(VOLUME_NAME_SIZE)]
Notice = Annotated[bytes, bounded(NOTICE_SIZE)]
Sha = Annotated[bytes, bounded(SHA_SIZE)]
"""SHA-1 of a file, or nothing. No proof of anything: it may be that of older contents (vice.md §5.2)."""
ValidityFlags = Annotated[bytes, bounded(MAX_BUFFER)]
"""One byte per object or volume asked about."""


def until_nul(text: bytes) -> bytes:
    """Return a text that servers send with its NUL counted, without it."""
    return text.partition(b"\0")[0]
