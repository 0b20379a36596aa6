"""What a second phase does to a directory that somebody else has changed in between, at real servers.

As it comes it cuts their logs, and no resolution can help the directory any more; in the form that realmfs
gives it there (realms/cop2.py) it does not. The directory that is spoilt here stays in conflict.
"""

import json
import os
import re
import secrets
import sys
from pathlib import Path

import pytest

from bench.ournode import REPOSITORY
from bench.rig import OUR_NODE, Rig
from tests.interop.nodes import PASSWORDS, Place

HOSTS = ("10.79.0.11", "10.79.0.12", "10.79.0.13")


@pytest.mark.parametrize(("form", "resolved"), [("keep", "SUCCESS"), ("cut", "EINCONS")])
def test_a_second_phase_that_was_overtaken(
    rig: Rig, alice: Place, tmp_path: Path, form: str, resolved: str
) -> None:
    tmp_path.chmod(0o777)
    token = os.fspath(tmp_path / "alice")
    rig.exec("client", "clog", "-pipe", "-tofile", token, "alice@rig.test", stdin=PASSWORDS["alice"] + "\n")
    path = f"alice/x{secrets.token_hex(4)}"
    alice.run("mkdir", path)
    alice.below("alice").integrate()
    found = re.search(r"([0-9a-f]+\.[0-9a-f]+\.[0-9a-f]+)@", alice.run("cfs", "getfid", path))
    assert found is not None
    program = [sys.executable, "-m", "tests.interop.overtaken", found[1], token, form, *HOSTS]
    said = json.loads(rig.exec(OUR_NODE, "env", "-C", os.fspath(REPOSITORY), *program).splitlines()[-1])
    assert len({tuple(versions) for versions in said["before"]}) == len(HOSTS), "their own changes differ"
    assert said["resolve"] == resolved
    assert said["marked"] == [form == "cut"] * len(HOSTS)
    assert (len({tuple(versions) for versions in said["after"]}) == 1) == (form == "keep")
