"""`python -m realmfs` is the command `realmfs`."""

from realmfs.cli.main import main

main(prog_name="realmfs")
