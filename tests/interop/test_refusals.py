"""What realmfs refuses at once (docs/reference/semantics.md), sent to a real server all the same.

Every row of the page. A server ends itself at a name of more than 255 bytes and at one name too many in a
directory, which is a refusal of a kind; those rows come last. Some names it takes, but no client could reach
them afterwards.
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

pytestmark = pytest.mark.timeout(240)  # the server is started again after each row that ends it

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
    "link-mount": "EISDIR",
    "link-volume": "EINVAL",
    "rename-volume": "EINVAL",
    "remove-mount": "EACCES",
    "replace-mount": "EACCES",
    "replace-not-empty": "ENOTEMPTY",
    "no-insert-right": "EACCES",
    "no-delete-right": "EACCES",
    "no-write-right": "EACCES",
    "no-right-to-chmod": "EACCES",
    "no-right-to-set-times": "EACCES",
    "set-user-id": "SUCCESS",
    "rename-mount": "SUCCESS",
    "at-sys": "SUCCESS",
    "at-cpu": "SUCCESS",
    "conflict-name": "SUCCESS",
    "long-link": "SUCCESS",
    "write-2gib": "EINVAL",
    "truncate-2gib": "EINVAL",
    "directory-full": "dead",
    "directory-full-link": "dead",
    "directory-full-rename": "dead",
    "long-new-name": "dead",
    "long-name": "dead",
}


@pytest.fixture
def tokens(rig: Rig, tmp_path: Path) -> list[str]:
    """Files with tokens of alice, who may do anything in the volume but is no administrator, and of one."""
    tmp_path.chmod(0o777)
    files = []
    for user in ("alice", "admin"):
        file = os.fspath(tmp_path / user)
        rig.exec("client", "clog", "-pipe", "-tofile", file, f"{user}@rig.test", stdin=PASSWORDS[user] + "\n")
        files.append(file)
    return files


def send(rig: Rig, tokens: list[str], *rows: str) -> dict[str, str]:
    program = [sys.executable, "-m", "tests.interop.raw_records", SERVER, VOLUME, *tokens, *rows]
    said = rig.exec(OUR_NODE, "env", "-C", os.fspath(REPOSITORY), *program)
    answers: dict[str, str] = json.loads(said.splitlines()[-1])
    return answers


def test_what_a_real_server_answers(rig: Rig, tokens: list[str]) -> None:
    assert ANSWERS.keys() == ROWS.keys()
    assert ROWS.keys() == ATTEMPTS.keys()
    answers: dict[str, str] = {}
    while rest := [row for row in ROWS if row not in answers]:
        got = send(rig, tokens, *rest)
        answers |= got
        if "dead" in got.values():
            assert "no codasrv runs on s1" in (rig.missing() or "")
            rig.control("server", "1", "start")
    assert answers == ANSWERS
