"""login, logout, tokens and passwd as commands, at an embedded realm."""

import json
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from realmfs.server.store import ServerStore
from realmfs.vice.tokens import parse_token_file
from tests.loopback import own_address
from tests.t8_cli_tui.conftest import Home

REALM = "home.test"
PASSWORD = "s3cr3tpw"


@pytest.fixture
def served(home: Home) -> Iterator[Path]:
    """A realm at an address of its own, its users ann, an administrator, and bob; returns a realms file."""
    data, log = home.top / "server", home.top / "server.log"
    host = own_address()
    argv = ["serve", "--realm", REALM, "--data", str(data), "--address", f"{host}:24320"]
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "realmfs", *argv], stdout=output, stderr=output, env=home.environment
        )
    try:
        limit = time.monotonic() + 30
        while "serving" not in log.read_text():
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < limit
            time.sleep(0.02)
        home.run("admin", "user", "add", "--data", str(data), "--administrator", "ann", stdin=PASSWORD)
        home.run("admin", "user", "add", "--data", str(data), "bob", stdin="bobs\n")
        realms = home.top / "realms"
        realms.write_text(f"{REALM} {host}:24320\n")
        yield realms
    finally:
        server.terminate()
        server.wait(10)


def start(home: Home, realms: Path, *options: str) -> None:
    home.run("mount", "--no-kernel", "--realms", str(realms), *options)


def held(home: Home) -> list[tuple[str, str]]:
    return [(one["user"], one["state"]) for one in json.loads(home.run("tokens", "--json"))]


def test_a_session(home: Home, served: Path) -> None:
    start(home, served, "--log-level", "debug")
    assert "not logged in" in home.run("tokens")
    assert "which realm" in home.run("login", "ann", stdin=PASSWORD, status=2)
    begun = time.monotonic()
    said = home.run("login", f"ann@{REALM}", stdin="wrong\n", status=5)
    assert "password is wrong" in said
    assert "realmfs login" not in said
    assert time.monotonic() - begun < 3 + 2  # a process start and more on a busy machine
    assert "knows this user" in home.run("login", f"zoe@{REALM}", stdin=PASSWORD, status=5)
    assert "no realm" in home.run("login", "ann@nodot", stdin=PASSWORD, status=1)
    home.run("mkdir", f"{REALM}/d", status=1)
    said = home.run("login", f"ann@{REALM}", stdin=PASSWORD + "x\nrubbish\n")
    assert f"Logged in to {REALM} as ann (" in said
    assert "first 8 bytes" in said
    home.run("mkdir", f"{REALM}/d")
    assert held(home) == [("ann", "valid")]
    assert "1 d" in home.run("tokens")
    if os.geteuid() == 0:
        assert "ann" in home.run("tokens", "--all")
    assert f"Logged out of {REALM}" in home.run("logout")
    assert "not logged in" in home.run("logout", REALM)
    home.run("mkdir", f"{REALM}/e", status=1)
    log = (home.top / "state" / "realmfs" / "realmfs.log").read_text()
    assert "is logged in" in log
    assert PASSWORD not in log


ON_TERMINAL = "import os, sys; os.login_tty(int(sys.argv[1])); os.execv(sys.argv[2], sys.argv[2:])"


def test_a_password_is_asked_on_the_terminal_and_not_shown(home: Home, served: Path) -> None:
    start(home, served)
    ours, theirs = os.openpty()
    argv = [sys.executable, "-m", "realmfs", "login", f"ann@{REALM}"]
    with subprocess.Popen(
        [sys.executable, "-c", ON_TERMINAL, str(theirs), *argv], pass_fds=(theirs,), env=home.environment
    ) as process:
        os.close(theirs)
        shown = b""
        while b"Password of" not in shown:
            shown += os.read(ours, 1024)
        assert PASSWORD.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        os.write(ours, PASSWORD.encode() + b"\n")
        with suppress(OSError):  # EIO: the other side is closed
            while more := os.read(ours, 1024):
                shown += more
        assert process.wait(20) == 0
    os.close(ours)
    assert b"Logged in to" in shown
    assert PASSWORD.encode() not in shown


def test_token_files(home: Home, served: Path) -> None:
    start(home, served)
    file = home.top / "token"
    home.run("login", f"ann@{REALM}", "--to-file", str(file), stdin=PASSWORD)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().startswith("*** Coda Token ***\n")
    assert file.stat().st_size == 129
    home.run("logout")
    home.run("login", f"@{REALM}", "--from-file", str(file))
    home.run("mkdir", f"{REALM}/d")
    file.write_text("nonsense")
    assert "token file" in home.run("login", f"@{REALM}", "--from-file", str(file), status=1)
    assert held(home) == [("", "valid")]


def test_passwords_are_changed(home: Home, served: Path) -> None:
    start(home, served)
    bob = f"bob@{REALM}"
    assert "is changed" in home.run("passwd", bob, stdin="bobs\nlonger1\n")
    assert "password is wrong" in home.run("login", bob, stdin="bobs\n", status=5)
    home.run("login", bob, stdin="longer1\n")
    assert "short" in home.run("passwd", bob, "--as", "ann", stdin=f"{PASSWORD}\nabc\n")
    home.run("login", bob, stdin="abc\n")
    assert "administrators" in home.run(
        "passwd", f"ann@{REALM}", "--as", "bob", stdin="abc\nxyzxyz\n", status=5
    )
    assert "nothing was changed" in home.run("passwd", bob, stdin="abc\n\n", status=1)


def test_logins_last_over_a_restart_if_that_is_wanted(home: Home, served: Path) -> None:
    start(home, served, "--keep-tokens")
    home.run("login", f"ann@{REALM}", stdin=PASSWORD)
    kept = home.top / "state" / "realmfs" / "tokens"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in kept.iterdir()] == [0o600]
    for options, expected in ((("--keep-tokens",), [("ann", "valid")]), ((), [])):
        home.run("unmount")
        while home.socket.exists():
            time.sleep(0.02)
        start(home, served, *options)
        assert held(home) == expected
    assert list(kept.iterdir()) == []


def test_a_login_is_kept_in_the_keyring_on_request(
    home: Home, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("keyring")
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "tests.keyrings.PlainKeyring")
    entries = home.top / "entries"
    monkeypatch.setenv("REALMFS_TEST_KEYRING", str(entries))
    start(home, served)
    said = home.run("login", f"ann@{REALM}", "--keep", "keyring", stdin=PASSWORD, status=1)
    assert "keeps secrets safe" in said
    assert held(home) == [("ann", "valid")], "logged in all the same"
    stop(home)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "tests.keyrings.FileKeyring")
    start(home, served)
    assert held(home) == []
    home.run("login", f"ann@{REALM}", "--keep", "keyring", stdin=PASSWORD)
    stop(home)
    start(home, served)
    limit = time.monotonic() + 10
    while held(home) != [("ann", "valid")]:
        assert time.monotonic() < limit
    home.run("mkdir", f"{REALM}/kept")
    home.run("logout")
    while entries.read_text() != "{}":
        assert time.monotonic() < limit


def stop(home: Home) -> None:
    home.run("unmount")
    while home.socket.exists():
        time.sleep(0.02)


CHILD = """
import ctypes, os, resource
from realmfs.host.process import keep_secrets
keep_secrets()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE), oct(os.umask(0)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_daemon_and_server_leave_no_core_dumps(home: Home, served: Path) -> None:
    start(home, served)
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    (server,) = [pid for pid in children if b"\0serve\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    for pid in (home.daemon_pid(), server):
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE), limits
    done = subprocess.run(
        [sys.executable, "-c", CHILD], check=True, capture_output=True, text=True, env=home.environment
    )
    assert done.stdout.split() == ["0", "0", "0", "0o77"]


def test_nothing_secret_is_logged_or_shown(home: Home, served: Path) -> None:
    """At the loudest level, whatever one does about logins: no password, token or key anywhere."""
    start(home, served, "--log-level", "debug")
    passwords, said = [PASSWORD, "bobs-pw1", "newpass1"], []
    said.append(home.run("login", f"ann@{REALM}", stdin="wrongpw9\n", status=5))
    said.append(
        home.run("login", f"ann@{REALM}", "--to-file", str(home.top / "token"), stdin=PASSWORD + "\n")
    )
    said.append(home.run("passwd", f"bob@{REALM}", stdin="bobs\nbobs-pw1\n"))
    said.append(home.run("passwd", f"bob@{REALM}", "--as", "ann", stdin=f"{PASSWORD}\nnewpass1\n"))
    said.append(home.run("login", f"@{REALM}", "--from-file", str(home.top / "token")))
    home.run("mkdir", f"{REALM}/d")
    said += [home.run("tokens", "--json"), home.run("status"), home.run("config", "show")]
    data = str(home.top / "server")
    said += [home.run("admin", "keys", verb, "--data", data) for verb in ("show", "rotate", "show")]
    said += [home.run("admin", "user", "list", "--json", "--data", data)]
    home.run("ls", REALM)
    said.append(home.run("logout"))
    token = parse_token_file((home.top / "token").read_bytes())
    with ServerStore.open(home.top / "server", lock=False) as store:
        keys = [*store.token_keys(), token.clear.handshake_key, token.secret]
    base64 = "".join((home.top / "token").read_text().splitlines()[1:])
    (home.top / "token").unlink()
    logs = [*(home.top / "state").rglob("*.log"), home.top / "server.log"]
    assert len(logs) == 2
    text = "".join([*said, *(log.read_text() for log in logs)])
    assert "is logged in" in text
    for secret in (*passwords, "wrongpw9", base64[:40], *(base64[i : i + 20] for i in range(0, 100, 20))):
        assert secret not in text, f"{secret} was told"
    for key in keys:
        for form in (key.hex(), key.hex(" "), repr(key)[2:-1], str(list(key))):
            assert form not in text, f"the key {form} was told"
    for path in (path for kind in ("state", "cache", "run") for path in (home.top / kind).rglob("*")):
        if path.is_file():
            found = path.read_bytes()
            assert not any(one.encode() in found for one in passwords), path
            assert not any(key in found for key in keys), path
            assert path.stat().st_mode & 0o077 == 0, f"{path} can be read by others"
