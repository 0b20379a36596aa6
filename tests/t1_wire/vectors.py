"""The golden cases: bytes that the reference implementation made or accepted (tests/data)."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from realmfs.vice.types import StoreId, VersionVector

DATA = Path(__file__).parent.parent / "data"


@functools.cache
def load(name: str) -> Any:
    """Read one file of cases."""
    return json.loads((DATA / f"{name}.json").read_text())


def vector(case: dict[str, Any]) -> VersionVector:
    """Build a version vector from its JSON form."""
    return VersionVector(tuple(case["versions"]), StoreId(*case["storeid"]), case["flags"])
