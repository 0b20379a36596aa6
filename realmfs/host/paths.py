"""Where things are kept: the platform's directories for a user, fixed ones for the system daemon."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import platformdirs

_APP = "realmfs"


@dataclass(frozen=True, slots=True)
class Paths:
    """Directories of configuration, cache, state (logs, remembered answers) and run time (sockets)."""

    config: Path
    cache: Path
    state: Path
    runtime: Path
    mount: Path

    @classmethod
    def of_user(cls) -> Self:
        """Return the directories of whoever runs this, by the platform's custom."""
        return cls(
            platformdirs.user_config_path(_APP),
            platformdirs.user_cache_path(_APP),
            platformdirs.user_state_path(_APP),
            _runtime_path(),
            Path.home() / "coda",
        )

    @classmethod
    def of_system(cls) -> Self:
        """Return the directories of the system daemon."""
        return cls(
            Path("/etc/realmfs"),
            Path("/var/cache/realmfs"),
            Path("/var/lib/realmfs"),
            Path("/run/realmfs"),
            Path("/coda"),
        )


def _runtime_path() -> Path:
    """Return where the user's sockets go; without a login session below /tmp, in a directory of his own."""
    given = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return Path(given) / _APP if os.path.isdir(given) else Path(f"/tmp/{_APP}-{os.getuid()}")


def safe_directory(path: Path, *, shared: bool = False) -> Path:
    """Make the directory if it is missing, for its owner only (`shared`: others may pass), and return it.

    One that exists is left as it is: it may be somebody's choice, even /tmp. What we put there is private
    by itself. Only where others could exchange what we put there, as below /tmp they could with a directory
    made beforehand in our name, we refuse. Raises OSError.
    """
    missing = not path.exists()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if missing and shared:
        path.chmod(0o755)  # whatever the umask: the daemon's lets nobody pass
    found = path.stat()
    if path.lstat().st_uid not in (0, os.geteuid()):  # a link may lead to it, but not anybody's
        raise PermissionError(13, "belongs to somebody else", str(path))
    others_write = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
    if others_write or found.st_uid not in (0, os.geteuid()):
        raise PermissionError(13, "others may write there (cure: chmod go-w)", str(path))
    return path
