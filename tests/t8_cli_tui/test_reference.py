"""The generated pages of the documentation are current, and the man pages can be formatted."""

import os
import shutil
import subprocess
import sys

import pytest

from realmfs.cli.main import COMMANDS
from tests.t8_cli_tui.conftest import REPOSITORY


def test_generated_pages_are_current() -> None:
    argv = [sys.executable, "scripts/reference.py", "--check"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(
        argv, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_each_command_is_in_the_reference() -> None:
    page = (REPOSITORY / "docs" / "reference" / "commands.md").read_text()
    missing = [name for name in COMMANDS if f"`{name}" not in page]
    assert not missing


@pytest.mark.skipif(shutil.which("man") is None, reason="no man here")
def test_man_can_read_the_pages() -> None:
    for page in sorted((REPOSITORY / "docs" / "man").glob("*.1"))[:3]:
        argv = ["man", "--warnings", "-E", "UTF-8", "-l", str(page)]
        result = subprocess.run(argv, capture_output=True, text=True, check=True)
        assert not result.stderr
