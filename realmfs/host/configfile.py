"""Editing a configuration file: one key is set or taken out, every other line stays as its author wrote it.

Keys stand at the head of the file, before its first table. Nothing here understands TOML beyond that: what
comes out is read back and compared, and refused if more than the one key has changed (a value over several
lines, say).
"""

import json
import re
import tomllib

from realmfs.host.settings import ConfigError


def with_key(text: str, name: str, value: str | bool | None) -> str:
    """Return the file with a key set, or, for None, without it. Raises ConfigError."""
    lines = text.splitlines()
    head = next((number for number, line in enumerate(lines) if line.lstrip().startswith("[")), len(lines))
    key = re.compile(rf"\s*(?:{name}|\"{name}\"|'{name}')\s*=")
    places = [number for number in range(head) if key.match(lines[number])]
    fresh = [] if value is None else [f"{name} = {json.dumps(value, ensure_ascii=False)}"]
    if places:
        lines[places[0] : places[0] + 1] = fresh
    else:
        while head and not lines[head - 1].strip():
            head -= 1
        lines[head:head] = fresh
    changed = "".join(f"{line}\n" for line in lines)
    if not _only(name, value, text, changed):
        raise ConfigError(f"the file sets {name} in a way that only a person can change. Use an editor")
    return changed


def _only(name: str, value: str | bool | None, before: str, after: str) -> bool:
    """Tell whether only this key differs, and is as wanted."""
    try:
        old, new = tomllib.loads(before), tomllib.loads(after)
    except tomllib.TOMLDecodeError:
        return False
    old.pop(name, None)
    return new.pop(name, None) == value and old == new
