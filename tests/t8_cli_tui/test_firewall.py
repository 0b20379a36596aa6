"""The firewall recipes of the documentation are such as nft takes."""

import re
import shutil
import subprocess
import textwrap

import pytest

from tests.t8_cli_tui.conftest import REPOSITORY

NFT = shutil.which("nft") or "/usr/sbin/nft"


def test_nft_takes_the_recipes() -> None:
    text = (REPOSITORY / "docs" / "explanation" / "security.md").read_text()
    blocks = [textwrap.dedent(block) for block in re.findall(r"(?:^ {4}.*\n|^\n)+", text, re.MULTILINE)]
    recipes = "".join(block for block in blocks if "table inet" in block)
    assert recipes.count("table inet") == 2
    namespace = ["unshare", "--user", "--map-root-user", "--net"]
    try:
        able = subprocess.run([*namespace, NFT, "list", "ruleset"], capture_output=True, check=False)
    except OSError as error:
        pytest.skip(f"nft cannot be run here: {error}")
    if able.returncode != 0:
        pytest.skip(f"nft cannot be run here: {able.stderr.decode(errors='replace')}")
    done = subprocess.run(
        [*namespace, NFT, "--check", "--file", "-"],
        input=recipes,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
