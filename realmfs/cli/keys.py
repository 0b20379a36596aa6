"""`realmfs admin keys`: the keys that logins are sealed with."""

import json
import time
from pathlib import Path

import click

from realmfs.server.database import StoreError
from realmfs.server.store import ServerStore

_data = click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The directory of the server; of several, of the first one.",
)


@click.group("keys")
def command() -> None:
    """The key that logins are sealed with. No command shows it."""


@command.command("rotate")
@_data
@click.option("--revoke", is_flag=True, help="End all logins now: the present key is in wrong hands.")
def rotate(data: Path, revoke: bool) -> None:
    """Seal logins with a new key from now on. Those under the present key hold until their end, 25 hours."""
    try:
        with ServerStore.open(data, lock=False) as store:
            if not store.is_keeper:
                raise StoreError(f"the keys are changed at server {store.get('keeper')!r}, for all")
            until = store.change_token_key(revoke=revoke)
            store.database.sync()
    except StoreError as error:
        raise click.ClickException(str(error)) from error
    if revoke:
        click.echo("All logins have ended; everybody must log in again")
    else:
        click.echo(f"Logins under the former key hold until {_clock(until)} at the latest")


@command.command("show")
@_data
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(data: Path, as_json: bool) -> None:
    """Tell whether logins under a former key still hold, and until when."""
    with ServerStore.open(data, lock=False) as store:
        until = store.old_key_until(time.time())
    if as_json:
        click.echo(json.dumps({"former_until": until}))
    elif until is None:
        click.echo("All logins are under the present key")
    else:
        click.echo(f"Logins under the former key hold until {_clock(until)} at the latest")


def _clock(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
