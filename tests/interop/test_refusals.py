"""What realmfs refuses at once (docs/reference/semantics.md), sent to a real server all the same.

A server ends itself at a name of more than 255 bytes, which is a refusal of a kind; those rows come last.
Some names it takes, but no client could reach them afterwards. A store beyond 2 GiB and a move into another
volume cannot even be said in a record. What rights forbid is in test_mount.py.
"""

import json
import os
import sys
from pathlib import Path

import pytest

from bench.ournode import REPOSITORY
from bench.rig import OUR_NODE, Rig
from tests.interop.nodes import PASSWORDS
from tests.interop.raw_records import ROWS
from tests.t5_venus.test_refusals import ATTEMPTS

SERVER, VOLUME = "10.79.0.11", "7f000001"  # solo: one replica, so that nothing is left to resolve

ANSWERS = {
    "chmod-link": "EACCES",
    "chown": "EACCES",
    "link-elsewhere": "EXDEV",
    "link-symlink": "EISDIR",
    "link-directory": "EISDIR",
    "rename-hard-link": "EXDEV",
    "rename-into-itself": "ELOOP",
    "not-empty": "ENOTEMPTY",
    "rename-at-sys": "SUCCESS",
    "rename-conflict-name": "SUCCESS",
    "at-sys": "SUCCESS",
    "at-cpu": "SUCCESS",
    "conflict-name": "SUCCESS",
    "long-link": "SUCCESS",
    "long-new-name": "dead",
    "long-name": "dead",
}


@pytest.fixture
def token(rig: Rig, tmp_path: Path) -> Path:
    """A token of alice, who may do anything in the volume but is no administrator."""
    file = tmp_path / "token"
    tmp_path.chmod(0o777)
    argv = ("clog", "-pipe", "-tofile", os.fspath(file), "alice@rig.test")
    rig.exec("client", *argv, stdin=PASSWORDS["alice"] + "\n")
    return file


def send(rig: Rig, token: Path, *rows: str) -> dict[str, str]:
    program = [sys.executable, "-m", "tests.interop.raw_records", SERVER, VOLUME, os.fspath(token), *rows]
    said = rig.exec(OUR_NODE, "env", "-C", os.fspath(REPOSITORY), *program)
    answers: dict[str, str] = json.loads(said.splitlines()[-1])
    return answers


def test_what_a_real_server_answers(rig: Rig, token: Path) -> None:
    assert ANSWERS.keys() == ROWS.keys()
    assert ROWS.keys() <= ATTEMPTS.keys(), "a row that realmfs does not refuse"
    answers: dict[str, str] = {}
    while rest := [row for row in ROWS if row not in answers]:
        got = send(rig, token, *rest)
        answers |= got
        if "dead" in got.values():
            assert "no codasrv runs on s1" in (rig.missing() or "")
            rig.control("server", "1", "start")
    assert answers == ANSWERS
