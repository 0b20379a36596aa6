"""`realmfs serve` and `realmfs admin`, as a person uses them: real processes, sockets and signals."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner

from realmfs.cli.admin import command as admin
from realmfs.cli.serve import command as serve
from realmfs.rpc2.endpoint import Endpoint, udp_transport
from realmfs.rpc2.service import ANONYMOUS, Address, Credentials, Level
from realmfs.server.authserver import BY_PASSWORD
from realmfs.server.check import check_store
from realmfs.server.store import ServerStore
from realmfs.vice import auth, calls, log
from realmfs.vice.auth import AUTH_SUBSYSTEM
from realmfs.vice.directory import Directory
from realmfs.vice.tokens import Token
from realmfs.vice.types import FILE_SUBSYSTEM, Fid
from tests.t2b_server.harness import Client

READY = re.compile(
    r"serving test\.realm at 127\.0\.0\.1:(\d+), auth2 at 127\.0\.0\.1:(\d+)"
    r"(?:, TLS by .*)?; realms file: .*\n"
)


@contextmanager
def running(data: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], Address, Address]]:
    """Run a server on free ports; yields process, file service and auth2."""
    command = [sys.executable, "-m", "realmfs", "serve", "--realm", "test.realm", "--data", str(data)]
    command += ["--address", "127.0.0.1:0", "--auth-port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        ready = READY.fullmatch(process.stdout.readline())
        assert ready, process.communicate()
        yield process, ("127.0.0.1", int(ready[1])), ("127.0.0.1", int(ready[2]))
    finally:
        process.kill()
        process.communicate()


def run_admin(data: Path, *arguments: str, stdin: str = "") -> str:
    group, verb, *rest = arguments
    result = CliRunner().invoke(admin, [group, verb, "--data", str(data), *rest], input=stdin)
    assert result.exit_code == 0, result.output
    return result.output


async def login(endpoint: Endpoint, server: Address, name: str, password: bytes) -> Token:
    credentials = Credentials(Level.SECURE, name.encode() + b"\0", password.ljust(8, b"\0"), BY_PASSWORD)
    connection = await endpoint.bind(server, AUTH_SUBSYSTEM, credentials, side_effects=False)
    reply = await connection.call(auth.GetTokens.OPCODE)
    return Token.from_reply(auth.GetTokens.Reply.unpack(reply.body, reply.code))


async def test_serve_administer_and_stop(tmp_path: Path) -> None:
    source, data = tmp_path / "source", tmp_path / "data"
    (source / "sub").mkdir(parents=True)
    (source / "hello").write_bytes(b"hello, realm")
    options = (
        "--import",
        str(source),
        "--volume",
        f"lib={source}",
        "--volume",
        "empty",
        "--anyuser",
        "rlidwk",
    )
    for _ in range(2):
        with running(data, *options) as (process, files, logins):
            run_admin(data, "user", "list")
            async with trio.open_nursery() as nursery:
                endpoint = Endpoint(await udp_transport(("127.0.0.1", 0)))
                await nursery.start(endpoint.run)
                connection = await endpoint.bind(files, FILE_SUBSYSTEM, ANONYMOUS)
                request = calls.GetVolumeInfo(name=b"lib")
                reply = await connection.call(request.OPCODE, request.pack())
                assert calls.GetVolumeInfo.Reply.unpack(reply.body, reply.code).info.servers == (0x7F000001,)
                if not json.loads(run_admin(data, "user", "list", "--json")):
                    run_admin(data, "user", "add", "ann", "--administrator", stdin="s3cret\n")
                token = await login(endpoint, logins, "ann", b"s3cret")
                assert token.clear.vice_id == 1001
                nursery.cancel_scope.cancel()
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=10)
            assert process.returncode == 0
            assert "Traceback" not in errors
    with ServerStore.open(data) as store:
        assert check_store(store, contents=True) == []
        assert [volume.name for volume in store.volumes.all()] == ["/", "lib", "empty"]
    volumes = json.loads(run_admin(data, "volume", "list", "--json"))
    assert {row["name"]: row["mounts"] for row in volumes} == {
        "/": ["/"],
        "lib": ["/lib"],
        "empty": ["/empty"],
    }


async def test_what_was_answered_survives_a_kill(tmp_path: Path) -> None:
    data = tmp_path / "data"
    done: list[bytes] = []
    enough = trio.Event()
    with running(data, "--anyuser", "rlidwk") as (process, files, _):
        async with trio.open_nursery() as nursery:
            endpoint = Endpoint(await udp_transport(("127.0.0.1", 0)))
            await nursery.start(endpoint.run)
            with ServerStore.open(data, lock=False) as store:
                volume = store.volumes.all()[0].group_id
            client = Client(endpoint, volume=volume)
            client.connection = await endpoint.bind(files, FILE_SUBSYSTEM, ANONYMOUS)
            await client.introduce()

            async def write() -> None:
                for number in range(10_000):
                    fid, name = await client.new_fid(), b"f%d" % number
                    client.data[fid] = name * 100
                    records: list[log.AnyRecord] = [
                        client.create(name, fid),
                        client.store(fid, len(name) * 100),
                    ]
                    await client.replay(records)
                    done.append(name)
                    if len(done) == 25:
                        enough.set()

            nursery.start_soon(write)
            await enough.wait()
            process.kill()
            process.wait()
            nursery.cancel_scope.cancel()
    with ServerStore.open(data) as store:
        assert check_store(store, contents=True) == []
        root = store.root_of(store.volumes.all()[0])
        names = Directory.parse(store.vnodes.image(root))
        for name in done:
            vnode = store.vnodes.find(Fid(root.volume, *(names.lookup(name) or (0, 0))))
            assert vnode is not None
            assert vnode.length == len(name) * 100


def test_users_groups_and_volumes(tmp_path: Path) -> None:
    data = tmp_path / "data"
    ServerStore.create(data, "test.realm", "127.0.0.1").close()
    assert "1001" in run_admin(data, "user", "add", "ann", stdin="secret\n")
    assert "77" in run_admin(data, "user", "add", "bob", "--id", "77", stdin="a-longer-secret\n")
    run_admin(data, "group", "add", "team")
    run_admin(data, "group", "join", "team", "ann", "bob")
    run_admin(data, "group", "leave", "team", "bob")
    assert "team: ann" in run_admin(data, "group", "list")
    run_admin(data, "user", "password", "ann", stdin="changed\n")
    run_admin(data, "volume", "create", "home", "--owner", "ann", "--anyuser", "none", "--quota", "100")
    run_admin(data, "volume", "create", "hidden", "--no-mount")
    (tmp_path / "source").mkdir()
    (tmp_path / "source/f").write_bytes(b"x")
    run_admin(data, "volume", "import", "--owner", "ann", "home", str(tmp_path / "source"))
    listed = run_admin(data, "volume", "list")
    assert "/home" in listed
    assert "of 100" in listed
    assert "bob" in run_admin(data, "user", "list")
    run_admin(data, "user", "remove", "bob")
    run_admin(data, "group", "remove", "team")
    with ServerStore.open(data) as store:
        assert [user.name for user in store.protection.users()] == ["ann"]
        assert store.protection.key_of(1001) == b"changed\0"
        assert check_store(store, contents=True) == []
    assert CliRunner().invoke(admin, ["check", "--data", str(data), "--contents"]).exit_code == 0
    next(path for path in (data / "containers").rglob("*") if path.is_file()).write_bytes(b"y")
    broken = CliRunner().invoke(admin, ["check", "--data", str(data), "--contents"])
    assert broken.exit_code == 1
    assert "other bytes" in broken.output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("user", "add", "ann"), "empty"),
        (("user", "remove", "nobody"), "no user"),
        (("group", "join", "nobody", "x"), "no user"),
        (("group", "remove", "System:AnyUser"), "every realm"),
        (("volume", "create", "/"), "taken"),
        (("volume", "create", "x", "--owner", "nobody"), "no user"),
        (("volume", "create", "x", "--mount", "no/such/place"), "no such"),
        (("volume", "create", "x", "--anyuser", "xyz"), "rights"),
    ],
)
def test_what_the_administrator_cannot_have(tmp_path: Path, arguments: tuple[str, ...], reason: str) -> None:
    data = tmp_path / "data"
    ServerStore.create(data, "test.realm", "127.0.0.1").close()
    group, verb, *rest = arguments
    result = CliRunner().invoke(admin, [group, verb, "--data", str(data), *rest], input="\n")
    assert result.exit_code in (1, 2)
    assert reason in result.output.replace("there is no no in", "no such")
    with ServerStore.open(data) as store:
        assert len(store.volumes.all()) == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--realm", "other.realm"), "is of the realm"),
        (("--address", "198.51.100.7"), "not an address of this machine"),
        (("--address", "127.0.0.1:x"), "is no port"),
        (("--volume", "a@b=/tmp"), "volume's name"),
        (("--anyuser", "q"), "rights"),
    ],
)
def test_what_serve_refuses(tmp_path: Path, options: tuple[str, ...], reason: str) -> None:
    data = tmp_path / "data"
    ServerStore.create(data, "test.realm", "127.0.0.1").close()
    arguments = ["--realm", "test.realm", "--data", str(data), *options]
    result = CliRunner().invoke(serve, arguments)
    assert result.exit_code in (1, 2)
    assert reason in result.output
