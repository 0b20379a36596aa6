"""The configuration: one table of keys, from which come `config.toml`, the flags and the reference page.

A flag beats the file, the file beats the default. A key that is not in the table is an error, as is a value
of the wrong kind: a setting with a spelling mistake must not be silently without effect.
"""

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realmfs.host.paths import Paths
from realmfs.realms.names import fold, is_name
from realmfs.realms.settings import ChannelPolicy, Tls

FILE = "config.toml"
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_LEVELS = ("debug", "info", "warning", "error")
SMALLEST_CACHE = 2 << 20


class ConfigError(ValueError):
    """A setting that cannot be; the text names file, key and what would do."""


def size(value: Any) -> int:
    """Read a number of bytes: 2000000, "20M", "1.5GB"."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", str(value).strip(), re.IGNORECASE)
    if match is None or isinstance(value, bool):
        raise ValueError("must be a size such as 500M or 20G")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _cache_size(value: Any) -> int:
    number = size(value)
    if number < SMALLEST_CACHE:
        raise ValueError("must be at least 2M")
    return number


def _seconds(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if isinstance(value, bool) or not 1.0 <= number <= 3600.0:
        raise ValueError("must be a number of seconds from 1 to 3600")
    return number


def _path(value: Any) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError("must be a path")
    return Path(os.path.abspath(Path(value).expanduser()))


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _token_store(value: Any) -> str:
    if value not in ("files", "keyring"):
        raise ValueError("must be files or keyring")
    return str(value)


def _level(value: Any) -> str:
    if value not in _LEVELS:
        raise ValueError(f"must be one of {', '.join(_LEVELS)}")
    return str(value)


def _tls(value: Any) -> Tls:
    known = [tls.value for tls in Tls]
    if value not in known:
        raise ValueError(f"must be one of {', '.join(known)}")
    return Tls(value)


def _host_port(default_port: int) -> Callable[[Any], tuple[str, int]]:
    def read(value: Any) -> tuple[str, int]:
        host, _, port = value.partition(":") if isinstance(value, str) else ("", "", "")
        if not host or not (port or str(default_port)).isdecimal() or int(port or default_port) > 65535:
            raise ValueError("must be HOST or HOST:PORT")
        return host, int(port or default_port)

    return read


def _port(value: Any) -> int:
    number = int(value) if isinstance(value, int | str) and str(value).isdecimal() else 0
    if isinstance(value, bool) or not 0 < number < 65536:
        raise ValueError("must be a port number")
    return number


@dataclass(frozen=True, slots=True)
class Key:
    """One setting: its name in the file, its reader, what it means, and the default in words."""

    name: str
    read: Callable[[Any], Any]
    meaning: str
    default: str

    @property
    def flag(self) -> str:
        """The command-line flag."""
        return "--" + self.name.replace("_", "-")

    @property
    def is_switch(self) -> bool:
        """Tell whether the flag takes no value."""
        return self.read is _flag


KEYS = (
    Key("mount_point", _path, "directory to mount on", "~/coda"),
    Key("cache_dir", _path, "directory of the cache and of the changes that wait", "the platform's"),
    Key("cache_size", _cache_size, "room for file contents", "1G"),
    Key("state_dir", _path, "directory of logs and remembered answers", "the platform's"),
    Key("hoard_dir", _path, "directory of hoard profiles", "`hoard` beside the configuration file"),
    Key("lookaside", _path, "directory of files that are used instead of fetching the same again", "none"),
    Key("partial_size", size, "of files of this size and more only what is read is brought", "50M"),
    Key("realms", _path, "file of realms and their servers, in the format of Coda's `realms`", "none"),
    Key("dns", _host_port(53), "name server to ask instead of the system's, HOST[:PORT]", "the system's"),
    Key("local_address", _host_port(0), "local address of our UDP socket, HOST[:PORT]", "0.0.0.0"),
    Key("tls", _tls, "whether to reach file servers through TLS: auto, off, prefer or require", "auto"),
    Key(
        "ca_dir",
        _path,
        "certificates of realms' authorities, as REALM.pem",
        "ca beside config.toml",
    ),
    Key("allow_other", _flag, "let other users of this machine in, each with his own rights", "false"),
    Key("keep_tokens", _flag, "keep logins over a restart", "false"),
    Key(
        "token_store",
        _token_store,
        "where logins are kept: in private `files` of the state directory, or in the desktop's `keyring`",
        "files",
    ),
    Key("notices", _flag, "tell on the desktop of conflicts, logins that end and changes that stay", "true"),
    Key("patience", _seconds, "seconds after which a request that makes no progress fails", "10"),
    Key(
        "socket",
        _path,
        "control socket",
        "in the runtime directory; with `allow_other`, root: `/run/realmfs`",
    ),
    Key("event_socket", _path, "socket for the reference's codacon", "`control.events` beside `socket`"),
    Key("event_port", _port, "TCP port of the loopback for `codacon -tcp`, which asks 2430", "none"),
    Key("log_file", _path, "log", "in the state directory"),
    Key("log_level", _level, "what is logged: debug, info, warning or error", "info"),
)
_BY_NAME = {key.name: key for key in KEYS}

REALM_TABLE = "realm"
"""`[realm."NAME"]` in the file: what holds for one realm only."""
REALM_KEYS = (
    Key("tls", _tls, "as the key of that name above, for this realm", "that key's"),
    Key("ca", _path, "certificate of the realm's authority, or a directory of several", "`ca_dir`/NAME.pem"),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in effect."""

    mount_point: Path
    cache_dir: Path
    cache_size: int
    state_dir: Path
    hoard_dir: Path
    lookaside: Path | None
    partial_size: int
    realms: Path | None
    dns: tuple[str, int] | None
    local_address: tuple[str, int]
    tls: Tls
    ca_dir: Path
    allow_other: bool
    keep_tokens: bool
    token_store: str
    notices: bool
    patience: float
    socket: Path
    event_socket: Path
    event_port: int | None
    log_file: Path
    log_level: str
    default_mount_point: bool
    """Nobody named `mount_point`: it may be made."""
    realm: Mapping[str, Mapping[str, Any]]
    """The keys of single realms, by their folded names."""

    def channel_policy(self, realm: str) -> ChannelPolicy:
        """Return how packets may travel to the servers of a realm."""
        own = self.realm.get(realm, {})
        return ChannelPolicy(own.get("tls", self.tls), own.get("ca", self.ca_dir / f"{realm}.pem"))


def read_value(name: str, value: Any, where: str) -> Any:
    """Read one setting; `where` names its source in the ConfigError."""
    key = _BY_NAME.get(name)
    if key is None:
        known = ", ".join(_BY_NAME)
        raise ConfigError(f"{where}: there is no setting {name!r}. Known ones: {known}")
    try:
        return key.read(value)
    except ValueError as error:
        raise ConfigError(f"{where}: {name} {error}, not {value!r}") from None


def read_file(path: Path) -> dict[str, Any]:
    """Read a configuration file; a missing one is empty. Raises ConfigError."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a TOML file: {error}") from None
    realms = _read_realms(values.pop(REALM_TABLE, {}), str(path))
    read = {name: read_value(name, value, str(path)) for name, value in values.items()}
    return {REALM_TABLE: realms, **read}


def _read_realms(tables: Any, where: str) -> dict[str, dict[str, Any]]:
    """Read the tables of single realms. Raises ConfigError."""
    if not isinstance(tables, dict):
        raise ConfigError(f'{where}: {REALM_TABLE} must be tables such as [{REALM_TABLE}."example.org"]')
    readers = {key.name: key for key in REALM_KEYS}
    read: dict[str, dict[str, Any]] = {}
    for realm, table in tables.items():
        place = f'{where}: [{REALM_TABLE}."{realm}"]'
        if not isinstance(table, dict) or not is_name(fold(realm)):
            raise ConfigError(f"{place} is no table of a realm; put its name into quotes")
        keys = read.setdefault(fold(realm), {})
        for name, value in table.items():
            if name not in readers:
                known = ", ".join(readers)
                raise ConfigError(f"{place}: there is no setting {name!r}. Known ones: {known}")
            try:
                keys[name] = readers[name].read(value)
            except ValueError as error:
                raise ConfigError(f"{place}: {name} {error}, not {value!r}") from None
    return read


def settle(paths: Paths, file: Path | None, flags: Mapping[str, Any]) -> Settings:
    """Combine flags (values None are absent), file and defaults. Raises ConfigError."""
    if file is not None and not file.exists():
        raise ConfigError(f"{file} does not exist. Name another configuration file, or leave --config out")
    values = read_file(file or paths.config / FILE)
    for name, value in flags.items():
        if value is not None:
            key = _BY_NAME[name]
            values[name] = read_value(name, value, key.flag)
    state = values.get("state_dir", paths.state)
    socket = values.get("socket", _runtime(paths, shared=values.get("allow_other", False)) / "control.sock")
    return Settings(
        mount_point=values.get("mount_point", paths.mount),
        cache_dir=values.get("cache_dir", paths.cache),
        cache_size=values.get("cache_size", 1 << 30),
        state_dir=state,
        hoard_dir=values.get("hoard_dir", paths.config / "hoard"),
        lookaside=values.get("lookaside"),
        partial_size=values.get("partial_size", 50 << 20),
        realms=values.get("realms"),
        dns=values.get("dns"),
        local_address=values.get("local_address", ("0.0.0.0", 0)),
        tls=values.get("tls", Tls.AUTO),
        ca_dir=values.get("ca_dir", paths.config / "ca"),
        allow_other=values.get("allow_other", False),
        keep_tokens=values.get("keep_tokens", False),
        token_store=values.get("token_store", "files"),
        notices=values.get("notices", True),
        patience=values.get("patience", 10.0),
        socket=socket,
        event_socket=values.get("event_socket", socket.with_suffix(".events")),
        event_port=values.get("event_port"),
        log_file=values.get("log_file", state / "realmfs.log"),
        log_level=values.get("log_level", "info"),
        default_mount_point="mount_point" not in values,
        realm=values.get(REALM_TABLE, {}),
    )


def _runtime(paths: Paths, *, shared: bool) -> Path:
    """Return where sockets go; those that every user shall reach, not into a directory of root's own."""
    return Paths.of_system().runtime if shared and os.geteuid() == 0 else paths.runtime
