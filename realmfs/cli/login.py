"""`realmfs login`."""

import time
from pathlib import Path

import click

from realmfs.cli.credentials import ask_password, plainly, realm_of, user_and_realm, write_private
from realmfs.cli.daemon import with_daemon
from realmfs.control.client import Client
from realmfs.control.words import age

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("who", required=False, metavar="[USER@REALM]")
@click.option("--from-file", type=FILE, help="Take the token from a Coda token file; no password is asked.")
@click.option("--to-file", type=FILE, help="Write the token to a Coda token file, too: guard it.")
@click.option(
    "--keep",
    type=click.Choice(["keyring"]),
    help="Keep the login over restarts in the desktop's keyring, until it ends or you log out.",
)
@with_daemon
def command(
    client: Client, who: str | None, from_file: Path | None, to_file: Path | None, keep: str | None
) -> None:
    """Log in to a realm, so that its servers know who asks.

    USER is by default your name here, REALM the one realm that is known. The password is asked on the
    terminal; if standard input is none, it is its first line. The login holds for 25 hours.
    """
    with plainly():
        if from_file is not None:
            realm = realm_of(client, who)
            contents = from_file.read_text(encoding="ascii", errors="replace")
            info = client.call("tokens.set", realm=realm, contents=contents, keep=keep or "")
        else:
            user, realm = user_and_realm(client, who)
            password = ask_password(f"Password of {user}@{realm}")
            info = client.call("tokens.login", realm=realm, user=user, password=password, keep=keep or "")
        if to_file is not None:
            write_private(to_file, client.call("tokens.get", realm=realm)["contents"])
    left = age(info["ends"] - time.time())
    name = f"{info['user']} ({info['id']})" if info["user"] else str(info["id"])
    click.echo(f"Logged in to {info['realm']} as {name} for {left}")
