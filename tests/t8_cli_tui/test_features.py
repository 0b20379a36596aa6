"""The table of features: what is needed daily is there, and each command that it names exists."""

import re

import click
import pytest

from realmfs.cli.main import COMMANDS, main
from tests.t8_cli_tui.conftest import REPOSITORY

ROW = re.compile(
    r"^\| (?P<there>[^|]+) \| (?P<rank>[ABC, ]+) \| (?P<here>[^|]*)\| (?P<done>\w+) \|$", re.MULTILINE
)
ROWS = [
    row.groupdict() for row in ROW.finditer((REPOSITORY / "docs" / "reference" / "features.md").read_text())
]
NEEDED = [row for row in ROWS if set(row["rank"]) & set("AB")]
NO_COMMAND = (
    "`cd /coda/REALM`",
    "`realms` file",
    "`statfs`",
    "`chmod`, `chown`",
    "whole or partial files",
    "Python `codafs`",
)


def test_the_table_is_read_whole() -> None:
    assert len(NEEDED) > 50
    assert {row["done"] for row in ROWS} == {"yes", "partly", "no"}


@pytest.mark.parametrize("row", NEEDED, ids=lambda row: row["there"])
def test_what_is_needed_is_there(row: dict[str, str]) -> None:
    assert row["done"] == "yes" or "A" not in row["rank"], "needed daily"
    assert row["done"] != "no", "expected"
    named = [words.split() for words in re.findall(r"`([^`]+)`", row["here"])]
    commands = [words for words in named if words and words[0] in COMMANDS]
    for words in commands:
        _check(words)
    assert commands or row["there"].strip() in NO_COMMAND


def _check(words: list[str]) -> None:
    """Fail unless the words are a command with its sub-command and options."""
    context = click.Context(main)
    command = main.get_command(context, words[0])
    rest = words[1:]
    if isinstance(command, click.Group) and rest and re.fullmatch(r"[a-z-]+", rest[0]) and rest[0][0] != "-":
        inner = command.get_command(click.Context(command), rest.pop(0))
        assert inner is not None, words
        command = inner
    assert command is not None
    known = {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    for word in rest:
        option = re.match(r"\[?(--?[a-z][a-z-]*)", word)
        assert option is None or option[1] in known, words
