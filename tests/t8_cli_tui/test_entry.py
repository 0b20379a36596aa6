"""The command as a whole: its table, its start-up time, its exit statuses."""

import importlib
import os
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from realmfs import __version__
from realmfs.cli.main import COMMANDS, main

REPOSITORY = Path(__file__).resolve().parents[2]


def test_version_is_the_packages() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert result.exit_code == 0
    assert __version__ in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_in_the_table_exists_and_has_help(name: str) -> None:
    assert isinstance(importlib.import_module(f"realmfs.cli.{name}").command, click.Command)
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert result.output.startswith("Usage:")


def test_help_imports_no_command() -> None:
    code = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from realmfs.cli.main import main\n"
        "result = CliRunner().invoke(main, ['--help'])\n"
        "assert 'demo' in result.output\n"
        "loaded = [name for name in sys.modules if name.startswith('realmfs.') or name == 'trio']\n"
        "assert set(loaded) <= {'realmfs.cli', 'realmfs.cli.main'}, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


def test_readers_need_no_event_loop() -> None:
    """What only talks to the daemon starts quickly: no trio, no cryptography, no SQLite."""
    heavy = "{'trio', 'cryptography', 'sqlite3', 'dns', 'pyfuse3'}"
    names = ["status", "servers", "ls", "cat", "changes", "stat"]
    code = (
        "import importlib, sys\n"
        f"for name in {names}: importlib.import_module('realmfs.cli.' + name)\n"
        f"assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


def test_version_is_quick() -> None:
    """150 ms are promised; the bound here allows for a busy machine, the least of some runs counts."""
    times = []
    for _ in range(5):
        start = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "realmfs", "--version"], check=True, cwd=REPOSITORY, capture_output=True
        )
        times.append(time.monotonic() - start)
    assert min(times) < 0.3


def test_no_daemon_is_status_3(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["status", "--socket", str(tmp_path / "none")])
    assert result.exit_code == 3
    assert "realmfs mount" in result.output


def test_wrong_usage_is_status_2(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["statsu"])
    assert result.exit_code == 2
    assert "Did you mean status?" in result.output
    assert CliRunner().invoke(main, ["stat"]).exit_code == 2
    config = tmp_path / "c.toml"
    config.write_text("cache_sise = 3\n")
    result = CliRunner().invoke(main, ["status", "--config", str(config)])
    assert result.exit_code == 2
    assert "cache_sise" in result.output
    assert "cache_size" in result.output


def test_a_broken_pipe_is_quiet(tmp_path: Path) -> None:
    environment = os.environ | {"XDG_CONFIG_HOME": str(tmp_path)}
    shell = f"{sys.executable} -m realmfs config show | head -1"
    result = subprocess.run(
        ["bash", "-c", shell], check=False, cwd=REPOSITORY, capture_output=True, env=environment
    )
    assert b"Traceback" not in result.stderr
