"""`realmfs conflicts`."""

import difflib
import os
import time
from pathlib import Path
from typing import Any

import click

from realmfs.cli.daemon import json_option, tree_path, with_daemon
from realmfs.cli.failure import Exit, Failure
from realmfs.cli.progress import Bar
from realmfs.cli.show import print_json, print_table
from realmfs.cli.transfer import pieces
from realmfs.cli.treepath import TREE
from realmfs.control.client import Client
from realmfs.control.protocol import ControlError
from realmfs.control.words import age, printable, size

_KINDS = {"local": "local/global", "server": "server/server", "both": "local and server"}
_DIFF_LIMIT = 16 << 20


@click.group(invoke_without_command=True)
@json_option
@with_daemon
def command(client: Client, as_json: bool) -> None:
    """Show and settle conflicts: changes that servers refuse, and objects that they cannot agree on.

    The name of an object in conflict leads to a directory with its versions: `_localcache` is the one made
    here, the others are those of the servers. PATH is that name.
    """
    show_list(client, None, as_json)


@command.command("list")
@click.option("--volume", help="Only those of one volume, NAME@REALM.")
@json_option
@with_daemon
def list_conflicts(client: Client, volume: str | None, as_json: bool) -> None:
    """List them (the default)."""
    show_list(client, volume, as_json)


def show_list(client: Client, volume: str | None, as_json: bool) -> None:
    """Print the conflicts."""
    found = list(client.pages("conflicts.list", volume=volume))
    if as_json:
        print_json(found)
        return
    rows = [
        (
            _KINDS[one["kind"]],
            one["type"],
            "-" if one["since"] is None else age(max(0.0, time.time() - one["since"])),
            ", ".join(one["changes"]) or "-",
            one["waiting"] or "-",
            printable(f"/{one['path']}"),
        )
        for one in found
    ]
    print_table(("CONFLICT", "TYPE", "AGE", "REFUSED", "HELD BACK", "PATH"), rows, "There are no conflicts.")


@command.command("show")
@click.argument("path", type=TREE)
@json_option
@with_daemon
def show_one(client: Client, path: str, as_json: bool) -> None:
    """Tell what is in conflict about PATH, and list its versions."""
    found = client.call("conflicts.show", path=tree_path(client, path))
    if as_json:
        print_json(found)
        return
    click.echo(f"/{printable(found['path'])}: {_KINDS[found['kind']]} conflict of a {found['type']}")
    click.echo(f"  {found['reason']}")
    if found["changes"]:
        click.echo(f"  refused: {', '.join(found['changes'])}; {found['waiting']} more wait for the outcome")
    rows = [
        (
            one["name"],
            one["type"],
            size(one["size"]),
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one["mtime"])),
            printable(one.get("by") or str(one["author"])),
            one["version"],
        )
        for one in found["versions"]
    ]
    print_table(
        ("VERSION", "TYPE", "SIZE", "CHANGED", "BY", "VERSION VECTOR"), rows, "No version is at hand."
    )


@command.command("diff")
@click.argument("path", type=TREE)
@click.option("--versions", nargs=2, metavar="A B", help="Which two to compare (by default the first two).")
@with_daemon
def diff(client: Client, path: str, versions: tuple[str, str] | None) -> None:
    """Compare two versions of the file or directory PATH. Exits 1 if they differ, as diff does."""
    found = client.call("conflicts.show", path=tree_path(client, path))
    known = {one["name"]: one for one in found["versions"]}
    names = versions or tuple(known)[:2]
    if len(names) < 2:
        raise Failure(f"{path} has only the version {', '.join(known) or '(none)'}")
    for name in names:
        if name not in known:
            raise Failure(f"{path} has no version {name}: there are {', '.join(known)}", Exit.USAGE)
    before, after = (_lines(client, known[name]) for name in names)
    first, second = (f"{path}/{name}" for name in names)
    lines = list(difflib.unified_diff(before, after, first, second, lineterm=""))
    for line in lines:
        click.echo(line)
    if lines:
        raise click.exceptions.Exit(int(Exit.FAILED))


def _lines(client: Client, version: dict[str, Any]) -> list[str]:
    """Return the lines of a version; of a directory its names, of what is no text a line that says so."""
    if version["type"] == "directory":
        return sorted(entry["name"] for entry in _entries(client, version["path"]))
    if version["type"] == "link":
        found = client.call("path.stat", path=version["path"], follow=False)
        return [f"link to {found['target']}"]
    if version["size"] > _DIFF_LIMIT:
        return [f"{version['size']} bytes, changed {time.ctime(version['mtime'])}"]
    data = b"".join(pieces(client, version["path"]))
    if b"\0" in data:
        return [f"{len(data)} bytes that are no text, changed {time.ctime(version['mtime'])}"]
    return data.decode("utf-8", "backslashreplace").splitlines()


def _entries(client: Client, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    position: int | None = 0
    while position is not None:
        listing = client.call("path.list", path=path, position=position, attributes=False)
        found += listing["entries"]
        position = listing["position"]
    return found


@command.command("resolve")
@click.argument("paths", type=TREE, metavar="[PATH]...", nargs=-1)
@click.option("--keep", type=click.Choice(["local", "server", "both"]), help="Which version to keep.")
@click.option("--server", help="Whose version to keep, where the servers differ.")
@click.option("--from", "contents", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="Give the file the contents of this local file.")  # fmt: skip
@click.option("--all", "every", is_flag=True, help="Settle all conflicts this way.")
@json_option
@with_daemon
def resolve(
    client: Client,
    paths: tuple[str, ...],
    keep: str | None,
    server: str | None,
    contents: Path | None,
    every: bool,
    as_json: bool,
) -> None:
    """Settle the conflicts at PATHs: keep the version made here, that of the servers, or both.

    Exits 6 if anything is left in conflict.
    """
    if (keep is None) == (contents is None) or bool(paths) == every or (contents and len(paths) != 1):
        raise click.UsageError("say --keep or --from, and PATHs or --all")
    if every:
        chosen = [{"id": one["id"]} for one in client.pages("conflicts.list")]
    else:
        chosen = [{"path": tree_path(client, path)} for path in paths]
    results: list[dict[str, Any]] = []
    errors: list[str] = []
    how: dict[str, Any] = {"keep": keep, "server": server}
    if contents is not None:
        how = {"contents": os.path.abspath(contents)}
    with Bar("settling") as bar:
        for number, one in enumerate(chosen):
            bar.tell(number, len(chosen), is_bytes=False)
            try:
                results.append(client.call("conflicts.settle", **one, **how))
            except ControlError as error:
                if len(chosen) == 1:
                    raise
                errors.append(error.text)
    for text in errors:
        click.echo(f"Error: {text}", err=True)
    for result in [] if as_json else results:
        _say(result)
    if as_json:
        print_json(results)
    if errors or any(result["kind"] != "no" for result in results):
        raise click.exceptions.Exit(int(Exit.CONFLICT))


def _say(result: dict[str, Any]) -> None:
    path = printable(f"/{result['path']}")
    if result["kind"] != "no":
        click.echo(f"{path}: still in conflict", err=True)
        return
    told = "settled" if result["sent"] else "settled; the outcome waits to be sent"
    if result["names"]:
        told += f"; kept beside it as {', '.join(printable(name) for name in result['names'])}"
    click.echo(f"{path}: {told}")
    if result["kept"]:
        click.echo(f"  what was given up is in {result['kept']} (realmfs changes import takes it)")


@command.command("fix")
@click.argument("path", type=TREE)
@click.option("--server", help="Make all like this server's version (by default: all that any server has).")
@click.option("--apply", "fix", type=click.File("r"), help="Apply this edited repair file.")
@with_daemon
def fix(client: Client, path: str, server: str | None, fix: Any) -> None:
    """Print the repair file that would make all replicas of the directory PATH equal, or apply one."""
    place = tree_path(client, path)
    if fix is None:
        click.echo(client.call("conflicts.fixfile", path=place, server=server)["text"], nl=False)
        return
    result = client.call("conflicts.settle", path=place, fix=fix.read())
    _say(result)
    if result["kind"] != "no":
        raise click.exceptions.Exit(int(Exit.CONFLICT))
