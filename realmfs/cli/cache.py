"""`realmfs cache`: what is here, how full it is, dropping and bringing things by hand."""

from typing import Any

import click

from realmfs.cli.daemon import json_option, tree_path, with_daemon
from realmfs.cli.failure import Exit, Failure
from realmfs.cli.progress import fetching
from realmfs.cli.show import print_json, print_table
from realmfs.cli.treepath import TREE
from realmfs.control.client import Client
from realmfs.control.words import counted, printable, size
from realmfs.host.settings import size as read_size


@click.group("cache")
def command() -> None:
    """The cache on this disk."""


@command.command("usage")
@json_option
@with_daemon
def usage(client: Client, as_json: bool) -> None:
    """Tell how full the cache is, and of what."""
    _show(client.call("cache.usage"), as_json)


def _show(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    click.echo(
        f"contents: {size(answer['used'])} of {size(answer['size'])}, {size(answer['free'])} can be written"
    )
    click.echo(f"objects:  {answer['objects']} of {answer['objects_limit']}")
    click.echo(f"hoarded:  {answer['hoarded']} objects, {size(answer['hoarded_bytes'])}")
    click.echo(
        f"pending:  {answer['pending']} of {answer['pending_limit']} changes, {size(answer['pending_bytes'])}"
    )


@command.command("list")
@click.argument("volume", required=False)
@click.option("--valid/--invalid", "validity", default=None, help="Only valid objects, or only others.")
@click.option("--long", is_flag=True, help="Also type, size, priority and fid.")
@json_option
@with_daemon
def list_(client: Client, volume: str | None, validity: bool | None, long: bool, as_json: bool) -> None:
    """List what is cached, of VOLUME (NAME@REALM) or of all. A star: not valid, or changed here."""
    objects = client.pages("cache.list", volume=volume, validity=validity)
    if as_json:
        print_json(list(objects))
    elif long:
        head = ("", "TYPE", "STATE", "SIZE", "HOARD", "PRIORITY", "FID", "PATH")
        print_table(head, [_row(one) for one in objects], "Nothing is cached.")
    else:
        for one in objects:
            click.echo(f"{' ' if one['valid'] else '*'} {printable(one['path'])}")


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    star = " " if one["valid"] else "*"
    path = printable(one["path"])
    return star, one["type"], one["state"], size(one["size"]), one["hoard"], one["priority"], one["fid"], path


@command.command("flush")
@click.argument("paths", type=TREE, nargs=-1, metavar="PATH...")
@click.option("--all", "everything", is_flag=True, help="Everything that is clean and not open.")
@click.option("--force", is_flag=True, help="Even while servers are away.")
@with_daemon
def flush(client: Client, paths: tuple[str, ...], everything: bool, force: bool) -> None:
    """Drop PATHs, with all cached below them, from the cache. What was changed here is never dropped."""
    if bool(paths) == everything:
        raise Failure("name PATHs, or --all", Exit.USAGE)
    client.be_patient()
    for path in [None] if everything else [tree_path(client, path) for path in paths]:
        answer = client.call("cache.flush", path=path, force=force)
        click.echo(f"{counted(answer['files'], 'object')} dropped, {size(answer['bytes'])}")


@command.command("fetch")
@click.argument("paths", type=TREE, nargs=-1, required=True, metavar="PATH...")
@click.option("-r", "--recursive", is_flag=True, help="And all below it.")
@json_option
@with_daemon
def fetch(client: Client, paths: tuple[str, ...], recursive: bool, as_json: bool) -> None:
    """Bring PATHs into the cache now, without hoarding them."""
    client.be_patient()
    with fetching(client, "fetching"):
        answers = [
            client.call("cache.fetch", path=tree_path(client, path), recursive=recursive) for path in paths
        ]
    if as_json:
        print_json(answers)
    problems = [problem for answer in answers for problem in answer["problems"]]
    for problem in problems:
        click.echo(f"{printable(problem['path'])}: {problem['why'] or problem['verdict']}", err=True)
    if problems:
        raise Failure(f"{counted(sum(answer['count'] for answer in answers), 'object')} could not be brought")


@command.command("limit")
@click.argument("new_size", metavar="SIZE")
@json_option
@with_daemon
def limit(client: Client, new_size: str, as_json: bool) -> None:
    """Give the cache another SIZE, say 500M, until the daemon ends; its configuration stays."""
    try:
        wanted = read_size(new_size)
    except ValueError as error:
        raise Failure(f"SIZE {error}", Exit.USAGE) from None
    client.be_patient()
    _show(client.call("cache.limit", size=wanted), as_json)
