"""`realmfs serve`: the embedded realm, one server for a machine or a household."""

import logging
import signal
import sys
from pathlib import Path

import click
import trio

from realmfs.server.certificates import DIRECTORY as CERTIFICATES
from realmfs.server.certificates import CertificateError, Certificates
from realmfs.server.database import StoreError
from realmfs.server.imports import Imported, import_tree
from realmfs.server.mounts import make_mount
from realmfs.server.serving import RealmServer
from realmfs.server.store import FILE_PORT, ServerStore
from realmfs.server.volumes import ROOT_VOLUME
from realmfs.vice.acl import parse_rights

_SHOWN_SKIPPED = 20


def address_of(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, int]:
    """Split `IP[:PORT]`; for an option's callback."""
    host, colon, port = value.partition(":")
    if colon and not (port.isdecimal() and int(port) < 1 << 16):
        raise click.BadParameter(f"{port!r} is no port", ctx, param)
    return host, int(port) if colon else FILE_PORT


def rights_of(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """Read a set of rights in letters; for an option's callback."""
    try:
        return int(parse_rights(value))
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


def sources_of(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, Path | None], ...]:
    """Split each `NAME=DIR`; without DIR the volume starts empty. For an option's callback."""
    split = [value.partition("=") for value in values]
    return tuple((name, Path(directory) if directory else None) for name, _, directory in split)


_DIRECTORY = click.Path(path_type=Path, file_okay=False)


@click.command("serve")
@click.option("--realm", required=True, help="Name of the realm, as in /coda/NAME; it needs a dot.")
@click.option("--data", required=True, type=_DIRECTORY, help="Where the server keeps everything.")
@click.option(
    "--address", callback=address_of, default="127.0.0.1", show_default=True, metavar="IP[:PORT]",
    help="What clients are told; it must be an address of this machine.",
)  # fmt: skip
@click.option("--auth-port", type=click.IntRange(0, 65535), help="UDP port of auth2; else 370, or PORT+1.")
@click.option(
    "--import", "source", type=_DIRECTORY, help="Fill a new realm's root volume with this directory."
)
@click.option(
    "--volume", "volumes", callback=sources_of, multiple=True, metavar="NAME=DIR",
    help="Make a volume, fill it with a directory, mount it at /NAME, unless it exists already.",
)  # fmt: skip
@click.option(
    "--anyuser", callback=rights_of, default="rl", show_default=True, metavar="RIGHTS",
    help="Rights of everybody on the roots of new volumes.",
)  # fmt: skip
@click.option(
    "--tls", type=click.Choice(["auto", "off", "prefer", "require"]), default="auto", show_default=True,
    help="Listen for TLS: auto, if `realmfs admin certificates` was there; require, refuse files over UDP.",
)  # fmt: skip
@click.option("-v", "--verbose", is_flag=True, help="Log what goes on.")
def command(
    realm: str,
    data: Path,
    address: tuple[str, int],
    auth_port: int | None,
    source: Path | None,
    volumes: tuple[tuple[str, Path | None], ...],
    anyuser: int,
    tls: str,
    verbose: bool,
) -> None:
    """Serve a realm of one server from the directory --data, which is made if it does not exist."""
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s")
    try:
        with _prepared(realm, data, address[0], source, volumes, anyuser) as store:
            trio.run(_serve, store, realm, address, auth_port, _certificates(data, tls), tls == "require")
    except StoreError as error:
        raise click.ClickException(str(error)) from error


def _certificates(data: Path, tls: str) -> Certificates | None:
    """Return what to prove oneself with, or None to do without TLS. Raises StoreError."""
    certificates = Certificates(data / CERTIFICATES)
    if tls == "off" or (tls == "auto" and not certificates.exist):
        return None
    if not certificates.exist:
        raise CertificateError(
            f"there is no certificate in {certificates.directory}. "
            f"Cure: realmfs admin certificates --data {data}"
        )
    return certificates


def _prepared(
    realm: str,
    data: Path,
    address: str,
    source: Path | None,
    volumes: tuple[tuple[str, Path | None], ...],
    anyuser: int,
) -> ServerStore:
    """Open or make the store, with everything in it that the command line asks for."""
    exists = (data / "store.db").exists()
    store = ServerStore.open(data) if exists else ServerStore.create(data, realm, address, anyuser=anyuser)
    try:
        if store.realm != realm:
            raise StoreError(f"{data} is of the realm {store.realm}, not {realm}")
        root = store.volumes.named(ROOT_VOLUME)
        if source is not None and (not exists or (root is not None and root.filling)):
            _report(ROOT_VOLUME, import_tree(store, ROOT_VOLUME, source))
        for name, directory in volumes:
            _add_volume(store, name, directory, anyuser)
    except BaseException:
        store.close()
        raise
    return store


def _add_volume(store: ServerStore, name: str, directory: Path | None, anyuser: int) -> None:
    volume = store.volumes.named(name)
    if volume is not None and not volume.filling:
        return
    if volume is None:
        store.create_volume(name, anyuser=anyuser, filling=directory is not None)
    if directory is not None:
        _report(name, import_tree(store, name, directory))
    if volume is None:
        make_mount(store, name, name)


def _report(volume: str, done: Imported) -> None:
    click.echo(
        f"{volume}: imported {done.files} files, {done.directories} directories, {done.links} links, "
        f"{done.bytes / 1e6:.1f} MB",
        err=True,
    )
    for path, reason in done.skipped[:_SHOWN_SKIPPED]:
        click.echo(f"{volume}: left out {path}: {reason}", err=True)
    if len(done.skipped) > _SHOWN_SKIPPED:
        click.echo(f"{volume}: and {len(done.skipped) - _SHOWN_SKIPPED} more", err=True)


async def _serve(
    store: ServerStore,
    realm: str,
    address: tuple[str, int],
    auth_port: int | None,
    certificates: Certificates | None,
    tls_only: bool,
) -> None:
    server = await RealmServer.bind(store, *address, auth_port, certificates)
    server.file_server.tls_only = tls_only
    files, logins = ("{}:{}".format(*place) for place in (server.file_address, server.auth_address))
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            tls = "" if certificates is None else f", TLS by {certificates.certificate}"
            click.echo(f"serving {realm} at {files}, auth2 at {logins}{tls}; realms file: {realm} {files}")
            sys.stdout.flush()
            await anext(aiter(signals))
            nursery.cancel_scope.cancel()
