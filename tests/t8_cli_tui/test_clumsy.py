"""What goes wrong for people is told in a line: what, why, and what to do; never a traceback."""

from pathlib import Path

from tests.t8_cli_tui.conftest import Home
from tests.t8_cli_tui.test_login import PASSWORD, REALM, served, start

__all__ = ["served"]  # a fixture


def test_what_cannot_be_started_says_which_setting_to_change(home: Home, served: Path) -> None:
    for option, path in (("--cache-dir", "/proc/x"), ("--state-dir", "/proc/x"), ("--socket", "/proc/x/s")):
        said = home.run("mount", "--no-kernel", option, path, "--log-file", str(home.top / "log"), status=1)
        assert f"setting {option[2:].replace('-', '_')}" in said, said
    host = served.read_text().split()[1]
    said = home.run("mount", "--no-kernel", "--local-address", host, status=1)
    assert f"no UDP socket at {host}: Address already in use. See --local-address" in said
    said = home.run("serve", "--realm", "x.test", "--data", "other", "--address", host, status=1)
    assert "another --address" in said
    said = home.run("serve", "--realm", REALM, "--data", "server", "--address", host, status=1)
    assert "another --data" in said
    assert "can be no realm" in home.run("serve", "--realm", "a b", "--data", "other", status=2)


def test_wrong_names_are_told_with_what_to_do(home: Home, served: Path) -> None:
    served.write_text(served.read_text() + ":::\nother.test 10.0.0.1:99999\n")
    said = home.run("mount", "--no-kernel", "--realms", str(served))
    assert "line 2: ':::' can be no realm" in said
    assert "line 3: bad port" in said
    assert "line 2" in home.run("doctor", status=1)
    assert f"/{REALM}/no/such: No such file" in home.run("ls", f"{REALM}/no/such", status=1)
    for command in (("ls", "no.such.test"), ("hoard", "add", "no.such.test/x"), ("get", "no.such.test/x")):
        said = home.run(*command, status=1)
        assert "there is no realm no.such.test: neither DNS nor the realms file" in said, said
    (home.top / "token").write_text("rubbish")
    said = home.run("login", "--from-file", "token", f"ann@{REALM}", status=1)
    assert "login --to-file" in said
    assert "Kinds: cache" in home.run("events", "--kind", "nosuch", status=2)
    said = home.run("hoard", "profile", "enable", "nosuch", status=1)
    assert said.rstrip().endswith("Those there are: none")
    home.run("login", f"ann@{REALM}", stdin=PASSWORD)
    home.run("get", f"{REALM}/nosuch", status=1)


def test_a_full_disk_of_this_machine_is_told(home: Home, served: Path) -> None:
    start(home, served)
    home.run("login", f"ann@{REALM}", stdin=PASSWORD)
    (home.top / "data").write_bytes(bytes(100_000))
    home.run("put", "data", f"{REALM}/data")
    home.run("changes", "send")
    (home.top / "out.part").symlink_to("/dev/full")
    said = home.run("get", f"{REALM}/data", "out", status=1)
    assert "Make room on it" in said
    assert "Traceback" not in said
