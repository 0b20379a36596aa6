"""`realmfs config`."""

from pathlib import Path

import click

from realmfs.cli.daemon import json_option, with_daemon
from realmfs.cli.failure import Exit, Failure
from realmfs.cli.schema import Setting
from realmfs.cli.show import print_json, print_table
from realmfs.control.client import Client
from realmfs.host.configfile import with_key
from realmfs.host.paths import Paths
from realmfs.host.settings import FILE, KEYS, Settings, read_file, read_value, settle


def _paths(system: bool) -> Paths:
    return Paths.of_system() if system else Paths.of_user()


_config_option = click.option("--config", type=click.Path(path_type=Path), help="Configuration file.")
_system_option = click.option("--system", is_flag=True, help="Of the system daemon.")


@click.group()
def command() -> None:
    """Show the settings in effect and where they come from, and set them."""


@command.command()
@_config_option
@_system_option
@json_option
def show(config: Path | None, system: bool, as_json: bool) -> None:
    """Print every setting, as the next start of the daemon will see it."""
    settings = settle(_paths(system), config, {})
    values = {key.name: getattr(settings, key.name) for key in KEYS}
    texts = {name: _text(value) for name, value in values.items()}
    if as_json:
        print_json(texts)
        return
    print_table(
        ("SETTING", "VALUE", "MEANING"), [(key.name, texts[key.name], key.meaning) for key in KEYS], ""
    )


@command.command()
@_system_option
def path(system: bool) -> None:
    """Print where the configuration file is looked for."""
    click.echo(_paths(system).config / FILE)


@command.command()
@click.argument("name", metavar="SETTING", type=click.Choice([key.name for key in KEYS]))
@_config_option
@_system_option
@json_option
def get(name: str, config: Path | None, system: bool, as_json: bool) -> None:
    """Print one setting, as the next start of the daemon will see it."""
    paths = _paths(system)
    _show(name, settle(paths, config, {}), config or paths.config / FILE, as_json)


@command.command("set")
@click.argument("name", metavar="SETTING", type=click.Choice([key.name for key in KEYS]))
@click.argument("value", required=False)
@click.option("--default", "unset", is_flag=True, help="Take it out of the file: its default holds again.")
@_config_option
@_system_option
@json_option
def set_(name: str, value: str | None, unset: bool, config: Path | None, system: bool, as_json: bool) -> None:
    """Write a SETTING into the configuration file, or back to its default. It holds from the next start on.

    All else in the file stays as it is. Tables of single realms are written with an editor.
    """
    if (value is None) == (not unset):
        raise Failure("say a VALUE, or --default", Exit.USAGE)
    paths = _paths(system)
    file = config or paths.config / FILE
    read_file(file)  # one with errors is not made worse
    if value is not None:
        read_value(name, _plain(name, value), name)
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    changed = with_key(text, name, None if value is None else _plain(name, value))
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _replace(file, changed)
    _show(name, settle(paths, file, {}), file, as_json)


def _replace(file: Path, text: str) -> None:
    """Write the new file beside the old one first: whoever starts meanwhile sees one or the other whole."""
    target = file.resolve()
    beside = target.with_name(f".{target.name}.new")
    beside.write_text(text, encoding="utf-8")
    if target.exists():
        beside.chmod(target.stat().st_mode & 0o7777)
    beside.replace(target)


def _plain(name: str, value: str) -> str | bool:
    """Return a value as the file holds it."""
    switches = {key.name for key in KEYS if key.is_switch}
    return {"true": True, "false": False}.get(value, value) if name in switches else value


def _show(name: str, settings: Settings, file: Path, as_json: bool) -> None:
    setting = Setting(name, _text(getattr(settings, name)), str(file) if name in read_file(file) else None)
    if as_json:
        print_json({key: getattr(setting, key) for key in setting.__slots__})
    else:
        click.echo(setting.value)


def _text(value: object) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case (host, port):
            return f"{host}:{port}" if port else str(host)
    return str(value)


@command.command("log-level")
@click.argument("level", required=False, type=click.Choice(["debug", "info", "warning", "error"]))
@json_option
@with_daemon
def log_level(client: Client, level: str | None, as_json: bool) -> None:
    """Have the running daemon log more or less, until it ends; without LEVEL: tell how much it logs."""
    answer = client.call("daemon.log_level", level=level)
    if as_json:
        print_json(answer)
    else:
        click.echo(f"the daemon logs {answer['level']} and what is graver")
