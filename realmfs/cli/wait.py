"""`realmfs wait`."""

import click

from realmfs.cli.daemon import json_option, with_daemon
from realmfs.cli.show import print_json
from realmfs.control.client import Client


@click.command()
@click.argument("wanted", required=False, type=click.Choice(["on", "off"]), metavar="[on|off]")
@json_option
@with_daemon
def command(client: Client, wanted: str | None, as_json: bool) -> None:
    """Let your programs wait for servers for ever, instead of failing when nobody answers.

    It is for what you open or look up on the mount, until `off` or the end of the daemon. Requests about a
    file that is open already fail as always. Without an argument: tell how it is.
    """
    answer = client.call("connection.wait", on=None if wanted is None else wanted == "on")
    if as_json:
        print_json(answer)
    elif answer["on"]:
        click.echo("Your programs wait for servers for ever (realmfs wait off ends that)")
    else:
        click.echo("What no server answers fails with a time-out")
