"""`realmfs config`."""

from pathlib import Path

import click

from realmfs.cli.daemon import json_option, with_daemon
from realmfs.cli.show import print_json, print_table
from realmfs.control.client import Client
from realmfs.host.paths import Paths
from realmfs.host.settings import FILE, KEYS, settle


def _file(system: bool) -> tuple[Paths, Path]:
    paths = Paths.of_system() if system else Paths.of_user()
    return paths, paths.config / FILE


@click.group()
def command() -> None:
    """Show the settings in effect and where they come from."""


@command.command()
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file.")
@click.option("--system", is_flag=True, help="Of the system daemon.")
@json_option
def show(config: Path | None, system: bool, as_json: bool) -> None:
    """Print every setting, as the next start of the daemon will see it."""
    paths, _ = _file(system)
    settings = settle(paths, config, {})
    values = {key.name: getattr(settings, key.name) for key in KEYS}
    texts = {name: _text(value) for name, value in values.items()}
    if as_json:
        print_json(texts)
        return
    print_table(
        ("SETTING", "VALUE", "MEANING"), [(key.name, texts[key.name], key.meaning) for key in KEYS], ""
    )


@command.command()
@click.option("--system", is_flag=True, help="Of the system daemon.")
def path(system: bool) -> None:
    """Print where the configuration file is looked for."""
    click.echo(_file(system)[1])


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
