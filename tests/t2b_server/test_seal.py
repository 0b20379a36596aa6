"""Passwords under a seal: the store does not tell them, who has the passphrase goes on as before."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner, Result

from realmfs.cli.founding import Wanted, announce, prepare
from realmfs.cli.main import main
from realmfs.rpc2.endpoint import Endpoint, udp_transport
from realmfs.rpc2.errors import RpcError
from realmfs.server import realmdb
from realmfs.server.groupfile import store_directory
from realmfs.server.protection import ProtectionError, password_key
from realmfs.server.seal import Seal, SealError
from realmfs.server.store import ServerStore
from tests.t2b_server.test_commands import login, run_admin, running

PASSPHRASE = "four words by chance"


def run(*argv: str, text: str = "") -> Result:
    return CliRunner().invoke(main, argv, input=text)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Files with passphrases: the right one, a wrong one, the next one, one that is too short."""
    texts = {"right": PASSPHRASE, "wrong": "other words", "next": "words to come", "short": "brief"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text + "\n")
    return {name: tmp_path / name for name in texts}


def bytes_of(data: Path) -> bytes:
    """Return everything that a thief of the directory has."""
    return b"".join(path.read_bytes() for path in data.rglob("*") if path.is_file())


def test_a_seal_opens_with_its_passphrase_only_and_for_its_user_only() -> None:
    seal = Seal(b"passphrase")
    sealed = seal.close(b"8 bytes.", 1001)
    assert b"8 bytes." not in sealed
    assert sealed != seal.close(b"8 bytes.", 1001), "equal passwords do not show"
    assert Seal(b"passphrase", seal.stored).open(sealed, 1001) == b"8 bytes."
    for wrong in (sealed[:-1], sealed[:-1] + bytes([sealed[-1] ^ 1]), b""):
        with pytest.raises(SealError):
            seal.open(wrong, 1001)
    with pytest.raises(SealError):
        seal.open(sealed, 1002)
    for stored in (seal.stored[:-1], b"", seal.stored[1:]):
        with pytest.raises(SealError):
            Seal(b"passphrase", stored)
    with pytest.raises(SealError, match="wrong"):
        Seal(b"Passphrase", seal.stored)


async def test_a_sealed_store_serves_with_the_passphrase_and_tells_no_password(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    data = tmp_path / "data"
    ServerStore.create(data, "test.realm", "127.0.0.1").close()
    run_admin(data, "user", "add", "ann", stdin="annspass\n")
    run_admin(data, "user", "add", "bob", stdin="bobspass\n")
    assert b"annspass" in bytes_of(data)
    too_short = run("admin", "seal", "--data", str(data), "--new-passphrase-file", str(files["short"]))
    assert (too_short.exit_code, "at least 8" in too_short.output) == (1, True)
    sealed = run("admin", "seal", "--data", str(data), "--new-passphrase-file", str(files["right"]))
    assert sealed.exit_code == 0, sealed.output
    assert b"annspass" not in bytes_of(data)
    assert b"bobspass" not in bytes_of(data)
    for options in ((), ("--passphrase-file", str(files["wrong"]))):
        for argv in (("serve", "--realm", "test.realm"), ("admin", "user", "passwd", "bob")):
            refused = run(*argv, "--data", str(data), *options, text="newspass\n")
            assert (refused.exit_code, "sealed" in refused.output) == (1, True), refused.output
    with_it = ("--passphrase-file", str(files["right"]))
    run_admin(data, "user", "passwd", *with_it, "bob", stdin="newspass\n")
    assert '"can_log_in": true' in run_admin(data, "user", "list", "--json")
    with running(data, *with_it) as (_, _, auth2):
        client = Endpoint(await udp_transport(("127.0.0.1", 0)))
        async with trio.open_nursery() as nursery:
            await nursery.start(client.run)
            assert (await login(client, auth2, "ann", b"annspass")).clear.vice_id == 1001
            assert (await login(client, auth2, "bob", b"newspass")).clear.vice_id == 1002
            with pytest.raises(RpcError):
                await login(client, auth2, "bob", b"bobspass")
            nursery.cancel_scope.cancel()
    assert b"newspass" not in bytes_of(data)
    again = ("--passphrase-file", str(files["right"]), "--new-passphrase-file", str(files["next"]))
    assert run("admin", "seal", "--data", str(data), *again).exit_code == 0
    with ServerStore.open(data) as store:
        with pytest.raises(ProtectionError):
            store.protection.unlock(PASSPHRASE.encode())
        store.protection.unlock(b"words to come")
        assert store.protection.key_of(1001) == b"annspass"
    lost = ("--forgotten", "--new-passphrase-file", str(files["right"]))
    assert "Nobody has a password" in run("admin", "seal", "--data", str(data), *lost).output
    assert "true" not in run_admin(data, "user", "list", "--json")
    run_admin(data, "user", "passwd", *with_it, "ann", stdin="annsnext\n")
    with ServerStore.open(data) as store:
        store.protection.unlock(PASSPHRASE.encode())
        assert store.protection.key_of(1001) == b"annsnext"


def test_the_seal_travels_with_the_passwords(tmp_path: Path, files: dict[str, Path]) -> None:
    wanted = Wanted("group.test", tmp_path / "data", 2, None, (), 9)
    for number in (1, 2):
        with prepare(wanted, number, f"127.0.0.{number}") as store:
            announce(wanted, store)
    run_admin(wanted.data, "user", "add", "ann", stdin="annspass\n")
    sealing = ("admin", "seal", "--data", str(wanted.data), "--new-passphrase-file", str(files["right"]))
    assert run(*sealing).exit_code == 0
    with ExitStack() as stores:
        first, second = (
            stores.enter_context(ServerStore.open(store_directory(wanted.data, number))) for number in (1, 2)
        )
        second.protection.unlock(PASSPHRASE.encode())  # as `serve` does, before it has heard of the seal
        assert realmdb.load(second, realmdb.dump(first))
        assert second.protection.key_of(1001) == password_key("annspass")
        with pytest.raises(ProtectionError, match="not given"):
            first.protection.key_of(1001)
