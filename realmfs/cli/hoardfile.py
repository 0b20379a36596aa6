"""Command files of hoard(1): carried out, and written."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click

from realmfs.cli.daemon import tree_path
from realmfs.cli.hoardwalk import follow, report
from realmfs.cli.progress import Bar
from realmfs.control.client import Client
from realmfs.control.protocol import ControlError
from realmfs.venus.hoardlanguage import Command, Kind, ordered, parse, parse_wish, write

_VERDICT = 25


def carry_out(client: Client, file: str) -> int:
    """Read all of a file, then carry it out by kind; return how many lines were wrong or failed."""
    if file == "-":
        text, name = sys.stdin.read(), "<stdin>"
    else:
        with click.open_file(file, errors="surrogateescape") as stream:
            text, name = stream.read(), file
    commands, mistakes = parse(text, name)
    lines = text.splitlines()
    for mistake in mistakes:
        click.echo(str(mistake), err=True)
        click.echo(f"parse error: {lines[mistake.line - 1]}", err=True)
    failed = len(mistakes)
    todo = ordered(commands)
    with Bar(name) as bar:
        for number, command in enumerate(todo):
            bar.tell(number, len(todo), is_bytes=False)
            try:
                _one(client, command)
            except ControlError as error:
                click.echo(f"{name}:{command.line}:{command.column}: {error.text}", err=True)
                failed += 1
    return failed


def _one(client: Client, command: Command) -> None:
    if command.kind is Kind.CLEAR:
        client.call("hoard.clear", uid=command.uid)
    elif command.kind in (Kind.ADD, Kind.MODIFY):
        client.call("hoard.add", path=tree_path(client, command.path), attributes=str(command.wish))
    elif command.kind is Kind.DELETE:
        client.call("hoard.remove", path=tree_path(client, command.path))
    elif command.kind is Kind.LIST:
        entries = entries_of(client)
        _print(command.path, [entry_line(entry) for entry in entries if command.uid in (None, entry["uid"])])
    elif command.kind is Kind.WALK:
        report(follow(client))
        _print("", verdicts(client, 0))
    elif command.kind is Kind.VERIFY:
        _print(command.path, verdicts(client, command.verbosity))
    else:
        client.call("hoard.switch", on=command.kind is Kind.ON)


def _print(file: str, lines: Sequence[str]) -> None:
    with click.open_file(file or "-", "w", errors="surrogateescape") as stream:
        stream.writelines(line + "\n" for line in lines)


def entries_of(client: Client) -> list[dict[str, Any]]:
    """Return the entries, the most important first."""
    return sorted(client.pages("hoard.list"), key=lambda one: (-one["priority"], one["path"], one["id"]))


def entry_line(entry: dict[str, Any]) -> str:
    """Return an entry as the reference's `hoard list` prints it."""
    _, _, expand = entry["attributes"].partition(":")
    return f"<{entry['volume']}@{entry['realm']}, {entry['place']}>, {entry['uid']}, {entry['priority']}" + (
        f":{expand}" if expand else ""
    )


def verified(client: Client) -> dict[str, Any]:
    """Return what `hoard.verify` answers, with everything that is missing."""
    answer: dict[str, Any] = client.call("hoard.verify")
    complete(client, answer, "hoard.problems", "problems", "cursor")
    return answer


def complete(client: Client, answer: dict[str, Any], method: str, name: str, cursor: str) -> None:
    """Fetch the rest of a list that an answer has begun, as its cursor says."""
    rest, answer[cursor] = answer[cursor], None
    if rest is not None:
        answer[name] += client.pages(method, cursor=rest)


def verdicts(client: Client, verbosity: int) -> list[str]:
    """Return the lines of the reference's `hoard verify`: problems, and from 1 on what is well, too."""
    answer = verified(client)
    lines = [f"{one['verdict']:>{_VERDICT}}  {one['path']}" for one in answer["problems"]]
    if verbosity:
        wrong = {one["path"] for one in answer["problems"]}
        for entry in entries_of(client):
            if entry["path"] not in wrong:
                _, _, expand = entry["attributes"].partition(":")
                lines.append(f"{'OK':>{_VERDICT}}  {entry['path']}" + (f" {expand}" if expand else ""))
    return lines


def lines_of(entries: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield the commands that make these entries, but those of profiles."""
    for entry in entries:
        if not entry["profile"]:
            yield write(f"/coda{entry['path']}", parse_wish(entry["attributes"]))
