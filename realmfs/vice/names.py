"""Names that Coda keeps to itself, and names that each machine reads its own way (directories.md §3.3)."""

from __future__ import annotations

import re
from typing import Final

_RESERVED: Final = re.compile(rb"@.{8}\..{8}\..{8}@.", re.DOTALL)
_EXPANDED: Final = (b"@sys", b"@cpu")


def is_reserved(name: bytes) -> bool:
    """Whether a name has the shape of a conflict, `@XXXXXXXX.YYYYYYYY.ZZZZZZZZ@…`: making one is EINVAL."""
    return _RESERVED.match(name) is not None


def is_expanded(name: bytes) -> bool:
    """Whether a name ends in `@sys` or `@cpu`, so that it is replaced on lookup; creating it is EINVAL."""
    return name.endswith(_EXPANDED)


def expand(name: bytes, system: bytes, cpu: bytes) -> bytes:
    """Return the name that `@sys` or `@cpu` at the end of a name stands for on a machine."""
    if name.endswith(b"@sys"):
        return name[:-4] + system
    if name.endswith(b"@cpu"):
        return name[:-4] + cpu
    return name
