"""`hoard` and `cache` as commands, at an embedded realm that comes and goes."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from realmfs.host.conditions import low_battery
from tests.loopback import own_address
from tests.t8_cli_tui.conftest import Home

REALM = "home.test"
FILES = 30


@contextmanager
def serving(home: Home, program: str = "realmfs") -> Iterator[Path]:
    """A realm with a small tree, served by that module; yields a realms file."""
    data, log, tree = home.top / "server", home.top / "server.log", home.top / "tree"
    for number in range(FILES):
        file = tree / "src" / f"d{number % 3}" / f"f{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"%d\n" % number * 1000)
    host = own_address()
    argv = [
        "serve",
        "--realm",
        REALM,
        "--data",
        str(data),
        "--address",
        f"{host}:24320",
        "--import",
        str(tree),
    ]
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", program, *argv], stdout=output, stderr=output, env=home.environment
        )
    try:
        limit = time.monotonic() + 30
        while "serving" not in log.read_text():
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < limit
            time.sleep(0.02)
        realms = home.top / "realms"
        realms.write_text(f"{REALM} {host}:24320\n")
        yield realms
    finally:
        server.terminate()
        server.wait(10)


def test_hoarding_from_the_first_entry_to_unplugging(home: Home) -> None:
    with serving(home) as realms:
        home.run("mount", "--no-kernel", "--realms", str(realms))
        assert "Nothing is hoarded" in home.run("hoard", "list")
        assert home.run("hoard", "verify").startswith("0 of 0")
        home.run("hoard", "add", f"/coda/{REALM}/src", "600:d+")
        assert "no attribute" in home.run("hoard", "add", f"/coda/{REALM}/src", "6:x", status=1)
        plan = json.loads(home.run("hoard", "plan", "--json"))
        assert (plan["fetched"]["files"], plan["evicted"]["files"], plan["short"]) == (FILES, 0, [])
        assert f"{REALM}/src/d0/f0" in home.run("hoard", "verify", status=1)
        assert f"{FILES} objects" in home.run("hoard", "walk")
        assert "all here:        yes" in home.run("hoard", "status")
        assert f"/{REALM}/src  600:d+" in home.run("hoard", "list")
        (entry,) = json.loads(home.run("hoard", "list", "--json"))
        assert (entry["present"], entry["objects"], entry["place"]) == (FILES + 5, FILES + 5, "./src")
        assert f"{REALM}, ./src>, {os.geteuid()}, 600:d+" in home.run("hoard", "list", "--coda")
        details = json.loads(home.run("stat", "--json", f"{REALM}/src"))["details"]
        assert details["hoard"] == "600:d+"
        assert int(details["priority"]) >= 45_000
        usage = json.loads(home.run("cache", "usage", "--json"))
        assert usage["hoarded"] >= FILES
        listed = home.run("cache", "list", "--long")
        assert f"/{REALM}/src/d1/f1" in listed
        assert " dropped, " in home.run("cache", "flush", f"{REALM}/src/d2")
        assert f"{REALM}/src/d2" in home.run("hoard", "verify", status=1)
        home.run("cache", "fetch", "-r", f"{REALM}/src/d2")
        assert "is here" not in home.run("hoard", "verify")
        assert json.loads(home.run("cache", "limit", "4M", "--json"))["size"] == 4 << 20
        home.run("hoard", "off")
        assert "on demand" in home.run("hoard", "status")
    home.run("servers", "--check")
    assert home.run("cat", f"{REALM}/src/d1/f28") == "28\n" * 1000
    home.run("hoard", "verify")
    home.run("cache", "flush", "--all", status=4)


def test_command_files_and_profiles(home: Home) -> None:
    with serving(home) as realms:
        home.run("mount", "--no-kernel", "--realms", str(realms))
        file = home.top / "commands"
        file.write_text(
            f"clear\nadd /coda/{REALM}/src/d0 100:c+\nadd /coda/{REALM}/src/d1/f1\nnonsense here\n"
            f"delete /coda/{REALM}/src/d1/f1\nwalk\n"
            f"verify {home.top / 'verified'} 101\nlist {home.top / 'list'}\n"
        )
        said = home.run("hoard", "load", str(file), status=1)
        assert f"{file}:4:1: there is no command 'nonsense'" in said
        assert "parse error: nonsense here" in said
        assert (home.top / "list").read_text().endswith(f"@{REALM}, ./src/d0>, {os.geteuid()}, 100:c+\n")
        assert (home.top / "verified").read_text() == f"{'OK':>25}  /{REALM}/src/d0 c+\n"
        assert home.run("hoard", "save") == f"add /coda/{REALM}/src/d0 100:c+\n"
        (home.top / "saved").write_text("old")
        home.run("hoard", "save", "saved")
        assert (home.top / "saved").read_text() == f"add /coda/{REALM}/src/d0 100:c+\n"
        home.run("hoard", "clear")
        home.run("hoard", "save", "empty")
        assert (home.top / "empty").read_text() == ""
        home.run("hoard", "add", f"{REALM}/src/d0", "100:c+")
        profile = home.top / "config" / "realmfs" / "hoard" / "work"
        profile.parent.mkdir(parents=True, exist_ok=True)
        profile.write_text(f"# work\nadd /coda/{REALM}/src/d1 300:d+\nadd {REALM}/src/d2 9999\n")
        assert "work  -" in home.run("hoard", "profile", "list")
        said = home.run("hoard", "profile", "enable", "work")
        assert f"{profile}:3:{len(REALM) + 13}: a priority" in said
        assert [one["profile"] for one in json.loads(home.run("hoard", "list", "--json"))] == ["work", ""]
        assert "a priority" in home.run("hoard", "verify", status=1)
        profile.write_text(f"add /coda/{REALM}/src/d1 300:d+\n")
        home.run("hoard", "walk")
        home.run("hoard", "verify")
        home.run("hoard", "profile", "disable", "work")
        assert home.run("hoard", "save") == f"add /coda/{REALM}/src/d0 100:c+\n"
        assert "no entry" in home.run("hoard", "remove", f"{REALM}/src/d1", status=1)
        assert "entries removed: 1" in home.run("hoard", "clear")


@pytest.mark.kernel
def test_learning_and_attributes_on_a_mount(home: Home) -> None:
    with serving(home) as realms:
        top = home.top / "coda"
        top.mkdir()
        home.run("mount", str(top), "--realms", str(realms))
        (top / REALM / "src" / "d0" / "f0").read_bytes()
        script = f"cat {top}/{REALM}/src/d0/* >/dev/null; cat {top}/{REALM}/src/d1/f1 >/dev/null"
        said = home.run("hoard", "learn", "--", "sh", "-c", script)
        lines = [line for line in said.splitlines() if line.startswith("add ")]
        assert lines == [f"add /coda/{REALM}/src/d0 100:c+", f"add /coda/{REALM}/src/d1/f1 100"]
        home.run("hoard", "learn", "--profile", "mine", "--", "sh", "-c", script)
        home.run("hoard", "profile", "enable", "mine")
        home.run("hoard", "walk")
        directory = top / REALM / "src" / "d2"
        assert os.getxattr(directory, "user.coda.hoard") == b"0"
        os.setxattr(directory, "user.coda.hoard", b"700:d+")
        assert os.getxattr(directory, "user.coda.hoard") == b"700:d+"
        assert [one["priority"] for one in json.loads(home.run("hoard", "list", "--json"))] == [700, 100, 100]
        with pytest.raises(OSError, match="Invalid"):
            os.setxattr(directory, "user.coda.hoard", b"often")
        os.setxattr(directory, "user.coda.hoard", b"0")
        assert os.getxattr(directory, "user.coda.hoard") == b"0"
        home.run("unmount", str(top))


def test_a_low_battery_is_known(tmp_path: Path) -> None:
    def supply(name: str, **values: str) -> None:
        for key, value in values.items():
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / key).write_text(value + "\n")

    assert low_battery(tmp_path / "none") is None
    assert low_battery(tmp_path) is None
    supply("BAT0", type="Battery", status="Discharging", capacity="15")
    assert low_battery(tmp_path) == 15
    supply("mouse", type="Battery", status="Discharging", capacity="90", scope="Device")
    assert low_battery(tmp_path) == 15
    supply("AC", type="Mains", online="1")
    assert low_battery(tmp_path) is None
    supply("AC", online="0")
    supply("BAT1", type="Battery", status="Discharging", capacity="60")
    assert low_battery(tmp_path) is None
    supply("BAT1", capacity="3")
    supply("BAT0", status="Charging")
    assert low_battery(tmp_path) is None
