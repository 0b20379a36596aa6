"""Real servers through their TLS tunnel, with `tls = "require"`: every byte right, and not one datagram.

Their tunnel loses its session under load (sftp.md §17). Where it does not do us the favour the tests do it:
they put bytes into the daemon's connection behind its back, on which the server gives up as it does on its
own defect, or cut the connection.
"""

import os
import random
import re
import secrets
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.ournode import NodeMount
from bench.rig import OUR_NODE, Rig
from tests.certificates import DAY, Authority
from tests.interop.capture import Capture
from tests.interop.nodes import REALM, Place, seconds_until

pytestmark = pytest.mark.timeout(300)
SMALL, SMALL_SIZE = 300, 4096
LARGE_SIZE = 64 << 20
SENT_WITHIN = 90.0
RELOADED_WITHIN = 45.0
"""Their helper looks at its certificate every 30 s."""

BREAK = textwrap.dedent("""
    import contextlib, ctypes, os, socket, sys
    pid, how, broken = int(sys.argv[1]), sys.argv[2], 0
    target = os.pidfd_open(pid)
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):  # it comes and goes meanwhile
            if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                continue
            number = ctypes.CDLL(None).syscall(438, target, int(name), 0)  # pidfd_getfd
            with socket.socket(fileno=number) as found:
                if found.family != socket.AF_INET or found.type != socket.SOCK_STREAM:
                    continue
                if found.getpeername()[1] != 2432:
                    continue
                if how == "garble":
                    found.send(bytes((23, 3, 3, 0, 64)) + os.urandom(64))  # a record that nobody sealed
                else:
                    found.shutdown(socket.SHUT_RDWR)
                broken += 1
    print(broken)
""")


@dataclass
class Client:
    """realmfs on its node, with an empty cache at first."""

    rig: Rig
    mount: NodeMount

    @property
    def place(self) -> Place:
        return Place(self.rig, OUR_NODE, f"{self.mount.point}/{REALM}")

    def servers(self) -> str:
        return self.mount.command("servers")

    def tunnels(self) -> int:
        """How many were made so far."""
        return self.mount.program.log.read_text(errors="replace").count("realmfs.realms.channel: tunnel to")

    def break_tunnels(self, how: str) -> int:
        pid = (self.mount.files / "mount.pid").read_text().strip()
        return int(self.rig.exec(OUR_NODE, sys.executable, "-c", BREAK, pid, how))

    def sent(self) -> bool:
        return "\n0 changes wait" in self.mount.command("status")


@pytest.fixture(scope="module")
def tunnelled(rig: Rig) -> Iterator[Rig]:
    """The rig with the tunnel switched on at the servers; client2 stays with UDP, to look what is there."""
    was_on = "tunnel True" in rig.control("status")
    if not was_on:
        rig.control("tunnel", "on")
    rig.control("client", "2", "restart", "--init", "--no-tunnel")
    yield rig
    rig.control("tunnel", "on" if was_on else "off")


@pytest.fixture(scope="module")
def authorities(tunnelled: Rig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The realm's authority as the servers have it, pinned where a client looks for it."""
    directory = tmp_path_factory.mktemp("ca")
    certificate = tunnelled.exec("s1", "cat", f"{os.environ['CODA_PREFIX']}/etc/ssl/rig_CA.crt")
    (directory / f"{REALM}.pem").write_text(certificate)
    return directory


@pytest.fixture(scope="module")
def datagrams(tunnelled: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Capture]:
    """Every datagram from our node to a file server, from before the first test on.

    A server whose tunnel breaks goes on by UDP to the address that it had; nobody listens there.
    """
    file = tmp_path_factory.mktemp("capture") / "udp.pcap"
    with Capture(tunnelled, file, "udp dst port 2432 and src host 10.79.0.31") as capture:
        yield capture


@pytest.fixture
def client(tunnelled: Rig, authorities: Path, datagrams: Capture, tmp_path: Path) -> Iterator[Client]:
    made = Client(tunnelled, start(tunnelled, tmp_path, authorities))
    yield made
    made.mount.stop()


def start(rig: Rig, directory: Path, authorities: Path) -> NodeMount:
    """Mount with an empty cache."""
    point = directory / "coda"
    point.mkdir(exist_ok=True)
    options = ("--tls", "require", "--ca-dir", os.fspath(authorities))
    return NodeMount(rig, point, directory / f"run{secrets.token_hex(2)}", *options)


@pytest.fixture(scope="module")
def written(
    tunnelled: Rig, authorities: Path, datagrams: Capture, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str]:
    """Files that realmfs wrote through the tunnel, and their sums: a directory below the realm.

    They stay there. Each broken tunnel was a client that had promises for them; who removed them would wait
    while servers call hundreds of those back, in vain (vice.md §4.3).
    """
    path = f"public/t{secrets.token_hex(4)}"
    directory = tmp_path_factory.mktemp("writer")
    mount = start(tunnelled, directory, authorities)
    writer = Client(tunnelled, mount)
    try:
        writer.place.run("mkdir", path)
        here = writer.place.below(path)
        began = time.monotonic()
        here.run(
            "sh", "-c",
            f"for i in $(seq {SMALL}); do head -c {SMALL_SIZE} /dev/urandom > f$i; done;"
            f"head -c {LARGE_SIZE} /dev/urandom > large",
        )  # fmt: skip
        spent = seconds_until(writer.sent, SENT_WITHIN)
        print(f"written in {time.monotonic() - began:.1f} s, the last {spent:.1f} s of it waiting")
        sums = here.run("sh", "-c", "sha256sum *")
    finally:
        mount.stop()
    return path, sums


def test_files_come_cold_through_the_tunnel_byte_for_byte(client: Client, written: tuple[str, str]) -> None:
    path, sums = written
    here = client.place.below(path)
    for name, pattern in (("small files", "f*"), ("one large file", "large")):
        began = time.monotonic()
        found = here.run(
            "sh", "-c", f"ls -f | grep -v '^[.]' | sort | grep '^{pattern[0]}' | xargs sha256sum"
        )
        size = SMALL * SMALL_SIZE if pattern == "f*" else LARGE_SIZE
        spent = time.monotonic() - began
        print(f"{name}: {size / 1e6:.1f} MB in {spent:.2f} s, {size / 1e6 / spent:.1f} MB/s")
        assert set(found.splitlines()) <= set(sums.splitlines())
    servers = client.servers()
    assert len(re.findall(r"\bup\b.*TLSv1\.3, \w+ \+ AES-CCM", servers)) == 3, servers
    print(f"{client.tunnels()} tunnels were made")


def test_what_was_written_through_the_tunnel_is_what_others_see(rig: Rig, written: tuple[str, str]) -> None:
    """The reference client looks by UDP, which the servers still take from others."""
    path, sums = written
    there = Place(rig, "client2", f"/coda/{REALM}").below(path)
    seconds_until(there.exists, 30.0)
    assert there.run("sh", "-c", "sha256sum *") == sums


@pytest.mark.parametrize("how", ["garble", "cut"])
def test_reading_outlives_tunnels_that_break(client: Client, written: tuple[str, str], how: str) -> None:
    path, sums = written
    here, wanted = client.place.below(path), dict(line.split()[::-1] for line in sums.splitlines())
    here.run("ls")
    before, broken = client.tunnels(), 0
    script = f"cd {here.top} && ls -f | grep -v '^[.]' | xargs -n 20 -P 4 sha256sum"
    with subprocess.Popen(
        client.rig.argv(OUR_NODE, ["sh", "-c", script]), stdout=subprocess.PIPE, text=True
    ) as reading:
        while reading.poll() is None:
            time.sleep(1.0)
            broken += client.break_tunnels(how)
        assert reading.stdout is not None
        found = dict(line.split()[::-1] for line in reading.stdout.read().splitlines())
    assert found == wanted
    print(f"{broken} tunnels broken, {client.tunnels() - before} made anew")
    assert broken > 2
    assert client.tunnels() > before


@pytest.mark.parametrize("how", ["garble", "cut"])
def test_writing_outlives_tunnels_that_break(client: Client, rig: Rig, how: str) -> None:
    path = f"public/t{secrets.token_hex(4)}"
    client.place.run("mkdir", path)
    here = client.place.below(path)
    contents = {f"n{i}": random.Random(i).randbytes(3000 * i) for i in range(40)}
    here.run("sh", "-c", "head -c 16777216 /dev/urandom > large")
    broken = client.break_tunnels(how)
    for number, (name, data) in enumerate(contents.items()):
        here.write(name, data)
        if number % 10 == 5:
            broken += client.break_tunnels(how)
    seconds_until(client.sent, SENT_WITHIN)
    print(f"{broken} tunnels broken, {client.tunnels()} made")
    assert broken > 2
    wanted = here.run("sh", "-c", "sha256sum *")
    there = Place(rig, "client2", f"/coda/{REALM}").below(path)
    seconds_until(there.exists, 30.0)
    assert there.run("sh", "-c", "sha256sum *") == wanted
    here.run("sh", "-c", "rm *")
    client.place.run("rmdir", path)
    seconds_until(client.sent, SENT_WITHIN)


def test_a_server_with_a_certificate_of_another_name_is_refused(
    rig: Rig, client: Client, authorities: Path, tmp_path: Path
) -> None:
    """s2 shows a certificate that is good in every way, but for somebody else; the others serve on."""
    stranger = Authority(tmp_path / "stranger")
    files = stranger.issue("elsewhere.test", "10.79.0.99", until=2 * DAY)
    pinned = tmp_path / "pinned"
    pinned.mkdir()
    (pinned / "rig.crt").write_bytes((authorities / f"{REALM}.pem").read_bytes())
    (pinned / "more.crt").write_bytes(stranger.certificate.read_bytes())
    both = tmp_path / "both"
    both.mkdir()
    (both / f"{REALM}.pem").symlink_to(pinned)
    place = f"{os.environ['CODA_PREFIX']}/etc/ssl"
    before = {name: rig.exec("s2", "cat", f"{place}/{name}") for name in ("server.crt", "server.key")}

    def show(contents: dict[str, str]) -> None:
        for name in ("server.key", "server.crt"):
            rig.shell("s2", f"cat > {place}/{name}", stdin=contents[name])

    def told() -> str:
        return client.mount.command("servers", "--check")

    client.mount.stop()
    show({"server.crt": files[0].read_text(), "server.key": files[1].read_text()})
    try:
        client.mount = start(rig, tmp_path, both)
        limit = time.monotonic() + RELOADED_WITHIN
        while "elsewhere.test" not in (listing := told()):
            assert time.monotonic() < limit, f"s2 did not take its new certificate: {listing}"
            client.mount.stop()  # a tunnel that was made with the old one is as good as ever
            time.sleep(3)
            client.mount = start(rig, tmp_path, both)
            client.place.run("ls")
        line = next(line for line in listing.splitlines() if "10.79.0.12" in line)
        assert "its certificate is for elsewhere.test, 10.79.0.99, not for s2.rig.test or 10.79.0.12" in line
        assert len([line for line in listing.splitlines() if "TLSv1.3" in line]) == 2, listing
        assert "alice" in client.place.names()
    finally:
        show(before)
    seconds_until(lambda: told().count("TLSv1.3") == 3, 2 * RELOADED_WITHIN)  # what comes next has all three


def test_not_one_datagram_went_to_a_file_server(rig: Rig, datagrams: Capture) -> None:
    """The last: the one that is sent here, to see that any would have been noticed, is the only one."""
    send = "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'here', ('10.79.0.11', 2432))"
    rig.exec(OUR_NODE, sys.executable, "-c", send)
    time.sleep(2)  # the kernel hands packets to tcpdump by the block, or once a second
    datagrams.stop()
    lines = datagrams.lines()
    assert len(lines) == 1, lines[:5]
    assert lines[0].endswith("UDP, length 4")
