"""`realmfs reset`."""

import shutil
from pathlib import Path

import click

from realmfs.cli.failure import Exit, Failure
from realmfs.control.words import waiting
from realmfs.host.paths import Paths
from realmfs.host.settings import Settings, settle


@click.command()
@click.option("--cache-dir", type=click.Path(path_type=Path), help="The cache to empty.")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file.")
@click.option("--system", is_flag=True, help="Of the system daemon.")
@click.option("--discard-changes", is_flag=True, help="Even if changes wait that no server has.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(
    cache_dir: Path | None, config: Path | None, system: bool, discard_changes: bool, yes: bool
) -> None:
    """Empty the cache of a daemon that does not run: copies, hoard database and all else in it.

    Refused while changes wait: send them, or `changes export` them first.
    """
    paths = Paths.of_system() if system else Paths.of_user()
    settings = settle(paths, config, {"cache_dir": cache_dir})
    if not (settings.cache_dir / "cache.db").exists():
        raise Failure(f"{settings.cache_dir} holds no cache. Name another --cache-dir", Exit.USAGE)
    waiting = _waiting(settings)
    if waiting and not discard_changes:
        raise Failure(
            f"{waiting} in {settings.cache_dir} that no server has. Start the daemon and send them "
            "(realmfs changes send) or keep them in a file (realmfs changes export); "
            "--discard-changes gives them up"
        )
    if not yes:
        click.confirm(f"Empty {settings.cache_dir}?", abort=True)
    for name in ("cache.db", "cache.db-wal", "cache.db-shm", "reserve"):
        (settings.cache_dir / name).unlink(missing_ok=True)
    shutil.rmtree(settings.cache_dir / "containers", ignore_errors=True)
    click.echo(f"{settings.cache_dir} is empty now")


def _waiting(settings: Settings) -> str:
    """Say how many changes wait in a cache that nobody uses; "": none."""
    from realmfs.cache.cache import Cache
    from realmfs.cache.errors import CacheError, CacheInUse
    from realmfs.cache.limits import Limits

    try:
        cache = Cache(settings.cache_dir, Limits.for_size(settings.cache_size, reserve=0))
    except CacheInUse:
        raise Failure(f"a daemon uses {settings.cache_dir}. Stop it first: realmfs unmount") from None
    except CacheError as error:
        return f"nobody can tell how many changes wait ({error})"
    try:
        if cache.damage is not None:
            return f"nobody can tell how many changes wait ({cache.damage})"
        return waiting(cache.log.count) if cache.log.count else ""
    finally:
        cache.close()
