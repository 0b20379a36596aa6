"""`realmfs writeback`."""

import click

from realmfs.cli.daemon import json_option, with_daemon
from realmfs.cli.show import print_json
from realmfs.control.client import Client


@click.command()
@click.option("--age", type=click.FloatRange(0), metavar="S", help="Seconds a change waits at least.")
@click.option("--time", "span", type=click.FloatRange(0), metavar="S", help="Seconds a batch may take.")
@json_option
@with_daemon
def command(client: Client, age: float | None, span: float | None, as_json: bool) -> None:
    """Set when changes are sent to the servers; without options, show it.

    Changes that are younger than --age wait, so that what is changed again or removed soon is never sent;
    with 0, the default, everything goes at once. What servers fetch in one batch should take no longer than
    --time (default 5), since they keep others from the volume meanwhile. Both stay in force until they are
    set again.
    `realmfs changes send` sends at once whatever waits.
    """
    holds = client.call("writeback", age=age, time=span)
    if as_json:
        print_json(holds)
        return
    wait = f"once they are {holds['age']:g} s old" if holds["age"] else "at once"
    click.echo(f"Changes are sent {wait}; a batch takes about {holds['time']:g} s at most")
