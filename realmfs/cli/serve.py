"""`realmfs serve`: the embedded realm, one server or several, for a machine or a household."""

import contextlib
import ipaddress
import logging
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import trio

from realmfs.cli.failure import Exit, Failure
from realmfs.cli.founding import Wanted, announce, prepare
from realmfs.cli.seal import passphrase_option, unlock
from realmfs.host.process import keep_secrets
from realmfs.realms.names import fold, is_name
from realmfs.server.certificates import DIRECTORY as CERTIFICATES
from realmfs.server.certificates import CertificateError, Certificates
from realmfs.server.database import StoreError
from realmfs.server.protection import ProtectionError
from realmfs.server.serving import RealmServer
from realmfs.server.store import FILE_PORT, ServerStore
from realmfs.vice.acl import parse_rights
from realmfs.vice.types import VSG_MEMBERS


def address_of(value: str) -> tuple[str, int]:
    """Split `IP[:PORT]`. Raises StoreError."""
    host, colon, port = value.partition(":")
    if colon and not (port.isdecimal() and int(port) < 1 << 16):
        raise StoreError(f"{port!r} is no port")
    return host, int(port) if colon else FILE_PORT


def member_of(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int | None, int]:
    """Read `N/M` or `all/M`: which server (None: all) of how many; for an option's callback."""
    if value is None:
        return 1, 1
    number, _, count = value.partition("/")
    if not count.isdecimal() or not (number == "all" or number.isdecimal()):
        raise click.BadParameter("N/M is wanted, such as 2/3, or all/3", ctx, param)
    ours = None if number == "all" else int(number)
    if not 1 < int(count) <= VSG_MEMBERS or (ours is not None and not 1 <= ours <= int(count)):
        raise click.BadParameter(f"there are 2 to {VSG_MEMBERS} servers, numbered from 1", ctx, param)
    return ours, int(count)


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
@click.option(
    "--realm",
    required=True,
    help="Name of the realm, as in /coda/NAME; without a dot only realms files can name it.",
)
@click.option("--data", required=True, type=_DIRECTORY, help="Where the server keeps everything.")
@click.option(
    "--address", metavar="IP[:PORT]",
    help="What clients are told; an address of this machine. Default 127.0.0.1; of server N: 127.0.0.N.",
)  # fmt: skip
@click.option(
    "--also-at", "also_at", multiple=True, metavar="IP",
    help="Serve at this address of the machine, too, for clients that do not reach the other.",
)  # fmt: skip
@click.option(
    "--server", "member", callback=member_of, metavar="N/M",
    help="Be server N of M, each with replicas of all volumes; all/M: be all of them, at M addresses.",
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
@passphrase_option
@click.option("-v", "--verbose", is_flag=True, help="Log what goes on.")
def command(
    realm: str,
    data: Path,
    address: str | None,
    also_at: tuple[str, ...],
    member: tuple[int | None, int],
    auth_port: int | None,
    source: Path | None,
    volumes: tuple[tuple[str, Path | None], ...],
    anyuser: int,
    tls: str,
    passphrase_file: Path | None,
    verbose: bool,
) -> None:
    """Serve a realm from the directory --data, which is made if it does not exist.

    With --server the realm has several servers, each a process of its own with its store in --data; those on
    one machine share the directory, to another machine its file group.json is copied once.
    """
    if not is_name(fold(realm)):
        raise Failure(
            f"{realm!r} can be no realm: a name such as home.test, without / and blanks", Exit.USAGE
        )
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s")
    ours, count = member
    numbers = list(range(1, count + 1)) if ours is None else [ours]
    wanted = Wanted(realm, data, count, source, volumes, anyuser)
    try:
        places = [_place(address, number, count, numbers[0]) for number in numbers]
        with contextlib.ExitStack() as stores:
            running = []
            for number, place in zip(numbers, places, strict=True):
                store = stores.enter_context(prepare(wanted, number, place[0]))
                unlock(store.protection, passphrase_file)
                certificates = _certificates(store.directory, tls)
                others = [_place(other, number, count, numbers[0])[0] for other in also_at]
                running.append(_Running(store, place, others, auth_port, certificates, tls == "require"))
            trio.run(_serve, wanted, running)
    except (StoreError, ProtectionError) as error:
        raise click.ClickException(str(error)) from error


def _place(address: str | None, number: int, count: int, first: int) -> tuple[str, int]:
    """Return where a server is to be: servers that one process runs have consecutive addresses."""
    host, port = address_of(address or (f"127.0.0.{first}" if count > 1 else "127.0.0.1"))
    try:
        return str(ipaddress.IPv4Address(host) + (number - first)), port
    except ValueError as error:
        raise StoreError(f"{host} is no IPv4 address") from error


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


@dataclass(frozen=True, slots=True)
class _Running:
    """A server that this process is to run."""

    store: ServerStore
    place: tuple[str, int]
    also_at: Sequence[str]
    auth_port: int | None
    certificates: Certificates | None
    tls_only: bool


async def _serve(wanted: Wanted, running: list[_Running]) -> None:
    keep_secrets()
    started = [await _bind(wanted, one) for one in running]
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            for server, _ in started:
                await nursery.start(server.run)
            places = sorted(running[0].store.servers().values())
            servers = " ".join(f"{place.address}:{place.port}" for place in places)
            lines = "\n".join(line for _, line in started)
            click.echo(f"{lines}; realms file: {wanted.realm} {servers}")
            sys.stdout.flush()
            await anext(aiter(signals))
            nursery.cancel_scope.cancel()


async def _bind(wanted: Wanted, one: _Running) -> tuple[RealmServer, str]:
    """Take a server's addresses; return it with a line on where they are."""
    certificates = one.certificates
    server = await RealmServer.bind(one.store, *one.place, one.auth_port, certificates, also_at=one.also_at)
    server.file_server.tls_only = one.tls_only
    announce(wanted, one.store)
    files, logins = ("{}:{}".format(*place) for place in (server.file_address, server.auth_address))
    which = f" as server {one.store.number} of {wanted.count}" if wanted.count > 1 else ""
    by_tls = "" if certificates is None else f", TLS by {certificates.certificate}"
    also = f", also at {', '.join(one.also_at)}" if one.also_at else ""
    return server, f"serving {wanted.realm}{which} at {files}, auth2 at {logins}{also}{by_tls}"
