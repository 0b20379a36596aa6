"""What other programs read: `status --short`, `metrics`, `doctor`, and the shells' completion."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from click.testing import CliRunner

from realmfs.cli import doctor
from realmfs.cli.indicator import indicator, looks, lost
from realmfs.cli.main import COMMANDS, main
from realmfs.cli.metrics import render
from realmfs.control.protocol import ControlError
from tests.t8_cli_tui.conftest import REPOSITORY, Home
from tests.t8_cli_tui.test_login import PASSWORD, REALM, served, start

__all__ = ["served"]  # a fixture

STATUS = {
    "version": "1",
    "uptime": 3.5,
    "mount_point": None,
    "off_line": [],
    "servers_up": 1,
    "servers_down": 0,
    "pending": 0,
    "pending_bytes": 0,
    "conflicts": 0,
    "cache_used": 1 << 20,
    "cache_size": 1 << 30,
    "troubles": [],
    "waiting": [],
    "requests": {"lookup": 4},
}
TOKEN = {"realm": "r", "user": "ann", "state": "valid", "ends": 7200.0, "pending": 0}
USAGE = dict.fromkeys(
    (
        "size",
        "used",
        "free",
        "objects",
        "objects_limit",
        "hoarded",
        "hoarded_bytes",
        "pending",
        "pending_bytes",
        "pending_limit",
    ),
    7,
)
SAMPLE = re.compile(r'realmfs_[a-z_]+(\{[a-z]+="([^"\\\n]|\\.)*"(,[a-z]+="([^"\\\n]|\\.)*")*\})? [-+.e0-9]+')


EXPIRED = TOKEN | {"state": "expired"}
DOWN = {"servers_up": 0, "servers_down": 2}
OFF = DOWN | {"off_line": ["everywhere: by hand"]}
CACHED = "1.0 MiB of 1.0 GiB cached"


@pytest.mark.parametrize(
    ("changed", "tokens", "word", "line"),
    [
        ({}, [TOKEN], "clean", f"online, 1 server, 0 pending, token 2 h, {CACHED}"),
        ({}, [], "clean", f"online, 1 server, 0 pending, no token, {CACHED}"),
        ({"pending": 2}, [TOKEN], "pending", f"online, 1 server, 2 pending, token 2 h, {CACHED}"),
        (
            OFF | {"pending": 3},
            [EXPIRED],
            "offline",
            f"off line, 0 servers (2 down), 3 pending, log in again, {CACHED}",
        ),
        (
            DOWN,
            [TOKEN],
            "unreachable",
            f"no server answers, 0 servers (2 down), 0 pending, token 2 h, {CACHED}",
        ),
        (
            DOWN | {"troubles": ["x"]},
            [TOKEN],
            "trouble",
            f"trouble, no server answers, 0 servers (2 down), 0 pending, token 2 h, {CACHED}",
        ),
        (
            OFF | {"conflicts": 1, "troubles": ["x"]},
            [],
            "conflict",
            f"1 conflict, trouble, off line, 0 servers (2 down), 0 pending, no token, {CACHED}",
        ),
        (
            {"conflicts": 2, "pending": 3},
            [EXPIRED | {"pending": 3}],
            "login",
            f"2 conflicts, online, 1 server, 3 pending, log in again, {CACHED}",
        ),
    ],
)
def test_what_a_status_bar_shows(
    changed: dict[str, object], tokens: list[dict[str, object]], word: str, line: str
) -> None:
    shown = indicator(STATUS | changed, tokens, 0.0)
    told = json.loads(shown.json())
    assert (told["text"], told["alt"], told["class"]) == (line, word, word)
    assert "\n" not in shown.json()
    assert ("Log in again in r: 3 changes wait for it" in told["tooltip"]) == (word == "login")
    assert ("see realmfs conflicts" in told["tooltip"]) == bool(changed.get("conflicts"))


def test_the_status_bar_without_a_daemon(home: Home) -> None:
    assert home.run("status", "--short", status=3) == "not running\n"
    told = json.loads(home.run("status", "--short", "--json", status=3))
    assert (told["class"], "realmfs mount" in told["tooltip"]) == ("stopped", True)
    foreign = lost(ControlError(-1, "another version"))
    assert (foreign.alt, foreign.text, foreign.tooltip) == ("trouble", "trouble", "another version")
    assert "--short" in home.run("status", "--follow", status=2)


def test_the_status_bar_follows_the_daemon_and_waits_for_it(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    naps: list[float] = []
    monkeypatch.setattr("realmfs.cli.indicator.time.sleep", naps.append)
    shown = looks(home.socket)
    assert isinstance(shown, Generator)
    assert next(shown).alt == "stopped"
    home.run("mount", "--no-kernel")
    assert next(shown).alt == "clean"
    home.run("disconnect")
    now = next(shown)
    assert (now.alt, now.tooltip) == ("offline", "Off line everywhere: disconnected by hand")
    home.run("unmount")
    assert next(shown).alt == "stopped"
    assert len(naps) >= 3
    shown.close()


def test_metrics_are_in_the_text_form_whatever_the_names() -> None:
    server = {"realm": 'a"\\\n', "address": "1:2", "state": "up", "round_trip": None, "bandwidth": 1e9}
    volume = {"name": "v\udcff", "realm": "r", "id": "7f", "reachable": False, "pending": 2}
    text = render(STATUS, [server | {"callbacks": 3}], [volume], USAGE)
    assert text.endswith("\n")
    lines = text.splitlines()
    for line in lines:
        assert SAMPLE.fullmatch(line) or re.fullmatch(r"# (HELP|TYPE) realmfs_[a-z_]+ .+", line), line
    assert 'realmfs_server_up{realm="a\\"\\\\\\n",address="1:2"} 1' in lines
    assert 'realmfs_volume_pending_changes{volume="v?@r",id="7f"} 2' in lines
    assert 'realmfs_requests_total{operation="lookup"} 4' in lines
    assert "realmfs_server_round_trip_seconds" not in text, "nobody knows it"


def test_with_a_daemon(home: Home, served: Path) -> None:
    start(home, served)
    home.run("login", f"ann@{REALM}", stdin=PASSWORD)
    home.run("ls", REALM)
    assert home.run("status", "--short").startswith("online, 1 server, 0 pending, token ")
    assert home.run("metrics", "--file", "m.prom") == ""
    assert 'realmfs_server_up{realm="' in (home.top / "m.prom").read_text()
    assert sorted(path.name for path in home.top.glob("*m.prom*")) == ["m.prom"]
    status = 0 if Path("/dev/fuse").exists() else 1  # without it something is wrong indeed
    found = json.loads(home.run("doctor", "--json", "--config", str(_fine(home)), status=status))
    verdicts = {one["check"]: one["verdict"] for one in found if one["check"] not in ("/dev/fuse", "DNS")}
    assert verdicts["server"] == verdicts["login"] == verdicts["disk"] == "ok"
    home.run("logout")


def _fine(home: Home) -> Path:
    file = home.top / "fine.toml"
    file.write_text('dns = "127.0.0.1:9"\n')
    return file


def test_a_doctor_without_a_daemon_names_what_is_wrong(home: Home) -> None:
    file = home.top / "c.toml"
    file.write_text(f'realms = "{home.top}/none"\ndns = "127.0.0.1:9"\n')
    said = home.run("doctor", "--config", str(file), status=1)
    assert re.search(r"wrong +realms file .*No such file", said)
    assert re.search(r"note +DNS ", said)
    assert re.search(r"note +daemon .*realmfs mount", said)
    file.write_text("nonsense = 1\n")
    assert re.search(r"wrong +configuration .*nonsense", home.run("doctor", "--config", str(file), status=1))


def test_a_doctor_looks_at_logins_and_the_clock() -> None:
    expired = TOKEN | {"state": "expired", "pending": 2}
    verdicts = [one.verdict for one in doctor._tokens([expired, TOKEN, TOKEN], 7000.0)]
    assert verdicts == ["wrong", "note", "note"]
    assert [one.verdict for one in doctor._clock(0.0)] == ["wrong"]
    (nameless,) = doctor._tokens([expired | {"user": ""}], 7000.0)
    assert nameless.advice == "realmfs login USER@r", "the realm alone would be taken for a user"


def test_completion_offers_commands_and_options() -> None:
    def offered(words: str, at: int) -> str:
        environment = {"_REALMFS_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(at)}
        return CliRunner().invoke(main, [], prog_name="realmfs", env=environment).output

    assert offered("realmfs comp", 1).split() == ["plain,completion"]
    assert len(offered("realmfs ", 1).split()) == len(COMMANDS)
    assert "plain,--short" in offered("realmfs status --s", 2).split()
    assert offered("realmfs completion ", 2).split() == ["plain,bash", "plain,zsh", "plain,fish"]


def test_completion_offers_the_names_of_the_tree(home: Home, served: Path) -> None:
    def offered(*words: str) -> list[str]:
        environment = home.environment | {
            "_REALMFS_COMPLETE": "zsh_complete",  # three lines an item: type, value, help
            "COMP_WORDS": " ".join(("realmfs", *words)),
            "COMP_CWORD": str(len(words)),
        }
        lines = CliRunner().invoke(main, [], prog_name="realmfs", env=environment).output.split("\n")
        return [f"{kind} {value}" for kind, value in zip(lines[::3], lines[1::3], strict=False) if kind]

    assert offered("ls", "") == [], "no daemon runs"
    start(home, served)
    home.run("login", f"ann@{REALM}", stdin=PASSWORD)
    home.run("mkdir", f"{REALM}/some", f"{REALM}/some/one", f"{REALM}/other")
    assert offered("ls", REALM[:2]) == [f"plain {REALM}/"]
    assert offered("hoard", "add", f"{REALM}/so") == [f"plain {REALM}/some/"]
    assert offered("rm", f"{REALM}/other", f"{REALM}/some/") == [f"plain {REALM}/some/one/"]
    assert offered("stat", f"{REALM}/none/x") == []
    assert offered("ls", "/tm") == ["file /tm"], "the shell's own affair"
    assert offered("ls", "~/") == ["file ~/"]


def test_completing_a_command_imports_none() -> None:
    code = (
        "import sys; from realmfs.cli.main import main\n"
        "try: main([], prog_name='realmfs')\n"
        "finally: print([name for name in sys.modules if name.startswith('realmfs.cli.')])"
    )
    asked = {
        "_REALMFS_COMPLETE": "bash_complete",
        "COMP_WORDS": "realmfs ",
        "COMP_CWORD": "1",
    }
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | asked,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines()[-1] == "['realmfs.cli.main']"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(home: Home, shell: str) -> None:
    script = home.run("completion", shell)
    assert f"_REALMFS_COMPLETE={shell}_complete" in script
    if shell != "fish":  # which knows by itself what a slash at the end means
        assert "== */ ]] && " in script, "click's script was another one"


def test_bash_completes(home: Home) -> None:
    """In a bash of its own: the function that the script installs fills COMPREPLY."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    tools = home.top / "bin"
    tools.mkdir()
    program = tools / "realmfs"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m realmfs "$@"\n')
    program.chmod(0o755)
    script = """
source <(realmfs completion bash)
offer() {
    COMP_CWORD=$1 COMPREPLY=(); shift; COMP_WORDS=("$@")
    _realmfs_completion realmfs
    echo "${COMPREPLY[*]}"
}
complete -p realmfs > /dev/null || exit 9
offer 1 realmfs mountp
offer 2 realmfs changes ""
offer 2 realmfs stat --no
"""
    environment = home.environment | {"PATH": f"{tools}:{os.environ['PATH']}"}
    argv = [bash, "--norc", "-c", script]
    result = subprocess.run(argv, env=environment, cwd=home.top, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["mountpoint", "discard export import list send", "--no-follow"]
