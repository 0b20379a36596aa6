"""What `--json` prints is what the reference says, field by field, for every command that has it."""

import inspect
import json
import os
import socket
import threading
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, make_dataclass
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import click
import pytest
from click.testing import CliRunner

from realmfs.cli.main import COMMANDS, main
from realmfs.cli.schema import SCHEMA
from realmfs.control.logins import Logins
from realmfs.control.protocol import VERSION, decode, line_of
from realmfs.control.service import Method, Session
from realmfs.control.table import common_methods, topics
from realmfs.venus.face import Caller

ARGUMENTS = {
    "whereis": ["r/f"],
    "stat": ["r/f"],
    "path": ["1.2.3@r"],
    "acl get": ["r"],
    "acl set": ["r", "alice", "rl"],
    "mountpoint make": ["r/m", "v"],
    "mountpoint show": ["r/m"],
    "mountpoint remove": ["r/m"],
    "quota": ["r"],
    "changes export": ["archive"],
    "changes import": ["archive.tar"],
    "changes discard": ["1", "--yes"],
    "conflicts show": ["r/f"],
    "conflicts resolve": ["r/f", "--keep", "local"],
    "hoard add": ["r/f"],
    "hoard profile enable": ["p"],
    "hoard profile disable": ["p"],
    "cache limit": ["500M"],
    "cache fetch": ["r/f"],
    "config get": ["notices"],
    "config set": ["notices", "false"],
}
WITHOUT_DAEMON = ("config show", "config get", "config set", "doctor")
ELSEWHERE = ("admin", "events")


def commands() -> Iterator[str]:
    """Yield the names of the commands with `--json`."""

    def below(command: click.Command, name: str) -> Iterator[str]:
        if any("--json" in parameter.opts for parameter in command.params):
            yield name
        if isinstance(command, click.Group):
            for inner in command.list_commands(click.Context(command)):
                found = command.get_command(click.Context(command), inner)
                assert found is not None
                yield from below(found, f"{name} {inner}")

    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        if command is not None and name not in ELSEWHERE:
            yield from below(command, name)


def methods() -> Mapping[str, Method]:
    nobody: Any = MagicMock()
    here = Path("/nowhere")
    common = common_methods(nobody, nobody, nobody)
    caller = Caller(0, 0, 0)
    return Session(
        nobody, nobody, Logins(nobody, nobody, nobody), caller, common, topics(nobody, here)
    ).methods


def example(hint: Any) -> Any:
    """Make some value of a type."""
    if isinstance(hint, types.UnionType):
        return example(typing.get_args(hint)[0])
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if is_dataclass(hint) and isinstance(hint, type):
        hints = typing.get_type_hints(hint)
        return {field.name: example(hints[field.name]) for field in fields(hint)}
    if origin is not None and issubclass(origin, Mapping):
        return {"k": example(inside[1])}
    if origin is not None:
        return [example(inside[0])]
    return {str: "x", int: 1, float: 1.5, bool: False}[hint]


class Fake:
    """A daemon that answers every method with an example of its result; the last page is the first."""

    def __init__(self, path: Path, *, left: bool = False) -> None:
        """`left`: not all changes can be sent."""
        self._left = left
        self._walks = 0
        self._table = methods()
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as lines:
                for line in lines:
                    request = json.loads(line)
                    result = self._answer(request["method"])
                    connection.sendall(line_of({"id": request["id"], "result": result}))

    def _answer(self, method: str) -> Any:
        run = self._table[method].run
        result = example(inspect.signature(run, eval_str=True).return_annotation)
        self._walks += 1
        for name, value in {"protocol": VERSION, "cursor": None, "position": None, "type": "file"}.items():
            if isinstance(result, dict) and name in result and (name, result[name]) != ("type", 1):
                result[name] = value
        if isinstance(result, dict) and "walks" in result:
            result["walks"] = self._walks
        if method == "changes.send":
            return result if self._left else []
        return result

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


def test_every_command_is_in_the_schema() -> None:
    assert set(commands()) == set(SCHEMA)


def fits(shape: Any, value: Any) -> None:
    """Fail unless a printed value is exactly of a type, with nothing more."""

    decode(make_dataclass("Whole", [("it", shape)]), {"it": value})


@pytest.mark.parametrize("name", sorted(SCHEMA))
def test_what_is_printed_fits(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for kind in ("CACHE", "CONFIG", "STATE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "archive.tar").touch()
    fake = Fake(tmp_path / "s", left=name == "changes send")
    try:
        where = [] if name in WITHOUT_DAEMON else ["--socket", os.fspath(tmp_path / "s")]
        result = CliRunner().invoke(main, [*name.split(), *ARGUMENTS.get(name, []), "--json", *where])
    finally:
        fake.close()
    assert result.exit_code in (0, 1, 4, 6), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    fits(SCHEMA[name], json.loads(result.stdout))


def test_the_daemon_may_be_named_before_or_behind_a_sub_command(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "s")
    try:
        for argv in (["changes", "--socket", "S", "list"], ["changes", "list", "--socket", "S"]):
            given = [os.fspath(tmp_path / "s") if word == "S" else word for word in argv]
            result = CliRunner().invoke(main, given)
            assert result.exit_code == 0, result.output
    finally:
        fake.close()
