"""Administration of a realm of several servers: at one of them, for all."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner, Result

from realmfs.cli.founding import Wanted, announce, prepare
from realmfs.cli.main import main
from realmfs.rpc2.endpoint import Endpoint
from realmfs.rpc2.service import Credentials, Level
from realmfs.server.authserver import BY_PASSWORD, AuthServer
from realmfs.server.database import StoreError
from realmfs.server.groupfile import GroupFile, store_directory
from realmfs.server.protection import password_key
from realmfs.vice import auth
from tests.group import address, group

EVERYBODY = (1, 2, 3)


def run(*argv: str, text: str = "") -> Result:
    """Run a command."""
    return CliRunner().invoke(main, argv, input=text)


def test_servers_that_are_started_together_find_one_another(tmp_path: Path) -> None:
    """All have looked before the first has said where it is: then the last knows all, and tells them."""
    wanted = Wanted("group.test", tmp_path, 3, None, (), 9)
    with ExitStack() as stores:
        made = [stores.enter_context(prepare(wanted, one, f"127.0.0.{one}")) for one in EVERYBODY]
        for store in made:
            announce(wanted, store)
        assert [len(store.servers()) for store in made] == [1, 2, 3]


@pytest.fixture
def realm(tmp_path: Path) -> Path:
    """The directory of three servers that have never run."""
    wanted = Wanted("group.test", tmp_path / "data", 3, None, (), 9)
    for number in EVERYBODY:
        with prepare(wanted, number, f"127.0.0.{number}") as store:
            announce(wanted, store)
    with prepare(wanted, 1, "127.0.0.1") as store:
        announce(wanted, store)  # it reads where the others are
    return wanted.data


def test_the_first_server_founds_and_the_others_wait(realm: Path) -> None:
    found = GroupFile.read(realm)
    assert found is not None
    assert found.founded
    assert found.servers == {number: (f"127.0.0.{number}", 2432) for number in EVERYBODY}
    assert (realm / "group.json").stat().st_mode & 0o077 == 0
    wanted = Wanted("group.test", realm, 3, None, (), 9)
    with prepare(wanted, 1, "127.0.0.1") as first, prepare(wanted, 2, "127.0.0.2") as second:
        assert (first.knows_realm, second.knows_realm) == (True, False)
        assert set(second.servers()) >= {1, 2}
        location = first.locations.named("/")
        assert location is not None
        assert [replica.server for replica in location.replicas] == [1, 2, 3]


def test_an_empty_disk_never_founds_a_second_realm(realm: Path) -> None:
    store_directory(realm, 1).rename(realm / "lost")
    with prepare(Wanted("group.test", realm, 3, None, (), 9), 1, "127.0.0.1") as store:
        assert not store.knows_realm


def test_servers_need_addresses_of_their_own(realm: Path) -> None:
    wanted = Wanted("group.test", realm, 3, None, (), 9)
    with prepare(wanted, 3, "127.0.0.3") as store:
        with store.transaction():
            store.set_address("127.0.0.1", 2433)
        with pytest.raises(StoreError, match="an address of its own"):
            announce(wanted, store)


def test_volumes_are_placed_where_they_are_wanted(realm: Path) -> None:
    data = ("--data", str(realm))
    for name, replicas in [("all", ()), ("two", ("--replicas", "2")), ("chosen", ("--replicas", "3,1"))]:
        assert run("admin", "volume", "create", *data, *replicas, name).exit_code == 0, name
    listed = json.loads(run("admin", "volume", "list", *data, "--json").output)
    assert {row["name"]: row["servers"] for row in listed} == {
        "/": [1, 2, 3],
        "all": [1, 2, 3],
        "two": [1, 2],
        "chosen": [3, 1],
    }
    elsewhere = run("admin", "volume", "create", *data, "--replicas", "2,", "--quota", "500", "elsewhere")
    assert elsewhere.exit_code == 0
    servers = json.loads(run("admin", "server", "list", *data, "--json").output)
    assert [row["replicas"] for row in servers] == [4, 4, 3]
    for wrong in ("4", "1,9", "x"):
        assert run("admin", "volume", "create", *data, "--replicas", wrong, "wrong").exit_code != 0


async def test_passwords_are_changed_at_one_server(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Everybody lets a user in; only the keeper takes a new password, and then everybody has it."""
    async with group(tmp_path) as (servers, nursery):
        user = servers.stores[1].protection.add_user("ann", password_key("old"))
        servers.running[1].group.catch_up.changed_outside()  # type: ignore[union-attr]  # it is in a group
        await trio.sleep(10)
        client = Endpoint(servers.net.transport(("10.0.2.1", 0)))
        await nursery.start(client.run)
        for number in EVERYBODY:
            port = servers.net.transport((address(number), 370))
            await nursery.start(AuthServer(servers.stores[number], Endpoint(port), clock=servers.clock).run)

        async def change(number: int, old: str, new: bytes) -> int:
            credentials = Credentials(Level.SECURE, b"ann\0", password_key(old), BY_PASSWORD)
            connection = await client.bind((address(number), 370), auth.AUTH_SUBSYSTEM, credentials)
            call = auth.ChangePassword(vice_id=user, password=new)
            return (await connection.call(call.OPCODE, call.pack())).code

        assert await change(2, "old", b"new") == auth.AuthCode.READONLY
        assert await change(1, "old", b"new") == 0
        await trio.sleep(10)
        assert await change(3, "new", b"newer") == auth.AuthCode.READONLY, "it knows the new one"


def test_users_are_refused_elsewhere(realm: Path) -> None:
    with prepare(Wanted("group.test", realm, 3, None, (), 9), 2, "127.0.0.2") as store:
        store.set("keeper", 1)
    refused = run("admin", "user", "add", "--data", str(store_directory(realm, 2)), "ann", text="secret\n")
    assert refused.exit_code == 1
    assert "changed at server 1" in refused.output
    assert run("admin", "user", "add", "--data", str(realm), "ann", text="secret\n").exit_code == 0
