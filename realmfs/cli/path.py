"""`realmfs path`."""

import click

from realmfs.cli.daemon import json_option, with_daemon
from realmfs.cli.failure import Exit, Failure
from realmfs.cli.show import print_json
from realmfs.control.client import Client
from realmfs.control.words import printable


@click.command()
@click.argument("fids", nargs=-1, required=True, metavar="FID@REALM...")
@json_option
@with_daemon
def command(client: Client, fids: tuple[str, ...], as_json: bool) -> None:
    """Tell where the cached objects FID@REALM are, as 7f000000.1.1@example.org."""
    found = []
    for text in fids:
        fid, at, realm = text.partition("@")
        if not at:
            raise Failure(f"{text} names no realm. Say FID@REALM", Exit.USAGE)
        found.append(client.call("path.of_fid", fid=fid, realm=realm))
    if as_json:
        print_json(found)
        return
    for one in found:
        click.echo(f"/{printable(one['path'])}")
