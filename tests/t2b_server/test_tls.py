"""Clients through TLS at the embedded server, and the certificates that it makes for itself."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner
from trio.testing import memory_stream_pair

from realmfs.cli.admin import command as admin
from realmfs.cli.main import main
from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.endpoint import Endpoint, udp_transport
from realmfs.rpc2.errors import BadCertificate, BrokenTunnel, RpcError
from realmfs.rpc2.service import ANONYMOUS, Address
from realmfs.rpc2.tls import client_context
from realmfs.rpc2.tunnel import Tunnel, accept_tunnel, connect_tcp, open_tunnel
from realmfs.server import tunnels
from realmfs.server.certificates import CertificateError, Certificates
from realmfs.server.serving import RealmServer
from realmfs.server.store import ServerStore
from realmfs.server.volumes import ROOT_VOLUME
from realmfs.vice.types import FILE_SUBSYSTEM, Fid
from tests.t2b_server.harness import ALL, Client
from tests.t2b_server.test_commands import running

NAME = "server.test.realm"
HOST = "127.0.0.1"


@dataclass
class Place:
    """A server on loopback that listens for TLS, and what a client needs."""

    server: RealmServer
    certificates: Certificates
    nursery: trio.Nursery
    volume: int

    async def tunnel(self, *, authority: Path | None = None, name: str = NAME) -> Tunnel:
        """A tunnel's near end, not yet carried by anybody."""
        address = self.server.file_address
        context = client_context(authority or self.certificates.authority)
        return await open_tunnel(await connect_tcp(address), address, context, [name], sni=name)

    async def endpoint(self) -> Endpoint:
        endpoint = Endpoint(await udp_transport((HOST, 0)), rng=random.Random(4))
        await self.nursery.start(endpoint.run)
        return endpoint

    async def client(self, peer: Address | None = None) -> Client:
        """A client that has introduced itself, by default through a tunnel of its own."""
        endpoint = await self.endpoint()
        client = Client(endpoint, self.volume)
        if peer is None:
            tunnel = await self.tunnel()
            endpoint.start_tunnel(tunnel, lambda reason: None)
            peer = tunnel.peer
        client.connection = await endpoint.bind(peer, FILE_SUBSYSTEM, ANONYMOUS)
        await client.introduce()
        return client


@asynccontextmanager
async def listening(tmp_path: Path, *, tls_only: bool = False) -> AsyncIterator[Place]:
    certificates = Certificates(tmp_path / "tls")
    certificates.make("test.realm", [NAME])
    with ServerStore.create(tmp_path / "data", "test.realm", HOST, anyuser=ALL) as store:
        server = await RealmServer.bind(store, HOST, 0, 0, certificates)
        server.file_server.tls_only = tls_only
        root = store.volumes.named(ROOT_VOLUME)
        assert root is not None
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            yield Place(server, certificates, nursery, root.group_id)
            nursery.cancel_scope.cancel()


async def test_files_and_callbacks_through_tunnels(tmp_path: Path) -> None:
    async with listening(tmp_path) as place:
        first, second = await place.client(), await place.client()
        third = await place.client(place.server.file_address)  # by UDP, at the same port
        data = random.Random(1).randbytes(1_000_000)
        fid = await first.make_file(b"large", data)
        for client in (second, third):
            assert await client.fetch(fid, primary_host=0) == data
            assert (await client.status(Fid.root(place.volume))).type
        await first.make_file(b"another", b"x")
        assert {fid.vnode for fid in second.broken} == {fid.vnode for fid in third.broken} == {1}
        peers = [str(host) for host in place.server.file_server.state.hosts.all()]
        assert len(set(peers)) == 3


async def test_a_client_whose_tunnel_ends_is_forgotten_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(tmp_path) as place:
        hosts = place.server.file_server.state.hosts
        gone, writer = await place.client(), await place.client()
        await gone.status(Fid.root(place.volume))
        assert len(hosts.all()) == 2
        forgotten, lost = trio.Event(), hosts.lost

        def note(peer: Address) -> None:
            lost(peer)
            forgotten.set()

        monkeypatch.setattr(hosts, "lost", note)
        gone.endpoint.forget_peer(gone.connection.peer)
        for tunnel in list(gone.endpoint._tunnels.values()):
            tunnel.close()
        await forgotten.wait()
        assert len(hosts.all()) == 1
        with trio.fail_after(1):  # a vanished client by UDP would cost PATIENCE
            await writer.make_file(b"f", b"nobody waits")


async def test_where_tls_is_required_datagrams_are_refused(tmp_path: Path) -> None:
    async with listening(tmp_path, tls_only=True) as place:
        endpoint = await place.endpoint()
        with pytest.raises(RpcError) as caught:
            await endpoint.bind(place.server.file_address, FILE_SUBSYSTEM, ANONYMOUS)
        assert caught.value.code == Rpc2Code.NOTAUTHENTICATED
        await (await place.client()).make_file(b"f", b"x")


async def test_clients_that_do_not_believe_the_server_go_away(tmp_path: Path) -> None:
    stranger = Certificates(tmp_path / "other")
    stranger.make("test.realm", [NAME])
    async with listening(tmp_path) as place:
        with pytest.raises(BadCertificate, match="not signed by the authority"):
            await place.tunnel(authority=stranger.authority)
        with pytest.raises(BadCertificate, match=f"is for {NAME}, not for another.realm"):
            await place.tunnel(name="another.realm")
        await place.client()


async def test_a_new_certificate_serves_the_next_client(tmp_path: Path) -> None:
    async with listening(tmp_path) as place:
        await place.client()
        place.certificates.make("test.realm", ["new.test.realm"])
        await (await place.tunnel(name="new.test.realm")).aclose()
        await (await place.tunnel(name=NAME)).aclose()
        place.certificates.certificate.write_text("damaged")
        await place.client()  # what was read last serves on


async def test_one_host_takes_a_bounded_number_of_tunnels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnels, "MOST_PER_HOST", 3)
    async with listening(tmp_path) as place:
        for _ in range(3):
            await place.client()
        with pytest.raises(BrokenTunnel):
            await place.tunnel()


async def test_silent_connections_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnels, "HANDSHAKE_WITHIN", 0.2)
    async with listening(tmp_path) as place:
        async with await connect_tcp(place.server.file_address) as stream:
            with trio.fail_after(5):
                assert await stream.receive_some() == b""
        async with await connect_tcp(place.server.file_address) as stream:
            await stream.send_all(random.Random(1).randbytes(1000))
            with trio.fail_after(5), contextlib.suppress(trio.BrokenResourceError):
                while await stream.receive_some():
                    pass


# Certificates


def modes(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in (directory, *directory.iterdir())}


def test_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path / "tls")
    assert certificates.make("r.test", ["a.r.test", "10.0.0.1"])
    assert modes(certificates.directory) == {
        "tls": 0o700, "ca.crt": 0o644, "ca.key": 0o600, "server.crt": 0o644, "server.key": 0o600,
    }  # fmt: skip


def test_what_is_there_is_kept_until_it_is_due(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    certificates.make("r.test", ["A.r.test.", "10.0.0.1"])
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert not certificates.make("r.test", ["10.0.0.1", "a.r.test"])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files
    assert certificates.make("r.test", ["a.r.test"], renew=True, days=20)
    assert certificates.make("r.test", ["a.r.test"]), "it would end within 30 days"
    assert not certificates.make("r.test", [])
    assert certificates.key.read_bytes() == files[certificates.key]
    assert certificates.authority.read_bytes() == files[certificates.authority]
    described = certificates.describe(certificates.certificate)
    assert described.names == ("a.r.test", "10.0.0.1")
    left = described.until - dt.datetime.now(dt.UTC)
    assert dt.timedelta(days=390) < left < dt.timedelta(days=398)


async def test_a_second_server_is_vouched_for_by_the_same_authority(tmp_path: Path) -> None:
    first, second = Certificates(tmp_path / "1"), Certificates(tmp_path / "2")
    first.make("r.test", ["s1.r.test"])
    second.make("r.test", ["s2.r.test"], authority=first.directory)
    assert not (second.directory / "ca.key").exists()
    assert second.authority.read_bytes() == first.authority.read_bytes()
    near, far = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept_tunnel, far, second.context(), 5.0)
        await open_tunnel(near, ("10.0.0.2", 2432), client_context(first.authority), ["s2.r.test"])
    with pytest.raises(CertificateError, match=r"ca\.key is missing"):
        second.make("r.test", ["s3.r.test"])


def test_an_authority_in_pieces(tmp_path: Path) -> None:
    first, second = Certificates(tmp_path / "1"), Certificates(tmp_path / "2")
    first.make("r.test", ["s1.r.test"])
    second.make("r.test", ["s2.r.test"])
    (first.directory / "ca.key").write_bytes((second.directory / "ca.key").read_bytes())
    with pytest.raises(CertificateError, match="not of one authority"):
        first.make("r.test", ["s4.r.test"])
    (first.directory / "ca.key").write_text("x")
    with pytest.raises(CertificateError, match="no key"):
        first.make("r.test", ["s4.r.test"])
    first.certificate.write_text("x")
    with pytest.raises(CertificateError, match="no certificate"):
        first.make("r.test", ["s4.r.test"])
    with pytest.raises(CertificateError, match="can be no name"):
        second.make("r.test", ["käse.r.test"])
    with pytest.raises(CertificateError, match="at least one name"):
        Certificates(tmp_path / "3").make("r.test", [])


def test_the_command(tmp_path: Path) -> None:
    def run(*argv: str) -> str:
        result = CliRunner().invoke(admin, ["certificates", "--data", str(data), *argv])
        assert result.exit_code == 0, result.output
        return result.output

    data = tmp_path / "data"
    refused = CliRunner().invoke(admin, ["certificates", "--data", str(data)])
    assert refused.exit_code == 1
    assert "--realm" in refused.output
    store = ServerStore.create(data, "test.realm", "127.0.0.5")  # locked, as by a server that runs
    output = run("--name", "s.test.realm", "--address", "192.0.2.1")
    assert f"made {data}/tls/server.crt" in output
    assert "for s.test.realm, test.realm, 192.0.2.1, 127.0.0.5, until" in output
    assert "clients want it as test.realm.pem" in output
    assert output.replace("made", "kept") == run()
    assert json.loads(run("--renew", "--json"))["made"] is True
    refused = CliRunner().invoke(admin, ["certificates", "--data", str(data), "--realm", "else.where"])
    assert "is of the realm test.realm" in refused.output
    store.close()


async def test_a_served_realm_by_command(tmp_path: Path) -> None:
    """`serve --tls require` says what to do without a certificate, and with one takes no datagrams."""
    data = tmp_path / "data"
    ServerStore.create(data, "test.realm", HOST).close()
    argv = [
        "serve",
        "--realm",
        "test.realm",
        "--data",
        str(data),
        "--address",
        f"{HOST}:0",
        "--tls",
        "require",
    ]
    refused = CliRunner().invoke(main, argv)
    assert refused.exit_code == 1
    assert f"Cure: realmfs admin certificates --data {data}" in refused.output
    made = CliRunner().invoke(admin, ["certificates", "--data", str(data)])
    assert made.exit_code == 0
    authority = Certificates(data / "tls").authority
    with running(data, "--tls", "require") as (_, address, _):
        tunnel = await open_tunnel(await connect_tcp(address), address, client_context(authority), [HOST])
        endpoint = Endpoint(await udp_transport((HOST, 0)))
        async with trio.open_nursery() as nursery:
            await nursery.start(endpoint.run)
            endpoint.start_tunnel(tunnel, pytest.fail)
            assert (await endpoint.bind(tunnel.peer, FILE_SUBSYSTEM, ANONYMOUS)).ours
            with pytest.raises(RpcError):
                await endpoint.bind(address, FILE_SUBSYSTEM, ANONYMOUS)
            nursery.cancel_scope.cancel()
