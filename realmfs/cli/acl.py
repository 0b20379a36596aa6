"""`realmfs acl`: the access lists of directories, as `cfs listacl` and `cfs setacl` show and set them.

Those of whole trees are kept in a JSON file, as `coda-sync-acls` keeps them in YAML: directories by their
paths below the tree's top, each with the lines that `acl get` would print.
"""

import json
from collections.abc import Iterator
from typing import Any, TextIO

import click

from realmfs.cli.daemon import json_option, tree_path, with_daemon
from realmfs.cli.failure import Exit, Failure
from realmfs.cli.progress import Bar
from realmfs.cli.show import print_json
from realmfs.cli.treepath import TREE
from realmfs.cli.walking import Walker, joined
from realmfs.control.client import Client
from realmfs.control.protocol import ControlError
from realmfs.control.words import printable


@click.group("acl")
def command() -> None:
    """Who may do what in a directory, and with the files in it.

    Rights are letters: r read files, l look names up, i insert names, d delete names, w write files, k lock,
    a administer this list; `all` is every one, `none` no right. System:AnyUser is everybody, logged in or
    not.
    """


@command.command("get")
@click.argument("path", type=TREE)
@json_option
@with_daemon
def get(client: Client, path: str, as_json: bool) -> None:
    """Show the access list of the directory PATH. Rights taken away have a minus before them."""
    _show(client.call("acl.get", path=tree_path(client, path)), as_json)


@command.command("set")
@click.argument("path", type=TREE)
@click.argument("entries", nargs=-1, metavar="[USER RIGHTS]...")
@click.option(
    "--negative", "-negative", "negative", is_flag=True, help="Take these rights away from the users."
)
@click.option("--clear", "-clear", "clear", is_flag=True, help="Keep no other entry.")
@click.option(
    "--file", "file", type=click.File(), help="Set the whole list that FILE holds, as `acl get` prints it."
)
@click.option("-R", "--recursive", is_flag=True, help="And of all directories below, in this volume.")
@json_option
@with_daemon
def set_(
    client: Client,
    path: str,
    entries: tuple[str, ...],
    negative: bool,
    clear: bool,
    file: TextIO | None,
    recursive: bool,
    as_json: bool,
) -> None:
    """Change the access list of the directory PATH, and show what then stands at the servers.

    Each USER, or group, gets exactly the RIGHTS named; `none` removes the entry. Others stay as they are.
    With --recursive the same is done in every directory below, and the list of PATH shown.
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
    top = tree_path(client, path)
    _show(client.call("acl.set", path=top, **wanted), as_json)
    if recursive:
        _set_below(client, top, wanted)


def _set_below(client: Client, top: str, wanted: dict[str, Any]) -> None:
    with Bar("setting access lists") as bar:
        walker = Walker(client, bar, across=False)
        for below, _ in walker.directories(top):
            if below:
                _set_one(client, walker, joined(top, below), wanted)
    if walker.failed:
        raise Failure(f"{walker.failed} directories are left as they were")


def _set_one(client: Client, walker: Walker, path: str, wanted: dict[str, Any]) -> bool:
    try:
        client.call("acl.set", path=path, **wanted)
    except ControlError as error:
        walker.fail(error.text)
        return False
    return True


@command.command("save")
@click.argument("path", type=TREE)
@click.argument("file", type=click.File("w", lazy=True), default="-")
@with_daemon
def save(client: Client, path: str, file: TextIO) -> None:
    """Write the access lists of PATH and all directories below, in its volume, to FILE or standard output."""
    top = tree_path(client, path)
    lists: dict[str, list[str]] = {}
    with Bar("reading access lists") as bar:
        walker = Walker(client, bar, across=False)
        for below, _ in walker.directories(top):
            try:
                found = client.call("acl.get", path=joined(top, below))
            except ControlError as error:
                walker.fail(error.text)
                continue
            lists[below or "."] = list(_lines(found))
    json.dump(lists, file, indent=2)
    file.write("\n")
    if walker.failed:
        raise Failure(f"{walker.failed} directories could not be read")


@command.command("restore")
@click.argument("path", type=TREE)
@click.argument("file", type=click.File(), default="-")
@click.option("--dry-run", is_flag=True, help="Only tell which directories have another list.")
@with_daemon
def restore(client: Client, path: str, file: TextIO, dry_run: bool) -> None:
    """Give the directories of the tree PATH the lists in FILE, which `acl save` has written.

    It may be a copy of the tree, elsewhere. What differs is changed and told, directory by directory.
    """
    top = tree_path(client, path)
    lists = _read_lists(file)
    with Bar("setting access lists") as bar:
        walker = Walker(client, bar, across=False)
        for number, (below, lines) in enumerate(lists.items()):
            bar.tell(number, len(lists), is_bytes=False)
            place = top if below == "." else joined(top, below)
            try:
                differs = sorted(_lines(client.call("acl.get", path=place))) != sorted(lines)
            except ControlError as error:
                walker.fail(error.text)
                continue
            wanted = {"entries": [], "clear": not lines, "text": "\n".join(lines)}
            if differs and (dry_run or _set_one(client, walker, place, wanted)):
                click.echo(printable(f"/{place}"))
    if walker.failed:
        raise Failure(f"{walker.failed} directories are left as they were")


def _read_lists(file: TextIO) -> dict[str, list[str]]:
    """Read what `save` wrote. Raises Failure."""
    try:
        lists: Any = json.load(file)
    except (ValueError, RecursionError) as error:
        raise Failure(f"{file.name} is no JSON file: {error}. Make one with `realmfs acl save`") from None
    shaped = isinstance(lists, dict) and all(
        isinstance(lines, list) and all(isinstance(line, str) for line in lines) for lines in lists.values()
    )
    if not shaped:
        text = f"{file.name} holds no access lists: it needs for each directory a list of `USER RIGHTS`"
        raise Failure(f"{text}. Make one with `realmfs acl save`")
    checked: dict[str, list[str]] = lists
    return checked


def _lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield a list's entries as text."""
    for half, sign in (("positive", ""), ("negative", "-")):
        for entry in found[half]:
            yield f"{entry['name']} {sign}{entry['rights']}"


def _show(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    for entry in found["positive"]:
        click.echo(f"{printable(entry['name']):>20}  {entry['rights']}")
    for entry in found["negative"]:
        click.echo(f"{printable(entry['name']):>20}  -{entry['rights']}")
