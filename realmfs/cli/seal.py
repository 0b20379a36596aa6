"""`realmfs admin seal`, and the option that gives a sealed store its passphrase."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from realmfs.server.database import StoreError
from realmfs.server.groupfile import NAME as GROUP
from realmfs.server.groupfile import store_directory
from realmfs.server.protection import Protection, ProtectionError
from realmfs.server.store import ServerStore

F = TypeVar("F", bound=Callable[..., Any])

_LEAST = 8
_MOST = 1024
_KEEPER = 1

passphrase_option: Callable[[F], F] = click.option(
    "--passphrase-file", type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Its first line opens the passwords, if `admin seal` has sealed them.",
)  # fmt: skip


def unlock(protection: Protection, file: Path | None) -> None:
    """Open the seal on the passwords, if there is one. Raises ProtectionError."""
    if not protection.is_sealed:
        if file is not None:  # of a server that has not heard from the others yet
            protection.unlock(_read(file))
    elif file is not None:
        protection.unlock(_read(file))
    elif sys.stdin.isatty():
        protection.unlock(click.prompt("Passphrase of the store", hide_input=True).encode())
    else:
        raise ProtectionError("the passwords are sealed: give --passphrase-file")


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.readline(_MOST).rstrip(b"\r\n")
    except OSError as error:
        raise ProtectionError(f"{file}: {error.strerror}") from None


@click.command("seal")
@click.option(
    "--data", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The directory of the server; of several, of the first one. None of them may run.",
)  # fmt: skip
@passphrase_option
@click.option(
    "--new-passphrase-file", type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Its first line is the passphrase from now on; else it is asked for.",
)  # fmt: skip
@click.option("--forgotten", is_flag=True, help="The present passphrase is lost: remove what it has sealed.")
def command(
    data: Path, passphrase_file: Path | None, new_passphrase_file: Path | None, forgotten: bool
) -> None:
    """Seal the passwords with a passphrase, or with another one: a stolen store does not tell them then.

    From then on `serve`, `user add` and `user passwd` need it.
    """
    if not (data / "store.db").exists() and (data / GROUP).exists():
        data = store_directory(data, _KEEPER)
    try:
        with ServerStore.open(data) as store:
            if not store.is_keeper:
                raise StoreError(f"passwords are sealed at server {store.get('keeper')!r}, for all")
            if forgotten:
                store.protection.remove_sealed()
            else:
                unlock(store.protection, passphrase_file)
            store.seal_passwords(_new(new_passphrase_file))
    except (StoreError, ProtectionError) as error:
        raise click.ClickException(str(error)) from error
    if forgotten:
        click.echo("Nobody has a password any more: realmfs admin user passwd")
    click.echo("The passwords are sealed; `serve` needs the passphrase from now on")


def _new(file: Path | None) -> bytes:
    if file is not None:
        passphrase = _read(file)
    else:
        passphrase = click.prompt("New passphrase", hide_input=True, confirmation_prompt=True).encode()
    if len(passphrase) < _LEAST:
        raise ProtectionError(f"a passphrase has at least {_LEAST} bytes; some words by chance are good")
    return passphrase
