"""`realmfs acl`: the access lists of directories, as `cfs listacl` and `cfs setacl` show and set them."""

from typing import Any, TextIO

import click

from realmfs.cli.daemon import json_option, tree_path, with_daemon
from realmfs.cli.failure import Exit, Failure
from realmfs.cli.show import print_json
from realmfs.control.client import Client
from realmfs.control.words import printable


@click.group("acl")
def command() -> None:
    """Who may do what in a directory, and with the files in it.

    Rights are letters: r read files, l look names up, i insert names, d delete names, w write files, k lock,
    a administer this list; `all` is every one, `none` no right. System:AnyUser is everybody, logged in or
    not.
    """


@command.command("get")
@click.argument("path")
@json_option
@with_daemon
def get(client: Client, path: str, as_json: bool) -> None:
    """Show the access list of the directory PATH. Rights taken away have a minus before them."""
    _show(client.call("acl.get", path=tree_path(client, path)), as_json)


@command.command("set")
@click.argument("path")
@click.argument("entries", nargs=-1, metavar="[USER RIGHTS]...")
@click.option(
    "--negative", "-negative", "negative", is_flag=True, help="Take these rights away from the users."
)
@click.option("--clear", "-clear", "clear", is_flag=True, help="Keep no other entry.")
@click.option(
    "--file", "file", type=click.File(), help="Set the whole list that FILE holds, as `acl get` prints it."
)
@json_option
@with_daemon
def set_(
    client: Client,
    path: str,
    entries: tuple[str, ...],
    negative: bool,
    clear: bool,
    file: TextIO | None,
    as_json: bool,
) -> None:
    """Change the access list of the directory PATH, and show what then stands at the servers.

    Each USER, or group, gets exactly the RIGHTS named; `none` removes the entry. Others stay as they are.
    """
    if len(entries) % 2 or (negative and clear) or (file is None) == (not entries):
        raise Failure(
            "name pairs of USER and RIGHTS, or a --file; not --negative and --clear together", Exit.USAGE
        )
    pairs = [
        {"name": name, "rights": rights} for name, rights in zip(entries[::2], entries[1::2], strict=True)
    ]
    text = file.read() if file is not None else ""
    if file is not None and not text.strip():
        raise Failure("the file holds no entry; that would lock everybody out", Exit.USAGE)
    wanted = {"entries": pairs, "negative": negative, "clear": clear, "text": text}
    _show(client.call("acl.set", path=tree_path(client, path), **wanted), as_json)


def _show(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    for entry in found["positive"]:
        click.echo(f"{printable(entry['name']):>20}  {entry['rights']}")
    for entry in found["negative"]:
        click.echo(f"{printable(entry['name']):>20}  -{entry['rights']}")
