"""Which names may be made, looked up and removed here (directories.md §3.3, client.md §14)."""

from realmfs.vice.directory import MAX_NAME
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.mountlink import ObjectMount, format_mount_link
from realmfs.vice.names import is_expanded, is_reserved
from realmfs.vice.types import Fid

LINK_LIMIT = 1023
FILE_LIMIT = 2**31 - 1  # a log record carries a signed 32-bit length (reintegration.md §1.1)


def conflict_text(fid: Fid, realm: str) -> bytes:
    """Return the text of the dangling link that shows an object in conflict (conflicts.md §3.1)."""
    return format_mount_link(ObjectMount(fid, realm, collapsed=False))


def check_lookup(name: bytes) -> None:
    """Refuse what no directory can hold. Raises CodaError: EINVAL, ENAMETOOLONG."""
    if len(name) > MAX_NAME:
        raise CodaError(Code.ENAMETOOLONG, "a name has at most 255 bytes")
    if not name or b"/" in name or b"\0" in name:
        raise CodaError(Code.EINVAL, "not a name")


def check_new(name: bytes) -> None:
    """Refuse a name that may not be made. Raises CodaError: EINVAL, ENAMETOOLONG; EEXIST for the dots."""
    check_lookup(name)
    if name in (b".", b".."):
        raise CodaError(Code.EEXIST, "the dots are always there")
    if is_reserved(name):
        raise CodaError(Code.EINVAL, "names of this form show conflicts")
    if is_expanded(name):
        raise CodaError(Code.EINVAL, "names that end in @sys or @cpu are replaced at lookup")


def check_removal(name: bytes) -> None:
    """Refuse to remove or rename the dots and the names that show conflicts. Raises CodaError EINVAL."""
    check_lookup(name)
    if name in (b".", b"..") or is_reserved(name):
        raise CodaError(Code.EINVAL, "not a name to remove")
