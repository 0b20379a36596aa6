"""`realmfs admin`: users, groups and volumes of an embedded realm, on its data directory."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from realmfs.cli import certificates, keys, seal
from realmfs.cli.seal import passphrase_option, unlock
from realmfs.cli.serve import rights_of
from realmfs.server.check import check_store
from realmfs.server.database import StoreError
from realmfs.server.groupfile import NAME as GROUP
from realmfs.server.groupfile import store_directory
from realmfs.server.imports import import_tree
from realmfs.server.mounts import make_mount, mount_points
from realmfs.server.protection import ADMINISTRATORS, ProtectionError, password_key
from realmfs.server.store import ServerStore
from realmfs.server.volumes import IMPORTING, JOINING, ROOT_VOLUME, Volume

KEEPER = 1
"""The server of a group that founds the realm, and where users and volumes are changed."""

_data = click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The server's directory.",
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("admin")
def command() -> None:
    """Administer an embedded realm.

    Works on the server's data directory. A running server notices within a second; only imports need it to be
    stopped.
    """


command.add_command(certificates.command)
command.add_command(keys.command)
command.add_command(seal.command)


def replicas_of(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> int | tuple[int, ...] | None:
    """Read a number of replicas, or a list of servers; for an option's callback."""
    if value is None:
        return None
    try:
        if "," not in value:
            return int(value)
        return tuple(int(number) for number in value.split(",") if number)
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is neither a number nor a list of numbers", ctx, param
        ) from error


@contextmanager
def _open(data: Path, *, lock: bool = False) -> Iterator[ServerStore]:
    """Open the store for a command; what is wrong with the request becomes its error message.

    A directory of several servers stands for that of the server where users and volumes are changed.
    """
    if not (data / "store.db").exists() and (data / GROUP).exists():
        data = store_directory(data, KEEPER)
    try:
        with ServerStore.open(data, lock=lock) as store:
            yield store
            store.database.sync()
    except (StoreError, ProtectionError) as error:
        raise click.ClickException(str(error)) from error


@contextmanager
def _change(data: Path) -> Iterator[ServerStore]:
    """Open the store to change what all servers of the realm share, which is done at one of them."""
    with _open(data) as store:
        if not store.is_keeper:
            raise click.ClickException(
                f"users, groups and volumes are changed at server {store.get('keeper')!r}, for all"
            )
        yield store


def _id(store: ServerStore, name: str) -> int:
    found = store.protection.id_of(name)
    if found is None:
        raise ProtectionError(f"there is no user or group {name}")
    return found


def _print(as_json: bool, rows: list[dict[str, Any]], line: str) -> None:
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        click.echo(line.format_map(row))


def _read_key() -> bytes:
    """Read a password: from the terminal, unseen, or as the first line of standard input."""
    if sys.stdin.isatty():
        password: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if len(password.encode()) > 8:
        click.echo("Only the first 8 bytes of the password count; the protocol has no more.", err=True)
    return password_key(password)


@command.command("check")
@_data
@click.option("--contents", is_flag=True, help="Read every file and compare it with what was stored.")
def check(data: Path, contents: bool) -> None:
    """Say whether the store is consistent; exit status 1 if not."""
    with _open(data) as store:
        troubles = check_store(store, contents=contents)
    for trouble in troubles:
        click.echo(trouble)
    if troubles:
        raise click.exceptions.Exit(1)
    click.echo("the store is consistent")


# users


@command.group()
def user() -> None:
    """Users of the realm."""


@user.command("add")
@_data
@click.option(
    "--id", "number", type=click.IntRange(1, (1 << 31) - 1), help="Vice id; the next free one if not given."
)
@click.option("--administrator", is_flag=True, help="Make the user a member of System:Administrators.")
@passphrase_option
@click.argument("name")
def add_user(
    data: Path, number: int | None, administrator: bool, passphrase_file: Path | None, name: str
) -> None:
    """Make a user; the password comes from standard input."""
    with _change(data) as store:
        unlock(store.protection, passphrase_file)
        key = _read_key()
        with store.transaction():
            made = store.protection.add_user(name, key, user=number)
            if administrator:
                store.protection.add_member(_id(store, ADMINISTRATORS), made)
    click.echo(f"{name} has the id {made}")


@user.command("list")
@_data
@_as_json
def list_users(data: Path, as_json: bool) -> None:
    """List the users."""
    with _open(data) as store:
        rows = [entry._asdict() | {"can_log_in": store.protection.can_log_in(entry.id)}
                for entry in store.protection.users()]  # fmt: skip
    _print(as_json, rows, "{id:>8}  {name}")


@user.command("remove")
@_data
@click.argument("name")
def remove_user(data: Path, name: str) -> None:
    """Remove a user; files keep the number as their owner."""
    with _change(data) as store:
        store.protection.remove(_id(store, name))


@user.command("passwd")
@_data
@passphrase_option
@click.argument("name")
def set_password(data: Path, passphrase_file: Path | None, name: str) -> None:
    """Set a user's password, read from standard input."""
    with _change(data) as store:
        unlock(store.protection, passphrase_file)
        store.protection.set_key(_id(store, name), _read_key())


user.add_command(set_password, "password")  # as it was called first


# groups


@command.group()
def group() -> None:
    """Groups, for access lists."""


@group.command("add")
@_data
@click.argument("name")
def add_group(data: Path, name: str) -> None:
    """Make an empty group."""
    with _change(data) as store:
        made = store.protection.add_group(name)
    click.echo(f"{name} has the id {made}")


@group.command("list")
@_data
@_as_json
def list_groups(data: Path, as_json: bool) -> None:
    """List the groups and their direct members."""
    with _open(data) as store:
        rows = []
        for entry in store.protection.groups():
            names = [member.name for member in store.protection.members(entry.id)]
            rows.append(entry._asdict() | {"members": names, "text": ", ".join(names)})
    _print(as_json, rows, "{id:>8}  {name}: {text}")


@group.command("remove")
@_data
@click.argument("name")
def remove_group(data: Path, name: str) -> None:
    """Remove a group; access lists keep its number, which nobody gets again."""
    with _change(data) as store:
        store.protection.remove(_id(store, name))


@group.command("join")
@_data
@click.argument("name")
@click.argument("members", nargs=-1, required=True)
def join_group(data: Path, name: str, members: tuple[str, ...]) -> None:
    """Put users or groups into a group."""
    with _change(data) as store, store.transaction():
        for member in members:
            store.protection.add_member(_id(store, name), _id(store, member))


@group.command("leave")
@_data
@click.argument("name")
@click.argument("members", nargs=-1, required=True)
def leave_group(data: Path, name: str, members: tuple[str, ...]) -> None:
    """Take users or groups out of a group."""
    with _change(data) as store, store.transaction():
        for member in members:
            store.protection.remove_member(_id(store, name), _id(store, member))


# servers


@command.group()
def server() -> None:
    """The servers of the realm."""


@server.command("list")
@_data
@_as_json
def list_servers(data: Path, as_json: bool) -> None:
    """List the servers that are known, and how many volumes have replicas there."""
    with _open(data) as store:
        places = [replica.server for location in store.locations.all() for replica in location.replicas]
        keeper = store.get("keeper") or KEEPER
        rows = [
            one._asdict()
            | {"replicas": places.count(one.number)}
            | {"text": "changes users and volumes" if one.number == keeper else ""}
            for one in sorted(store.servers().values())
        ]
    _print(as_json, rows, "{number:>3}  {address}:{port}  {replicas} replicas  {text}")


# volumes


@command.group()
def volume() -> None:
    """Volumes and where they are mounted."""


@volume.command("create")
@_data
@click.option("--mount", "path", help="Where to mount it, from the realm's root; else at /NAME.")
@click.option("--no-mount", is_flag=True, help="Do not mount it.")
@click.option("--owner", help="The user who gets all rights on it.")
@click.option("--anyuser", callback=rights_of, default="rl", show_default=True, help="Rights of everybody.")
@click.option("--quota", type=click.IntRange(0), default=0, help="Most KiB that it may hold; 0 = no limit.")
@click.option(
    "--replicas", callback=replicas_of, metavar="N | N,N,...",
    help="How many replicas, or at which servers; a list of one ends with a comma. Default: at all.",
)  # fmt: skip
@click.argument("name")
def create_volume(
    data: Path,
    path: str | None,
    no_mount: bool,
    owner: str | None,
    anyuser: int,
    quota: int,
    replicas: int | tuple[int, ...] | None,
    name: str,
) -> None:
    """Make an empty volume."""
    with _change(data) as store, store.transaction():
        servers = _places(store, replicas)
        holder = _id(store, owner) if owner else None
        if store.number in servers:
            group = store.create_volume(
                name, anyuser=anyuser, owner=holder, servers=servers, quota=quota
            ).group_id
        else:
            group = store.place_volume(name, servers, anyuser=anyuser, owner=holder, quota=quota).group_id
        if not no_mount:
            make_mount(store, name, path or name)
    click.echo(f"{name} has the id {group:08x}")


def _places(store: ServerStore, replicas: int | tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the servers that a new volume is placed at. Raises StoreError."""
    root = store.locations.named(ROOT_VOLUME)
    places = {replica.server for replica in root.replicas} if root is not None else set()
    known = sorted(places | set(store.servers()))
    if replicas is None:
        return tuple(known)
    if isinstance(replicas, int):
        if not 0 < replicas <= len(known):
            raise StoreError(f"the realm has {len(known)} servers, not {replicas}")
        return tuple(known[:replicas])
    strangers = set(replicas) - set(known)
    if strangers:
        raise StoreError(f"the realm has no server {min(strangers)}: {', '.join(map(str, known))}")
    return replicas


@volume.command("import")
@_data
@click.option("--owner", help="The user whom everything shall belong to.")
@click.argument("name")
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
def import_volume(data: Path, owner: str | None, name: str, directory: Path) -> None:
    """Fill an empty volume with a directory of this machine; the server must not be running."""
    with _open(data, lock=True) as store:
        done = import_tree(store, name, directory, _id(store, owner) if owner else None)
    click.echo(f"{name}: {done.objects} objects, {done.bytes / 1e6:.1f} MB; {len(done.skipped)} left out")
    for path, reason in done.skipped:
        click.echo(f"left out {path}: {reason}", err=True)


@volume.command("list")
@_data
@_as_json
def list_volumes(data: Path, as_json: bool) -> None:
    """List the volumes, their size and where they are mounted."""
    with _open(data) as store:
        mounts = mount_points(store)
        rows = [_volume_row(store, entry, mounts.get(entry.name, [])) for entry in store.volumes.all()]
    _print(as_json, rows, "{id}  {name:<31} {kib:>10} KiB of {limit}  {text}")


def _volume_row(store: ServerStore, entry: Volume, mounts: list[str]) -> dict[str, Any]:
    location = store.locations.find(entry.group_id)
    servers = [replica.server for replica in location.replicas] if location is not None else []
    off = {IMPORTING: "off line: its import was broken off", JOINING: "off line: the others fill it"}
    where = ["/"] if entry.name == ROOT_VOLUME else mounts
    return {
        "id": f"{entry.group_id:08x}",
        "replica": f"{entry.id:08x}",
        "name": entry.name,
        "kib": entry.blocks,
        "quota": entry.max_quota,
        "limit": str(entry.max_quota) if entry.max_quota else "no limit",
        "mounts": where,
        "online": not entry.filling,
        "servers": servers,
        "text": off.get(entry.filling, " ".join(where)),
    }
