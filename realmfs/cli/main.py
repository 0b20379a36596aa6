"""Entry point of the command `realmfs`."""

import click

from realmfs import __version__


@click.group()
@click.version_option(__version__, prog_name="realmfs")
def main() -> None:
    """Mount Coda realms, with or without a network."""
