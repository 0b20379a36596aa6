"""What a user may choose about the cache manager; all have a sensible value."""

from dataclasses import dataclass
from pathlib import Path

# Desktop programs that read every file they see: for them nothing is fetched (features.md §13).
QUIET_PROGRAMS = frozenset(
    {
        "tracker-extract",
        "tracker-miner-f",
        "localsearch-ext",
        "baloo_file",
        "baloo_file_extr",
        "tumblerd",
        "thumbnail.so",
        "gdk-pixbuf-thum",
        "ffmpegthumbnail",
        "totem-video-thu",
        "evince-thumbnai",
        "updatedb",
        "updatedb.mlocat",
        "updatedb.plocat",
        "recollindex",
    }
)


@dataclass(frozen=True, slots=True)
class VenusSettings:
    """Times in seconds, sizes in bytes.

    `patience` bounds every public call. `quiet_programs` are names as in /proc/<pid>/comm (15 bytes).
    `own_servers` says that every server met runs realmfs's own server, which takes name-space records and
    back-fetched stores in one batch (design, row "batches"); None: as each server shows itself. A store
    larger than `big_store`, or than what the slowest server takes in a second, goes by handle. Records wait
    at least `send_age` before they are sent; what servers fetch back in one batch should take no longer than
    `send_time`.
    Of files of `partial_size` and more, and of those larger than half the cache, only the ranges that are
    read are brought (client.md §5, `wholefilemaxsize`).
    `lookaside` is a directory of files that may be used instead of fetching them again.
    `shared` says that several local users may use the mount: what the kernel remembers all of them see.
    """

    patience: float = 10.0
    kernel_timeout: float = 4 * 3600.0
    objects_in_memory: int = 20_000
    directories_in_memory: int = 512
    validate_batch: int = 50
    status_ahead: int = 64
    data_ahead: int = 48
    sweep: int = 16
    data_ahead_size: int = 256 * 1024
    lookaside: Path | None = None
    partial_size: int = 50 << 20
    quiet_programs: frozenset[str] = QUIET_PROGRAMS
    system_type: str = "x86_64_linux"
    cpu_type: str = "x86_64"
    own_servers: bool | None = None
    shared: bool = False
    batch_records: int = 200
    batch_files: int = 200
    big_store: int = 4 * 1024 * 1024
    open_store_age: float = 60.0
    send_age: float = 0.0
    send_time: float = 5.0
    hoard_interval: float = 600.0
