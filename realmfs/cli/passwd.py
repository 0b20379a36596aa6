"""`realmfs passwd`."""

import click

from realmfs.cli.credentials import ask_new_password, ask_password, plainly, user_and_realm
from realmfs.cli.daemon import with_daemon
from realmfs.control.client import Client


@click.command()
@click.argument("who", required=False, metavar="[USER@REALM]")
@click.option("--as", "agent", metavar="ADMINISTRATOR", help="Change it as an administrator of the realm.")
@with_daemon
def command(client: Client, who: str | None, agent: str | None) -> None:
    """Change a password in a realm.

    Asked are the present password (with --as the administrator's) and the new one, on the terminal or as the
    first two lines of standard input. Logins stay good.
    """
    with plainly():
        user, realm = user_and_realm(client, who)
        agent = agent or user
        password = ask_password(f"Password of {agent}@{realm}")
        new = ask_new_password()
        client.call("tokens.passwd", realm=realm, agent=agent, password=password, user=user, new_password=new)
    click.echo(f"The password of {user}@{realm} is changed")
