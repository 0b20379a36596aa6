"""What a process that holds keys and serves a file system does to itself."""

import contextlib
import ctypes
import gc
import logging
import logging.handlers
import os
import resource
import socket
import sys
from pathlib import Path

_PR_SET_DUMPABLE = 4
_LOG_BYTES = 5 << 20
_LOG_FILES = 3
_OPEN_FILES = 65536
_COLLECT = (20_000, 20, 100)


def forbid_core_dumps() -> None:
    """Leave nothing of our memory on the disk if we crash."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def keep_secrets() -> None:
    """No core dumps and no debugger of the same user, as memory holds keys; new files are private."""
    forbid_core_dumps()
    os.umask(0o077)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def raise_file_limit() -> None:
    """Allow ourselves as many open files as the system lets us: each file open on the mount is one here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def collect_seldom() -> None:
    """Look for garbage in cycles less often, and never in the program itself.

    A daemon makes hardly any cycles, and tens of thousands of objects that stay: the nodes of the cache.
    """
    gc.freeze()
    gc.set_threshold(*_COLLECT)


def log_to(file: Path | None, level: str) -> None:
    """Send the log to a rotating file, readable by its owner only; None: to stderr."""
    handler: logging.Handler
    if file is None:
        handler = logging.StreamHandler()
    else:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handler = logging.handlers.RotatingFileHandler(file, maxBytes=_LOG_BYTES, backupCount=_LOG_FILES)
        file.chmod(0o600)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.getLogger("pyfuse3").setLevel(logging.INFO)


def tell_service_manager(state: str) -> None:
    """Tell systemd (sd_notify(3)), if it started us and wants to know."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as telling, contextlib.suppress(OSError):
        telling.connect("\0" + address[1:] if address.startswith("@") else address)
        telling.send(state.encode())
